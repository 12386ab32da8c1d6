"""The limit of open files, which large topologies raise for their process.

The usual 1024 is so low only because programs that use select(2) cannot handle more (systemd.exec(5)).
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Final

from vethlib.ns.descriptor import limits

__all__ = ["keep_room", "make_room"]

_SPARE: Final = 768  # descriptors that are needed while a topology is built, and for its user
_FEW: Final = 256
_NEEDED: Final = 16  # a program takes up to twelve while it is started


def make_room(number: int) -> None:
    """Raise the limit if it is near, so that there is room for `number` more descriptors."""
    soft, hard = limits()
    try:
        taken = len(os.listdir("/proc/self/fd"))
    except OSError:  # not even one is left
        taken = soft
    _raise_limit(taken + number + _SPARE, soft, hard)


def keep_room() -> None:
    """Raise the limit if few descriptors are left: 256, or a quarter of a limit that is small, perhaps on purpose.

    They are not counted, because that takes a millisecond if there are a thousand. A new descriptor always gets the
    lowest free number, so few are left once one of the last numbers is in use.
    """
    soft, hard = limits()
    few = max(min(_FEW, soft // 4), _NEEDED)
    with suppress(OSError):  # the descriptor is not open
        os.get_inheritable(max(soft - few, 0))
        _raise_limit(soft + _SPARE, soft, hard)


def _raise_limit(desired: int, soft: int, hard: int) -> None:
    if soft != resource.RLIM_INFINITY and desired > soft:
        enough = desired if hard == resource.RLIM_INFINITY else min(desired, hard)
        with suppress(OSError, ValueError):  # a sandbox (seccomp) refuses it; the limit may be higher than known here
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
