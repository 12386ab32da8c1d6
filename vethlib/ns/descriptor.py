"""File descriptors that close themselves, even if a signal handler raises between open() and the assignment.

A number from ``os.open`` is lost if KeyboardInterrupt is raised right after the call, and the namespace is then kept
alive until the process ends. So opening and owning are one C call, during which no signal handler runs, and the owner
closes the descriptor with its last reference. ``select.epoll`` is the only type of the standard library that can own
any descriptor and closes it silently; it is never used for polling here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

from vethlib._primitives import posix, select
from vethlib.errors import NotSupported

if TYPE_CHECKING:
    Descriptor: TypeAlias = select.epoll
else:
    Descriptor = getattr(select, "epoll", None)

__all__ = ["HERE", "OPEN_FLAGS", "Descriptor", "current", "duplicated", "limits", "make_file", "opened", "owned"]

HERE = "/proc/thread-self/ns/net"  # never /proc/self: that is the main thread's namespace, not the caller's
# O_NONBLOCK and O_NOCTTY have no effect on a namespace, and make opening a FIFO or a terminal harmless.
OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
    OPEN_FLAGS |= getattr(os, _flag, 0)

_USUAL_LIMIT = 1024  # systemd.exec(5), INR_OPEN_CUR


def _own_nothing(fd: int) -> Descriptor:
    os.close(fd)
    raise NotSupported("network namespaces need Linux", errno=errno.ENOSYS)


_own: Callable[[int], Descriptor] = getattr(Descriptor, "fromfd", _own_nothing)


def opened(path: str, flags: int = OPEN_FLAGS) -> Descriptor:
    """Open `path` and return the owner of the descriptor. Raises OSError like ``os.open``."""
    return next(map(_own, map(posix.open, (path,), (flags,))))


def owned(call: Callable[..., int], *arguments: object) -> Descriptor:
    """Call a function written in C with one or more arguments, and return the owner of the descriptor that it returns.

    Raises what the function raises.
    """
    return next(map(_own, map(call, *zip(arguments, strict=True))))


def duplicated(fd: int) -> Descriptor:
    """Duplicate `fd` (close-on-exec) and return the owner of the new descriptor."""
    return next(map(_own, map(os.dup, (fd,))))


_current: Callable[[], Descriptor] = map(_own, map(posix.open, repeat(HERE), repeat(OPEN_FLAGS))).__next__


def current() -> Descriptor:
    """Open the calling thread's own network namespace: a descriptor that closes itself with its last reference.

    Takes 4 to 6 µs. Raises OSError like ``os.open``.
    """
    return _current()


def make_file(path: str, made: list[None]) -> None:
    """Create an empty file, and note it in `made` within the same C call, so that no interrupt can come in between."""
    try:
        made.extend(map(os.mknod, (path,), (stat.S_IFREG,)))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise
        # A sandbox (seccomp) refuses mknod(2), which can also create device files.
        opening = map(posix.open, (path,), (os.O_CREAT | os.O_EXCL | OPEN_FLAGS,), (0,))
        made.extend(map(Descriptor.close, map(_own, opening)))


def limits() -> tuple[int, int]:
    """Return the soft and the hard limit of descriptors of this process (RLIMIT_NOFILE)."""
    import resource  # only Unix has it

    try:
        return resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # a sandbox (seccomp) refuses prlimit64(2)
        return _USUAL_LIMIT, _USUAL_LIMIT
