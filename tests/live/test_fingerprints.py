"""Fingerprints of namespaces: equal to those of a survey as long as another survey would read the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forging import new_link
from tests.live.configuring import without_detection
from tests.live.sysctls import without_link_local
from tests.witness import ip, poll, seen, wait_for_carrier
from vethlib import End, Session, Veth, ns
from vethlib._nl.link import parse_link
from vethlib.ns import Netns
from vethlib.session.read.fingerprint import fingerprint_of

REFS = ("", "netns:blue", "netns:red", "netns:missing")


@pytest.fixture
def scene(session: Session, blue: str, red: str) -> Session:
    """Where nothing changes by itself any more."""
    without_detection("", blue, red)
    without_link_local("", blue, red)
    session.create_many(
        [
            Veth(
                End("a", addresses=["10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/64"], alias="x", mtu=1400),
                End("b", "blue"),
            ),
            Veth(End("c", "blue", up=False), End("d", "red", up=False)),
        ],
    )
    wait_for_carrier(("a", ""), ("b", "blue"))
    assert poll(lambda: not any(one.get("tentative") for one in seen("a")["addr_info"]))
    return session


def taken_by_survey(session: Session) -> object:
    fingerprints = session.survey(REFS, fingerprints=True).fingerprints
    assert fingerprints is not None
    return fingerprints


def test_they_are_those_of_a_survey_while_nothing_changes(scene: Session) -> None:
    before = taken_by_survey(scene)
    assert scene.fingerprints(REFS) == before
    assert scene.fingerprints(REFS) == taken_by_survey(scene)


def test_a_survey_takes_none_unless_it_is_asked_to(scene: Session) -> None:
    assert scene.survey(REFS).fingerprints is None


def replaced() -> None:
    ns.remove("red")
    Netns.create("red").close()


CHANGES: dict[str, Callable[[], object]] = {
    "the MTU": lambda: ip("link", "set", "dev", "b", "mtu", "1300", netns="blue"),
    "the MAC": lambda: ip("link", "set", "dev", "b", "address", "02:00:00:00:00:09", netns="blue"),
    "a link that is down now": lambda: ip("link", "set", "dev", "a", "down"),
    "an alias, of which there is no event": lambda: ip("link", "set", "dev", "c", "alias", "other", netns="blue"),
    "a group": lambda: ip("link", "set", "dev", "c", "group", "77", netns="blue"),
    "an alternative name": lambda: ip("link", "property", "add", "dev", "c", "altname", "also-c", netns="blue"),
    "a name": lambda: ip("link", "set", "dev", "c", "name", "e", netns="blue"),
    "one address more": lambda: ip("addr", "add", "10.9.0.1/24", "dev", "b", netns="blue"),
    "one address less": lambda: ip("addr", "del", "2001:db8::1/64", "dev", "a"),
    "the lifetime of an address": lambda: ip(
        "addr", "change", "2001:db8::1/64", "dev", "a", "valid_lft", "600", "preferred_lft", "500"
    ),
    "one link more": lambda: ip("link", "add", "y", "type", "bridge", netns="red"),
    "one link less": lambda: ip("link", "del", "c", netns="blue"),
    "another namespace of that name": replaced,
    "a namespace that did not exist": lambda: Netns.create("missing").close(),
    "a namespace that has ended": lambda: ns.remove("red"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_that_a_survey_would_read_changes_them(scene: Session, change: str) -> None:
    before = taken_by_survey(scene)
    CHANGES[change]()
    assert scene.fingerprints(REFS) != before


def test_an_address_that_expires_is_no_change_by_growing_older(scene: Session) -> None:
    ip("addr", "add", "10.8.0.1/24", "dev", "a", "valid_lft", "600", "preferred_lft", "500")
    before = taken_by_survey(scene)
    ip("addr", "change", "10.8.0.1/24", "dev", "a", "valid_lft", "590", "preferred_lft", "490")
    assert scene.fingerprints(REFS) == before


def test_thousands_of_addresses_and_links_at_home_are_compared_too(scene: Session) -> None:
    scene.create_many(
        [Veth(End(f"m{i}", up=False), End(f"n{i}", up=False)) for i in range(300)]
    )  # more than are looked at one by one
    before = taken_by_survey(scene)
    assert scene.fingerprints(REFS) == before
    ip("addr", "add", "10.9.0.1/24", "dev", "m77")
    assert scene.fingerprints(REFS) != before


@pytest.mark.parametrize("change", [{"link": None}, {"link_netnsid": 5}])
def test_a_link_that_a_dump_has_in_two_states_does_no_harm(change: dict[str, Any]) -> None:
    link = parse_link(new_link(7, "a")[16:])
    taken = fingerprint_of(bytes(8), [link, link._replace(**change)], [])
    assert taken != fingerprint_of(bytes(8), [link], [])
    assert fingerprint_of(bytes(8), [link, link._replace(ifindex=8)], []) == fingerprint_of(
        bytes(8), [link._replace(ifindex=8), link], []
    )
