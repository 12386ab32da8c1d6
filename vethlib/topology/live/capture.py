"""Capture the packets of each wire of a topology, to files for tcpdump and Wireshark.

How it works:

1. A packet socket in the node of one end receives both directions of a wire: the packets that the node receives, and
   those that it sends (dev_queue_xmit_nit, net/core/dev.c). It is created in the node, but read by one thread in the
   home namespace.
2. The kernel reports the time of a packet (SO_TIMESTAMPNS). It removes the 802.1Q tag from the packet and reports it
   separately (PACKET_AUXDATA); the tag is put back.
3. Between two nodes of one host, packets are as long as the sender made them, because segmentation and checksums are
   left to a network card, which a veth does not have. So files contain segments longer than the MTU, and incomplete
   checksums.
4. Closing a packet socket waits until no processor uses it (synchronize_net in packet_release, 13 ms), so sockets are
   closed in parallel, by up to 32 threads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Final

from vethlib import _trusted, ns
from vethlib._files import write_all
from vethlib._nl.const import SO_RCVBUFFORCE, SO_TIMESTAMPNS
from vethlib._primitives import Lock, do_in_threads, posix, select, socket
from vethlib._threads import start_kernel_thread
from vethlib.errors import errno_text
from vethlib.ns.descriptor import owned
from vethlib.session.core.refusal import system_errors
from vethlib.session.core.undo import undo_all
from vethlib.topology.descriptors import make_room
from vethlib.topology.design.description import Wire

from .node import Node
from .topology import Topology

__all__ = ["Capture", "file_names"]

# Linux only, and partly missing in the socket module; defined here so that this module can be imported anywhere.
_AF_PACKET: Final = 17
_ETH_P_ALL: Final = 3  # include/uapi/linux/if_ether.h
_SOL_PACKET: Final = 263  # include/linux/socket.h
_PACKET_STATISTICS: Final = 6  # include/uapi/linux/if_packet.h
_PACKET_AUXDATA: Final = 8
_MSG_TRUNC: Final = 0x20

_AUXDATA: Final = Struct("=IIIHHHH")  # struct tpacket_auxdata
_VLAN_VALID: Final = 0x10  # TP_STATUS_VLAN_VALID
_TIMESPEC: Final = Struct("@ll")
_STATISTICS: Final = Struct("=II")  # struct tpacket_stats: packets, drops
_TAG: Final = Struct(">HH")
_TAG_AT: Final = 12  # after both MAC addresses

# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html: the magic of nanoseconds, 2.4, snap length, Ethernet
_SNAPLEN: Final = 262144
_FILE_HEADER: Final = Struct("=IHHiIII").pack(0xA1B23C4D, 2, 4, 0, 0, _SNAPLEN, 1)
_RECORD: Final = Struct("=IIII")  # seconds, nanoseconds, bytes that follow, bytes of the packet

_BUFFER: Final = 32 << 20  # of a socket, as a limit: 500 of the largest packets
_LEAST_COST: Final = 512  # bytes of a receive buffer that the shortest packet takes (skb->truesize)
_TURN: Final = 256  # packets that are read from one wire before it is the turn of the others
_CONTROL: Final = 128  # room for both control messages
_CLOSERS: Final = 32  # threads that close sockets


def file_names(wires: Iterable[Wire]) -> list[str]:
    """Return the file names for wires: a-eth0--b-eth0.pcap. Names can contain hyphens, so some need a number."""
    counts: Counter[str] = Counter()
    names = []
    for wire in wires:
        name = f"{wire.a.node}-{wire.a.link}--{wire.b.node}-{wire.b.link}"
        counts[name] += 1
        names.append(f"{name}.pcap" if counts[name] == 1 else f"{name}--{counts[name]}.pcap")
    return names


def _opened(path: Path) -> FileIO:
    """Open a file for writing, without following a symbolic link, which another user may have put there.

    It has no buffer, because a forked child would write the buffer once more when it closes its copy.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    place = _trusted.locate(str(path))
    with place.directory:
        # Opened and owned in one C call, so that no interruption can lose the descriptor.
        call = partial(posix.open, dir_fd=place.directory.fileno())
        return next(map(FileIO, map(call, (place.name,), (flags,), (0o666,)), ("wb",)))


