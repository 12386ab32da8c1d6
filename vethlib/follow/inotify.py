"""inotify(7), by a private instance of inotify_simple, which wraps each system call."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from vethlib._primitives import original_os, privately, select, time

if TYPE_CHECKING:
    from inotify_simple import INotify, flags  # type: ignore[import-untyped]
else:
    _simple = privately("inotify_simple", os=original_os(), select=select, time=time)
    # Otherwise it calls ctypes.util.find_library(), which runs ldconfig: a fork, and 17 ms.
    _simple._libc = ctypes.CDLL(None, use_errno=True)
    INotify, flags = _simple.INotify, _simple.flags

__all__ = ["INotify", "flags"]
