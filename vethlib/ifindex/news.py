"""A single descriptor to wait for: events that the kernel has queued, and changes that were applied but not fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from vethlib._primitives import Lock, select
from vethlib.ns.deadline import LONGEST

if TYPE_CHECKING:
    import asyncio

__all__ = ["News"]


class _HasFileno(Protocol):
    def fileno(self) -> int:
        """Return the descriptor."""


class News:
    """An epoll over the event sockets and a flag. Any number of threads can wait.

    Closing a descriptor does not wake the threads that wait for it. So :meth:`close` only raises the flag, and the last
    waiting thread closes the descriptor.
    """

    def __init__(self) -> None:
        self._lock = Lock()
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
        """Return a descriptor that is readable while the flag is raised or a socket has events."""
        return self._epoll.fileno()

    def add(self, socket: _HasFileno) -> None:
        """Also wait for this socket, until it is closed."""
        self._epoll.register(socket, select.EPOLLIN)

    def readable(self) -> list[int]:
        """Return the descriptors that are readable now."""
        return [fd for fd, _ in self._epoll.poll(0)]

    def set_flag(self, up: bool) -> None:
        """Raise or lower the flag."""
        if up and not self._raised:
            os.eventfd_write(self._flag, 1)
        elif self._raised and not up:
            os.eventfd_read(self._flag)
        self._raised = up

    def wait(self, timeout: float | None) -> None:
        """Wait until something is ready, for up to `timeout` seconds (None: no limit), but no longer than an hour."""
        with self._in_use() as usable:
            if usable:
                self._epoll.poll(LONGEST if timeout is None else min(timeout, LONGEST))

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait in the running event loop, up to `timeout` seconds, until something is ready.

        It uses no thread, and can be cancelled.
        """
        import asyncio  # takes 30 ms, but callers have already imported it

        with self._in_use() as usable:
            if not usable:
                return
            loop = asyncio.get_running_loop()
            something = loop.create_future()
            # A loop has one reader per descriptor, and several tasks may wait, so each has its own descriptor.
            fd = os.dup(self._epoll.fileno())
            timer = None if timeout is None else loop.call_later(timeout, _wake, something)
            try:
                loop.add_reader(fd, _wake, something)
                try:
                    await something
                finally:
                    loop.remove_reader(fd)
            finally:
                if timer is not None:
                    timer.cancel()
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
        """Wake all waiting threads; from now on, waiting returns at once."""
        with self._lock:
            self._closing = True
            if self._waiting:
                os.eventfd_write(self._flag, 1)
            self._release()

    def _release(self) -> None:
        if self._closing and not self._waiting:
            self.close_here()

    def close_here(self) -> None:
        """Close only the descriptors, as a forked child may do."""
        self._epoll.close()
        if self._flag >= 0:
            os.close(self._flag)
            self._flag = -1


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
