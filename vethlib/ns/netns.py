"""An open network namespace as an object."""

from __future__ import annotations

import time
import warnings
from contextlib import AbstractContextManager
from types import TracebackType

from ..errors import NetnsExists, NetnsNotFound
from . import named
from .descriptor import Descriptor, current
from .entering import call_in_new, entered
from .reference import HasFileno, Resolver, identity, open_owned, parse

__all__ = ["Netns"]


class Netns:
    """A network namespace, held open: it lives at least as long as this object is not closed.

        with Netns.create("blue") as blue:
            session.create(Veth(End("a"), End("b", netns=blue)))

    So hold one no longer than needed: a stopped container's interfaces stay while its Netns is open. Closing does not
    remove a name. Serves as a reference wherever one is taken, and is equal to any other Netns of the same namespace.
    `ref` is the text it was opened by, in canonical form; for an anonymous one "fd:N", good while it is open.
    """

    __slots__ = ("__weakref__", "_closed", "_owner", "identity", "ref")

    ref: str
    identity: tuple[int, int]

    def __init__(self, owner: Descriptor, ref: str | None = None) -> None:
        self._owner = owner
        self.ref = f"fd:{owner.fileno()}" if ref is None else ref
        self.identity = identity(owner.fileno())
        self._closed = False  # last: before, an interruption leaves nothing that could be shown or warned of

    @classmethod
    def open(cls, ref: str | HasFileno | None, resolver: Resolver | None = None) -> Netns:
        """Open what `ref` names; raises what :func:`~vethlib.ns.open_owned` does."""
        owner = open_owned(ref, resolver)
        if isinstance(ref, Netns):
            return cls(owner, None if ref.ref.startswith("fd:") else ref.ref)
        if ref is None or isinstance(ref, str):
            text = str(parse(ref))
            return cls(owner, None if text.startswith("fd:") else text)
        return cls(owner)

    @classmethod
    def create(cls, name: str, *, exist_ok: bool = False) -> Netns:
        """Make /run/netns/`name`, as ``ip netns add`` does, and hold it open.

        With `exist_ok`, one that is there already is opened instead of raising :class:`NetnsExists`.
        """
        ref = str(parse(name))
        try:
            return cls(named.create(name), ref)
        except NetnsExists:
            if not exist_ok:
                raise
        return cls(_opened_when_finished(ref), ref)

    @classmethod
    def anonymous(cls) -> Netns:
        """Make a network namespace without a name: it ends when this is closed and nothing else is in it."""
        return cls(call_in_new(current))

    @property
    def fd(self) -> int:
        """The descriptor, which stays this object's own. NetnsNotFound once it is closed."""
        if self._closed:
            raise NetnsNotFound(f"the Netns {self.ref or 'of home'} is closed", netns=self.ref)
        return self._owner.fileno()

    def fileno(self) -> int:
        """As :attr:`fd`."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def entered(self) -> AbstractContextManager[None]:
        """A block during which the calling thread is inside; see :func:`~vethlib.ns.entered`."""
        return entered(self)

    def close(self) -> None:
        """Let go of the namespace. Closing twice is no error."""
        self._closed = True
        self._owner.close()

    def __enter__(self) -> Netns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, Netns) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        # The home namespace is "" only to those who are in it; in a message its descriptor says more.
        return self.ref or f"fd:{-1 if self._closed else self._owner.fileno()}"

    def __repr__(self) -> str:
        return f"<Netns {self.ref!r} {self.identity[1]}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A descriptor means nothing to another process: an error that names a Netns arrives there with its reference.
        return str, (str(self),)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _opened_when_finished(ref: str) -> Descriptor:
    # Its creator makes the file first and mounts the namespace over it a millisecond later; more under load.
    deadline = time.monotonic() + 1.0
    while True:
        try:
            return open_owned(ref)
        except NetnsNotFound:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)
