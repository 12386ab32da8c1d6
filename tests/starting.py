"""Interrupt the start of a thread, as CPython does."""

from __future__ import annotations

import threading

__all__ = ["wait_interrupted"]

_wait = threading.Event.wait


def wait_interrupted(event: threading.Event, timeout: float | None = None) -> bool:
    """Replace Event.wait(): it is interrupted in the main thread before the lock of its condition is held again."""
    if threading.current_thread() is not threading.main_thread():
        return _wait(event, timeout)
    with event._cond:  # type: ignore[attr-defined]
        event._cond.release()  # type: ignore[attr-defined]
        raise KeyboardInterrupt
