"""Reading many messages of a few layouts: learn where the attributes are once, then read them in one go.

The kernel writes a link's attributes in one order and mostly in one size, so links of a kind come in a handful of
layouts. A :class:`Layout` is a Struct over a whole message: the header of every attribute, and the payload of those
that are wanted. It reads a message only if every header is what it was in the message it was learnt from, which
makes the chain of attributes the same from end to end. Everything else goes the long way, through
:func:`.wire.attributes`, and is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from struct import Struct
from typing import Any, Final

from .wire import attributes

__all__ = ["Layouts"]

_MOST: Final = 512  # layouts kept: they are learnt again in no time
_HEADER: Final = Struct("=I")


class Layout:
    """How one message was laid out. `expected` are its attributes' headers, `wanted` the places of the values."""

    __slots__ = ("_expected", "_headers", "_unpack", "_values")

    def __init__(self, body: bytes, fixed: int, forms: Mapping[int, str]) -> None:
        form = f"={fixed}x"
        headers: list[int] = []
        found: dict[int, int] = {}
        expected: list[int] = []
        position = 0
        for kind, start, end in attributes(body, fixed, len(body)):
            form += "I"
            headers.append(position)
            expected.append(_HEADER.unpack_from(body, start - 4)[0])
            position += 1
            size = end - start
            if kind in forms and (forms[kind] == "s" or Struct("=" + forms[kind]).size == size):
                form += f"{size}s" if forms[kind] == "s" else forms[kind]
                found[kind] = position
                position += 1
            else:
                form += f"{size}x"
            form += f"{min(-size & 3, len(body) - end)}x"
        self._unpack = Struct(form).unpack_from
        self._headers = _getter(headers)
        self._expected = tuple(expected)
        # What is absent is read from the None put behind the values.
        self._values = _getter([found.get(kind, position) for kind in forms])

    def read(self, body: bytes) -> tuple[Any, ...] | None:
        """The wanted payloads, None for each that is absent; None altogether for a message of another layout."""
        values = (*self._unpack(body), None)
        return self._values(values) if self._headers(values) == self._expected else None


def _getter(places: Sequence[int]) -> Any:
    # itemgetter of one place gives the item itself, of none fails.
    if len(places) < 2:
        return lambda values: tuple(values[place] for place in places)
    return itemgetter(*places)


class Layouts:
    """The layouts of one message family.

    `fixed` is the size of the family's struct before the attributes; `forms` has the struct format of each wanted
    attribute's payload, "s" for bytes of any length. What is read comes in the order of `forms`. An attribute that
    has not the size of its format is as good as absent.
    """

    __slots__ = ("_fixed", "_forms", "_known")

    def __init__(self, fixed: int, forms: Mapping[int, str]) -> None:
        self._fixed = fixed
        self._forms = dict(forms)
        self._known: dict[tuple[int, bytes], Layout] = {}

    def read(self, body: bytes) -> tuple[Any, ...]:
        """The wanted payloads of a message, None for each that is absent. Raises Malformed."""
        # The first attribute of a link is its name, whose length moves all that follows.
        key = len(body), body[self._fixed : self._fixed + 2]
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
