"""A socket that receives events of its own namespace, or also of every namespace that has an id there.

With NETLINK_LISTEN_ALL_NSID (Linux 4.2), a socket receives the multicasts of every other namespace that has an id in
its own; each datagram is accompanied by that id as a control message (do_one_broadcast and netlink_cmsg_listen_all_nsid
in net/netlink/af_netlink.c). An event is queued within the system call that causes it, so once the queue is read empty,
everything that has happened so far is known.

Everyone who causes such an event, anywhere, pays for that option: for each such socket, the kernel searches for the id
of the namespace of the event among all ids of the socket's namespace (see nsid.py), twice if it finds one.

An event that does not fit the receive buffer is lost; recv() then fails with ENOBUFS, once, before it returns events
queued earlier. From then on, the kernel queues nothing until the queue has been read empty (NETLINK_S_CONGESTED), and
does not report that. So after ENOBUFS, the queue has to be read empty before the state is read again.

Events are not measured before they are received (1 µs), because the buffer holds a link with all its alternative names.
A longer event (a macvlan in source mode has no limit) is cut; then the buffer grows, and the namespace of the event is
reported. Reading into a large buffer costs more (16 µs instead of 1.6 from 512 KiB on, because malloc() maps pages for
it), so the buffer shrinks again when events are short.

The kernel sends each event in a datagram of its own. A process with CAP_NET_ADMIN in a namespace, such as a tenant's,
can send datagrams to the multicast groups there, too, with thousands of forged events in each. The kernel's are
recognised by the port of the sender, which is 0. Forged ones are not read, but they take up the receive buffer like any
others, so such a datagram counts as the number of events that would take up as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from vethlib._primitives import socket

from .const import IFLA_WIRELESS, NETLINK_ADD_MEMBERSHIP, NETLINK_LISTEN_ALL_NSID, SO_RCVBUFFORCE, SOL_NETLINK
from .opening import open_socket
from .wire import READ_SIZE, attributes_of

# Linux only; named here so that the module imports anywhere.
_MSG_DONTWAIT: Final = 0x40
_MSG_TRUNC: Final = 0x20

_MOST: Final = 16 << 20  # bytes; the kernel has no message that long (KMALLOC_MAX_SIZE)

_SHORT: Final = 256
"""Events in a row that must fit into half of a grown buffer before it is halved."""

_LEAST_COST: Final = 512  # of a receive buffer, for the shortest event (skb->truesize)

_I32: Final = Struct("=i")
_CONTROL_SIZE: Final = 24  # CMSG_SPACE(sizeof(int)), rounded up

OWN: Final = -1
"""The namespace that the socket itself is in, which has no id there."""

_IFINFOMSG_SIZE: Final = 16


def is_wireless_event(body: bytes) -> bool:
    """Return whether an RTM_NEWLINK is not the state of a link, but an event of the wireless extensions.

    Each scan causes one. It has only the name of the link and IFLA_WIRELESS (rtnetlink_ifinfo_prep,
    net/wireless/wext-core.c).
    """
    return any(attr == IFLA_WIRELESS for attr, _, _ in attributes_of(body, _IFINFOMSG_SIZE))


class EventSocket:
    """Receives events of groups (RTNLGRP_*) in its own namespace; with `everywhere`, also in all that have an id there.

    It never waits. `receive_buffer` is in bytes as the kernel counts them, about 2 300 per event. `own` is the id to
    report for its own namespace. Raises OSError if no socket can be opened; PermissionError for `everywhere` without
    CAP_NET_BROADCAST.
    """

    __slots__ = ("_own", "_short", "_size", "_socket", "capacity")

    def __init__(
        self, groups: Iterable[int], receive_buffer: int, *, everywhere: bool = False, own: int | None = None
    ) -> None:
        self._own = OWN if own is None else own
        self._socket = open_socket()
        try:
            self._configure(groups, receive_buffer, everywhere)
        except BaseException:
            self._socket.close()
            raise
        self._size = READ_SIZE
        self._short = 0  # events in a row that would fit into half of that
        self.capacity = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // _LEAST_COST
        """An upper bound of the number of events that can be queued at one time."""

    def _configure(self, groups: Iterable[int], receive_buffer: int, everywhere: bool) -> None:
        option = self._socket.setsockopt
        if everywhere:
            option(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
        # The kernel doubles this value (sk_setsockopt).
        try:
            option(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer // 2)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer // 2)  # capped at net.core.rmem_max
        for group in groups:
            option(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the file descriptor, for a poller."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; twice is harmless."""
        self._socket.close()

    def receive(self) -> tuple[int, bytes | None, int] | None:
        """Return (id of the namespace, datagram, number of events) of the next event, or None if none is queued.

        The id of the socket's own namespace is `own` (:data:`OWN` by default). The datagram is None if an event of the
        namespace was longer than the buffer and is lost, and b"" if it was not sent by the kernel; only then can the
        number be other than 1. Raises OSError(ENOBUFS) if events of unknown namespaces were lost.
        """
        try:
            datagram, control, flags, (port, _) = self._socket.recvmsg(self._size, _CONTROL_SIZE, _MSG_DONTWAIT)
        except BlockingIOError:
            return None
        # This socket option is the only one that adds a control message.
        nsid = _I32.unpack(control[0][2])[0] if control else self._own
        if port:
            return nsid, b"", max(1, len(datagram) // _LEAST_COST)
        if flags & _MSG_TRUNC:
            self._size, self._short = min(2 * self._size, _MOST), 0
            return nsid, None, 1
        if self._size > READ_SIZE:
            self._shrink(len(datagram))
        return nsid, datagram, 1

    def _shrink(self, length: int) -> None:
        """Halve a grown buffer if no event has needed it for a while; `length` is that of the latest event."""
        self._short = self._short + 1 if length <= self._size // 2 else 0
        if self._short >= _SHORT:
            self._size, self._short = max(READ_SIZE, self._size // 2), 0
