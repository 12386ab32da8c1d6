"""Sending datagrams from one end of a pair to the other and back, and comparing them byte by byte."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vethlib import ns
from vethlib.cli.render.linktext import ref_text
from vethlib.links import IPInterface
from vethlib.session import Session
from vethlib.session.read.survey import SurveyedLink

__all__ = ["Traffic", "talk", "talkers", "wait_until_usable"]

_PATIENCE = 10.0  # seconds
_TIMEOUT = 1.0  # seconds; a round trip takes about 20 µs


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of `sent` datagrams, how many were `received` back unchanged; and the median of their `round_trip` in µs."""

    a: str
    b: str
    sent: int
    received: int
    round_trip: float

    def as_dict(self) -> dict[str, object]:
        """Return the result for JSON."""
        counts = {"sent": self.sent, "received": self.received, "round_trip_us": round(self.round_trip, 1)}
        return {"a": self.a, "b": self.b, **counts}


Talkers = tuple[SurveyedLink, IPInterface, SurveyedLink, IPInterface]


def talkers(pairs: Iterable[tuple[SurveyedLink, SurveyedLink]]) -> Iterator[Talkers]:
    """Yield the pairs that are up and have addresses of the same subnet, IPv4 if there is a choice."""
    for a, b in pairs:
        if a.link.operstate == b.link.operstate == "up":
            shared = [
                (mine, theirs)
                for mine in a.link.addresses
                for theirs in b.link.addresses
                if mine.network == theirs.network and not (mine.version == 6 and mine.is_link_local)
            ]
            if shared:
                mine, theirs = min(shared, key=lambda pair: pair[0].version)
                yield a, mine, b, theirs


def wait_until_usable(session: Session, pair: Talkers) -> None:
    """Wait for duplicate address detection, which only IPv6 has: one to two seconds."""
    a, mine, b, _ = pair
    if mine.version == 6:
        for end in (a, b):
            session.set(end.link.name, end.ref, wait=_PATIENCE)


def talk(pair: Talkers, rounds: int) -> Traffic:
    """Send UDP datagrams from the first end to the second, which sends each back."""
    a, mine, b, theirs = pair
    times = []
    received = 0
    with _bound(a, mine) as first, _bound(b, theirs) as second:
        for number in range(rounds):
            payload = f"{a.link.name} to {b.link.name}, {number}".encode("utf-8", "surrogateescape")
            started = time.perf_counter()
            try:
                first.sendto(payload, second.getsockname())
                data, sender = second.recvfrom(2048)
                second.sendto(data, sender)
                received += first.recv(2048) == payload and sender[0] == str(mine.ip)
            except TimeoutError:
                continue
            times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2] * 1e6 if times else 0.0
    return Traffic(_where(a, mine), _where(b, theirs), rounds, received, median)


def _bound(end: SurveyedLink, address: IPInterface) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with ns.entered(end.ref):
        bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.bind((str(address.ip), 0))
        bound.settimeout(_TIMEOUT)
    except BaseException:
        bound.close()
        raise
    return bound


def _where(end: SurveyedLink, address: IPInterface) -> str:
    return f"{end.link.name}@{ref_text(end.ref)} {address.ip}"
