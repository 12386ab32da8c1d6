"""inotify(7) through inotify_simple, which is a literal wrapper of its calls."""

from __future__ import annotations

import ctypes

import inotify_simple  # type: ignore[import-untyped]
from inotify_simple import INotify, flags

__all__ = ["INotify", "flags"]

# Else it asks ctypes.util.find_library(), which runs ldconfig: a fork, and 17 ms.
inotify_simple._libc = ctypes.CDLL(None, use_errno=True)
