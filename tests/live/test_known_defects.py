"""Defects of an earlier agent of this kind, each of which must be impossible."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.applying import interface, reaches
from tests.live.configuring import (
    by_file,
    by_label,
    by_pid,
    configured,
    foreign,
    is_state,
    pair,
    placed,
    put,
    settle,
    state_of,
    states,
    until,
)
from tests.live.refusals import refused
from tests.reasons import in_codes
from tests.witness import ip, names, nothing_changes, open_fds, poll, seen
from vethlib import LinkNotFound, Session, ns
from vethlib._nl.const import RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK
from vethlib.agent import State, read_value
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.registry.indexes import IndexEvent
from vethlib.follow import MemoryResolver
from vethlib.ns import Netns


def test_1_after_a_restart_the_first_delete_works(session: Session) -> None:
    with Configurator(session) as earlier:
        put(earlier, *pair("a", "b", "blue"))
        settle(earlier)
    with Configurator(session) as configurator:
        configurator.delete("a")
        settle(configurator)
        assert names("blue") == names() == set()


def test_1_after_a_restart_the_first_put_counts(session: Session) -> None:
    with Configurator(session) as earlier:
        put(earlier, *pair("a", "b", "blue"))
        settle(earlier)
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "blue", mtu=1400))
        settle(configurator)
        assert seen("a", "blue")["mtu"] == seen("b")["mtu"] == 1400


def test_2_a_value_without_a_veth_section_is_refused_and_harmless(configurator: Configurator) -> None:
    parsed = read_value({"name": "a", "enabled": True})
    assert parsed.interface is None
    put(configurator, *pair("x", "y"))
    configurator.refuse("a", parsed.problems)
    settle(configurator)
    assert state_of(configurator, "a") == "INVALID: invalid-value(veth.peer_if_name)"
    assert configured(configurator, "x", "y")()


def test_3_a_resolver_that_restarts_is_not_the_end_of_every_microservice(home: ns.Netns, blue: str, red: str) -> None:
    resolver = MemoryResolver()
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, placed("a", "b", by_label("vnf1")), interface("b", "a", "red"))
        settle(configurator)
        with nothing_changes():
            resolver.down("restarting")
            settle(configurator)
            resolver.up()
            settle(configurator)
        assert configured(configurator, "a", "b")()
        resolver.remove("vnf1")
        settle(configurator)
        resolver.set("vnf1", "blue")
        settle(configurator)
        assert (names("blue"), names("red")) == ({"a"}, {"b"})
    resolver.close()


@pytest.mark.parametrize("netns", ["", "blue"])
def test_4_a_veth_of_the_same_name_that_is_not_ours_is_never_deleted(
    configurator: Configurator, blue: str, netns: str
) -> None:
    foreign("a", netns)
    with nothing_changes():
        configurator.resync(pair("a", "b", netns))
        settle(configurator)
        configurator.delete("a")
        settle(configurator)
        configurator.resync([])
        settle(configurator)


def test_5_a_failed_create_is_not_remembered_as_done(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWLINK, times=1):
        put(configurator, *pair("a", "b"))
        settle(configurator)
        assert is_state(configurator, State.RETRYING, "a", "b")()
    until(configurator, configured(configurator, "a", "b"))
    assert names() == {"a", "b"}


def test_6_an_error_on_one_end_leaves_neither_behind(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, blue: str
) -> None:
    with refused(monkeypatch, errno.ENOBUFS, RTM_NEWADDR):
        put(configurator, interface("a", "b", "blue"), interface("b", "a", ip_addresses=["10.0.0.1/24"]))
        settle(configurator)
        assert is_state(configurator, State.RETRYING, "b")()
        assert names("blue") in (set(), {"a"})
        assert len(names("blue")) == len(names())
    until(configurator, configured(configurator, "a", "b"))
    assert (names("blue"), names()) == ({"a"}, {"b"})


def test_7_the_error_of_a_change_is_said(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    put(configurator, *pair("a", "b"))
    settle(configurator)
    with refused(monkeypatch, errno.EBUSY, RTM_SETLINK, RTM_NEWLINK):
        configurator.put(interface("a", "b", mtu=1400))
        told = settle(configurator)
    status = told["a"]
    assert status is not None
    assert in_codes(status) == "RETRYING: netlink-error(EBUSY)"


def test_8_a_microservice_with_a_new_process_at_once_is_followed_there(
    home: ns.Netns, spawn: Callable[[str], int]
) -> None:
    resolver = MemoryResolver()
    with Netns.anonymous() as first, Netns.anonymous() as second:
        old, new = spawn(first.ref), spawn(second.ref)
    resolver.set("vnf1", f"pid:{old}")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, placed("a", "b", by_label("vnf1")), interface("b", "a"))
        settle(configurator)
        assert names(f"pid:{old}") == {"a"}
        os.kill(old, 9)
        resolver.remove("vnf1")
        resolver.set("vnf1", f"pid:{new}")
        settle(configurator)
        until(configurator, configured(configurator, "a", "b"))
        assert names(f"pid:{new}") == {"a"}
        assert poll(lambda: names() == {"b"})
    resolver.close()


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
def test_9_what_is_built_does_not_depend_on_the_order_of_arrival(configurator: Configurator, order: str) -> None:
    """c points at a, which does not point back."""
    wanted = {"a": interface("a", "b"), "b": interface("b", "a"), "c": interface("c", "a")}
    for name in order:
        configurator.put(wanted[name])
        settle(configurator)
    assert states(configurator) == {
        "a": "CONFIGURED",
        "b": "CONFIGURED",
        "c": "PENDING: peer-points-elsewhere(a)",
    }
    assert names() == {"a", "b"}


def test_10_the_ifindex_that_is_said_is_that_of_the_rebuilt_link(configurator: Configurator, red: str) -> None:
    ip("link", "add", "name", "taken", "index", "5", "type", "bridge", netns="red")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    put(configurator, *pair("a", "b", "red"))
    settle(configurator)
    for name, netns, peer, at in (("a", "red", "b", ""), ("b", "", "a", "red")):
        status = configurator.status(name)[0]
        assert status.link is not None
        assert status.link.index == seen(name, netns)["ifindex"]
        assert status.peer_index == seen(peer, at)["ifindex"]


def test_10_no_descriptor_is_left_by_errors(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, blue: str, tmp_path: Path
) -> None:
    put(configurator, *pair("w", "v", "blue"))
    settle(configurator)
    fds = open_fds()
    (tmp_path / "file").write_text("no namespace")
    put(configurator, placed("f", "g", by_file(tmp_path / "file")), interface("g", "f"))
    put(configurator, placed("p", "q", by_pid(4_194_303)), interface("q", "p"))
    foreign("taken", "blue")
    put(configurator, *pair("taken", "s", "blue"))
    for kind in (RTM_NEWLINK, RTM_NEWADDR):
        with refused(monkeypatch, errno.EBUSY, kind):
            put(configurator, *pair("a", "b", "blue"), interface("v", "w", mtu=1400, ip_addresses=["10.0.0.1/24"]))
            settle(configurator)
    for name in "fgpqab":
        configurator.delete(name)
    settle(configurator)
    assert open_fds() == fds


def test_11_a_slow_subscriber_loses_nothing(configurator: Configurator, blue: str) -> None:
    """It takes what has happened once all is over; another has had each event at once."""
    at_once: list[IndexEvent] = []
    configurator.indexes.subscribe(at_once.append)
    with configurator.indexes.subscribe() as slow:
        for round in range(50):
            put(configurator, *pair("a", "b", "blue", mtu=1400 + round))
            settle(configurator)
            if round % 10 == 9:
                configurator.delete("a")
                settle(configurator)
        events = slow.take()
    assert events == at_once
    mtus = [one.entry.link.mtu for one in events if one.entry is not None and one.entry.name == "a"]
    assert list(dict.fromkeys(mtus)) == list(range(1400, 1450))
    assert [one.kind for one in events if one.old is not None and one.old.name == "a"].count("removed") == 5


def test_11_a_late_subscriber_is_told_what_there_is(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    with configurator.indexes.subscribe() as late:
        found = {(one.kind, one.entry.name, one.entry.index) for one in late.take() if one.entry is not None}
    assert found == {
        ("added", "a", seen("a", "blue")["ifindex"]),
        ("added", "b", seen("b")["ifindex"]),
        ("added", "lo", seen("lo")["ifindex"]),
    }


def test_11_who_unsubscribes_is_told_nothing_more(configurator: Configurator, blue: str) -> None:
    called: list[IndexEvent] = []
    by_callback, by_taking = configurator.indexes.subscribe(called.append), configurator.indexes.subscribe()
    settle(configurator)
    assert [one.kind for one in called] == ["added"]  # lo
    by_callback.unsubscribe()
    by_taking.unsubscribe()
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert names("blue") == {"a"}
    assert (len(called), by_taking.take()) == (1, [])


def test_11_one_ifindex_in_two_namespaces_leads_to_the_name_of_each(
    configurator: Configurator, blue: str, red: str
) -> None:
    put(configurator, *pair("a", "b", "blue", "red"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    assert seen("b", "red")["ifindex"] == index
    assert [configurator.indexes.name(index, netns) for netns in ("blue", "red")] == ["a", "b"]
    assert configurator.indexes.index("a") == configurator.indexes.index("b") == index
    configurator.delete("a")
    settle(configurator)
    for netns in ("blue", "red"):
        with pytest.raises(LinkNotFound):
            configurator.indexes.name(index, netns)


@pytest.mark.parametrize("deleted_by_others", [False, True])
def test_12_a_deleted_link_is_never_registered_again_as_new(
    configurator: Configurator, blue: str, deleted_by_others: bool
) -> None:
    """What is still queued of it, from before its end, is heard after that."""
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    with configurator.indexes.subscribe() as told:
        told.take()
        ip("link", "set", "dev", "a", "mtu", "1400", netns="blue")
        ip("link", "set", "dev", "b", "mtu", "1400")
        ip("link", "set", "dev", "b", "down")
        if deleted_by_others:
            ip("link", "del", "dev", "b")
        configurator.delete("a")
        configurator.delete("b")
        for _ in range(3):
            settle(configurator)
        kinds = [one.kind for one in told.take()]
    assert kinds.count("added") == 0
    assert kinds.count("removed") == 2
    assert [entry.name for entry in configurator.indexes.entries()] == ["lo"]
    with pytest.raises(LinkNotFound):
        configurator.indexes.index("b")


def test_12_a_deleted_link_is_not_taken_for_a_new_one(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ip("link", "set", "dev", "a", "mtu", "1400", netns="blue")
    ip("link", "set", "dev", "b", "mtu", "1400")
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    assert configurator.status() == []
    assert [one.name for one in configurator.lookup_interfaces()] == ["lo"]
    assert names("blue") == names() == set()


def test_13_deleting_veth1_does_not_delete_veth10(configurator: Configurator) -> None:
    put(configurator, *pair("veth1", "veth2"), *pair("veth10", "veth20"))
    settle(configurator)
    configurator.delete("veth1")
    settle(configurator)
    assert names() == {"veth10", "veth20"}
    assert configured(configurator, "veth10", "veth20")()


def test_14_processes_and_files_that_namespaces_depend_on_are_followed(
    session: Session, spawn: Callable[[str], int], tmp_path: Path, blue: str
) -> None:
    pid = spawn("blue")
    (tmp_path / "link").symlink_to("/run/netns/blue")
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, placed("a", "b", by_pid(pid), ip_addresses=("10.0.0.1/24",)))
        put(configurator, interface("b", "a", ip_addresses=["10.0.0.2/24"]))
        put(configurator, placed("x", "y", by_file(tmp_path / "link")), interface("y", "x"))
        settle(configurator)
        assert names("blue") == {"a", "x"}
        assert reaches("blue", "10.0.0.2", "")
        os.kill(pid, 9)
        until(configurator, is_state(configurator, State.PENDING, "a", "b"))
        (tmp_path / "link").unlink()
        until(configurator, is_state(configurator, State.PENDING, "x", "y"))
        assert names("blue") == names() == set()


def test_14_links_of_every_namespace_are_heard(configurator: Configurator, blue: str, red: str) -> None:
    put(configurator, *pair("a", "b", "blue", "red"))
    settle(configurator)
    for name, netns in (("a", "blue"), ("b", "red")):
        ip("link", "set", "dev", name, "down", netns=netns)
        until(configurator, lambda name=name, netns=netns: "UP" in seen(name, netns)["flags"])  # type: ignore[misc]
