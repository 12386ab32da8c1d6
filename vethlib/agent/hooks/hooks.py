"""The thread that tells hooks, and what is known of each.

1. Who tells a change (:meth:`Hooks.tell`) puts it into a queue and wakes the thread: some microseconds, whatever the
   hooks do. What follows is all in the thread, on an event loop of its own.
2. Each hook has its own queue (`waiting.py`) and its own places for `concurrency` deliveries at once, so that one which
   hangs is in nobody else's way.
3. A delivery has `timeout` seconds. A URL that cannot be reached is tried again, unless something newer is to be told
   of that interface; a command is not, for it may have done half of its work.
4. :meth:`Hooks.close` ends all that is under way, after a moment of grace: no child, no connection, no thread is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from vethlib.errors import InvalidValue

from ..state import State
from ..statuses import StatusChange
from .command import run
from .event import REMOVED, Event, event_of
from .policy import DELAYS, Complaints, spread
from .post import Answer, post
from .target import CommandTarget, Target, read_target
from .waiting import Waiting

__all__ = ["HookCounts", "Hooks"]

_log: Final = logging.getLogger("vethlib.agent")

_STATES: Final = (*(str(state) for state in State if state is not State.UNMANAGED), REMOVED)


@dataclass(frozen=True, slots=True)
class HookCounts:
    """What became of the events of one hook, since it was made; for metrics.

    `hook` is what may be shown of it. Each event is `delivered`, `failed` (after all attempts), `dropped` (there was no
    room, or no time at the end) or `coalesced` (a newer one took its place); `waiting` are still to be told.
    """

    hook: str
    delivered: int
    failed: int
    dropped: int
    coalesced: int
    waiting: int


class _Line:
    """One hook with its queue."""

    def __init__(self, target: Target, capacity: int) -> None:
        self.target = target
        self.waiting = Waiting(capacity)
        self.tasks: set[asyncio.Task[None]] = set()
        self.complaints = Complaints()
        self.delivered = 0
        self.failed = 0
        self.full = False  # and that was logged


class Hooks:
    """Tells `targets` (each a text as of ``--hook``, or a Target) of every change of the state of an interface.

    `states` are those to be told of, all by default: PENDING, CONFIGURED, RETRYING, FAILED, INVALID, removed. A
    delivery has `timeout` seconds; `capacity` interfaces may wait for each hook, and `concurrency` run at once. Give
    :meth:`tell` to ``Configurator.subscribe``. Close it, or use it in a ``with``. Make it in the home namespace, for
    commands are run in the one it was made in.

    Raises InvalidValue.
    """

    def __init__(
        self,
        targets: Iterable[str | Target],
        *,
        label: str = "",
        states: Iterable[str] | None = None,
        timeout: float = 10.0,
        capacity: int = 1024,
        concurrency: int = 4,
        delays: Sequence[float] = DELAYS,
    ) -> None:
        read = [read_target(one) if isinstance(one, str) else one for one in targets]
        self._states = _checked(states)
        if not timeout > 0:
            raise InvalidValue("--hook-timeout", timeout, "write seconds, more than 0")
        self._lines = [_Line(target, capacity) for target in dict.fromkeys(read)]
        self._label, self._host = label, socket.gethostname()
        self._timeout, self._concurrency, self._delays = timeout, concurrency, tuple(delays)
        self._lock = threading.Lock()  # around the queues and the counts
        self._settled = threading.Condition(self._lock)
        self._closed = False
        self._deadline = 0.0  # of the grace, once it is closed
        for line in self._lines:
            if isinstance(line.target, CommandTarget) and not os.access(line.target.argv[0], os.X_OK):
                path = line.target.argv[0]
                cure = f"chmod +x {path}" if os.path.exists(path) else "put it there; it is looked for each time"
                _log.warning("hook %s: there is no such command that could be run: %s", line.target.shown, cure)
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="vethlib-hooks", daemon=True)
        if not self._lines:
            self._closed = True
            return
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def __enter__(self) -> Hooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tell(self, change: StatusChange) -> None:
        """Have every hook told of this change, if it is one of the state. Never waits; from any thread."""
        event = event_of(change, at=time.time(), label=self._label, host=self._host)
        if event is None or event.state not in self._states:
            return
        with self._lock:
            if self._closed:
                return
            full = [line for line in self._lines if line.waiting.put(event) and not line.full]
            for line in full:
                line.full = True
        for line in full:
            _log.warning(
                "hook %s does not keep up: %d interfaces wait for it, and what has waited longest is dropped",
                line.target.shown,
                len(line.waiting),
            )
        self._rouse()

    def _rouse(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            pass  # another thread has closed it meanwhile

    def counts(self) -> list[HookCounts]:
        """What became of the events, by hook. From any thread."""
        with self._lock:
            return [
                HookCounts(
                    line.target.shown,
                    line.delivered,
                    line.failed,
                    line.waiting.dropped,
                    line.waiting.coalesced,
                    len(line.waiting),
                )
                for line in self._lines
            ]

    def drain(self, timeout: float) -> bool:
        """Wait until all is told, at most so many seconds; whether it is."""
        with self._settled:
            return self._settled.wait_for(lambda: all(line.waiting.idle for line in self._lines), timeout)

    def close(self, grace: float = 1.0) -> None:
        """Tell nothing more; what is under way has `grace` seconds to come to its end. Twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._deadline = time.monotonic() + grace
        self._rouse()
        self._thread.join()
        for line in self._lines:
            if number := line.waiting.drop_all():
                _log.warning(
                    "hook %s was not told of what still waited, %d in all: it is closed", line.target.shown, number
                )

    # --- in the thread

    def _run(self) -> None:
        # A signal is for the main thread; this one is not to be where the kernel delivers it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            _log.exception("the hooks have come to an end")
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            for line in self._lines:
                self._begin(line)
        tasks = [task for line in self._lines for task in line.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, self._deadline - time.monotonic()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, line: _Line) -> None:
        """Tell as much as there is, and as much as may be told at once."""
        while len(line.tasks) < self._concurrency and not self._closed:
            with self._lock:
                event = line.waiting.take()
                line.full = line.full and event is not None
            if event is None:
                return
            task = self._loop.create_task(self._deliver(line, event))
            line.tasks.add(task)
            task.add_done_callback(lambda task: self._ended(line, task))

    def _ended(self, line: _Line, task: asyncio.Task[None]) -> None:
        line.tasks.discard(task)
        self._wake.set()  # there is room for another

    async def _deliver(self, line: _Line, event: Event) -> None:
        result: tuple[str, bool] | None = None  # if it is cancelled
        try:
            result = await self._attempt(line, event)
        except Exception as error:  # whatever it is, the other events are still to be told
            result = f"{type(error).__name__}: {error}", False
        finally:
            if result is None:
                self._count(line, event, dropped=1)
            else:
                self._count(line, event, coalesced=int(result[1]), problem=result[0])

    async def _attempt(self, line: _Line, event: Event) -> tuple[str, bool]:
        """What went wrong in the end, "" if nothing; and whether there is something newer to tell instead."""
        target = line.target
        if isinstance(target, CommandTarget):
            return await run(target.argv, event.json(), event.environment(), self._timeout), False
        answer = Answer()
        for delay in (*self._delays, None):
            answer = await post(target, event.json(), self._timeout)
            if not answer.problem or not answer.again or delay is None:
                break
            await asyncio.sleep(spread(delay))
            with self._lock:
                if line.waiting.gives_way(event):
                    return "", True
        return answer.problem, False

    def _count(self, line: _Line, event: Event, *, dropped: int = 0, coalesced: int = 0, problem: str = "") -> None:
        with self._settled:
            line.waiting.done(event.name)
            line.waiting.dropped += dropped
            line.waiting.coalesced += coalesced
            if not dropped and not coalesced:
                line.failed += bool(problem)
                line.delivered += not problem
            self._settled.notify_all()
        if problem:
            unsaid = line.complaints.failed(time.monotonic())
            if unsaid is not None:
                more = f" ({unsaid} more failures before it)" if unsaid else ""
                _log.warning("hook %s failed for %s: %s%s", line.target.shown, event.name, problem, more)
        elif not dropped and not coalesced and line.complaints.worked():
            _log.info("hook %s works again", line.target.shown)


def _checked(states: Iterable[str] | None) -> frozenset[str]:
    known = {state.upper(): state for state in _STATES}
    if states is None:
        return frozenset(_STATES)
    found = set()
    for state in states:
        if state.upper() not in known:
            raise InvalidValue("--hook-states", state, f"write some of {','.join(_STATES)}")
        found.add(known[state.upper()])
    return frozenset(found)
