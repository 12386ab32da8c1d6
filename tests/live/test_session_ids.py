"""Ids of the namespaces of peers: where there are many, a session assigns them before the kernel does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.older_kernel import without_echo
from tests.witness import ip, poll, seen
from vethlib import End, Netns, Session, Veth
from vethlib.session.core import slabs
from vethlib.session.write.creating import ids

COUNT = 12


@pytest.fixture
def spaces(home: Netns, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Netns]]:
    """Namespaces, created in slabs of two, where five ids are many."""
    monkeypatch.setattr(slabs, "SLAB", 2)
    monkeypatch.setattr(ids, "MANY", 5)
    created = [Netns.create(f"n{number}") for number in range(COUNT)]
    yield created
    for netns in created:
        netns.close()


def veths(first: int, last: int, name: str = "a") -> list[Veth]:
    return [Veth(End(f"{name}{n}"), End("b", f"n{n}")) for n in range(first, last)]


def ids_of(name: str, first: int, last: int) -> list[int]:
    return [seen(f"{name}{n}")["link_netnsid"] for n in range(first, last)]


@pytest.mark.parametrize("echoes", [True, False])
def test_where_there_are_many_the_newest_namespace_has_the_lowest_id(
    session: Session, spaces: list[Netns], monkeypatch: pytest.MonkeyPatch, echoes: bool
) -> None:
    if not echoes:
        without_echo(monkeypatch)
    pairs = session.create_many(veths(0, COUNT))
    found = ids_of("a", 0, COUNT)
    assert [pair.a.peer_netnsid for pair in pairs] == found
    kernel, own = found[:6], found[6:]
    assert kernel == sorted(kernel)
    assert max(kernel) < 1000
    assert own == sorted(own, reverse=True)
    assert min(own) > 1 << 20
    # One id each, as the kernel assigns them.
    listed = [each["nsid"] for each in ip("netns", "list-id")]
    assert sorted(listed) == sorted(found)


def test_a_namespace_that_has_an_id_keeps_it(session: Session, spaces: list[Netns]) -> None:
    session.create_many(veths(0, COUNT))
    before = ids_of("a", 0, COUNT)
    with Session() as other:
        other.create_many([Veth(End(f"c{n}"), End("d", f"n{n}")) for n in range(COUNT)])
    assert ids_of("c", 0, COUNT) == before


def test_ids_that_another_program_has_assigned_are_passed_over(
    session: Session, spaces: list[Netns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.session.write.creating.ids.time.monotonic", lambda: 1.0)
    session.create_many(veths(0, 8))
    first = ids_of("a", 6, 8)
    with Session() as other:  # which begins where the first one did
        other.create_many(veths(8, COUNT))
    found = ids_of("a", 8, COUNT)
    assert len({*first, *found}) == 6
    assert found[:2] == sorted(found[:2])  # assigned by the kernel
    assert max(found[2:]) < min(first)


def test_an_id_ends_with_its_namespace(session: Session, spaces: list[Netns]) -> None:
    session.create_many(veths(0, COUNT))
    session.delete_many([(f"a{n}", "") for n in range(COUNT)])
    for number, netns in enumerate(spaces):
        netns.close()
        ip("netns", "del", f"n{number}")
    assert poll(lambda: not ip("netns", "list-id"))


def test_where_there_are_few_all_ids_are_those_of_the_kernel(
    session: Session, spaces: list[Netns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "MANY", 512)
    session.create_many(veths(0, COUNT))
    assert max(ids_of("a", 0, COUNT)) < 1000


def test_a_survey_finds_the_peers_behind_such_ids(session: Session, spaces: list[Netns]) -> None:
    pairs = session.create_many(veths(0, COUNT))
    survey = session.survey(["", *(f"netns:n{n}" for n in range(COUNT))])
    peers = {(each.ref, each.link.name): each.peer for each in survey.links}
    for number, pair in enumerate(pairs):
        place = survey.places[f"netns:n{number}"]
        assert peers["", f"a{number}"] == (place, pair.b.index)
