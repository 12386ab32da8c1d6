"""Use rtnetlink sockets in nodes, for requests that Session does not support: bridges, routes and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from socket import AF_INET6
from typing import Any

from vethlib import ns
from vethlib._closing import Closing
from vethlib._nl.addr import dump_addrs, parse_addr
from vethlib._nl.batch import Outcome
from vethlib._nl.const import IFA_F_DADFAILED, IFA_F_TENTATIVE, IFF_LOWER_UP, IFF_UP
from vethlib._nl.link import get_link, parse_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.torn import read
from vethlib.ns import Netns
from vethlib.session.core.refusal import refusal, system_errors

__all__ = ["Sockets"]

_LINK_LOCAL = 0xFE  # the first byte of fe80::/10, whose addresses the kernel manages itself


class Sockets(Closing):
    """A socket in each of some nodes."""

    def __init__(self, nodes: Iterable[str], namespaces: Mapping[str, Netns]) -> None:
        names = list(dict.fromkeys(nodes))
        with system_errors("open rtnetlink sockets in the nodes of a topology"):
            sockets = ns.map_in([namespaces[name].fd for name in names], RtnlSocket) if names else []
        self._of = dict(zip(names, sockets, strict=True))

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._of.values():
            socket.close()

    def exchange(self, node: str, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests in `node`; return the outcome of each."""
        with system_errors("use rtnetlink", node):
            return self._of[node].exchange(requests)

    def dump(self, node: str, request: bytes, parse: Callable[[bytes], Any]) -> Sequence[Any]:
        """Dump a table of `node`, and return its parsed messages. Raises NetlinkError."""
        with system_errors("use rtnetlink", node):
            outcome = read(partial(self._of[node].dump, request, parse, 1))
        self.check(node, "read a table", [outcome])
        return outcome.bodies

    def has_tentative(self, node: str, index: int, link_local: Container[bytes] = ()) -> bool:
        """Return whether an IPv6 address of `node` is tentative, on the link `index` or, with 0, on any link.

        Of link-local addresses, only those in `link_local` count.
        """
        with system_errors("use rtnetlink", node):
            outcome = read(partial(self._of[node].dump, dump_addrs(index, AF_INET6), parse_addr, 1))
        self.check(node, "read its addresses", [outcome])
        return any(
            address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == IFA_F_TENTATIVE
            and (address.address[0] != _LINK_LOCAL or address.address in link_local)
            and index in (0, address.ifindex)
            for address in outcome.bodies
        )

    def has_link(self, node: str, index: int) -> bool:
        """Return whether there is a link in `node`."""
        (outcome,) = self.exchange(node, [get_link(index)])
        return bool(outcome.bodies)

    def is_up(self, node: str, index: int) -> bool:
        """Return whether a link of `node` is set up; False if there is no such link."""
        (outcome,) = self.exchange(node, [get_link(index)])
        return bool(outcome.bodies) and bool(parse_link(outcome.bodies[0]).flags & IFF_UP)

    def has_carrier(self, node: str, index: int) -> bool:
        """Return whether a link of `node` and its other end are up; False if there is no such link."""
        (outcome,) = self.exchange(node, [get_link(index)])
        both = IFF_UP | IFF_LOWER_UP
        return bool(outcome.bodies) and parse_link(outcome.bodies[0]).flags & both == both

    def check(self, node: str, what: str, outcomes: Iterable[Outcome]) -> None:
        """Raise NetlinkError for the first refused request."""
        for outcome in outcomes:
            if outcome.errno:
                raise refusal(outcome, f"node {node}: {what}", "")
