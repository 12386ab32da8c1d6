"""Run code of the calling thread in another network namespace, and always return.

A network namespace belongs to a thread (setns(2), task_struct.nsproxy): no other thread notices any of this. But
signal handlers do, which CPython runs in the main thread, wherever that is at the moment.

KeyboardInterrupt is raised when CPython runs signal handlers, which it does in three places only: at the first
instruction of a Python function (RESUME), at a backward jump, and after a call of a C function (Python/ceval.c, the
eval breaker); never between two plain instructions. Hence the rules that everything below follows:

1. The call that leaves the home namespace is inside the ``try`` whose handler returns, because an interrupt may be
   raised right after it.
2. The call that returns is a C function, and the first call of that handler. Nothing before it can be interrupted, and
   an interrupt after it finds the thread back in its own namespace.
3. The function that ``with`` calls at the end of a block is C, too. A Python ``__exit__`` could be interrupted at its
   RESUME, when its own ``try`` has not begun and that of the block has ended. A ``functools.partial`` of setns is C
   throughout.
4. ``__enter__`` is Python: nothing between its last instruction and the block can be interrupted. (Since 3.14, ``with``
   compiles to an ordinary CALL of it, which checks for signals afterwards if the called function is C.)
5. Errors of setns are raised by ctypes errcheck functions, which are Python, but run after the system call.
6. If a function here calls another one inside the namespace, an outer handler returns once more, so that the thread is
   back even after an exception between two plain instructions, which only a tracer can raise. Returning twice is
   harmless. A function with a handler has no loop: on Python 3.13, the jump at its end is covered by no handler.

setns needs CAP_SYS_ADMIN even if it changes nothing (netns_install, net/core/net_namespace.c). So a refusal is ignored
if the thread is already in that namespace: work in one's own namespace needs no capability here.

Returning needs a descriptor of the namespace that was left. It has an owner (see descriptor.py), so that an interrupt
cannot leak it, and it is closed as soon as the thread is back.

Returning also needs CAP_SYS_ADMIN in the user namespace that owns that namespace, which a thread can lack although it
may enter others: in a rootless container with the network of its host, for example. So before a thread leaves for the
first time, it enters the namespace that it is in: if that is refused, it stays. Once is enough. Any namespace that the
thread enters later, it can enter again; and a process can move to another user namespace only while it has one thread
(userns_install, unshare_userns), in practice right after fork, which is why a forked child checks again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vethlib._primitives import local
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, NotPermitted, VethError, errno_text, not_permitted

from . import greenlets, own
from .descriptor import HERE, Descriptor, current
from .reference import LARGEST_FD, HasFileno, Resolver, not_opened, open_owned, parse
from .syscalls import CLONE_NEWNET, bind, ns_owner

__all__ = [
    "Block",
    "NotesEntry",
    "call_at_home",
    "call_in",
    "call_in_new",
    "can_enter",
    "entered",
    "is_here",
    "map_in",
    "map_in_new",
    "note_entered",
]

T = TypeVar("T")


_modules = sys.modules


def _check_entered(result: int, _function: Any, arguments: tuple[Any, ...]) -> None:
    if result == -1:
        number = ctypes.get_errno()
        if number != errno.EPERM or not is_here(arguments[0]):
            raise _not_entered(number, arguments[0])


def is_here(fd: int) -> bool:
    """Return whether the calling thread is in the namespace of `fd`."""
    try:
        there, here = os.fstat(fd), os.stat(HERE)
    except (OSError, OverflowError):
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _not_entered(number: int, fd: int) -> VethError:
    if number == errno.EPERM:
        message = "entering a network namespace needs CAP_SYS_ADMIN in its owner and in the caller's user namespace"
        return not_permitted(message, "CAP_SYS_ADMIN", errno=number, netns=f"fd:{fd}")
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
        raise not_permitted("creating a network namespace needs CAP_SYS_ADMIN", "CAP_SYS_ADMIN", errno=number)
    reason = errno_text(number)
    if number == errno.ENOSPC:
        reason = "the limit of the sysctl user.max_net_namespaces is reached: raise it, or delete some namespaces"
    raise NetlinkError(f"cannot create a network namespace: {reason}", errno=number)


def _check_left(result: int, _function: Any, arguments: tuple[Any, ...]) -> None:
    home = arguments[0]
    if isinstance(home, _Home) and home.value < 0 and home.not_entered is not None:
        home.not_entered()
        return
    if result == -1:
        _check_at_home(ctypes.get_errno(), getattr(home, "value", home))
    if isinstance(home, _Home):
        home.close()
        if "greenlet" in _modules:
            greenlets.left()


def _check_at_home(number: int, fd: int) -> None:
    # Without CAP_SYS_ADMIN, both leaving and returning fail, but then the thread has never left.
    if not is_here(fd):
        kind = NotPermitted if number == errno.EPERM else NetlinkError
        message = f"this thread cannot return and is still in another network namespace: {errno_text(number)}"
        raise kind(message, errno=number)


class _Home(ctypes.c_int):
    """The descriptor by which to return: its number (-1 until it is open), which C reads when called, and its owner."""

    owner: Descriptor
    not_entered: Callable[[], object] | None = None

    def open(self, target: int) -> None:
        self.owner = _home((target,))
        self.value = self.owner.fileno()
        own.note(self.value, self)

    def close(self) -> None:
        if not self.owner.closed:
            own.forget(self.value)
            self.owner.close()


_setns = (ctypes.c_int, ctypes.c_int)
_enter = bind("setns", *_setns, keep_gil=True, errcheck=_check_entered)
_leave = bind("setns", *_setns, keep_gil=True, errcheck=_check_left)
# The exception triple for __exit__ is passed in registers after the two arguments of setns, which C does not read.
_leave_block = bind("setns", *_setns, *[ctypes.py_object] * 3, keep_gil=True, errcheck=_check_left)
_try_to_enter = bind("setns", *_setns, keep_gil=True, errcheck=None)
_unshare = bind("unshare", ctypes.c_int, errcheck=_check_unshared)


def _current() -> Descriptor:
    try:
        return current()
    except OSError as error:
        raise not_opened(parse(""), error) from None


class _Thread(local):
    """Whether the calling thread is known to be able to return to its namespace."""

    can_return = False


_thread = _Thread()


def _forget_in_child() -> None:
    _thread.can_return = False  # it may move to another user namespace


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _home(targets: Iterable[int] | None) -> Descriptor:
    """Open the thread's namespace, to return to it from those of `targets`; None means from a new one.

    Raises NotPermitted, or NetlinkError, if the thread could not return.
    """
    home = _current()
    if not _thread.can_return:
        try:
            _check_way_back(home.fileno(), targets)
        except BaseException:
            home.close()  # at once, for a traceback keeps this frame
            raise
    return home


def _check_way_back(home: int, targets: Iterable[int] | None) -> None:
    if _try_to_enter(home, CLONE_NEWNET) == 0:
        _thread.can_return = True
        return
    number = ctypes.get_errno()
    if targets is None:
        raise _no_way_back(number, home)
    for fd in targets:
        if _is_elsewhere(fd, home):
            raise _no_way_back(number, home, f"fd:{fd}")


def _is_elsewhere(fd: int, home: int) -> bool:
    """Return whether `fd` may be another network namespace; anything else cannot be entered anyway."""
    try:
        there, here = os.fstat(fd), os.fstat(home)
    except OSError:
        return False
    return there.st_dev == here.st_dev and there.st_ino != here.st_ino


def _no_way_back(number: int, home: int, netns: str = "") -> VethError:
    if number != errno.EPERM:
        message = f"setns is refused: a thread could not return from another network namespace: {errno_text(number)}"
        return NetlinkError(message, errno=number, netns=netns)
    message = "moving between network namespaces needs CAP_SYS_ADMIN in their owners and in the caller's user namespace"
    if ns_owner(home) is None:
        message += "; the network namespace of this thread belongs to another user namespace, so it could not return"
    return not_permitted(message, "CAP_SYS_ADMIN", errno=number, netns=netns)


if TYPE_CHECKING:
    _Partial = partial[None]
else:
    _Partial = partial


class Block(_Partial):
    """The context manager of :func:`entered`, for one block: the call that ends the block, and its beginning.

    `target` is the namespace to enter. A call at the end of a block that was never begun calls `not_entered` instead.
    """

    __slots__ = ("_home", "target")
    _home: _Home
    target: Descriptor | None

    def __new__(cls, target: Descriptor | None = None, not_entered: Callable[[], object] | None = None) -> Block:
        """Return a block that has not been entered yet."""
        home = _Home(-1)
        home.not_entered = not_entered
        self = super().__new__(cls, _leave_block, home, CLONE_NEWNET)
        self._home = home
        self.target = target
        return self

    def __enter__(self) -> None:
        home, target = self._home, self.target
        if target is None:
            raise RuntimeError("this block was entered before: call entered() for each")
        self.target = None
        try:
            home.open(target.fileno())
        except BaseException:
            target.close()
            raise
        try:
            if "greenlet" in _modules:
                greenlets.entering(home.owner)
            _enter(target.fileno(), CLONE_NEWNET)
            target.close()  # from here on, the thread inside keeps the namespace alive
        except BaseException:
            _leave(home, CLONE_NEWNET)
            target.close()
            raise

    __exit__ = partial.__call__


def entered(ref: str | HasFileno | None, resolver: Resolver | None = None) -> AbstractContextManager[None]:
    """Enter another network namespace with the calling thread for the duration of a ``with`` block.

        with entered("blue"):
            server = socket.create_server(("", 80))

    Blocks can be nested; each returns to the previous namespace of its thread. Only the thread itself keeps the
    namespace alive meanwhile. Do not use ``yield`` or ``await`` in a block, because other code in this thread would run
    in that namespace, too; so do signal handlers, if this is the main thread. Greenlets (gevent, eventlet) may switch,
    however: the others do not run in that namespace.

    Raises like :func:`~vethlib.ns.open_owned`, and :class:`NotPermitted` without CAP_SYS_ADMIN.
    """
    block = Block(open_owned(ref, resolver))
    note_entered(ref)
    return block


class NotesEntry:
    """A namespace reference that remembers whether its namespace was entered through it: a Netns, or a node."""

    __slots__ = ()

    def _note_entered(self) -> None:
        raise NotImplementedError


def note_entered(ref: object) -> None:
    """Note in a Netns, or in a node, that a thread or a program is about to enter its namespace."""
    if isinstance(ref, NotesEntry):
        ref._note_entered()


def call_in(fd: int, function: Callable[[], T]) -> T:
    """Call `function` with the calling thread in the namespace of `fd`, and return its result.

    This takes 8 to 10 µs. A socket created by `function` belongs to that namespace, wherever it is used later. Raises
    any error of `function`, and NotPermitted without CAP_SYS_ADMIN in the user namespace that owns `fd`'s
    (netns_install, net/core/net_namespace.c).
    """
    _check_fd(fd)
    home = _home((fd,))
    back = home.fileno()
    try:
        try:
            if "greenlet" in _modules:
                greenlets.entering(home)
            _enter(fd, CLONE_NEWNET)
            return function()
        finally:
            _leave(back, CLONE_NEWNET)
    except BaseException:
        _leave(back, CLONE_NEWNET)  # rule 6
        raise
    finally:
        home.close()
        if "greenlet" in _modules:
            greenlets.left()


def _check_fd(fd: int) -> None:
    # The C library would take only the lower 32 bits of a number, which may be those of another descriptor.
    if not isinstance(fd, int) or not -LARGEST_FD <= fd <= LARGEST_FD:
        raise InvalidValue("fd", fd, "must be an open descriptor, such as the fd of a Netns")


def call_at_home(fd: int, function: Callable[[], T]) -> T:
    """Call `function` like :func:`call_in`, but without entering if the namespace is the calling thread's own."""
    return function() if is_here(fd) else call_in(fd, function)


