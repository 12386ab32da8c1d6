"""Owner marks: how an agent recognizes its links and addresses, even after a crash.

1. IFLA_GROUP is a number derived from the agent's label. The kernel applies it to both ends in the very message that
   creates a pair (rtnl_create_link, net/core/rtnetlink.c), so a pair is never without a mark.
2. IFLA_IFALIAS has the details: label, interface, and whether its MAC was configured. The kernel ignores it in a
   create message, so it is set right afterwards; an owned pair without an alias was left by a crash in between.
3. IFA_PROTO distinguishes the agent's addresses from foreign ones (Linux 5.18; before that, none has a mark).

If there is an alias, it decides: a program that has overwritten it has taken over the link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2s

from vethlib.endfields.table import FIELDS
from vethlib.errors import InvalidValue

from .model import Interface
from .textchecks import check_interface_name

__all__ = ["ADDRESS_PROTO", "Mark", "alias_of", "check_label", "group_of", "is_ours", "read_alias"]

ADDRESS_PROTO = 0x76
"""IFA_PROTO of the addresses that an agent adds."""

_GROUP_BASE = 0x7600_0000  # far from the small numbers people give to groups, and below the kernel's 2³¹
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,63}")
_ALIAS = re.compile(r"vethlib label=(?!\.{1,2} )([A-Za-z0-9._-]{1,63}) name=(\S+)( mac)?( more(?:=([a-z,]{1,64}))?)?")


@dataclass(frozen=True, slots=True)
class Mark:
    """The content of an alias: the label of the owner, the interface, and whether its MAC was configured.

    `more` is whether fields were configured that have to be read to find out whether the link still has them; `owned`
    are those of these fields that are the agent's, to be removed when they are no longer configured.
    """

    label: str
    name: str
    mac: bool
    more: bool = field(default=False, compare=False)
    owned: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        more = f" more={','.join(self.owned)}" if self.owned else " more" if self.more else ""
        words = f"{' mac' if self.mac else ''}{more}"
        return f"vethlib label={self.label} name={self.name}{words}"


def check_label(label: str, field: str = "label") -> str:
    """Return `label` if it is valid: 1–63 letters, digits, '.', '_' and '-', but not '.' or '..'.

    Raises InvalidValue.
    """
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise InvalidValue(field, label, "must be 1 to 63 of the characters A-Z a-z 0-9 . _ -")
    if label in (".", ".."):
        raise InvalidValue(field, label, "must not be '.' or '..', because it names a directory")
    return label


def group_of(label: str) -> int:
    """Return the link group for a label, which is the same on every host and in every version."""
    digest = blake2s(check_label(label).encode(), digest_size=3).digest()
    return _GROUP_BASE | int.from_bytes(digest, "big")


def alias_of(label: str, interface: Interface) -> str:
    """Return the alias for the link of `interface`, as in ``vethlib label=vpp1 name=veth1 mac``; at most 200 bytes."""
    further = interface.further
    owned = tuple([name for name in further if FIELDS[name].none is not None]) if further else ()
    return str(Mark(check_label(label), interface.name, bool(interface.phys_address), bool(further), owned))


def read_alias(text: str) -> Mark | None:
    """Parse the result of :func:`alias_of`; return None for any other text."""
    parts = _ALIAS.fullmatch(text)
    if parts is None:
        return None
    label, name, mac, more, listed = parts.groups()
    # Other versions may know other fields.
    owned = tuple(each for each in listed.split(",") if each in FIELDS) if listed else ()
    try:
        return Mark(label, check_interface_name(name), mac is not None, more is not None, owned)
    except InvalidValue:
        return None


def is_ours(group: int, alias: str, label: str) -> bool:
    """Return whether a link with this group and alias belongs to the agent with this label."""
    if not alias:
        return group == group_of(label)
    mark = read_alias(alias)
    return mark is not None and mark.label == label
