"""Somebody who creates files in a store, or rewrites one, as fast as possible."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import value
from tests.stores import changed, interface_text, is_readable, news, nothing, snapshot, write
from vethlib.agent.stores.files import agenda, tracking, unreadable
from vethlib.agent.stores.files import directory as module
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Change, Snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for number in range(50):
        write(tmp_path / f"{number}.json", value(f"v{number}", "peer"))
    return tmp_path


def count(patch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    function = getattr(owner, name)

    def counted(*args: Any, **how: Any) -> Any:
        calls.append(args)
        return function(*args, **how)

    patch.setattr(owner, name, counted)
    return calls


def storm(path: Path) -> None:
    """More events than are queued for one reader (fs.inotify.max_queued_events)."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    file = path / "x.tmp"
    for _ in range(most // 3 + 10):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
        os.unlink(file)


def test_what_was_lost_in_a_storm_is_found(store: DirectoryStore, path: Path) -> None:
    storm(path)
    write(path / "0.json", value("v0", "another"))
    (found,) = news(store)
    assert isinstance(found, Snapshot)
    parsed = found.values["v0"].interface
    assert parsed is not None
    assert parsed.peer_if_name == "another"


def test_one_storm_after_the_other_does_not_have_everything_read_each_time(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REST", 10_000.0)
    reads = count(monkeypatch, tracking, "content")
    for _ in range(2):
        storm(path)
        store.read()
    assert 50 <= len(reads) < 100, "all files, once"
    due = store.due()
    assert due is not None
    assert due > 1
    # What the events report is news meanwhile.
    write(path / "1.json", value("v1", "another"))
    assert list(changed(store)) == ["v1"]


def test_one_file_that_is_rewritten_all_the_time_is_read_once_and_the_others_are_too(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count(monkeypatch, tracking, "content")
    for number in range(1000):
        (path / "0.json").write_text(interface_text("v0", mtu=1000 + number))
        if number == 500:
            write(path / "7.json", value("v7", "another"))
    found = store.read()
    assert {one.name for one in found if isinstance(one, Change)} == {"v0", "v7"}
    assert len(reads) <= 4


def test_files_of_several_names_are_looked_for_together(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count(monkeypatch, os, "scandir")
    for number in range(40):
        os.link(path / f"{number}.json", path / f"{number}-again.json")
    store.read()
    assert len(looks) == 1


def is_news_after(store: DirectoryStore, path: Path, reads: int, mtu: int = 1400) -> None:
    """Check that a change of an honest file is news after so many reads."""
    write(path / "7.json", value("v7", "another", mtu=mtu))
    found = [one.name for _ in range(reads) for one in store.read() if isinstance(one, Change)]
    assert "v7" in found


def test_unreadable_files_are_read_again_for_a_tenth_of_the_time_and_after_all_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "_RETRY", 0.0)
    for number in range(60):
        (path / f"x{number}.json").symlink_to("nowhere")
    with closing(DirectoryStore(path)) as store:
        store.read()
        monkeypatch.setattr(agenda, "_SLICE", 0.0)
        is_news_after(store, path, 1)
        began, busy = time.monotonic(), 0.0
        for _ in range(60):
            due = store.due()
            assert due is not None
            time.sleep(due)
            begun = store._files.spent()
            store.read()
            busy += store._files.spent() - begun
        assert busy < (time.monotonic() - began) / 3
        (path / "nowhere").write_text(interface_text("x", "peer"))
        assert news(store), "each is read in the end"


def test_unreadable_files_are_read_again_although_others_are_rewritten_all_the_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "_RETRY", 0.0)
    monkeypatch.setattr(unreadable, "_REST", 0.0)
    os.mkfifo(path / "x.json")
    with closing(DirectoryStore(path)) as store:
        store.read()
        monkeypatch.setattr(agenda, "_SLICE", 0.0)
        reads = count(monkeypatch, tracking, "content")
        for _ in range(3):
            write(path / "0.json", value("v0", "another"))
            store.read()
    assert [name for name, *_ in reads] == 3 * ["0.json", "x.json"]


def test_thousands_of_links_to_one_file_that_is_rewritten_all_the_time_keep_no_other_file_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = path / "target"
    target.write_text("[]")
    for number in range(200):
        (path / f"x{number}.json").symlink_to(target)
    with closing(DirectoryStore(path)) as store:
        snapshot(store)
        monkeypatch.setattr(agenda, "_SLICE", 0.0)
        target.write_text("[ ]")
        store.read()
        is_news_after(store, path, 2)
        for number in range(100):
            (path / f"x{number}.json").unlink()
            (path / f"x{number}.json").symlink_to(target)
        is_news_after(store, path, 2, 1500)


def test_a_link_to_a_device_that_others_write_to_causes_no_work(path: Path) -> None:
    elsewhere = path / "elsewhere"
    elsewhere.mkdir()
    pipe = elsewhere / "pipe"
    os.mkfifo(pipe)
    (path / "x.json").symlink_to(pipe)
    with closing(DirectoryStore(path)) as store:
        store.read()
        os.close(os.open(pipe, os.O_RDWR))
        assert not is_readable(store)
        # What takes its place is noticed.
        write(elsewhere / "new", value("x", "peer")).rename(pipe)
        assert is_readable(store)
        parsed = snapshot(store)["x"].interface
        assert parsed is not None
        nothing(store)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_link_that_replaces_another_during_a_storm_of_links_is_read_before_the_other_is_dropped(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    target, pair = path / "target", write(tmp_path / "pair", value("a", "b"))
    target.write_text("[]")
    for number in range(100):
        (path / f"x{number}.json").symlink_to(target)
    (path / "old.json").symlink_to(pair)
    with closing(DirectoryStore(path)) as store:
        assert "a" in snapshot(store)
        monkeypatch.setattr(agenda, "_SLICE", 0.0)
        target.write_text("[ ]")
        store.read()
        if renamed:
            (path / "old.json").rename(path / "new.json")
        else:
            (path / "old.json").unlink()
            (path / "new.json").symlink_to(pair)
        store.read()
        time.sleep(2 * agenda.GRACE)
        found = [event for _ in range(120) for event in store.read()]
        assert found == []
        write(pair, value("a", "b", mtu=1400))
        assert list(changed(store)) == ["a"]
