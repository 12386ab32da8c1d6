"""inotify(7), by a private instance of inotify_simple, which wraps each system call."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

from vethlib._primitives import original_os, privately, select, time
from vethlib.errors import NetlinkError, VethError

if TYPE_CHECKING:
    import inotify_simple as _simple  # type: ignore[import-untyped]
else:
    try:
        _simple = privately("inotify_simple", os=original_os(), select=select, time=time)
    except ModuleNotFoundError:
        raise VethError("following files needs the package inotify_simple: pip install vethlib") from None
    # Otherwise it calls ctypes.util.find_library(), which runs ldconfig: a fork, and 17 ms.
    _simple._libc = ctypes.CDLL(None, use_errno=True)

__all__ = ["INotify", "flags"]

flags = _simple.flags


class INotify(_simple.INotify):  # type: ignore[misc]
    """An inotify instance. If a limit is reached, it raises NetlinkError, which names the limit; else OSError."""

    def __init__(self, *, nonblocking: bool = False) -> None:
        try:
            super().__init__(nonblocking=nonblocking)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            # The kernel has one errno for both limits.
            limit = "file descriptor is left in this process: raise its limit (ulimit -n)"
            if _has_descriptors():
                limit = "inotify instance is left for this user: raise the sysctl fs.inotify.max_user_instances"
            raise NetlinkError(f"no {limit}", errno=errno.EMFILE, request="inotify_init1") from None

    def add_watch(self, path: str | os.PathLike[str], mask: int) -> int:
        """Watch a file; return the number of the watch."""
        try:
            return int(super().add_watch(path, mask))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            message = "no inotify watch is left for this user: raise the sysctl fs.inotify.max_user_watches"
            raise NetlinkError(message, errno=errno.ENOSPC, request="inotify_add_watch") from None


def _has_descriptors() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
