"""Signals as callbacks of an event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from vethlib._closing import Closing

__all__ = ["Signals"]


class Signals(Closing):
    """Signals as callbacks of an event loop, until :meth:`close` gives them their former handlers back.

    The loop's own remove_signal_handler() gives a signal its default action first: until the former handler is back,
    the signal would end the process, in whichever thread it is delivered. The handler is as short as can be, because
    other signals may interrupt it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, callbacks: Mapping[signal.Signals, Callable[[], object]]
    ) -> None:
        self._callbacks = callbacks
        self._received: set[int] = set()
        with ExitStack() as undoing:
            self._reader, writer = (undoing.enter_context(end) for end in socket.socketpair())
            self._reader.setblocking(False)
            writer.setblocking(False)
            loop.add_reader(self._reader, self._call)
            undoing.callback(loop.remove_reader, self._reader)
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            undoing.callback(signal.set_wakeup_fd, wakeup)
            for number in callbacks:
                before = signal.getsignal(number)
                undoing.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
                signal.signal(number, self._receive)
            self._undoing = undoing.pop_all()

    def _receive(self, number: int, _frame: object) -> None:
        self._received.add(number)

    def _call(self) -> None:
        self._reader.recv(4096)
        while self._received:
            self._callbacks[signal.Signals(self._received.pop())]()

    def close(self) -> None:
        """Give the signals their former handlers back."""
        self._undoing.close()
