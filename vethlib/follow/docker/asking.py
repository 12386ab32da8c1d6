"""Requests to an engine: the running containers, the details of each, and their events.

Theory of operation:

1. Engines name events differently ("died" and "remove" in podman, "die" and "destroy" in Docker), and newer ones add
   names. So names are not relied on: any event of a container triggers an inspection. Only events that are frequent and
   cannot concern it are ignored: those of processes started inside, such as healthchecks.
2. Running and paused containers are requested explicitly. Docker lists both by default, podman omits paused ones.
3. All containers are first inspected in haste: each that is late shortens the time for those that follow. So however
   many are late, the others are known soon. Afterwards, the late ones get the usual time for an answer, once, and only
   until one of them uses it up; the rest get theirs when all containers are inspected again.
4. If the answer about one container is missing, late or unreadable, the state of that container is unknown; the others
   and the engine are unaffected. Only "no such container" is an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vethlib import _threads as threads
from vethlib._primitives import time
from vethlib.text import cut

from .containers import Container, container
from .engine import is_late, text_of

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["HASTE", "LEAST", "LookAgain", "Unseen", "concerned", "end", "events", "look", "running"]

_BEFORE: Final = 1  # seconds of past events that are requested
_LIST: Final = 30.0  # seconds for the list, which takes several seconds with a thousand containers
HASTE: Final = 0.5  # seconds for an answer about a container while others wait
LEAST: Final = 0.05  # seconds for an answer if many containers are late
_STATES: Final = ("running", "paused")
_INSIDE: Final = ("exec", "health_status")  # prefixes of events that do not concern the container
_LONGEST: Final = 300  # characters of an engine's text that are passed on


@dataclass(frozen=True, slots=True)
class Unseen:
    """A container whose state is unknown, with the reason; `late` if the engine did not answer in time.

    `hasty` means that it was late in haste, and may not be when it gets the usual time.
    """

    reason: str
    late: bool = False
    hasty: bool = False


def events(client: APIClient) -> Any:
    """Return the stream of all events of containers, which the caller ends with :func:`end`. Raises errors of the SDK.

    The engine answers the request before it has subscribed the client (moby, getEvents), so events are requested from
    one second earlier: it sends those that it remembers.
    """
    return client.events(since=int(time.time()) - _BEFORE, filters={"type": "container"}, decode=True)


def running(client: APIClient) -> list[str]:
    """Return the ids of all running containers, paused or not. Raises errors of the SDK."""
    with _answering_within(client, _LIST):
        return [entry["Id"] for entry in client.containers(filters={"status": list(_STATES)})]


def concerned(event: Any) -> str | None:
    """Return the id of the container that an event may concern; "" if that may be any container, None if none."""
    if not isinstance(event, Mapping):
        return ""
    if event.get("Type", "container") != "container":
        return None
    action = event.get("Action") or event.get("status") or ""
    if isinstance(action, str) and action.startswith(_INSIDE):
        return None
    actor = event.get("Actor")
    id_ = (actor.get("ID") if isinstance(actor, Mapping) else None) or event.get("id")
    return id_ if isinstance(id_, str) else ""


def look(client: APIClient, id_: str, seconds: float | None = None) -> Container | Unseen | None:
    """Inspect a container; return None if it does not count or no longer exists.

    `seconds` is the time for an answer, if it is shorter than usual. Raises errors of the SDK if the engine as a whole
    does not answer.
    """
    from docker.errors import APIError, NotFound

    try:
        with _answering_within(client, client.timeout if seconds is None else min(seconds, client.timeout)):
            described = client.inspect_container(id_)
    except NotFound:
        return None
    except APIError as error:  # an answer, so the connection works
        return Unseen(cut(text_of(error), _LONGEST))
    except Exception as error:
        if isinstance(error, ValueError):  # an answer that is not JSON
            return _unreadable(error)
        if not is_late(error):
            raise
        try:
            client.ping()
        except APIError:
            pass  # this is an answer, too
        return Unseen(
            "the engine answers other requests, but not about this container", late=True, hasty=seconds is not None
        )
    try:
        return container(described)
    except Exception as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> Unseen:
    return Unseen(cut(f"the engine's answer cannot be read: {type(error).__name__}: {text_of(error)}", _LONGEST))


@contextmanager
def _answering_within(client: APIClient, seconds: float) -> Iterator[None]:
    """Set the time limit of answers in the block."""
    usual, client.timeout = client.timeout, seconds
    try:
        yield
    finally:
        client.timeout = usual


def end(stream: Any) -> None:
    """End a stream of events, whichever thread reads it."""
    try:
        stream.close()
    except Exception:
        return  # it has already ended, which raises various exceptions


class LookAgain:
    """A timer that ends a stream of events when it is time to inspect all containers again."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._timer: threading.Timer | None = None
        self._at = 0.0

    def plan(self, seconds: float | None) -> None:
        """End the stream after `seconds`, unless that is already planned to happen earlier."""
        if seconds is not None and (self._timer is None or time.monotonic() + seconds < self._at):
            self.cancel()
            self._at = time.monotonic() + seconds
            self._timer = threading.Timer(seconds, end, [self._stream])
            self._timer.daemon = True
            try:
                threads.start(self._timer, "looking at all containers again")
            except threads.ThreadRefused:
                self._timer = None  # the next event will try again

    def cancel(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
