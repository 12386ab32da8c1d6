"""Wire Linux network namespaces together with veth pairs, at the speed of the kernel.

    from vethlib import End, Session, Veth

    with Session() as session:
        pair = session.create(Veth(End("veth1", netns="ns1"), End("veth2", netns="ns2")))

The other public modules are :mod:`vethlib.ns` (network namespaces), :mod:`vethlib.agent` (the declarative API),
:mod:`vethlib.monitor` (events of a whole host), :mod:`vethlib.rates`, :mod:`vethlib.graph` and :mod:`vethlib.topology`
(test topologies).
"""

import errno
import socket
from typing import TYPE_CHECKING, Any

from ._nl.wire import encoded, to_system
from .errors import (
    BatchError,
    DuplicateAddress,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    Malformed,
    NetlinkError,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    SessionClosed,
    VethError,
    WaitTimeout,
)
from .linkref import LinkRef, locate
from .links import Address, End, Link, NetnsRef, Pair, Stats, Veth, check_lookup_name
from .ns import Netns
from .session import Session

if TYPE_CHECKING:
    from .endfields.neighbours import Neighbour as Neighbour
    from .endfields.newaddress import NewAddress as NewAddress
    from .endfields.routes import Route as Route
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
    "LinkRef",
    "Malformed",
    "Neighbour",
    "NetlinkError",
    "Netns",
    "NetnsExists",
    "NetnsNotFound",
    "NetnsRef",
    "NewAddress",
    "NotPermitted",
    "NotSupported",
    "Pair",
    "Route",
    "Session",
    "SessionClosed",
    "Stats",
    "Veth",
    "VethError",
    "WaitTimeout",
    "interface_index",
]


def __getattr__(name: str) -> Any:
    # Imported on demand, because not everybody needs them: the cache costs 2 ms, importlib.metadata more than all of
    # vethlib.
    if name in ("IfIndexCache", "LinkEvent"):
        from . import ifindex

        return getattr(ifindex, name)
    if name == "NewAddress":
        from .endfields.newaddress import NewAddress

        return NewAddress
    if name == "Neighbour":
        from .endfields.neighbours import Neighbour

        return Neighbour
    if name == "Route":
        from .endfields.routes import Route

        return Route
    if name == "__version__":
        from importlib.metadata import version

        return version("vethlib")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def interface_index(name: LinkRef) -> int:
    """Return the ifindex of a link, by name or alternative name, in the calling thread's namespace.

    Of a Link or an End, only the name is used. Raises LinkNotFound, and InvalidValue if no link can have this name.
    """
    name = locate(name)[0]
    check_lookup_name(name)
    if len(encoded(name)) > 15:  # an alternative name: the ioctl has IFNAMSIZ bytes, with a NUL
        with Session() as session:
            return session.index(name)
    try:
        return socket.if_nametoindex(to_system(name))
    except OSError as error:
        # Python 3.11 says "no interface with this name" without a number.
        message = f"there is no link {name!r}"
        raise LinkNotFound(message, errno=error.errno or errno.ENODEV, request=f"look up {name!r}") from None
