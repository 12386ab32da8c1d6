"""The links of several namespaces: an error in one of them is the result for that namespace, and not for the others."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeAlias, TypeVar

from vethlib import ns
from vethlib._nl.dump import link_bodies
from vethlib._nl.link import LinkMessage
from vethlib.errors import NetlinkError, VethError, errno_text, error_class, is_exhaustion
from vethlib.session.core.refusal import system_errors

from .table import records

__all__ = ["Found", "links_in", "or_error"]

Found: TypeAlias = dict[int, LinkMessage] | NetlinkError
"""The links in a namespace, by ifindex, or why they cannot be read."""

P = ParamSpec("P")
T = TypeVar("T")


def links_in(fds: Sequence[int]) -> list[Found]:
    """Dump the links of each of these open namespaces. Raises NetlinkError only if resources run out."""
    with system_errors("list the links of the watched namespaces"):
        try:
            looks = ns.map_in(fds, _bodies)
        except VethError as error:
            if is_exhaustion(error):
                raise
            # One of the namespaces cannot be entered.
            looks = [or_error(ns.call_in, fd, _bodies) for fd in fds]
        return [bodies if isinstance(bodies, NetlinkError) else or_error(records, bodies) for bodies in looks]


def _bodies() -> list[bytes] | NetlinkError:
    return or_error(link_bodies)


def or_error(look: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | NetlinkError:
    """Return what `look` returns, or the error that concerns its namespace alone. Raises if resources run out."""
    try:
        return look(*args, **kwargs)
    except OSError as error:
        number = error.errno or errno.EIO
        found = error if isinstance(error, NetlinkError) else error_class(number)(errno_text(number), errno=number)
        if is_exhaustion(found):
            raise
        return found
