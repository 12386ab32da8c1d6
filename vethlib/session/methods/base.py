"""The base of a session: its home namespace, its caches, how it is closed, and how a method opens namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable

from vethlib._closing import Closing, WarnsUnclosed
from vethlib._primitives import for_caller, socket
from vethlib.errors import belongs_to_parent
from vethlib.links import NetnsRef
from vethlib.session.core.caches import AttachedCaches, Cache
from vethlib.session.core.namespaces import Kept, Namespaces, OpenNetns
from vethlib.session.core.refusal import system_errors

__all__ = ["SessionBase"]


class OneCall(Closing):
    """Opens the namespaces of one call, and keeps the home namespace open until :meth:`close`.

    An error of the call keeps the frames of the call, and with them this object, as long as somebody keeps the error.
    """

    __slots__ = ("_kept", "_open")

    def __init__(self, open_namespaces: Callable[[Kept | None], Namespaces], kept: Kept) -> None:
        self._open = open_namespaces
        self._kept: Kept | None = kept

    def __call__(self) -> Namespaces:
        """Open the namespaces of the call; the caller closes them."""
        return self._open(self._kept)

    def close(self) -> None:
        """Let the session close the home namespace."""
        self._kept = None


class SessionBase(WarnsUnclosed):
    """A session that can be opened and closed, is attached to caches, and identifies namespaces."""

    _usage = "Session()"

    def __init__(self, *, resolver: Callable[[str], str] | None = None) -> None:
        self._pid = os.getpid()
        self._resolver = resolver
        with system_errors("start a session"):
            self._home = OpenNetns.home()
        self._caches = AttachedCaches()
        self._closed = False

    def close(self) -> None:
        """Close the socket. Links are not affected. Closing twice is harmless.

        Calls that create, delete or change links and are in progress in other threads finish, or are undone if they
        are interrupted; the socket is closed then. Other calls in progress may raise SessionClosed.
        """
        if not self._closed:
            self._closed = True
            self._home.release()

    @property
    def resolver(self) -> Callable[[str], str] | None:
        """The resolver for the label of a "microservice:label" reference, or None."""
        return self._resolver

    def _namespaces(self, kept: Kept | None = None) -> Namespaces:
        self._check_process()
        return Namespaces(self._home, self._resolver, self._caches, kept)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise belongs_to_parent("session", self._pid)

    def _for_one_call(self) -> OneCall:
        """Return an opener for a call that completes or undoes its work even if the session is closed meanwhile.

        Raises SessionClosed.
        """
        self._check_process()
        return OneCall(self._namespaces, self._home.hold())

    def attach(self, cache: Cache) -> None:
        """Look up links by name in `cache` if it knows them, and update it after every change made here.

        Each :class:`Link` that is returned still comes from the kernel. The cache is not kept alive. An IfIndexCache
        attaches itself, and detaches when it is closed.
        """
        self._caches.add(cache)

    def detach(self, cache: Cache) -> None:
        """Undo :meth:`attach`. Does nothing if the cache is not attached."""
        self._caches.remove(cache)

    def identity(self, netns: NetnsRef = "") -> tuple[int, int]:
        """Return the identity of a namespace, (st_dev, st_ino), which is equal exactly if it is the same namespace.

        It is valid while the namespace exists; afterwards, the kernel reuses the number. Raises NetnsNotFound,
        NotPermitted, NetlinkError, InvalidValue.
        """
        with self._namespaces() as namespaces:
            return namespaces(netns).identity

    def cookie(self, netns: NetnsRef = "") -> int:
        """Return the cookie of a namespace (SO_NETNS_COOKIE), which no other namespace has had since the boot.

        Unlike :meth:`identity`, it is never reused. It is 0 before Linux 5.14. Raises the same errors as
        :meth:`identity`.
        """
        with self._namespaces() as namespaces:
            return namespaces.cookie(namespaces(netns))

    def socket(
        self,
        netns: NetnsRef = "",
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - as socket.socket has it
        proto: int = 0,
    ) -> socket.socket:
        """Return a socket that was made in a namespace, which can be used from any thread, event loop or process.

            with session.socket("blue") as client:
                client.connect(("10.0.0.2", 80))

        Its class is the caller's ``socket.socket``. The caller closes it; until then, it keeps the namespace alive.
        Raises OSError as ``socket.socket``, NetnsNotFound, NotPermitted, InvalidValue.
        """
        with self._namespaces() as namespaces:
            return for_caller(namespaces(netns).call(lambda: socket.socket(family, type, proto)))
