"""Netlink on the wire: headers, attributes, messages in a buffer. Pure bytes.

Theory of operation:

1. A message is a 16-byte header (length, type, flags, sequence, port; struct nlmsghdr in include/uapi/linux/netlink.h)
   and a body. A body is a fixed struct of its family, followed by attributes.
2. An attribute is a 4-byte header (length with the header, type) and a payload. The length excludes padding; the next
   attribute, or message, starts at a multiple of four. All numbers are in the host's byte order.
3. A nested attribute contains attributes; its type has the flag NLA_F_NESTED.
4. Builders write sequence 0 and port 0. The sequence is filled in when a batch is sent (:mod:`.batch`).
5. Readers trust no length: a header that points outside its buffer raises :class:`Malformed`.
6. The kernel itself writes messages that are not a valid chain of attributes: the length of a nest above 64 KiB is
   truncated to 16 bits (nla_nest_end, include/net/netlink.h), so reading on after that length leads into the middle of
   the nest, to bytes that the owner of the link has chosen. This happens only in messages above 64 KiB, and their first
   attributes are correct (:func:`attributes_of`).
7. Names of links are bytes to the kernel: UTF-8, whatever the locale is (:func:`encoded`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from struct import Struct, calcsize
from typing import Final

from vethlib.errors import Malformed

from .const import NLA_F_NESTED, NLA_TYPE_MASK

READ_SIZE: Final = (1 << 17) - 64
"""Bytes to receive at once. A datagram that fills them may have been cut, which recv() does not report.

A link with the most alternative names that the kernel admits takes 68 000 (rtnl_alt_ifname, net/core/rtnetlink.c); a
macvlan in source mode has no limit. The parts of a dump grow up to 32 KiB if the reader's buffer is that large, or to
its longest message (netlink_dump, af_netlink.c). From 128 KiB on, malloc() would map pages for each.
"""

ENCODING: Final = "utf-8"
"""The encoding of the names of links, and of everything that is derived from them, such as file names.

Python's own choice (os.fsencode) depends on the locale: the same configuration would name other links for an agent
that a service manager starts without a locale, and a name that the locale lacks would be an error.
"""

ERRORS: Final = "surrogateescape"
"""Bytes that are not UTF-8 become surrogates (PEP 383), so that a name that was read can be sent back."""

HEADER: Final = Struct("=IHHII")
_ATTRIBUTE: Final = Struct("=HH")
_read_attribute = _ATTRIBUTE.unpack_from
_read_header = HEADER.unpack_from


def encoded(name: str) -> bytes:
    """Return the bytes of a name. Raises UnicodeEncodeError for surrogates that represent no byte."""
    return name.encode(ENCODING, ERRORS)  # in a third of the time of os.fsencode


def decoded(raw: bytes) -> str:
    """Return the name that has these bytes."""
    return raw.decode(ENCODING, ERRORS)


def to_system(name: str) -> str:
    """Return the text that Python passes to the system (for example in a file name) as the bytes of the name."""
    return name if name.isascii() else os.fsdecode(encoded(name))


def from_system(text: str) -> str:
    """Return the name with the bytes that Python got from the system as this text: the reverse of :func:`to_system`."""
    return decoded(os.fsencode(text))


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to a multiple of four."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) & 3)


def message(kind: int, flags: int, body: bytes) -> bytes:
    """Return a message of `kind`, padded; it is numbered when it is sent."""
    return HEADER.pack(16 + len(body), kind, flags, 0, 0) + body + b"\0" * (-len(body) & 3)


def messages(buffer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (type, flags, sequence, start, end) of each message in `buffer`; start and end bound its body."""
    offset, size = 0, len(buffer)
    while offset < size:
        if size - offset < 16:
            raise Malformed(f"{size - offset} bytes where a message header should be")
        length, kind, flags, sequence, _port = _read_header(buffer, offset)
        end = offset + length
        if length < 16 or end > size:
            raise Malformed(f"a message of {length} bytes in {size - offset}")
        yield kind, flags, sequence, offset + 16, end
        offset = (end + 3) & ~3


def attributes(buffer: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start, end) of each attribute's payload between `start` and `end`, type without its flags."""
    while end - start >= 4:
        length, kind = _read_attribute(buffer, start)
        if not 4 <= length <= end - start:
            raise Malformed(f"an attribute of {length} bytes in {end - start}")
        yield kind & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


MOST_OF_A_NEST: Final = 0xFFFF
"""A message up to this size is a chain of attributes (rule 6)."""

_MOST_ATTRIBUTES: Final = 256  # IFLA_MAX is 70


def attributes_of(body: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Parse the attributes of a whole message, which begin at `start`; see :func:`attributes`.

    If the message may be no valid chain (rule 6), parse as many as can be read, and the first of each type.
    """
    return attributes(body, start, len(body)) if len(body) <= MOST_OF_A_NEST else _leading(body, start)


def without(body: bytes, start: int, kind: int) -> bytes:
    """Return the body of a message, whose attributes begin at `start`, without the attributes of one type."""
    kept = body[:start]
    for attr, first, end in attributes_of(body, start):
        if attr != kind:
            kept += attribute(attr, body[first:end])
    return kept


def _leading(body: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    seen: set[int] = set()
    try:
        for attr in islice(attributes(body, start, len(body)), _MOST_ATTRIBUTES):
            if attr[0] not in seen:
                seen.add(attr[0])
                yield attr
    except Malformed:
        return


Part = bytes | str
"""A piece of a template: constant bytes, or the struct format of a placeholder, such as "16s" or "I"."""


def hole(kind: int, form: str) -> list[Part]:
    """Return an attribute whose payload, with the struct format `form`, is filled in later."""
    size = calcsize("=" + form)
    return [_ATTRIBUTE.pack(4 + size, kind), form, b"\0" * (-size & 3)]


def nest(kind: int, parts: Sequence[Part]) -> list[Part]:
    """Return a nested attribute that contains `parts`."""
    return [_ATTRIBUTE.pack(4 + _size(parts), kind | NLA_F_NESTED), *parts]


def _size(parts: Sequence[Part]) -> int:
    return sum(len(part) if isinstance(part, bytes) else calcsize("=" + part) for part in parts)


class Template:
    """A message with a fixed layout, which is filled in by a single ``Struct.pack``.

    Built attribute by attribute, a message that creates a pair costs 3–5 µs; this way, about 1. All headers are
    constants between the placeholders, and struct pads text with NULs (the kernel accepts a padded IFLA_IFNAME).
    """

    __slots__ = ("_arguments", "_pack")

    def __init__(self, kind: int, flags: int, parts: Sequence[Part]) -> None:
        runs: list[bytes] = [HEADER.pack(16 + _size(parts), kind, flags, 0, 0)]
        holes: list[str] = []
        for part in parts:
            if isinstance(part, bytes):
                runs[-1] += part
            else:
                holes.append(part)
                runs.append(b"")
        form = "".join(f"{len(run)}s{form}" for run, form in zip(runs, [*holes, ""], strict=True))
        self._pack = Struct("=" + form).pack
        self._arguments: list[bytes | int] = [b""] * (2 * len(holes) + 1)
        self._arguments[::2] = runs

    def fill(self, values: Sequence[bytes | int]) -> bytes:
        """Return the message with `values` for its placeholders, in order."""
        arguments = self._arguments.copy()
        arguments[1::2] = values
        return self._pack(*arguments)


template_cache = lru_cache(maxsize=256)
"""Cache of templates, one per layout; there are a few dozen layouts at most."""
