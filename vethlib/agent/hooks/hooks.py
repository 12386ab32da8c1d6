"""Deliver events to hooks, in a thread of its own.

1. :meth:`Hooks.tell` queues a change and wakes the thread, in some microseconds, whatever the hooks do. Everything else
   is done in the thread, on its own event loop.
2. Each hook has its own queue (`waiting.py`) and up to `concurrency` deliveries at once, so that a hook that hangs does
   not delay another.
3. A delivery has `timeout` seconds. A URL that cannot be reached is tried again, unless there is a newer event of that
   interface; a command is not run again, because it may have done half of its work.
4. :meth:`Hooks.close` ends all deliveries after a moment of grace: no child, connection or thread is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from vethlib import _threads as threads
from vethlib._closing import Closing
from vethlib._primitives import time
from vethlib.agent.config.textchecks import check_text
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.state import State
from vethlib.errors import InvalidValue, check_path, check_type
from vethlib.linkref import as_list
from vethlib.ns.deadline import check_timeout

from .command import cure_of, run
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
    """The number of events of one hook by outcome, since it was created; for metrics.

    `hook` is its name without secrets. Each event is `delivered`, `failed` (after all attempts), `dropped` (no room, or
    no time left at the end) or `coalesced` (replaced by a newer event); `waiting` events are still queued.
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
        self.full = False  # whether the queue is full, which has been logged


class Hooks(Closing):
    """Notify `targets` (each a text as for ``--hook``, or a Target) of every change of the state of an interface.

    `states` selects the states to report, all by default: PENDING, CONFIGURED, RETRYING, FAILED, INVALID, removed. Each
    delivery has `timeout` seconds. Up to `capacity` interfaces can wait for each hook, and up to `concurrency`
    deliveries run at once. If statuses are published to another directory than that of the label, give it as
    `status_dir`, for commands that run ``vethctl status``. Pass :meth:`tell` to ``Configurator.subscribe``. Close it,
    or use it in a ``with`` statement. Create it in the home namespace, because commands run in the namespace in which
    it was created.

    Raises InvalidValue, and ThreadRefused if no thread can be started.
    """

    def __init__(
        self,
        targets: Iterable[str | Target],
        *,
        label: str = "",
        states: Iterable[str] | None = None,
        timeout: float = 10.0,
        status_dir: str | os.PathLike[str] = "",
        capacity: int = 1024,
        concurrency: int = 4,
        delays: Sequence[float] = DELAYS,
    ) -> None:
        read = _targets(targets)
        self._states = _checked(states)
        seconds = check_timeout(timeout, "--hook-timeout")
        if seconds is None or seconds <= 0:
            raise InvalidValue("--hook-timeout", timeout, "must be a number of seconds above 0")
        for field, number in (("capacity", capacity), ("concurrency", concurrency)):
            if type(number) is not int or number < 1:
                raise InvalidValue(field, number, "must be a number, 1 or more")
        status_dir = check_path(status_dir, "status_dir")
        check_text(check_type(label, str, "label", "must be a string"), "label")
        self._lines = [_Line(target, capacity) for target in dict.fromkeys(read)]
        self._label, self._host = label, socket.gethostname()
        self._environment = {"VETHLIB_STATUS_DIR": status_dir} if status_dir else {}
        self._timeout, self._concurrency, self._delays = seconds, concurrency, _seconds(delays)
        self._lock = threading.Lock()  # protects the queues and the counts
        self._settled = threading.Condition(self._lock)
        self._closed = False
        self._deadline = 0.0  # end of the grace period after closing
        for line in self._lines:
            if isinstance(line.target, CommandTarget) and (cure := cure_of(line.target.argv[0])):
                _log.warning("hook %s: the command cannot be run: %s", line.target.shown, cure)
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="vethlib-hooks", daemon=True)
        self._has_begun = False  # whether the thread runs, or has run
        self._abandoned = False  # whether it is to end before it begins
        if not self._lines:
            self._closed = True
            return
        self._loop = asyncio.new_event_loop()
        try:
            threads.start(self._thread, "running hooks (--hook)")
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close the loop; if the thread runs, which an interruption of its start does not show, it does that."""
        with self._lock:
            self._closed = True
            self._abandoned = not self._has_begun
        if self._abandoned:
            self._loop.close()
        else:
            self._rouse()

    def tell(self, change: StatusChange) -> None:
        """Queue a change for every hook, if the state has changed. Never blocks; can be called from any thread."""
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
                "hook %s does not keep up: %d interfaces wait for it, and the oldest events are dropped",
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
        """Return the counts of each hook. Can be called from any thread."""
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
        """Wait up to `timeout` seconds until all events are delivered; return whether they are."""
        seconds = check_timeout(timeout)
        with self._settled:
            return self._settled.wait_for(lambda: all(line.waiting.idle for line in self._lines), seconds)

    def close(self, grace: float = 1.0) -> None:
        """Stop delivering; deliveries in progress have `grace` seconds to finish. Closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._deadline = time.monotonic() + grace
        self._rouse()
        self._thread.join()
        for line in self._lines:
            if number := line.waiting.drop_all():
                _log.warning("hook %s is closed: %d waiting events were not delivered", line.target.shown, number)

    # --- in the thread

    def _run(self) -> None:
        # Signals are for the main thread, so the kernel must not deliver them here.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with self._lock:
            if self._abandoned:
                return
            self._has_begun = True
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            _log.exception("the hooks have stopped")
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
        """Start as many deliveries as there are events and as may run at once."""
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
        except Exception as error:  # whatever it is, the other events still have to be delivered
            result = f"{type(error).__name__}: {error}", False
        finally:
            if result is None:
                self._count(line, event, dropped=1)
            else:
                self._count(line, event, coalesced=int(result[1]), problem=result[0])

    async def _attempt(self, line: _Line, event: Event) -> tuple[str, bool]:
        """Deliver an event; return the last problem or "", and whether a newer event has replaced it meanwhile."""
        target = line.target
        if isinstance(target, CommandTarget):
            environment = event.environment() | self._environment
            return await run(target.argv, event.json(), environment, self._timeout), False
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
            unlogged = line.complaints.failed(time.monotonic())
            if unlogged is not None:
                more = f" (after {unlogged} more failures)" if unlogged else ""
                _log.warning("hook %s failed for %s: %s%s", line.target.shown, event.name, problem, more)
        elif not dropped and not coalesced and line.complaints.worked():
            _log.info("hook %s works again", line.target.shown)


