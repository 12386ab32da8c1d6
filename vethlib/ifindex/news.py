"""One descriptor for all that a user may wait for: what the kernel has queued, and what was applied but not fetched."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["News"]


class _HasFileno(Protocol):
    def fileno(self) -> int:
        """The descriptor."""


class News:
    """An epoll over the event sockets and a flag. Threads may wait, each for itself.

    A descriptor that is closed does not wake who waits for it, so :meth:`close` raises the flag, and the last one that
    waits closes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._closing = False
        self._raised = False
        self._epoll = select.epoll()
        try:
            self._flag = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except BaseException:
            self._epoll.close()
            raise
        self._epoll.register(self._flag, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable while the flag is up or a socket has something; to be polled like any other descriptor."""
        return self._epoll.fileno()

    def add(self, socket: _HasFileno) -> None:
        """Wait for this one, too, until it is closed."""
        self._epoll.register(socket, select.EPOLLIN)

    def readable(self) -> list[int]:
        """The descriptors that have something now."""
        return [fd for fd, _ in self._epoll.poll(0)]

    def set_flag(self, up: bool) -> None:
        """Raise or lower the flag."""
        if up and not self._raised:
            os.eventfd_write(self._flag, 1)
        elif self._raised and not up:
            os.eventfd_read(self._flag)
        self._raised = up

    def wait(self, timeout: float | None) -> None:
        """Wait up to `timeout` seconds (None: for as long as it takes) until there is something."""
        with self._in_use() as usable:
            if usable:
                self._epoll.poll(timeout)

    async def wait_async(self) -> None:
        """Wait in the running event loop until there is something. No thread, nothing left when cancelled."""
        import asyncio  # 30 ms, for those who have it already

        with self._in_use() as usable:
            if not usable:
                return
            loop = asyncio.get_running_loop()
            something = loop.create_future()
            # A loop has one reader for a descriptor, and several may wait in it: each has its own.
            fd = os.dup(self._epoll.fileno())
            try:
                loop.add_reader(fd, _wake, something)
                try:
                    await something
                finally:
                    loop.remove_reader(fd)
            finally:
                os.close(fd)

    @contextmanager
    def _in_use(self) -> Iterator[bool]:
        with self._lock:
            if usable := not self._closing:
                self._waiting += 1
        try:
            yield usable
        finally:
            if usable:
                with self._lock:
                    self._waiting -= 1
                    self._release()

    def close(self) -> None:
        """Wake all that wait; from now on waiting returns at once."""
        with self._lock:
            self._closing = True
            if self._waiting:
                os.eventfd_write(self._flag, 1)
            self._release()

    def _release(self) -> None:
        if self._closing and not self._waiting:
            self.close_here()

    def close_here(self) -> None:
        """Close the descriptors, and nothing else: what a forked child may do."""
        self._epoll.close()
        if self._flag >= 0:
            os.close(self._flag)
            self._flag = -1


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
