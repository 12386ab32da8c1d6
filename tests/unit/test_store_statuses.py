"""Statuses as files."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capabilities import dropped
from tests.refusing import raises
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.statuses import StatusFiles, status_file


def status(name: str, reason: str = "") -> Status:
    return Status(name, State.PENDING if reason else State.CONFIGURED, reason, 1_700_000_000.25)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "status"


def written(path: Path) -> dict[str, str]:
    """The reason of each status by its file; nothing else may be there."""
    return {name: json.loads((path / name).read_text())["reason"] for name in sorted(os.listdir(path))}


def wait_until_due(files: StatusFiles) -> None:
    while due := files.due():
        time.sleep(due)


def test_each_status_is_a_file_with_all_that_is_known(path: Path) -> None:
    StatusFiles(path).publish({"a": status("a", "waits"), "b": status("b")})
    assert json.loads((path / "a.json").read_text()) == status("a", "waits").as_dict()
    assert written(path) == {"a.json": "waits", "b.json": ""}


def test_everybody_may_read_them(path: Path) -> None:
    old = os.umask(0o077)
    try:
        StatusFiles(path).publish({"a": status("a")})
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o755
    assert (path / "a.json").stat().st_mode & 0o777 == 0o644


def test_a_status_is_replaced_and_taken_away(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({"a": status("a", "waits"), "b": status("b")})
    files.publish({"a": status("a"), "b": None, "nobody": None})
    assert written(path) == {"a.json": ""}


def test_no_reader_ever_sees_half_a_status(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({"a": status("a")})
    done = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(len(json.loads((path / "a.json").read_text())["reason"]))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(500):
        files.publish({"a": status("a", "x" * (number % 2) * 60_000)})
    done.set()
    reader.join()
    assert seen <= {0, 60_000}


def test_what_an_earlier_run_left_is_removed_and_what_is_none_of_ours_is_not(path: Path) -> None:
    StatusFiles(path).publish({name: status(name, "old") for name in "abc"})
    for killed in (".status", f".vethlib-{'a0' * 8}"):
        (path / killed).write_text("half a st")
    (path / "notes.json").write_text('{"name": "notes"}')
    (path / "lie.json").write_text((path / "a.json").read_text())
    (path / "odd.json").write_text("[]")
    files = StatusFiles(path)
    files.publish({"a": status("a", "new"), "b": None})
    assert sorted(os.listdir(path)) == ["a.json", "lie.json", "notes.json", "odd.json"]
    assert json.loads((path / "a.json").read_text())["reason"] == "new"


def test_nothing_to_say_still_removes_what_an_earlier_run_left(path: Path) -> None:
    StatusFiles(path).publish({"a": status("a")})
    StatusFiles(path).publish({})
    assert os.listdir(path) == []


def test_a_directory_that_was_removed_is_filled_again(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({"a": status("a"), "b": status("b"), "c": status("c")})
    shutil.rmtree(path)
    files.publish({"b": status("b", "waits"), "c": None})
    assert written(path) == {"a.json": "", "b.json": "waits"}


@pytest.mark.parametrize("then", [{"b": "waits"}, {"c": None}, {"a": None}, {"a": None, "b": "waits"}], ids=str)
def test_a_directory_that_was_replaced_by_one_with_its_inode_number_is_filled_again(
    path: Path, then: dict[str, str | None]
) -> None:
    files = StatusFiles(path)
    files.publish({"a": status("a"), "b": status("b"), "c": status("c"), "d": status("d")})
    files.publish({"d": None})
    for file in path.iterdir():
        file.unlink()
    files.publish({name: None if reason is None else status(name, reason) for name, reason in then.items()})
    expected = {"a": "", "b": "", "c": ""} | then
    assert written(path) == {f"{name}.json": reason for name, reason in expected.items() if reason is not None}


def test_what_could_not_be_written_is_written_with_the_next(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("in the way")
    files = StatusFiles(path)
    with pytest.raises(StoreError) as raised:
        files.publish({"a": status("a")})
    error = pickle.loads(pickle.dumps(raised.value))
    assert (error.path, error.code, error.errno) == (str(path), "not-a-directory", 20)
    path.unlink()
    files.publish({"b": status("b")})
    assert written(path) == {"a.json": "", "b.json": ""}


def test_a_file_that_cannot_be_written_delays_no_other_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = StatusFiles(path)
    files.publish({})
    (path / "a.json").mkdir()
    for number in range(10):
        files.publish({"a": status("a", "waits"), "b": status("b", f"{number}")})
        assert json.loads((path / "b.json").read_text())["reason"] == f"{number}"
    assert [record.getMessage() for record in caplog.records] == [
        f"the status of 'a' cannot be written to {path}: Is a directory"
    ]
    assert sorted(os.listdir(path)) == ["a.json", "b.json"]


def test_a_file_that_could_not_be_written_is_written_when_what_was_in_its_place_is_gone(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({})
    assert files.due() is None
    (path / "a.json").mkdir()
    files.publish({"a": status("a", "old")})
    files.publish({"a": status("a", "new"), "b": status("b")})
    for _ in range(3):
        wait_until_due(files)
        files.try_again()
    (path / "a.json").rmdir()
    wait_until_due(files)
    files.try_again()
    assert written(path) == {"a.json": "new", "b.json": ""}
    assert files.due() is None


def test_what_is_in_the_place_of_a_file_that_is_not_wanted_is_left_alone(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({"a": status("a")})
    (path / "a.json").unlink()
    (path / "a.json").mkdir()
    files.publish({"a": None})
    assert os.listdir(path) == ["a.json"]
    assert files.due() is None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG])
def test_a_name_that_the_file_system_refuses_is_no_error_of_the_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    replace = os.replace

    def refuse(old: str, new: str, **directories: int) -> None:
        if new == "a.json":
            raise OSError(number, os.strerror(number))
        replace(old, new, **directories)

    monkeypatch.setattr(os, "replace", refuse)
    files = StatusFiles(path)
    files.publish({"a": status("a"), "b": status("b")})
    assert written(path) == {"b.json": ""}
    assert files.due() is not None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_file_system_that_takes_nothing_is_an_error_of_the_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    files = StatusFiles(path)
    with monkeypatch.context() as full:
        full.setattr(os, "replace", refuse)
        with pytest.raises(StoreError) as raised:
            files.publish({"a": status("a")})
        assert raised.value.errno == number
    files.publish({})
    assert written(path) == {"a.json": ""}


def test_what_an_earlier_run_left_and_cannot_be_removed_prevents_no_status(path: Path) -> None:
    (path / f".vethlib-{'a0' * 8}").mkdir(parents=True)
    StatusFiles(path).publish({"a": status("a")})
    assert json.loads((path / "a.json").read_text())["name"] == "a"


def test_a_directory_that_may_not_be_written_is_an_error_that_names_it(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({})
    path.chmod(0o500)
    with dropped(), raises(StoreError, code="not-permitted", path=str(path)):
        files.publish({"a": status("a")})
    path.chmod(0o700)
    files.publish({})
    assert written(path) == {"a.json": ""}


def test_a_link_in_the_place_of_a_file_is_not_written_through(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    files = StatusFiles(path)
    files.publish({})
    for name in ("a.json", ".status"):
        (path / name).symlink_to(precious)
    files.publish({"a": status("a")})
    assert json.loads((path / "a.json").read_text())["name"] == "a"
    (path / ".status").unlink()
    assert precious.read_text() == "keep"
    assert written(path) == {"a.json": ""}


KEYS = [
    "veth1",
    "..",
    ".hidden",
    "../../etc/passwd",
    "file:a.json[2]",
    "/",
    "%2F",
    "a\0b",
    "ä" * 200,
    "x" * 300,
    "x" * 301,
]


def test_no_key_leads_out_of_the_directory_or_to_the_file_of_another(path: Path) -> None:
    files = StatusFiles(path)
    files.publish({key: status(key) for key in KEYS})
    names = os.listdir(path)
    assert len(names) == len(KEYS)
    assert not [name for name in names if name.startswith(".") or not name.endswith(".json")]
    assert {json.loads((path / name).read_text())["name"] for name in names} == set(KEYS)
    assert status_file("veth1") == "veth1.json"
    StatusFiles(path).publish(dict.fromkeys(KEYS[:2]))
    assert os.listdir(path) == []


@pytest.fixture
def store(tmp_path: Path, path: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(tmp_path, status_dir=path)
    yield store
    store.close()


def test_a_store_publishes_to_its_directory_and_without_one_nowhere(
    store: DirectoryStore, tmp_path: Path, path: Path
) -> None:
    store.publish({"a": status("a")})
    assert written(path) == {"a.json": ""}
    other = DirectoryStore(tmp_path)
    other.publish({"b": status("b")})
    other.close()
    assert [str(one.relative_to(tmp_path)) for one in sorted(tmp_path.rglob("*"))] == [
        "run",
        "run/status",
        "run/status/a.json",
    ]
