"""An agent that runs by itself: a store, a configurator and the signals of its process, on asyncio.

It only carries from one to the other. What the store says goes to the configurator, what that says goes back to the
store; a store that is down changes nothing on the host.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from vethlib.errors import InvalidValue, VethError

from .configurator import Configurator
from .instance import Instance
from .northbound import Parsed
from .notify import Notifier
from .repair import delay
from .state import State
from .status import Status
from .stores.agentfile import AgentFile
from .stores.protocol import Change, News, Outage, Snapshot, Store

__all__ = ["Service", "summary"]

_log = logging.getLogger("vethlib.agent")


class Service:
    """Runs a `configurator` on what a `store` says. Neither is closed by it.

    `ready` tells whether the store has said what there is, and that was worked on; `outage` why it cannot say, while it
    cannot; the other attributes what there was of that, for metrics. With `once`, :meth:`run` ends with the first of
    either. An `instance` is answered for meanwhile, and `agent_file` has what is to be known of the store. What is
    `beside` is made of this and entered, in order, for as long as it runs.
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
        self._news = asyncio.Event()
        self._stopping = False
        self._reloading = False
        self._has_read = False  # something since it was published last; a store may have to tell what that led to
        self._unpublished: dict[str, Status | None] = {}
        self._published = False  # at least once, so that what an earlier run has left there goes
        self._publish_at = 0.0
        self._refusals = 0  # of the store to take a status, in a row
        self.ready = False
        self.heard = False  # a snapshot
        self.outage = ""
        self.outages = 0
        self.changed_at: float | None = None  # when the store went up or down, in seconds since 1970
        self.publish_failures = 0

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP has the host looked at again. The host stays as it is."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_for, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for source in (self._store, self._configurator):
            loop.add_reader(source.fileno(), self._news.set)
        if self._instance is not None:
            loop.add_reader(self._instance.fileno(), self._instance.answer)
        if self._agent_file is not None:
            self._agent_file.say()
        try:
            async with AsyncExitStack() as stack:
                for one in self._beside:
                    await stack.enter_async_context(one(self))
                await self._serve(loop)
        finally:
            for source in (self._store, self._configurator):
                loop.remove_reader(source.fileno())
            if self._instance is not None:
                loop.remove_reader(self._instance.fileno())
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            if self._agent_file is not None:
                self._agent_file.remove()
            self._notifier.stopping()

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

    def health(self) -> str:
        """Why this agent is of no use yet; "" once it is, an outage of the store or not: the host stays as it is."""
        return "" if self.ready else f"the store has not said yet what there is: {self.outage or 'it is being read'}"

    def stop(self) -> None:
        """End :meth:`run`, after what it is at."""
        self._stopping = True
        self._news.set()

    def _stop_for(self, number: int) -> None:
        if not self._stopping:
            said = summary(self._configurator.status())
            _log.info("stopped by %s, and the host stays as it is: %s", signal.Signals(number).name, said)
        self.stop()

    def reload(self) -> None:
        """Have everything on the host looked at again."""
        self._reloading = True
        self._news.set()

    def _step(self, now: float) -> None:
        """Carry what there is, both ways."""
        for news in self._store.read():
            self._take(news)
            self._has_read = True
        if self._reloading and self.heard:
            self._notifier.reloading()
            self._configurator.resync()
        self._unpublished |= self._configurator.poll()
        self._publish(now)
        was_ready, self.ready = self.ready, self.heard
        if self.ready and (self._reloading or not was_ready):
            said = summary(self._configurator.status())
            _log.info("%s: %s", "looked at everything" if was_ready else "started", said)
            self._notifier.ready(said)
        self._reloading = False
        if self._notifier.interval is not None:
            self._notifier.alive()

    def _take(self, news: News) -> None:
        if isinstance(news, Outage):
            if news.reason != self.outage:
                _log.warning("the store is down, and the host stays as it is: %s", news.reason)
                self._set_outage(news.reason)
            return
        if self.outage:
            _log.info("the store is back")
            self._set_outage("")
        if isinstance(news, Snapshot):
            self._doubt(*news.values.values())
            good = [parsed.interface for parsed in news.values.values() if parsed.interface is not None]
            bad = {name: _problems(parsed) for name, parsed in news.values.items() if parsed.interface is None}
            self._configurator.resync(good, refused=bad, complete=news.complete)
            if not self.heard:
                self.heard, self.changed_at = True, time.time()
        elif isinstance(news, Change):
            parsed = news.value
            if parsed is None:
                self._configurator.delete(news.name)
            elif parsed.interface is None:
                self._configurator.refuse(news.name, _problems(parsed))
            else:
                self._doubt(parsed)
                self._configurator.put(parsed.interface)

    def _doubt(self, *values: Parsed) -> None:
        """Say what is accepted, but hardly meant, as a namespace that is named and not read."""
        for parsed in values:
            for text in parsed.warnings:
                _log.warning("%s: %s", parsed.name or parsed.source, text)

    @property
    def unpublished(self) -> int:
        """How many statuses the store has not taken yet."""
        return len(self._unpublished)

    def _set_outage(self, reason: str) -> None:
        if bool(reason) != bool(self.outage):
            self.outages += bool(reason)
            self.changed_at = time.time()
        self.outage = reason
        if self._agent_file is not None:
            self._agent_file.say(reason)

    def _publish(self, now: float) -> None:
        """Give the store what it has not got yet; one that refuses is asked again later."""
        if now < self._publish_at or not self._has_to_publish:
            return
        try:
            self._store.publish(self._unpublished)
        except VethError as error:
            if not self._refusals:
                _log.warning("the status cannot be written: %s", error)
            self._publish_at = now + delay(self._refusals)
            self._refusals += 1
            self.publish_failures += 1
        else:
            self._refusals = 0
            self._unpublished = {}
            self._has_read = False
            self._published = True
            if self._agent_file is not None and self.heard:
                self._agent_file.published()

    @property
    def _has_to_publish(self) -> bool:
        return bool(self._unpublished) or (self.heard and (self._has_read or not self._published))

    def _due(self, now: float) -> float | None:
        """In how many seconds there is something to do though nothing happens."""
        times = [self._configurator.due(), self._store.due(), self._notifier.interval]
        if self._has_to_publish:
            times.append(max(0.0, self._publish_at - now))
        return min((time for time in times if time is not None), default=None)


class _Located(InvalidValue):
    """A problem with the place where the value stands that has it."""

    def __init__(self, problem: InvalidValue, source: str) -> None:
        super().__init__(problem.field, problem.value, problem.hint)
        self.args = (f"{source}: {problem}",)


def _problems(parsed: Parsed) -> tuple[InvalidValue, ...]:
    """What is wrong with a value, and where that stands, unless it is said or its name says it, as a key's does."""
    source, problems = parsed.source, parsed.problems
    if not problems or source in str(problems[0]) or source.endswith(f"/{parsed.name}"):
        return problems
    return (_Located(problems[0], source), *problems[1:])


def summary(statuses: Iterable[Status]) -> str:
    """How many are in which state: ``498 CONFIGURED, 2 PENDING``."""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state]) or "no interface is configured"
