"""Dependents of a link are found, and addresses are restored as they were."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.live.descriptors import descriptors_left
from tests.live.sysctls import without_link_local
from tests.witness import ip, open_fds, seen
from vethlib import End, LinkNotFound, Neighbour, NetnsNotFound, Route, Session, Veth, ns
from vethlib.links import Dependents


def _tc(*args: str, netns: str) -> None:
    with ns.entered(netns):
        subprocess.run(["tc", *args], check=True)


def test_a_link_that_only_its_maker_touched_bears_nothing(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue, addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("two")))
    assert session.dependents([(blue, pair.a.index), ("", pair.b.index), (blue, 999)]) == [Dependents()] * 3


def test_routes_neighbours_and_what_hangs_on_a_link_are_found(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue, addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("two", blue)))
    ip("route", "add", "10.1.0.0/16", "via", "10.0.0.2", netns=blue)
    ip("route", "add", "10.2.0.0/16", "nexthop", "via", "10.0.0.2", "nexthop", "via", "10.0.0.3", netns=blue)
    ip("route", "add", "10.3.0.0/16", "via", "10.0.0.2", "table", "77", netns=blue)
    ip("-6", "route", "add", "2001:db8:1::/48", "via", "2001:db8::2", netns=blue)
    ip("neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "one", netns=blue)
    ip("link", "property", "add", "dev", "one", "altname", "another", netns=blue)
    ip("link", "add", "name", "br", "type", "bridge", netns=blue)
    ip("link", "set", "one", "master", "br", netns=blue)
    ip("link", "add", "link", "two", "name", "mv", "type", "macvlan", netns=blue)
    _tc("qdisc", "add", "dev", "one", "clsact", netns=blue)
    one, two = session.dependents([(blue, pair.a.index), (blue, pair.b.index)])
    assert (one.routes, one.neighbours, one.stacked) == (4, 1, ())
    assert one.fixed == ("its alternative name 'another'", "its place in 'br'", "its qdisc clsact")
    assert two == Dependents(stacked=("'mv'",))


@pytest.mark.parametrize(
    "setting",
    [
        "promisc on",
        "allmulticast on",
        "arp off",
        "multicast off",
        "dynamic on",
        "trailers off",
        "mode dormant",
        "broadcast 02:00:00:00:00:99",
        "gso_max_segs 100",
        pytest.param("gro_max_size 30000", marks=pytest.mark.needs_kernel("5.19")),
    ],
)
def test_a_setting_that_another_program_has_changed_is_found(session: Session, blue: str, setting: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two", blue)))
    ip("link", "set", "one", *setting.split(), netns=blue)
    one, two = session.dependents([(blue, pair.a.index), (blue, pair.b.index)])
    # Since Linux 6.3, the kernel changes the size of IPv4 along with the other (netif_set_gro_max_size).
    assert [each for each in one.fixed if "ipv4" not in each] == [f"its setting {setting!r}"]
    assert two == Dependents()


def test_what_a_bridge_or_a_socket_needs_of_a_link_is_no_setting(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two", blue)))
    ip("link", "add", "name", "br", "type", "bridge", netns=blue)
    ip("link", "set", "one", "master", "br", netns=blue)
    assert seen("one", blue)["promiscuity"] == 1
    assert session.dependents([(blue, pair.a.index)])[0].fixed == ("its place in 'br'",)


def test_the_ipv6_token_of_a_link_is_found(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two", blue)))
    ip("token", "set", "::1:2:3:4", "dev", "one", netns=blue)
    one, two = session.dependents([(blue, pair.a.index), (blue, pair.b.index)])
    assert (one, two) == (Dependents(ipv6_token="::1:2:3:4"), Dependents())


@pytest.mark.parametrize("left", [5, 12, 200])
def test_with_few_descriptors_few_namespaces_are_open_at_a_time(
    session: Session, make_netns: Callable[..., None], left: int
) -> None:
    make_netns(*(refs := [f"n{number}" for number in range(70)]))
    pairs = session.create_many([Veth(End(f"v{number}"), End("inside", ref)) for number, ref in enumerate(refs)])
    ip("link", "property", "add", "dev", "inside", "altname", "another", netns=refs[-1])
    before = open_fds()
    with descriptors_left(left):
        *others, last = session.dependents(pair.b for pair in pairs)
    assert others == [Dependents()] * 69
    assert last.fixed == ("its alternative name 'another'",)
    assert open_fds() == before


def test_two_references_to_one_namespace_are_one_look(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two", blue)))
    ip("link", "property", "add", "dev", "two", "altname", "another", netns=blue)
    one, two = session.dependents([(f"path:/run/netns/{blue}", pair.a.index), (blue, pair.b.index)])
    assert (one, two) == (Dependents(), Dependents(fixed=("its alternative name 'another'",)))


def test_a_namespace_that_is_not_there_is_an_error(session: Session, blue: str) -> None:
    with pytest.raises(NetnsNotFound):
        session.dependents([(blue, 1), ("missing", 1)])


def test_ipv6_that_is_switched_off_is_noticed(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two")))
    with ns.entered(blue), open("/proc/sys/net/ipv6/conf/one/disable_ipv6", "w") as switch:
        switch.write("1")
    assert session.dependents([(blue, pair.a.index)])[0].ipv6_off


def test_addresses_come_back_with_label_broadcast_metric_scope_and_order(session: Session, blue: str) -> None:
    without_link_local(blue)
    pair = session.create(Veth(End("one", blue, addresses=["10.0.0.1/24", "10.0.0.2/24"]), End("two")))
    ip("address", "add", "10.5.0.1/24", "dev", "one", "label", "one:x", "broadcast", "+", netns=blue)
    ip("address", "add", "10.6.0.1/24", "dev", "one", "metric", "7", "scope", "link", netns=blue)
    ip("address", "add", "2001:db8::9/64", "dev", "one", "nodad", "noprefixroute", netns=blue)
    before = seen("one", blue)["addr_info"]
    saved = [one for one in session.addresses(blue) if one.index == pair.a.index]
    session.set("one", blue, addresses=["10.0.0.2/24", "10.9.0.1/24"])
    session.restore_addresses("one", blue, addresses=saved, index=pair.a.index)
    assert [one for one in seen("one", blue)["addr_info"] if "tentative" not in one] == [
        one for one in before if "tentative" not in one
    ]


def test_addresses_are_given_back_to_the_link_that_was_seen_only(session: Session) -> None:
    pair = session.create(Veth(End("one"), End("two")))
    with pytest.raises(LinkNotFound):
        session.restore_addresses("one", addresses=[], index=pair.a.index + 100)


def test_the_former_name_of_the_method_warns_and_returns_the_same(session: Session, blue: str) -> None:
    with pytest.warns(DeprecationWarning, match="Session.dependents"):
        assert session.borne([("", 1)]) == session.dependents([("", 1)])


def test_only_these_routes_and_neighbours_are_removed(session: Session, blue: str) -> None:
    macs = [f"02:00:00:00:00:0{number}" for number in range(1, 4)]
    given = [Neighbour("10.0.0.9", macs[0]), Neighbour("fd00::9", macs[0])]
    end = End("one", blue, addresses=["10.0.0.1/24"], routes=[Route("10.1.0.0/16"), Route("10.2.0.0/16")])
    session.create(Veth(end, End("two", blue)))
    session.set("one", blue, neighbours=given)
    ip("neighbour", "replace", "10.0.0.9", "lladdr", macs[1], "dev", "one", netns=blue)  # another program's by now
    ip("neighbour", "add", "10.0.0.8", "lladdr", macs[2], "dev", "one", netns=blue)
    missing = Neighbour("10.0.0.7", macs[0])
    others = Neighbour("10.0.0.8", macs[2])
    session.remove_dependents(
        "one", blue, routes=[Route("10.1.0.0/16"), Route("10.3.0.0/16")], neighbours=[*given, missing, others]
    )
    kept = {
        each["dst"]: each["lladdr"] for each in ip("neighbour", "show", "dev", "one", "nud", "permanent", netns=blue)
    }
    assert kept == {"10.0.0.9": macs[1], "10.0.0.8": macs[2]}
    assert [each["dst"] for each in ip("route", "show", "proto", "118", netns=blue)] == ["10.2.0.0/16"]


def test_routes_from_an_address_of_a_link_over_other_links_are_found(session: Session, blue: str) -> None:
    given = ["10.0.0.1/24", "10.0.1.1/24", "2001:db8::1/64 nodad"]
    pair = session.create(Veth(End("one", blue, addresses=given), End("two", blue)))
    over = session.create(Veth(End("other", blue, addresses=["192.168.7.1/24"]), End("far", blue)), wait=30).a.index
    session.set("other", blue, routes=[Route("10.8.0.0/16", src="10.0.0.1")])
    for route in (
        "10.1.0.0/16 via 192.168.7.2 src 10.0.0.1",
        "10.2.0.0/16 src 10.0.0.1 nexthop via 192.168.7.2 nexthop via 192.168.7.3",
        "unreachable 10.3.0.0/16 src 10.0.1.1",
        "10.4.0.0/16 via 192.168.7.2 src 10.0.0.1 table 88",  # which the kernel leaves alone
        "10.5.0.0/16 dev two src 192.168.7.1",
        "10.6.0.0/16 dev one src 10.0.0.1",
        "2001:db8:1::/48 dev other src 2001:db8::1 table 88",
    ):
        ip("-6" if "2001:" in route else "-4", "route", "add", *route.split(), netns=blue)
    one, two = session.dependents([(blue, pair.a.index), (blue, pair.b.index)])
    assert {(str(each.source), each.over, each.own): each.number for each in one.sourced} == {
        ("10.0.0.1", over, False): 2,
        ("10.0.0.1", over, True): 1,
        ("10.0.1.1", 0, False): 1,
        ("2001:db8::1", over, False): 1,
    }
    assert (one.routes, two.routes, two.sourced) == (1, 1, ())


def test_permanent_neighbours_are_counted_by_family(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue, addresses=["10.0.0.1/24"]), End("two", blue)))
    for address in ("10.0.0.2", "10.0.0.3", "2001:db8::2"):
        ip("neighbour", "add", address, "lladdr", "02:00:00:00:00:02", "dev", "one", netns=blue)
    (one,) = session.dependents([(blue, pair.a.index)])
    assert (one.neighbours, one.ipv4_neighbours) == (3, 2)
