"""Keep greenlets of one thread in their own network namespaces.

A greenlet may switch to another inside a block, as in every blocking call of gevent and eventlet. The other greenlet
runs in the same thread, and would run in the namespace of the block. So a thread that enters a namespace traces
switches (``greenlet.settrace``): a greenlet in a block leaves the namespace when it is switched away from, and is back
in it afterwards; all other greenlets run in the home namespace.

This is based on the present namespace of the thread, not on a count of blocks, which an interrupt could falsify.

An entry in sys.modules does not mean that there are greenlets: tests set it to None, and another thread may be
importing the module. Callers on a hot path check for the entry, and the functions here for the module.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from vethlib._primitives import local

from .descriptor import HERE, Descriptor, current, duplicated
from .syscalls import CLONE_NEWNET, bind

__all__ = ["entering", "key", "left"]

_setns = bind("setns", ctypes.c_int, ctypes.c_int, keep_gil=True)

_modules = sys.modules


class _Threads(local):
    """The follower of each thread."""

    followed: _Follower | None = None


_threads = _Threads()


def _imported() -> Any:
    """Return the module greenlet; None if it is not imported, or not completely, or cannot trace switches."""
    greenlet = _modules.get("greenlet")
    is_usable = hasattr(greenlet, "settrace") and hasattr(greenlet, "gettrace") and hasattr(greenlet, "getcurrent")
    return greenlet if is_usable else None


def key() -> int:
    """Return a number for the greenlet that runs in this thread; 0 is the main one, also without the module.

    So the number of the main greenlet stays the same when the module is imported.
    """
    greenlet = _imported()
    if greenlet is None:
        return 0
    running = greenlet.getcurrent()
    return 0 if running.parent is None else id(running)


def entering(home: Descriptor) -> None:
    """Take the thread back to `home` whenever it switches to another greenlet, until :func:`left` is called.

    Without greenlets, do nothing.
    """
    follower = _threads.followed
    if follower is None:
        greenlet = _imported()
        if greenlet is None:
            return
        follower = _Follower(greenlet, home)
        try:
            follower.begin()
            _threads.followed = follower  # only now, when it traces: one that does not is never taken for it
        except BaseException:
            follower.end()
            raise
    follower.depth += 1


def left() -> None:
    """Note that a block has been left."""
    follower = _threads.followed
    if follower is not None:
        follower.depth -= 1
        if follower.depth <= 0 and not follower.away:
            follower.end()


class _Follower:
    """Move one thread to the namespace of its running greenlet."""

    def __init__(self, greenlet: Any, home: Descriptor) -> None:
        self.depth = 0
        self._greenlet = greenlet
        self._home = duplicated(home.fileno())
        self._identity = _identity(os.fstat(self._home.fileno()))
        self.away: dict[int, Descriptor] = {}  # the namespaces of greenlets that wait inside a block
        self._before: Any = None

    def begin(self) -> None:
        self._before = self._greenlet.settrace(self._switched)

    def end(self) -> None:
        """Stop tracing switches."""
        _threads.followed = None
        if self._greenlet.gettrace() == self._switched:
            self._greenlet.settrace(self._before)
        self._home.close()

    def _switched(self, event: str, greenlets: tuple[object, object]) -> None:
        if self._before is not None:
            self._before(event, greenlets)
        if self._home.closed:
            return  # another trace function calls this one after its end
        origin, target = greenlets
        try:
            if _identity(os.stat(HERE)) != self._identity:
                self.away[id(origin)] = current()
                _setns(self._home.fileno(), CLONE_NEWNET)
            if (inside := self.away.pop(id(target), None)) is not None:
                _setns(inside.fileno(), CLONE_NEWNET)
                inside.close()
            elif not self.away:
                self.end()
        except BaseException:
            _setns(self._home.fileno(), CLONE_NEWNET)
            raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
