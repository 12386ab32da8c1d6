"""The requirements of a pair appear and vanish, and are noticed: named namespaces, for which a configurator waits."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    NETNS_DIR,
    SOON,
    bind,
    configured,
    foreign,
    is_state,
    pair,
    pending,
    put,
    settle,
    state_of,
    until,
)
from tests.mounts import unmount_all
from tests.slack import slack
from tests.witness import ip, names, poll, seen
from vethlib import Session, ns
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.ns import Netns
from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    """It waits for named namespaces."""
    with Configurator(session, missing_netns="wait") as configurator:
        yield configurator


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
    configurator: Configurator, blue: str, spawn: Callable[[str], int]
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
    configurator: Configurator, blue: str, spawn: Callable[[str], int]
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


def test_namespaces_that_were_made_for_deleted_interfaces_are_not_remembered(session: Session) -> None:
    with Configurator(session) as configurator:
        for number in range(3):
            a, b = pair("qa", "qb", f"made{number}")
            put(configurator, a, b)
            until(configurator, configured(configurator, "qa", "qb"))
            for one in (a, b):
                configurator.delete(one.name)
            settle(configurator)
            ns.remove(f"made{number}")
            settle(configurator)
        assert not configurator._observer._added


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
