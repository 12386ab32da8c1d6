"""Interrupt a call at any place where CPython may run a signal handler that raises an exception."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

__all__ = ["Interrupting"]


class Interrupting:
    """Raises KeyboardInterrupt at the n-th place of some files where CPython may run a signal handler.

    These places are the first instruction of a function and the return of a C call (see vethlib/ns/entering.py).
    """

    def __init__(self, at: int, files: Container[str]) -> None:
        self._left = at
        self._files = files
        self.fired = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename in self._files:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                self.fired = True
                raise KeyboardInterrupt

    def run(self, call: Callable[[], object]) -> None:
        """Make this call, and interrupt it, unless it has fewer places."""
        sys.setprofile(self)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
