"""Running code of the calling thread in another network namespace, and always coming back.

A network namespace belongs to a thread (setns(2), task_struct.nsproxy): no other thread notices any of this.

KeyboardInterrupt can come whenever CPython runs signal handlers, and it runs them in three places only: at the first
instruction of a Python function (RESUME), at a backward jump, and after a call of a C function (Python/ceval.c, the
eval breaker). Never between two plain instructions. From this follow the rules that everything below keeps:

1. The call that leaves home is inside the ``try`` whose handler goes back: the interrupt may come right after it.
2. The call that goes back is a C function, and the first call of that handler. Before it there is no place to be
   interrupted at, and an interrupt after it finds the thread at home.
3. What ``with`` calls at the end of a block is C, too. A Python ``__exit__`` could be interrupted at its RESUME,
   when its own ``try`` has not begun and that of the block has ended. A ``functools.partial`` of setns is C all
   through.
4. ``__enter__`` is Python: between its last instruction and the block there is no place to be interrupted at. (Since
   3.14 ``with`` makes an ordinary CALL of it, which looks for signals afterwards if what it called is C.)
5. Errors of setns are raised by ctypes errcheck functions, which are Python, but run after the system call.

The way back needs a descriptor of the namespace left. It is an owning one (see descriptor.py) so that an interrupt
cannot leak it, and it is closed as soon as the thread is home.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import NetlinkError, NetnsNotFound, NotPermitted, VethError, errno_text
from .descriptor import HERE, Descriptor, current
from .reference import HasFileno, Resolver, not_opened, open_owned, parse
from .syscalls import CLONE_NEWNET, bind

__all__ = ["call_in", "call_in_new", "entered", "map_in", "map_in_new"]

T = TypeVar("T")


def _check_entered(result: int, _function: Any, arguments: tuple[Any, ...]) -> None:
    if result == -1:
        raise _not_entered(ctypes.get_errno(), arguments[0])


def _not_entered(number: int, fd: int) -> VethError:
    if number == errno.EPERM:
        message = "entering a network namespace needs CAP_SYS_ADMIN, in one's own user namespace and in its owner"
        return NotPermitted(message, errno=number, netns=f"fd:{fd}")
    if number == errno.EBADF:
        return NetnsNotFound(f"fd {fd} is not open", netns=f"fd:{fd}")
    if number == errno.EINVAL:
        return NetnsNotFound(f"fd {fd} is not a network namespace", netns=f"fd:{fd}")
    return NetlinkError(f"cannot enter fd {fd}: {errno_text(number)}", errno=number, netns=f"fd:{fd}")


def _check_unshared(result: int, _function: Any, _arguments: tuple[Any, ...]) -> None:
    if result == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM:
        raise NotPermitted("making a network namespace needs CAP_SYS_ADMIN", errno=number)
    reason = errno_text(number)
    if number == errno.ENOSPC:
        reason = "as many as the sysctl user.max_net_namespaces allows are there: raise it, or delete some"
    raise NetlinkError(f"cannot make a network namespace: {reason}", errno=number)


def _check_left(result: int, _function: Any, arguments: tuple[Any, ...]) -> None:
    home = arguments[0]
    if result == -1:
        _check_at_home(ctypes.get_errno(), getattr(home, "value", home))
    if isinstance(home, _Home):
        home.close()


def _check_at_home(number: int, fd: int) -> None:
    # Without CAP_SYS_ADMIN the way out fails and so does the way back, but then there is nothing to go back from.
    try:
        home, here = os.fstat(fd), os.stat(HERE)
        at_home = (home.st_dev, home.st_ino) == (here.st_dev, here.st_ino)
    except OSError:
        at_home = False
    if not at_home:
        kind = NotPermitted if number == errno.EPERM else NetlinkError
        message = f"this thread cannot return and is still in another network namespace: {errno_text(number)}"
        raise kind(message, errno=number)


class _Home(ctypes.c_int):
    """The number of the descriptor to return by, which C reads when it is called, and what owns it."""

    owner: Descriptor

    def open(self) -> None:
        self.owner = _home()
        self.value = self.owner.fileno()

    def close(self) -> None:
        self.owner.close()


_setns = (ctypes.c_int, ctypes.c_int)
_enter = bind("setns", *_setns, keep_gil=True, errcheck=_check_entered)
_leave = bind("setns", *_setns, keep_gil=True, errcheck=_check_left)
# The exception triple that __exit__ is given travels in the registers behind setns's two, which C does not read.
_leave_block = bind("setns", *_setns, *[ctypes.py_object] * 3, keep_gil=True, errcheck=_check_left)
_unshare = bind("unshare", ctypes.c_int, errcheck=_check_unshared)


def _home() -> Descriptor:
    try:
        return current()
    except OSError as error:
        raise not_opened(parse(""), error) from None


if TYPE_CHECKING:
    _Partial = partial[None]
else:
    _Partial = partial


class _Block(_Partial):
    """What :func:`entered` returns: the call that ends the block, with a beginning. Good for one block."""

    __slots__ = ("_home", "_target")
    _home: _Home
    _target: Descriptor | None

    def __new__(cls, target: Descriptor) -> _Block:
        home = _Home(-1)
        self = super().__new__(cls, _leave_block, home, CLONE_NEWNET)
        self._home = home
        self._target = target
        return self

    def __enter__(self) -> None:
        home, target = self._home, self._target
        if target is None:
            raise RuntimeError("this block was entered before: call entered() for each")
        self._target = None
        home.open()
        try:
            _enter(target.fileno(), CLONE_NEWNET)
            target.close()  # from here on the namespace is kept by our being in it
        except BaseException:
            _leave(home, CLONE_NEWNET)
            target.close()
            raise

    __exit__ = partial.__call__


def entered(ref: str | HasFileno | None, resolver: Resolver | None = None) -> AbstractContextManager[None]:
    """A block during which the calling thread is in another network namespace.

        with entered("blue"):
            server = socket.create_server(("", 80))

    Blocks nest; each returns to where its thread was. Inside, the namespace is not kept alive by anything but the
    thread itself. Neither ``yield`` nor ``await`` in a block: who runs next in this thread would be in there, too.

    Raises what opening a reference raises (see :func:`~vethlib.ns.open_owned`), and :class:`NotPermitted` without
    CAP_SYS_ADMIN.
    """
    return _Block(open_owned(ref, resolver))


def call_in(fd: int, function: Callable[[], T]) -> T:
    """Call `function` with the calling thread in the namespace that `fd` is open on, and return what it returns.

    Costs 8 to 10 µs. A socket made in there belongs to that namespace, wherever it is used later. Raises what
    `function` raises, and NotPermitted without CAP_SYS_ADMIN in the user namespace that owns `fd`'s (netns_install,
    net/core/net_namespace.c).
    """
    home = _home()
    back = home.fileno()
    try:
        _enter(fd, CLONE_NEWNET)
        return function()
    finally:
        _leave(back, CLONE_NEWNET)
        home.close()


def map_in(fds: Iterable[int], function: Callable[[], T]) -> list[T]:
    """Call `function` in each of the namespaces, going from one to the next, and return what it returned in each.

    Costs 2 µs a namespace, on top of one :func:`call_in`. If a call raises, what the others returned is closed, where
    it has a ``close()``.
    """
    return _map([partial(_enter, fd, CLONE_NEWNET) for fd in fds], function)


def map_in_new(count: int, function: Callable[[], T]) -> list[T]:
    """Make `count` network namespaces, call `function` in each, and return what it returned in each.

    As :func:`call_in_new` and :func:`map_in`: what a call leaves behind keeps its namespace alive, and if one raises,
    what the others returned is closed.
    """
    return _map([partial(_unshare, CLONE_NEWNET)] * count, function)


def _map(ways: list[Callable[[], None]], function: Callable[[], T]) -> list[T]:
    """Go each of the `ways` into a namespace, from one to the next, and call `function` there.

    They are a list, since an iterator's own code is not to run elsewhere.
    """
    results: list[T] = []
    home = _home()
    back = home.fileno()
    try:
        try:
            for go in ways:
                go()
                results.append(function())
        finally:
            _leave(back, CLONE_NEWNET)
            home.close()
    except BaseException:
        for result in results:
            if hasattr(result, "close"):
                result.close()
        raise
    return results


def call_in_new(function: Callable[[], T]) -> T:
    """Make a network namespace, call `function` in it, and return what it returns.

    The namespace ends with the call unless `function` keeps it: opens it, mounts it, or leaves a socket in it.
    Raises what `function` raises, and NotPermitted without CAP_SYS_ADMIN.
    """
    home = _home()
    back = home.fileno()
    try:
        _unshare(CLONE_NEWNET)
        return function()
    finally:
        _leave(back, CLONE_NEWNET)
        home.close()
