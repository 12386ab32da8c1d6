"""Marks: how an agent knows its own links and addresses again, after a crash too.

1. IFLA_GROUP carries a number made from the agent's label. The kernel honours it on both ends in the very
   message that creates a pair (rtnl_create_link, net/core/rtnetlink.c): there is no moment without a mark.
2. IFLA_IFALIAS says the rest: label, interface, and whether its MAC was configured. A create ignores it, so
   it is set right afterwards; a pair of our group without an alias is what a crash in between left behind.
3. IFA_PROTO tells the addresses we gave from those of others (kernel 5.18 or later; before it, none is ours).

The alias decides where there is one: whoever writes another text over it has taken the link over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2s

from vethlib.errors import InvalidValue

from .model import Interface, check_interface_name

__all__ = ["ADDRESS_PROTO", "Mark", "alias_of", "check_label", "group_of", "is_ours", "read_alias"]

ADDRESS_PROTO = 0x76
"""IFA_PROTO of an address an agent gave."""

_GROUP_BASE = 0x7600_0000  # far from the small numbers people give to groups, and below the kernel's 2³¹
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,63}")
_ALIAS = re.compile(r"vethlib label=(\S+) name=(\S+)( mac)?")


@dataclass(frozen=True, slots=True)
class Mark:
    """What an alias says: whose link it is, which interface, and whether its MAC was configured."""

    label: str
    name: str
    mac: bool

    def __str__(self) -> str:
        return f"vethlib label={self.label} name={self.name}{' mac' if self.mac else ''}"


def check_label(label: str, field: str = "label") -> str:
    """Return `label` if it can name an agent: 1–63 of letters, digits, '.', '_' and '-'. Raises InvalidValue."""
    if not _LABEL.fullmatch(label):
        raise InvalidValue(field, label, "a label is 1 to 63 of the characters A-Z a-z 0-9 . _ -")
    return label


def group_of(label: str) -> int:
    """The link group of an agent's pairs: the same for the same label, on every host and in every version."""
    digest = blake2s(check_label(label).encode(), digest_size=3).digest()
    return _GROUP_BASE | int.from_bytes(digest, "big")


def alias_of(label: str, interface: Interface) -> str:
    """The alias of `interface`'s link, as in ``vethlib label=vpp1 name=veth1 mac``; at most 150 bytes."""
    return str(Mark(check_label(label), interface.name, bool(interface.phys_address)))


def read_alias(text: str) -> Mark | None:
    """What :func:`alias_of` wrote; None for any other text."""
    found = _ALIAS.fullmatch(text)
    if found is None:
        return None
    label, name, mac = found.groups()
    try:
        return Mark(check_label(label), check_interface_name(name), mac is not None)
    except InvalidValue:
        return None


def is_ours(group: int, alias: str, label: str) -> bool:
    """Whether a link with this group and alias belongs to the agent called `label`."""
    if not alias:
        return group == group_of(label)
    mark = read_alias(alias)
    return mark is not None and mark.label == label
