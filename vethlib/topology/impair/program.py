"""The relay: a process that passes packets between the two halves of wires, and does in user space what netem does.

It is a separate program that imports nothing of vethlib, so that it starts in 20 ms (relay.py starts it).

1. A wire has two halves, each a veth pair from a node to a namespace in which the relay has a packet socket on the
   other end. A packet received at one half leaves at the other when its time has come.
2. Packets arrive with the header of virtio (PACKET_VNET_HDR), in which the kernel describes segments that have not been
   split yet and checksums that are incomplete, and leave with it, so nothing is computed here. The kernel has removed
   the 802.1Q tag and reports it separately (PACKET_AUXDATA); the tag is put back.
3. The time of a packet is determined as in netem_enqueue (net/sched/sch_netem.c), so that both give the same results.
4. Setting an end down takes the carrier only from its own half. So the relay also sets the opposite end down, and later
   up again, and both nodes see the same as with a single pair. If one half is deleted, so is the other.
5. It ends when its owner has closed the control socket or has ended; or, for nodes that are kept, with the last wire.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any

__all__ = ["Direction", "run"]

_SECOND = 1_000_000_000
_LARGEST = 8 * 65535 + 1024  # bytes of a packet: GSO_MAX_SIZE (include/linux/netdevice.h), and the headers
_TURN = 64  # packets that are read from one socket before it is the turn of the others
_TURNS_BEFORE = 32  # turns of packets to read before carrying out a command: as many small packets as a socket can hold
_HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_NEEDS_CHECKSUM = 1
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_SOL_PACKET, _PACKET_AUXDATA, _VLAN_VALID = 263, 8, 0x10
_TAG_AT = _HEADER.size + 12  # after both MAC addresses

_NLMSGHDR, _IFINFOMSG = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
_NLMSGERR = struct.Struct("=16xi16x4xi8x")  # the error, and the ifindex in the request that it concerns
_NLMSG_ERROR, _RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 2, 16, 17, 18, 19
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFF_UP, _IFF_LOWER_UP = 1, 1 << 16

_CLOCK_MONOTONIC, _TIMER_ABSOLUTE = 1, 1  # TFD_TIMER_ABSTIME
_TIMER_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC: include/linux/timerfd.h
_ITIMERSPEC = struct.Struct("@llll")
_PR_SET_TIMERSLACK = 29


class Direction:
    """One direction of a wire: decides when each packet leaves. Times are in nanoseconds."""

    def __init__(self, chance: Any = random.random) -> None:
        self.waiting = 0
        self._chance = chance
        self._last = 0
        self.change({})

    def change(self, values: dict[str, float]) -> None:
        """Set the impairment, in seconds, probabilities and bits per second. It applies to later packets."""
        self.delay = round(values.get("delay", 0) * _SECOND)
        self.jitter = round(values.get("jitter", 0) * _SECOND)
        self.loss = values.get("loss", 0.0)
        self.duplicate = values.get("duplicate", 0.0)
        self.reorder = values.get("reorder", 0.0)
        self.rate = values.get("rate", 0)
        self.limit = values.get("limit", 1000)

    @property
    def delays(self) -> bool:
        """Whether packets have to wait."""
        return bool(self.delay or self.rate)

    def admit(self, now: int, size: int) -> list[int]:
        """Return the times at which a packet of `size` bytes leaves: none if it is lost, two if it is duplicated."""
        count = 1
        if self.duplicate and self._chance() < self.duplicate:
            count += 1
        if self.loss and self._chance() < self.loss:
            count -= 1
        times: list[int] = []
        for _ in range(count):
            if self.waiting + len(times) < self.limit:
                times.append(self._time(now, size, is_first=not self.waiting and not times))
        self.waiting += len(times)
        return times

    def _time(self, now: int, size: int, *, is_first: bool) -> int:
        if self.reorder and self._chance() < self.reorder:
            return now
        delay = self.delay
        if self.jitter:
            delay = max(0, delay + round((2 * self._chance() - 1) * self.jitter))
        start = now
        if self.rate:
            if not is_first:
                # The link is busy until the last packet has left, and that time counts as part of the delay.
                start = max(now, self._last)
                delay = max(0, delay - (start - now))
            delay += round(size * 8 * _SECOND / self.rate)
        leaves = start + delay
        self._last = leaves if is_first else max(self._last, leaves)
        return leaves


class Half:
    """One half of a wire: its packet socket, and the link in the relay's namespace."""

    def __init__(self, fd: int, index: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.index = index
        self.is_up = True
        self.direction = Direction()  # of packets that leave through this half
        self.values: dict[str, float] = {}  # those of the last change
        self.opposite = self

    def send(self, packet: bytes) -> None:
        """Send a packet; one that the kernel does not accept is lost."""
        try:
            self.socket.send(packet)
        except OSError:
            pass


def _with_tag(packet: bytes, control: list[tuple[int, int, bytes]]) -> bytes:
    """Return a packet with the 802.1Q tag that the kernel has reported beside it (2)."""
    for level, kind, value in control:
        if (level, kind) != (_SOL_PACKET, _PACKET_AUXDATA) or len(value) < _AUXDATA.size:
            continue
        status, _len, _snaplen, _mac, _net, tci, tpid = _AUXDATA.unpack_from(value)
        if status & _VLAN_VALID:
            flags, gso, header, segment, start, offset = _HEADER.unpack_from(packet)
            if flags & _NEEDS_CHECKSUM:
                start += 4
            if gso:
                header += 4
            tag = struct.pack("!HH", tpid, tci)
            changed = _HEADER.pack(flags, gso, header, segment, start, offset)
            return changed + packet[_HEADER.size : _TAG_AT] + tag + packet[_TAG_AT:]
    return packet


class Timer:
    """A timer with the resolution of the kernel's clock, which epoll itself does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TIMER_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), f"timerfd_create: {os.strerror(ctypes.get_errno())}")
        self._set_for = 0
        self._libc.prctl(_PR_SET_TIMERSLACK, 1)

    def set(self, at: int) -> None:
        """Become readable at a time, 0 for never."""
        if at != self._set_for:
            self._set_for = at
            self._libc.timerfd_settime(self.fd, _TIMER_ABSOLUTE, _ITIMERSPEC.pack(0, 0, *divmod(at, _SECOND)), None)


class Relay:
    """All wires of a topology."""

    def __init__(self, control: socket.socket, owner: int, links: socket.socket, halves: list[Half]) -> None:
        self._control = control
        self._owner = owner
        self._links = links
        self._halves = halves
        self._by_fd = {half.socket.fileno(): half for half in halves}
        self._by_index = {half.index: half for half in halves}
        for a, b in zip(halves[::2], halves[1::2], strict=True):
            a.opposite, b.opposite = b, a
        self._queue: list[tuple[int, int, Half, bytes]] = []
        self._number = 0
        self._buffer = memoryview(bytearray(_LARGEST))
        self._timer = Timer()
        self._is_kept = False
        self._is_over = False

    def run(self) -> None:
        """Relay until the owner ends it."""
        poll = select.epoll()
        for fd in (self._control.fileno(), self._owner, self._links.fileno(), self._timer.fd, *self._by_fd):
            poll.register(fd, select.EPOLLIN)
        self._poll = poll
        while not self._is_over:
            self._timer.set(self._queue[0][0] if self._queue else 0)
            for fd, _event in poll.poll():
                if half := self._by_fd.get(fd):
                    self._receive(half)
                elif fd == self._control.fileno():
                    self._obey()
                elif fd == self._links.fileno():
                    self._follow()
                elif fd == self._owner:
                    self._lose_owner()
            self._send(time.monotonic_ns())

    def _receive(self, half: Half) -> bool:
        """Receive packets, a turn at most; return whether there may be more."""
        through, buffer = half.opposite, self._buffer
        for _ in range(_TURN):
            try:
                size, control, flags, _address = half.socket.recvmsg_into([buffer], 64)
            except BlockingIOError:
                return False
            except OSError:
                return False  # the link is down, which is reported once
            if flags & socket.MSG_TRUNC:
                continue
            packet = bytes(buffer[:size])
            if control:
                packet = _with_tag(packet, control)
            now = time.monotonic_ns()
            for at in through.direction.admit(now, len(packet) - _HEADER.size):
                self._number += 1
                heappush(self._queue, (at, self._number, through, packet))
            self._send(now)
        return True

    def _send(self, now: int) -> None:
        queue = self._queue
        while queue and queue[0][0] <= now:
            _at, _number, half, packet = heappop(queue)
            half.direction.waiting -= 1
            half.send(packet)

    def _hurry(self, through: Half) -> None:
        """Let waiting packets leave now, because later ones would have to wait for them, or would find no room."""
        now = time.monotonic_ns()
        self._queue = [
            (min(at, now) if half is through else at, number, half, packet) for at, number, half, packet in self._queue
        ]
        heapify(self._queue)

    def _obey(self) -> None:
        """Read a command, and answer with its number when it is done."""
        try:
            text = self._control.recv(4096)
        except OSError:
            text = b""
        if not text:
            self._lose_owner()
            return
        command = json.loads(text)
        answer = {"number": command.pop("number")}
        if command.pop("keep", False):
            self._is_kept = True
            # Readers of the owner's output wait for its end.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 2)
            os.close(null)
        elif command.pop("look", False):
            self._look()
        elif self._is_gone(half := self._halves[command.pop("half")]):
            answer["gone"] = True
        elif command.pop("tell", False):
            answer["values"] = half.values
        else:
            # Packets sent before the command get the times that they would have had without it. The number of turns is
            # limited so that a flood does not delay the command.
            for _ in range(_TURNS_BEFORE):
                if not self._receive(half.opposite):
                    break
            half.direction.change(command)
            half.values = command
            if not half.direction.delays:
                self._hurry(half)
        try:
            self._control.send(json.dumps(answer).encode())
        except OSError:
            self._lose_owner()  # it has hung up meanwhile

    def _is_gone(self, half: Half) -> bool:
        return half.index not in self._by_index or half.opposite.index not in self._by_index

    def _lose_owner(self) -> None:
        if not self._is_kept:
            self._is_over = True
            return
        for fd in (self._control.fileno(), self._owner):
            try:
                self._poll.unregister(fd)
            except OSError:
                pass  # it was unregistered when the other half ended

    def _follow(self) -> None:
        """Repeat what happens to one half on the other (4)."""
        to_ask: list[int] = []
        while True:
            try:
                datagram, (port, _) = self._links.recvfrom(1 << 16)
            except BlockingIOError:
                if not to_ask:
                    return
                self._request(_RTM_GETLINK, to_ask.pop())  # one at a time, so that the answers fit the buffer
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                to_ask = list(self._by_index)  # events were lost, perhaps because many links were deleted at once
                continue
            if port:
                continue  # it is not from the kernel
            for kind, index, flags in _links_in(datagram):
                if half := self._by_index.get(index):
                    self._mirror(half, kind, flags)

    def _mirror(self, half: Half, kind: int, flags: int) -> None:
        if kind == _RTM_DELLINK:
            del self._by_index[half.index]
            self._request(_RTM_DELLINK, half.opposite.index)
            self._is_over = self._is_over or not self._by_index
        elif kind == _RTM_NEWLINK and flags & _IFF_UP and half.is_up:
            has_carrier = bool(flags & _IFF_LOWER_UP)
            if has_carrier != half.opposite.is_up:
                half.opposite.is_up = has_carrier
                self._request(_RTM_SETLINK, half.opposite.index, _IFF_UP if has_carrier else 0, change=_IFF_UP)

    def _look(self) -> None:
        """Look at all links now: the kernel reports a change of the carrier up to a second later."""
        for _ in range(2):  # an end that the first look has set up may have no carrier yet
            self._request(_RTM_GETLINK, 0, more=_NLM_F_DUMP)
            self._follow()

    def _request(self, kind: int, index: int, flags: int = 0, *, change: int = 0, more: int = 0) -> None:
        body = _IFINFOMSG.pack(0, 0, index, flags, change)
        try:
            self._links.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, _NLM_F_REQUEST | more, 0, 0) + body)
        except OSError:
            pass  # the link was deleted with its namespace


def _links_in(datagram: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the type, ifindex and flags of each message about a link; RTM_DELLINK if a request has found no link."""
    start = 0
    while start + _NLMSGHDR.size + _IFINFOMSG.size <= len(datagram):
        length, kind, *_ = _NLMSGHDR.unpack_from(datagram, start)
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(datagram, start + _NLMSGHDR.size)
            yield kind, index, flags
        elif kind == _NLMSG_ERROR and start + _NLMSGERR.size <= len(datagram):
            error, index = _NLMSGERR.unpack_from(datagram, start)
            if error == -errno.ENODEV:
                yield _RTM_DELLINK, index, 0
        start += max(_NLMSGHDR.size, (length + 3) & ~3)


def run(arguments: list[str]) -> None:
    """Run as ``program.py CONTROL OWNER LINKS FD:IFINDEX…``, with two halves for each wire."""
    control, owner, links, *halves = arguments
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except OSError:
        pass  # an ordinary user: on a busy machine, packets leave later
    made = [Half(*map(int, half.split(":"))) for half in halves]
    events = socket.socket(fileno=int(links))
    events.setblocking(False)
    Relay(socket.socket(fileno=int(control)), int(owner), events, made).run()


if __name__ == "__main__":
    run(sys.argv[1:])
