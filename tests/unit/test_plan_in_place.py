"""Planning: which changes are made in place, which require a rebuild, and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_interface
from itertools import permutations

import pytest

from tests.unit.host_model import HOME, Host
from tests.unit.planning import (
    LABEL,
    NS2,
    VETH1,
    VETH2,
    applied,
    change,
    deleted,
    end,
    judged,
    ops,
    planned,
    states,
    two_namespaces,
)
from vethlib.agent import Interface, Namespace, Observed, alias_of, inverse, plan
from vethlib.agent.planning.order import in_order


@pytest.fixture
def host() -> Host:
    return two_namespaces()


# In place


def test_a_right_pair_is_not_touched(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, VETH1, VETH2)
    assert made.operations == ()
    assert set(made.found) == {"veth1", "veth2"}
    assert made.found["veth1"].link.name == "veth1"


def test_mac_mtu_address_and_prefix_change_in_one_go_and_nothing_else(host: Host) -> None:
    old = replace(VETH1, phys_address="02:00:00:00:00:01", ip_addresses=("10.0.0.1/24", "10.1.0.1/24"))
    applied(host, old, VETH2)
    index = host["netns:ns1", "veth1"].index
    new = replace(old, phys_address="02:00:00:00:00:02", mtu=9000, ip_addresses=("10.0.0.1/16", "10.1.0.1/24"))
    made = change(applied(host, new, VETH2))
    assert made.changes == {"mac": ("02:00:00:00:00:01", "02:00:00:00:00:02"), "mtu": (1500, 9000)}
    assert (made.added, made.removed) == ((ip_interface("10.0.0.1/16"),), (ip_interface("10.0.0.1/24"),))
    assert (made.place, made.index) == (host.places["netns:ns1"], index)
    assert planned(host, new, VETH2).operations == ()


def test_drift_is_put_right_in_place(host: Host) -> None:
    applied(host, VETH1, VETH2)
    link = host["netns:ns1", "veth1"]
    link.name, link.mtu, link.alias = "renamed", 1000, ""
    link.set_up(False)
    link.alias = alias_of(LABEL, VETH1)
    assert change(planned(host, VETH1, VETH2)).changes == {
        "name": ("renamed", "veth1"),
        "mtu": (1000, 1500),
        "up": (False, True),
    }


@pytest.mark.parametrize("group", [0, 5])
def test_a_pair_keeps_a_group_that_another_program_gives_it_and_is_owned_nevertheless(host: Host, group: int) -> None:
    applied(host, VETH1, VETH2)
    for link in (("netns:ns1", "veth1"), ("netns:ns2", "veth2")):
        host[link].group = group
    assert planned(host, VETH1, VETH2).operations == ()
    assert [one.op for one in planned(host).operations] == ["delete"]


def test_no_mtu_means_the_kernels_1500_and_no_mac_means_any(host: Host) -> None:
    applied(host, replace(VETH1, mtu=9000), VETH2)
    assert change(applied(host, VETH1, VETH2)).changes == {"mtu": (9000, 1500)}
    host["netns:ns1", "veth1"].mac = "02:99:99:99:99:99"
    assert planned(host, VETH1, VETH2).operations == ()


def test_giving_a_mac_is_a_change_and_clearing_it_leaves_the_one_that_is_there(host: Host) -> None:
    with_mac = replace(VETH1, phys_address="02:00:00:00:00:01")
    applied(host, VETH1, VETH2)
    assert list(change(applied(host, with_mac, VETH2)).changes) == ["mac", "alias"]
    assert list(change(applied(host, VETH1, VETH2)).changes) == ["alias"]
    assert host["netns:ns1", "veth1"].mac == "02:00:00:00:00:01"
    # From now on, the value counts as the kernel's choice: nobody restores it.
    host["netns:ns1", "veth1"].mac = "02:99:99:99:99:99"
    assert planned(host, VETH1, VETH2).operations == ()


def test_another_number_of_queues_is_a_rebuild_and_none_wanted_is_any(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = applied(host, replace(VETH1, num_queues=8), VETH2)
    assert ops(made) == ["delete", "create"]
    assert deleted(made)[0].why == "rebuilt: veth1 has num_queues 2, not 8"
    assert planned(host, VETH1, VETH2).operations == ()


def test_a_host_name_changes_in_place_if_it_is_free(host: Host) -> None:
    applied(host, VETH1, VETH2)
    eth0 = replace(VETH1, host_if_name="eth0")
    assert change(applied(host, eth0, VETH2)).changes == {"name": ("veth1", "eth0")}
    assert host["netns:ns1", "eth0"].up


def test_two_interfaces_that_swap_their_host_names_are_rebuilt(host: Host) -> None:
    others = [end("c", "d", host_if_name="eth1"), end("d", "c", namespace=NS2)]
    applied(host, replace(VETH1, host_if_name="eth0"), VETH2, *others)
    swapped = [replace(others[0], host_if_name="eth0"), others[1]]
    made = applied(host, replace(VETH1, host_if_name="eth1"), VETH2, *swapped)
    assert ops(made) == ["delete", "delete", "create", "create"]
    assert "cannot be renamed while" in deleted(made)[0].why
    assert set(states(made).values()) == {"CONFIGURED"}


def test_a_name_freed_by_a_rename_can_be_taken_at_once(host: Host) -> None:
    applied(host, replace(VETH1, host_if_name="eth0"), VETH2)
    newcomers = [end("c", "d", host_if_name="eth0"), end("d", "c")]
    made = applied(host, replace(VETH1, host_if_name="eth1"), VETH2, *newcomers)
    assert ops(made) == ["change", "create"]


def test_a_move_and_a_new_peer_are_rebuilds_that_keep_the_rest(host: Host) -> None:
    home = Namespace()
    pair = [replace(VETH1, namespace=home), replace(VETH2, namespace=home)]
    others = [end("c", "d"), end("d", "c")]
    applied(host, *pair, *others)
    # One end moves to ns1 and the MTU of the other changes, at once.
    moved = [VETH1, replace(pair[1], mtu=1400)]
    made = applied(host, *moved, *others)
    assert ops(made) == ["delete", "create"]
    assert host["netns:ns1", "veth1"].up
    assert host["", "veth2"].mtu == 1400
    repeered = [replace(VETH1, peer_if_name="veth3"), end("veth3", "veth1"), replace(moved[1])]
    made = applied(host, *repeered, *others)
    assert ops(made) == ["delete", "create"]
    assert judged(made, "veth2") == {"veth2": "PENDING: peer-points-elsewhere(veth1)"}


def test_two_spellings_of_a_namespace_are_one(host: Host) -> None:
    applied(host, VETH1, VETH2)
    respelt = replace(VETH1, namespace=Namespace(3, filepath="/run/netns/ns1"))
    assert planned(host, respelt, VETH2).operations == ()


def test_both_ends_may_live_in_one_namespace_whichever_is_read_first(host: Host) -> None:
    pair = [end("a", "b", namespace=Namespace()), end("b", "a", namespace=Namespace())]
    applied(host, *pair)
    assert planned(host, *pair).operations == ()
    assert {place for place, _ in host.links} == {HOME}


def test_a_peer_that_only_one_end_shows_is_enough(host: Host) -> None:
    applied(host, VETH1, VETH2)
    observed = host.observe()
    blind = [replace(seen, peer=None) if seen.link.name == "veth1" else seen for seen in observed.links]
    desired = {"veth1": VETH1, "veth2": VETH2}
    assert plan(desired, Observed(observed.netns, blind), label=LABEL, prune=True).operations == ()


# Addresses


def test_of_the_addresses_only_ours_are_removed(host: Host) -> None:
    veth1 = replace(VETH1, ip_addresses=("10.0.0.1/24", "2001:db8::1/64"))
    applied(host, veth1, VETH2)
    link = host["netns:ns1", "veth1"]
    link.give(ip_interface("10.9.0.1/24"), 0)
    link.give(ip_interface("2001:db8:9::1/64"), 4)
    made = change(planned(host, replace(veth1, ip_addresses=()), VETH2))
    assert made.removed == veth1.addresses
    assert made.added == ()


def test_a_wanted_address_that_somebody_else_gave_is_fine(host: Host) -> None:
    applied(host, VETH1, VETH2)
    host["netns:ns1", "veth1"].give(ip_interface("10.0.0.1/24"), 0)
    assert planned(host, replace(VETH1, ip_addresses=("10.0.0.1/24",)), VETH2).operations == ()


@pytest.mark.parametrize("text", ["fe80::1/64", "169.254.1.1/16"])
def test_a_link_local_address_that_was_configured_goes_with_its_configuration(host: Host, text: str) -> None:
    applied(host, replace(VETH1, ip_addresses=(text,)), VETH2)
    host["netns:ns1", "veth1"].give("fe80::77/64", 0)
    made = change(applied(host, VETH1, VETH2))
    assert (made.added, made.removed) == ((), (ip_interface(text),))
    assert {a.proto for a in host["netns:ns1", "veth1"].addresses} == {0, 3}
    other = text.partition("/")[0] + ("/128" if ":" in text else "/32")
    applied(host, replace(VETH1, ip_addresses=(text,)), VETH2)
    made = change(applied(host, replace(VETH1, ip_addresses=(other,)), VETH2))
    assert (made.added, made.removed) == ((ip_interface(other),), (ip_interface(text),))


def test_an_address_in_another_form_makes_room_for_the_configured_one_whoever_gave_it(host: Host) -> None:
    wanted = replace(VETH1, ip_addresses=("10.0.0.1/24", "10.0.0.2/32", "2001:db8::1/64"))
    applied(host, VETH1, VETH2)
    link = host["netns:ns1", "veth1"]
    for text in ("10.0.0.1 peer 10.0.0.9/24", "10.0.0.2 peer 10.0.0.8/32", "2001:db8::1/48"):
        link.give(text, 0)
    made = change(applied(host, wanted, VETH2))
    assert list(map(str, made.removed)) == ["10.0.0.1 peer 10.0.0.9/24", "2001:db8::1/48"]
    assert made.added == wanted.addresses
    assert "10.0.0.2 peer 10.0.0.8/32" in link.kept.texts()
    assert planned(host, wanted, VETH2).operations == ()


@pytest.mark.parametrize("version", [4, 6])
def test_addresses_that_are_in_another_order_are_put_in_theirs(host: Host, version: int) -> None:
    texts = ["10.0.0.1/24", "10.0.0.2/24"] if version == 4 else ["2001:db8::1/64", "2001:db8::2/64"]
    applied(host, replace(VETH1, ip_addresses=tuple(texts)), VETH2)
    link = host["netns:ns1", "veth1"]
    assert [text for text in link.kept.texts() if text in texts] == texts
    turned = replace(VETH1, ip_addresses=tuple(reversed(texts)))
    made = change(applied(host, turned, VETH2))
    assert (made.added, made.removed, made.order) == ((), (), turned.addresses)
    assert planned(host, turned, VETH2).operations == ()
    moved = turned.ip_addresses[0 if version == 4 else 1]
    link.take(moved)
    link.give(moved, 0)
    assert change(applied(host, turned, VETH2)).order == turned.addresses
    assert planned(host, turned, VETH2).operations == ()


def test_an_address_between_others_comes_in_its_place(host: Host) -> None:
    applied(host, replace(VETH1, ip_addresses=("10.0.0.1/24", "10.1.0.1/24")), VETH2)
    wanted = replace(VETH1, ip_addresses=("10.0.0.1/24", "10.2.0.1/24", "10.1.0.1/24"))
    made = change(applied(host, wanted, VETH2))
    assert (made.added, made.order) == ((ip_interface("10.2.0.1/24"),), wanted.addresses)
    assert planned(host, wanted, VETH2).operations == ()
    last = replace(VETH1, ip_addresses=(*wanted.ip_addresses, "10.3.0.1/24"))
    assert change(applied(host, last, VETH2)).order == ()


def test_link_only_looks_at_no_address(host: Host) -> None:
    applied(host, replace(VETH1, ip_addresses=("10.0.0.1/24",)), VETH2)
    veth1 = replace(VETH1, ip_addresses=("10.0.0.2/24",), link_only=True)
    assert planned(host, veth1, VETH2).operations == ()


def test_the_ipv6_addresses_the_kernel_drops_with_a_link_that_goes_down_are_given_again(host: Host) -> None:
    veth1 = replace(VETH1, ip_addresses=("10.0.0.1/24", "2001:db8::1/64", "fe80::1/64"))
    applied(host, veth1, VETH2)
    down = replace(veth1, enabled=False)
    made = change(applied(host, down, VETH2))
    assert made.changes == {"up": (True, False)}
    assert made.added == (ip_interface("2001:db8::1/64"), ip_interface("fe80::1/64"))
    assert planned(host, down, VETH2).operations == ()
    assert change(planned(host, veth1, VETH2)).added == ()


def test_addresses_that_stay_are_not_part_of_the_change_whatever_they_are_secondary_to(host: Host) -> None:
    first = replace(VETH1, ip_addresses=("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/24"))
    applied(host, first, VETH2)
    link = host["netns:ns1", "veth1"]
    link.give(ip_interface("10.0.0.9/24"), 0)
    without = replace(first, ip_addresses=("10.0.0.2/24", "10.1.0.1/24"))
    made = change(applied(host, without, VETH2))
    assert made.removed == (ip_interface("10.0.0.1/24"), ip_interface("10.0.0.3/24"))
    assert made.added == ()
    assert {(str(a.interface), a.proto) for a in link.addresses if a.interface.version == 4} == {
        ("10.0.0.2/24", 0x76),
        ("10.1.0.1/24", 0x76),
        ("10.0.0.9/24", 0),
    }


def test_removing_a_secondary_address_takes_no_other(host: Host) -> None:
    applied(host, replace(VETH1, ip_addresses=("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24")), VETH2)
    made = change(planned(host, replace(VETH1, ip_addresses=("10.0.0.1/24", "10.0.0.3/24")), VETH2))
    assert (made.added, made.removed) == ((), (ip_interface("10.0.0.2/24"),))


def test_a_lone_end_takes_the_name_of_a_link_that_the_same_plan_deletes(host: Host) -> None:
    other = end("x", "y", host_if_name="eth0"), end("y", "x", namespace=NS2)
    applied(host, VETH1, VETH2, *other)
    moved = end("x", "y", namespace=NS2), other[1]  # a pair that has to be rebuilt elsewhere
    renamed = replace(VETH1, host_if_name="eth0")
    made = applied(host, renamed, *moved, prune=False)
    assert ops(made) == ["delete", "change", "create"]
    assert states(made) == {"veth1": "CONFIGURED", "x": "CONFIGURED", "y": "CONFIGURED"}
    assert planned(host, renamed, *moved, prune=False).operations == ()


def chain(names: Iterable[str], first: int) -> list[Interface]:
    """Interfaces that each have the name that the next has if `first` is increased by one."""
    return [end(name, f"{name}-peer", host_if_name=f"eth{number}") for number, name in enumerate(names, first)]


def named(host: Host) -> dict[str, str]:
    links = [link for link in host.links.values() if link.alias and link.name.startswith("eth")]
    return {link.alias.rpartition("=")[2]: link.name for link in links}


@pytest.mark.parametrize("names", [*permutations("abc")], ids="".join)
def test_lone_ends_take_the_names_that_others_give_up_and_give_them_back(host: Host, names: tuple[str, ...]) -> None:
    peers = [end(f"{name}-peer", name, namespace=NS2) for name in names]
    applied(host, *chain(names, 0), *peers)
    before, were = host.observe(), named(host)
    made = applied(host, *chain(names, 1), prune=False)
    assert set(states(made).values()) == {"CONFIGURED"}
    assert named(host) == {name: f"eth{number}" for number, name in enumerate(names, 1)}
    assert planned(host, *chain(names, 1), prune=False).operations == ()
    after = host.observe()
    undo = inverse(made.operations, before, after, after)
    host.apply(undo.plan)
    assert (named(host), undo.left) == (were, ())


def test_undoing_a_chain_of_renames_ends_where_another_link_has_taken_a_name(host: Host) -> None:
    peers = [end(f"{name}-peer", name, namespace=NS2) for name in "abc"]
    applied(host, *chain("abc", 0), *peers)
    before = host.observe()
    made = applied(host, *chain("abc", 1), prune=False)
    after, expected = host.observe(), named(host)
    host.add(host.places["netns:ns1"], "eth0", kind="dummy")
    undo = inverse(made.operations, before, after, host.observe())
    host.apply(undo.plan)
    assert named(host) == expected
    assert len(undo.left) == 3


def test_lone_ends_that_would_exchange_their_names_keep_them(host: Host) -> None:
    applied(host, *chain("ab", 0), *(end(f"{name}-peer", name, namespace=NS2) for name in "ab"))
    made = planned(host, *chain("ba", 0), prune=False)
    assert made.operations == ()
    assert "CONFIGURED" not in states(made).values()


def test_a_lone_end_takes_the_name_that_an_end_of_a_pair_gives_up(host: Host) -> None:
    other = end("x", "y", host_if_name="eth0"), end("y", "x", namespace=NS2)
    applied(host, VETH1, VETH2, *other)
    wanted = replace(VETH1, host_if_name="eth0"), replace(other[0], host_if_name="eth9"), other[1]
    made = applied(host, *wanted, prune=False)
    assert (ops(made), set(states(made).values())) == (["change", "change"], {"CONFIGURED"})
    assert planned(host, *wanted, prune=False).operations == ()


def test_the_order_of_changes_is_that_in_which_they_free_names() -> None:
    many = dict(enumerate(range(5000)))
    assert in_order(many, lambda number: []) == list(range(5000))
    assert in_order(many, lambda number: [number + 1]) == list(reversed(range(5000)))
    assert sorted(in_order(many, lambda number: [(number + 1) % 5000])) == list(range(5000))
    assert in_order({1: 1, 2: 2, 3: 3, 4: 4}, {1: [3, 4, 9], 3: [4], 2: [], 4: [2]}.__getitem__) == [2, 4, 3, 1]


def test_a_lone_end_fails_on_a_name_that_another_pair_keeps(host: Host) -> None:
    other = end("x", "y", host_if_name="eth0"), end("y", "x", namespace=NS2)
    applied(host, VETH1, VETH2, *other)
    made = planned(host, replace(VETH1, host_if_name="eth0"), prune=False)
    assert (ops(made), states(made)) == ([], {"veth1": "FAILED"})
