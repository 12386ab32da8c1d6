"""Names that only an alternative name can be, on kernels that have no alternative names: no link has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.older_kernel import without_alternative_names
from tests.witness import names
from vethlib import End, LinkNotFound, Session, Veth

LONG = "a-name-of-more-than-15-bytes"


@pytest.fixture
def session(home: object, blue: str, monkeypatch: pytest.MonkeyPatch) -> Session:
    without_alternative_names(monkeypatch)
    session = Session()
    session.create_many([Veth(End("a", up=False), End("b", "blue", up=False)), Veth(End("c"), End("d", "blue"))])
    return session


CALLS: dict[str, Callable[[Session, str], object]] = {
    "lookup": lambda session, netns: session.lookup(LONG, netns),
    "lookup_many": lambda session, netns: session.lookup_many([(LONG, netns)]),
    "lookup_many without addresses": lambda session, netns: session.lookup_many([(LONG, netns)], addresses=False),
    "set": lambda session, netns: session.set(LONG, netns, mtu=1400),
    "set another field": lambda session, netns: session.set(LONG, netns, alias="x", up=True),
    "delete": lambda session, netns: session.delete(LONG, netns),
    "stats": lambda session, netns: session.stats(LONG, netns),
}


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("call", CALLS)
def test_a_long_name_is_that_of_no_link(session: Session, call: str, netns: str) -> None:
    with session, pytest.raises(LinkNotFound):
        CALLS[call](session, netns)


def test_one_long_name_does_not_keep_other_links_from_being_deleted(session: Session) -> None:
    with session:
        session.delete_many([("b", "blue"), (LONG, "blue")])
    assert names("blue") == {"d"}


def test_looking_at_a_long_name_finds_none(session: Session) -> None:
    with session:
        assert [one.link.name for one in session.inspect([("blue", "b"), ("blue", LONG)]).links] == ["b"]
