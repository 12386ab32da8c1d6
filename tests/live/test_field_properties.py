"""All fields of an end at random, on a real link: what is applied is undone to the letter, and drift is put right.

Addresses, routes, neighbours and alternative names of others are on the link all the time, and survive everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.address_texts import often
from tests.live.applying import applied, interface, planned
from tests.live.configuring import without_detection
from tests.live.end_fields import fields
from tests.live.offloads import set_offload
from tests.live.sysctls import sysctl
from tests.witness import ip, seen
from vethlib import Session
from vethlib.agent import Interface, inverse
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe

pytestmark = pytest.mark.needs_kernel("5.18")  # which marks whose an address is

_A, _B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
GIVEN: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "ip_addresses": st.tuples(
            st.sampled_from(["10.0.0.1/24", "10.0.0.1/24 brd + label a:x", "10.0.0.1/24 label eth0"]),
            st.sampled_from(["10.1.0.1/16", "10.1.0.1/16 scope link noprefixroute", "10.1.0.1 peer 10.1.0.2/32"]),
        ).map(list)
    },
    optional={
        "txqlen": st.sampled_from([7, 500]),
        "gso_max_size": st.sampled_from([4096, 8192]),
        "altnames": st.sampled_from([["uplink"], ["uplink", "wan"]]),
        "sysctls": st.sampled_from([{"rp_filter": "2"}, {"rp_filter": "1", "ipv6.accept_ra": "0"}]),
        "offload": st.booleans(),
        "ipv6": st.booleans(),
        "master": st.sampled_from(["br0", "br1"]),
        "routes": st.lists(
            st.sampled_from(
                [{"dst": "10.9.0.0/16"}, {"dst": "10.8.0.0/16", "via": "10.0.0.2"}, {"dst": "default", "metric": 9}]
            ),
            unique_by=str,
        ),
        "neighbours": st.lists(
            st.sampled_from(
                [{"ip": "10.0.0.9", "mac": _A}, {"ip": "10.0.0.9", "mac": _B}, {"ip": "10.0.0.8", "mac": _A}]
            ),
            unique_by=lambda one: one["ip"],
        ),
    },
)


@pytest.fixture
def blue(blue: str, session: Session) -> str:
    """With two bridges, and a link that has something of others of each kind."""
    without_detection(blue)
    for name in ("br0", "br1"):
        ip("link", "add", name, "up", "type", "bridge", netns="blue")
    applied(session, *ends({"ip_addresses": ["10.0.0.1/24"]}))
    ip("address", "add", "10.99.0.1/24", "label", "a:theirs", "dev", "a", netns="blue")
    ip("route", "add", "10.77.0.0/16", "dev", "a", "proto", "static", netns="blue")
    ip("neighbour", "add", "10.0.0.77", "lladdr", _A, "dev", "a", netns="blue")
    ip("link", "property", "add", "dev", "a", "altname", "theirs", netns="blue")
    return blue


def ends(given: dict[str, Any]) -> list[Interface]:
    return [interface("a", "b", "blue", **given), interface("b", "a", "blue")]


def state() -> dict[str, Any]:
    """Everything that `ip`, /proc and ioctl say of the link, whoever has set it; of IPv6 only whether it is on."""
    link = seen("a", "blue")
    keys = ("local", "address", "prefixlen", "broadcast", "label", "scope", "noprefixroute")
    routes = [one for one in ip("route", "show", "dev", "a", netns="blue") if one["protocol"] != "kernel"]
    neighbours = ip("neighbour", "show", "dev", "a", "nud", "permanent", netns="blue")
    return fields("a", "blue") | {
        "master": link.get("master"),
        "addresses": [{key: one.get(key) for key in keys} for one in link["addr_info"] if one["family"] == "inet"],
        "routes": sorted(map(str, routes)),
        "neighbours": sorted((one["dst"], one["lladdr"]) for one in neighbours if ":" not in one["dst"]),
        "ipv6": sysctl("blue", "ipv6/conf/a/disable_ipv6"),
    }


def theirs() -> tuple[bool, ...]:
    """Whether what others have given to the link is there."""
    found = state()
    return (
        any(one["label"] == "a:theirs" for one in found["addresses"]),
        any("10.77.0.0/16" in one for one in found["routes"]),
        ("10.0.0.77", _A) in found["neighbours"],
        "theirs" in found["altnames"],
    )


def _look(session: Session, desired: list[Interface]) -> Any:
    return observe(session, ["netns:blue"], interfaces=desired)


def test_what_was_applied_is_undone_and_what_is_of_others_survives(session: Session, blue: str) -> None:
    @often
    @given(GIVEN, GIVEN)
    def holds(had: dict[str, Any], wanted: dict[str, Any]) -> None:
        applied(session, *ends(had))
        before, desired = state(), ends(wanted)
        first = _look(session, desired)
        done = execute(session, planned(session, *desired)).done
        assert planned(session, *desired).operations == ()
        assert all(theirs())
        undo = inverse(done, first, _look(session, desired), _look(session, desired))
        assert undo.left == ()
        assert execute(session, undo.plan).errors == []
        assert state() == before
        assert all(theirs())

    holds()


def _quietly(*words: str) -> Callable[[], None]:
    """Return a command that others give, which may fail because there is nothing to be changed."""

    def change() -> None:
        try:
            ip(*words, netns="blue")
        except Exception:
            pass

    return change


MEDDLING: dict[str, Callable[[], object]] = {
    "txqlen": _quietly("link", "set", "dev", "a", "txqueuelen", "77"),
    "gso_max_size": _quietly("link", "set", "dev", "a", "gso_max_size", "5000"),
    "altnames": _quietly("link", "property", "del", "dev", "a", "altname", "uplink"),
    "sysctls": lambda: sysctl("blue", "ipv4/conf/a/rp_filter", "0"),
    "offload": lambda: set_offload("a", "blue", "tx", on=not fields("a", "blue")["offload"]),
    "ipv6": lambda: sysctl("blue", "ipv6/conf/a/disable_ipv6", "1"),
    "master": _quietly("link", "set", "dev", "a", "nomaster"),
    "routes": _quietly("route", "flush", "dev", "a", "proto", "118"),
    "neighbours": _quietly("neighbour", "del", "10.0.0.9", "dev", "a"),
    "addresses": _quietly("address", "del", "10.0.0.1/24", "dev", "a"),
}


def test_drift_of_each_field_is_put_right_and_what_is_of_others_survives(session: Session, blue: str) -> None:
    @often
    @given(GIVEN, st.lists(st.sampled_from(sorted(MEDDLING)), min_size=1, unique=True))
    def holds(wanted: dict[str, Any], meddled: list[str]) -> None:
        applied(session, *ends(wanted))
        before = state()
        for name in meddled:
            if name in wanted or name == "addresses":
                MEDDLING[name]()
        execution = execute(session, planned(session, *ends(wanted)))
        assert execution.errors == []
        assert planned(session, *ends(wanted)).operations == ()
        assert _unordered(state()) == _unordered(before)
        assert all(theirs())

    holds()


def _unordered(found: dict[str, Any]) -> dict[str, Any]:
    """An address that others have removed is after theirs when it is added again."""
    return found | {"addresses": sorted(map(str, found["addresses"]))}


@pytest.mark.parametrize("name", sorted(MEDDLING))
def test_each_kind_of_meddling_is_drift(session: Session, blue: str, name: str) -> None:
    wanted = {
        "ip_addresses": ["10.0.0.1/24"],
        "txqlen": 500,
        "gso_max_size": 4096,
        "altnames": ["uplink"],
        "sysctls": {"rp_filter": "2"},
        "offload": False,
        "ipv6": True,
        "master": "br0",
        "routes": [{"dst": "10.9.0.0/16"}],
        "neighbours": [{"ip": "10.0.0.9", "mac": _A}],
    }
    applied(session, *ends(wanted))
    before = state()
    MEDDLING[name]()
    assert state() != before
    applied(session, *ends(wanted))
    assert _unordered(state()) == _unordered(before)
    assert all(theirs())
