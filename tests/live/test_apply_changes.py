"""Changing what is there: only what differs, in place where that can be, and nothing of others'."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.applying import applied, indexes, interface, planned, reaches
from tests.witness import addresses, host_state, ip, names, poll, seen
from vethlib import LinkNotFound, Session, ns
from vethlib.agent import Interface
from vethlib.agent.host.execution import execute

A: dict[str, Any] = {
    "phys_address": "02:00:00:00:00:0a",
    "mtu": 1500,
    "ip_addresses": ["10.0.0.1/24", "2001:db8::1/64"],
}


def a(**fields: Any) -> Interface:
    return interface("a", "b", "ns1", **(A | fields))


B = interface("b", "a", "ns2", ip_addresses=["10.0.0.2/24"])
OTHER = (interface("x", "y", "ns1", ip_addresses=["10.9.9.1/24"]), interface("y", "x", "ns2"))


@pytest.fixture
def built(session: Session) -> list[int]:
    """Two pairs; the indexes of the first."""
    applied(session, a(), B, *OTHER)
    return indexes(("a", "ns1"), ("b", "ns2"))


# Nothing is recorded here: only the kernel knows which addresses are ours. test_unmarked_addresses.py has the rest.
MARKED = pytest.mark.needs_kernel("5.18")


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("mtu", 1400, {"mtu"}),
        ("phys_address", "02:00:00:00:00:0b", {"address", "addr_info"}),
        pytest.param("ip_addresses", ["10.0.0.9/24", "2001:db8::1/64"], {"addr_info"}, marks=MARKED),
        pytest.param("ip_addresses", ["10.0.0.1/28", "2001:db8::1/64"], {"addr_info"}, marks=MARKED),
        pytest.param("ip_addresses", ["10.0.0.1/24", "2001:db8::1/48"], {"addr_info"}, marks=MARKED),
        pytest.param("ip_addresses", [], {"addr_info"}, marks=MARKED),
        ("host_if_name", "eth0", {"ifname", "altnames", "addr_info"}),
        ("enabled", False, {"flags"}),
    ],
)
def test_an_edited_field_is_all_that_changes(
    session: Session, built: list[int], field: str, value: Any, changed: set[str]
) -> None:
    before = host_state()
    edited = a(**{field: value})
    execution = applied(session, edited, B, *OTHER)
    assert len(execution.done) == 1
    assert indexes((edited.kernel_name, "ns1"), ("b", "ns2")) == built
    after = host_state()
    if field != "enabled":  # of which the other end has the news: its carrier is gone
        assert after["ns2"] == before["ns2"]
    for was, now in zip(before["ns1"], after["ns1"], strict=True):
        differs = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
        assert differs <= (changed if was["ifname"] == "a" else set())
    wanted = sorted(edited.ip_addresses)
    assert sorted(addresses(edited.kernel_name, "ns1")) == wanted


@MARKED
def test_mac_address_prefix_and_mtu_change_in_one_go(session: Session, built: list[int]) -> None:
    others = [seen("x", "ns1"), seen("y", "ns2")]
    edited = a(phys_address="02:00:00:00:00:0c", mtu=9000, ip_addresses=["10.0.0.1/16", "2001:db8::7/56"])
    applied(session, edited, B, *OTHER)
    now = seen("a", "ns1")
    assert (now["address"], now["mtu"]) == ("02:00:00:00:00:0c", 9000)
    assert sorted(addresses("a", "ns1")) == ["10.0.0.1/16", "2001:db8::7/56"]
    assert indexes(("a", "ns1"), ("b", "ns2")) == built
    assert [one["ifindex"] for one in others] == indexes(("x", "ns1"), ("y", "ns2"))
    assert reaches("ns2", "10.0.0.1", "ns1")


def test_a_disabled_end_comes_up_again_with_its_ipv6_address(session: Session, built: list[int]) -> None:
    applied(session, a(enabled=False), B, *OTHER)
    assert poll(lambda: "NO-CARRIER" in seen("b", "ns2")["flags"])
    applied(session, a(), B, *OTHER)
    assert poll(lambda: seen("b", "ns2")["operstate"] == "UP")
    assert "2001:db8::1/64" in addresses("a", "ns1")


def test_a_cleared_mac_keeps_the_pair_and_the_mac_that_it_has(session: Session, built: list[int]) -> None:
    execution = applied(session, a(phys_address=""), B, *OTHER)
    # Outside the home namespace an alias decides nothing, so that not even that is changed.
    assert {one.op for one in execution.done} <= {"change"}
    assert seen("a", "ns1")["address"] == A["phys_address"]
    assert indexes(("a", "ns1"), ("b", "ns2")) == built
    assert reaches("ns1", "10.0.0.2", "ns2")


def test_a_cleared_mtu_returns_to_the_kernels_default(session: Session, built: list[int]) -> None:
    applied(session, a(mtu=1400), B, *OTHER)
    applied(session, a(mtu=0), B, *OTHER)
    assert seen("a", "ns1")["mtu"] == 1500
    assert indexes(("a", "ns1"), ("b", "ns2")) == built


@MARKED
def test_addresses_of_others_and_link_local_ones_are_left_alone(session: Session, built: list[int]) -> None:
    ip("address", "add", "172.16.0.1/24", "dev", "a", netns="ns1")
    ip("address", "add", "fd00::9/64", "dev", "a", netns="ns1")
    ip("address", "add", "169.254.7.7/16", "dev", "a", netns="ns1")
    ip("address", "add", "fe80::77/64", "dev", "a", netns="ns1")
    assert planned(session, a(), B, *OTHER).operations == ()
    applied(session, a(ip_addresses=["10.0.0.3/24"]), B, *OTHER)
    assert sorted(addresses("a", "ns1")) == ["10.0.0.3/24", "169.254.7.7/16", "172.16.0.1/24", "fd00::9/64"]
    assert any(one["local"] == "fe80::77" for one in seen("a", "ns1")["addr_info"])


@MARKED
def test_others_secondary_addresses_outlive_our_primary_one(session: Session, built: list[int]) -> None:
    ip("address", "add", "10.0.0.77/24", "dev", "a", "label", "a:theirs", netns="ns1")
    made = planned(session, a(ip_addresses=["192.0.2.1/24"]), B, *OTHER)
    assert execute(session, made).errors == []
    assert sorted(addresses("a", "ns1")) == ["10.0.0.77/24", "192.0.2.1/24"]
    (theirs,) = [one for one in seen("a", "ns1")["addr_info"] if one["local"] == "10.0.0.77"]
    assert theirs["label"] == "a:theirs"
    assert "protocol" not in theirs
    assert planned(session, a(ip_addresses=["192.0.2.1/24"]), B, *OTHER).operations == ()


@MARKED
def test_our_own_secondary_address_outlives_our_primary_one(session: Session) -> None:
    applied(session, a(ip_addresses=["10.0.0.1/24", "10.0.0.5/24"]), B)
    applied(session, a(ip_addresses=["10.0.0.5/24"]), B)
    assert addresses("a", "ns1") == ["10.0.0.5/24"]


def test_a_link_only_interface_keeps_whatever_addresses_it_has(session: Session) -> None:
    applied(session, interface("a", "b", "ns1", link_only=True), B)
    ip("address", "add", "10.0.0.77/24", "dev", "a", netns="ns1")
    assert planned(session, interface("a", "b", "ns1", link_only=True), B).operations == ()


def test_one_end_moves_out_of_home_while_the_mtu_of_its_peer_changes(session: Session) -> None:
    applied(session, interface("a", "b"), interface("b", "a"))
    applied(session, interface("a", "b", "ns1"), interface("b", "a", mtu=1400))
    assert (names(), names("ns1")) == ({"b"}, {"a"})
    assert seen("b")["mtu"] == 1400


def test_two_interfaces_exchange_their_kernel_names(session: Session, built: list[int]) -> None:
    swapped = (
        interface("a", "b", "ns1", host_if_name="x", **A),
        interface("x", "y", "ns1", host_if_name="a", ip_addresses=["10.9.9.1/24"]),
    )
    applied(session, swapped[0], B, swapped[1], OTHER[1])
    assert "10.9.9.1/24" in addresses("a", "ns1")
    assert "10.0.0.1/24" in addresses("x", "ns1")


def test_what_somebody_changed_by_hand_is_put_right(session: Session, built: list[int]) -> None:
    ip("link", "set", "dev", "a", "down", netns="ns1")
    ip("link", "set", "dev", "a", "name", "renamed", "mtu", "1300", netns="ns1")
    ip("address", "del", "10.0.0.2/24", "dev", "b", netns="ns2")
    applied(session, a(), B, *OTHER)
    assert indexes(("a", "ns1"), ("b", "ns2")) == built
    assert reaches("ns1", "10.0.0.2", "ns2")


def test_a_lone_end_of_a_pair_that_is_there_is_changed_in_place(session: Session, built: list[int]) -> None:
    applied(session, a(mtu=1400))
    assert seen("a", "ns1")["mtu"] == 1400
    assert indexes(("a", "ns1"), ("b", "ns2")) == built


def test_a_change_that_is_refused_fails_its_interface_and_no_other(session: Session, built: list[int]) -> None:
    made = planned(session, a(mtu=1400), interface("b", "a", "ns2", mtu=1400), *OTHER)
    ip("link", "del", "dev", "a", netns="ns1")
    told: list[tuple[str, int, int]] = []
    execution = execute(session, made, progress=lambda *one: told.append(one))
    assert [type(error) for _, error in execution.errors] == [LinkNotFound, LinkNotFound]
    assert told == [("change", 1, 2), ("change", 2, 2)]
    verdicts = execution.verdicts(made)
    assert {name: str(one.state) for name, one in verdicts.items()} == {
        "a": "FAILED",
        "b": "FAILED",
        "x": "CONFIGURED",
        "y": "CONFIGURED",
    }


def test_a_link_in_a_namespace_that_was_replaced_is_not_changed(session: Session, built: list[int]) -> None:
    made = planned(session, a(mtu=1400), B, *OTHER)
    ns.remove("ns1")
    ns.Netns.create("ns1").close()
    ip(
        "link",
        "add",
        "name",
        "a",
        "index",
        str(built[0]),
        "type",
        "veth",
        "peer",
        "name",
        "z",
        "index",
        "99",
        netns="ns1",
    )
    execution = execute(session, made)
    ((_, error),) = execution.errors
    assert isinstance(error, LinkNotFound)
    assert seen("a", "ns1")["mtu"] == 1500


@pytest.mark.parametrize(("leaves", "takes"), [("a", "x"), ("x", "a")])
def test_a_link_takes_as_an_alternative_name_what_another_gives_up(session: Session, leaves: str, takes: str) -> None:
    peers = {"a": "b", "x": "y"}

    def ends(of: str, **fields: Any) -> tuple[Interface, Interface]:
        return interface(of, peers[of], "ns1", **fields), interface(peers[of], of, "ns2")

    applied(session, *ends(leaves), *ends(takes))
    applied(session, *ends(leaves, host_if_name="new"), *ends(takes, altnames=[leaves]))
    assert seen(takes, "ns1")["altnames"] == [leaves]
    assert seen("new", "ns1")["ifname"] == "new"
