"""Reading single links, and their other ends in home; errors while the other ends are searched for."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.live.answers import edit_answers, refuse_all, refuse_inside, refuse_opening
from tests.live.descriptors import descriptors_left
from tests.live.surveys import RING, make_ring, pair, pairs, ring_pairs, seen_links, wire
from tests.needs import kernel_is
from tests.refusing import raises
from tests.witness import ip, poll, seen
from vethlib import End, InvalidValue, NetlinkError, NetnsNotFound, Session, Veth
from vethlib._nl.batch import Outcome
from vethlib._nl.link import dump_links
from vethlib._nl.nsid import get_nsid
from vethlib.session.core import slabs as slabs_module
from vethlib.session.core.namespaces import OpenNetns
from vethlib.session.read import survey as survey_module
from vethlib.session.read.peers import Peers
from vethlib.session.read.survey import Survey


def ipv4_of_a(survey: Survey) -> list[tuple[str, int]]:
    """The addresses of the one link of that name, and who is said to have added them."""
    (a,) = [one for one in survey.links if one.link.name == "a"]
    return [(str(one.interface), one.proto) for one in a.addresses if one.interface.version == 4]


@pytest.fixture
def ring(session: Session, make_netns: Callable[..., None]) -> list[str]:
    return make_ring(session, make_netns)


def test_only_the_links_asked_for_are_looked_at(session: Session, blue: str, red: str) -> None:
    session.create_many(
        [
            Veth(End("a", addresses=["10.0.0.1/24"], address_proto=9), End("b", "blue", addresses=["2001:db8::1/64"])),
            Veth(End("c"), End("d", "blue")),
            Veth(End("e", "blue"), End("f", "red")),
            Veth(End("g", "red"), End("h", "red")),
        ]
    )
    # While an address is checked for duplicates, its flags change.
    assert poll(lambda: all(one.usable for each in session.survey(["", "blue", "red"]).links for one in each.addresses))
    ip("link", "property", "add", "dev", "e", "altname", "a-rather-long-name-of-e", netns="blue")
    whole = session.survey(["", "blue", "red"])
    f, h = seen("f", "red")["ifindex"], seen("h", "red")["ifindex"]
    survey = session.inspect(
        [("", "a"), ("blue", "b"), ("", "c"), ("blue", "a-rather-long-name-of-e"), ("red", f), ("red", "g"), ("red", h)]
    )
    assert pairs(survey) == {
        pair(("", "a"), ("blue", "b")),
        pair(("blue", "e"), ("red", "f")),
        pair(("red", "g"), ("red", "h")),
    }
    d = (whole.places["blue"], seen("d", "blue")["ifindex"])
    for one in survey.links:
        expected = {(other.at, other.link.index): other for other in whole.links}[one.at, one.link.index]
        assert one == (replace(expected, peer=None) if expected.peer == d else expected)
    assert sorted((one.ref, one.link.name) for one in survey.links) == [
        *[("", "a"), ("", "c"), ("blue", "b"), ("blue", "e"), ("red", "f"), ("red", "g"), ("red", "h")]
    ]
    assert ipv4_of_a(survey) == [("10.0.0.1/24", 9 if kernel_is("5.18") else 0)]


def test_what_is_not_there_is_not_in_the_result(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    gone = 1 + max(link["ifindex"] for link in ip("link"))
    survey = session.inspect(
        [("", "nope"), ("blue", 2147483647), ("", gone), ("nowhere", "a"), ("", "a"), ("color:blue", 7)],
        ["pid:2147483647", "path:/run/netns/blue", ""],
    )
    assert [one.link.name for one in survey.links] == ["a"]
    assert list(survey.places) == ["", "blue", "nowhere", "color:blue", "pid:2147483647", "path:/run/netns/blue"]
    assert isinstance(survey.places["nowhere"], NetnsNotFound)
    assert isinstance(survey.places["pid:2147483647"], NetnsNotFound)
    assert isinstance(survey.places["color:blue"], InvalidValue)
    assert survey.places["blue"] == survey.places["path:/run/netns/blue"] == session.identity("blue")
    assert session.inspect([]) == Survey({}, [])
    assert session.inspect([], [""]) == Survey({"": session.identity()}, [])


def test_a_link_is_there_once_however_it_is_named(session: Session, blue: str) -> None:
    b = session.create(Veth(End("a"), End("b", "blue"))).b
    spelt = [(ref, key) for ref in ("netns:blue", "blue", "path:/run/netns/blue") for key in ("b", b.index)]
    filler = [(f"nowhere{number}", 1) for number in range(RING)]  # the spellings are not open at the same time
    for links in (spelt, [*spelt[:3], *filler, *spelt[3:]]):
        survey = session.inspect([*links, ("", "a")])
        assert [(one.ref, one.link.index) for one in survey.links if one.ref] == [("netns:blue", b.index)]
        assert pairs(survey) == {pair(("", "a"), ("netns:blue", "b"))}


def test_links_of_many_namespaces_are_inspected(session: Session, ring: list[str]) -> None:
    session.create_many(Veth(End(f"to{ref}"), End("home", ref)) for ref in ring)
    spokes = {pair(("", f"to{ref}"), (ref, "home")) for ref in ring}
    links = [link for ref in ring for link in ((ref, "left"), (ref, "right"), (ref, "home"), ("", f"to{ref}"))]
    assert pairs(session.inspect(links)) == ring_pairs(ring) | spokes
    assert pairs(session.survey(["", *ring])) == ring_pairs(ring) | spokes
    assert pairs(session.inspect(links[: 4 * 10])) == {
        one for one in ring_pairs(ring) | spokes if {ref for ref, _ in one} <= {"", *ring[:10]}
    }


def test_the_addresses_of_many_links_are_those_of_each(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_many(Veth(End(f"a{n}", addresses=[f"10.0.{n}.1/24"]), End(f"b{n}", "blue")) for n in range(6))
    links = [("", f"a{n}") for n in range(5)]
    told = {name: [info["local"] for info in seen(name)["addr_info"]] for _, name in links}
    for few in (0, 512):
        monkeypatch.setattr(survey_module, "_FEW", few)
        survey = session.inspect(links)
        assert {one.link.name: [str(address.interface.ip) for address in one.addresses] for one in survey.links} == told
        assert all(one.link.addresses == tuple(address.interface for address in one.addresses) for one in survey.links)


def test_inspecting_never_lists_the_links_of_a_namespace(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    sent: list[tuple[bytes, bytes]] = []

    def note(_: OpenNetns, requests: Sequence[bytes], outcomes: list[Outcome]) -> list[Outcome]:
        sent.extend((request[4:6], request[6:8]) for request in requests)
        return outcomes

    edit_answers(monkeypatch, note)
    assert len(pairs(session.inspect([("", "a"), ("blue", "b")]))) == 1
    assert (dump_links()[4:6], dump_links()[6:8]) not in sent
    assert len(sent) == 5  # two links, the addresses of each, and one id


@pytest.mark.parametrize("key", ["", "no\0name", "x" * 128, 0, -1, 1 << 31, True, 1.5, None])
def test_a_link_goes_by_name_or_ifindex(session: Session, key: Any) -> None:
    with pytest.raises(InvalidValue):
        session.inspect([("", key)])


def test_what_makes_inspecting_impossible_is_raised(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse_all(patch, Outcome(12))
        with raises(NetlinkError, errno=errno.ENOMEM, request="look up 'lo'"):
            session.inspect([("", "lo")])


@pytest.fixture
def joined(session: Session, blue: str, red: str) -> None:
    session.create_many(
        [
            Veth(End("a", addresses=["10.0.0.1/24"], address_proto=9), End("b", "blue")),
            Veth(End("c"), End("d", "red")),
            Veth(End("e", "blue"), End("f", "red")),
            Veth(End("g", "blue"), End("h", "blue")),
        ]
    )


BORN_ABROAD = [("blue", "b"), ("red", "d"), ("blue", "e"), ("blue", "g")]


@pytest.mark.usefixtures("joined")
def test_other_ends_at_home_come_along_and_those_elsewhere_do_not(session: Session) -> None:
    survey = session.inspect(BORN_ABROAD, ends_at_home=True)
    assert seen_links(survey) == {*BORN_ABROAD, ("", "a"), ("", "c")}
    assert pairs(survey) == {pair(("", "a"), ("blue", "b")), pair(("", "c"), ("red", "d"))}
    assert ipv4_of_a(survey) == [("10.0.0.1/24", 9 if kernel_is("5.18") else 0)]
    assert survey.places.keys() == {"blue", "red"}
    assert seen_links(session.inspect(BORN_ABROAD)) == {*BORN_ABROAD}


@pytest.mark.usefixtures("joined")
def test_an_end_at_home_is_there_once_whether_it_was_asked_for_or_not(session: Session) -> None:
    survey = session.inspect([*BORN_ABROAD, ("", "a")], ends_at_home=True)
    assert len(survey.links) == len(seen_links(survey)) == len(BORN_ABROAD) + 2
    assert pairs(survey) == {pair(("", "a"), ("blue", "b")), pair(("", "c"), ("red", "d"))}


@pytest.mark.parametrize("left", [5, 12, 200])
def test_ends_at_home_are_found_for_many_namespaces(session: Session, ring: list[str], left: int) -> None:
    session.create_many([Veth(End(f"v{number}"), End("inside", ref)) for number, ref in enumerate(ring)])
    with descriptors_left(left):
        survey = session.inspect([(ref, "inside") for ref in ring], ends_at_home=True)
    assert pairs(survey) == {pair(("", f"v{number}"), (ref, "inside")) for number, ref in enumerate(ring)}


@pytest.mark.usefixtures("joined")
def test_an_end_at_home_is_not_found_where_a_namespace_does_not_say_which_id_home_has(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_id = get_nsid(0)[4:6]
    edit_answers(
        monkeypatch,
        lambda place, requests, outcomes: [
            Outcome(errno.EINVAL) if place.ref == "blue" and request[4:6] == get_id else outcome
            for request, outcome in zip(requests, outcomes, strict=True)
        ],
    )
    survey = session.inspect(BORN_ABROAD, ends_at_home=True)
    assert seen_links(survey) == {*BORN_ABROAD, ("", "c")}


def after_finding(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Do something between the search for the other ends and the look for those at home."""
    find = Peers.find

    def found(self: Any) -> Any:
        peers = find(self)
        then()
        return peers

    monkeypatch.setattr(Peers, "find", found)


