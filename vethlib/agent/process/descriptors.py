"""The file descriptors of a process: the highest limit that it may set, and a reserve for work that must not fail."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vethlib.ns.descriptor import limits

__all__ = ["EXHAUSTED", "Reserve", "as_given", "limit", "raise_limit"]

_given: tuple[int, int] | None = None  # the limits before they were raised

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accept() and open() without a free descriptor or without memory."""


def limit() -> int:
    """Return the maximum number of descriptors of this process (the soft limit of RLIMIT_NOFILE)."""
    return limits()[0]


def raise_limit() -> None:
    """Raise the soft limit of this process to the hard one."""
    global _given
    soft, hard = limits()
    if soft == hard:
        return
    with suppress(OSError, ValueError):  # seccomp forbids it, or fs.nr_open is lower
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given = _given or (soft, hard)


@contextmanager
def as_given(number: int, *, highest: int) -> Iterator[Callable[[int], None]]:
    """Create a child in this block with the limits that this process was started with.

    Programs that use select(2) fail with numbers above 1023, so children must not inherit the raised limit, and
    posix_spawn(3) has no attribute for it. `number` descriptors are open, and `highest` is the highest that the
    child is given or closes. If that one and descriptors that other threads open meanwhile fit below the old limit,
    that limit is set during the block. Otherwise the yielded function sets it for the child, which may have read the
    raised one before.
    """
    if _given is None:
        yield _leave
    elif number >= _given[0] // 2 or highest >= _given[0]:  # posix_spawn refuses a number beyond the limit
        yield _give_back
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, _given)
        try:
            yield _leave
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_given[1], _given[1]))


def _leave(_: int) -> None:
    """Do nothing, because the child has inherited its limits."""


def _give_back(pid: int) -> None:
    assert _given is not None
    with suppress(OSError, ValueError):  # it has ended, or seccomp forbids it
        resource.prlimit(pid, resource.RLIMIT_NOFILE, _given)


class Reserve:
    """Descriptors in reserve, for use when no other is left: to turn away clients, or to write an essential file."""

    def __init__(self, number: int = 1) -> None:
        self._number = number
        self._spare: list[int] = []
        self.keep()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Free the reserve during the block."""
        self._give_up()
        try:
            yield
        finally:
            self.keep()

    def spend(self) -> bool:
        """Free a descriptor of the reserve; return False if there is none. :meth:`keep` fills the reserve again."""
        if not self._spare:
            return False
        os.close(self._spare.pop())
        return True

    def keep(self) -> None:
        """Fill the reserve again, as far as possible."""
        with suppress(OSError):
            while len(self._spare) < self._number:
                self._spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def accept(self, listening: socket.socket) -> socket.socket | None:
        """Accept a connection; return None if there is none.

        Without a free descriptor, the connection is closed at once by means of the reserve. Raises OSError if that is
        not possible either; the caller should try again later.
        """
        try:
            return listening.accept()[0]
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in EXHAUSTED:
                return None  # the client has disconnected, or a network error is pending (accept(2))
            if not self._spare:
                raise
        with self.lent():
            try:
                listening.accept()[0].close()
            except BlockingIOError:
                pass
        return None

    def close(self) -> None:
        """Close the reserve for good."""
        self._number = 0
        self._give_up()

    def _give_up(self) -> None:
        while self._spare:
            os.close(self._spare.pop())
