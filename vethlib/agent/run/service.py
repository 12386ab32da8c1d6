"""An agent as a program: a store, a configurator and the signals of its process, on asyncio.

It passes the configuration from the store to the configurator, and the statuses from the configurator to the store. A
store that is down changes nothing on the host.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from functools import partial
from typing import Final

from vethlib.agent.attempts import Attempts
from vethlib.agent.process.answering import Answering
from vethlib.agent.process.descriptors import EXHAUSTED, Reserve
from vethlib.agent.process.instance import Instance
from vethlib.agent.reconcile.backoff import DETECTION
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.protocol import Change, Outage, Rereadable, Snapshot, Store, StoreError, StoreEvent
from vethlib.errors import VethError
from vethlib.ns.deadline import earliest
from vethlib.text import bounded

from .describing import reply
from .notify import Notifier
from .problems import problems_of
from .signals import Signals

__all__ = ["Service", "summary"]

_RESERVE = 4  # descriptors: a directory, its parents, and a file in it

_log = logging.getLogger("vethlib.agent")

_TURNS: Final = 3
"""Turns of the event loop after each step, so that signals and other tasks are served even if there is always work."""


class Service:
    """Runs a `configurator` with the configuration in a `store`. It closes neither.

    `ready` becomes true when the whole configuration was read and applied once, and the addresses can be used: it waits
    a few seconds for duplicate address detection. `heard` becomes true when the configuration was read. `outage` is the
    reason why the store cannot be read, "" if it can; `outages`, `changed_at` and `publish_failures` are for metrics.

    With `once`, :meth:`run` returns as soon as it is ready, or the store is down. Meanwhile, questions over the socket
    of an `instance` are answered, and `agent_file` is kept up to date. Each of `beside` is called with this object and
    entered as an asynchronous context manager, in order, for as long as it runs.
    """

    def __init__(
        self,
        configurator: Configurator,
        store: Store,
        *,
        once: bool = False,
        instance: Instance | None = None,
        agent_file: AgentFile | None = None,
        beside: Iterable[Callable[[Service], AbstractAsyncContextManager[object]]] = (),
    ) -> None:
        self._configurator = configurator
        self._store = store
        self._once = once
        self._instance = instance
        self._agent_file = agent_file
        self._beside = list(beside)
        self._notifier = Notifier()
        self._reserve: Reserve | None = None  # for statuses; while it runs
        self._news = asyncio.Event()
        self._stopping = False
        self._reloading = False  # whether a resync was requested
        self._looking = False  # whether everything is being looked at, which takes more than one step
        self._has_read = False  # something since the last publication; the store may have to publish its effect
        self._unpublished: dict[str, Status | None] = {}
        self._published = False  # whether statuses were published, because the first time removes those of earlier runs
        self._usable_by: float | None = None  # deadline of the start for usable addresses
        self._publishing = Attempts()  # refused by the store
        self.ready = False
        self.heard = False  # whether the store has returned a snapshot
        self.outage = ""
        self.outages = 0
        self.changed_at: float | None = None  # when the store went up or down, in seconds since 1970
        self.publish_failures = 0

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. SIGHUP starts a resync. At the end, the host stays as it is."""
        loop = asyncio.get_running_loop()
        stop = {number: partial(self._stop_for, number) for number in (signal.SIGTERM, signal.SIGINT)}
        with ExitStack() as ending:
            ending.enter_context(Signals(loop, stop | {signal.SIGHUP: self.reload}))
            ending.callback(self._notifier.stopping)
            if self._agent_file is not None:
                self._agent_file.write()
                ending.callback(self._agent_file.ended)
            self._reserve = Reserve(_RESERVE)
            ending.callback(self._give_up_reserve)
            if self._instance is not None:
                ending.callback(Answering(loop, self._instance, self._reply).close)
            for source in (self._store, self._configurator):
                number = source.fileno()  # the source may be closed at the end
                loop.add_reader(number, self._news.set)
                ending.callback(loop.remove_reader, number)
            async with AsyncExitStack() as stack:
                for enter in self._beside:
                    await stack.enter_async_context(enter(self))
                await self._serve(loop)

    def _give_up_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping:
            self._step(loop.time())
            if self._once and (self.ready or self.outage):
                return
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), self._due(loop.time()))
            except TimeoutError:
                pass
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _reply(self, line: bytes, *, trusted: bool) -> bytes:
        try:
            publication = None if self._agent_file is None else self._agent_file.publication()
            return reply(self._configurator, line, trusted=trusted, publication=publication)
        except VethError:
            return b""  # it is closed

    def _is_usable(self, now: float) -> bool:
        """Return whether duplicate address detection has finished, or has had enough time."""
        if not self._configurator.detecting:
            return True
        if self._usable_by is None:
            self._usable_by = now + DETECTION
        return now >= self._usable_by

    def health(self) -> str:
        """Return why the agent is not ready yet; "" once it is, even if the store is down later."""
        return (
            "" if self.ready else f"the configuration is not in force yet: {self.outage or 'the store is being read'}"
        )

    def stop(self) -> None:
        """Let :meth:`run` return after its current step."""
        self._stopping = True
        self._news.set()

    def _stop_for(self, number: int) -> None:
        if not self._stopping:
            states = summary(self._configurator.status())
            _log.info("stopped by %s, and the host stays as it is: %s", signal.Signals(number).name, states)
        self.stop()

    def reload(self) -> None:
        """Start a resync, and read the store again if it may have missed changes."""
        if isinstance(self._store, Rereadable):
            self._store.reread()
        self._reloading = True
        self._news.set()

    def _step(self, now: float) -> None:
        """Pass on everything that is available, in both directions."""
        for news in self._store.read():
            self._take(news)
            self._has_read = True
        if self._reloading and self.heard:
            self._notifier.reloading()
            self._configurator.resync()
            self._looking = True
        self._reloading = False
        self._unpublished |= self._configurator.poll()
        self._publish(now)
        if self._agent_file is not None:
            self._agent_file.try_again()
        if self.heard and (self._looking or not self.ready):
            self._finish_look(now)
        if self._notifier.interval is not None:
            self._notifier.alive()

    def _finish_look(self, now: float) -> None:
        """Report the end of an observation of everything, if nothing is left to do."""
        if self._configurator.behind or not (self.ready or self._is_usable(now)):
            return
        states = summary(self._configurator.status())
        _log.info("%s: %s", "resync finished" if self.ready else "started", states)
        self.ready, self._looking = True, False
        self._notifier.ready(states)

    def _take(self, news: StoreEvent) -> None:
        if isinstance(news, Outage):
            # It may contain foreign text, such as that of a server or a file name, and any user can read it.
            reason = bounded(news.reason, self._configurator.limits.reason_chars)
            if reason != self.outage:
                _log.warning("the store is down, so changes in it take no effect yet: %s", reason)
                self._set_outage(reason, str(news.code))
            return
        if self.outage:
            _log.info("the store is available again")
            self._set_outage("")
        if isinstance(news, Snapshot):
            good = [parsed.interface for parsed in news.values.values() if parsed.interface is not None]
            bad = {name: problems_of(parsed) for name, parsed in news.values.items() if parsed.interface is None}
            self._configurator.resync(good, refused=bad, complete=news.complete)
            if not self.heard:
                self.heard, self.changed_at = True, time.time()
        elif isinstance(news, Change):
            parsed = news.value
            if parsed is None:
                self._configurator.delete(news.name)
            elif parsed.interface is None:
                self._configurator.refuse(news.name, problems_of(parsed))
            else:
                self._configurator.put(parsed.interface)

    @property
    def unpublished(self) -> int:
        """Return how many statuses were not published yet."""
        return len(self._unpublished)

    def _set_outage(self, reason: str, code: str = "") -> None:
        if bool(reason) != bool(self.outage):
            self.outages += bool(reason)
            self.changed_at = time.time()
        self.outage = reason
        if self._agent_file is not None:
            self._agent_file.write(reason, code)

    def _publish(self, now: float) -> None:
        """Publish the new statuses; after a refusal of the store, try again later."""
        if self._publishing.waits(now) or not self._has_to_publish:
            return
        try:
            self._write_to_store()
        except VethError as error:
            if not self._publishing.failed:
                _log.warning("the status cannot be written: %s", error)
            self._publishing.fail(now)
            self.publish_failures += 1
            if self._agent_file is not None:
                reason = error.reason if isinstance(error, StoreError) else ""
                self._agent_file.unwritten(bounded(reason or str(error), self._configurator.limits.reason_chars))
        else:
            self._publishing.succeed()
            self._unpublished = {}
            self._has_read = False
            self._published = True
            if self._agent_file is not None:
                self._agent_file.unwritten("")
                if self.heard:
                    self._agent_file.published()

    def _write_to_store(self) -> None:
        try:
            self._store.publish(self._unpublished)
        except OSError as error:
            if self._reserve is None or error.errno not in EXHAUSTED:
                raise
            with self._reserve.lent():
                self._store.publish(self._unpublished)

    @property
    def _has_to_publish(self) -> bool:
        return bool(self._unpublished) or (self.heard and (self._has_read or not self._published))

    def _due(self, now: float) -> float | None:
        """Return the seconds after which there is work even without an event; None for never."""
        times: list[float | None] = [self._configurator.due(), self._store.due(), self._notifier.interval]
        if self._has_to_publish:
            times.append(self._publishing.left(now))
        if self._usable_by is not None and not self.ready:
            times.append(max(0.0, self._usable_by - now))
        if self._agent_file is not None:
            times.append(self._agent_file.due())
        return earliest(*times)


def summary(statuses: Iterable[Status]) -> str:
    """Return how many interfaces are in each state: ``498 CONFIGURED, 2 PENDING``."""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state]) or "no interface is configured"
