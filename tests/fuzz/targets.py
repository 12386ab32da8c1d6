"""All that is fuzzed."""

from __future__ import annotations

from typing import Final

from . import netlink, texts, values
from .engine import Target

__all__ = ["TARGETS"]

TARGETS: Final[tuple[Target, ...]] = (*netlink.TARGETS, *values.TARGETS, *texts.TARGETS)
