"""The original functions of the standard library with which the core waits, reads and locks.

gevent and eventlet replace functions and classes of the standard library with variants that switch to another greenlet
instead of blocking; freezegun replaces the clocks, pytest-socket the class ``socket``. With a frozen clock no deadline
passes, and a switch inside another network namespace would run foreign code there. So vethlib does not use these
names where they are replaced:

1. Functions that are intact when vethlib is imported are copied at that time, to a module that nobody patches later.
2. Functions that were replaced before are taken from another, private instance of their module: the interpreter can
   create a second one of a module written in C (PEP 489), and :func:`privately` of a module written in Python.
3. The clock is always another instance, because freezegun searches all modules for the functions of the usual one, by
   identity and whatever their names.

Every call of vethlib therefore blocks its thread, with all greenlets in it, until it returns.

Some system calls are here, too, because Pythons that were built with old kernel headers (conda's, and earlier ones of
python-build-standalone, which uv installs) have no functions for them. Where the kernel lacks a call, too, the function
here raises OSError (ENOSYS).
"""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import os as posix
    import select
    import socket
    import threading
    import time
    from _thread import _local as local
    from _thread import start_new_thread as start_native
    from collections.abc import Callable, Iterable
    from os import memfd_create, pidfd_open
    from signal import pidfd_send_signal
    from threading import Lock, RLock, get_native_id

__all__ = [
    "Joinable",
    "Lock",
    "RLock",
    "are_threads_real",
    "begin",
    "do_in_threads",
    "for_caller",
    "get_native_id",
    "local",
    "memfd_create",
    "original_os",
    "pidfd_open",
    "pidfd_send_signal",
    "posix",
    "privately",
    "real_subprocess",
    "select",
    "socket",
    "start_native",
    "start_thread",
    "time",
]


T = TypeVar("T")


def _is_intact(module: ModuleType, *names: str) -> bool:
    """Return whether these functions and types of a module are the original ones."""
    return all(_is_own(getattr(module, name, None), module.__name__) for name in names)


def _is_own(thing: object, module: str) -> bool:
    if isinstance(thing, (type, FunctionType)):
        return thing.__module__ == module
    return isinstance(thing, BuiltinFunctionType)


def _copied(module: ModuleType, **replaced: Any) -> ModuleType:
    """Return a copy of a module, with some names `replaced`; later changes of `module` do not affect it."""
    copy = ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update(module.__dict__, **replaced)
    return copy


def _second(name: str) -> ModuleType:
    """Return another instance of a module that is written in C."""
    spec = (sys.modules.get(name) or importlib.import_module(name)).__spec__
    assert spec is not None
    loader: Any = spec.loader
    made: ModuleType = loader.create_module(spec)
    loader.exec_module(made)
    return made


def _original(name: str, *replaceable: str) -> ModuleType:
    module = sys.modules.get(name) or importlib.import_module(name)
    return _copied(module) if _is_intact(module, *replaceable) else _second(name)


if not TYPE_CHECKING:
    import _signal
    import _socket
    import socket as _socket_module

    time = _second("time")
    select = _original("select", "poll", "epoll") if sys.platform == "linux" else importlib.import_module("select")
    _thread = _original("_thread", "start_new_thread", "allocate_lock", "_local")
    Lock, RLock, local = _thread.allocate_lock, _thread.RLock, _thread._local
    get_native_id = _thread.get_native_id
    start_native = _thread.start_new_thread
    posix = sys.modules.get("posix", os)  # the C module behind os; patches replace the names in os only
    # The original class survives its replacement, as the base of its substitute or in a variable of the patch.
    socket = _copied(
        _socket_module,
        SocketType=_socket.socket,
        socket=next(kind for kind in _socket.socket.__subclasses__() if kind.__module__ == "socket"),
    )


def for_caller(made: socket.socket) -> socket.socket:
    """Return a socket as an instance of the caller's ``socket.socket``, which gevent may have replaced.

    A subclass of the original that only guards against sockets, like that of pytest-socket, is ignored.
    """
    kind = sys.modules["socket"].socket
    if issubclass(kind, socket.socket):
        return made
    theirs: socket.socket = kind(made.family, made.type, made.proto, fileno=made.detach())
    return theirs


def are_threads_real() -> bool:
    """Return whether threads of the standard library are kernel threads, not greenlets."""
    return _is_intact(sys.modules["_thread"], "start_new_thread", "allocate_lock")


class Joinable(Protocol):
    """A thread that can be waited for."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end, up to `timeout` seconds."""


def start_thread(target: Callable[[], object], name: str) -> Joinable:
    """Call `target` in a kernel thread, as a daemon. Raises RuntimeError if none can be started."""
    if are_threads_real():
        import threading

        thread = threading.Thread(target=target, name=name, daemon=True)
        begin(thread)
        return thread
    return _Thread(target)


def begin(thread: threading.Thread) -> None:
    """Start a thread of the standard library. Raises RuntimeError if none can be started.

    Python then waits until the thread runs, on a condition; an interruption of that wait before the condition's lock is
    held again becomes the RuntimeError of releasing it (``Condition.__exit__``). Here, the interruption itself is
    raised.
    """
    handled = sys.exc_info()[1]
    try:
        thread.start()
    except RuntimeError as error:
        interruption = error.__context__
        if interruption is None or interruption is handled or isinstance(interruption, Exception):
            raise
        raise interruption from None


