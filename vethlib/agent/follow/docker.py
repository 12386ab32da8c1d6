"""Microservices as containers of a Docker Engine, followed by its events.

Theory of operation:

1. One thread asks the engine, and nobody else; whoever wants an answer gets it from what the thread has found.
2. The events are asked for before the list is, and from a second ago on: the engine answers the request before it has
   subscribed us (moby, getEvents), and what falls between is among those that it remembers.
3. An event says of which container, and nothing more: that one is looked at anew. So neither their order nor their
   times matter, and a container that has been started again meanwhile is found as it is.
4. Whatever goes wrong ends the connection. The next one begins with the whole list, because an engine never tells of
   what has ended while it was away.
5. An engine that does not answer says nothing of its containers, which may live on. Their processes are followed by
   those who got an answer (`processes.py`).
6. The same goes for one container, of which an engine may fail to say anything while it tells of all others (one that
   is locked, or broken). What was known of it holds; one of which nothing was may have any label that no other has. No
   event need come when it can be looked at again, so the connection ends by itself after a while: 4.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vethlib import ns
from vethlib.errors import NetnsNotFound

from .containers import Container, Containers, container
from .engine import DEFAULT_URL, NOT_INSTALLED, NotConnected, connect, failure, said, socket_path
from .resolver import ResolverDown

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["DockerResolver"]

_log = logging.getLogger("vethlib.agent")

_AT_FIRST: Final = 0.05  # seconds until the next try; then twice as many, up to:
_AT_MOST: Final = 0.5
_LASTING: Final = 1.0  # seconds of a connection after which the next try is a first one
_USELESS: Final = 5.0  # where an engine answers, but cannot be used
_AGAIN: Final = (1.0, 60.0)  # until containers are looked at again that could not be; then twice as many, up to:
_BEFORE: Final = 1  # seconds of events that are told once more
_JOIN: Final = 0.2  # seconds for the thread to end

# Not those of healthchecks (exec_…), which are many.
_EVENTS: Final = (
    *("start", "restart", "die", "oom", "stop", "kill", "destroy"),
    *("pause", "unpause", "rename", "update"),
)


@dataclass(frozen=True, slots=True)
class _Unseen:
    """A container of which the engine does not say what it is: why."""

    reason: str


class DockerResolver:
    """Says which container of this host's Docker Engine a label stands for; as in :class:`Resolver`.

        resolver = DockerResolver()
        with Session(resolver=resolver) as session, Configurator(session) as configurator: ...

    A container has the label of its environment (MICROSERVICE_LABEL=vnf1) or of its container label
    microservice_label; `containers.py` says which of two has it. The engine is connected to when a label is asked for
    first, by a thread, and again whenever it was away; until then the answer is :class:`ResolverDown`. With `patience`,
    whoever asks before the engine has answered, or could not be reached, waits up to so many seconds for that, or until
    :meth:`close`. That is a wait of the calling thread, and no signal ends it that has a handler of asyncio's.

    `url` is a Unix socket, ``unix:///var/run/docker.sock`` or a path. Raises InvalidValue for any other.
    """

    def __init__(self, url: str = DEFAULT_URL, *, patience: float = 0.0) -> None:
        self._path = socket_path(url)
        self._patience = patience
        self._lock = threading.Lock()  # over all that follows but `_wake` and `_told`
        self._containers = Containers()
        self._down = f"the Docker Engine at {self._path} has not answered yet"  # "": it has
        self._unseen: dict[str, _Unseen] = {}  # by the container's id
        self._again = _AGAIN[0]
        self._remarks: dict[str, str] = {}
        self._changed: set[str] | None = set()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._stream: Any = None  # of events, while it is read
        self._wake = threading.Event()  # ends the pause between two tries
        self._told = threading.Event()  # the engine has answered, or could not be reached
        # Where the thread belongs: it would keep a namespace in which somebody asks, and starts it.
        self._home = ns.current()
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # --- for those who ask

    def __call__(self, label: str) -> str:
        """As in :class:`Resolver`."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._start()
        if self._patience:
            self._told.wait(self._patience)
        with self._lock:
            if self._down:
                raise ResolverDown(self._down)
            found = self._containers.answering(label)
            doubt = self._doubt() if found is None else ""
        if doubt:
            raise ResolverDown(f"whether microservice {label} is running is not known: {doubt}")
        if found is None:
            raise NetnsNotFound(f"microservice {label} is not running", netns=f"microservice:{label}")
        return f"pid:{found.pid}"

    def remark(self, label: str) -> str:
        """As in :class:`Remarks`: that other containers have the label, too."""
        with self._lock:
            return "" if self._down else self._containers.remark(label)

    def fileno(self) -> int:
        """As in :class:`Resolver`."""
        return self._news

    def changed(self) -> Iterable[str] | None:
        """As in :class:`Resolver`."""
        with self._lock:
            try:
                os.eventfd_read(self._news)
            except OSError:
                pass  # nothing is new, or it is closed
            changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """End the thread, and close every descriptor; twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._down = "this resolver is closed"
            self._told.set()
            self._wake.set()
            if self._stream is not None:
                _cancel(self._stream)
        if self._thread is not None:
            # It may be waiting for an engine that hangs, with a time limit of its own.
            self._thread.join(_JOIN)
        with self._lock:
            self._home.close()
            os.close(self._news)
            self._news = -1

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="vethlib-docker", daemon=True)
        with ns.current() as here:
            elsewhere = ns.identity(here.fileno()) != ns.identity(self._home.fileno())
        if elsewhere:
            with ns.entered(self._home):
                thread.start()
        else:
            thread.start()
        self._thread = thread

    # --- the thread

    def _run(self) -> None:
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
                self._lose(str(error))
            except Exception as error:
                reason = failure(self._path, error)
                self._lose(reason)
                if reason == NOT_INSTALLED:
                    return
            if time.monotonic() - began > _LASTING:
                delay = _AT_FIRST
            self._wake.wait(delay)
            delay = min(2 * delay, at_most)

    def _follow(self, client: APIClient) -> None:
        """Follow one connection to its end, which is an exception or the end of events."""
        filters = {"type": "container", "event": list(_EVENTS)}
        stream = client.events(since=int(time.time()) - _BEFORE, filters=filters, decode=True)
        again = _Again(stream)
        try:
            if not self._hold(stream):
                return
            found = {}
            for entry in client.containers():
                if self._closed:
                    return
                found[entry["Id"]] = _look(client, entry["Id"])
            self._find(found)
            again.plan(self._look_again_in())
            for event in stream:
                id_ = event["Actor"]["ID"]
                self._found(id_, _look(client, id_))
                again.plan(self._look_again_in())
            if again.is_due():
                return
        finally:
            again.cancel()
            self._hold(None)
            _cancel(stream)
            # Else its socket is left to the garbage collector.
            if (response := getattr(stream, "_response", None)) is not None:
                response.close()
        raise ResolverDown(f"the Docker Engine at {self._path} has gone: waiting for it to answer again")

    def _hold(self, stream: Any) -> bool:
        """Let this be what :meth:`close` cancels; False if that was called already."""
        with self._lock:
            self._stream = stream
            return not self._closed

    def _find(self, found: Mapping[str, Container | _Unseen | None]) -> None:
        """These are all containers there are; None for one that does not count."""
        with self._lock:
            if self._closed:
                return
            was_down, self._down = self._down, ""
            seen = []
            for id_, one in found.items():
                known = self._containers.get(id_) if isinstance(one, _Unseen) else one
                if known is not None:
                    seen.append(known)
            affected = self._containers.replace(seen)
            before = self._unseen
            self._unseen = {id_: one for id_, one in found.items() if isinstance(one, _Unseen)}
            news = {id_: one for id_, one in self._unseen.items() if id_ not in before}
            self._again = min(2 * self._again, _AGAIN[1]) if before and self._unseen else _AGAIN[0]
            self._tell(None if was_down or self._unseen.keys() != before.keys() else affected)
            labels = self._containers.labels()
            remarks = self._news_of_remarks(labels | self._remarks.keys())
        self._told.set()
        if was_down:
            some = f"{len(labels)} microservice{'' if len(labels) == 1 else 's'}"
            _log.info("the Docker Engine at %s answers: it has %s", self._path, some)
        _log_unseen(news)
        _log_remarks(remarks)

    def _found(self, id_: str, found: Container | _Unseen | None) -> None:
        """This is what has become of one container."""
        with self._lock:
            if self._closed:
                return
            before = self._unseen.pop(id_, None)
            if isinstance(found, _Unseen):
                self._unseen[id_] = found
                affected: set[str] = set()
            else:
                affected = self._containers.put(id_, found)
            if (before is None) == isinstance(found, _Unseen):
                self._tell(None)  # which of the labels that nobody has are in doubt
            elif affected:
                self._tell(affected)
            remarks = self._news_of_remarks(affected)
        if before is None and isinstance(found, _Unseen):
            _log_unseen({id_: found})
        _log_remarks(remarks)

    def _doubt(self) -> str:
        """What makes it unknown whether a label that no container has is one's nevertheless; "" for nothing."""
        for id_, one in self._unseen.items():
            if self._containers.get(id_) is None:
                return f"container {id_[:12]} cannot be looked at: {one.reason}"
        return ""

    def _look_again_in(self) -> float | None:
        """In how many seconds; None: there is nothing that was not seen."""
        with self._lock:
            return self._again if self._unseen else None

    def _lose(self, reason: str) -> None:
        """The engine does not answer, or not so that it can be used."""
        with self._lock:
            if self._closed or reason == self._down:
                return
            was_told, was_up = self._told.is_set(), not self._down
            self._down = reason
            self._tell(None)
        self._told.set()
        if was_up or not was_told:
            _log.warning("microservices are not known, and what is built stays: %s", reason)

    def _tell(self, labels: set[str] | None) -> None:
        if self._closed or labels == set():
            return
        if labels is None:
            self._changed = None
        elif self._changed is not None:
            self._changed |= labels
        os.eventfd_write(self._news, 1)

    def _news_of_remarks(self, labels: Iterable[str]) -> list[tuple[str, str]]:
        """The remarks on these labels that are others than they were, each with its label."""
        news = []
        for label in sorted(labels):
            remark = self._containers.remark(label)
            if remark != self._remarks.get(label, ""):
                news.append((label, remark))
                self._remarks[label] = remark
            if not remark:
                self._remarks.pop(label, None)
        return news


