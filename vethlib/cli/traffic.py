"""Proof that a pair carries traffic: datagrams from one end to the other and back, compared byte by byte."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vethlib import ns
from vethlib.links import Interface
from vethlib.session import Session
from vethlib.session.survey import SurveyedLink

from .where import ref_text

__all__ = ["Traffic", "talk", "talkers", "wait_until_usable"]

_PATIENCE = 10.0  # seconds
_TIMEOUT = 1.0  # seconds; a round trip takes some 20 µs


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many of `sent` datagrams came back as they were, and how long one there and back took (µs, median)."""

    a: str
    b: str
    sent: int
    received: int
    round_trip: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        counts = {"sent": self.sent, "received": self.received, "round_trip_us": round(self.round_trip, 1)}
        return {"a": self.a, "b": self.b, **counts}


Talkers = tuple[SurveyedLink, Interface, SurveyedLink, Interface]


def talkers(pairs: Iterable[tuple[SurveyedLink, SurveyedLink]]) -> Iterator[Talkers]:
    """Every pair that is up and has an address of one subnet at both ends, IPv4 if there is a choice."""
    for a, b in pairs:
        if a.link.operstate == b.link.operstate == "up":
            shared = [
                (mine, theirs)
                for mine in a.link.addresses
                for theirs in b.link.addresses
                if mine.network == theirs.network and not mine.is_link_local
            ]
            if shared:
                mine, theirs = min(shared, key=lambda pair: pair[0].version)
                yield a, mine, b, theirs


def wait_until_usable(session: Session, pair: Talkers) -> None:
    """Wait for the duplicate address detection of IPv6, one to two seconds; IPv4 has none."""
    a, mine, b, _ = pair
    if mine.version == 6:
        for one in (a, b):
            session.set(one.link.name, one.ref, wait=_PATIENCE)


def talk(pair: Talkers, rounds: int) -> Traffic:
    """Send UDP datagrams from the first end to the second, each of them sent back."""
    a, mine, b, theirs = pair
    times = []
    received = 0
    with _bound(a, mine) as here, _bound(b, theirs) as there:
        for number in range(rounds):
            payload = f"{a.link.name} to {b.link.name}, {number}".encode("utf-8", "surrogateescape")
            started = time.perf_counter()
            try:
                here.sendto(payload, there.getsockname())
                data, sender = there.recvfrom(2048)
                there.sendto(data, sender)
                received += here.recv(2048) == payload and sender[0] == str(mine.ip)
            except TimeoutError:
                continue
            times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2] * 1e6 if times else 0.0
    return Traffic(_where(a, mine), _where(b, theirs), rounds, received, median)


def _bound(one: SurveyedLink, address: Interface) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with ns.entered(one.ref):
        bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bound.bind((str(address.ip), 0))
        bound.settimeout(_TIMEOUT)
    except BaseException:
        bound.close()
        raise
    return bound


def _where(one: SurveyedLink, address: Interface) -> str:
    return f"{one.link.name}@{ref_text(one.ref)} {address.ip}"
