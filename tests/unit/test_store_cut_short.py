"""Edits of a directory that fail half-way, or are killed: what is reported, and what stays in the directory."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.applying import interface, value
from tests.refusing import raises
from tests.stores import write
from vethlib._files import Replacement
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.protocol import StoreError

A, B, C = interface("a", "b"), interface("b", "a"), interface("c", "a")
LEFT = f".vethlib-{'0f' * 8}"


@pytest.fixture
def editor(path: Path) -> DirectoryEditor:
    return DirectoryEditor(path)


def failing(work: Callable[..., None], names: str) -> Callable[..., None]:
    """Return the same function, which fails for a path that ends with this."""

    def fail(*args: object, **how: object) -> None:
        if str(args[-1]).endswith(names):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        work(*args, **how)

    return fail


@pytest.mark.parametrize(("fails", "done", "names"), [("a.json", 0, "a"), ("b.json", 1, "b"), ("c.json", 2, "c")])
@pytest.mark.parametrize("edit", ["put", "delete"])
def test_an_edit_that_fails_half_way_says_what_was_done(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch, edit: str, fails: str, done: int, names: str
) -> None:
    if edit == "delete":
        editor.put(A, B, C)
    monkeypatch.setattr(os, "replace", failing(os.replace, fails))
    monkeypatch.setattr(os, "unlink", failing(os.unlink, fails))
    with raises(StoreError, names=(names,), done=done, left=3 - done, path=f"{path}/{fails}") as raised:
        editor.put(A, B, C) if edit == "put" else editor.delete("a", "b", "c")
    assert f"; {done} of 3 were {'stored' if edit == 'put' else 'deleted'}" in str(raised.value)
    monkeypatch.undo()
    assert len(editor.values()) == (done if edit == "put" else 3 - done)


def test_an_edit_whose_directory_cannot_be_flushed_was_made(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)
    with raises(StoreError, names=(), done=1, left=0, path=str(path)):
        editor.put(A)


def test_an_error_at_the_only_interface_says_no_more(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", failing(os.replace, "a.json"))
    with raises(StoreError, names=("a",), done=0, left=1) as raised:
        editor.put(A)
    assert "before the error" not in str(raised.value)


@pytest.mark.parametrize("read", [DirectoryEditor.values, DirectoryEditor.stored, lambda editor: editor.put(A)])
def test_a_directory_that_cannot_be_listed_is_named(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch, read: Callable[[DirectoryEditor], object]
) -> None:
    def fail(directory: int) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), directory)

    monkeypatch.setattr(os, "listdir", fail)
    with raises(StoreError, path=str(path), errno=errno.EIO):
        read(editor)


def test_an_edit_removes_what_a_killed_one_left_but_not_what_may_be_in_use(path: Path, editor: DirectoryEditor) -> None:
    long_ago = time.time() - 3600
    for name in (LEFT, ".vethlib-other", ".a.json.swp"):
        (path / name).write_text("x")
        os.utime(path / name, (long_ago, long_ago))
    recent = Replacement(str(path / "a.svg"))
    recent.write(b"x")
    editor.put(A)
    assert {".vethlib-other", ".a.json.swp", "a.json"} < set(os.listdir(path))
    assert LEFT not in os.listdir(path)
    recent.replace()


def test_what_is_stored_is_reported_even_if_it_cannot_be_read_again(
    path: Path, tmp_path: Path, vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: DirectoryEditor) -> None:
        raise StoreError("no answer", path=str(path))

    monkeypatch.setattr(DirectoryEditor, "values", fail)
    said = vethctl("put", str(write(tmp_path / "a", value("a", "b"), value("b", "a"))), "--store", f"dir:{path}")
    assert (said.code, sorted(os.listdir(path))) == (0, ["a.json", "b.json"])
    assert "added 2 interfaces" in said.out
    assert "no answer" in said.err