class _Again:
    """Ends a stream of events when it is time to look at everything again."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._timer: threading.Timer | None = None
        self._at = 0.0

    def plan(self, seconds: float | None) -> None:
        """End it in so many; what was planned first holds."""
        if seconds is not None and self._timer is None:
            self._at = time.monotonic() + seconds
            self._timer = threading.Timer(seconds, _cancel, [self._stream])
            self._timer.daemon = True
            self._timer.start()

    def is_due(self) -> bool:
        """Whether it may have ended for that."""
        return self._timer is not None and time.monotonic() >= self._at

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _look(client: APIClient, id_: str) -> Container | _Unseen | None:
    """What a container is now; None if it does not count, or is no more."""
    from docker.errors import APIError, NotFound

    try:
        described = client.inspect_container(id_)
    except NotFound:
        return None
    except APIError as error:  # an answer, so that nothing is wrong with the connection
        return _Unseen(said(error))
    try:
        return container(described)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _log.warning("what the Docker Engine says of container %s cannot be read: %r", id_[:12], error)
        return None


def _cancel(stream: Any) -> None:
    """End a stream of events, whichever thread reads it."""
    try:
        stream.close()
    except Exception:
        return  # it has ended by itself, in any of several ways


def _log_unseen(unseen: Mapping[str, _Unseen]) -> None:
    for id_, one in unseen.items():
        _log.warning("container %s cannot be looked at, and what was known of it holds: %s", id_[:12], one.reason)


def _log_remarks(remarks: Iterable[tuple[str, str]]) -> None:
    for label, remark in remarks:
        if remark:
            _log.warning("%s", remark)
        else:
            _log.info("one container at most is microservice %s again", label)
