"""A Link or an End of an open Netns is in that namespace, wherever the spelling of the Netns leads by now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.live.reused_identity import replaced
from tests.refusing import raises
from tests.witness import ip, seen
from vethlib import End, Link, Netns, NetnsNotFound, Session, Veth
from vethlib.monitor import Monitor
from vethlib.topology import Topology

THEIRS = "02:00:00:00:00:66"


def foreign_eth0(netns: Netns | str) -> None:
    """Create what another program has there, with the first ifindex of a new namespace."""
    theirs = ["type", "veth", "peer", "name", "theirs", "index", "3"]
    ip("link", "add", "name", "eth0", "index", "2", "address", THEIRS, *theirs, netns=netns)


@pytest.fixture
def blue(session: Session) -> Iterator[Netns]:
    """An open namespace, whose name leads to another one by now."""
    with Netns.create("blue") as blue:
        session.create(Veth(End("a", addresses=["10.0.0.1/24"]), End("eth0", blue, addresses=["10.0.0.2/24"])))
        replaced("blue")
        foreign_eth0("blue")
        yield blue


WAYS: dict[str, Callable[[Session, Netns], Link | End | tuple[Netns, str | int]]] = {
    "a Link": lambda session, blue: session.lookup("eth0", blue),
    "an End": lambda session, blue: End("eth0", blue),
    "a name": lambda session, blue: (blue, "eth0"),
    "an ifindex": lambda session, blue: (blue, seen("eth0", blue)["ifindex"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_link_is_inspected_in_the_namespace_that_is_open(session: Session, blue: Netns, way: str) -> None:
    survey = session.inspect([WAYS[way](session, blue)])
    (found,) = survey.links
    there = seen("eth0", blue)
    assert (found.link.mac, found.at) == (there["address"], blue.identity)
    assert [str(one) for one in found.addresses] == [str(one) for one in session.lookup("eth0", blue).ifaddrs]
    assert found.link.netns is blue
    assert survey.places == {found.ref: blue.identity}
    assert session.set(found.link, mtu=1400).mac == there["address"]


def test_links_of_the_open_namespace_and_of_that_with_its_name_are_distinguished(session: Session, blue: Netns) -> None:
    asked: list[tuple[Netns | str, str]] = [("netns:blue", "eth0"), (blue, "eth0")]
    for links in (asked, asked[::-1]):
        survey = session.inspect(links)
        by_ref = {found.ref: found.link.mac for found in survey.links}
        assert len(by_ref) == len(survey.places) == 2
        assert by_ref["netns:blue"] == THEIRS == seen("eth0", "blue")["address"]
        assert set(by_ref.values()) == {THEIRS, seen("eth0", blue)["address"]}
        assert survey.places["netns:blue"] == session.identity("blue")
        assert set(survey.places.values()) == {session.identity("blue"), blue.identity}


def test_open_namespaces_of_one_name_are_distinguished(session: Session, blue: Netns) -> None:
    with Netns.open("blue") as other:
        survey = session.inspect([(blue, "eth0"), (other, "eth0"), (blue, "lo")], refs=[""])
        found = {(link.at, link.link.name, link.link.mac) for link in survey.links}
        assert found == {
            (blue.identity, "eth0", seen("eth0", blue)["address"]),
            (blue.identity, "lo", "00:00:00:00:00:00"),
            (other.identity, "eth0", THEIRS),
        }
        assert len(survey.places) == 3


@pytest.mark.parametrize("ends_at_home", [False, True])
def test_the_peer_of_a_link_in_an_open_namespace_is_found(session: Session, blue: Netns, ends_at_home: bool) -> None:
    ours = session.lookup("eth0", blue)
    survey = session.inspect([ours] if ends_at_home else [ours, ("", "a")], ends_at_home=ends_at_home)
    by_name = {found.link.name: found for found in survey.links}
    assert by_name["eth0"].peer == (session.identity(""), seen("a")["ifindex"])
    assert by_name["a"].peer == (blue.identity, seen("eth0", blue)["ifindex"])


@pytest.mark.parametrize("many", [2, 70])
def test_peers_in_open_namespaces_are_found(session: Session, many: int) -> None:
    """As a ring, in which all links look alike; more than are open at a time, too."""
    with ExitStack() as opened:
        nodes = [opened.enter_context(Netns.anonymous()) for _ in range(many)]
        veths = [
            Veth(End("l", here), End("r", there)) for here, there in zip(nodes, [*nodes[1:], nodes[0]], strict=True)
        ]
        pairs = session.create_many(veths)
        survey = session.inspect([link for pair in pairs for link in pair])
        peers = {(found.at, found.link.index): found.peer for found in survey.links}
        for here, there, (left, right) in zip(nodes, [*nodes[1:], nodes[0]], pairs, strict=True):
            assert peers[here.identity, left.index] == (there.identity, right.index)
            assert peers[there.identity, right.index] == (here.identity, left.index)


def test_nodes_and_files_are_namespaces_as_well(session: Session) -> None:
    with Topology.build("a -- b", session=session) as net, open(f"/proc/self/fd/{net['b'].netns.fd}", "rb") as file:
        (name,) = [link.name for link in net["a"].links() if link.name != "lo"]
        (other,) = [link.name for link in net["b"].links() if link.name != "lo"]
        survey = session.inspect([End(name, net["a"]), (file, other)])
        assert [found.at for found in survey.links] == [net["a"].netns.identity, net["b"].netns.identity]


@pytest.mark.parametrize("together", [False, True])
def test_a_link_of_a_closed_netns_is_not_read_elsewhere(session: Session, together: bool) -> None:
    """The kernel gives the number of a closed descriptor to the next one."""
    closed = Netns.anonymous()
    link = session.create(Veth(End("a"), End("eth0", closed))).b
    number = closed.fd
    closed.close()
    with Netns.anonymous() as other:
        assert other.fd == number
        foreign_eth0(other)
        with raises(NetnsNotFound):
            session.inspect([link, *([(other, "eth0")] if together else [])])
        assert [found.link.mac for found in session.inspect([(other, "eth0")]).links] == [THEIRS]


def test_a_monitor_knows_the_peer_of_a_link_in_an_open_namespace(session: Session, blue: Netns) -> None:
    ours, theirs = session.lookup("eth0", blue), session.lookup("eth0", "blue")
    assert ours.index == theirs.index
    with Monitor(session) as monitor:
        assert monitor.peer(theirs) == ("netns:blue", "theirs")
        assert monitor.peer(ours) is None
        with Netns.open("blue") as other:
            assert monitor.peer(session.lookup("eth0", other)) == ("netns:blue", "theirs")
            with open("/run/netns/blue", "rb") as file:
                assert monitor.peer(session.lookup("eth0", file)) == ("netns:blue", "theirs")
        with Monitor(session, [f"fd:{blue.fd}"]) as both:
            assert both.peer(ours) == ("", "a")
            assert both.peer(session.lookup("a")) == (f"fd:{blue.fd}", "eth0")


def test_a_monitor_refuses_a_link_of_a_closed_netns(session: Session) -> None:
    with Netns.create("green") as green:
        link = session.create(Veth(End("g"), End("eth0", green))).b
    with Monitor(session) as monitor:
        assert monitor.peer("green", link.index) == ("", "g")
        with raises(NetnsNotFound):
            monitor.peer(link)
