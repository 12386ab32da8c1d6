"""What a link leaves to a network card: checksums and segmentation, together "offload".

1. They are features of a link (net/ethtool/common.c names them: ``tx-checksum-ip-generic``). Only those count that the
   link has and that can be switched. On a new veth, all of them are on except ``rx-gro`` (since Linux 5.13).
2. A value is False if all are off, True if they are as on a new veth, and otherwise the differences from True, sorted:
   ``("+rx-gro", "-tx-udp-segmentation")``. So every state can be compared, and restored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from vethlib.errors import InvalidValue

__all__ = ["Offload", "check_offload", "features_of", "is_offload", "offload_of", "target_of"]

Offload: TypeAlias = bool | tuple[str, ...]

# Features without these words in their names are those for VLAN tags, which no checksum covers, and for hardware.
_IS_OFFLOAD = re.compile(r"checksum|segmentation|^tx-scatter-gather|^tx-gso-list$|gro").search
_DIFFERENCE = re.compile(r"[-+][a-z0-9_-]{1,31}").fullmatch


def is_offload(feature: str) -> bool:
    """Return whether a feature of a link is among those that count."""
    return _IS_OFFLOAD(feature) is not None


def _is_usual(feature: str) -> bool:
    """Return whether a new veth has the feature."""
    return "gro" not in feature


def check_offload(offload: bool | Iterable[str], field: str = "offload") -> Offload:
    """Return a bool as it is, and differences sorted. Raises InvalidValue."""
    if isinstance(offload, bool):
        return offload
    hint = "must be true or false, or what Session.fields() has returned"
    if isinstance(offload, str) or not isinstance(offload, Iterable):
        raise InvalidValue(field, offload, hint)
    checked = tuple(offload)
    for difference in checked:
        if not isinstance(difference, str) or not _DIFFERENCE(difference) or not is_offload(difference[1:]):
            raise InvalidValue(field, difference, hint)
        if difference.startswith("-") != _is_usual(difference[1:]):
            raise InvalidValue(field, difference, "a new link has that already: + is for rx-gro, and - for the others")
    return tuple(sorted(set(checked))) or True


def offload_of(existing: Sequence[str], on: Iterable[str]) -> Offload:
    """Return the value for a link with these features, of which those of `on` are on."""
    active = {feature for feature in on if is_offload(feature)}
    if not active:
        return False
    counting = [feature for feature in existing if is_offload(feature) and (feature in active) != _is_usual(feature)]
    return tuple(sorted(map(_difference, counting))) or True


def features_of(existing: Iterable[str], offload: Offload) -> dict[str, bool]:
    """Return which features of a link are to be on and off; those that are missing are left alone."""
    counting = [feature for feature in existing if is_offload(feature)]
    if offload is False:
        return dict.fromkeys(counting, False)
    if offload is True:
        return {feature: True for feature in counting if _is_usual(feature)}
    return {feature: _is_usual(feature) != (_difference(feature) in offload) for feature in counting}


def _difference(feature: str) -> str:
    return f"-{feature}" if _is_usual(feature) else f"+{feature}"


def target_of(present: Any, wanted: Offload) -> Offload:
    """Return the value that a link should have, given what it has: with True, GRO may be on as well."""
    if wanted is True and isinstance(present, tuple) and not any(each.startswith("-") for each in present):
        return present
    return wanted