class _Tap:
    """The capture of one wire, and its file."""

    def __init__(self, wire: Wire, node: Node, path: Path) -> None:
        self.path = path
        self.capacity = 0  # more packets than can be queued at one time
        self.drops = 0
        self.error = ""  # the reason why nothing more is written to the file
        with system_errors(f"capture at {wire.a.link}", node.name):
            self.socket = ns.call_in(node.netns.fd, lambda: socket.socket(_AF_PACKET, socket.SOCK_RAW, 0))
            try:
                self._prepare(wire.a.link)
                self.file = _opened(path)
            except BaseException:
                self.socket.close()
                raise
        try:
            write_all(self.file.fileno(), _FILE_HEADER)
        except BaseException:
            self.close()
            raise

    def _prepare(self, link: str) -> None:
        option = self.socket.setsockopt
        option(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        option(_SOL_PACKET, _PACKET_AUXDATA, 1)
        try:
            option(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # limited to net.core.rmem_max in a user namespace
        self.capacity = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // _LEAST_COST
        # Created for no protocol, and bound last, so that it receives packets of this link only.
        self.socket.bind((link, _ETH_P_ALL))
        self.socket.setblocking(False)

    def read(self, most: int) -> None:
        """Write up to `most` packets to the file. If the file cannot be written, it ends there; the test continues."""
        for _ in range(0, most, _TURN):
            records = list(islice(self._records(), min(most, _TURN)))
            if not records:
                return
            if not self.error:
                self._attempt(partial(write_all, self.file.fileno(), b"".join(records)))

    def _records(self) -> Iterator[bytes]:
        while True:
            try:
                frame, control, _flags, _address = self.socket.recvmsg(_SNAPLEN, _CONTROL, _MSG_TRUNC)
            except OSError:
                return  # no more packets; or ENETDOWN, reported once when the link is set down
            yield _record(frame, control)

    def count_drops(self) -> None:
        """Add the packets dropped for lack of room since the last call; reading resets the kernel's counter."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self.drops += _STATISTICS.unpack(statistics)[1]

    def missing(self) -> str:
        """Describe what is missing in the file, as far as that is known."""
        if self.error:
            return f"ends early: {self.error}"
        if self.drops:
            return f"{self.drops} packets are missing, because the receive buffer was full (net.core.rmem_max)"
        return ""

    def close(self) -> None:
        """Close the socket, which takes a while (4), and the file."""
        self.socket.close()
        self._attempt(self.file.close)

    def _attempt(self, function: Callable[[], object]) -> None:
        try:
            function()
        except OSError as error:
            self.error = self.error or errno_text(error.errno or 0)


def _record(frame: bytes, control: Iterable[tuple[int, int, bytes]]) -> bytes:
    seconds = nanoseconds = 0
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
        elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _length, _snaplen, _mac, _net, tci, tpid = _AUXDATA.unpack_from(data)
            if status & _VLAN_VALID:
                frame = frame[:_TAG_AT] + _TAG.pack(tpid or 0x8100, tci) + frame[_TAG_AT:]
    return _RECORD.pack(seconds, nanoseconds, len(frame), len(frame)) + frame


class Capture:
    """Capture the packets of each wire of a topology, from now until :meth:`stop`.

        with Topology.build("a -- b") as net, Capture(net, Path("captures")) as capture:
            ...
        capture.files    # captures/a-eth0--b-eth0.pcap

    `directory` is created if it is missing; existing files are overwritten. Files can be read at any time. A
    thread of the caller's namespace reads all sockets. A forked child that stops it, or leaves its ``with`` block,
    closes only its own copies. Raises NotPermitted (CAP_NET_RAW), NetlinkError, OSError, and ThreadRefused, a
    VethError, if no thread can be started.
    """

    def __init__(self, net: Topology, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        make_room(2 * len(net.layout.wires))  # a socket and a file each
        self._maker = os.getpid()
        self._taps: list[_Tap] = []
        self._lock = Lock()  # protects the next two attributes, and the counting of drops
        self._has_begun = False  # whether the thread is running, or has run
        self._stopped = False
        self._ended = Lock()  # released when the thread has closed everything
        self._ended.acquire()
        self._epoll = select.epoll()
        self._wake = owned(os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            for wire, name in zip(net.layout.wires, file_names(net.layout.wires), strict=True):
                tap = _Tap(wire, net[wire.a.node], directory / name)
                self._taps.append(tap)
                self._epoll.register(tap.socket, select.EPOLLIN)
            self._epoll.register(self._wake, select.EPOLLIN)
            start_kernel_thread(self._run, "capture", "a capture")
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except BaseException:
            self.stop()  # __init__ may have been interrupted before its own handler
            raise

    @property
    def files(self) -> list[Path]:
        """The files, in the order of the wires."""
        return [tap.path for tap in self._taps]

    @property
    def missing(self) -> dict[Path, str]:
        """The incomplete files so far, each with a description of the missing part."""
        if self._maker == os.getpid():
            with self._lock:
                if not self._stopped:
                    self._count_drops()
        return {tap.path: text for tap in self._taps if (text := tap.missing())}

    def stop(self) -> None:
        """Write the packets received so far, and close everything. A second call does nothing.

        If it is interrupted, it does so nevertheless, and then raises the interruption.
        """
        try:
            self._stop()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        if self._maker == os.getpid():
            undo_all((step, _raise) for step in (self._end, self._wait))
        else:
            undo_all([(self._close, _raise)])

    def _end(self) -> None:
        with self._lock:
            if not self._stopped:
                os.eventfd_write(self._wake.fileno(), 1)

    def _wait(self) -> None:
        # The thread is not joined: once a join was interrupted, Python may consider the thread ended (bpo-45274).
        with self._ended:
            pass

    def _abandon(self) -> None:
        """Close everything, or have the thread do it if it runs, which is unclear if its start was interrupted."""
        with self._lock:
            if self._has_begun:
                os.eventfd_write(self._wake.fileno(), 1)
                return
            self._stopped = True
        undo_all([(self._close, _raise)])

    def _count_drops(self) -> None:
        for tap in self._taps:
            tap.count_drops()

    def _close(self) -> None:
        self._epoll.close()
        self._wake.close()
        if len(self._taps) == 1:
            self._taps[0].close()
        else:
            do_in_threads(_Tap.close, self._taps, _CLOSERS, "closing captures")

    # --- the thread, which also ends the capture, because signal handlers interrupt the main thread only

    def _run(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self._has_begun = True
        try:
            self._read_until_the_end()
        finally:
            with self._lock:
                self._stopped = True
                self._count_drops()
            try:
                self._close()
            finally:
                self._ended.release()

    def _read_until_the_end(self) -> None:
        of_descriptor = {tap.socket.fileno(): tap for tap in self._taps}
        wake = self._wake.fileno()
        while True:
            for fd, _events in self._epoll.poll():
                if fd == wake:
                    for tap in self._taps:
                        tap.read(tap.capacity)  # a limit, so that a constant sender does not delay this
                    return
                of_descriptor[fd].read(_TURN)


def _raise(error: BaseException) -> None:
    raise error
