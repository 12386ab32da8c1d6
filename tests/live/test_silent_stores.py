"""Stores of files, a part of which is on a file system that does not answer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.commands import said
from tests.live.agent_process import LABEL, Agent
from tests.live.agents import started
from tests.live.applying import value
from tests.live.silent import silent_fuse
from tests.stores import changed, news, nothing, snapshot, write
from tests.witness import ip, names, poll
from vethlib._primitives import start_native
from vethlib.agent import load
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Change, Outage, Snapshot
from vethlib.agent.stores.storecode import StoreCode
from vethlib.ns.files import answers
from vethlib.ns.syscalls import MNT_DETACH, mount, umount2

pytestmark = pytest.mark.usefixtures("little_patience")

LONGEST = 10.0  # seconds for one read, on a busy machine
MS_NOATIME = 0x400  # include/uapi/linux/mount.h
SILENT = "its file system does not answer"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "conf"
    path.mkdir()
    return path


def read_in_time(store: DirectoryStore) -> list[object]:
    began = time.monotonic()
    found = news(store)
    assert time.monotonic() - began < LONGEST
    return [*found]


def test_a_link_to_a_silent_file_system_is_a_problem_of_that_link_alone(path: Path, tmp_path: Path) -> None:
    write(path / "a.json", value("a", "b"))
    with silent_fuse(tmp_path / "dead"):
        (path / "link.json").symlink_to(tmp_path / "dead" / "x.json")
        store = DirectoryStore(path)
        (found,) = read_in_time(store)
        assert isinstance(found, Snapshot)
        assert found.values["a"].interface is not None
        assert SILENT in str(found.values["link"].problems[0])
        write(path / "a.json", value("a", "b", mtu=1400))
        assert list(changed(store)) == ["a"]
        (path / "more.json").symlink_to(tmp_path / "dead" / "y.json")
        assert list(changed(store)) == ["more"]
        for link in ("link", "more"):
            (path / f"{link}.json").unlink()
        assert poll(lambda: (store.read() or True) and not {"link", "more"} & store_values(store))
        store.close()


def store_values(store: DirectoryStore) -> set[str]:
    return set(store._contents.values)


def test_a_link_is_followed_again_when_it_leads_elsewhere(path: Path, tmp_path: Path) -> None:
    with silent_fuse(tmp_path / "dead"):
        (path / "link.json").symlink_to(tmp_path / "dead" / "x.json")
        store = DirectoryStore(path)
        read_in_time(store)
        write(tmp_path / "good.json", value("c", "d"))
        (path / "new").symlink_to(tmp_path / "good.json")
        (path / "new").rename(path / "link.json")
        (found,) = news(store)
        assert isinstance(found, Snapshot)
        assert list(found.values) == ["c"]
        write(tmp_path / "good.json", value("c", "d", mtu=1400))
        assert list(changed(store)) == ["c"]
        store.close()


def test_a_directory_on_a_silent_file_system_is_an_outage(path: Path, tmp_path: Path) -> None:
    write(path / "a.json", value("a", "b"))
    way = tmp_path / "way"
    with silent_fuse(tmp_path / "dead"):
        way.symlink_to(tmp_path / "dead" / "conf")
        store = DirectoryStore(way, status_dir=tmp_path / "status")
        assert read_in_time(store) == [Outage(f"cannot read {way}: {SILENT}", StoreCode.NO_ANSWER)]
        nothing(store)
        way.unlink()
        way.symlink_to(path)
        assert list(snapshot(store)) == ["a"]
        store.close()


def test_a_store_is_read_where_no_thread_can_be_started(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(answers, "start_native", refused)
    mount(b"none", os.fsencode(path), b"tmpfs", 0, None)  # neither that of / nor that of /run
    try:
        write(path / "a.json", value("a", "b"))
        store = DirectoryStore(path)
        assert list(snapshot(store)) == ["a"]
        store.close()
    finally:
        umount2(os.fsencode(path), MNT_DETACH)


def names_in_store(path: Path) -> set[str]:
    store = DirectoryStore(path)
    try:
        return set(snapshot(store))
    finally:
        store.close()


@pytest.mark.parametrize("flags", [0, MS_NOATIME], ids=["access times", "no access times"])
@pytest.mark.parametrize("names_in", [names_in_store, lambda path: {*load([path]).interfaces}], ids=["store", "load"])
def test_links_within_the_file_system_of_a_directory_are_read_without_another_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch, names_in: Callable[[Path], set[str]], flags: int
) -> None:
    threads: list[object] = []

    def noted(*arguments: Any) -> None:
        threads.append(arguments)
        start_native(*arguments)

    monkeypatch.setattr(answers, "start_native", noted)
    mount(b"none", os.fsencode(path), b"tmpfs", flags, None)  # neither that of / nor that of /run
    try:
        wanted = {f"a{number}" for number in range(20)}
        (path / "there").mkdir()
        for name in wanted:
            write(path / "there" / f"{name}.json", value(name, "b"))
            (path / f"{name}.json").symlink_to(f"there/{name}.json")
        assert names_in(path) == wanted
        # Now and then a thread is needed: whatever is mounted anywhere at this moment disturbs the kernel's look.
        assert len(threads) < 5
    finally:
        umount2(os.fsencode(path), MNT_DETACH)


@pytest.mark.parametrize("silent", ["link", "mount"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["validate", "{path}"], 1),
        (["apply", "{path}"], 1),
        (["diff", "{path}"], 1),
        (["list", "--store", "dir:{path}"], 1),
        (["get", "a", "--store", "dir:{path}"], 0),
        (["put", "{new}", "--store", "dir:{path}"], 0),
        (["del", "a", "--store", "dir:{path}"], 0),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_does_not_wait_for_the_silent_target_of_a_link_or_for_what_is_mounted_on_a_file(
    path: Path, tmp_path: Path, command: list[str], code: int, silent: str
) -> None:
    write(path / "a.json", value("a", "b"), value("b", "a"))
    new = write(tmp_path / "new.json", value("c", "d"), value("d", "c"))
    if silent == "link":
        (path / "x.json").symlink_to(tmp_path / "dead" / "x.json")
        silence = silent_fuse(tmp_path / "dead")
    else:
        silence = silent_fuse(write(path / "x.json", value("x", "y")), is_file=True)
    with ThreadPoolExecutor() as threads, silence:
        done = threads.submit(said, *(word.format(path=path, new=new) for word in command)).result(LONGEST)
    assert done.code == code, done.err
    assert code == 0 or SILENT in (done.out if command[0] == "list" else done.err)


def test_an_agent_heals_and_stops_while_a_link_leads_to_a_silent_file_system(path: Path, tmp_path: Path) -> None:
    write(path / "pair.json", value("a", "b"), value("b", "a"))
    pid = started(path)
    try:
        assert poll(lambda: "a" in names())
        with silent_fuse(tmp_path / "dead"):
            (path / "link.json").symlink_to(tmp_path / "dead" / "x.json")
            assert poll(lambda: SILENT in status_of(path, "link"))
            ip("link", "del", "dev", "a")
            assert poll(lambda: "a" in names())
            os.kill(pid, signal.SIGTERM)
            began = time.monotonic()
            _, status = os.waitpid(pid, 0)
            pid = 0
            assert (os.waitstatus_to_exitcode(status), time.monotonic() - began < LONGEST) == (0, True)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def status_of(path: Path, name: str) -> str:
    try:
        return (path / "status" / f"{name}.json").read_text()
    except FileNotFoundError:
        return ""


def test_a_file_on_which_a_silent_file_system_is_mounted_is_a_problem_of_that_file_alone(path: Path) -> None:
    write(path / "a.json", value("a", "b"))
    file = write(path / "x.json", value("x", "y"))
    with silent_fuse(file, is_file=True):
        store = DirectoryStore(path)
        (found,) = read_in_time(store)
        assert isinstance(found, Snapshot)
        assert found.values["a"].interface is not None
        assert SILENT in str(found.values["x"].problems[0])
        write(path / "a.json", value("a", "b", mtu=1400))
        assert list(changed(store)) == ["a"]
        store.reread()
        read_in_time(store)
    assert poll(lambda: any(event.values["x"].interface for event in store.read() if isinstance(event, Snapshot)))
    store.close()


def test_a_new_file_on_which_a_silent_file_system_is_mounted_keeps_nobody_waiting(path: Path) -> None:
    store = DirectoryStore(path)
    snapshot(store)
    file = write(path / "x.json", value("x", "y"))
    file.touch()
    os.link(file, path / "other.json")
    with silent_fuse(file, is_file=True):
        write(path / "a.json", value("a", "b"))
        began = time.monotonic()
        assert poll(lambda: any(isinstance(event, Change) and event.name == "a" for event in store.read()))
        assert time.monotonic() - began < LONGEST
    store.close()


def test_an_agent_starts_and_stops_while_a_silent_file_system_is_mounted_on_a_file(path: Path) -> None:
    write(path / "pair.json", value("a", "b"), value("b", "a"))
    with silent_fuse(write(path / "x.json", value("x", "y")), is_file=True):
        pid = started(path)
        try:
            assert poll(lambda: "a" in names())
            os.kill(pid, signal.SIGTERM)
            began = time.monotonic()
            _, status = os.waitpid(pid, 0)
            pid = 0
            assert (os.waitstatus_to_exitcode(status), time.monotonic() - began < LONGEST) == (0, True)
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def test_an_agent_works_and_stops_while_the_file_system_of_its_statuses_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write(tmp_path / "store" / "pair.json", value("a", "b"), value("b", "a"))
    with silent_fuse(tmp_path / "status"):
        agent = Agent(tmp_path, "--docker", "off", "--limit", "file_system_seconds=0.1")
        try:
            agent.wait_until("READY")
            assert "a" in names()
            shown = said("status", "--label", LABEL, "--status-dir", str(agent.status))
            assert (shown.code, SILENT in shown.err) == (2, True)
            began = time.monotonic()
            assert agent.end() == 0
            assert time.monotonic() - began < LONGEST
        finally:
            agent.process.kill()
    assert SILENT in agent.errors.read_text()


def test_statuses_are_written_when_their_file_system_answers_again(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write(tmp_path / "store" / "pair.json", value("a", "b"), value("b", "a"))
    agent = Agent(tmp_path, "--docker", "off", "--limit", "file_system_seconds=0.1")
    try:
        agent.wait_until("READY")
        (tmp_path / "status").rename(tmp_path / "former")
        with silent_fuse(tmp_path / "status"):
            write(tmp_path / "store" / "pair.json", value("a", "b"), value("b", "a"), value("c", "d"))
            assert poll(lambda: SILENT in agent.errors.read_text())
        assert poll(lambda: (tmp_path / "status" / "c.json").exists())
        assert agent.end() == 0
    finally:
        agent.process.kill()
