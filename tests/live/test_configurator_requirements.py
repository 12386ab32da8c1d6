"""The requirements of a pair appear and vanish, and are noticed: namespaces of every kind, and names held by others."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    NETNS_DIR,
    SOON,
    best_of,
    bind,
    by_file,
    by_pid,
    configured,
    foreign,
    is_state,
    pair,
    pending,
    placed,
    put,
    quickly,
    renaming,
    settle,
    state_of,
    states,
    unbind,
    until,
)
from tests.mounts import unmount_all
from tests.slack import slack
from tests.witness import ip, names, poll, seen
from vethlib import IfIndexCache, LinkEvent, NetlinkError, Session, ns
from vethlib.agent import Namespace, State, StatusChange
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower
from vethlib.ns import Netns
from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    """It waits for named namespaces."""
    with Configurator(session, missing_netns="wait") as configurator:
        yield configurator


Spawn = Callable[[str], int]


# --- named namespaces


@pytest.mark.timing
def test_a_named_namespace_comes_and_goes_and_each_has_its_effect_within_50_ms(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    coming, going = [], []
    for _ in range(3):
        assert state_of(configurator, "a") == "PENDING: netns-not-found(netns:blue)"
        assert state_of(configurator, "b") == "PENDING: netns-not-found(netns:blue)"
        assert names() == set()
        Netns.create("blue").close()
        coming.append(until(configurator, configured(configurator, "a", "b")))
        assert (names("blue"), names()) == ({"a"}, {"b"})
        ns.remove("blue")
        going.append(until(configurator, pending(configurator, "a", "b")))
    assert min(coming) < SOON + slack()
    assert min(going) < SOON + slack()


def test_a_namespace_that_comes_and_goes_many_times_is_no_fight(configurator: Configurator) -> None:
    """Nobody has changed what was put right: it was not there to be right."""
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    for _ in range(8):
        Netns.create("blue").close()
        settle(configurator)
        assert configured(configurator, "a", "b")()
        ns.remove("blue")
        settle(configurator)
        assert pending(configurator, "a", "b")()


def test_somebody_s_ip_netns_add_builds_the_pair(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "blue", ip_addresses=[]))
    settle(configurator)
    process = subprocess.Popen(["ip", "netns", "add", "blue"])
    until(configurator, configured(configurator, "a", "b"))
    process.wait()
    assert (names("blue"), names()) == ({"a"}, {"b"})


def test_a_removed_name_takes_the_other_end_too_though_a_process_keeps_the_namespace(
    configurator: Configurator, blue: str, spawn: Spawn
) -> None:
    pid = spawn("blue")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ns.remove("blue")
    until(configurator, pending(configurator, "a", "b"))
    settle(configurator)
    assert names() == set()
    assert names(f"pid:{pid}") == set()


def test_a_namespace_remade_under_the_name_while_the_old_one_lives_gets_the_pair(
    configurator: Configurator, blue: str, spawn: Spawn
) -> None:
    pid = spawn("blue")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ns.remove("blue")
    Netns.create("blue").close()
    settle(configurator)
    until(configurator, configured(configurator, "a", "b"))
    assert (names("blue"), names(), names(f"pid:{pid}")) == ({"a"}, {"b"}, set())
    assert seen("b")["link_index"] == seen("a", "blue")["ifindex"]
    # And there it is followed from now on.
    ip("link", "del", "dev", "a", netns="blue")
    until(configurator, lambda: names() == {"b"} and names("blue") == {"a"})


def test_links_of_a_namespace_that_changed_before_it_ended_do_no_harm(configurator: Configurator, blue: str) -> None:
    """Both are heard at once."""
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    for _ in range(3):
        ip("link", "set", "dev", "a", "mtu", "1400", netns="blue")
        foreign("f", "blue")
        ns.remove("blue")
        poll(lambda: names() == set())  # the kernel ends a namespace in its own time
        settle(configurator)
        until(configurator, pending(configurator, "a", "b"))
        ip("netns", "add", "blue")
        until(configurator, configured(configurator, "a", "b"))


def test_with_create_a_removed_namespace_is_made_again(session: Session) -> None:
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "blue"))
        settle(configurator)
        old = session.cookie("blue")  # inode number and ctime may be those of the next one
        ns.remove("blue")
        until(configurator, lambda: "blue" in ns.names() and bool(names("blue")))
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert (names("blue"), names()) == ({"a"}, {"b"})
        assert session.cookie("blue") != old or not old


def test_the_namespace_of_a_deleted_interface_is_still_heard_of_by_the_others_in_it(
    configurator: Configurator, blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"), *pair("x", "y", "blue"))
    settle(configurator)
    configurator.delete("a")
    settle(configurator)
    ns.remove("blue")
    until(configurator, pending(configurator, "x", "y"))
    ip("netns", "add", "blue")
    until(configurator, configured(configurator, "x", "y"))
    ip("link", "del", "dev", "x", netns="blue")
    until(configurator, lambda: names("blue") == {"x"})


def test_the_namespace_an_interface_was_moved_from_is_still_heard_of_by_the_others_in_it(
    configurator: Configurator, blue: str, red: str
) -> None:
    put(configurator, *pair("a", "b", "blue"), *pair("x", "y", "blue"))
    settle(configurator)
    configurator.put(interface("a", "b", "red"))
    settle(configurator)
    ns.remove("blue")
    until(configurator, pending(configurator, "x", "y"))
    ip("netns", "add", "blue")
    until(configurator, configured(configurator, "a", "b", "x", "y"))


def test_run_netns_absent_at_the_start_is_waited_for(home: ns.Netns) -> None:
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            unshare(CLONE_NEWNS)
            mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            unmount_all(NETNS_DIR)
            NETNS_DIR.rmdir()
            with Session() as session, Configurator(session, missing_netns="wait") as configurator:
                put(configurator, *pair("a", "b", "blue"))
                settle(configurator)
                assert state_of(configurator, "a") == "PENDING: netns-not-found(netns:blue)"
                Netns.create("blue").close()
                until(configurator, configured(configurator, "a", "b"))
                assert names("blue") == {"a"}
                ns.remove("blue")
        except BaseException as failure:
            failures.append(failure)

    # unshare(CLONE_NEWNS) is the thread's own; the directory is everybody's, and made again.
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    NETNS_DIR.mkdir(exist_ok=True)
    if failures:
        raise failures[0]


# --- processes


@pytest.mark.timing
def test_a_killed_process_takes_both_ends_though_another_keeps_the_namespace(
    configurator: Configurator, spawn: Spawn
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
    configurator: Configurator, spawn: Spawn
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


def test_two_interfaces_of_one_process_go_and_come_with_it(configurator: Configurator, spawn: Spawn) -> None:
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


# --- the end of a namespace


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


# --- names that others hold


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("way", ["del", "name", "netns", "altname"])
@pytest.mark.timing
def test_a_foreign_link_in_the_way_that_goes_lets_the_pair_be_built_within_50_ms(
    configurator: Configurator, blue: str, red: str, netns: str, way: str
) -> None:
    def once() -> float:
        if way == "altname":
            foreign("f", netns)
            ip("link", "set", "dev", "f", "up", netns=netns)  # of a link that is down, no event tells of its names
            ip("link", "property", "add", "dev", "f", "altname", "b", netns=netns)
        else:
            foreign("b", netns)
        put(configurator, *pair("a", "b", "red", netns))
        settle(configurator)
        reason = "link-altname(f)" if way == "altname" else "link-foreign(b)"
        assert state_of(configurator, "b") == f"FAILED: {reason}"
        assert names("red") == set()
        command = {
            "del": ("link", "del", "dev", "b"),
            "name": ("link", "set", "dev", "b", "name", "f"),
            "netns": ("link", "set", "dev", "b", "netns", "red", "name", "f"),
            "altname": ("link", "property", "del", "dev", "f", "altname", "b"),
        }[way]
        ip(*command, netns=netns)
        took = until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        assert seen("b", netns)["link_index"] == seen("a", "red")["ifindex"]
        configurator.delete("a")
        configurator.delete("b")
        settle(configurator)
        for place in ("", "blue", "red"):
            for left in ("f", "theirs"):
                if left in names(place):
                    ip("link", "del", "dev", left, netns=place)
        settle(configurator)
        return took

    assert best_of(3, once) < SOON + slack()


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_name_that_a_link_gives_up_while_it_is_down_is_taken(
    session: Session, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    ip("link", "add", "name", "f", "type", kind)
    ip("link", "property", "add", "dev", "f", "altname", "b")
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b"))
        until(configurator, is_state(configurator, State.FAILED, "b"))
        assert state_of(configurator, "b") == "FAILED: link-altname(f)"
        ip("link", "property", "del", "dev", "f", "altname", "b")
        until(configurator, configured(configurator, "a", "b"))
        until(configurator, lambda: configurator.due() is None)
    assert seen("b")["ifname"] == "b"


def test_the_takeover_of_a_link_that_is_down_is_noticed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN_RARE", 0.1)
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", enabled=False))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        ip("link", "set", "dev", "a", "alias", "of another program")
        until(configurator, is_state(configurator, State.FAILED, "a"))
        assert state_of(configurator, "a") == "FAILED: link-foreign(a)"
    assert seen("a")["ifalias"] == "of another program"


def test_interfaces_that_are_not_enabled_are_rarely_looked_at(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    put(configurator, *pair("a", "b", enabled=False))
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    due = configurator.due()
    assert due is not None
    assert due > 30
    sysctls = {"ipv4.rp_filter": "2"}  # whose changes are no events either
    put(configurator, *pair("a", "b", enabled=False, sysctls=sysctls))
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    due = configurator.due()
    assert due is not None
    assert due < 1
    put(configurator, *pair("a", "b"))
    until(configurator, lambda: configurator.due() is None)


def test_a_foreign_name_in_a_new_namespace_is_heard_of_as_well(configurator: Configurator) -> None:
    """The namespace, never watched before, comes with the link in it."""
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    with Netns.anonymous() as netns, netns.entered():
        ip("link", "add", "name", "a", "type", "bridge")
        (NETNS_DIR / "blue").touch()
        bind("/proc/thread-self/ns/net", NETNS_DIR / "blue")
    until(configurator, is_state(configurator, State.FAILED, "a"))
    ip("link", "set", "dev", "a", "name", "theirs", netns="blue")
    until(configurator, configured(configurator, "a", "b"))


def test_a_foreign_link_that_takes_the_name_of_a_renamed_end_is_left_alone(
    configurator: Configurator, blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    quickly(*renaming("a", "moved"), "link add name a type bridge", netns="blue")
    until(configurator, is_state(configurator, State.FAILED, "a"))
    assert names("blue") == {"moved", "a"}
    assert seen("moved", "blue")["ifindex"] == index  # what is there of a FAILED pair stays
    ip("link", "del", "dev", "a", netns="blue")
    until(configurator, configured(configurator, "a", "b"))
    assert names("blue") == {"a"}


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


def _no_descriptors(_follower: Follower, _refs: object) -> None:
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


def _is_retrying(change: StatusChange) -> bool:
    return change.status is not None and change.status.state is State.RETRYING


def _cannot_be_read(_cache: IfIndexCache) -> list[LinkEvent]:
    raise NetlinkError("out of file descriptors", errno=errno.EMFILE)


@pytest.mark.parametrize("first", ["a", "b"])
def test_an_alternative_name_never_keeps_an_interface_from_its_own_name(configurator: Configurator, first: str) -> None:
    a, a2 = interface("a", "a2", altnames=["b"]), interface("a2", "a")
    pairs = {"a": (a, a2), "b": pair("b", "b2")}
    put(configurator, *pairs[first])
    settle(configurator)
    put(configurator, *pairs["a"], *pairs["b"])
    settle(configurator)
    assert state_of(configurator, "a") == "FAILED: name-claimed(b)"
    assert state_of(configurator, "b") == state_of(configurator, "b2") == "CONFIGURED"
    assert names() == {"a", "a2", "b", "b2"} if first == "a" else {"b", "b2"}
    put(configurator, interface("a", "a2"))
    settle(configurator)
    assert set(states(configurator).values()) == {"CONFIGURED"}
    assert "altnames" not in seen("a")


def test_the_second_of_two_interfaces_with_one_alternative_name_gets_it_when_the_first_is_gone(
    configurator: Configurator,
) -> None:
    put(configurator, interface("a", "a2", altnames=["x"]), interface("a2", "a"))
    put(configurator, interface("c", "c2", altnames=["x"]), interface("c2", "c"))
    settle(configurator)
    assert (state_of(configurator, "a"), state_of(configurator, "c")) == ("CONFIGURED", "FAILED: name-claimed(a)")
    configurator.delete("a")
    configurator.delete("a2")
    settle(configurator)
    assert state_of(configurator, "c") == "CONFIGURED"
    assert seen("c")["altnames"] == ["x"]
