"""Keep what other programs have added to a link through several changes, as far as the link can still have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vethlib.endfields.table import LATE
from vethlib.errors import VethError
from vethlib.links import NetnsRef, describe
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.read.reading import find, read_addresses
from vethlib.session.read.target import Target

from .late import LateFields

__all__ = ["keeping_dependents"]


@contextmanager
def keeping_dependents(namespaces: Namespaces, name: str, netns: NetnsRef, index: int) -> Iterator[None]:
    """Restore, after the block, the routes and neighbours of other programs that a link has lost in it.

    Those that the link can no longer have are left out. Routes over other links whose source is an address of the link
    are restored as well. Raises LinkNotFound, NetlinkError.
    """
    request = f"restore the routes and neighbours of {describe(name, netns)}"
    target = Target(namespaces(netns), name, netns, request, index)
    link = target.check(namespaces, find(namespaces, target))
    late = LateFields(namespaces, target, link)
    late.read(LATE)
    late.read_elsewhere(read_addresses(namespaces, target.place, link.ifindex), 4, 6)
    try:
        yield
    except BaseException:
        with suppress(VethError):  # the first error is the one to report
            _keep(late)
        raise
    _keep(late)


def _keep(late: LateFields) -> None:
    late.keep_elsewhere(waits=True)
    late.keep_foreign(waits=True)