def _targets(targets: Iterable[str | Target]) -> list[Target]:
    if isinstance(targets, str):
        hint = 'must be a list of targets, such as ["exec:/usr/local/bin/notify"]'  # a URL may be secret
        raise InvalidValue("targets", "a string", hint)
    return [_target(target) for target in as_list(targets, "targets", "must be a list of targets")]


def _target(target: str | Target) -> Target:
    if isinstance(target, str):
        return read_target(target)
    if isinstance(target, Target):
        return target
    raise InvalidValue(
        "targets", target, "must be the text of a target, such as exec:/usr/local/bin/notify, or a Target"
    )


def _seconds(delays: Iterable[float]) -> tuple[float, ...]:
    hint = "must be a list of numbers of seconds, such as [1.0, 2.0]"
    checked: list[float] = []
    for delay in as_list(delays, "delays", hint):
        seconds = check_timeout(delay, "delays")
        if seconds is None or seconds < 0:
            raise InvalidValue("delays", delay, hint)
        checked.append(seconds)
    return tuple(checked)


def _checked(states: Iterable[str] | None) -> frozenset[str]:
    known = {state.upper(): state for state in _STATES}
    if states is None:
        return frozenset(_STATES)
    selected = set()
    for state in as_list(states, "--hook-states", "must be a list of states"):
        if not isinstance(state, str) or state.upper() not in known:
            raise InvalidValue("--hook-states", state, f"must be one or more of {','.join(_STATES)}")
        selected.add(known[state.upper()])
    return frozenset(selected)
