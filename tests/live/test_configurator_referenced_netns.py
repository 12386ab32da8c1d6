"""The requirements of a pair appear and vanish, and are noticed: namespaces of processes, and those behind files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    SOON,
    bind,
    by_file,
    by_pid,
    configured,
    is_state,
    pair,
    pending,
    placed,
    put,
    settle,
    state_of,
    states,
    unbind,
    until,
)
from tests.slack import slack
from tests.witness import ip, names, poll, seen
from vethlib import IfIndexCache, LinkEvent, NetlinkError, Session, ns
from vethlib.agent import Namespace, State, StatusChange
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower
from vethlib.ns import Netns

# --- processes


@pytest.mark.timing
def test_a_killed_process_takes_both_ends_though_another_keeps_the_namespace(
    configurator: Configurator, spawn: Callable[[str], int]
) -> None:
    took = []
    for _ in range(3):
        with Netns.anonymous() as netns:
            pid, keeper = spawn(netns.ref), spawn(netns.ref)
        put(configurator, placed("a", "b", by_pid(pid)), interface("b", "a"))
        until(configurator, configured(configurator, "a", "b"))
        assert (names(f"pid:{keeper}"), names()) == ({"a"}, {"b"})
        os.kill(pid, 9)
        took.append(until(configurator, pending(configurator, "a", "b")))
        assert states(configurator) == {
            "a": f"PENDING: process-gone(pid:{pid})",
            "b": f"PENDING: process-gone(pid:{pid})",
        }
        assert names(f"pid:{keeper}") == names() == set()
    assert min(took) < SOON + slack()


def test_a_process_of_the_same_number_counts_only_when_it_is_put_again(
    configurator: Configurator, spawn: Callable[[str], int]
) -> None:
    last = Path("/proc/sys/kernel/ns_last_pid")
    first = subprocess.Popen(["sleep", "60"])
    put(configurator, placed("a", "b", by_pid(first.pid), host_if_name="eth9"), interface("b", "a"))
    settle(configurator)
    first.kill()
    first.wait()
    until(configurator, pending(configurator, "a", "b"))
    with Netns.anonymous() as netns, netns.entered():
        for _ in range(50):
            try:
                last.write_text(str(first.pid - 1))
            except OSError:
                pytest.skip("the number of the next process cannot be chosen here")
            second = subprocess.Popen(["sleep", "60"])
            if second.pid == first.pid:
                break
            second.kill()
            second.wait()
        else:
            pytest.skip("others took the number")
    try:
        settle(configurator)
        configurator.resync()
        configurator.put(interface("b", "a", mtu=1400))
        settle(configurator)
        assert state_of(configurator, "a") == f"PENDING: process-gone(pid:{first.pid})"
        assert names(f"pid:{second.pid}") == names() == set()
        configurator.put(placed("a", "b", by_pid(first.pid), host_if_name="eth9"))
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert names(f"pid:{second.pid}") == {"eth9"}
        second.kill()
        until(configurator, pending(configurator, "a", "b"))
    finally:
        second.kill()
        second.wait()


def test_a_zombie_has_no_namespace_and_is_gone(configurator: Configurator, home: ns.Netns) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        put(configurator, placed("a", "b", by_pid(child)), interface("b", "a"))
        settle(configurator)
        assert state_of(configurator, "a") == f"PENDING: process-gone(pid:{child})"
        assert names() == set()
    finally:
        os.waitpid(child, 0)


def test_two_interfaces_of_one_process_go_and_come_with_it(
    configurator: Configurator, spawn: Callable[[str], int]
) -> None:
    with Netns.anonymous() as netns:
        pid = spawn(netns.ref)
    put(configurator, placed("a", "b", by_pid(pid)), interface("b", "a"))
    put(configurator, placed("x", "y", by_pid(pid)), interface("y", "x"))
    settle(configurator)
    configurator.delete("a")
    settle(configurator)
    assert names() == {"y"}
    os.kill(pid, 9)
    until(configurator, pending(configurator, "x", "y"))
    assert state_of(configurator, "x") == f"PENDING: process-gone(pid:{pid})"


# --- files


@pytest.mark.timing
def test_a_file_elsewhere_comes_and_goes(configurator: Configurator, blue: str, red: str, tmp_path: Path) -> None:
    file = tmp_path / "net"
    put(configurator, placed("a", "b", by_file(file)), interface("b", "a", "red"))
    settle(configurator)
    assert state_of(configurator, "a") == f"PENDING: netns-not-found(path:{file})"
    file.touch()
    coming, going = [], []
    for _ in range(3):
        settle(configurator)
        assert state_of(configurator, "a") == f"PENDING: not-a-netns(path:{file})"
        bind("/run/netns/blue", file)
        coming.append(until(configurator, configured(configurator, "a", "b")))
        assert (names("blue"), names("red")) == ({"a"}, {"b"})
        unbind(file)
        going.append(until(configurator, pending(configurator, "a", "b")))
        settle(configurator)
        assert names("blue") == names("red") == set()
    assert min(coming) < SOON + slack()
    assert min(going) < SOON + slack()


def test_a_file_that_leads_to_another_namespace_moves_the_pair(
    configurator: Configurator, blue: str, red: str, tmp_path: Path
) -> None:
    file = tmp_path / "net"
    file.symlink_to("/run/netns/blue")
    put(configurator, placed("a", "b", by_file(file)), interface("b", "a"))
    settle(configurator)
    assert names("blue") == {"a"}
    (tmp_path / "new").symlink_to("/run/netns/red")
    (tmp_path / "new").rename(file)
    until(configurator, lambda: names("red") == {"a"} and not names("blue"))
    settle(configurator)
    assert configured(configurator, "a", "b")()
    assert seen("b")["link_index"] == seen("a", "red")["ifindex"]


@pytest.mark.parametrize("is_deleted", [False, True], ids=["moved", "deleted"])
def test_a_pair_goes_from_the_home_namespace_when_the_reference_to_it_leads_elsewhere(
    configurator: Configurator, blue: str, tmp_path: Path, is_deleted: bool
) -> None:
    """No record has such a pair: it is known by the marks of its ends alone."""
    file = tmp_path / "net"
    file.touch()
    bind("/proc/thread-self/ns/net", file)
    put(configurator, placed("a", "b", by_file(file)), placed("b", "a", by_file(file)))
    until(configurator, configured(configurator, "a", "b"))
    assert (names(), names(blue)) == ({"a", "b"}, set())
    bind("/run/netns/blue", file)
    if is_deleted:
        configurator.delete("a")
        configurator.delete("b")
    there = set() if is_deleted else {"a", "b"}
    until(configurator, lambda: (names(), names(blue)) == (set(), there))
    until(configurator, configured(configurator, *there))
    assert set(states(configurator)) == there
    unbind(file)
    unbind(file)


def test_a_file_that_keeps_leading_to_another_namespace_moves_the_pair_less_and_less_often(
    configurator: Configurator, blue: str, red: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, flips = tmp_path / "net", 300
    file.symlink_to("/run/netns/blue")
    put(configurator, placed("a", "b", by_file(file)), interface("b", "a"))
    settle(configurator)
    with caplog.at_level("INFO", "vethlib.agent"):
        for number in range(flips):
            (tmp_path / "new").symlink_to(f"/run/netns/{blue if number % 2 else red}")
            (tmp_path / "new").rename(file)
            configurator.poll(0)
    unsteady = [record for record in caplog.records if f"{file} keeps changing: its" in record.getMessage()]
    assert [record.levelname for record in unsteady] == ["WARNING"]
    assert len(caplog.records) < flips
    is_configured = configured(configurator, "a", "b")
    until(configurator, lambda: names("blue") == {"a"} and not names("red") and is_configured(), within=60)
    assert seen("b")["link_index"] == seen("a", "blue")["ifindex"]


def test_one_namespace_by_two_spellings_is_one(configurator: Configurator, blue: str) -> None:
    put(configurator, interface("a", "b", "blue"), placed("b", "a", by_file("/run/netns/blue")))
    settle(configurator)
    before = seen("a", "blue")["ifindex"], seen("b", "blue")["ifindex"]
    put(configurator, placed("a", "b", by_file("/run/netns/blue")), interface("b", "a", "blue"))
    settle(configurator)
    assert (seen("a", "blue")["ifindex"], seen("b", "blue")["ifindex"]) == before
    assert configured(configurator, "a", "b")()
    ip("link", "set", "dev", "a", "down", netns="blue")
    until(configurator, lambda: "UP" in seen("a", "blue")["flags"])
    configurator.delete("a")
    settle(configurator)
    configurator.put(interface("a", "b"))
    settle(configurator)
    ip("link", "set", "dev", "b", "down", netns="blue")
    until(configurator, lambda: "UP" in seen("b", "blue")["flags"])


def test_the_end_of_a_namespace_takes_the_other_end_and_is_heard_by_its_links(
    configurator: Configurator, red: str, tmp_path: Path
) -> None:
    """Its process ends, which kept it; the pair's other end goes by the kernel, and a new process gets a new one."""
    with Netns.anonymous() as netns, netns.entered():
        process = subprocess.Popen(["sleep", "60"])
    put(configurator, placed("a", "b", by_file(f"/proc/{process.pid}/ns/net")), interface("b", "a", "red"))
    settle(configurator)
    assert names("red") == {"b"}
    process.kill()
    process.wait()
    until(configurator, pending(configurator, "a", "b"))
    assert poll(lambda: names("red") == set())
    assert state_of(configurator, "a") == f"PENDING: process-gone(path:/proc/{process.pid}/ns/net)"


