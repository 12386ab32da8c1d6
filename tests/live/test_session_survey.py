"""Reading many namespaces at once, and finding which ends belong together, judged by ip."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.capabilities import CAP_SYS_ADMIN, dropped
from tests.live.answers import edit_answers, refuse_all, refuse_inside, refuse_opening
from tests.live.descriptors import descriptors_left
from tests.live.surveys import RING, make_ring, pair, pairs, ring_pairs, wire
from tests.refusing import raises
from tests.witness import ip, peer_of, seen
from vethlib import End, InvalidValue, NetlinkError, Netns, NetnsNotFound, NotPermitted, Session, Veth, VethError
from vethlib._nl.batch import Outcome
from vethlib._nl.link import get_link
from vethlib._nl.nsid import get_nsid
from vethlib.session.core.namespaces import OpenNetns
from vethlib.session.read.peers import Peers
from vethlib.session.read.survey import Survey


@pytest.mark.needs_kernel("5.18")
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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.EMFILE, errno.ENOMEM])
def test_what_a_reference_refuses_is_said_of_that_one(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_opening(monkeypatch, "blue", number)
    survey = session.survey(["", "blue", "red"])
    refused = survey.places["blue"]
    assert isinstance(refused, NetlinkError)
    assert refused.errno == number
    assert {one.ref for one in survey.links} == {"", "red"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOBUFS, errno.EMFILE])
def test_what_a_namespace_refuses_is_said_of_all_references_to_it(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    session.create_many([Veth(End("a", "blue"), End("b", "red")), Veth(End("c", "blue"), End("d"))])
    refuse_inside(monkeypatch, session.identity("blue"), number)
    survey = session.survey(["", "blue", "red", "netns:blue"])
    for ref in ("blue", "netns:blue"):
        refused = survey.places[ref]
        assert isinstance(refused, NetlinkError)
        assert refused.errno == number
    assert {one.ref for one in survey.links} == {"", "red"}
    assert all(one.peer is None for one in survey.links)
    inspected = session.inspect([("blue", "a"), ("red", "b"), ("", "d")])
    assert {one.link.name for one in inspected.links} == {"b", "d"}
    assert isinstance(inspected.places["blue"], NetlinkError)


def test_what_home_refuses_is_raised(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_inside(monkeypatch, session.identity(""), errno.ENOBUFS)
    with pytest.raises(NetlinkError):
        session.survey(["", "blue"])
    with pytest.raises(NetlinkError):
        session.inspect([("", "lo"), ("blue", "lo")])


def test_that_no_namespace_may_be_entered_is_raised(session: Session, blue: str) -> None:
    with dropped(CAP_SYS_ADMIN):
        with pytest.raises(NotPermitted):
            session.survey(["", "blue"])
        with pytest.raises(NotPermitted):
            session.inspect([("blue", "lo")])
        assert [one.link.name for one in session.survey([""]).links] == ["lo"]


def test_an_end_whose_other_end_is_elsewhere_has_none(session: Session, blue: str, red: str) -> None:
    session.create_many([Veth(End("a", "blue"), End("b", "red")), Veth(End("c"), End("d", "red"))])
    assert pairs(session.survey(["blue"])) == set()
    assert pairs(session.survey(["", "blue"])) == set()
    assert pairs(session.survey(["red", "blue"])) == {pair(("blue", "a"), ("red", "b"))}


@pytest.fixture
def ring(session: Session, make_netns: Callable[..., None]) -> list[str]:
    return make_ring(session, make_netns)


def test_the_ends_in_a_ring_that_look_all_alike_are_told_apart(session: Session, ring: list[str]) -> None:
    assert pairs(session.survey(ring)) == ring_pairs(ring)


@pytest.mark.parametrize("left", [5, 12, 40])
def test_with_few_descriptors_it_looks_at_few_namespaces_at_a_time(
    session: Session, ring: list[str], left: int
) -> None:
    session.create_many([Veth(End(f"v{number}"), End("inside", ref)) for number, ref in enumerate(ring)])
    whole = session.survey(["", *ring])
    links = [(ref, "right") for ref in ring]
    with descriptors_left(left):
        survey = session.survey(["", *ring])
        inspected = session.inspect(links)
        samples = session.stats_in(ring)
    assert survey.places == whole.places
    assert pairs(survey) == pairs(whole)
    assert [one.link.name for one in inspected.links] == ["right"] * RING
    assert {len(found) for found in samples.values() if not isinstance(found, VethError)} == {4}
    assert not [found for found in samples.values() if isinstance(found, VethError)]


def test_they_are_told_apart_even_where_the_kernel_does_not_say_their_mac(
    session: Session, ring: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IFLA_TARGET_NETNSID came with Linux 4.16."""
    asked = get_link(1, netnsid=0)
    edit_answers(
        monkeypatch,
        lambda _, requests, outcomes: [
            Outcome(95) if len(request) == len(asked) and request[4:6] == asked[4:6] else outcome
            for request, outcome in zip(requests, outcomes, strict=True)
        ],
    )
    assert pairs(session.survey(ring)) == ring_pairs(ring)


