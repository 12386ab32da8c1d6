"""A namespace with thousands of links, in which others are created and deleted all the time: no dump is whole."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tests.witness import names, poll
from vethlib import End, IfIndexCache, LinkExists, Session, Veth
from vethlib._nl.addr import dump_addrs
from vethlib._nl.batch import Outcome
from vethlib._nl.link import dump_links, parse_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.torn import ENOUGH, LOOK_PATIENCE
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read.reading import _addresses_of_torn, _links_of_torn, address_messages, table

pytestmark = pytest.mark.slow

CHURN = """
import sys, time
from vethlib import End, Session, Veth
me, end = sys.argv[1], time.monotonic() + 120
with Session() as session:
    while time.monotonic() < end:
        session.create(Veth(End(f"x{me}", up=False), End(f"y{me}", up=False)))
        session.delete(f"x{me}")
"""
PAIRS = 2000
ADDRESS = "10.0.0.1/24"


@pytest.fixture
def crowd(session: Session) -> Iterator[set[str]]:
    """The names of 4000 links, beside which two processes create and delete others."""
    ends = [
        (End(f"a{n}", up=False, addresses=[ADDRESS] if n == 7 else []), End(f"b{n}", up=False)) for n in range(PAIRS)
    ]
    session.create_many(Veth(a, b) for a, b in ends)
    churners = [subprocess.Popen([sys.executable, "-c", CHURN, str(number)]) for number in range(2)]
    socket = RtnlSocket()
    try:
        assert poll(lambda: all(socket.dump(dump_links(), parse_link, 1).errno == errno.EAGAIN for _ in range(3)))
        yield {end.name for pair in ends for end in pair}
    finally:
        socket.close()
        for churner in churners:
            churner.kill()
            churner.wait()


def test_whoever_needs_all_links_has_all_that_were_there_all_the_time(session: Session, crowd: set[str]) -> None:
    for _ in range(2):
        found = session.links()
        assert crowd <= {link.name for link in found}
    by_name = {link.name: link for link in found}
    assert [str(one) for one in by_name["a7"].addresses] == [ADDRESS]
    surveyed = session.survey([""])
    assert crowd <= {one.link.name for one in surveyed.links}
    assert all(one.peer is not None for one in surveyed.links if one.link.name in crowd)
    counted = session.stats_in([""])[""]
    assert isinstance(counted, list)
    assert {by_name[name].index for name in crowd} <= {sample.index for sample in counted}
    with IfIndexCache(session) as cache:
        cache.watch("")
        assert crowd <= {link.name for link in cache.links("")}
    # What needs no table asks for none, and works as ever.
    gone = [f"a{n}" for n in range(40)]
    session.delete_many([(name, "") for name in gone])
    with pytest.raises(LinkExists):
        session.create_many([Veth(End(f"c{n}"), End(f"d{n}")) for n in range(20)] + [Veth(End("a99"), End("e"))])
    left = names()
    assert left.isdisjoint(gone)
    assert {name for name in left if name[0] in "cde"} == set()


def refuse(*_: object) -> NoReturn:
    raise AssertionError("a dump")


@pytest.mark.parametrize("count", [2, 30])
def test_deleting_and_taking_back_read_no_table(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    pairs = [Veth(End(f"a{n}", blue), End(f"b{n}", red if n % 2 else "")) for n in range(count)]
    session.create_many(pairs)
    monkeypatch.setattr(Namespaces, "dump", refuse)
    session.delete_many([(f"a{n}", blue) for n in range(count)])
    session.create_many(pairs)
    session.delete_many([(f"b{n}", red if n % 2 else "") for n in range(count)])
    with pytest.raises(LinkExists):
        session.create_many([*pairs, Veth(End("x"), End("lo"))])
    assert (names(blue), names(red), names()) == (set(), set(), set())


def test_of_torn_dumps_together_what_is_doubtful_is_looked_at(session: Session) -> None:
    session.create(Veth(End("a", addresses=["10.0.0.1/24", "10.0.1.1/24"]), End("b", addresses=["10.0.2.1/24"])))
    with session._namespaces() as places:
        place = places("")
        links, addresses = table(places, place), address_messages(places, place)
        gone = links[-1]._replace(ifindex=links[-1].ifindex + 1, name="gone")
        assert _links_of_torn(places, place, [[*links, gone], links[:-1]]) == links
        assert _links_of_torn(places, place, [links[1:], links[:-1]]) == links

        seen = {(one.ifindex, one.address) for one in addresses}
        stray = addresses[-1]._replace(address=addresses[-1].address[:-1] + b"\x77")
        for torn in ([addresses[:-1], addresses[1:]], [[*addresses, stray], addresses]):
            found = _addresses_of_torn(places, place, torn, 0)
            assert {(one.ifindex, one.address) for one in found} == seen

        index = next(link.ifindex for link in links if link.name == "a")
        mine = [one for one in addresses if one.ifindex == index]
        other = mine[0]._replace(address=b"\x0a\0\0\x77")
        found = _addresses_of_torn(places, place, [[*mine, other], mine[1:], mine], index)
        assert sorted(one.address for one in found) == sorted(one.address for one in mine)


@pytest.mark.parametrize("look", ["links", "survey", "inspect"])
def test_a_look_at_many_links_whose_addresses_keep_changing_takes_a_bounded_time(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    count = 60
    session.create_many(Veth(End(f"a{n}", blue, addresses=[f"10.0.{n}.1/24"]), End(f"b{n}")) for n in range(count))
    dump = Namespaces.dump
    versions = cycle(range(5))
    torn_dumps = 0
    pauses: list[float] = []

    def torn(self: Namespaces, place: OpenNetns, request: bytes, *how: Any) -> Outcome:
        """Make every dump of addresses torn, each lacking other addresses than the one before it."""
        nonlocal torn_dumps
        outcome = dump(self, place, request, *how)
        if request[4:6] != dump_addrs()[4:6]:
            return outcome
        torn_dumps += 1
        version = next(versions)
        return Outcome(errno.EAGAIN, "", [one for n, one in enumerate(outcome.bodies) if (n + version) % 5])

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(Namespaces, "dump", torn)
    monkeypatch.setattr("vethlib._nl.torn.time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
    if look == "links":
        found = session.links(blue)
    elif look == "survey":
        found = [one.link for one in session.survey([blue]).links]
    else:
        found = [one.link for one in session.inspect((blue, f"a{n}") for n in range(count)).links]
    given = {link.name: [str(one) for one in link.addresses if one.version == 4] for link in found}
    assert given.items() >= {f"a{n}": [f"10.0.{n}.1/24"] for n in range(count)}.items()
    # What it waits for and how often it reads, which does not depend on how long a busy machine takes for each.
    assert 0 < sum(pauses) < 1.5 * LOOK_PATIENCE
    assert torn_dumps - len(pauses) <= ENOUGH * (count + 2)
