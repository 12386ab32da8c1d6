"""Session, the imperative API, composed of the classes in `methods/`; and how other packages use its namespaces."""

from __future__ import annotations

from vethlib import ns
from vethlib.links import NetnsRef, means_home

from .core.namespaces import Namespaces
from .methods.changing import ChangingSession
from .methods.creating import CreatingSession
from .methods.reading import ReadingSession
from .methods.surveying import SurveyingSession

__all__ = ["Session", "open_namespaces", "open_netns"]


class Session(CreatingSession, ChangingSession, ReadingSession, SurveyingSession):
    """Create, change, move, delete and read links in any network namespace.

    The home namespace is that of the thread that creates the session, for all threads that use the session. A
    `resolver` turns the label of a "microservice:label" reference into another reference.

    Threads can share a session. A forked process cannot use the session of its parent. Close it, or use it in a
    ``with`` statement. Raises NotPermitted or NetlinkError if the kernel provides no rtnetlink socket.

    Python may run a signal handler while a call is inside a foreign namespace. A handler may use the session, but what
    it opens or starts itself (sockets, programs, a new session) belongs to that namespace. So let a handler only note
    the signal and wake the main loop (``signal.set_wakeup_fd``), or make the calls outside the main thread, because
    handlers run only in the main thread.
    """


for _methods in Session.__bases__:
    for _method in vars(_methods).values():
        if hasattr(_method, "__qualname__"):
            # So that errors about arguments, and help(), show the class that users know.
            _method.__qualname__ = f"{Session.__name__}.{_method.__name__}"

# Two functions for other packages of vethlib, which work in namespaces as a session does. They are not methods, because
# what they return is not part of the API.


def open_namespaces(session: Session) -> Namespaces:
    """Return the namespaces of one call of this session; home is open already. Raises SessionClosed."""
    return session._namespaces()


def open_netns(session: Session, ref: NetnsRef) -> ns.Descriptor:
    """Open a namespace by a reference that the session understands; the caller closes it.

    Raises SessionClosed, NetnsNotFound, NotPermitted, InvalidValue.
    """
    with session._namespaces() as namespaces:
        return ns.open_owned(namespaces.home if means_home(ref) else ref, session._resolver)
