"""Ranges of user and group ids: what is granted, how it is mapped, and what is missing."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from vethlib.ns import idmap
from vethlib.ns.idmap import Mapper, granted


@pytest.mark.parametrize(
    ("lines", "ranges"),
    [
        (["alice:100000:65536"], [(100000, 65536)]),
        (["1000:100000:65536\n", "alice:300000:1"], [(100000, 65536), (300000, 1)]),
        (["bob:100000:65536", "alice2:1:2", "100:1:2"], []),
        (["", "# alice:1:2", "alice", "alice:", "alice:1", "alice:1:0", "alice:-1:2", "alice:1:two"], []),
    ],
)
def test_a_user_is_granted_what_name_and_number_are_granted(lines: list[str], ranges: list[tuple[int, int]]) -> None:
    assert granted(lines, ["1000", "alice"]) == ranges


def test_ranges_follow_each_other_from_1_on() -> None:
    assert idmap._arguments(1000, [(100000, 65536), (300000, 10)]) == "0 1000 1 1 100000 65536 65537 300000 10"


@pytest.mark.parametrize(
    ("uids", "gids", "tells"),
    [
        ("0 1000 1\n1 100000 65536\n", "0 1000 1\n1 100000 65536\n", ""),
        ("0 0 4294967295\n", "0 0 4294967295\n", ""),
        ("0 1000 1\n", "0 1000 1\n", "no id but 0"),
        ("0 1000 1\n1 100000 65536\n", "0 1000 1\n", "no id but 0"),
        ("0 1000 1\n1 100000 1000\n", "0 1000 1\n1 100000 1000\n", "no ids above 1000"),
    ],
)
def test_ids_that_programs_cannot_change_to_are_told_of(
    monkeypatch: pytest.MonkeyPatch, uids: str, gids: str, tells: str
) -> None:
    maps = {"/proc/thread-self/uid_map": uids, "/proc/thread-self/gid_map": gids}

    def read(path: str, *_: Any, **__: Any) -> io.StringIO:
        return io.StringIO(maps[path])

    monkeypatch.setattr(idmap, "open", read, raising=False)
    assert idmap.missing_ids().startswith(tells)
    assert bool(idmap.missing_ids()) == bool(tells)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """newuidmap and newgidmap that write down how they were called, and what grants ranges to this user."""
    for program, file in (("newuidmap", "subuid"), ("newgidmap", "subgid")):
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/{program}.called\n[ ! -e {tmp_path}/{program}.fails ]\n')
        path.chmod(0o755)
        (tmp_path / file).write_text(f"{os.geteuid()}:100000:65536\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(idmap, "_FILES", {"newuidmap": f"{tmp_path}/subuid", "newgidmap": f"{tmp_path}/subgid"})
    return tmp_path


def calls(programs: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().split() for path in programs.glob("*.called")}


def test_both_programs_are_called_for_this_process_once_it_is_in_its_namespace(programs: Path) -> None:
    mapper = Mapper(os.geteuid(), 7)
    assert calls(programs) == {}
    assert mapper.map()
    mapper.cancel()
    pid, uid = str(os.getpid()), str(os.geteuid())
    assert calls(programs) == {
        "newuidmap": [pid, "0", uid, "1", "1", "100000", "65536"],
        "newgidmap": [pid, "0", "7", "1", "1", "100000", "65536"],
    }


@pytest.mark.parametrize("failing", ["newuidmap", "newgidmap"])
def test_a_program_that_fails_maps_nothing(programs: Path, failing: str) -> None:
    (programs / f"{failing}.fails").touch()
    mapper = Mapper(os.geteuid(), 7)
    assert not mapper.map()
    mapper.cancel()
    assert ("newgidmap" in calls(programs)) == (failing == "newgidmap")


def test_a_program_that_hangs_is_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "newuidmap").write_text("#!/bin/sh\nexec sleep 2\n")
    monkeypatch.setattr(idmap, "_PATIENCE", 0.05)
    mapper = Mapper(os.geteuid(), 7)
    assert not mapper.map()
    mapper.cancel()
    assert calls(programs) == {}


@pytest.mark.parametrize("lacking", ["newuidmap", "subuid", "subgid", "shell"])
def test_without_programs_or_ranges_nothing_is_started(
    programs: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if lacking == "shell":
        monkeypatch.setattr(idmap, "program_type", lambda *_: refuse)
    elif lacking == "newuidmap":
        monkeypatch.setenv("PATH", str(programs / "empty"))
    else:
        (programs / lacking).unlink()
    mapper = Mapper(os.geteuid(), 7)
    assert not mapper.map()
    mapper.cancel()
    assert calls(programs) == {}


def refuse(*_: object, **__: object) -> None:
    raise FileNotFoundError


def test_a_mapper_that_is_not_needed_calls_nothing(programs: Path) -> None:
    Mapper(os.geteuid(), 7).cancel()
    assert calls(programs) == {}


def test_a_user_who_is_not_in_the_password_file_is_known_by_number(programs: Path) -> None:
    for file in ("subuid", "subgid"):
        (programs / file).write_text("4000000000:1:2\n")
    mapper = Mapper(4_000_000_000, 7)
    assert mapper.map()
    assert calls(programs)["newuidmap"][1:] == ["0", "4000000000", "1", "1", "1", "2"]


def test_the_cure_names_what_is_missing(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError

    assert "would have to grant 65534 or more to" in idmap._cure(1000)
    assert "grant none to" in idmap._cure(0)
    monkeypatch.setattr("getpass.getuser", nobody)
    assert "this user" in idmap._cure(0)
    monkeypatch.setenv("PATH", str(programs / "empty"))
    assert idmap._cure(0) == "newuidmap and newgidmap would map more (package uidmap)"


def test_ids_that_cannot_be_read_are_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(idmap, "open", unreadable, raising=False)
    assert idmap.missing_ids() == ""
