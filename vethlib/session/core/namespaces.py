"""The namespaces that one call works in: each is opened once, identified by its inode, and has at most one socket.

They are closed with the call, because an fd or a socket in a foreign namespace would keep it alive. Two references to
the same namespace yield the same :class:`OpenNetns`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from vethlib import ns
from vethlib._closing import Closing
from vethlib._nl.batch import DUMP_ATTEMPTS, Exchange, Outcome
from vethlib._nl.direct import ParseAlike, ask_once
from vethlib._nl.sock import RtnlSocket, is_traced
from vethlib._nl.torn import Patience
from vethlib.errors import NetnsNotFound, SessionClosed, VethError, is_exhaustion
from vethlib.links import NetnsRef, spell
from vethlib.ns import own

from .caches import AttachedCaches
from .refusal import raise_with_request, system_errors

__all__ = ["Birth", "Identity", "Kept", "Namespaces", "OpenNetns"]

Identity = tuple[int, int]

Birth = tuple[Identity, int]
"""Identity and cookie of a namespace; the cookie is 0 if it is unknown."""

T = TypeVar("T")

_TALK: Final = "talk rtnetlink"
_TIMES: Final = 8  # the surplus of a link, for several links, or for entries of other programs


class Kept:
    """The descriptor and the socket of a session's home namespace.

    After :meth:`release`, both are closed with the last reference: a call in another thread may be about to use their
    numbers, which could otherwise belong to another namespace by then.
    """

    _is_released = False  # on the class, because an interruption may delete an object that has no attributes yet

    def __init__(self, descriptor: ns.Descriptor, socket: RtnlSocket) -> None:
        self._descriptor = descriptor
        self._socket = socket

    def release(self) -> None:
        """Note that the session no longer needs them."""
        self._is_released = True

    def __del__(self) -> None:
        if self._is_released:
            self._socket.close()


class OpenNetns:
    """An open network namespace. `ref` is the first reference by which the call opened it."""

    __slots__ = ("__weakref__", "_cookie", "_kept", "_owner", "fd", "identity", "is_home", "last_id", "ref", "socket")

    def __init__(self, ref: NetnsRef, owner: ns.Descriptor, *, is_home: bool = False) -> None:
        self.ref = ref
        self.fd = owner.fileno()
        self.identity: Identity = ns.identity(self.fd)
        own.note(self.fd, self, self.identity)
        self.is_home = is_home
        self.socket: RtnlSocket | None = None
        self.last_id = 0  # the last id assigned here to another namespace (vethlib.session.write.creating.ids)
        self._cookie: int | None = None
        self._owner: ns.Descriptor | None = owner
        self._kept: Kept | None = None

    @classmethod
    def home(cls) -> OpenNetns:
        """Open the namespace of the calling thread as the home of a session, with a socket."""
        owner = ns.current()
        home = cls("", owner, is_home=True)
        home.socket = RtnlSocket()
        home._owner, home._kept = None, Kept(owner, home.socket)
        own.note(home.fd, home._kept, home.identity)
        return home

    @property
    def cookie(self) -> int:
        """Return the cookie, which no other namespace has had since the boot; 0 if it is unknown.

        Reading it requires a socket in the namespace; none is opened just for this.
        """
        if self._cookie is None:
            if self.socket is None:
                return 0
            self._cookie = self.socket.netns_cookie()
        return self._cookie

    def note_cookie(self, cookie: int) -> None:
        """Note the cookie, which was read without :attr:`socket`."""
        self._cookie = cookie

    @property
    def knows_cookie(self) -> bool:
        """Whether :attr:`cookie` is known, or known not to exist."""
        return self._cookie is not None or self.socket is not None

    @property
    def birth(self) -> Birth:
        """Return identity and cookie, which distinguish this from later namespaces: the kernel reuses identities."""
        return self.identity, self.cookie

    def is_still(self, birth: Birth) -> bool:
        """Return whether this is the namespace with this birth; cookies are compared only if both are known."""
        identity, cookie = birth
        return self.identity == identity and (not cookie or not self.cookie or self.cookie == cookie)

    def again(self) -> OpenNetns:
        """Return the same namespace without a socket; the caller closes it."""
        return OpenNetns(self.ref, ns.open_owned(self), is_home=self.is_home)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.fd

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` with the thread in this namespace. Raises its errors; NotPermitted unless it is home."""
        return ns.call_at_home(self.fd, function) if self.is_home else ns.call_in(self.fd, function)

    def hold(self) -> Kept:
        """Return an object that keeps the session's home open while it exists. Raises SessionClosed after a release."""
        kept = self._kept
        if kept is None:
            raise SessionClosed("this session is closed")
        return kept

    def release(self) -> None:
        """Close a session's home with the last call that holds it."""
        if self._kept is not None:
            self._kept.release()
            self._kept = None

    def close(self) -> None:
        """Close the socket and the descriptor."""
        if self.socket is not None:
            self.socket.close()
        owner, self._owner = self._owner, None
        if owner is not None:
            own.forget(self.fd)
            owner.close()

    def __str__(self) -> str:
        return spell(self.ref)


