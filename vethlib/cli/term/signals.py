"""Signals: how a command is stopped, and how the time that something takes is limited.

Everything here is a ``with`` block for the main thread, and restores the previous handlers at its end. A SIGHUP that is
ignored when the block begins stays ignored, as under nohup. Signals that are blocked then are unblocked in the block.

1. :func:`until_stopped`: SIGTERM ends the block at once, wherever it waits. For commands that only observe.
2. :class:`NotedSignals`: signals are noted, and the block decides when to obey. For what must not be cut in the middle.
3. :func:`time_limit`: SIGALRM raises an exception in the block.
4. :func:`undone_by_signals`: SIGTERM and SIGHUP raise an exception, so that a change that is cut short is undone, as
   after Ctrl-C. Around every command; the blocks above replace it. Blocked ones stay blocked, also for a program that
   the command becomes.

Only the agent has handlers of its own, those of its event loop (`agent/run/service.py`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["NotedSignals", "Terminated", "preserved", "time_limit", "unblocked", "undone_by_signals", "until_stopped"]


_LONGEST = 1e8  # seconds, three years; far longer ones overflow


@contextmanager
def unblocked(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Unblock signals in a block that handles them.

    A process inherits the signals that its parent has blocked. Those that have arrived since then take effect at once,
    as they would have done earlier.
    """
    numbers = set(numbers)
    blocked = numbers & signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    with unblocked(number for number, handler in handlers.items() if handler is not signal.SIG_IGN), _set(handlers):
        yield


@contextmanager
def _set(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    before: dict[signal.Signals, Any] = {}
    try:
        for number, handler in handlers.items():
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def preserved(number: signal.Signals) -> Iterator[None]:
    """Restore the handler of a signal after a block that may have changed it for the rest of the process."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if signal.getsignal(number) is not before:
            signal.signal(number, before)


class _Stopped(BaseException):
    """Raised by SIGTERM, to leave the block of until_stopped()."""


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """End a block on SIGTERM as if it were complete: what it has opened is closed, and the command succeeds.

    Yields a function that returns whether SIGTERM has arrived.
    """
    has_arrived = False

    def stop(*_: object) -> None:
        nonlocal has_arrived
        if not has_arrived:  # a second one must not interrupt the cleanup
            has_arrived = True
            raise _Stopped

    with suppress(_Stopped), _handled({signal.SIGTERM: stop}):
        yield lambda: has_arrived


class Terminated(BaseException):
    """Raised by a signal in the block of undone_by_signals()."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def obey(self) -> int:
        """End this process by the signal, as if there had been no handler; return the exit code if that is ignored."""
        os.kill(os.getpid(), self.number)
        return 128 + self.number


@contextmanager
def undone_by_signals() -> Iterator[None]:
    """Raise Terminated in a block on SIGTERM and SIGHUP, unless it is ignored. A handler of the block's own stays."""
    has_arrived = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal has_arrived
        # A second one must not interrupt the undoing: when a terminal is closed, both the shell and the kernel send
        # SIGHUP.
        if not has_arrived:
            has_arrived = True
            raise Terminated(number)

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, stop)
        yield
    finally:
        for number in numbers:
            if signal.getsignal(number) is stop:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def time_limit(seconds: float, error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise `error()` in a block that takes longer than `seconds`."""

    def expire(*_: object) -> None:
        raise error()

    with _handled({signal.SIGALRM: expire}):
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 0.001), _LONGEST))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class NotedSignals:
    """Note signals in a block instead of obeying them: `received` has them in order. `ignored` ones are not noted.

    It has a file descriptor, which becomes readable when a signal arrives, so that a poll() ends.
    """

    def __init__(self, noted: Iterable[signal.Signals], ignored: Iterable[signal.Signals] = ()) -> None:
        self.received: list[signal.Signals] = []
        self._handlers = dict.fromkeys(noted, self._note) | dict.fromkeys(ignored, signal.SIG_IGN)
        self._read = -1
        self._exits = ExitStack()

    def __enter__(self) -> NotedSignals:
        with ExitStack() as exits:
            self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            exits.callback(os.close, self._read)
            exits.callback(os.close, write)
            exits.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write, warn_on_full_buffer=False))
            exits.enter_context(_handled(self._handlers))
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._read

    def drain(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        with suppress(BlockingIOError):
            while os.read(self._read, 512):
                pass

    def obey(self, number: signal.Signals) -> None:
        """Take the default action of a noted signal now; if the process continues, the signal is noted again."""
        self.received = [each for each in self.received if each != number]
        noting = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # A stopped process continues here after SIGCONT.
        signal.signal(number, noting)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
