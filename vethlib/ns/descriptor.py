"""File descriptors that close themselves, even if a signal handler raises between open() and the assignment.

A number from ``os.open`` is lost if KeyboardInterrupt is raised right after the call, and the namespace is then kept
alive until the process ends. So opening and owning are one C call, during which no signal handler runs, and the owner
closes the descriptor with its last reference. ``select.epoll`` is the only type of the standard library that can own
any descriptor and closes it silently; it is never used for polling here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

from vethlib._primitives import posix, select
from vethlib.errors import NotSupported

if TYPE_CHECKING:
    Descriptor: TypeAlias = select.epoll
else:
    Descriptor = getattr(select, "epoll", None)

__all__ = ["HERE", "OPEN_FLAGS", "Descriptor", "current", "duplicated", "opened"]

HERE = "/proc/thread-self/ns/net"  # never /proc/self: that is the main thread's namespace, not the caller's
# O_NONBLOCK and O_NOCTTY have no effect on a namespace, and make opening a FIFO or a terminal harmless.
OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
    OPEN_FLAGS |= getattr(os, _flag, 0)


def _own_nothing(fd: int) -> Descriptor:
    os.close(fd)
    raise NotSupported("network namespaces need Linux", errno=errno.ENOSYS)


_own: Callable[[int], Descriptor] = getattr(Descriptor, "fromfd", _own_nothing)


def opened(path: str, flags: int = OPEN_FLAGS) -> Descriptor:
    """Open `path` and return the owner of the descriptor. Raises OSError like ``os.open``."""
    return next(map(_own, map(posix.open, (path,), (flags,))))


def duplicated(fd: int) -> Descriptor:
    """Duplicate `fd` (close-on-exec) and return the owner of the new descriptor."""
    return next(map(_own, map(os.dup, (fd,))))


_current: Callable[[], Descriptor] = map(_own, map(posix.open, repeat(HERE), repeat(OPEN_FLAGS))).__next__


def current() -> Descriptor:
    """Open the calling thread's own network namespace: a descriptor that closes itself with its last reference.

    Takes 4 to 6 µs. Raises OSError like ``os.open``.
    """
    return _current()