class Namespaces(Closing):
    """The namespaces of one call; a context manager that closes them all, except home."""

    __slots__ = (
        *("_by_identity", "_by_ref", "_held", "_kept_home", "_left", "_patience", "_resolver"),
        *("caches", "home", "surplus"),
    )

    # Most calls are about home only, and need neither of these.
    _by_ref: dict[str, OpenNetns] | None
    _by_identity: dict[Identity, OpenNetns]

    def __init__(
        self,
        home: OpenNetns,
        resolver: Callable[[str], str] | None,
        caches: AttachedCaches,
        kept: Kept | None = None,
    ) -> None:
        self._held: Kept | None = home.hold() if kept is None else kept
        # A signal handler that interrupts a call of the same thread uses another socket.
        socket = home.socket
        self.home = home.again() if socket is not None and socket.is_in_use_here() else home
        self.caches = caches
        self._kept_home = home
        self._resolver = resolver
        self._by_ref = None
        self._patience: Patience | None = None
        self._left: dict[Identity, int] | None = None
        # The number of undesired entries after which reading a link may stop; None: read all.
        self.surplus: int | None = None

    @property
    def patience(self) -> Patience:
        """The time that is left for repeating torn dumps, for all namespaces together."""
        if self._patience is None:
            self._patience = Patience()
        return self._patience

    def __iter__(self) -> Iterator[OpenNetns]:
        """Iterate over the namespaces that are open now."""
        return iter([self.home] if self._by_ref is None else list(self._by_identity.values()))

    def close(self) -> None:
        """Close every fd and socket except those of home."""
        if self._by_ref is not None:
            for place in self._by_identity.values():
                if place is not self.home:
                    place.close()
            self._by_ref = None
        if self.home is not self._kept_home:
            self.home.close()
        self._held = None

    def __exit__(self, *_: object) -> None:
        if self._by_ref is not None or self.home is not self._kept_home:
            self.close()
        self._held = None

    def reopened(self, ref: NetnsRef, birth: Birth) -> OpenNetns | None:
        """Open a namespace of an earlier call; None if `ref` now leads nowhere, or to another namespace."""
        try:
            place = self(ref)
        except NetnsNotFound:
            return None
        if not place.is_still(birth):
            return None
        self.cookie(place)
        return place if place.is_still(birth) else None

    def replaced(self, cookies: Mapping[Identity, int]) -> set[Identity]:
        """Return which of these identities belonged to other namespaces when these cookies were read.

        Opens a socket in each namespace that has one of them. Before Linux 5.14, there are no cookies to compare.
        """
        known = [place for place in self if place.identity in cookies]
        self.open_sockets(known)
        return {place.identity for place in known if not place.is_still((place.identity, cookies[place.identity]))}

    def __call__(self, ref: NetnsRef) -> OpenNetns:
        """Return the namespace that `ref` leads to. Raises NetnsNotFound, NotPermitted, InvalidValue."""
        # A Netns hashes by identity, and after it is closed its fd may be reused: it is never a key.
        is_text = isinstance(ref, str)
        if ref is None or (is_text and not ref):
            return self.home
        if self._by_ref is None:
            self._by_identity = {self.home.identity: self.home}
            self._by_ref = {}
        elif is_text and (place := self._by_ref.get(ref)) is not None:  # type: ignore[arg-type]
            return place
        place = OpenNetns(ref, ns.open_owned(ref, self._resolver))
        known = self._by_identity.setdefault(place.identity, place)
        if known is not place:
            place.close()
            place = known
        if is_text:
            self._by_ref[ref] = place  # type: ignore[index]
        return place

    def identity(self, ref: NetnsRef) -> Identity:
        """Return the identity of a namespace, which is not kept open. Raises the same errors as opening it."""
        if ref is None or ref == "":
            return self.home.identity
        if self._by_ref is not None and isinstance(ref, str) and (place := self._by_ref.get(ref)) is not None:
            return place.identity
        with ns.open_owned(ref, self._resolver) as owner:
            return ns.identity(owner.fileno())

    def socket(self, place: OpenNetns) -> RtnlSocket:
        """Return the rtnetlink socket in `place`, the same one during the call."""
        if place.socket is None:
            with system_errors("open an rtnetlink socket", place.ref):
                place.socket = place.call(RtnlSocket)
        return place.socket

    def cookie(self, place: OpenNetns) -> int:
        """Return the cookie of `place`; 0 if the kernel has none. Opens a socket there, unless a cache knows it."""
        if not place.knows_cookie:
            if known := self.caches.cookie(place.identity):
                place.note_cookie(known)
            else:
                self.socket(place)
        return place.cookie

    def open_sockets(self, namespaces: Iterable[OpenNetns]) -> None:
        """Open the sockets in several namespaces in one round through them (2 µs each instead of 8).

        If that fails in one of them, none is opened; :meth:`socket` then tries again and raises the error.
        """
        unopened = [place for place in dict.fromkeys(namespaces) if place.socket is None]
        try:
            sockets = ns.map_in([place.fd for place in unopened], RtnlSocket) if unopened else []
        except (VethError, OSError):
            return
        for place, socket in zip(unopened, sockets, strict=True):
            place.socket = socket

    def lacks_sockets(self, places: Iterable[OpenNetns]) -> bool:
        """Open the sockets in several namespaces; return whether there were too few descriptors or too little memory.

        Any other error is raised by :meth:`socket` when the socket is needed.
        """
        places = list(places)
        self.open_sockets(places)
        for place in places:
            try:
                self.socket(place)
            except VethError as error:
                if is_exhaustion(error):
                    return True
        return False

    def ask(self, place: OpenNetns, request: bytes) -> Outcome:
        """Send one request in `place` that is answered with an object, and return its outcome."""
        socket = self.socket(place)
        try:
            return socket.ask(request)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)

    def ask_once(self, places: Sequence[OpenNetns], questions: Sequence[bytes]) -> list[bytes | None]:
        """Send one question in each of these namespaces; return the bodies of the answers, and note the cookies.

        None for an unusual answer, or a namespace that cannot be entered: :meth:`ask` finds out why.
        """
        try:
            if places and not is_traced():
                answers = ns.map_in([place.fd for place in places], map(ask_once, questions).__next__)
                for place, (_, cookie) in zip(places, answers, strict=True):
                    place.note_cookie(cookie)
                return [body for body, _ in answers]
        except (VethError, OSError):
            pass
        return [None] * len(places)

    def change_and_ask(self, place: OpenNetns, change: bytes, question: bytes) -> Sequence[Outcome]:
        """Send a change and a question in `place` together; return both outcomes (RtnlSocket.change_and_ask)."""
        socket = self.socket(place)
        try:
            return socket.change_and_ask(change, question)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)

    def change(self, place: OpenNetns, requests: Sequence[bytes]) -> Sequence[Outcome]:
        """Send changes in `place` that are not echoed, and return the outcome of each (RtnlSocket.change)."""
        socket = self.socket(place)
        try:
            return socket.change(requests)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)

    def exchange(self, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests in `place`, and return the outcome of each."""
        socket = self.socket(place)
        try:
            return socket.exchange(requests)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)

    def ask_all(self, place: OpenNetns, requests: Sequence[bytes]) -> Sequence[Outcome]:
        """Return the outcomes of requests that are each answered with an object; usually there is only one."""
        return [self.ask(place, requests[0])] if len(requests) == 1 else self.exchange(place, requests)

    def dump(
        self,
        place: OpenNetns,
        request: bytes,
        parse: Callable[[bytes], Any],
        attempts: int = DUMP_ATTEMPTS,
        parse_alike: ParseAlike | None = None,
        marks: Sequence[bytes] = (),
    ) -> Outcome:
        """Dump a table in `place`, and parse each of its messages, at least those with any of the `marks`."""
        socket = self.socket(place)
        try:
            return socket.dump(request, parse, attempts, parse_alike, marks=marks)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)

    def limit(self, surplus: int | None, expected: Mapping[OpenNetns, int]) -> None:
        """Limit how many entries :meth:`dump_limited` reads in these namespaces, except home; None: no limit.

        A tenant can add any number of entries. The number `expected` there, plus a multiple of `surplus`, are read.
        """
        if surplus is not None:
            self._left = {
                place.identity: number + _TIMES * surplus for place, number in expected.items() if not place.is_home
            }

    def most_of(self, place: OpenNetns) -> int | None:
        """Return how many entries one more dump in a namespace may have; None: any number."""
        return None if self._left is None else self._left.get(place.identity)

    def dump_limited(
        self,
        place: OpenNetns,
        request: bytes,
        parse: Callable[[bytes], Any],
        *,
        counted: bool = True,
        marks: Sequence[bytes] = (),
    ) -> Outcome:
        """Make one attempt to dump a table in `place`. EFBIG, with what was read, if it is longer than the limit.

        Unless the dump is `counted`, it does not reduce what may be read afterwards.
        """
        left = self.most_of(place)
        if self._left is None or left is None:
            return self.dump(place, request, parse, 1, marks=marks)
        socket = self.socket(place)
        try:
            outcome = socket.dump(request, parse, most=left, marks=marks)
        except OSError as error:
            raise_with_request(error, _TALK, place.ref)
        if counted:
            self._left[place.identity] = max(0, left - len(outcome.bodies))
        if outcome.errno not in (0, errno.EAGAIN):
            socket.close()  # this ends the dump; the rest of the tenant's entries are not read
            place.socket = None
        return outcome

    def begin(self, place: OpenNetns, requests: Sequence[bytes]) -> Exchange:
        """Begin an exchange to be passed to :meth:`run`; its outcomes survive an interruption."""
        return self.socket(place).begin(requests)

    def run(self, place: OpenNetns, exchange: Exchange) -> None:
        """Run an exchange that was begun in `place`."""
        with system_errors(_TALK, place.ref):
            self.socket(place).run(exchange)
