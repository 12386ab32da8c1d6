"""Shared by the tests of IfIndexCache: the links as ``ip`` shows them, and a copy that is kept by events alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.witness import ip
from vethlib import Link, Netns
from vethlib.ifindex import IfIndexCache, LinkEvent


def witnessed(netns: Netns | str) -> dict[int, dict[str, Any]]:
    """Return the links of a namespace by ifindex, as ``ip`` shows them, with those values whose changes are events."""
    return {link["ifindex"]: _of_ip(link) for link in ip("link", netns=netns)}


def _of_ip(link: dict[str, Any]) -> dict[str, Any]:
    found = {
        "name": link["ifname"],
        "mac": link["address"],
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "operstate": link["operstate"].lower(),
        "kind": link.get("linkinfo", {}).get("info_kind", ""),
    }
    if found["up"]:
        found["alias"] = link.get("ifalias", "")
        found["group"] = link.get("group", "default")
        found["altnames"] = set(link.get("altnames", ()))
    return found


def known(cache: IfIndexCache, netns: Netns | str) -> dict[int, dict[str, Any]]:
    """Return the same from the cache."""
    return {link.index: _of_link(link) for link in cache.links(netns)}


def _of_link(link: Link) -> dict[str, Any]:
    found = {
        "name": link.name,
        "mac": link.mac,
        "mtu": link.mtu,
        "up": link.up,
        "operstate": link.operstate,
        "kind": link.kind,
    }
    if link.up:
        found["alias"] = link.alias
        found["group"] = str(link.group) if link.group else "default"
        found["altnames"] = set(link.altnames)
    return found


def assert_right(cache: IfIndexCache, refs: Iterable[Netns | str], poll: Callable[[], object] | None = None) -> None:
    """Check that the cache agrees with ``ip`` about these namespaces, at the latest when the carrier has settled."""
    poll = poll or cache.catch_up
    for netns in refs:
        deadline = time.monotonic() + 20.0  # the kernel reports a carrier up to a second late (linkwatch)
        while True:
            poll()
            expected, found = witnessed(netns), known(cache, netns)
            if found == expected:
                break
            if time.monotonic() > deadline:
                assert found == expected, netns
            time.sleep(0.05)
        for link in cache.links(netns):
            assert cache.name(link.index, netns) == link.name
            for name in (link.name, *link.altnames) if link.up else (link.name,):
                assert cache.index(name, netns) == link.index, link


class Copy:
    """A copy of the content of the cache, kept by its events alone."""

    def __init__(self, cache: IfIndexCache, refs: Iterable[str]) -> None:
        self._cache = cache
        self.links: dict[str, dict[int, Link]] = {}
        self._next: dict[str, list[dict[int, Link]]] = {}
        self.events = self.resyncs = 0
        for ref in refs:
            self.begin(ref)

    def begin(self, ref: str) -> None:
        """Take over the links of a newly watched namespace, after the end of another if that is yet to be reported."""
        links = {link.index: link for link in self._cache.links(ref)}
        if ref in self.links:
            self._next.setdefault(ref, []).append(links)
        else:
            self.links[ref] = links

    def poll(self, timeout: float | None = 0) -> list[LinkEvent]:
        events = self._cache.poll(timeout)
        for event in events:
            self._apply(event)
        self.events += len(events)
        return events

    def _apply(self, event: LinkEvent) -> None:
        if event.kind == "resync":
            self.resyncs += 1
            return
        assert isinstance(event.netns, str)
        links = self.links[event.netns]
        if event.kind == "netns-gone":
            assert (event.link, event.old) == (None, None)
            del self.links[event.netns]
            if following := self._next.get(event.netns):
                self.links[event.netns] = following.pop(0)
            return
        index = (event.link or event.old).index  # type: ignore[union-attr]
        assert event.old == links.pop(index, None)
        if event.link is not None:
            links[index] = event.link
        names = event.old and event.old.name, event.link and event.link.name
        if event.kind == "renamed":
            assert names[0] != names[1]
        elif event.kind == "changed":
            assert names[0] == names[1]
            assert event.old != event.link
        else:
            assert event.kind == ("new" if event.old is None else "deleted")

    def assert_same(self) -> None:
        """Check that the events have reported everything."""
        assert not any(self._next.values())
        for ref, links in self.links.items():
            assert links == {link.index: link for link in self._cache.links(ref)}, ref


Told = tuple[str, object, str | None, str | None]


def told(events: Iterable[LinkEvent]) -> list[Told]:
    """Return (kind, netns, name, old name) of each event."""
    return [(e.kind, e.netns, e.link.name if e.link else None, e.old.name if e.old else None) for e in events]
