"""How a monitor finds out which links are the ends of a pair, with a simulated session."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from vethlib.monitor.peers import At, Peers

IN_CONTAINERS = 2  # the ifindex of every container's first end


class Number(int):
    """An ifindex or inode number that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Number.compared += 1
        return int.__eq__(self, other)

    __hash__ = int.__hash__


def veth(index: int, peer: int | None, netnsid: int | None = 0) -> Any:
    return SimpleNamespace(index=Number(index), kind="veth", peer_index=peer, peer_netnsid=netnsid)


class Host:
    """Has pairs, and answers as a session does."""

    def __init__(self) -> None:
        self.links: dict[At, Any] = {}
        self.pairs: dict[At, At] = {}
        self.asked: set[At] = set()

    def add(self, a: At, b: At) -> None:
        for end, peer in ((a, b), (b, a)):
            self.links[end] = veth(end[1], peer[1])
            self.pairs[end] = peer

    def place(self, ref: str) -> tuple[int, int]:
        return 4, Number(int(ref.removeprefix("netns:") or -1))

    def inspect(self, ends: Iterable[At]) -> Any:
        self.asked = set(ends)
        refs = {ref for ref, _ in self.asked}
        links = []
        for ref, index in self.asked:
            to, peer = self.pairs[ref, index]
            links.append(SimpleNamespace(ref=ref, link=SimpleNamespace(index=index), peer=(self.place(to), peer)))
        return SimpleNamespace(links=links, places={ref: self.place(ref) for ref in refs})


def containers(number: int) -> Host:
    host = Host()
    for each in range(number):
        host.add(("", 10 + each), (f"netns:{each}", IN_CONTAINERS))
    return host


def containers_of_containers(number: int) -> Host:
    """Pairs of which both ends have the same ifindex as all others."""
    host = Host()
    for each in range(number):
        host.add((f"netns:{2 * each}", IN_CONTAINERS), (f"netns:{2 * each + 1}", IN_CONTAINERS))
    return host


def comparisons(host: Host) -> int:
    session: Any = host
    peers = Peers(session)
    Number.compared = 0
    peers.meet(host.links)
    compared = Number.compared
    assert {at: peers.of(at) for at in host.links} == host.pairs
    return compared


@pytest.mark.parametrize("make", [containers, containers_of_containers])
def test_finding_the_peers_of_twice_as_many_links_is_twice_the_work(make: Any) -> None:
    few, many = (comparisons(make(number)) for number in (300, 600))
    assert many <= 2.5 * few + 100


def test_links_whose_peers_are_not_watched_are_no_work_for_later_ones() -> None:
    def work_after(number: int) -> int:
        host = containers(number)
        session: Any = host
        peers = Peers(session)
        peers.meet({at: link for at, link in host.links.items() if at[0]})  # those at home are not known
        host.add(("", 5), ("netns:7777", IN_CONTAINERS))
        Number.compared = 0
        peers.meet({at: host.links[at] for at in (("", 5), ("netns:7777", IN_CONTAINERS))})
        compared = Number.compared
        peers.forget_all_in("netns:7777")
        assert peers.of(("", 5)) is None
        return compared

    assert work_after(600) <= work_after(300) + 10


def test_a_link_whose_first_message_has_no_peer_is_found_by_the_message_of_its_peer() -> None:
    host = containers(3)
    session: Any = host
    peers = Peers(session)
    peers.meet({("netns:1", IN_CONTAINERS): veth(IN_CONTAINERS, None, None)})
    assert peers.of(("netns:1", IN_CONTAINERS)) is None
    peers.meet({("", 11): host.links["", 11]})
    assert host.asked == {("netns:1", IN_CONTAINERS), ("", 11)}
    assert peers.of(("netns:1", IN_CONTAINERS)) == ("", 11)
    assert peers.of(("", 11)) == ("netns:1", IN_CONTAINERS)


def test_waiting_links_have_the_new_reference_of_their_namespace_or_are_forgotten_with_it() -> None:
    host = containers(3)
    session: Any = host
    for what in ("renamed", "forgotten"):
        peers = Peers(session)
        peers.meet({("netns:1", IN_CONTAINERS): veth(IN_CONTAINERS, 11)})
        if what == "renamed":
            peers.rename("netns:1", "netns:9")
            host.pairs |= {("", 11): ("netns:9", IN_CONTAINERS), ("netns:9", IN_CONTAINERS): ("", 11)}
        else:
            peers.forget_all_in("netns:1")
        peers.meet({("", 11): host.links["", 11]})
        assert peers.of(("", 11)) == (("netns:9", IN_CONTAINERS) if what == "renamed" else None)