def can_enter() -> bool:
    """Return whether the calling thread can leave its namespace for others, and return.

    For that, it needs CAP_SYS_ADMIN in its own user namespace and in the owner of its network namespace. A namespace
    that belongs to another user namespace may still refuse it (netns_install, net/core/net_namespace.c).
    """
    with _current() as home:
        return bool(_try_to_enter(home.fileno(), CLONE_NEWNET) == 0)  # where it is already


def map_in(fds: Iterable[int], function: Callable[[], T]) -> list[T]:
    """Call `function` in each of the namespaces, one after the other, and return the results.

    This takes 2 µs per namespace in addition to one :func:`call_in`. If a call raises, earlier results that have a
    ``close()`` are closed.
    """
    fds = list(fds)
    for fd in fds:
        _check_fd(fd)
    return _map([partial(_enter, fd, CLONE_NEWNET) for fd in fds], fds, function)


def map_in_new(count: int, function: Callable[[], T]) -> list[T]:
    """Create `count` network namespaces, call `function` in each, and return the results.

    As with :func:`call_in_new`, a namespace ends unless the call keeps it. As with :func:`map_in`, earlier results are
    closed if a call raises.
    """
    return _map([partial(_unshare, CLONE_NEWNET)] * count, None, function)


def _map(ways: list[Callable[[], None]], targets: Iterable[int] | None, function: Callable[[], T]) -> list[T]:
    """Enter a namespace by each of the `ways`, directly from one to the next, and call `function` in each.

    The ways are a list, because the code of an iterator must not run in another namespace. `targets` is as in _home.
    """
    results: list[T] = []
    home = _home(targets)
    back = home.fileno()
    try:
        try:
            if "greenlet" in _modules:
                greenlets.entering(home)
            _go(ways, function, results)
        finally:
            _leave(back, CLONE_NEWNET)
    except BaseException:
        _leave(back, CLONE_NEWNET)  # rule 6
        _close_all(results)
        raise
    finally:
        home.close()
        if "greenlet" in _modules:
            greenlets.left()
    return results


def _go(ways: list[Callable[[], None]], function: Callable[[], T], results: list[T]) -> None:
    for go in ways:
        go()
        results.append(function())


def _close_all(results: list[T]) -> None:
    for result in results:
        if hasattr(result, "close"):
            result.close()


def call_in_new(function: Callable[[], T]) -> T:
    """Create a network namespace, call `function` in it, and return its result.

    The namespace ends with the call unless `function` keeps it: opens it, mounts it, or leaves a socket in it.
    Raises any error of `function`, and NotPermitted without CAP_SYS_ADMIN.
    """
    return map_in_new(1, function)[0]
