"""A descriptor that becomes readable at a given time: timerfd_create(2), which Python has only since 3.13."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from vethlib.ns.descriptor import Descriptor
from vethlib.ns.syscalls import bind

__all__ = ["Alarm"]

_CLOCK_MONOTONIC = 1  # include/uapi/linux/time.h
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC: include/linux/timerfd.h


class _Timer(ctypes.Structure):
    """struct itimerspec: an interval, and the time until the first expiration."""

    _fields_ = (
        *(("interval", ctypes.c_long), ("interval_ns", ctypes.c_long)),
        *(("value", ctypes.c_long), ("value_ns", ctypes.c_long)),
    )


_create: Callable[[int, int], int] = bind("timerfd_create", ctypes.c_int, ctypes.c_int)
_settime = bind("timerfd_settime", ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Timer), ctypes.c_void_p, keep_gil=True)


class Alarm:
    """A timer, initially not set. Raises OSError if no descriptor is left."""

    def __init__(self) -> None:
        # Opened and owned in one go (vethlib/ns/descriptor.py).
        self._fd = next(map(Descriptor.fromfd, map(_create, (_CLOCK_MONOTONIC,), (_FLAGS,))))

    def fileno(self) -> int:
        """Return the descriptor, which is readable from the time that was set until another time is set."""
        return self._fd.fileno()

    def set(self, seconds: float | None) -> None:
        """Make the descriptor readable after `seconds`, and not before; None for never."""
        nanoseconds = 0 if seconds is None else max(1, round(seconds * 1e9))
        _settime(self._fd.fileno(), 0, _Timer(0, 0, *divmod(nanoseconds, 10**9)), None)

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        self._fd.close()
