"""The present name of a link, given its ifindex: ioctls and files in /proc find a link only by its name.

A link can be renamed at any time, and another link can then get its former name. So the name is looked up right before
it is used, by an ioctl, which takes 1 µs and no lock. RTM_GETLINK would wait for the RTNL lock, and for a new link
whose peer is not up yet, make the kernel do deferred work (linkwatch_sync_dev in rtnl_getlink, rtnetlink.c).
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from struct import Struct
from typing import Final, TypeVar

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage
from vethlib._nl.wire import decoded
from vethlib.errors import NetlinkError
from vethlib.links import describe

from .namespaces import Namespaces, OpenNetns
from .refusal import refusal

__all__ = ["present_name", "read_by_name"]

T = TypeVar("T")

_SIOCGIFNAME: Final = 0x8910  # include/uapi/linux/sockios.h
_IFREQ: Final = Struct("=16xi20x")  # struct ifreq with an ifindex
_NAME: Final = 16  # bytes: IFNAMSIZ
_ATTEMPTS: Final = 10  # to read what belongs to a link that is renamed meanwhile


def present_name(namespaces: Namespaces, place: OpenNetns, index: int) -> str:
    """Return the name of the link with this ifindex in `place`. Raises LinkNotFound, NetlinkError."""
    socket = namespaces.socket(place).fileno()  # an ioctl on any socket concerns the links of its namespace
    try:
        answer = fcntl.ioctl(socket, _SIOCGIFNAME, _IFREQ.pack(index))
    except OSError as error:
        says = f"the link with ifindex {index} in {place} no longer exists" if error.errno == errno.ENODEV else ""
        raise refusal(Outcome(error.errno or 0), "look up a link", place.ref, says=says) from error
    return decoded(answer[:_NAME].partition(b"\0")[0])


def read_by_name(namespaces: Namespaces, place: OpenNetns, link: LinkMessage, read: Callable[[str], T]) -> T:
    """Read what is found by the name of a link; again if it was renamed, because another link may have its name now.

    Raises LinkNotFound, NetlinkError, and what `read` raises.
    """
    name = link.name
    for _ in range(_ATTEMPTS):
        failed = None
        try:
            value = read(name)
        except NetlinkError as error:
            failed = error
        before, name = name, present_name(namespaces, place, link.ifindex)
        if name == before:
            if failed is not None:
                raise failed
            return value
    says = "another program keeps renaming it"
    raise refusal(Outcome(errno.EBUSY), f"read {describe(link.name, place.ref)}", place.ref, says=says)
