"""Looking at many namespaces at once, and finding which two ends belong together, judged by ip."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.capabilities import CAP_SYS_ADMIN, dropped
from tests.live.answers import edit_answers, refuse_all, refuse_inside, refuse_opening
from tests.live.descriptors import descriptors_left
from tests.witness import ip, peer_of, seen
from vethlib import End, InvalidValue, NetlinkError, Netns, NetnsNotFound, NotPermitted, Session, Veth, VethError
from vethlib._nl.batch import Outcome
from vethlib._nl.link import dump_links, get_link
from vethlib._nl.nsid import get_nsid
from vethlib.session.core import slabs as slabs_module
from vethlib.session.core.namespaces import OpenNetns
from vethlib.session.read import survey as survey_module
from vethlib.session.read.peers import Peers
from vethlib.session.read.survey import Survey


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
            Outcome(95, "", ()) if len(request) == len(asked) and request[4:6] == asked[4:6] else outcome
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
    refuse_all(monkeypatch, Outcome(12, "", ()))
    with pytest.raises(NetlinkError, match="list the links"):
        session.survey([""])


# Ends that look alike: same ifindexes both ways, and same MACs, so that only the ids of the namespaces tell.


def wire(a: str, a_netns: str, a_index: int, b: str, b_netns: str, b_index: int) -> None:
    mac = "02:00:00:00:00:"
    ip(
        *("link", "add", "name", a, "index", str(a_index), "address", f"{mac}{a_index}", "type", "veth"),
        *("peer", "name", b, "index", str(b_index), "address", f"{mac}{b_index}", "netns", b_netns),
        netns=a_netns,
    )


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
            Outcome(95, "", ()) if request[4:6] == get_id and place.ref == refusing else outcome
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


# Single links.


def test_only_the_links_asked_for_are_looked_at(session: Session, blue: str, red: str) -> None:
    session.create_many(
        [
            Veth(End("a", addresses=["10.0.0.1/24"], address_proto=9), End("b", "blue", addresses=["2001:db8::1/64"])),
            Veth(End("c"), End("d", "blue")),
            Veth(End("e", "blue"), End("f", "red")),
            Veth(End("g", "red"), End("h", "red")),
        ]
    )
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
    assert [(one.ref, one.link.name) for one in survey.links] == [
        *[("", "a"), ("", "c"), ("blue", "b"), ("blue", "e"), ("red", "f"), ("red", "g"), ("red", "h")]
    ]
    (a,) = [one for one in survey.links if one.link.name == "a"]
    assert [(str(one.interface), one.proto) for one in a.addresses if one.interface.version == 4] == [
        ("10.0.0.1/24", 9)
    ]


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


@pytest.mark.parametrize("key", ["", "no/name", "x" * 128, 0, -1, 1 << 31, True, 1.5, None])
def test_a_link_goes_by_name_or_ifindex(session: Session, key: Any) -> None:
    with pytest.raises(InvalidValue):
        session.inspect([("", key)])


def test_what_makes_inspecting_impossible_is_raised(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse_all(patch, Outcome(12, "", ()))
        with pytest.raises(NetlinkError, match="look up 'lo'"):
            session.inspect([("", "lo")])


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


# Other ends at home.


def seen_links(survey: Survey) -> set[tuple[str, str]]:
    return {(one.ref, one.link.name) for one in survey.links}


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
    (a,) = [one for one in survey.links if one.link.name == "a"]
    assert [(str(one.interface), one.proto) for one in a.addresses if one.proto == 9] == [("10.0.0.1/24", 9)]
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
            Outcome(errno.EINVAL, "", ()) if place.ref == "blue" and request[4:6] == get_id else outcome
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


# Errors while the other ends are looked for.


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
