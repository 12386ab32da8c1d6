"""Resolve microservices by the containers of a Docker Engine, and follow its events.

Theory of operation:

1. Only one thread sends requests to the engine; callers get their answers from what it has stored.
2. Events are requested before the list, so that no change is missed.
3. An event only names a container, which is then inspected (`asking.py`). So neither the names, the order nor the times
   of events matter, and a container that has been restarted meanwhile is seen in its present state.
4. Any error ends the connection. The next one begins with the whole list, because an engine does not report containers
   that ended while it was away.
5. If the engine does not answer, its containers may still run; their processes are followed by the users of the answers
   (`processes.py`). The end of a connection does not mean this yet: everything known remains valid until the next
   attempt to connect, which is made at once, has failed.
6. The same holds for a single container that cannot be inspected (for example, because it is locked or broken). The
   last known state remains valid; without one, it may have any label that no other container has. There need be no
   event when it can be inspected again, so the connection is ended after a while: see 4.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from vethlib import _threads as threads
from vethlib import ns
from vethlib._primitives import time
from vethlib.errors import NetnsNotFound
from vethlib.follow.resolver import ResolverDown
from vethlib.ns.deadline import check_timeout

from .asking import HASTE, LEAST, LookAgain, Unseen, concerned, end, events, look, running
from .containers import Container, Containers
from .engine import DEFAULT_URL, NotConnected, connect, failure, socket_path

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["DockerResolver"]

_log = logging.getLogger("vethlib.agent")

_AT_FIRST: Final = 0.05  # seconds until the next attempt to connect, doubled up to:
_AT_MOST: Final = 0.5
_LASTING: Final = 1.0  # seconds of a connection after which the next attempt counts as the first
_USELESS: Final = 5.0  # like _AT_MOST, for an engine that answers but cannot be used
_AGAIN: Final = (1.0, 60.0)  # seconds after a failed inspection until the next; doubled from the first to the second
_RETRIED: Final = 10  # late containers that are inspected a second time when all are
_JOIN: Final = 0.2  # seconds for the thread to end


class DockerResolver:
    """A :class:`Resolver` that finds microservices among the containers of this host's Docker Engine.

        resolver = DockerResolver()
        with Session(resolver=resolver) as session, Configurator(session) as configurator: ...

    The label of a container is in its environment (MICROSERVICE_LABEL=vnf1) or in its container label
    microservice_label; for the rules if several containers have it, see `containers.py`. A thread connects to the
    engine when a label is first resolved, and reconnects after each outage; meanwhile, resolving raises
    :class:`ResolverDown`. With `patience`, a call made before the first attempt to connect has ended waits for that up
    to this many seconds, or until :meth:`close`. It blocks the calling thread, and a signal with a handler of asyncio
    does not interrupt it.

    `url` is a Unix socket: ``unix:///var/run/docker.sock`` or a path. Raises InvalidValue for any other URL.
    """

    def __init__(self, url: str = DEFAULT_URL, *, patience: float = 0.0) -> None:
        self._path = socket_path(url)
        self._patience = check_timeout(patience, "patience")
        self._lock = threading.Lock()  # protects the following attributes except `_wake` and `_answered`
        self._containers = Containers()
        # The reason why the engine is not known, and its code; "" once it has answered.
        self._down = f"the Docker Engine at {self._path} has not answered yet"
        self._code = "unanswered"
        self._was_there = False
        self._unseen: dict[str, Unseen] = {}  # by container id
        self._again = _AGAIN[0]
        self._remarks: dict[str, str] = {}
        self._changed: set[str] | None = set()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._stream: Any = None  # the stream of events, while it is read
        self._wake = threading.Event()  # ends the pause between two attempts
        self._answered = threading.Event()  # the engine has answered, or could not be reached
        # The thread is started here: otherwise it would keep alive the namespace of the call that starts it.
        self._home = ns.current()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # --- for callers

    def __call__(self, label: str) -> str:
        """As in :class:`Resolver`."""
        with self._lock:
            if self._thread is None and not self._closed:
                try:
                    self._start()
                except threads.ThreadRefused as error:
                    raise ResolverDown(f"microservices cannot be found: {error}", code="no-thread") from None
        if self._patience:
            self._answered.wait(self._patience)
        with self._lock:
            if self._down:
                raise ResolverDown(self._down, code=self._code)
            container = self._containers.answering(label)
            doubt = self._doubt() if container is None else ""
        if doubt:
            text = f"it is unknown whether microservice {label} is running: {doubt}"
            raise ResolverDown(text, code="uninspected")
        if container is None:
            raise NetnsNotFound(f"microservice {label} is not running", netns=f"microservice:{label}")
        return f"pid:{container.pid}"

    def remark(self, label: str) -> str:
        """Return a remark, as in :class:`Remarks`, if other containers have the same label."""
        with self._lock:
            return "" if self._down else self._containers.remark(label)

    def shares_home(self, label: str) -> bool:
        """Return True for a running container, which has its namespaces before the engine reports it as running.

        So a container that is in the home namespace was started there (``--network host``).
        """
        with self._lock:
            return not self._down and self._containers.answering(label) is not None

    def fileno(self) -> int:
        """As in :class:`Resolver`."""
        return self._event

    def changed(self) -> Iterable[str] | None:
        """As in :class:`Resolver`."""
        with self._lock:
            try:
                os.eventfd_read(self._event)
            except OSError:
                pass  # no event, or it is closed
            changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """End the thread, and close all descriptors. Closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._down, self._code = "this resolver is closed", "closed"
            self._answered.set()
            self._wake.set()
            if self._stream is not None:
                end(self._stream)
        if self._thread is not None:
            # It may be waiting for an engine that hangs, with its own time limit.
            self._thread.join(_JOIN)
        with self._lock:
            self._home.close()
            os.close(self._event)
            self._event = -1

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="vethlib-docker", daemon=True)
        with ns.current() as here:
            elsewhere = ns.identity(here.fileno()) != ns.identity(self._home.fileno())
        if elsewhere:
            with ns.entered(self._home):
                threads.start(thread, "asking the Docker Engine")
        else:
            threads.start(thread, "asking the Docker Engine")
        self._thread = thread

    # --- the thread

    def _run(self) -> None:
        with self._lock:
            # If the start of this thread was interrupted, another may have been started since.
            if self._closed or self._thread not in (None, threading.current_thread()):
                return
            self._thread = threading.current_thread()
        delay = _AT_FIRST
        while not self._closed:
            began = time.monotonic()
            at_most = _USELESS
            try:
                with closing(connect(self._path)) as client:
                    at_most = _AT_MOST
                    self._follow(client)
            except NotConnected as error:
                at_most = _AT_MOST
                self._lose(self._gone() if error.absent and self._was_there else error)
            except Exception as error:
                lost = failure(self._path, error)
                self._lose(lost)
                if lost.code == "not-installed":
                    return
            if time.monotonic() - began > _LASTING:
                delay = _AT_FIRST
            self._wake.wait(delay)
            delay = min(2 * delay, at_most)

    def _follow(self, client: APIClient) -> None:
        """Follow one connection to its end. Raises any error of the engine."""
        stream = events(client)
        again = LookAgain(stream)
        try:
            if not self._hold(stream) or not self._look_at_all(client):
                return
            again.plan(self._look_again_in())
            try:
                for event in stream:
                    if (id_ := concerned(event)) is None:
                        continue
                    if not id_:
                        return
                    self._put(id_, self._look(client, id_, self._haste()))
                    again.plan(self._look_again_in())
            except Exception as error:
                # The next connection shows whether the engine is away, too.
                _log.debug("events of the Docker Engine at %s have ended: %r", self._path, error)
        finally:
            again.cancel()
            self._hold(None)
            end(stream)
            # Otherwise its socket would be left to the garbage collector.
            if (response := getattr(stream, "_response", None)) is not None:
                response.close()

    def _look_at_all(self, client: APIClient) -> bool:
        """Inspect all running containers; return False if this resolver was closed meanwhile."""
        containers: dict[str, Container | Unseen | None] = {}
        seconds = HASTE
        for id_ in running(client):
            if self._closed:
                return False
            containers[id_] = result = self._look(client, id_, seconds)
            if isinstance(result, Unseen) and result.late:
                seconds = max(LEAST, seconds / 2)
        self._replace(containers)
        return self._wait_for_late(client, containers)

    def _wait_for_late(self, client: APIClient, containers: Mapping[str, Container | Unseen | None]) -> bool:
        """Inspect late ones again, with more time; return False if this resolver was closed meanwhile."""
        late = [id_ for id_, result in containers.items() if isinstance(result, Unseen) and result.late]
        hasty = [id_ for id_ in late if _is_hasty(containers[id_])]
        # Others were late without haste before. Only the first of them had more than a fraction of HASTE this time.
        some = random.sample(late, min(len(late), _RETRIED)) if len(late) > 1 else ()
        for id_ in hasty or some:
            if self._closed:
                return False
            result = self._look(client, id_, None if hasty else HASTE)
            self._put(id_, result)
            if hasty and isinstance(result, Unseen) and result.late:
                break
        return not self._closed

    def _look(self, client: APIClient, id_: str, seconds: float | None = None) -> Container | Unseen | None:
        result = look(client, id_, seconds)
        with self._lock:
            before = self._unseen.get(id_)
        # Once a container was late without haste, it is not waited for as long again.
        return before if before is not None and before.late and not before.hasty and _is_hasty(result) else result

    def _haste(self) -> float | None:
        """Return the time for an answer about the container of an event; None for the usual time."""
        with self._lock:
            return HASTE if any(unseen.late for unseen in self._unseen.values()) else None

    def _hold(self, stream: Any) -> bool:
        """Set the stream that :meth:`close` ends; return False if this resolver is already closed."""
        with self._lock:
            self._stream = stream
            return not self._closed

    def _replace(self, containers: Mapping[str, Container | Unseen | None]) -> None:
        """Replace all containers; None for one that does not count."""
        with self._lock:
            if self._closed:
                return
            was_down, self._down = self._down, ""
            self._was_there = True
            seen = []
            for id_, result in containers.items():
                known = self._containers.get(id_) if isinstance(result, Unseen) else result
                if known is not None:
                    seen.append(known)
            affected = self._containers.replace(seen)
            before = self._unseen
            self._unseen = {id_: result for id_, result in containers.items() if isinstance(result, Unseen)}
            unlogged = {id_: result for id_, result in self._unseen.items() if _is_news(result, before.get(id_))}
            self._again = min(2 * self._again, _AGAIN[1]) if before and self._unseen else _AGAIN[0]
            self._report(None if was_down or self._unseen.keys() != before.keys() else affected)
            labels = self._containers.labels()
            remarks = self._changed_remarks(labels | self._remarks.keys())
        self._answered.set()
        if was_down:
            some = f"{len(labels)} microservice{'' if len(labels) == 1 else 's'}"
            _log.info("the Docker Engine at %s answers: it has %s", self._path, some)
        _log_unseen(unlogged)
        _log_remarks(remarks)

    def _put(self, id_: str, container: Container | Unseen | None) -> None:
        """Set the present state of one container."""
        with self._lock:
            if self._closed:
                return
            before = self._unseen.pop(id_, None)
            if isinstance(container, Unseen):
                self._unseen[id_] = container
                affected: set[str] = set()
            else:
                affected = self._containers.put(id_, container)
            if (before is None) == isinstance(container, Unseen):
                self._report(None)  # labels without a container may have become doubtful, or certain
            elif affected:
                self._report(affected)
            remarks = self._changed_remarks(affected)
        if isinstance(container, Unseen) and _is_news(container, before):
            _log_unseen({id_: container})
        _log_remarks(remarks)

    def _doubt(self) -> str:
        """Return the reason why a label without a container may have one nevertheless, or ""."""
        for id_, unseen in self._unseen.items():
            if self._containers.get(id_) is None:
                return f"container {id_[:12]} cannot be inspected: {unseen.reason}"
        return ""

    def _look_again_in(self) -> float | None:
        """Return the seconds until all containers should be inspected again; None if all could be."""
        with self._lock:
            if any(map(_is_hasty, self._unseen.values())):
                return _AGAIN[0]
            return self._again if self._unseen else None

    def _gone(self) -> ResolverDown:
        text = f"the Docker Engine at {self._path} is no longer running: waiting for it to answer again"
        return ResolverDown(text, code="gone")

    def _lose(self, error: ResolverDown) -> None:
        """Note that the engine does not answer, or cannot be used."""
        reason = str(error)
        with self._lock:
            if self._closed or reason == self._down:
                return
            had_answered, was_up = self._answered.is_set(), not self._down
            self._down, self._code = reason, error.code
            self._report(None)
        self._answered.set()
        if was_up or not had_answered:
            _log.warning("microservices cannot be found, so their links are left as they are: %s", reason)

    def _report(self, labels: set[str] | None) -> None:
        if self._closed or labels == set():
            return
        if labels is None:
            self._changed = None
        elif self._changed is not None:
            self._changed |= labels
        os.eventfd_write(self._event, 1)

    def _changed_remarks(self, labels: Iterable[str]) -> list[tuple[str, str]]:
        """Return the remarks about these labels that have changed, each with its label."""
        changed = []
        for label in sorted(labels):
            remark = self._containers.remark(label)
            if remark != self._remarks.get(label, ""):
                changed.append((label, remark))
                self._remarks[label] = remark
            if not remark:
                self._remarks.pop(label, None)
        return changed


def _is_hasty(result: Container | Unseen | None) -> bool:
    return isinstance(result, Unseen) and result.hasty


def _is_news(unseen: Unseen, before: Unseen | None) -> bool:
    """Return whether a failed inspection is to be logged: not after another one, nor if it was made in haste."""
    return not unseen.hasty and (before is None or before.hasty)


def _log_unseen(unseen: Mapping[str, Unseen]) -> None:
    for id_, container in unseen.items():
        text = "container %s cannot be inspected, so its last known state is kept: %s"
        _log.warning(text, id_[:12], container.reason)


def _log_remarks(remarks: Iterable[tuple[str, str]]) -> None:
    for label, remark in remarks:
        if remark:
            _log.warning("%s", remark)
        else:
            _log.info("no more than one container has the label %s now", label)
