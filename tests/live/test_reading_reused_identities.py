"""A namespace may get the identity of one that ended in the middle of the same reading, and has none of its links."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.live.reused_identity import with_identity_again
from tests.witness import ip, names
from vethlib import End, Netns, NetnsNotFound, Session, Veth, VethError, ns
from vethlib.session.core import slabs

pytestmark = pytest.mark.needs_kernel("5.14")  # which has cookies

REFS = ("", "blue", "microservice:late")


@pytest.fixture(params=["blue", "red"], ids=["of the same name", "of another name"])
def successor(request: pytest.FixtureRequest) -> str:
    """The name of the namespace that gets the identity."""
    return str(request.param)


@pytest.fixture
def replace(successor: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Resolve a label to `successor`, which is created at that moment, after the removal of blue."""

    def resolve(label: str) -> str:
        if not created:
            with Netns.open("blue") as blue:
                former = blue.identity
            ns.remove("blue")
            Netns.create(successor).close()
            created.append(successor)
            with_identity_again(monkeypatch, successor, former)
            ip("link", "add", "name", "new", "type", "veth", "peer", "name", "newer", netns=successor)
        return successor

    created: list[str] = []
    return resolve


@pytest.fixture
def reader(
    replace: Callable[[str], str], make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A session that reads one namespace after the other."""
    monkeypatch.setattr(slabs, "SLAB", 1)
    make_netns("blue")
    with Session(resolver=replace) as session:
        session.create_many([Veth(End("old"), End("older", "blue")), Veth(End("a", "blue"), End("b", "blue"))])
        yield session


def check_references(places: dict[str, object], successor: str) -> None:
    """Check that a reference leads to the successor if that has the name of blue, and otherwise nowhere."""
    if successor == "blue":
        assert places["blue"] == places["microservice:late"]
    else:
        assert isinstance(places["blue"], NetnsNotFound)


def test_a_survey_has_the_links_of_the_later_one(reader: Session, successor: str) -> None:
    survey = reader.survey(REFS, fingerprints=True)
    place = survey.places["microservice:late"]
    assert not isinstance(place, VethError)
    assert {one.link.name for one in survey.links if one.at == place} == names(successor) | {"lo"}
    assert {one.ref for one in survey.links if one.at == place} <= {"blue", "microservice:late"}
    assert survey.cookies[reader.identity(successor)] == reader.cookie(successor)
    check_references(dict(survey.places), successor)
    later = reader.fingerprints(REFS)
    assert survey.fingerprints is not None
    assert later is not None
    assert survey.fingerprints.of[place] == later.of[place]


def test_inspecting_finds_the_links_of_the_later_one(reader: Session, successor: str) -> None:
    survey = reader.inspect([("blue", "a"), ("blue", "new"), ("microservice:late", "newer")])
    expected = {"new", "newer"} if successor == "blue" else {"newer"}
    assert {one.link.name for one in survey.links} == expected
    check_references(dict(survey.places), successor)


def test_fingerprints_are_those_of_no_mixture(reader: Session) -> None:
    refs = ("blue", "netns:blue")
    before = reader.fingerprints(refs)
    assert before is not None
    assert reader.fingerprints([*refs, "microservice:late"]) is None


def test_a_namespace_that_is_still_there_is_read_once(
    make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs, "SLAB", 1)
    make_netns("blue")
    with Session() as session:
        session.create(Veth(End("a", up=False), End("b", "blue", up=False)))
        survey = session.survey(["blue", "netns:blue", ""], fingerprints=True)
        assert [one.ref for one in survey.links if one.link.name == "b"] == ["blue"]
        assert survey.places["blue"] == survey.places["netns:blue"]
        assert session.fingerprints(["blue", "netns:blue", ""]) == survey.fingerprints
        inspected = session.inspect([("blue", "b"), ("netns:blue", "lo"), ("", "a")])
        assert {(one.ref, one.link.name) for one in inspected.links} == {("blue", "b"), ("blue", "lo"), ("", "a")}
