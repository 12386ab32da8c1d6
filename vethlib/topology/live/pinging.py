"""Ping from a node, with an ICMP socket that needs no privilege (net/ipv4/ping.c); and permit such sockets."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from vethlib._primitives import select, socket, time
from vethlib.errors import InvalidValue, NotPermitted, is_exhaustion
from vethlib.ns import Netns
from vethlib.ns.deadline import LONGEST, check_timeout

__all__ = ["Pings", "allow_ping", "ping"]

_RANGE: Final = "/proc/sys/net/ipv4/ping_group_range"
_EVERYBODY: Final = 2_147_483_647  # as distributions set it (sysctl.d/50-default.conf of systemd)
_ECHO: Final = Struct("!BBHHH")  # type, code, checksum, identifier, sequence; the kernel fills in the third and fourth
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_MOST: Final = 65535
_REFUSED: Final = (
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ENOBUFS, errno.EADDRNOTAVAIL),
    errno.EPERM,  # a packet filter
    errno.EACCES,  # a route of type "prohibit", or a broadcast address
    errno.EINVAL,  # a route of type "blackhole"
    *(errno.ECONNREFUSED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),  # ICMP errors (icmp_err_convert)
)
"""Errors with which the network refuses a request, which counts as unanswered."""


@dataclass(frozen=True, slots=True)
class Pings:
    """The results of echo requests: `times` has the seconds to each reply, in the order of the requests.

    None means no reply. The object is true if there was at least one reply.
    """

    times: tuple[float | None, ...]

    @property
    def sent(self) -> int:
        """The number of requests."""
        return len(self.times)

    @property
    def received(self) -> int:
        """The number of requests that were answered."""
        return sum(seconds is not None for seconds in self.times)

    @property
    def loss(self) -> float:
        """The share of requests that were not answered, from 0 to 1."""
        return 1 - self.received / self.sent

    @property
    def best(self) -> float:
        """The shortest time to a reply, in seconds. Raises LookupError if there was no reply."""
        times = [seconds for seconds in self.times if seconds is not None]
        if not times:
            raise LookupError(f"none of {self.sent} pings was answered")
        return min(times)

    def __bool__(self) -> bool:
        return self.received > 0


def allow_ping() -> None:
    """Let every group of the calling thread's network namespace open ICMP sockets, if this process may change that.

    Raises OSError if this fails for the moment, for lack of a descriptor or of memory.
    """
    try:
        try:
            _write(_EVERYBODY)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _write(_last_group())  # in a user namespace, groups that are not mapped cannot be named
    except OSError as error:
        if is_exhaustion(error):
            raise


def _write(last: int) -> None:
    with open(_RANGE, "w", encoding="utf-8") as file:
        file.write(f"0 {last}")


def _last_group() -> int:
    """Return the last group of the contiguous range from 0 that this user namespace has."""
    with open("/proc/thread-self/gid_map", encoding="utf-8") as lines:
        starts = {int(first): int(count) for first, _, count in (line.split() for line in lines)}
    last = -1
    while (count := starts.get(last + 1, 0)) > 0:
        last += count
    return last


def ping(netns: Netns, version: int, address: tuple[Any, ...], *, count: int, timeout: float, interval: float) -> Pings:
    """Send echo requests from a namespace, and wait for the replies up to `timeout` seconds after the last request.

    `address` is as for a socket of this IP version, with the ifindex of the link if it needs one.

    Raises InvalidValue, NotPermitted, OSError.
    """
    if type(count) is not int or not 1 <= count <= _MOST:
        raise InvalidValue("count", count, f"must be a number of requests from 1 to {_MOST}")
    patience, pause = check_timeout(timeout), check_timeout(interval, "interval")
    try:
        opened = netns.socket(_FAMILY[version], socket.SOCK_DGRAM, _PROTOCOL[version])
    except PermissionError as error:
        message = f"an ICMP socket needs a group within net.ipv4.ping_group_range, or write access to {_RANGE}"
        raise NotPermitted(message, errno=error.errno or 0) from None
    with opened:
        opened.setblocking(False)
        return _Pinging(opened, version, address, count).run(math.inf if patience is None else patience, pause or 0.0)


class _Pinging:
    """Echo requests in progress. The sequence number of each is its position."""

    def __init__(self, opened: socket.socket, version: int, address: tuple[Any, ...], count: int) -> None:
        self._socket = opened
        self._to = address
        self._version = version
        self._begun: list[float] = []
        self._times: list[float | None] = [None] * count

    def run(self, timeout: float, interval: float) -> Pings:
        waiting = select.poll()
        waiting.register(self._socket.fileno(), select.POLLIN)
        deadline = next_one = time.monotonic()
        while True:
            now = time.monotonic()
            if len(self._begun) < len(self._times) and now >= next_one:
                self._send()
                next_one, deadline = now + interval, now + timeout
            self._receive()
            is_sent = len(self._begun) == len(self._times)
            if is_sent and (None not in self._times or time.monotonic() >= deadline):
                return Pings(tuple(self._times))
            wait = (deadline if is_sent else next_one) - time.monotonic()
            waiting.poll(min(max(0.0, wait), LONGEST) * 1000)

    def _send(self) -> None:
        request = _ECHO.pack(_REQUEST[self._version], 0, 0, 0, len(self._begun)) + b"vethlib "
        self._begun.append(time.monotonic())
        try:
            self._socket.sendto(request, self._to)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise

    def _receive(self) -> None:
        while True:
            try:
                reply = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _REFUSED:
                    continue  # an earlier request was refused by a router
                raise
            if len(reply) >= _ECHO.size:
                self._note(*_ECHO.unpack_from(reply))

    def _note(self, kind: int, _code: int, _checksum: int, _identifier: int, number: int) -> None:
        if kind == _REPLY[self._version] and number < len(self._begun) and self._times[number] is None:
            self._times[number] = time.monotonic() - self._begun[number]
