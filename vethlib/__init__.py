"""Wire Linux network namespaces together with veth pairs, at the speed of the kernel.

    from vethlib import End, Session, Veth

    with Session() as session:
        pair = session.create(Veth(End("veth1", netns="ns1"), End("veth2", netns="ns2")))

All public names are here but those of namespaces (:mod:`vethlib.ns`), of what is declared (:mod:`vethlib.agent`) and of
whole topologies (:mod:`vethlib.topology`).
"""

import errno
import socket
from typing import TYPE_CHECKING, Any

from .errors import (
    BatchError,
    DuplicateAddress,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetlinkError,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    SessionClosed,
    VethError,
    WaitTimeout,
)
from .links import Address, End, Link, Pair, Stats, Veth
from .ns import Netns
from .session import Session

if TYPE_CHECKING:
    from .ifindex import IfIndexCache, LinkEvent

__all__ = [
    "Address",
    "BatchError",
    "DuplicateAddress",
    "End",
    "IfIndexCache",
    "InvalidValue",
    "Link",
    "LinkEvent",
    "LinkExists",
    "LinkNotFound",
    "NetlinkError",
    "Netns",
    "NetnsExists",
    "NetnsNotFound",
    "NotPermitted",
    "NotSupported",
    "Pair",
    "Session",
    "SessionClosed",
    "Stats",
    "Veth",
    "VethError",
    "WaitTimeout",
    "interface_index",
]


def __getattr__(name: str) -> Any:
    # What not everybody needs is imported when it is asked for: the cache costs 2 ms, importlib.metadata more than all
    # of vethlib.
    if name in ("IfIndexCache", "LinkEvent"):
        from . import ifindex

        return getattr(ifindex, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("vethlib")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def interface_index(name: str) -> int:
    """The ifindex of a link, or alternative name, in the calling thread's namespace. Raises LinkNotFound."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        # Python 3.11 says "no interface with this name" without a number.
        message = f"there is no link {name!r}"
        raise LinkNotFound(message, errno=error.errno or errno.ENODEV, request=f"look up {name!r}") from None
