"""The identity of a boot of this machine, which no other machine has."""

from __future__ import annotations

from typing import Final

__all__ = ["boot_id"]

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the id that the kernel has chosen at this boot; "" if it cannot be read."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
