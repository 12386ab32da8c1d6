"""Looking at many namespaces at once, and finding which two ends belong together, judged by ip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.answers import edit_answers, refuse_all
from tests.witness import ip, peer_of, seen
from vethlib import End, InvalidValue, NetlinkError, Netns, NetnsNotFound, NotPermitted, Session, Veth
from vethlib._nl.batch import Outcome
from vethlib._nl.link import get_link
from vethlib.session import survey as survey_module
from vethlib.session.places import Places
from vethlib.session.survey import Survey


def pairs(survey: Survey) -> set[frozenset[tuple[str, str]]]:
    """{(namespace, name), (namespace, name)} of each pair both of whose ends were seen."""
    by_at = {(one.at, one.link.index): one for one in survey.links}
    found = set()
    for one in survey.links:
        if one.peer is not None:
            other = by_at[one.peer]
            assert other.peer == (one.at, one.link.index)
            found.add(frozenset([(one.ref, one.link.name), (other.ref, other.link.name)]))
    return found


def pair(a: tuple[str, str], b: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset([a, b])


def test_every_link_is_there_with_its_addresses_and_its_other_end(session: Session, blue: str, red: str) -> None:
    session.create_many(
        [
            Veth(End("a", addresses=["10.0.0.1/24", "2001:db8::1/64"], address_proto=9), End("b")),
            Veth(End("c"), End("d", "blue")),
            Veth(End("e", "blue"), End("f", "red")),
            Veth(End("g", "red"), End("h", "red")),
        ]
    )
    ip("link", "add", "name", "br0", "type", "bridge", netns="blue")
    survey = session.survey(["", "blue", "red"])
    assert pairs(survey) == {
        pair(("", "a"), ("", "b")),
        pair(("", "c"), ("blue", "d")),
        pair(("blue", "e"), ("red", "f")),
        pair(("red", "g"), ("red", "h")),
    }
    for netns in ("", "blue", "red"):
        told = {link["ifname"]: link["ifindex"] for link in ip("address", netns=netns)}
        assert {one.link.name: one.link.index for one in survey.links if one.ref == netns} == told
        assert {one.at for one in survey.links if one.ref == netns} == {survey.places[netns]}
    (a,) = [one for one in survey.links if one.link.name == "a"]
    assert [(str(one.interface), one.proto) for one in a.addresses if not one.interface.is_link_local] == [
        ("10.0.0.1/24", 9),
        ("2001:db8::1/64", 9),
    ]
    assert a.link.addresses == tuple(one.interface for one in a.addresses)


def test_a_namespace_is_looked_at_once_however_it_is_spelt(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue"), End("b")))
    survey = session.survey(["blue", "netns:blue", "path:/run/netns/blue", "blue"])
    assert len(survey.places) == 3
    assert len(set(survey.places.values())) == 1
    assert [one.ref for one in survey.links] == ["blue", "blue"]


def test_a_reference_that_leads_nowhere_is_no_error(session: Session, blue: str) -> None:
    survey = session.survey(["nowhere", "blue", "pid:2147483647", "color:blue"])
    assert isinstance(survey.places["nowhere"], NetnsNotFound)
    assert isinstance(survey.places["pid:2147483647"], NetnsNotFound)
    assert isinstance(survey.places["color:blue"], InvalidValue)
    assert [one.link.name for one in survey.links] == ["lo"]
    assert session.survey([]) == Survey({}, [])


def test_what_makes_looking_impossible_is_raised(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotPermitted("no")

    monkeypatch.setattr(Places, "__call__", refuse)
    with pytest.raises(NotPermitted):
        session.survey(["blue"])


def test_an_end_whose_other_end_is_elsewhere_has_none(session: Session, blue: str, red: str) -> None:
    session.create_many([Veth(End("a", "blue"), End("b", "red")), Veth(End("c"), End("d", "red"))])
    assert pairs(session.survey(["blue"])) == set()
    assert pairs(session.survey(["", "blue"])) == set()
    assert pairs(session.survey(["red", "blue"])) == {pair(("blue", "a"), ("red", "b"))}


RING = 70  # more than a slab


@pytest.fixture
def ring(session: Session, make_netns: Callable[..., None]) -> list[str]:
    """A ring of namespaces in which every link has the same index, and so has its other end."""
    refs = [f"ring{number}" for number in range(RING)]
    make_netns(*refs)
    session.create_many(Veth(End("right", refs[n]), End("left", refs[(n + 1) % RING])) for n in range(RING))
    return refs


def ring_pairs(refs: list[str]) -> set[frozenset[tuple[str, str]]]:
    return {pair((refs[n], "right"), (refs[(n + 1) % RING], "left")) for n in range(RING)}


def test_the_ends_in_a_ring_that_look_all_alike_are_told_apart(session: Session, ring: list[str]) -> None:
    assert pairs(session.survey(ring)) == ring_pairs(ring)


def test_they_are_told_apart_even_where_the_kernel_does_not_say_their_mac(
    session: Session, ring: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IFLA_TARGET_NETNSID came with Linux 4.16."""
    asked = get_link(1, netnsid=0)
    edit_answers(
        monkeypatch,
        lambda _, requests, outcomes: [
            Outcome(95, "", ()) if len(request) == len(asked) and request[4:6] == asked[4:6] else outcome
            for request, outcome in zip(requests, outcomes, strict=True)
        ],
    )
    assert pairs(session.survey(ring)) == ring_pairs(ring)


def test_what_vanishes_while_it_is_looked_at_has_no_other_end(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_many([Veth(End("a", "blue"), End("b", "red")), Veth(End("c", "blue"), End("d", "blue"))])
    find = survey_module._Peers.find

    def remove(names: tuple[str, ...]) -> Callable[..., Any]:
        def vanished(self: Any) -> Any:
            for name in names:
                ip("netns", "del", name)
            return find(self)

        return vanished

    with monkeypatch.context() as patch:
        patch.setattr(survey_module._Peers, "find", remove(("red",)))
        survey = session.survey(["blue", "red"])
    assert pairs(survey) == {pair(("blue", "c"), ("blue", "d"))}
    assert {one.link.name for one in survey.links} == {"lo", "a", "b", "c", "d"}
    Netns.create("red").close()
    session.create(Veth(End("x", "blue"), End("y", "red")))
    with monkeypatch.context() as patch:
        patch.setattr(survey_module._Peers, "find", remove(("red", "blue")))
        assert pairs(session.survey(["red", "blue"])) == {pair(("blue", "c"), ("blue", "d"))}


def test_a_namespace_that_was_replaced_while_it_was_looked_at_is_not_taken_for_it(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue"), End("b", "red")))
    find = survey_module._Peers.find

    def replaced(self: Any) -> Any:
        with Netns.open("red"):
            ip("netns", "del", "red")
            Netns.create("red").close()
            return find(self)

    monkeypatch.setattr(survey_module._Peers, "find", replaced)
    assert pairs(session.survey(["blue", "red"])) == set()


def test_a_peer_is_the_one_ip_says(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    survey = session.survey(["", "blue"])
    (a,) = [one for one in survey.links if one.link.name == "a"]
    assert a.peer == (survey.places["blue"], peer_of(seen("a"))[0])


def test_a_list_that_cannot_be_had_is_an_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_all(monkeypatch, Outcome(12, "", ()))
    with pytest.raises(NetlinkError, match="list the links"):
        session.survey([""])
