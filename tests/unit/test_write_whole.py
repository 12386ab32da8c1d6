"""The only writer of files: they are whole at every moment, and nothing is left beside them after an interruption."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.interrupts import boundaries, interrupted
from tests.witness import open_fds
from vethlib import _files
from vethlib._files import Replacement, is_unfinished, write_whole
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores import statuses
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.files import editing
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.cli.commands.host import graph

Functions = set[tuple[str, str]]


def functions_of(module: Any, *names: str) -> Functions:
    return {(module.__file__, name) for name in names}


WRITER = functions_of(_files, "write_whole", "__init__", "write", "flush", "replace", "write_all", "_give", "_replaced")


@pytest.fixture
def unclosed() -> Iterator[None]:
    """Objects that were made but not yet assigned when the interrupt came are closed by their end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def put(directory: Path, mtu: int) -> object:
    return DirectoryEditor(directory).put_text({name: f'{{"name": "{name}", "mtu": {mtu}}}' for name in "ab"})


def publish(directory: Path, number: int) -> None:
    StatusFiles(directory).publish({"a": Status("a", State.PENDING, f"reason {number}", 0.0)})


def say(directory: Path, number: int) -> None:
    AgentFile(directory, f"dir:{number}").write()


WRITES: dict[str, tuple[Callable[[Path, int], object], Functions, int]] = {
    # what writes there, the functions that are interrupted, how many files there are then
    "write_whole": (lambda path, number: write_whole(str(path / "a"), b"%d" % number), WRITER, 1),
    "graph": (lambda path, number: graph._write(str(path / "a.svg"), str(number)), WRITER, 1),
    "put": (put, WRITER | functions_of(editing, "_write"), 2),
    "status": (publish, WRITER | functions_of(statuses, "_write", "_rename"), 1),
    "agent": (say, WRITER, 1),
}


@pytest.mark.parametrize("name", WRITES)
def test_an_interruption_at_any_instant_leaves_whole_files_and_nothing_beside_them(
    name: str, tmp_path: Path, unclosed: None
) -> None:
    write, functions, files = WRITES[name]
    write(tmp_path, 1400)
    old = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert len(old) == files
    write(tmp_path, 1300)
    new = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    descriptors = open_fds()

    def write_again() -> None:
        write(tmp_path, 1300)

    def as_before() -> None:
        for file, content in old.items():
            (tmp_path / file).write_bytes(content)

    seen = set()
    as_before()
    instants = boundaries(write_again, lambda code: (code.co_filename, code.co_name) in functions)
    assert len(instants) > 100
    for instant in instants:
        as_before()
        assert interrupted(write_again, instant), f"at {instant}"
        found = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
        assert found.keys() == old.keys(), f"at {instant}"
        for file, content in found.items():
            assert content in (old[file], new[file]), f"{file} at {instant}"
        seen.add(found == new)
    assert seen == {False, True}
    if name != "put":  # between opening it again for fsync and the next bytecode, a descriptor can be lost
        assert open_fds() == descriptors


def test_what_cannot_be_written_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path, number in ((tmp_path / "directory", errno.EISDIR), (tmp_path / "none" / "a", errno.ENOENT)):
        with pytest.raises(OSError) as raised:
            write_whole(str(path), b"x")
        assert (raised.value.errno, raised.value.filename, raised.value.filename2) == (number, str(path), None)
    assert [one.name for one in tmp_path.iterdir()] == ["directory"]
    tmp_path.chmod(0o500)
    with dropped(), pytest.raises(PermissionError) as refused:
        write_whole(str(tmp_path / "a"), b"x")
    assert refused.value.filename == str(tmp_path / "a")


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(OSError) as raised:
            write_whole(str(file), b"x" * 20_000)  # the first write is a short one
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_mode_is_the_one_that_was_asked_for_whatever_the_umask_is(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        for mode in (0o600, 0o644, 0o640):
            write_whole(str(tmp_path / "a"), b"x", mode=mode)
            assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
        write_whole(str(tmp_path / "b"), b"x", mode=None)
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o666 & ~mask
        (tmp_path / "b").chmod(0o604)
        write_whole(str(tmp_path / "b"), b"y", mode=None, keep=True)
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o604
    finally:
        os.umask(old)


def test_until_it_is_whole_only_its_writer_may_read_it(tmp_path: Path) -> None:
    replacement = Replacement(str(tmp_path / "a"))
    before = os.umask(0)
    seen = []
    give, _files.write_all = _files.write_all, lambda file, content: seen.append(os.fstat(file).st_mode & 0o777)
    try:
        replacement.write(b"x")
    finally:
        _files.write_all = give
        os.umask(before)
    replacement.discard()
    assert seen == [0o600]


def test_no_privilege_is_passed_on_with_the_permissions(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    file.chmod(0o6755)
    write_whole(str(file), b"new", keep=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_keeps_its_owner_only_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for keep, owner in ((True, 1), (False, os.geteuid())):
        file.write_bytes(b"old")
        os.chown(file, 1, 1)
        write_whole(str(file), b"new", keep=keep)
        assert file.stat().st_uid == owner


def test_a_link_is_replaced_and_lends_no_mode(tmp_path: Path) -> None:
    precious, file = tmp_path / "precious", tmp_path / "a"
    precious.write_bytes(b"keep")
    precious.chmod(0o666)
    for target in (precious, tmp_path / "nowhere", file):
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        write_whole(str(file), b"new", mode=0o600, keep=True)
        assert (file.is_symlink(), file.read_bytes(), file.stat().st_mode & 0o777) == (False, b"new", 0o600)
    assert precious.read_bytes() == b"keep"


def test_what_stands_in_the_place_of_the_new_file_is_neither_opened_nor_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: b"\0" * size)  # as if it could be guessed
    place = tmp_path / f".vethlib-{'00' * 8}"
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    plants: list[Callable[[], object]] = [
        lambda: place.symlink_to(precious),
        lambda: place.symlink_to(tmp_path / "made"),
        lambda: os.link(precious, place),
        lambda: os.mkfifo(place),
    ]
    for plant in plants:
        plant()
        with pytest.raises(FileExistsError):
            write_whole(str(tmp_path / "a"), b"new")
        place.unlink(missing_ok=True)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"precious": b"keep"}


def test_a_relative_path_begins_at_the_directory_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    directory = os.open(tmp_path / "there", os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_whole("a", b"x", directory=directory)
        replacement = Replacement("b", directory=directory)
        replacement.write(b"y", keep=True)
        replacement.flush()
        [beside] = [name for name in os.listdir(directory) if is_unfinished(name)]
        assert beside.startswith(".")
        replacement.replace()
        replacement.discard()
    finally:
        os.close(directory)
    assert os.listdir(tmp_path / "here") == []
    assert sorted(os.listdir(tmp_path / "there")) == ["a", "b"]


def test_nothing_but_an_unfinished_file_has_the_name_of_one() -> None:
    digits = "0123456789abcdef"
    assert is_unfinished(f".vethlib-{digits}")
    for name in (".vethlib-0", f"vethlib-{digits}", f".vethlib-{digits[1:]}g", f".vethlib-{digits}\n"):
        assert not is_unfinished(name)


def test_an_agent_can_be_read_whenever_it_writes(tmp_path: Path) -> None:
    AgentFile(tmp_path, "dir:/a").write("away")
    said = read_report(str(tmp_path))
    assert said is not None
    assert said.outage == "away"