@pytest.mark.usefixtures("joined")
def test_a_namespace_that_vanishes_before_its_ends_at_home_are_looked_for_is_not_there(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs_module, "SLAB", 1)  # so that it is not open still
    after_finding(monkeypatch, lambda: ip("netns", "del", "blue"))
    survey = session.inspect(BORN_ABROAD, ends_at_home=True)
    assert isinstance(survey.places["blue"], NetnsNotFound)
    assert seen_links(survey) == {("red", "d"), ("", "c")}


@pytest.mark.usefixtures("joined")
def test_an_error_when_ends_at_home_are_looked_for_is_that_of_its_namespace(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    blue_one = session.identity("blue")
    after_finding(monkeypatch, lambda: refuse_inside(monkeypatch, blue_one, errno.EINVAL))
    survey = session.inspect(BORN_ABROAD, ends_at_home=True)
    assert isinstance(survey.places["blue"], NetlinkError)
    assert seen_links(survey) == {("red", "d"), ("", "c")}


@pytest.mark.usefixtures("joined")
def test_what_home_refuses_when_ends_there_are_looked_for_is_raised(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = session.identity("")
    after_finding(monkeypatch, lambda: refuse_inside(monkeypatch, home, errno.ENOBUFS))
    with pytest.raises(NetlinkError) as refused:
        session.inspect(BORN_ABROAD, ends_at_home=True)
    assert refused.value.errno == errno.ENOBUFS


def before_finding(monkeypatch: pytest.MonkeyPatch, first: Callable[[], object]) -> None:
    """Do something between the look and the search for the other ends."""
    find = Peers.find

    def found(self: Any) -> Any:
        first()
        return find(self)

    monkeypatch.setattr(Peers, "find", found)


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("links", [[("blue", "e"), ("red", "f")], [("red", "f"), ("blue", "e")]])
def test_a_namespace_that_cannot_be_opened_again_fails_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch, links: list[tuple[str, str]]
) -> None:
    before_finding(monkeypatch, lambda: refuse_opening(monkeypatch, "red", errno.EIO))
    survey = session.survey([ref for ref, _ in links])
    assert isinstance(survey.places["red"], NetlinkError)
    assert seen_links(survey) == {("blue", name) for name in ("lo", "b", "e", "g", "h")}
    assert pairs(survey) == {pair(("blue", "g"), ("blue", "h"))}


@pytest.mark.usefixtures("joined")
def test_where_descriptors_stay_short_both_ends_are_unknown(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before_finding(monkeypatch, lambda: refuse_opening(monkeypatch, "red", errno.EMFILE))
    survey = session.survey(["blue", "red", ""])
    assert {ref for ref, place in survey.places.items() if isinstance(place, NetlinkError)} == {"blue", "red"}
    assert {ref for ref, _ in seen_links(survey)} == {""}


def test_a_namespace_that_cannot_be_asked_for_the_id_of_the_other_fails_alone(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("netns", "set", "red", "3000", netns="blue")  # so that red is asked
    wire("a", "blue", 22, "b", "red", 33)
    red_one = session.identity("red")
    links = [("blue", "a"), ("red", "b")]
    before_finding(monkeypatch, lambda: refuse_inside(monkeypatch, red_one, errno.EINVAL))
    survey = session.survey(["blue", "red"])
    assert isinstance(survey.places["red"], NetlinkError)
    assert links[0] in seen_links(survey)
    assert pairs(survey) == set()
