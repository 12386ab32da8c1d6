"""Readers of the kernel's messages: each body by its reader, datagrams by an exchange, events by a table of links."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from vethlib._nl import addr, link, nsid
from vethlib._nl.batch import UNSENT, Exchange, Limits
from vethlib._nl.const import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, RTM_NEWLINK
from vethlib._nl.dependents import attached, neighbour, port, route
from vethlib._nl.wire import HEADER, messages
from vethlib.errors import Malformed
from vethlib.ifindex import table

from . import mutation
from .engine import Target, corpus

__all__ = ["TARGETS"]

_ROUNDS: Final = 200
_MULTI: Final = 2  # NLM_F_MULTI, include/uapi/linux/netlink.h


def _seeds(*targets: str) -> tuple[bytes, ...]:
    return tuple(case for target in targets for _, case in corpus(target))


def _link(body: bytes) -> object:
    link.index_of(body)
    attached.parse_mounted(body)
    port.port_settings(body)
    return hash(table.record_of(link.parse_link(body)))


def _address(body: bytes) -> object:
    found = addr.parse_addr(body)
    addr.lasting(found)
    addr.is_plain(found, "v1")
    return addr.restore_addr(found)


def script(records: list[tuple[int, bytes]]) -> bytes:
    """Datagrams and what else happens to an exchange, each a kind and some bytes."""
    return b"".join(struct.pack("=BxH", kind, len(payload) & 0xFFFF) + payload for kind, payload in records)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    for _ in range(_ROUNDS):
        if len(data) < 4:
            return
        kind, length = struct.unpack_from("=BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _numbered(datagram: bytes, first: int) -> bytes:
    """The datagram as an answer to what was sent last: of its sequence numbers the lowest bits say to which request."""
    data = bytearray(datagram)
    at = 0
    while at + HEADER.size <= len(data):
        length, _kind, _flags, sequence, _port = HEADER.unpack_from(data, at)
        struct.pack_into("=I", data, at + 8, (first + (sequence & 7)) & 0xFFFF_FFFF)
        if length < HEADER.size:
            break
        at += (length + 3) & ~3
    return bytes(data)


_REQUESTS: Final = [link.get_link(3), link.set_up(3), link.get_link(name=b"v1"), link.delete_link(4), link.dump_links()]


def _exchange(data: bytes) -> object:
    lone = data[:1] == b"\xff"
    parse: Callable[[bytes], object] | None = link.parse_link if lone else None
    requests = _REQUESTS[-1:] if lone else _REQUESTS
    exchange = Exchange(requests, Limits(1 << 15, 1 << 17), parse)
    first = 1
    for kind, payload in _records(data[1:]):
        if not exchange.awaiting:
            first += len(requests)
            if exchange.next_chunk(first) is None:
                break
        try:
            if kind % 8 == 1:
                exchange.garbled()
            elif kind % 8 == 2:
                exchange.lost()
            elif kind % 8 == 3:
                exchange.received()
            elif kind % 8 == 4:
                exchange.reread()
            else:
                exchange.feed(_numbered(payload, first))
        except Malformed:
            pass  # and it may go on
    for _ in range(_ROUNDS):
        if exchange.awaiting:
            exchange.lost()
        elif exchange.next_chunk(first) is None:
            break
    else:
        raise AssertionError(f"no end after {_ROUNDS} chunks")
    assert len(exchange.outcomes) == len(requests)
    assert all(outcome is not UNSENT for outcome in exchange.outcomes)
    return tuple(outcome.errno for outcome in exchange.outcomes)


def _events(data: bytes) -> object:
    known: table.Table = {}
    for kind, body in _records(data):
        try:
            if kind % 4 == 1:
                table.remove(known, link.index_of(body))
            else:
                before = dict(known)
                table.put(known, table.record_of(link.parse_link(body)))
                list(table.differences(before, known))
        except Malformed:
            continue
        for key, record in known.items():
            assert key in (record.ifindex, record.name, *record.altnames), key
            assert record.ifindex in known, f"{key!r} leads to a link that is gone"
    return len(known)


def _datagram(data: bytes) -> object:
    return sum(link.index_of(data[start:end]) for _, _, _, start, end in messages(data))


def _answer(kind: int, number: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body + bytes(-len(body) & 3)


def _answers() -> tuple[bytes, ...]:
    bodies = [body for body in _seeds("link") if len(body) < 4096]
    objects = [_answer(RTM_NEWLINK, number, body) for number, body in enumerate(bodies)]
    extack = struct.pack("=i", -22) + _REQUESTS[1][:16] + struct.pack("=HH", 12, 1) + b"invalid\0"
    ends = [
        _answer(NLMSG_ERROR, 1, struct.pack("=i", 0) + _REQUESTS[1][:16], 0x100),
        _answer(NLMSG_ERROR, 1, extack, 0x300),
        _answer(NLMSG_ERROR, 1, struct.pack("=i", -22) + _REQUESTS[1] + extack[20:], 0x200),
        _answer(NLMSG_DONE, 4, struct.pack("=i", 0), _MULTI),
        _answer(NLMSG_DONE, 4, struct.pack("=i", 0), _MULTI | NLM_F_DUMP_INTR),
        _answer(NLMSG_DONE, 0, struct.pack("=i", 0), _MULTI),
    ]
    return tuple(objects + ends)


_PIECES: Final = tuple(script([(0, answer)]) for answer in _answers()) + tuple(
    script([(kind, b"")]) for kind in (1, 2, 3, 4)
)
_NEWS: Final = tuple(script([(kind, body)]) for body in _seeds("link") if len(body) < 4096 for kind in (0, 1))


def _scripts(random: Random, seeds: object) -> bytes:
    pieces = [random.choice(_PIECES) for _ in range(random.choice((1, 3, 8, 20)))]
    made = b"".join(mutation.raw(random, piece) if random.random() < 0.3 else piece for piece in pieces)
    return random.choice((b"\0", b"\xff")) + made


def _event_scripts(random: Random, seeds: object) -> bytes:
    pieces = [random.choice(_NEWS) for _ in range(random.choice((1, 3, 8, 20)))]
    change = mutation.attributes(16)
    return b"".join(
        script([(piece[0], change(random, [piece[4:]]))]) if random.random() < 0.5 else piece for piece in pieces
    )


def _datagrams(random: Random, seeds: object) -> bytes:
    made = b"".join(random.choice(_answers_cached) for _ in range(random.choice((1, 2, 5))))
    return mutation.raw(random, made)


_answers_cached: Final = _answers()

TARGETS: Final = (
    Target("link", _link, mutation.attributes(16), (b"",), (Malformed,)),
    Target("address", _address, mutation.attributes(8), (b"",), (Malformed,)),
    Target("route", route.parse_route, mutation.attributes(12), (b"",), (Malformed,)),
    Target("nsid", nsid.parse_nsid, mutation.attributes(4), (b"",), (Malformed,)),
    Target("stats", link.parse_indexed_stats, mutation.attributes(12), (b"",), (Malformed,)),
    Target("neighbour", neighbour.parse_neighbour, mutation.attributes(12), (b"",), (Malformed,)),
    Target("qdisc", attached.parse_qdisc, mutation.attributes(20), (b"",), (Malformed,)),
    Target("datagram", _datagram, _datagrams, (b"",), (Malformed,)),
    Target("exchange", _exchange, _scripts, (b"",)),
    Target("events", _events, _event_scripts, (b"",)),
)
