"""Helpers for checking surveys."""

from __future__ import annotations

from collections.abc import Callable

from tests.witness import ip
from vethlib import End, Session, Veth
from vethlib.session.read.survey import Survey

__all__ = ["RING", "make_ring", "pair", "pairs", "ring_pairs", "seen_links", "wire"]


def pairs(survey: Survey) -> set[frozenset[tuple[str, str]]]:
    """Return {(namespace, name), (namespace, name)} of each pair of which both ends were read."""
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


RING = 70  # more than a slab


def ring_pairs(refs: list[str]) -> set[frozenset[tuple[str, str]]]:
    return {pair((refs[n], "right"), (refs[(n + 1) % RING], "left")) for n in range(RING)}


def seen_links(survey: Survey) -> set[tuple[str, str]]:
    return {(one.ref, one.link.name) for one in survey.links}


def make_ring(session: Session, make_netns: Callable[..., None]) -> list[str]:
    """Create a ring of namespaces in which all links, and all their other ends, have the same indexes."""
    refs = [f"ring{number}" for number in range(RING)]
    make_netns(*refs)
    session.create_many(Veth(End("right", refs[n]), End("left", refs[(n + 1) % RING])) for n in range(RING))
    return refs


def wire(a: str, a_netns: str, a_index: int, b: str, b_netns: str, b_index: int) -> None:
    mac = "02:00:00:00:00:"
    ip(
        *("link", "add", "name", a, "index", str(a_index), "address", f"{mac}{a_index}", "type", "veth"),
        *("peer", "name", b, "index", str(b_index), "address", f"{mac}{b_index}", "netns", b_netns),
        netns=a_netns,
    )