def test_what_vanishes_while_it_is_looked_at_has_no_other_end(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_many([Veth(End("a", "blue"), End("b", "red")), Veth(End("c", "blue"), End("d", "blue"))])
    find = Peers.find

    def remove(names: tuple[str, ...]) -> Callable[..., Any]:
        def vanished(self: Any) -> Any:
            for name in names:
                ip("netns", "del", name)
            return find(self)

        return vanished

    with monkeypatch.context() as patch:
        patch.setattr(Peers, "find", remove(("red",)))
        survey = session.survey(["blue", "red"])
    assert pairs(survey) == {pair(("blue", "c"), ("blue", "d"))}
    assert {one.link.name for one in survey.links} == {"lo", "a", "b", "c", "d"}
    Netns.create("red").close()
    session.create(Veth(End("x", "blue"), End("y", "red")))
    with monkeypatch.context() as patch:
        patch.setattr(Peers, "find", remove(("red", "blue")))
        assert pairs(session.survey(["red", "blue"])) == {pair(("blue", "c"), ("blue", "d"))}


def test_a_namespace_that_was_replaced_while_it_was_looked_at_is_not_taken_for_it(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue"), End("b", "red")))
    find = Peers.find

    def replaced(self: Any) -> Any:
        with Netns.open("red"):
            ip("netns", "del", "red")
            Netns.create("red").close()
            return find(self)

    monkeypatch.setattr(Peers, "find", replaced)
    assert pairs(session.survey(["blue", "red"])) == set()


def test_a_peer_is_the_one_ip_says(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    survey = session.survey(["", "blue"])
    (a,) = [one for one in survey.links if one.link.name == "a"]
    assert a.peer == (survey.places["blue"], peer_of(seen("a"))[0])


def test_a_list_that_cannot_be_had_is_an_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_all(monkeypatch, Outcome(12))
    with raises(NetlinkError, errno=errno.ENOMEM):
        session.survey([""])


# Ends that look alike: same ifindexes both ways, and same MACs, so that only the ids of the namespaces tell.


@pytest.fixture
def crossed(session: Session, blue: str, red: str, make_netns: Callable[..., None]) -> None:
    """At home 22 and in blue 33 point at each other's indexes, but belong to others; blue and home are joined, too."""
    make_netns("green")
    wire("e", "", 22, "f", "green", 33)
    wire("a", "blue", 33, "b", "red", 22)
    wire("c", "", 44, "d", "blue", 55)
    told = {
        name: (seen(name, ref)["ifindex"], *peer_of(seen(name, ref), ref)) for name, ref in (("e", ""), ("a", "blue"))
    }
    assert {name: one[:2] for name, one in told.items()} == {"e": (22, 33), "a": (33, 22)}


CROSSED = [("", "e"), ("blue", "a"), ("", "c"), ("blue", "d"), ("red", "b"), ("green", "f")]


@pytest.mark.usefixtures("crossed")
def test_ends_that_point_at_each_other_by_chance_are_not_joined(session: Session) -> None:
    right = [pair(("", "e"), ("green", "f")), pair(("blue", "a"), ("red", "b")), pair(("", "c"), ("blue", "d"))]
    for count in range(1, len(CROSSED) + 1):
        for links in itertools.combinations(CROSSED, count):
            refs = [ref for ref, _ in links]
            among_namespaces = {one for one in right if {ref for ref, _ in one} <= set(refs)}
            assert pairs(session.survey(refs)) == among_namespaces
            assert pairs(session.survey(refs[::-1])) == among_namespaces
            among_links = {one for one in right if one <= set(links)}
            assert pairs(session.inspect(links)) == among_links
            assert pairs(session.inspect(links[::-1])) == among_links


@pytest.mark.usefixtures("crossed")
@pytest.mark.parametrize("refusing", ["", "blue", "red", "green"])
def test_all_are_found_even_where_one_namespace_does_not_say_which_ids_it_has(
    session: Session, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_id = get_nsid(0)[4:6]
    edit_answers(
        monkeypatch,
        lambda place, requests, outcomes: [
            Outcome(95) if request[4:6] == get_id and place.ref == refusing else outcome
            for request, outcome in zip(requests, outcomes, strict=True)
        ],
    )
    right = {pair(("", "e"), ("green", "f")), pair(("blue", "a"), ("red", "b")), pair(("", "c"), ("blue", "d"))}
    for survey in (session.survey(["", "blue", "red", "green"]), session.inspect(CROSSED)):
        assert pairs(survey) == right


def test_home_is_home_whenever_and_however_it_is_named(session: Session, blue: str) -> None:
    session.create_many([Veth(End("a"), End("b", "blue")), Veth(End("c"), End("d"))])
    told = session.survey(["", "blue"])
    for refs in (["blue", ""], [f"pid:{os.getpid()}", "", "blue"], ["blue", f"pid:{os.getpid()}"]):
        found = session.survey(refs)
        assert {(one.at, one.link.name, one.peer) for one in found.links} == {
            (one.at, one.link.name, one.peer) for one in told.links
        }
    assert len(pairs(told)) == 2


@pytest.fixture
def asked_for_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references of the namespaces that are asked which id another one has there."""
    asked: list[str] = []
    get_id = get_nsid(0)[4:6]

    def note(place: OpenNetns, requests: Sequence[bytes], outcomes: list[Outcome]) -> list[Outcome]:
        asked.extend(str(place.ref) for request in requests if request[4:6] == get_id)
        return outcomes

    edit_answers(monkeypatch, note)
    return asked


@pytest.mark.parametrize("with_lookalike", [False, True])
def test_the_namespace_where_the_other_has_the_lower_id_is_asked(
    session: Session,
    blue: str,
    red: str,
    make_netns: Callable[..., None],
    asked_for_ids: list[str],
    with_lookalike: bool,
) -> None:
    """Blue stands for one with thousands of ids."""
    make_netns("green")
    ip("netns", "set", "red", "3000", netns="blue")
    ip("netns", "set", "green", "4000", netns="blue")
    wire("a", "blue", 22, "b", "red", 33)
    if with_lookalike:
        wire("x", "green", 33, "y", "red", 22)
    assert peer_of(seen("a", "blue"), "blue") == (33, 3000)
    assert pairs(session.survey(["blue", "green"])) == set()
    assert pairs(session.inspect([("blue", "a"), ("red", "b")])) == {pair(("blue", "a"), ("red", "b"))}
    if not with_lookalike:
        assert asked_for_ids == ["red"]
    assert pair(("blue", "a"), ("red", "b")) in pairs(session.survey(["blue", "green", "red"]))


# Where a reference leads.


def test_an_identity_is_the_same_for_every_spelling_of_a_namespace(session: Session, blue: str, red: str) -> None:
    status = os.stat("/run/netns/blue")
    with Netns.open("blue") as opened:
        spellings: list[Any] = ["blue", "netns:blue", "path:/run/netns/blue", f"fd:{opened.fileno()}", opened]
        assert {session.identity(ref) for ref in spellings} == {(status.st_dev, status.st_ino)}
    here = os.stat("/proc/thread-self/ns/net")
    assert session.identity() == session.identity("") == session.identity(None) == (here.st_dev, here.st_ino)
    assert session.identity("red") not in (session.identity("blue"), session.identity())
    with pytest.raises(NetnsNotFound):
        session.identity("nowhere")
    with pytest.raises(InvalidValue):
        session.identity("color:blue")


def test_the_resolver_is_asked_anew_for_a_microservice(session: Session, blue: str, red: str) -> None:
    where = {"vnf": "netns:blue"}

    def resolve(label: str) -> str:
        try:
            return where[label]
        except KeyError:
            raise NetnsNotFound(f"microservice {label} is not running") from None

    assert session.resolver is None
    with pytest.raises(NetnsNotFound):
        session.identity("microservice:vnf")
    with Session(resolver=resolve) as resolving:
        assert resolving.resolver is resolve
        assert resolving.identity("microservice:vnf") == resolving.identity("blue")
        where["vnf"] = "netns:red"
        assert resolving.identity("microservice:vnf") == resolving.identity("red")
        survey = resolving.inspect([("microservice:vnf", "lo"), ("red", 1)], ["microservice:other"])
        assert [(one.ref, one.at) for one in survey.links] == [("microservice:vnf", resolving.identity("red"))]
        assert isinstance(survey.places["microservice:other"], NetnsNotFound)


# Errors while the other ends are looked for.
