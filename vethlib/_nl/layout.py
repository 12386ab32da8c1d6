"""Read many messages of few layouts: two ``Struct.unpack`` calls read all attributes, instead of a loop.

The kernel writes a link's attributes in a fixed order and usually in the same size, so links of a kind have only a few
layouts. A :class:`Layout` knows where the header of every attribute was in the message it was learnt from, and reads a
message only if every header there is the same, which makes the chain of attributes the same from end to end. All
headers are compared at once, as one long number: the bytes around them are masked out, and payloads too large to be
worth masking are left out. A nest whose attributes are to be read is walked like the message itself.

All other messages are read attribute by attribute, which takes five times as long. Learning a layout takes six times as
long as that, so a layout is learnt only when a message of the kind arrives again, and each time that was in vain, the
wait doubles: otherwise, anybody who can shape messages (the owner of a link, who names it) could cause a layout to be
learnt for each one. Long messages are never learnt.

Most links of a dump differ only in their name, MAC, ifindex and peer. Such a run of messages is unpacked by one call,
and compared with the message before it column by column (:class:`_Run`), in half the time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from operator import itemgetter
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from vethlib.errors import Malformed

from .wire import HEADER, attributes, attributes_of

_MOST: Final = 512  # keys of layouts that are kept; they are quickly learnt again
_MOST_ALIKE: Final = 4
"""Layouts with the same key: payloads are padded to four bytes, so that aliases of four sizes make messages of one."""
_WORTH_LEARNING: Final = 4096  # bytes of a message; a link has about 1 100, and 132 for each alternative name
_WORTH_MASKING: Final = 32  # bytes; a gap in the struct costs as much as this many bytes in the number

Key: TypeAlias = int | tuple[int, ...]
"""The type of an attribute, or the path of one in a nest: the types of the nests, then its own."""

_number = int.from_bytes
_join = b"".join


class _Form:
    """The struct format of a payload; "s" for bytes of any length, "64s" for the first 64 of them.

    With a trailing "+", the payload may be longer.
    """

    __slots__ = ("_open", "format", "most", "size", "unpack")

    def __init__(self, form: str) -> None:
        text = form.endswith("s")
        self._open = text or form.endswith("+")
        self.format = form.removesuffix("+")
        self.most = int(form[:-1] or sys.maxsize) if text else sys.maxsize  # bytes that are read
        self.size = 0 if text else Struct("=" + self.format).size
        self.unpack = None if text else Struct("=" + self.format).unpack_from

    def fits(self, size: int) -> bool:
        return self.size <= size if self._open else self.size == size


def _flat(
    body: bytes, found: Iterator[tuple[int, int, int]], forms: Mapping[Key, object], path: tuple[int, ...] = ()
) -> Iterator[tuple[Key | None, int, int]]:
    """Yield (key, start, end) of each attribute; of a nest with one of `forms`, (None, start, start), then its own.

    A nest that cannot be read is yielded like any other attribute.
    """
    for kind, start, end in found:
        here = (*path, kind)
        if any(isinstance(key, tuple) and key[: len(here)] == here != key for key in forms) and not (end - start) & 3:
            try:
                inner = list(attributes(body, start, end))
            except Malformed:
                inner = []
            if inner and (inner[-1][2] + 3) & ~3 == end:
                yield None, start, start
                yield from _flat(body, iter(inner), forms, here)
                continue
        yield here if path else kind, start, end


class Layout:
    """The layout of one message; `forms` as for :class:`Layouts`."""

    __slots__ = ("_absent", "_expected", "_in_order", "_mask", "_regions", "_values", "run", "size")

    def __init__(self, body: bytes, fixed: Struct, forms: Mapping[Key, _Form]) -> None:
        values = fixed.format  # of the payloads to be read
        regions = f"={fixed.size}x"  # the headers, and small payloads between them
        mask = b""
        places: dict[Key, int] = {}
        region = 0
        for kind, start, end in _flat(body, attributes(body, fixed.size, len(body)), forms):
            size = end - start
            padded = size + min(-size & 3, len(body) - end)
            region += 4
            mask += b"\xff" * 4
            if padded > _WORTH_MASKING:
                regions += f"{region}s{padded}x"
                region = 0
            else:
                region += padded
                mask += b"\0" * padded
            form = None if kind is None or kind in places else forms.get(kind)
            if kind is not None and form is not None and form.fits(size):
                places[kind] = len(places)
                wanted = min(size, form.most) if form.unpack is None else form.size
                values += f"4x{wanted}s" if form.unpack is None else f"4x{form.format}"
                values += f"{padded - wanted}x"
            else:
                values += f"{4 + padded}x"
        self.size = len(body)
        self.run: _Run | None = None
        self._regions = Struct(f"{regions}{region}s").unpack_from
        self._values = Struct(values).unpack_from
        self._mask = _number(mask, "little")
        self._expected = self._masked(body)
        # Absent attributes are read from the Nones appended to the values, usually their right position anyway.
        first, present = len(fixed.unpack_from(body)), list(places)
        self._absent = (None,) * (len(forms) - len(places))
        order = [*range(first), *(first + places.get(kind, len(places)) for kind in forms)]
        self._in_order = None if list(forms)[: len(present)] == present else itemgetter(*order)

    def _masked(self, body: bytes) -> int:
        return _number(_join(self._regions(body)), "little") & self._mask

    def read(self, body: bytes) -> tuple[Any, ...] | None:
        """Return the values of a message, None for each absent one; None if the message has another layout."""
        if _number(_join(self._regions(body)), "little") & self._mask != self._expected:
            return None
        values = self._values(body) + self._absent
        return values if self._in_order is None else self._in_order(values)


class Differing(NamedTuple):
    """What differs among the messages of a run: the number at this offset, attributes that are read, and others."""

    number_at: int
    read: tuple[Key, ...]
    unread: tuple[Key, ...]


class _Run:
    """Messages of one layout that differ only in what usually differs; see :meth:`Layouts.read_alike`.

    They are unpacked into the values that differ and the pieces between these. What is not read is in no piece.
    """

    __slots__ = ("_differing", "_equal", "_pieces", "_size")

    def __init__(self, body: bytes, fixed: Struct, forms: Mapping[Key, _Form], differing: Differing) -> None:
        parts = [f"={HEADER.size + differing.number_at}s", "i"]
        places: dict[Key, int] = {}
        piece = fixed.size - differing.number_at - 4
        for kind, start, end in _flat(body, attributes(body, fixed.size, len(body)), forms):
            size = end - start
            padded = size + min(-size & 3, len(body) - end)
            piece += 4
            form = None if kind is None else forms.get(kind)
            if kind in differing.read and kind not in places and form is not None and form.fits(size):
                places[kind] = len(parts) + 1
                parts += [f"{piece}s", f"{size}s{padded - size}x" if form.unpack is None else form.format]
                piece = 0
            elif kind in differing.unread:
                parts.append(f"{piece}s{padded}x")
                piece = 0
            elif form is not None and padded > form.most:
                parts.append(f"{piece + form.most}s{padded - form.most}x")
                piece = 0
            else:
                piece += padded
        parts.append(f"{piece}s")
        self._pieces = Struct("".join(parts))
        self._size = self._pieces.size
        self._differing = [1, *map(places.get, differing.read)]
        self._equal = [place for place in range(len(parts)) if place not in self._differing]

    def read(self, datagram: bytes, start: int) -> list[Any]:
        """Read the messages after the one at `start` as long as they are like it; return differing values as columns.

        An attribute that they do not have is None.
        """
        count = (len(datagram) - start) // self._size
        whole = memoryview(datagram)[start : start + count * self._size]
        columns = list(zip(*self._pieces.iter_unpack(whole), strict=True))
        alike = count
        for place in self._equal:
            column = columns[place]
            if column.count(column[0]) != count:
                alike = min(alike, next(at for at, piece in enumerate(column) if piece != column[0]))
        return [None if place is None else columns[place][1:alike] for place in self._differing]


class Layouts:
    """The layouts of one message family.

    `fixed` is the struct format of the fields to be read before the attributes; `forms` has that of the payload of each
    attribute to be read: "s" for bytes of any length, and with "+" at its end for a payload that may be longer. Values
    are returned in the order of `fixed` and `forms` (the kernel's own order is the fastest). An attribute whose size
    does not match its format counts as absent; of several of the same type, the first counts.
    `differing` is what usually differs among the messages of a dump.
    """

    __slots__ = ("_differing", "_fixed", "_forms", "_known", "_last", "_misses", "_size")

    def __init__(self, fixed: str, forms: Mapping[Any, str], differing: Differing | None = None) -> None:
        self._differing = differing
        self._fixed = Struct(fixed)
        self._size = self._fixed.size
        self._forms = {key: _Form(form) for key, form in forms.items()}
        self._known: dict[tuple[int, bytes], tuple[Layout, ...]] = {}
        self._last: Layout | None = None  # the layout that fitted last; it usually fits the next message of a dump, too
        self._misses: dict[tuple[int, bytes], int] = {}  # the number of times that no known layout fitted

    def read(self, body: bytes) -> tuple[Any, ...]:
        """Return the values of a message, None for each absent one. Raises Malformed."""
        last = self._last
        if last is not None and last.size == len(body) and (values := last.read(body)) is not None:
            return values
        # The first attribute of a link is its name, whose length moves all others.
        key = len(body), body[self._size : self._size + 2]
        known = self._known.get(key, ())
        for layout in known:
            if (values := layout.read(body)) is not None:
                self._last = layout
                return values
        if self._size <= len(body) <= _WORTH_LEARNING and self._comes_again(key):
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = (*known[1 - _MOST_ALIKE :], Layout(body, self._fixed, self._forms))
        return self._read_long_way(body)

    def read_alike(self, datagram: bytes, start: int, end: int) -> list[Any]:
        """Read the messages that follow the one between `start` and `end` (header included) and are like it.

        Return what differs, the number and each of the attributes, as a column of values; None for an absent attribute.
        Empty if the messages cannot be read in this way.
        """
        body = datagram[start + HEADER.size : end]
        layout = self._last
        if layout is None or layout.size != len(body) or len(body) & 3 or layout.read(body) is None:
            return []
        if layout.run is None:
            assert self._differing is not None
            layout.run = _Run(body, self._fixed, self._forms, self._differing)
        return layout.run.read(datagram, start)

    def _comes_again(self, key: tuple[int, bytes]) -> bool:
        """Return whether this is the second, fourth, eighth … time that no layout fitted."""
        if len(self._misses) >= _MOST:
            self._misses.clear()
        misses = self._misses[key] = self._misses.get(key, 0) + 1
        return misses > 1 and misses & (misses - 1) == 0

    def _read_long_way(self, body: bytes) -> tuple[Any, ...]:
        if len(body) < self._size:
            raise Malformed(f"a message of {len(body)} bytes instead of at least {self._size}")
        found: dict[Key, Any] = {}
        for kind, start, end in _flat(body, attributes_of(body, self._size), self._forms):
            if kind is None or kind in found or (form := self._forms.get(kind)) is None:
                continue
            if form.unpack is None:
                found[kind] = body[start : min(end, start + form.most)]
            elif form.fits(end - start):
                (found[kind],) = form.unpack(body, start)
        return (*self._fixed.unpack_from(body), *map(found.get, self._forms))
