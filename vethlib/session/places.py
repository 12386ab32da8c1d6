"""The namespaces one call works in: each opened once, told apart by identity, given a socket when one is needed.

A place lives as long as the call: nothing of it is kept, because an fd or a socket in a foreign namespace would keep
that namespace alive. Two references that lead to one namespace are one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from .. import ns
from .._nl.batch import DUMP_ATTEMPTS, Exchange, Outcome
from .._nl.sock import RtnlSocket
from ..errors import VethError
from ..links import NetnsRef, spell
from .known import Known
from .refusal import system_errors

__all__ = ["Identity", "Place", "Places"]

Identity = tuple[int, int]


class Place:
    """A network namespace as one call works in it. `ref` is the spelling it was first asked for by."""

    __slots__ = ("_owner", "fd", "identity", "is_home", "ref", "socket")

    def __init__(self, ref: NetnsRef, owner: ns.Descriptor, *, is_home: bool = False) -> None:
        self.ref = ref
        self.fd = owner.fileno()
        self.identity: Identity = ns.identity(self.fd)
        self.is_home = is_home
        self.socket: RtnlSocket | None = None
        self._owner = owner

    def close(self) -> None:
        """Close the socket and the descriptor."""
        if self.socket is not None:
            self.socket.close()
        self._owner.close()

    def __str__(self) -> str:
        return spell(self.ref)


class Places:
    """The places of one call; a context manager that closes them all."""

    __slots__ = ("_by_identity", "_by_ref", "_resolver", "home", "known")

    def __init__(self, home: Place, resolver: Callable[[str], str] | None, known: Known) -> None:
        self.home = home
        self.known = known
        self._resolver = resolver
        self._by_ref: dict[object, Place] = {"": home, None: home}
        self._by_identity: dict[Identity, Place] = {home.identity: home}

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every fd and socket but those of home."""
        if len(self._by_identity) > 1:
            for place in self._by_identity.values():
                if place is not self.home:
                    place.close()
            self._by_identity = {self.home.identity: self.home}
            self._by_ref = {"": self.home, None: self.home}

    def __call__(self, ref: NetnsRef) -> Place:
        """The place `ref` leads to. Raises NetnsNotFound, NotPermitted, InvalidValue."""
        # A Netns hashes by identity, and its fd may be another namespace's after it was closed: never a key.
        key = ref if isinstance(ref, str) or ref is None else None
        if (ref is None or key is not None) and (place := self._by_ref.get(key)) is not None:
            return place
        place = Place(ref, ns.open_owned(ref, self._resolver))
        known = self._by_identity.setdefault(place.identity, place)
        if known is not place:
            place.close()
            place = known
        if key is not None:
            self._by_ref[key] = place
        return place

    def socket(self, place: Place) -> RtnlSocket:
        """An rtnetlink socket in `place`, the same one during the call."""
        if place.socket is None:
            with system_errors("open an rtnetlink socket", place.ref):
                place.socket = ns.call_in(place.fd, RtnlSocket)
        return place.socket

    def open_sockets(self, places: Iterable[Place]) -> None:
        """Open the sockets of several places in one round through their namespaces (2 µs each instead of 8).

        If that fails somewhere, none is open afterwards: who needs one will try again, and hear of it.
        """
        wanting = [place for place in dict.fromkeys(places) if place.socket is None]
        try:
            sockets = ns.map_in([place.fd for place in wanting], RtnlSocket) if wanting else []
        except (VethError, OSError):
            return
        for place, socket in zip(wanting, sockets, strict=True):
            place.socket = socket

    def ask(self, place: Place, request: bytes) -> Outcome:
        """Send one request that is answered with an object in `place`."""
        socket = self.socket(place)
        with system_errors("talk rtnetlink", place.ref):
            return socket.ask(request)

    def exchange(self, place: Place, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests in `place`; one outcome for each."""
        socket = self.socket(place)
        with system_errors("talk rtnetlink", place.ref):
            return socket.exchange(requests)

    def ask_all(self, place: Place, requests: Sequence[bytes]) -> Sequence[Outcome]:
        """The outcomes of requests each of which is answered with an object; mostly it is one."""
        return [self.ask(place, requests[0])] if len(requests) == 1 else self.exchange(place, requests)

    def dump(
        self, place: Place, request: bytes, parse: Callable[[bytes], Any], attempts: int = DUMP_ATTEMPTS
    ) -> Outcome:
        """A dump in `place`, each of its messages parsed."""
        socket = self.socket(place)
        with system_errors("talk rtnetlink", place.ref):
            return socket.dump(request, parse, attempts)

    def begin(self, place: Place, requests: Sequence[bytes]) -> Exchange:
        """An exchange to be :meth:`run`, whose outcomes survive an interruption."""
        return self.socket(place).begin(requests)

    def run(self, place: Place, exchange: Exchange) -> None:
        """Run what was begun in `place`."""
        with system_errors("talk rtnetlink", place.ref):
            self.socket(place).run(exchange)
