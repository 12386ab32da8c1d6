"""observe, plan and execute against the kernel: what is built, when, and what is left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.live.applying import applied, example, indexes, interface, planned, reaches
from tests.reasons import in_codes
from tests.witness import addresses, host_state, ip, names, poll, seen
from vethlib import Session, ns
from vethlib.agent import Plan, RemoveNetns, State
from vethlib.agent.config.mark import group_of
from vethlib.agent.host.execution import execute


def test_the_example_pair_is_built_as_its_files_say(session: Session) -> None:
    applied(session, *example("pair"))
    veth1, veth2 = seen("veth1", "ns1"), seen("veth2", "ns2")
    assert veth1["address"] == "d2:74:8c:12:67:d2"
    assert (veth1["mtu"], veth2["mtu"]) == (1500, 1500)
    assert addresses("veth1", "ns1") == ["192.168.22.1/24", "2001:db8::ff00:89e3:bb42/48"]
    assert addresses("veth2", "ns2") == ["192.168.22.2/24"]
    assert "UP" in veth1["flags"]
    assert "UP" in veth2["flags"]
    assert veth1["ifalias"] == "vethlib label=vpp1 name=veth1 mac"
    assert names() == set()
    assert reaches("ns1", "192.168.22.2", "ns2")


def test_applying_again_does_nothing_and_keeps_the_links(session: Session) -> None:
    applied(session, *example("pair"))
    before = indexes(("veth1", "ns1"), ("veth2", "ns2"))
    again = planned(session, *example("pair"))
    assert again.operations == ()
    assert execute(session, again).done == []
    assert indexes(("veth1", "ns1"), ("veth2", "ns2")) == before


def test_a_lone_end_waits_for_its_peer_and_creates_no_namespace(session: Session) -> None:
    made = planned(session, interface("veth1", "veth2", "ns1"))
    assert in_codes(made.verdicts["veth1"]) == "PENDING: peer-not-configured(veth2)"
    assert execute(session, made).done == []
    assert ns.names() == []


def test_a_pair_is_complete_when_its_second_end_comes(session: Session) -> None:
    one, two = example("pair")
    execute(session, planned(session, one))
    applied(session, one, two)
    assert reaches("ns1", "192.168.22.2", "ns2")


@pytest.mark.parametrize("name", ["netns:blue", "pid:1", "a:b"])
def test_a_namespace_whose_name_looks_like_a_reference_is_created_by_its_whole_name(
    session: Session, blue: str, name: str
) -> None:
    applied(session, interface("a", "b", name), interface("b", "a"))
    assert set(ns.names()) == {blue, name}
    place = session.identity(f"netns:{name}")
    execution = execute(session, Plan((RemoveNetns(name, place),), {}, {}))
    assert [str(error) for _, error in execution.errors] == [f"netns:{name} is not removed: 'a' is in it"]
    session.delete("b")
    assert execute(session, Plan((RemoveNetns(name, place),), {}, {})).errors == []
    assert ns.names() == [blue]


def test_a_missing_namespace_is_waited_for_where_that_was_asked(
    session: Session, make_netns: Callable[..., None]
) -> None:
    made = planned(session, *example("pair"), create=False)
    both = {"veth1": ("ns1", "ns2"), "veth2": ("ns2", "ns1")}
    assert {name: in_codes(verdict) for name, verdict in made.verdicts.items()} == {
        name: f"PENDING: netns-not-found(netns:{own}), netns-not-found(netns:{other})"
        for name, (own, other) in both.items()
    }
    assert execute(session, made).done == []
    make_netns("ns1", "ns2")
    applied(session, *example("pair"), create=False)


def test_a_process_that_is_gone_keeps_its_interfaces_pending(
    session: Session, blue: str, spawn: Callable[[str], int]
) -> None:
    pid = spawn(blue)
    ends = [interface("a", "b", namespace={"pid": pid}), interface("b", "a", "ns1")]
    assert planned(session, *ends).verdicts["a"].state is State.CONFIGURED
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    made = planned(session, *ends)
    assert [in_codes(made.verdicts[name]) for name in "ab"] == [f"PENDING: process-gone(pid:{pid})"] * 2
    assert execute(session, made).done == []
    assert ns.names() == [blue]


def test_a_pair_may_end_in_the_namespace_of_a_process(session: Session, blue: str, spawn: Callable[[str], int]) -> None:
    pid = spawn("blue")
    applied(session, interface("a", "b", namespace={"pid": pid}, ip_addresses=["10.0.0.1/24"]), interface("b", "a"))
    assert addresses("a", "blue") == ["10.0.0.1/24"]


def test_only_an_enabled_end_is_up(session: Session) -> None:
    applied(session, interface("a", "b", "ns1"), interface("b", "a", "ns1", enabled=False))
    assert poll(lambda: seen("a", "ns1")["operstate"] == "LOWERLAYERDOWN")
    assert seen("b", "ns1")["operstate"] == "DOWN"


def test_an_enabled_end_has_no_carrier_while_its_peer_elsewhere_is_disabled(session: Session) -> None:
    # Which state that is depends on the ifindexes: the kernel looks for the peer in the wrong namespace
    # (default_operstate, net/core/link_watch.c).
    applied(session, interface("a", "b", "ns1"), interface("b", "a", "ns2", enabled=False))
    # The kernel follows the carrier up to a second later (net/core/link_watch.c).
    assert poll(lambda: {"UP", "NO-CARRIER"} <= set(seen("a", "ns1")["flags"]))
    assert "UP" not in seen("b", "ns2")["flags"]


def test_adjacent_namespaces_of_a_chain_reach_each_other(session: Session) -> None:
    applied(session, *example("chain"))
    assert reaches("left", "192.0.2.2", "middle")
    assert reaches("middle", "192.0.2.1", "left")
    assert reaches("middle", "192.0.2.6", "right")
    assert reaches("right", "192.0.2.5", "middle")


def test_every_leaf_of_a_star_of_twenty_reaches_the_hub(session: Session) -> None:
    applied(session, *example("star"))
    assert names("hub") == {f"to-leaf{number}" for number in range(1, 21)}
    assert all(reaches(f"leaf{number}", f"10.20.{number}.1", "hub") for number in range(1, 21))


def test_one_kernel_name_serves_in_many_namespaces(session: Session) -> None:
    applied(
        session,
        interface("left", "right", "ns1", host_if_name="eth0"),
        interface("right", "left", "ns2", host_if_name="eth0"),
    )
    assert (names("ns1"), names("ns2")) == ({"eth0"}, {"eth0"})


def test_a_foreign_link_in_the_way_is_reported_and_untouched(session: Session, make_netns: Callable[..., None]) -> None:
    make_netns("ns1", "ns2")
    ip("link", "add", "name", "veth1", "type", "veth", "peer", "name", "other", netns="ns1")
    before = host_state()
    made = planned(session, *example("pair"))
    assert in_codes(made.verdicts["veth1"]) == "FAILED: link-foreign(veth1)"
    assert in_codes(made.verdicts["veth2"]) == "PENDING: peer-failed(veth1)"
    assert execute(session, made).done == []
    assert host_state() == before


def test_a_link_of_an_agent_with_another_label_is_untouched(session: Session) -> None:
    applied(session, *example("pair"), label="other")
    before = host_state()
    made = planned(session, *example("pair"), prune=True)
    assert made.verdicts["veth1"].state is State.FAILED
    assert execute(session, made).done == []
    assert execute(session, planned(session, prune=True)).done == []
    assert host_state() == before


def test_prune_removes_ours_and_nothing_else(session: Session) -> None:
    applied(session, *example("pair"))
    applied(session, interface("x", "y", "ns1"), interface("y", "x"))
    applied(session, interface("o1", "o2", "ns1"), interface("o2", "o1", "ns2"), label="other")
    ip("link", "add", "name", "foreign", "type", "veth", "peer", "name", "foreigner", netns="ns1")
    applied(session, interface("x", "y", "ns1"), interface("y", "x"), prune=True)
    assert names("ns1") == {"x", "o1", "foreign", "foreigner"}
    assert names("ns2") == {"o2"}
    assert names() == {"y"}


def test_without_prune_pairs_that_are_not_named_stay(session: Session) -> None:
    applied(session, *example("pair"))
    applied(session, interface("x", "y", "ns1"), interface("y", "x"))
    assert names("ns1") == {"veth1", "x"}


@pytest.mark.parametrize("where", ["ns1", ""])
def test_what_a_crash_between_create_and_alias_left_is_adopted(
    session: Session, make_netns: Callable[..., None], where: str
) -> None:
    make_netns("ns1", "ns2")
    group = str(group_of("vpp1"))
    there = ["netns", where] if where else []
    ip(
        "link",
        "add",
        "name",
        "a",
        "group",
        group,
        *there,
        "type",
        "veth",
        "peer",
        "name",
        "b",
        "group",
        group,
        "netns",
        "ns2",
    )
    before = indexes(("a", where), ("b", "ns2"))
    applied(session, interface("a", "b", where, ip_addresses=["10.0.0.1/24"]), interface("b", "a", "ns2"))
    assert indexes(("a", where), ("b", "ns2")) == before
    assert addresses("a", where) == ["10.0.0.1/24"]
    assert seen("b", "ns2")["ifalias"] == "vethlib label=vpp1 name=b"


def test_what_a_crash_left_of_another_pair_is_replaced(session: Session, make_netns: Callable[..., None]) -> None:
    make_netns("ns1", "ns2")
    group = str(group_of("vpp1"))
    ip("link", "add", "name", "a", "group", group, "type", "veth", "peer", "name", "z", "group", group, netns="ns1")
    applied(session, interface("a", "b", "ns1"), interface("b", "a", "ns2"))
    assert (names("ns1"), names("ns2")) == ({"a"}, {"b"})


def test_two_references_to_one_namespace_are_one(session: Session, blue: str, spawn: Callable[[str], int]) -> None:
    ends = [interface("a", "b", "blue"), interface("b", "a")]
    applied(session, *ends)
    other = [interface("a", "b", namespace={"type": 3, "filepath": "/run/netns/blue"}), ends[1]]
    assert planned(session, *other).operations == ()
    assert planned(session, interface("a", "b", namespace={"pid": spawn("blue")}), ends[1]).operations == ()


def test_an_apply_of_four_thousand_interfaces_tells_how_far_it_is(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2")
    ends = []
    for number in range(2000):
        ends.append(interface(f"a{number}", f"b{number}", "ns1", num_queues=1, enabled=False))
        ends.append(interface(f"b{number}", f"a{number}", "ns2", num_queues=1, enabled=False))
    told: list[tuple[str, int, int]] = []
    execution = execute(session, planned(session, *ends), progress=lambda *one: told.append(one))
    assert len(execution.done) == 2000
    assert told[-1] == ("create", 2000, 2000)
    assert all(first < second for (_, first, _), (_, second, _) in pairwise(told))
    assert len(told) > 10
    assert len(names("ns1")) == len(names("ns2")) == 2000
    told.clear()
    made = planned(session, prune=True)
    assert len(made.operations) == 2000
    execute(session, made, progress=lambda *one: told.append(one))
    assert told[-1] == ("delete", 2000, 2000)
    assert names("ns1") == names("ns2") == set()
