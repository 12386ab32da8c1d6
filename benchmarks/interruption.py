"""What ends a benchmark: the first SIGINT or SIGTERM raises an exception, further ones leave its clean-up alone."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "raise_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 0.05  # seconds


class Interrupted(BaseException):
    """A signal requests the end: `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Raise :class:`Interrupted` on the first SIGINT or SIGTERM, for the rest of this process.

    Where an exception cannot be raised, such as in a finalizer or a callback of an extension, Python reports and drops
    it. Then it is raised again a moment later.
    """
    for each in _SIGNALS:
        signal.signal(each, _interrupt)
    sys.unraisablehook = _raise_again


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _raise_again(dropped: Any) -> None:
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)
        return
    number = dropped.exc_value.number
    signal.signal(signal.SIGALRM, lambda *_: _interrupt(number, None))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
