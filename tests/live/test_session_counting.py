"""Counters of many links, compared with ip."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import End, LinkNotFound, NetnsNotFound, Session, Veth, ns
from vethlib.rates import Sample, rates
from vethlib.session.methods import reading
from vethlib.session.read.reading import find_known


def counted(name: str, netns: str = "") -> tuple[int, int]:
    stats: Any = seen(name, netns)["stats64"]
    return stats["rx"]["bytes"], stats["tx"]["packets"]


def said(sample: Sample) -> tuple[int, int]:
    return sample.stats.rx_bytes, sample.stats.tx_packets


@pytest.fixture
def talk(session: Session, blue: str) -> Iterator[Any]:
    """A pair a@home ⇄ b@blue, and a function that sends datagrams of 1000 bytes from a."""
    for where in ("", blue):
        with ns.entered(where):
            # Or IPv6 would say something now and then.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    a = End("a", addresses=["10.0.0.1/24"], mac="02:00:00:00:00:01")
    b = End("b", blue, addresses=["10.0.0.2/24"], mac="02:00:00:00:00:02")
    session.create(Veth(a, b), wait=30)
    ip("neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "a")

    def send(number: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(number):
                sender.sendto(bytes(1000), ("10.0.0.2", 9))

    with ns.entered(blue):
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listening:  # or an error would be sent back some time
        listening.bind(("10.0.0.2", 9))
        yield send


def test_the_counters_of_many_links_are_those_ip_shows(session: Session, talk: Any) -> None:
    talk(20)
    a, lo, b = session.stats_many([("a", ""), ("lo", "blue"), ("b", "blue")])
    assert [a.index, lo.index, b.index] == [seen("a")["ifindex"], 1, seen("b", "blue")["ifindex"]]
    assert (said(b), said(lo)) == (counted("b", "blue"), counted("lo", "blue"))
    assert b.stats.rx_bytes >= 20 * 1042
    assert a.place != b.place == lo.place


def test_the_counters_of_whole_namespaces_are_those_ip_shows(session: Session, talk: Any) -> None:
    talk(5)
    found = session.stats_in(["", "netns:blue", "netns:nowhere"])
    assert list(found) == ["", "netns:blue", "netns:nowhere"]
    assert isinstance(found["netns:nowhere"], NetnsNotFound)
    blue = found["netns:blue"]
    assert isinstance(blue, list)
    by_index = {link["ifindex"]: link["ifname"] for link in ip("link", netns="blue")}
    assert {by_index[one.index] for one in blue} == names("blue") | {"lo"}
    assert [said(one) for one in blue] == [counted(by_index[one.index], "blue") for one in blue]


def test_two_samples_of_a_link_make_the_rate_of_what_was_sent(session: Session, talk: Any) -> None:
    (before,) = session.stats_many([("b", "blue")])
    talk(50)
    (after,) = session.stats_many([("b", "blue")])
    found = rates(before, after)
    assert found is not None
    sent = found.rx_bytes * found.interval
    assert 50 * 1042 <= round(sent) < 51 * 1042
    assert round(found.rx_packets * found.interval) >= 50


def test_a_link_that_was_made_again_in_between_has_no_rate(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", blue)))
    (before,) = session.stats_many([("a", "")])
    session.delete("a")
    session.create(Veth(End("a"), End("b", blue)))
    (after,) = session.stats_many([("a", "")])
    assert rates(before, after) is None


def test_what_is_not_there_is_an_error_that_names_it_or_none(session: Session, blue: str) -> None:
    with raises(LinkNotFound, item=("x", "netns:blue")):
        session.stats_many([("lo", ""), ("x", "netns:blue")])
    with pytest.raises(NetnsNotFound):
        session.stats_many([("lo", "nowhere")])
    lo, *missing = session.stats_many([("lo", ""), ("x", blue), ("lo", "nowhere")], missing_ok=True)
    assert lo is not None
    assert missing == [None, None]


def test_the_counters_are_those_of_the_link_that_was_meant_though_its_name_goes_to_another(
    session: Session, talk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(20)
    session.create(Veth(End("c"), End("d")))
    meant = session.lookup("a")

    def renamed(*given: Any) -> Any:
        link = find_known(*given)
        monkeypatch.undo()
        ip("link", "set", "dev", "a", "down")
        ip("link", "set", "dev", "a", "name", "e")
        ip("link", "set", "dev", "c", "down")
        ip("link", "set", "dev", "c", "name", "a")
        return link

    monkeypatch.setattr(reading, "find_known", renamed)
    assert session.stats(meant).tx_packets == counted("e")[1] >= 20


def test_counting_leaves_no_namespace_held(session: Session) -> None:
    refs = []
    for number in range(70):  # more than are open at a time
        ns.Netns.create(f"n{number}").close()
        refs.append(f"netns:n{number}")
    found = session.stats_in(refs)
    assert all(isinstance(one, list) and len(one) == 1 for one in found.values())
    assert len(session.stats_many([("lo", ref) for ref in refs])) == 70
