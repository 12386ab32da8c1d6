"""The fields of an end: how each is checked, sent, read, undone and put into words, in one table.

1. A field that a single attribute of a message sets has that ``attribute``. The attribute with the value that was read
   before undoes it.
2. The fields are in the order in which they are sent. The alias is first, because it may be a mark that describes the
   others.
3. The name, the namespace, the addresses, and whether the link is up and has IPv6 are not in the table: they take
   effect on one another, and `session/write/change.py` has their order. `mtu` is in it, but that module sends it first
   or last, because IPv6 needs 1280 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from vethlib._nl.link import LinkMessage, attribute_of, set_attribute
from vethlib.addresses import IPInterface

from .checks import check_alias, check_group, check_mac, check_mtu

__all__ = ["FIELDS", "Field", "Step"]


class Step(NamedTuple):
    """One message, and those that undo it. `fine` are errnos that may mean that it was unnecessary."""

    what: str
    request: bytes
    undo: tuple[bytes, ...] = ()
    fine: tuple[int, ...] = ()
    address: IPInterface | None = None


class Field(NamedTuple):
    """A field of an end, a link and :meth:`Session.set`: `name` is its name in all of them.

    `check` returns a value as it is compared, or raises InvalidValue. `attribute` encodes it, `read` gets it from a
    link message, and `words` is its text in errors.
    """

    name: str
    check: Callable[[Any, str], Any]
    attribute: Callable[[Any], bytes]
    read: Callable[[LinkMessage], Any]
    words: Callable[[Any], str] = str

    def describe(self, value: Any) -> str:
        """Return what setting the field to this value is called."""
        return f"{self.name} {self.words(value)}"

    def steps(self, before: LinkMessage, value: Any) -> Iterator[Step]:
        """Yield the steps that set the field of a link, each with what undoes it."""
        index = before.ifindex
        undo = set_attribute(index, b"", self.attribute(self.read(before)))
        yield Step(self.describe(value), set_attribute(index, b"", self.attribute(value)), (undo,))


FIELDS: Final = {
    field.name: field
    for field in (
        Field("alias", check_alias, lambda text: attribute_of(alias=os.fsencode(text)), lambda link: link.alias, repr),
        Field("mac", check_mac, lambda mac: attribute_of(mac=_packed(mac)), lambda link: link.mac.hex(":")),
        Field("group", check_group, lambda group: attribute_of(group=group), lambda link: link.group),
        Field("mtu", check_mtu, lambda mtu: attribute_of(mtu=mtu), lambda link: link.mtu),
    )
}


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
