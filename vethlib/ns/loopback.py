"""Set the loopback of a new namespace up, without which it cannot reach its own addresses."""

from __future__ import annotations

import struct
from fcntl import ioctl
from typing import Final

from vethlib._primitives import socket
from vethlib.errors import not_permitted

__all__ = ["set_loopback_up"]

_SIOCSIFFLAGS: Final = 0x8914  # include/uapi/linux/sockios.h
_LO_UP: Final = struct.pack("16sh14x", b"lo", 0x1)  # struct ifreq with IFF_UP


def set_loopback_up() -> None:
    """Set lo up in the namespace of the calling thread. Raises NotPermitted without CAP_NET_ADMIN, OSError."""
    # Any socket will do: dev_ioctl() handles what a family does not (sock_do_ioctl, net/socket.c). Netlink is available
    # even to a service that may not open other sockets.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as any_socket:
        try:
            ioctl(any_socket, _SIOCSIFFLAGS, _LO_UP)
        except PermissionError as error:
            message = "setting up the loopback of a namespace needs CAP_NET_ADMIN"
            raise not_permitted(message, "CAP_NET_ADMIN", errno=error.errno or 0) from None
