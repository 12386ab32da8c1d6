"""The system calls of editors, sed, git and Kubernetes on files are imitated: never a deletion."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.stores import changed, interface_text, is_readable, nothing, snapshot
from vethlib.agent.stores.files import agenda
from vethlib.agent.stores.files.directory import DirectoryStore

OLD, NEW = interface_text("a", "b", mtu=1400), interface_text("a", "b", mtu=1300)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text(OLD)
    return tmp_path


@pytest.fixture
def store(path: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(path)
    assert list(snapshot(store)) == ["a"]
    yield store
    store.close()


Pause = Callable[[], None]


def vim(path: Path, pause: Pause) -> None:
    """:set backup writebackup backupcopy=no: a test file, the old one moved away, a new one in its place."""
    (path / ".a.json.swp").write_bytes(b"b0VIM")
    with open(path / "4913", "x"):
        os.chmod(path / "4913", 0o644)
    pause()
    (path / "4913").unlink()
    (path / "a.json").rename(path / "a.json~")
    pause()
    with open(path / "a.json", "x") as file:
        pause()
        _in_halves(file, pause)
        os.fsync(file.fileno())
    os.chmod(path / "a.json", 0o644)
    pause()
    (path / ".a.json.swp").unlink()


def vim_writing_in_place(path: Path, pause: Pause) -> None:
    """backupcopy=yes: the old one copied, then truncated and written."""
    (path / "a.json~").write_text(OLD)
    with open(path / "a.json", "w") as file:
        pause()
        _in_halves(file, pause)
    pause()
    (path / "a.json~").unlink()


def emacs(path: Path, pause: Pause) -> None:
    """A lock that is a link to nowhere, an auto-save file, the old one renamed to a backup, a new one written."""
    (path / ".#a.json").symlink_to("root@host.4711:1700000000")
    (path / "#a.json#").write_text(NEW)
    pause()
    (path / "a.json").rename(path / "a.json~")
    pause()
    with open(path / "a.json", "w") as file:
        _in_halves(file, pause)
        os.fchmod(file.fileno(), 0o644)
    pause()
    (path / "#a.json#").unlink()
    (path / ".#a.json").unlink()


def nano(path: Path, pause: Pause) -> None:
    """Truncates and writes."""
    with open(path / "a.json", "r+") as file:
        file.truncate(0)
        pause()
        _in_halves(file, pause)


def sed(path: Path, pause: Pause) -> None:
    """sed -i: a temporary file of no name of ours, renamed over the old one."""
    with open(path / "sedAbCdEf", "x") as file:
        _in_halves(file, pause)
        os.fchmod(file.fileno(), 0o644)
    pause()
    (path / "sedAbCdEf").rename(path / "a.json")


def git(path: Path, pause: Pause) -> None:
    """git checkout: the old one removed, a new one created."""
    (path / "a.json").unlink()
    pause()
    with open(path / "a.json", "x") as file:
        _in_halves(file, pause)


def rsync(path: Path, pause: Pause) -> None:
    """A dot file that has our ending too far in front, renamed over the old one."""
    with open(path / ".a.json.Xy12Zw", "x") as file:
        _in_halves(file, pause)
    os.utime(path / ".a.json.Xy12Zw", (1, 1))
    pause()
    (path / ".a.json.Xy12Zw").rename(path / "a.json")


def _in_halves(file: IO[str], pause: Pause) -> None:
    file.write(NEW[: len(NEW) // 2])
    file.flush()
    pause()
    file.write(NEW[len(NEW) // 2 :])
    file.flush()


def assert_written(store: DirectoryStore) -> None:
    """The interface is as in NEW."""
    assert is_readable(store)
    one = changed(store)["a"]
    assert one is not None
    assert one.interface is not None
    assert one.interface.mtu == 1300


WRITERS = [vim, vim_writing_in_place, emacs, nano, sed, git, rsync]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: str(writer.__name__))
def test_a_write_is_one_change_and_nothing_in_between(
    store: DirectoryStore, path: Path, writer: Callable[[Path, Pause], None]
) -> None:
    writer(path, lambda: None)
    assert_written(store)
    nothing(store)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: str(writer.__name__))
def test_a_store_that_reads_after_every_step_of_it_sees_nothing_in_between_either(
    store: DirectoryStore, path: Path, writer: Callable[[Path, Pause], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "GRACE", 10.0)  # on a busy machine a single step may take longer than the usual one
    seen: list[object] = []
    writer(path, lambda: seen.extend(store.read()))
    seen += store.read()
    nothing(store)
    (change,) = seen
    assert change.value.interface.mtu == 1300  # type: ignore[attr-defined]


def test_a_config_map_changes_all_its_files_by_one_rename(tmp_path: Path) -> None:
    """Kubernetes: a.json -> ..data/a.json, ..data -> ..2024_1; an update points ..data at another directory."""

    def fill(name: str, *files: tuple[str, str]) -> None:
        (tmp_path / name).mkdir()
        for file, text in files:
            (tmp_path / name / file).write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    fill("..2024_1", ("a.json", OLD), ("b.json", interface_text("b")))
    for name in "ab":
        (tmp_path / f"{name}.json").symlink_to(f"..data/{name}.json")
    store = DirectoryStore(tmp_path)
    assert list(snapshot(store)) == ["a", "b"]

    fill("..2024_2", ("a.json", NEW), ("b.json", interface_text("b")))
    assert_written(store)
    for file in (tmp_path / "..2024_1").iterdir():
        file.unlink()
    (tmp_path / "..2024_1").rmdir()
    nothing(store)

    fill("..2024_3", ("a.json", NEW), ("c.json", interface_text("c")))
    (tmp_path / "c.json").symlink_to("..data/c.json")
    (tmp_path / "b.json").unlink()
    assert is_readable(store)
    changes = changed(store)
    if "b" not in changes:  # it waits for the file to be replaced, but not for a slow machine
        changes |= changed(store)
    assert changes.pop("b") is None
    assert list(changes) == ["c"]
    store.close()
