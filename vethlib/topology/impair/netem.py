"""Impair wires with netem, at the root of each end: packets leave a node through the discipline of its link."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from vethlib._nl.batch import Outcome
from vethlib._nl.dependents.attached import dump_qdiscs
from vethlib._nl.dependents.netem import Netem, delete_root, parse_netem, set_netem
from vethlib._nl.link import get_link, index_of
from vethlib.errors import LinkNotFound, NotSupported
from vethlib.ns import Netns
from vethlib.topology.design.impairment import Impairment
from vethlib.topology.sockets import Sockets

__all__ = ["ImpairmentNotSupported", "impair", "read", "write"]

_NANOSECONDS: Final = 1_000_000_000
_CURE: Final = (
    'this kernel has no netem: try "modprobe sch_netem", or impair="userspace" and an attribute of the wire, such as '
    "delay=0ms"
)


class ImpairmentNotSupported(NotSupported):
    """Wires cannot be impaired here: the kernel has no netem, or the wire leads through no relay."""


def impair(links: Iterable[tuple[str, int, Impairment]], namespaces: Mapping[str, Netns]) -> None:
    """Impair packets that leave through new links, each given by its node and ifindex.

    Raises ImpairmentNotSupported, NetlinkError.
    """
    of_node: dict[str, list[bytes]] = {}
    for node, index, impairment in links:
        if impairment != Impairment():
            of_node.setdefault(node, []).append(set_netem(index, _netem(impairment)))
    with Sockets(of_node, namespaces) as sockets:
        for node, requests in of_node.items():
            for outcome in sockets.exchange(node, requests):
                _check(sockets, node, "impair a link", outcome)


def read(node: str, netns: Netns, link: str) -> Impairment:
    """Return the impairment of packets that leave through a link. Raises LinkNotFound, NetlinkError."""
    with Sockets([node], {node: netns}) as sockets:
        netem = _present(sockets, node, _index(sockets, node, link))
    return Impairment() if netem is None else _impairment(netem)


def write(node: str, netns: Netns, link: str, impairment: Impairment) -> None:
    """Impair packets that leave through a link, or end their impairment. Another discipline is replaced, not removed.

    Raises LinkNotFound, ImpairmentNotSupported, NetlinkError.
    """
    with Sockets([node], {node: netns}) as sockets:
        index = _index(sockets, node, link)
        if impairment != Impairment():
            request = set_netem(index, _netem(impairment))
        elif _present(sockets, node, index) is not None:
            request = delete_root(index)
        else:
            return
        (outcome,) = sockets.exchange(node, [request])
        _check(sockets, node, f"impair {link}", outcome)


def _check(sockets: Sockets, node: str, what: str, outcome: Outcome) -> None:
    if outcome.errno in (errno.ENOENT, errno.EOPNOTSUPP):
        raise ImpairmentNotSupported(f"node {node}: {what}: {_CURE}", errno=outcome.errno)
    sockets.check(node, what, [outcome])


def _index(sockets: Sockets, node: str, link: str) -> int:
    (outcome,) = sockets.exchange(node, [get_link(name=link.encode())])
    if outcome.errno == errno.ENODEV:
        raise LinkNotFound(f"node {node} has no link {link}", errno=errno.ENODEV)
    sockets.check(node, f"find {link}", [outcome])
    return index_of(outcome.bodies[0])


def _present(sockets: Sockets, node: str, index: int) -> Netem | None:
    found = sockets.dump(node, dump_qdiscs(), partial(parse_netem, index=index))
    return next((netem for netem in found if netem is not None), None)


def _netem(impairment: Impairment) -> Netem:
    return Netem(
        latency=round(impairment.delay * _NANOSECONDS),
        jitter=round(impairment.jitter * _NANOSECONDS),
        loss=impairment.loss,
        duplicate=impairment.duplicate,
        reorder=impairment.reorder,
        rate=impairment.rate // 8,
        limit=impairment.limit,
    )


def _impairment(netem: Netem) -> Impairment:
    return Impairment(
        delay=netem.latency / _NANOSECONDS,
        jitter=netem.jitter / _NANOSECONDS,
        loss=round(netem.loss, 9),
        duplicate=round(netem.duplicate, 9),
        reorder=round(netem.reorder, 9),
        rate=netem.rate * 8,
        limit=netem.limit,
    )
