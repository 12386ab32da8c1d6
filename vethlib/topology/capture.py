"""A capture file for each wire of a topology, as tcpdump and Wireshark read it.

How it works:

1. A packet socket in the node of one end hears both directions of a wire: what the node receives, and what it sends
   (dev_queue_xmit_nit, net/core/dev.c). It is made in the node, but read by one thread at home.
2. The kernel says when a packet passed (SO_TIMESTAMPNS), and takes an 802.1Q tag out of it, which it tells beside it
   (PACKET_AUXDATA); it is put back.
3. Between two nodes of one host a packet is as long as the sender made it: segmentation and checksums are left to a
   network card that is not there. So files have segments longer than the MTU, and checksums not filled in.
4. Closing a packet socket waits until no processor uses it (synchronize_net in packet_release, 13 ms), so many are
   closed at once by as many threads.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

from .. import ns
from ..errors import errno_text
from ..session.refusal import system_errors
from .description import Wire
from .node import Node
from .topology import Topology

__all__ = ["Capture", "file_name"]

# Linux only, and partly not in the socket module; named here so that this imports anywhere.
_AF_PACKET: Final = 17
_ETH_P_ALL: Final = 3  # include/uapi/linux/if_ether.h
_SOL_PACKET: Final = 263  # include/linux/socket.h
_PACKET_STATISTICS: Final = 6  # include/uapi/linux/if_packet.h
_PACKET_AUXDATA: Final = 8
_SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h: SO_TIMESTAMPNS_OLD, and SCM_TIMESTAMPNS_OLD
_SO_RCVBUFFORCE: Final = 33
_MSG_TRUNC: Final = 0x20

_AUXDATA: Final = Struct("=IIIHHHH")  # struct tpacket_auxdata
_VLAN_VALID: Final = 0x10  # TP_STATUS_VLAN_VALID
_TIMESPEC: Final = Struct("@ll")
_STATISTICS: Final = Struct("=II")  # struct tpacket_stats: packets, drops
_TAG: Final = Struct(">HH")
_TAG_AT: Final = 12  # behind both MAC addresses

# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html: the magic of nanoseconds, 2.4, snap length, Ethernet
_SNAPLEN: Final = 262144
_FILE_HEADER: Final = Struct("=IHHiIII").pack(0xA1B23C4D, 2, 4, 0, 0, _SNAPLEN, 1)
_RECORD: Final = Struct("=IIII")  # seconds, nanoseconds, bytes that follow, bytes there were

_BUFFER: Final = 32 << 20  # of a socket, as a limit: 500 of the largest packets
_CONTROL: Final = 128  # room for both control messages
_CLOSERS: Final = 32  # threads that close sockets


def file_name(wire: Wire) -> str:
    """What the capture of a wire is called: a-eth0--b-eth0.pcap."""
    return f"{wire.a.node}-{wire.a.link}--{wire.b.node}-{wire.b.link}.pcap"


class _Tap:
    """A wire that is listened to, and its file."""

    def __init__(self, wire: Wire, node: Node, directory: Path) -> None:
        self.path = directory / file_name(wire)
        self.drops = 0
        self.error = ""  # why nothing more is written to the file
        with system_errors(f"capture at {wire.a.link}", node.name):
            self.socket = ns.call_in(node.netns.fd, lambda: socket.socket(_AF_PACKET, socket.SOCK_RAW, 0))
            try:
                self._prepare(wire.a.link)
                self.file: BinaryIO = open(self.path, "wb")  # noqa: SIM115 - it is closed with the capture
            except BaseException:
                self.socket.close()
                raise
        self.file.write(_FILE_HEADER)
        self.file.flush()

    def _prepare(self, link: str) -> None:
        option = self.socket.setsockopt
        option(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        option(_SOL_PACKET, _PACKET_AUXDATA, 1)
        try:
            option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # in a user namespace: net.core.rmem_max at most
        # Bound last, and made for no protocol, so that it hears nothing before, and of this link only.
        self.socket.bind((link, _ETH_P_ALL))
        self.socket.setblocking(False)

    def read(self) -> None:
        """Write what has come to the file. A file that cannot be written ends there, and the test goes on."""
        for record in self._records():
            if not self.error:
                self._attempt(partial(self.file.write, record))
        if not self.error:
            self._attempt(self.file.flush)

    def _records(self) -> Iterator[bytes]:
        while True:
            try:
                frame, control, _flags, _address = self.socket.recvmsg(_SNAPLEN, _CONTROL, _MSG_TRUNC)
            except OSError:
                return  # nothing more; or ENETDOWN, told once when the link goes down, and it may come up again
            yield _record(frame, control)

    def count_drops(self) -> None:
        """Add the packets there was no room for since the kernel was asked last, which begins again from 0."""
        told = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self.drops += _STATISTICS.unpack(told)[1]

    def close(self) -> None:
        """Close the socket, which waits, and the file."""
        self.socket.close()
        self._attempt(self.file.close)

    def _attempt(self, function: Callable[[], object]) -> None:
        try:
            function()
        except OSError as error:
            self.error = self.error or errno_text(error.errno or 0)


def _record(frame: bytes, control: Iterable[tuple[int, int, bytes]]) -> bytes:
    seconds = nanoseconds = 0
    for level, kind, told in control:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(told)
        elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _length, _snaplen, _mac, _net, tci, tpid = _AUXDATA.unpack_from(told)
            if status & _VLAN_VALID:
                frame = frame[:_TAG_AT] + _TAG.pack(tpid or 0x8100, tci) + frame[_TAG_AT:]
    return _RECORD.pack(seconds, nanoseconds, len(frame), len(frame)) + frame


class Capture:
    """Captures what passes each wire of a topology, from when it is made until :meth:`stop`.

        with Topology.build("a -- b") as net, Capture(net, Path("captures")) as capture:
            ...
        capture.files    # captures/a-eth0--b-eth0.pcap

    `directory` is made where it is missing; files of the same names are overwritten. They can be read at any time. A
    thread of the caller's namespace reads all sockets. Raises NotPermitted (CAP_NET_RAW), NetlinkError, OSError.
    """

    def __init__(self, net: Topology, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._taps: list[_Tap] = []
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        try:
            for wire in net.layout.wires:
                tap = _Tap(wire, net[wire.a.node], directory)
                self._taps.append(tap)
                self._epoll.register(tap.socket, select.EPOLLIN)
        except BaseException:
            self._close()
            raise
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def files(self) -> list[Path]:
        """The files, in the order of the wires."""
        return [tap.path for tap in self._taps]

    @property
    def missing(self) -> dict[Path, str]:
        """What is missing from a file, for those that lack anything; so far, if it is not stopped yet."""
        return {tap.path: text for tap in self._taps if (text := self._missing(tap))}

    def _missing(self, tap: _Tap) -> str:
        if tap.error:
            return f"ends early: {tap.error}"
        if not self._stopped:
            tap.count_drops()
        return f"{tap.drops} packets are missing, there was no room for them (net.core.rmem_max)" if tap.drops else ""

    def stop(self) -> None:
        """Write what has come until now, and close everything. Twice is harmless."""
        if self._stopped:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for tap in self._taps:
            tap.read()
            tap.count_drops()
        self._stopped = True
        self._close()

    def _run(self) -> None:
        of_descriptor = {tap.socket.fileno(): tap for tap in self._taps}
        while True:
            for fd, _events in self._epoll.poll():
                if fd == self._wake:
                    return
                of_descriptor[fd].read()

    def _close(self) -> None:
        self._epoll.close()
        os.close(self._wake)
        if len(self._taps) == 1:
            self._taps[0].close()
        elif self._taps:
            with ThreadPoolExecutor(min(_CLOSERS, len(self._taps)), "closing captures") as pool:
                list(pool.map(_Tap.close, self._taps))
