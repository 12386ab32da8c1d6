"""Make cases of bytes, of netlink attributes, of texts and of JSON values. Each maker knows the structure it breaks."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["attributes", "datagrams", "json_texts", "raw", "texts"]

_U16 = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_U32 = (0, 1, 4, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
_MOST = 1 << 17  # bytes of a case: more than a datagram has


def raw(random: Random, data: bytes) -> bytes:
    """Make a few changes regardless of the meaning of the bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        at = random.randrange(len(changed) + 1)
        what = random.randrange(8)
        if what == 0:
            changed[at : at + 1] = bytes([random.randrange(256)])
        elif what == 1:
            changed[at:at] = random.randbytes(random.choice((1, 2, 3, 4, 8, 64)))
        elif what == 2:
            del changed[at : at + random.choice((1, 2, 4, 16, 1 << 16))]
        elif what == 3:
            at &= ~1
            changed[at : at + 2] = struct.pack("=H", random.choice(_U16))
        elif what == 4:
            at &= ~3
            changed[at : at + 4] = struct.pack("=I", random.choice(_U32))
        elif what == 5:
            end = random.randrange(at, len(changed) + 1)
            changed[at:at] = changed[at:end] * random.choice((1, 1, 2, 16))
        elif what == 6:
            del changed[at:]
        else:
            changed[at:at] = bytes(random.choice((1, 4, 128, 1 << 12)))
        del changed[_MOST:]
    return bytes(changed)


def attributes(header: int) -> Callable[[Random, Sequence[bytes]], bytes]:
    """Mutations of a message body that has attributes behind `header` bytes."""

    def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
        body = random.choice(seeds)
        if random.random() < 0.1:
            return raw(random, body)
        chain = _chain(body[header:])
        for _ in range(random.choice((1, 1, 2, 3, 6))):
            _change(random, chain, seeds, header, depth=3)
        made = (body[:header] + _joined(chain))[:_MOST]
        return raw(random, made) if random.random() < 0.2 else made

    return mutate


Chain = list[tuple[int, bytes]]


def _chain(data: bytes) -> Chain:
    chain: Chain = []
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            break
        chain.append((kind, data[4:length]))
        data = data[(length + 3) & ~3 :]
    return chain


def _joined(chain: Chain) -> bytes:
    return b"".join(
        struct.pack("=HH", (4 + len(payload)) & 0xFFFF, kind) + payload + bytes(-len(payload) & 3)
        for kind, payload in chain
    )


