"""Files in a store that take long to read, whatever their names, get a tenth of the time, and hinder nobody."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import value
from tests.stores import changed, nothing, write
from vethlib.agent.config.northbound import Parsed, read
from vethlib.agent.stores.files import agenda
from vethlib.agent.stores.files import directory as module
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Change

TOOK = 0.08  # seconds of processor time that a long file takes


@pytest.fixture(autouse=True)
def _files_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside of tests."""
    monkeypatch.setattr("vethlib.agent.stores.files.longreads._LONG", 0.05)
    monkeypatch.setattr(agenda, "_SLICE", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "honest.json", value("honest", "peer"))
    write(tmp_path / "other.json", value("other", "peer"))
    return tmp_path


@pytest.fixture
def long_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that took long to read: those with interfaces of slow peers."""
    reads: list[str] = []

    def slow(raw: bytes, source: str, **how: Any) -> list[Parsed]:
        if b"slow" in raw:
            reads.append(os.path.basename(source))
            until = time.thread_time() + TOOK
            while time.thread_time() < until:
                pass
        return read(raw, source, **how)

    monkeypatch.setattr(module, "read", slow)
    return reads


def most(seconds: float) -> float:
    """Return how often a long file may have been read in that time."""
    return seconds / (8 * TOOK) + 1  # not 10, since some kernels count processor time in ticks


def change_honest(store: DirectoryStore, path: Path, mtu: int) -> None:
    """Change an honest file; it is read by the next call, or the one after it."""
    write(path / "honest.json", value("honest", "peer", mtu=mtu))
    found = [*store.read(), *store.read()]
    honest = [one.value for one in found if isinstance(one, Change) and one.name == "honest"]
    assert honest, f"only {found}"
    assert honest[-1] is not None
    assert honest[-1].interface is not None
    assert honest[-1].interface.mtu == mtu


def rename(path: Path, number: int) -> None:
    if number == 0:
        write(path / "x0.json", value("x", "slow"))
    else:
        (path / f"x{(number - 1) % 2}.json").rename(path / f"x{number % 2}.json")


def recreate(path: Path, number: int) -> None:
    (path / "x.json").unlink(missing_ok=True)
    write(path / "x.json", value("x", "slow", mtu=1400 + number))


def use_another_name(path: Path, number: int) -> None:
    (path / f"x{number - 1}.json").unlink(missing_ok=True)
    write(path / f"x{number}.json", value("x", "slow", mtu=1400 + number))


def write_ten(path: Path, number: int) -> None:
    for file in range(10):
        write(path / f"x{file}.json", value(f"x{file}", "slow", mtu=1400 + number))


def link_one_inode(path: Path, number: int) -> None:
    if number == 0:
        write(path / "x.json", value("x", "peer"))
        for name in range(50):
            os.link(path / "x.json", path / f"x{name}.json")
    else:
        (path / "x.json").write_text(json.dumps(value("x", "slow", mtu=1400 + number)))


@pytest.mark.parametrize("storm", [rename, recreate, use_another_name, write_ten, link_one_inode])
def test_whatever_becomes_of_long_files_they_are_read_for_a_tenth_of_the_time(
    store: DirectoryStore, path: Path, long_reads: list[str], storm: Callable[[Path, int], None]
) -> None:
    began = time.monotonic()
    for number in range(40):
        storm(path, number)
        store.read()
        change_honest(store, path, 1000 + number)
    assert 1 <= len(long_reads) <= most(time.monotonic() - began)


def test_small_files_that_turn_long_one_after_the_other_take_a_tenth_of_the_time(
    store: DirectoryStore, path: Path, long_reads: list[str]
) -> None:
    for number in range(40):
        write(path / f"x{number}.json", value(f"x{number}", "peer"))
    store.read()
    while store.due() is not None:
        time.sleep(store.due() or 0)
        store.read()
    began = time.monotonic()
    for number in range(40):
        text = json.dumps(value(f"x{number}", "slow"))
        (path / f"x{number}.json").write_text(text + 4 * len(text) * " ")
        store.read()
        change_honest(store, path, 1000 + number)
    assert 1 <= len(long_reads) <= most(time.monotonic() - began)


def test_links_that_lead_to_long_files_one_after_the_other_take_a_tenth_of_the_time(
    store: DirectoryStore, path: Path, long_reads: list[str]
) -> None:
    elsewhere = path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere / "long", value("long", "slow"))
    for number in range(40):
        write(elsewhere / f"x{number}", value(f"x{number}", "peer"))
        (path / f"x{number}.json").symlink_to(elsewhere / f"x{number}")
    store.read()
    began = time.monotonic()
    for number in range(40):
        (path / ".new").symlink_to(elsewhere / "long")
        (path / ".new").rename(path / f"x{number}.json")
        store.read()
        change_honest(store, path, 1000 + number)
    assert 1 <= len(long_reads) <= most(time.monotonic() - began)


def _new(path: Path) -> None:
    write(path / "star.json", value("star", "peer"), *(value(f"s{number}", "peer") for number in range(20)))


def _grown(path: Path) -> None:
    write(path / "other.json", value("star", "peer"), *(value(f"s{number}", "peer") for number in range(20)))


def _linked(path: Path) -> None:
    (path / "elsewhere").mkdir()
    _new(path / "elsewhere")
    (path / "star.json").symlink_to(path / "elsewhere" / "star.json")


@pytest.mark.parametrize("tenants", [1, 3])
@pytest.mark.parametrize("honest", [_new, _grown, _linked])
def test_small_long_files_that_are_always_rewritten_do_not_keep_a_larger_file_unread(
    store: DirectoryStore,
    path: Path,
    long_reads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    honest: Callable[[Path], None],
    tenants: int,
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.longreads._REST", 3.0)
    known: list[str] = []
    for number in count():
        for tenant in range(tenants):
            write(path / f"t{tenant}.json", value(f"t{tenant}", "slow", mtu=1400 + number % 50))
        if number == 1:
            honest(path)
        known += [one.name for one in store.read() if isinstance(one, Change)]
        if "star" in known or len(long_reads) > 4 * (tenants + 1):
            break
        time.sleep(0.01)
    assert "star" in known


def test_a_link_to_a_file_that_was_quick_is_read_at_once_during_a_rest(
    store: DirectoryStore, path: Path, long_reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.longreads._REST", 10_000.0)
    (path / "elsewhere").mkdir()
    file = write(path / "elsewhere" / "file", value("linked", "peer"))
    (path / "linked.json").symlink_to(file)
    assert list(changed(store)) == ["linked"]
    write(path / "long.json", value("a", "slow"))
    assert list(changed(store)) == ["a"]
    write(file, value("linked", "peer", mtu=1400))
    assert list(changed(store)) == ["linked"]
    assert long_reads == ["long.json"]


def test_of_many_long_files_that_are_written_together_one_is_read_and_others_are_changed_at_once(
    store: DirectoryStore, path: Path, long_reads: list[str]
) -> None:
    began = time.monotonic()
    for number in range(50):
        write(path / f"x{number}.json", value(f"x{number}", "slow"))
    change_honest(store, path, 1400)
    assert 1 <= len(long_reads) <= most(time.monotonic() - began)
    due = store.due()
    assert due is None or due > 0 or len(long_reads) <= most(time.monotonic() - began)


def test_a_long_file_is_read_once_its_rest_is_over_and_what_it_had_stays_until_then(
    store: DirectoryStore, path: Path, long_reads: list[str]
) -> None:
    long = write(path / "long.json", value("a", "slow"))
    assert list(changed(store)) == ["a"]
    until = store._agenda._long.until = time.monotonic() + 3  # a busy machine may take a second for what follows
    for how in (os.unlink, lambda file: os.rename(file, f"{file}~")):  # as editors do before they write it
        how(long)
        write(long, value("a", "slow", mtu=1400))
        store.read()
    (path / "long.json").rename(path / "renamed.json")
    (path / "renamed.json").rename(path / "again.json")
    found = changed(store)
    assert list(found) == ["a"]
    assert found["a"] is not None, "it was renamed, not deleted"
    assert time.monotonic() >= until
    assert long_reads == ["long.json", "again.json"]
    nothing(store)
    assert store.due() is None


def test_a_long_file_that_is_deleted_while_it_waits_is_gone_at_once(
    store: DirectoryStore, path: Path, long_reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.longreads._REST", 10_000.0)
    long = write(path / "long.json", value("a", "slow"))
    assert list(changed(store)) == ["a"]
    write(long, value("a", "slow", mtu=1400))
    nothing(store)
    long.rename(path / "renamed.json")
    nothing(store)
    (path / "renamed.json").unlink()
    assert changed(store) == {"a": None}
    assert store.due() is None
    assert long_reads == ["long.json"]


def test_files_are_read_for_a_slice_and_those_that_were_quick_before_come_first(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "_SLICE", 0.0)
    for number in range(5):
        write(path / f"x{number}.json", value(f"x{number}", "peer"))
    write(path / "honest.json", value("honest", "peer", mtu=1400))
    found = []
    for _ in range(6):
        assert store.due() in (None, 0.0)
        (one,) = store.read()
        assert isinstance(one, Change)
        found.append(one.name)
    assert found == ["honest", "x0", "x1", "x2", "x3", "x4"]
    assert store.due() is None
