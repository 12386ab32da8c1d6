"""What others put on a link is found, and addresses are given back as they were."""

from __future__ import annotations

import subprocess

import pytest

from tests.witness import ip, seen
from vethlib import End, LinkNotFound, Session, Veth, ns
from vethlib.links import Borne


def _tc(*args: str, netns: str) -> None:
    with ns.entered(netns):
        subprocess.run(["tc", *args], check=True)


def test_a_link_that_only_its_maker_touched_bears_nothing(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue, addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("two")))
    assert session.borne([(blue, pair.a.index), ("", pair.b.index), (blue, 999)]) == [Borne()] * 3


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
    one, two = session.borne([(blue, pair.a.index), (blue, pair.b.index)])
    assert (one.routes, one.neighbours, one.stacked) == (4, 1, ())
    assert one.fixed == ("its alternative name 'another'", "its place in 'br'", "its qdisc clsact")
    assert two == Borne(stacked=("'mv'",))


def test_ipv6_that_is_switched_off_is_noticed(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("one", blue), End("two")))
    with ns.entered(blue), open("/proc/sys/net/ipv6/conf/one/disable_ipv6", "w") as switch:
        switch.write("1")
    assert session.borne([(blue, pair.a.index)])[0].ipv6_off


def test_addresses_come_back_with_label_broadcast_metric_scope_and_order(session: Session, blue: str) -> None:
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