# --- without descriptors


def _no_descriptors(_follower: Follower, _refs: object) -> None:
    raise NetlinkError("out of file descriptors", errno=errno.EMFILE)


def test_a_reference_that_could_not_be_followed_is_followed_when_it_can(
    session: Session, spawn: Callable[[str], int], blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, keeper = spawn(blue), spawn(blue)
    with Configurator(session, label="late") as configurator:
        with monkeypatch.context() as patch:
            patch.setattr(Follower, "follow", _no_descriptors)
            put(configurator, placed("a", "b", by_pid(pid)), placed("b", "a", Namespace()))
            settle(configurator)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        until(configurator, is_state(configurator, State.PENDING, "a", "b"))
        assert state_of(configurator, "a") == f"PENDING: process-gone(pid:{pid})"
        assert names() == set()
    os.kill(keeper, 0)


def _is_retrying(change: StatusChange) -> bool:
    return change.status is not None and change.status.state is State.RETRYING


def _cannot_be_read(_cache: IfIndexCache) -> list[LinkEvent]:
    raise NetlinkError("out of file descriptors", errno=errno.EMFILE)


def test_lost_events_and_no_descriptors_to_look_again_are_survived(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Configurator(session, label="late") as configurator:
        put(configurator, *pair("a", "b", blue))
        settle(configurator)
        with monkeypatch.context() as patch:
            patch.setattr(IfIndexCache, "changes", _cannot_be_read)
            changes: list[StatusChange] = []
            configurator.subscribe(changes.append)
            ip("link", "set", "dev", "lo", "mtu", "60000")  # so that there is an event to be read
            configurator.poll()
            # On a slow machine the next attempt may be due already, and what it found is all that poll() returns.
            assert {change.name for change in changes if _is_retrying(change)} == {"a", "b"}
            ip("link", "del", "dev", "b")
        until(configurator, configured(configurator, "a", "b"))
        assert names() == {"b"}
