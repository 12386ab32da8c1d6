"""An open network namespace as an object."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager

from vethlib._closing import Closing
from vethlib._primitives import for_caller, socket, time
from vethlib.errors import InvalidValue, NetnsExists, NetnsNotFound

from . import named
from .descriptor import Descriptor, current
from .entering import NotesEntry, call_in, call_in_new, entered
from .reference import HasFileno, Resolver, identity, number_of, open_owned, parse

__all__ = ["Netns", "text_of"]


class Netns(Closing, NotesEntry):
    """An open network namespace, which exists at least until this object is closed.

        with Netns.create("blue") as blue:
            session.create(Veth(End("a"), End("b", netns=blue)))

    Do not keep it open longer than needed: while it is open, the links of a stopped container remain. Closing it does
    not remove a name. A Netns can be used wherever a namespace reference is accepted, and is equal to any other Netns
    of the same namespace. `ref` is the reference by which it was opened, in canonical form; for an anonymous namespace,
    "fd:N", which is valid while it is open. Pickled or copied, it becomes that reference, or for an anonymous one the
    path of its descriptor, which leads there from other processes, too. `label`, if set, is its name in messages, such
    as "node a".
    """

    __slots__ = ("__weakref__", "_closed", "_owner", "_was_entered", "identity", "label", "ref")

    ref: str
    identity: tuple[int, int]
    label: str

    def __init__(self, owner: Descriptor, ref: str | None = None) -> None:
        if not hasattr(owner, "fileno"):
            raise InvalidValue(
                "owner", owner, 'use Netns.open("blue") to open a namespace, or Netns.create("blue") to create one'
            )
        self._owner = owner
        self.ref = f"fd:{owner.fileno()}" if ref is None else ref
        self.identity = identity(owner.fileno())
        self.label = ""
        self._was_entered = False
        self._closed = False  # last, so that an interrupted object is neither shown nor warned about

    @classmethod
    def open(cls, ref: str | HasFileno | None, resolver: Resolver | None = None) -> Netns:
        """Open the namespace of a reference. Raises like :func:`~vethlib.ns.open_owned`."""
        owner = open_owned(ref, resolver)
        if isinstance(ref, Netns):
            return cls(owner, None if ref.ref.startswith("fd:") else ref.ref)
        if ref is None or isinstance(ref, str):
            text = str(parse(ref))
            return cls(owner, None if text.startswith("fd:") else text)
        return cls(owner)

    @classmethod
    def create(cls, name: str, *, exist_ok: bool = False, up: bool = False) -> Netns:
        """Create /run/netns/`name`, as ``ip netns add`` does, and open it; with `up`, its loopback is set up.

        With `exist_ok`, an existing namespace is opened unchanged, instead of raising :class:`NetnsExists`.
        """
        ref = str(parse(name))
        made: list[None] = []
        try:
            return cls(named.create(name, up=up, made=made), ref)
        except BaseException as error:
            if made:
                named.erase(name)  # the caller will never know of it
            if not (exist_ok and isinstance(error, NetnsExists)):
                raise
        return cls(_opened_when_finished(ref), ref)

    @classmethod
    def anonymous(cls) -> Netns:
        """Create a network namespace without a name, which ends when it is closed and nothing else uses it."""
        return cls(call_in_new(current))

    @classmethod
    def of_process(cls, pid: int, *, timeout: float = 5.0) -> Netns:
        """Wait until a process is in another namespace than the calling thread, and open that namespace.

            container = subprocess.Popen(["unshare", "--net", "sleep", "inf"])
            with Netns.of_process(container.pid) as netns: ...

        The wait is needed because a new process starts in the namespace of its parent. Raises :class:`WaitTimeout` if
        it is still there after `timeout` seconds, :class:`NetnsNotFound` if the process ends, and
        :class:`NotPermitted`.
        """
        from .programs.elsewhere import opened_elsewhere  # rarely needed

        return cls(opened_elsewhere(pid, timeout), f"pid:{pid}")

    @property
    def fd(self) -> int:
        """The descriptor, which this object continues to own. Raises NetnsNotFound after :meth:`close`."""
        if self._closed:
            name = self.label or f"the Netns {self.ref or 'of home'}"
            raise NetnsNotFound(f"{name} is closed", netns=self.ref)
        return self._owner.fileno()

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:  # noqa: A002
        """Return a socket of this namespace, which can be used from any thread, event loop or process.

        Its class is the caller's ``socket.socket``. Raises OSError, NetnsNotFound after :meth:`close`, and NotPermitted
        without CAP_SYS_ADMIN.
        """
        return for_caller(call_in(self.fd, lambda: socket.socket(family, type, proto)))

    def fileno(self) -> int:
        """Return :attr:`fd`."""
        return self.fd

    @property
    def was_entered(self) -> bool:
        """Whether a thread or a program has entered the namespace through this object."""
        return self._was_entered

    def _note_entered(self) -> None:
        self._was_entered = True

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def entered(self) -> AbstractContextManager[None]:
        """Return a context manager that enters this namespace; see :func:`~vethlib.ns.entered`."""
        return entered(self)

    def close(self) -> None:
        """Close the descriptor. Closing twice is harmless."""
        self._closed = True
        self._owner.close()

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, Netns) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        # "" means the home namespace only inside it; in a message, the descriptor is more informative.
        return self.ref or f"fd:{-1 if self._closed else self._owner.fileno()}"

    def __repr__(self) -> str:
        return f"<Netns {self.ref!r} {self.identity[1]}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # In another process, or once this one is closed, the number may belong to a descriptor of another namespace.
        text = str(self)
        if text.startswith("fd:"):
            text = "fd:-1" if self._closed else f"path:/proc/{os.getpid()}/fd/{self._owner.fileno()}"
        return str, (text,)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _opened_when_finished(ref: str) -> Descriptor:
    # The process that creates it makes the file first and mounts the namespace on it a millisecond later, or more under
    # load.
    deadline = time.monotonic() + 1.0
    while True:
        try:
            return open_owned(ref)
        except NetnsNotFound:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)


def text_of(netns: HasFileno) -> str:
    """Return the reference to an open namespace, which an object without a name has only while it is open.

    Raises NetnsNotFound.
    """
    return str(netns) if isinstance(netns, Netns) else f"fd:{number_of(netns)}"
