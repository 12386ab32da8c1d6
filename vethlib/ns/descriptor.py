"""File descriptors that close themselves, even where a signal handler raises between open() and the assignment.

A number from ``os.open`` is lost if KeyboardInterrupt comes right after the call, and with it the namespace stays
pinned until the process ends. So opening and owning happen inside one C call, between whose parts no signal handler
runs, and the owner closes when its last reference goes. ``select.epoll`` is the one type of the standard library
that will own any descriptor and close it so without a word; nothing is ever polled with it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

from ..errors import NotSupported

if TYPE_CHECKING:
    Descriptor: TypeAlias = select.epoll
else:
    Descriptor = getattr(select, "epoll", None)

__all__ = ["HERE", "OPEN_FLAGS", "Descriptor", "current", "duplicated", "opened"]

HERE = "/proc/thread-self/ns/net"  # never /proc/self: that is the main thread's namespace, not the caller's
# O_NONBLOCK and O_NOCTTY mean nothing to a namespace, and keep a FIFO or a terminal of that name harmless.
OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
    OPEN_FLAGS |= getattr(os, _flag, 0)


def _own_nothing(fd: int) -> Descriptor:
    os.close(fd)
    raise NotSupported("network namespaces need Linux")


_own: Callable[[int], Descriptor] = getattr(Descriptor, "fromfd", _own_nothing)


def opened(path: str, flags: int = OPEN_FLAGS) -> Descriptor:
    """`path`, opened and owned. OSError as from ``os.open``."""
    return next(map(_own, map(os.open, (path,), (flags,))))


def duplicated(fd: int) -> Descriptor:
    """A second descriptor (close-on-exec) of what `fd` is open on, owned."""
    return next(map(_own, map(os.dup, (fd,))))


current: Callable[[], Descriptor] = map(_own, map(os.open, repeat(HERE), repeat(OPEN_FLAGS))).__next__
"""The calling thread's own network namespace, opened and owned: 4 to 6 µs. OSError as from ``os.open``."""