class _Thread:
    """A thread that bypasses the replaced :mod:`threading`."""

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._running = Lock()
        self._running.acquire()
        start_native(self._run, ())

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._running.release()

    def join(self, timeout: float | None = None) -> None:
        if self._running.acquire(timeout=-1 if timeout is None else timeout):
            self._running.release()


def do_in_threads(function: Callable[[T], object], items: Iterable[T], most: int, name: str) -> None:
    """Call `function` with each item, in up to `most` threads; in the calling thread if none can be started.

    Raises the first exception of `function` once all items are done. An interrupt takes precedence over other
    exceptions, and items that have not begun by then are skipped.
    """
    left = list(reversed(list(items)))
    errors: list[BaseException] = []
    at_work: list[Lock] = []  # one per thread, released when that thread ends

    def work() -> None:
        ended = Lock()
        ended.acquire()
        at_work.append(ended)
        try:
            call()
        finally:
            ended.release()

    def call() -> None:
        while left:
            try:
                item = left.pop()
            except IndexError:
                return  # another thread was quicker
            try:
                function(item)
            except BaseException as error:
                errors.append(error)
                if not isinstance(error, Exception):
                    left.clear()

    threads: list[Joinable] = []
    try:
        try:
            for _ in range(min(most, len(left))):
                threads.append(start_thread(work, name))
        except (RuntimeError, OSError):  # pids.max, RLIMIT_NPROC; or no descriptor is left for importing threading
            work()
        for thread in threads:
            thread.join()
    except BaseException:
        left.clear()
        for ended in at_work:  # not `threads`, which lacks a thread whose start was interrupted
            ended.acquire()
        raise
    if errors:
        raise next((error for error in errors if not isinstance(error, Exception)), errors[0])


def privately(name: str, /, **imports: ModuleType) -> ModuleType:
    """Return another instance of a module written in Python, which imports `imports` instead of the usual modules.

    Raises ModuleNotFoundError.
    """

    def import_module(module: str, scope: Any = None, names: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if not level and module in imports:
            return imports[module]
        return builtins.__import__(module, scope, names, fromlist, level)

    from importlib import util  # slow to import, and rarely needed

    spec = util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    made = util.module_from_spec(spec)
    made.__dict__["__builtins__"] = {**builtins.__dict__, "__import__": import_module}
    spec.loader.exec_module(made)
    return made


def original_os() -> ModuleType:
    """Return the original :mod:`os`, for :func:`privately`."""
    return _copied(os, **{name: thing for name, thing in vars(posix).items() if not name.startswith("__")})


_private: dict[str, ModuleType] = {}


def real_subprocess() -> Any:
    """Return :mod:`subprocess`, or a private instance of it if functions that it depends on have been replaced.

    Both raise the same exceptions.
    """
    import subprocess as usual
    import threading

    if (
        _is_intact(usual, "Popen", "_time")
        and _is_intact(os, "read", "write", "waitpid")
        and _is_intact(sys.modules["select"], "poll")
        and are_threads_real()
    ):
        return usual
    if not _private:
        selectors = privately("selectors", select=select)
        _private["subprocess"] = privately(
            "subprocess",
            os=original_os(),
            select=select,
            selectors=selectors,
            threading=_copied(threading, Lock=Lock),
            time=time,
        )
        for name in ("SubprocessError", "CalledProcessError", "TimeoutExpired", "CompletedProcess"):
            setattr(_private["subprocess"], name, getattr(usual, name))
    return _private["subprocess"]


_PIDFD_SEND_SIGNAL, _PIDFD_OPEN = 424, 434
_OFFSET = ("alpha", "mips")  # machines that add their own offset to these numbers (arch/*/kernel/syscalls)


def _pidfd_open(pid: int, flags: int = 0, /) -> int:
    return _syscall(_PIDFD_OPEN, pid, flags)


def _pidfd_send_signal(pidfd: int, number: int, siginfo: None = None, flags: int = 0, /) -> None:
    assert siginfo is None
    _syscall(_PIDFD_SEND_SIGNAL, pidfd, number, 0, flags)


def _memfd_create(name: str, flags: int, /) -> int:
    import ctypes

    try:
        create = ctypes.CDLL(None, use_errno=True).memfd_create  # its number depends on the machine
    except AttributeError:
        raise _not_implemented() from None
    return _returned(create(name.encode(), ctypes.c_uint(flags)))


def _syscall(number: int, *arguments: int) -> int:
    if sys.platform != "linux" or os.uname().machine.startswith(_OFFSET):
        raise _not_implemented()
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return _returned(call(*map(ctypes.c_long, (number, *arguments))))


def _returned(result: int) -> int:
    if result < 0:
        import ctypes

        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _not_implemented() -> OSError:
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


if not TYPE_CHECKING:
    # Python's own functions are preferred: they are written in C, so that a descriptor can be opened and owned in one
    # step (ns/descriptor.py).
    pidfd_open = getattr(os, "pidfd_open", _pidfd_open)
    pidfd_send_signal = getattr(_signal, "pidfd_send_signal", _pidfd_send_signal)
    memfd_create = getattr(os, "memfd_create", _memfd_create)