def _change(random: Random, chain: Chain, seeds: Sequence[bytes], header: int, depth: int) -> None:
    at = random.randrange(len(chain)) if chain else 0
    what = random.randrange(10)
    if not chain or what == 0:
        chain.insert(at, (random.randrange(80), random.randbytes(random.choice((0, 1, 3, 4, 8, 32)))))
        return
    kind, payload = chain[at]
    if what == 1:
        del chain[at]
    elif what == 2:  # again, once or as often as there is room
        chain[at:at] = [(kind, payload)] * random.choice((1, 2, 300, 4096 // (len(payload) + 4)))
    elif what == 3:
        chain[at] = (random.choice((random.randrange(80), kind ^ 0x8000, kind ^ 0x4000, 0xFFFF)), payload)
    elif what == 4:
        chain[at] = (kind, payload[: random.randrange(len(payload) + 1)])
    elif what == 5:
        chain[at] = (kind, payload + random.randbytes(random.choice((1, 3, 4, 256, 0xFFF0))))
    elif what == 6:
        chain[at] = (kind, raw(random, payload))
    elif what == 7:
        other = _chain(random.choice(seeds)[header:])
        chain[at:at] = other[: random.randrange(len(other) + 1)]
    elif what == 8:
        random.shuffle(chain)
    elif depth:
        inner = _chain(payload)
        _change(random, inner, seeds, header, depth - 1)
        chain[at] = (kind, _joined(inner))


def datagrams(random: Random, seeds: Sequence[bytes]) -> bytes:
    """A script of datagrams: see :func:`tests.fuzz.netlink.script`."""
    pieces = [random.choice(seeds) for _ in range(random.choice((1, 1, 2, 3)))]
    made = b"".join(piece[: random.randrange(len(piece) + 1)] if random.random() < 0.2 else piece for piece in pieces)
    return raw(random, made) if random.random() < 0.7 else made


_ODD = (
    "",
    "\0",
    "\n",
    "\r\n",
    "\x1b[31m",
    "\x7f",
    "\u0085",
    "\u202e",
    "\u2028",
    "\ufeff",
    "\ufffd",
    "\udc80",
    "ä",
    "İ",
    "ß",
    "١",
    "𝟙",
    "🪢",
    " ",
    "/",
    "..",
    "@",
    ":",
    "//",
    "%",
    "%00",
    "%zz",
    "=",
    "-",
    "[",
    "]",
    '"',
    "'",
    "\\",
    "0",
    "-1",
    "1e309",
    "4294967296",
    "9" * 40,
    "9" * 5000,
    "a" * 300,
)


def texts(*words: str) -> Callable[[Random, Sequence[bytes]], bytes]:
    """Mutations of a text in which these words mean something."""
    pieces = [*words, *_ODD]

    def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
        text = random.choice(seeds).decode("utf-8", "surrogateescape")
        for _ in range(random.choice((1, 1, 2, 3, 8))):
            at = random.randrange(len(text) + 1)
            end = min(len(text), at + random.choice((0, 1, 1, 2, 5, 50)))
            what = random.randrange(5)
            if what == 0:
                text = text[:at] + random.choice(pieces) + text[at:]
            elif what == 1:
                text = text[:at] + random.choice(pieces) + text[end:]
            elif what == 2:
                text = text[:at] + text[end:]
            elif what == 3:
                often = random.choice((2, 3, 30)) if random.random() < 0.9 else 3000
                text = text[:at] + text[at:end] * often + text[end:]
            else:
                other = random.choice(seeds).decode("utf-8", "surrogateescape")
                text = text[:at] + other[random.randrange(len(other) + 1) :]
            text = text[: 1 << 16]
        return text.encode("utf-8", "surrogatepass" if random.random() < 0.5 else "replace")

    return mutate


def json_texts(*names: str) -> Callable[[Random, Sequence[bytes]], bytes]:
    """Mutations of JSON whose objects have such names."""
    as_text = texts("{", "}", "[", "]", ",", ":", "null", "true", "NaN", "Infinity", "1e999", '"\\ud800"', *names)

    def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
        if random.random() < 0.25:
            return as_text(random, seeds)
        try:
            value = json.loads(random.choice(seeds))
        except (ValueError, RecursionError):
            return as_text(random, seeds)
        for _ in range(random.choice((1, 1, 2, 4))):
            value = _changed(random, value, names, 6)
        try:
            made = json.dumps(value, ensure_ascii=random.random() < 0.5)
        except RecursionError:
            return as_text(random, seeds)
        return made.encode("utf-8", "surrogatepass")[: 1 << 20]

    return mutate


def _value(random: Random, names: Sequence[str], depth: int = 3) -> Any:
    many = random.choice((1, 2, 3, 30)) if random.random() < 0.97 else 3000
    what = random.randrange(12 if depth else 5)
    if what == 0:
        return random.choice((None, True, False, [], {}, "", 0, -1, 1.5, float("inf"), float("nan"), 1e-320))
    if what == 1:
        return random.choice((2**31, 2**32, 2**32 + 1, 2**63, 2**64, 10**300, -(2**31) - 1, random.randrange(1 << 40)))
    if what == 2:
        return random.choice(_ODD)
    if what == 3:
        return (random.choice(_ODD) * many)[:100_000]
    if what == 4:
        return [random.choice(names) if names else many] * many
    if what == 5:
        return [_value(random, names, 0)] * min(many, 100)
    if what == 6:
        return {random.choice((*names, *_ODD)): _value(random, names, depth - 1) for _ in range(3)}
    if what == 7:
        return {f"{random.choice(_ODD[:-3])}{number}": number for number in range(many)}
    if what == 8:
        nested: Any = random.choice(_ODD)
        for _ in range(random.choice((3, 90, 400))):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    return random.choice(names) if names else ""


def _changed(random: Random, value: Any, names: Sequence[str], depth: int) -> Any:
    if isinstance(value, dict) and value and depth and random.random() < 0.8:
        changed = dict(value)
        name = random.choice(list(changed))
        what = random.randrange(5)
        if what == 0:
            del changed[name]
        elif what == 1:
            changed[random.choice((name.upper(), f"{name}x", *names, *_ODD))] = changed[name]
        elif what == 2:
            changed[name] = _value(random, names)
        else:
            changed[name] = _changed(random, changed[name], names, depth - 1)
        return changed
    if isinstance(value, list) and value and depth and random.random() < 0.8:
        items = list(value)
        at = random.randrange(len(items))
        what = random.randrange(4)
        if what == 0:
            del items[at]
        elif what == 1:
            items *= random.choice((2, 3, 50)) if len(items) < 20 else 1
        else:
            items[at] = _changed(random, items[at], names, depth - 1)
        return items
    if isinstance(value, str) and random.random() < 0.5:
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice(_ODD) + value[at:]
    return _value(random, names)
