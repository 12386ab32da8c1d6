"""The routes over a wire: read before it is set down, which removes them, and added again when it is up.

All routes that a test can have added are read: those of the topology, of Node.route and of ``ip route``, in any table.
Those of routing daemons are not, because a daemon follows the state of the link itself. A route that has been replaced
or removed before the wire is set down is not restored, nor is one in whose place there is another by then.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6
from typing import Final

from vethlib._nl.batch import Outcome
from vethlib._nl.const import RTPROT_BOOT, RTPROT_STATIC
from vethlib._nl.dependents.kept import KeptRoute, add_kept, kept_route, restore_hops
from vethlib._nl.dependents.route import dump_routes_over
from vethlib.endfields.routes import PROTO
from vethlib.ns import Netns
from vethlib.topology.sockets import Sockets

__all__ = ["UNREACHABLE", "LostRoutes"]

UNREACHABLE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
"""Errors of a route whose gateway cannot be reached over any link."""

_OF_TESTS: Final = frozenset({RTPROT_BOOT, RTPROT_STATIC, PROTO})
_TOLERATED: Final = (errno.EEXIST, errno.EINVAL, *UNREACHABLE)  # EINVAL: its source is no longer an address of the node


class LostRoutes:
    """The routes that the links of a topology have lost, by the name of the node and the ifindex of the link."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], list[KeptRoute]] = {}

    def note(self, links: Mapping[str, int], nodes: Mapping[str, Netns]) -> None:
        """Read the routes over these links, which are up and about to be set down. Raises NetlinkError."""
        with Sockets(links, nodes) as sockets:
            for node, index in links.items():
                if sockets.is_up(node, index):  # otherwise it has lost them already
                    routes = list(_routes(node, index, sockets))
                    present = {route.key for route in routes}
                    # If restoring them was interrupted, some are still missing.
                    missing = [route for route in self._of.get((node, index), ()) if route.key not in present]
                    self._of[node, index] = routes + missing

    def restore(self, links: Mapping[str, int], nodes: Mapping[str, Netns]) -> set[str]:
        """Add the routes over these links again, which are up. Return the nodes whose routes were known.

        Those of a node stay known until all of them were added, in case that this is tried again.
        """
        known = [node for node, index in links.items() if (node, index) in self._of]
        with Sockets(known, nodes) as sockets:
            for node in known:
                routes = self._of[node, links[node]]
                _add(node, sorted(routes, key=lambda route: route.has_gateway), sockets)
                del self._of[node, links[node]]
        return set(known)


def _routes(node: str, index: int, sockets: Sockets) -> Iterator[KeptRoute]:
    for family in (AF_INET, AF_INET6):
        for route in sockets.dump(node, dump_routes_over(family, index), partial(kept_route, index=index)):
            # A kernel without IPv6 answers with the IPv4 routes once more.
            if route is not None and route.protocol in _OF_TESTS and route.body[0] == family:
                yield route


def _add(node: str, routes: Sequence[KeptRoute], sockets: Sockets) -> None:
    outcomes = sockets.exchange(node, list(map(add_kept, routes)))
    for route, outcome in zip(routes, outcomes, strict=True):
        hops = restore_hops(route) if outcome.errno == errno.EEXIST else b""
        refused = sockets.exchange(node, [hops]) if hops else [outcome]
        sockets.check(node, f"restore the route to {route}", _not_tolerated(refused))


def _not_tolerated(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.errno not in _TOLERATED]
