"""Time-outs of callers: any number of seconds, even more than system calls and locks accept; and what is due first."""

from __future__ import annotations

import math
from typing import Final

from vethlib._primitives import time
from vethlib.errors import InvalidValue

__all__ = ["LONGEST", "check_timeout", "deadline_after", "earliest"]

LONGEST: Final = 3600.0
"""The longest wait in one system call, in seconds: epoll_wait(2) accepts up to 24 days."""

_ENDLESS: Final = 1e9  # seconds: 31 years, which locks accept


def check_timeout(timeout: float | None, field: str = "timeout") -> float | None:
    """Return a number of seconds as a float that locks accept; None for no limit. Raises InvalidValue."""
    if timeout is None:
        return None
    try:
        if not math.isnan(timeout):
            return float(min(max(timeout, -_ENDLESS), _ENDLESS))
    except OverflowError:  # an integer that is too large for a float
        return math.copysign(_ENDLESS, 1 if timeout > 0 else -1)
    except (TypeError, ValueError):
        pass
    raise InvalidValue(field, timeout, "must be a number of seconds, such as 2.5")


def deadline_after(timeout: float | None) -> float | None:
    """Return the time of the monotonic clock after `timeout` seconds; None for never. Raises InvalidValue."""
    seconds = check_timeout(timeout)
    return None if seconds is None else time.monotonic() + seconds


def earliest(*times: float | None) -> float | None:
    """Return the first of these times, or the shortest of these numbers of seconds; None if all of them are None."""
    return min((time for time in times if time is not None), default=None)
