"""Reading many messages of few layouts: what is wanted of each in two ``Struct.unpack``, not in a walk.

The kernel writes a link's attributes in one order and mostly in one size, so links of a kind come in a handful of
layouts. A :class:`Layout` knows where the header of every attribute was in the message it was learnt from, and reads a
message only if every header there is the same, which makes the chain of attributes the same from end to end. All
headers are compared at once, as one long number: the bytes around them are masked out, and payloads too large to be
worth masking are left out. Everything else goes the long way, through :func:`.wire.attributes`, and is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from struct import Struct
from typing import Any, Final

from .wire import attributes

__all__ = ["Layouts"]

_MOST: Final = 512  # layouts kept: they are learnt again in no time
_WORTH_MASKING: Final = 32  # bytes; a gap in the struct costs as much as so many in the number

_number = int.from_bytes
_join = b"".join


class Layout:
    """How one message was laid out; `forms` as for :class:`Layouts`."""

    __slots__ = ("_absent", "_expected", "_in_order", "_mask", "_regions", "_values")

    def __init__(self, body: bytes, fixed: Struct, forms: Mapping[int, str]) -> None:
        values = fixed.format  # of the wanted payloads
        regions = f"={fixed.size}x"  # the headers, and what small payloads are between them
        mask = b""
        places: dict[int, int] = {}
        region = 0
        for kind, start, end in attributes(body, fixed.size, len(body)):
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
            form = forms.get(kind, "")
            if form == "s" or (form and Struct("=" + form).size == size):
                places[kind] = len(places)
                values += f"4x{size}s" if form == "s" else f"4x{form}"
                values += f"{padded - size}x"
            else:
                values += f"{4 + padded}x"
        self._regions = Struct(f"{regions}{region}s").unpack_from
        self._values = Struct(values).unpack_from
        self._mask = _number(mask, "little")
        self._expected = self._masked(body)
        # What is absent is read from the Nones put behind the values; mostly that is where it belongs anyway.
        first, present = len(fixed.unpack_from(body)), list(places)
        self._absent = (None,) * (len(forms) - len(places))
        order = [*range(first), *(first + places.get(kind, len(places)) for kind in forms)]
        self._in_order = None if list(forms)[: len(present)] == present else itemgetter(*order)

    def _masked(self, body: bytes) -> int:
        return _number(_join(self._regions(body)), "little") & self._mask

    def read(self, body: bytes) -> tuple[Any, ...] | None:
        """What is wanted, None for each that is absent; None altogether for a message of another layout."""
        if _number(_join(self._regions(body)), "little") & self._mask != self._expected:
            return None
        values = self._values(body) + self._absent
        return values if self._in_order is None else self._in_order(values)


class Layouts:
    """The layouts of one message family.

    `fixed` is the family's struct before the attributes, with what is wanted of it; `forms` has the struct format of
    each wanted attribute's payload, "s" for bytes of any length. What is read comes in the order of `fixed` and `forms`
    (the kernel's own order is the quickest). An attribute that has not the size of its format is as good as absent.
    """

    __slots__ = ("_fixed", "_forms", "_known", "_size")

    def __init__(self, fixed: str, forms: Mapping[int, str]) -> None:
        self._fixed = Struct(fixed)
        self._size = self._fixed.size
        self._forms = dict(forms)
        self._known: dict[tuple[int, bytes], Layout] = {}

    def read(self, body: bytes) -> tuple[Any, ...]:
        """What is wanted of a message, None for each that is absent. Raises Malformed."""
        # The first attribute of a link is its name, whose length moves all that follows.
        key = len(body), body[self._size : self._size + 2]
        layout = self._known.get(key)
        if layout is not None and (values := layout.read(body)) is not None:
            return values
        layout = Layout(body, self._fixed, self._forms)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = layout
        values = layout.read(body)
        assert values is not None  # it was learnt from this very message
        return values
