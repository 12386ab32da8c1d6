"""The exceptions of vethlib, and the table that maps an errno to a class.

Every exception is a :class:`VethError` and also the builtin that a Python user would catch: ``LinkExists`` is a
``FileExistsError``, ``LinkNotFound`` a ``LookupError``. Messages contain the operation, the link and its namespace,
because the kernel rarely returns more than a number. All exceptions can be pickled.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .links import Pair

__all__ = [
    "BatchError",
    "DuplicateAddress",
    "InvalidValue",
    "LinkExists",
    "LinkNotFound",
    "Malformed",
    "NetlinkError",
    "NetnsExists",
    "NetnsNotFound",
    "NotPermitted",
    "NotSupported",
    "SessionClosed",
    "VethError",
    "WaitTimeout",
    "belongs_to_parent",
    "check_callback",
    "check_path",
    "check_type",
    "errno_text",
    "error_class",
    "is_exhaustion",
    "not_permitted",
    "shown",
]


class VethError(Exception):
    """Base class of all exceptions that vethlib raises on purpose.

    ``item`` is the element of a ``*_many`` call that the error belongs to, otherwise None. ``created`` are the pairs
    that the call did create and that remain, in order, each as the call would have returned it.
    """

    item: object = None
    created: Sequence[Pair] = ()

    def __reduce__(self) -> tuple[Callable[..., VethError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.args, {name: _picklable(value) for name, value in _state(self).items()})

    def __copy__(self) -> VethError:
        return _rebuild(type(self), self.args, _state(self))


def _state(error: VethError) -> dict[str, Any]:
    # OSError keeps errno in its C structure, not in __dict__.
    state = dict(error.__dict__)
    if isinstance(error, OSError):
        state["errno"] = error.errno
    return state


def _picklable(value: object) -> object:
    """Return `value`, or its text if it cannot be pickled: a caller may have given anything, such as a generator."""
    from pickle import dumps  # 1 ms, only for errors that leave the process

    try:
        dumps(value)
    except Exception:
        return shown(value)
    return value


def _rebuild(cls: type[VethError], args: tuple[Any, ...], state: dict[str, Any]) -> VethError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidValue(VethError, ValueError):
    """A value is invalid. It was refused before anything was sent.

    ``field`` is the name of the parameter, ``value`` its value, and ``hint`` describes what is accepted. The message
    contains only the beginning of a long value, or of a hint that repeats a long value.
    """

    def __init__(self, field: str, value: object, hint: str) -> None:
        if len(hint) > _LONGEST_HINT:
            hint = f"{hint[:_LONGEST_HINT]}…"
        super().__init__(f"{field} {shown(value)}: {hint}")
        self.field = field
        self.value = value
        self.hint = hint

    @property
    def public(self) -> str:
        """The message without the value, which may be secret, for places that everybody can read."""
        return str(self)


_T = TypeVar("_T")


def check_type(value: object, cls: type[_T], field: str, hint: str) -> _T:
    """Return `value` if it is an instance of `cls`; otherwise raise InvalidValue."""
    if not isinstance(value, cls):
        raise InvalidValue(field, value, hint)
    return value


def check_path(path: object, field: str) -> str:
    """Return a path as text. Raises InvalidValue for anything that the system cannot take for one."""
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]  # anything else raises TypeError
        if b"\0" not in os.fsencode(text):
            return text
    except (TypeError, UnicodeEncodeError):
        pass
    raise InvalidValue(field, path, "must be a path, without NUL")


def check_callback(function: _T | None, field: str) -> _T | None:
    """Return `function` if it can be called, or is None; otherwise raise InvalidValue."""
    if function is None or callable(function):
        return function
    raise InvalidValue(field, function, "must be a function")


_LONGEST = 300  # characters of a value in a message
_LONGEST_HINT = 1000


def shown(value: object) -> str:
    """Return a value for a message: short, even if its repr() raises (an int of 5000 digits, a list of itself)."""
    try:
        text = repr(value[:_LONGEST] if isinstance(value, str | bytes) else value)
    except Exception:
        return f"of type {type(value).__name__}"
    is_whole = len(text) <= _LONGEST if not isinstance(value, str | bytes) else len(value) <= _LONGEST
    return text if is_whole else f"{text[:_LONGEST]}…"


class NetlinkError(VethError, OSError):
    """The kernel refused a request.

    ``errno`` is the kernel's error number, ``extack`` its extended-ack text or "", ``request`` a description of the
    request, and ``netns`` the namespace of the request, as the caller spelt it.
    """

    def __init__(self, message: str, *, errno: int = 0, extack: str = "", request: str = "", netns: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.extack = extack
        self.request = request
        self.netns = netns

    def __str__(self) -> str:
        return str(self.args[0])


class LinkExists(NetlinkError, FileExistsError):
    """The name is already taken in that namespace.

    ``dying`` is True if the link with this name is about to vanish, because the namespace of its peer is ending.
    """

    dying: bool = False


class LinkNotFound(NetlinkError, LookupError):
    """The link does not exist in that namespace.

    If a link with another ifindex has the name now, ``index`` is the ifindex of that link; otherwise None.
    """

    index: int | None = None


class NotPermitted(NetlinkError, PermissionError):
    """A capability is missing: ``capability`` is its name, such as "CAP_NET_ADMIN", or "" if it is not known."""

    capability: str = ""


def not_permitted(message: str, capability: str, **fields: Any) -> NotPermitted:
    """Return the error for the lack of a capability."""
    error = NotPermitted(message, **fields)
    error.capability = capability
    return error


class NotSupported(NetlinkError):
    """This kernel, or this kind of link, does not support the operation."""


class DuplicateAddress(NetlinkError):
    """IPv6 duplicate address detection found another owner of the address."""


class Malformed(NetlinkError, ValueError):
    """A netlink message cannot be parsed, even after a second request. ``errno`` is EBADMSG."""

    def __init__(
        self, message: str, *, errno: int = _errno.EBADMSG, extack: str = "", request: str = "", netns: str = ""
    ) -> None:
        super().__init__(message, errno=errno, extack=extack, request=request, netns=netns)


class NetnsNotFound(VethError, LookupError):
    """A namespace reference leads to no namespace.

    ``netns`` is the reference; a name may have been completed, as in "netns:blue". ``taken`` is True if something else
    exists at its path, a file that is not a namespace or a dangling symbolic link. It must be removed before a
    namespace can be created there.
    """

    def __init__(self, message: str, *, netns: str = "", taken: bool = False) -> None:
        super().__init__(message)
        self.netns = netns
        self.taken = taken


class NetnsExists(VethError, FileExistsError):
    """The named namespace already exists; if ``unusable``, the name is only that of a file or a symbolic link.

    ``netns`` is the reference, such as "netns:blue".
    """

    unusable: bool = False
    netns: str = ""

    def __str__(self) -> str:
        return str(self.args[0])


class WaitTimeout(VethError, TimeoutError):
    """A wait timed out. Changes that were made before the wait remain in effect.

    ``awaited`` is what did not happen within ``seconds``: "up" (the link is down), "carrier" (the other end is down),
    "address" (an address was removed from the link), "detection" (duplicate address detection has not finished),
    "move" (the process has not moved to another namespace), "condition" or "listener" (nothing listens on the port).
    ``name`` is the link, or the node of a topology, and ``netns`` its namespace, as the caller spelt it.
    """

    def __init__(
        self, message: str, *, awaited: str = "", name: str = "", netns: str = "", seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.awaited = awaited
        self.name = name
        self.netns = netns
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class SessionClosed(VethError, RuntimeError):
    """The session was closed, or, if ``forked``, it belongs to the process from which this one was forked.

    The same holds for a cache, a monitor or a configurator.
    """

    forked: bool = False


def belongs_to_parent(what: str, pid: int | None) -> SessionClosed:
    """Return the error for the use of a session or cache in a child of the process `pid` to which it belongs."""
    error = SessionClosed(f"this {what} belongs to process {pid}: after a fork, the child must create its own {what}")
    error.forked = True
    return error


class BatchError(VethError, ExceptionGroup[VethError]):
    """Some items of a ``*_many`` call failed: one exception per failed item, each with its ``.item``."""

    if TYPE_CHECKING:

        @property
        def exceptions(self) -> tuple[VethError, ...]:
            """One exception per failed item."""

    def __reduce__(self) -> tuple[Callable[..., VethError], tuple[Any, ...]]:
        return _rebuild, (BatchError, (self.message, list(self.exceptions)), _state(self))

    def derive(self, excs: Sequence[VethError]) -> BatchError:  # type: ignore[override]
        """Keep the class and ``created`` when an ``except*`` or ``split()`` divides the group."""
        part = BatchError(self.message, excs)
        part.created = self.created
        return part


_CLASS_OF_ERRNO: dict[int, type[NetlinkError]] = {
    _errno.EEXIST: LinkExists,
    _errno.ENODEV: LinkNotFound,
    _errno.EPERM: NotPermitted,
    _errno.EACCES: NotPermitted,
    _errno.EOPNOTSUPP: NotSupported,
    _errno.EBADMSG: Malformed,
}


def error_class(number: int) -> type[NetlinkError]:
    """Return the class for a kernel errno; :class:`NetlinkError` itself if there is none more specific."""
    return _CLASS_OF_ERRNO.get(number, NetlinkError)


def errno_text(number: int) -> str:
    """Return the text and the name of an errno for messages: ``Operation not permitted (EPERM)`` for 1."""
    return f"{os.strerror(number)} ({_errno.errorcode.get(number, number)})"


_EXHAUSTION = (_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM)


def is_exhaustion(error: BaseException) -> bool:
    """Return whether the process or the host is out of descriptors or memory.

    Nothing is wrong with the request then, and a request that needs fewer at a time may succeed.
    """
    return isinstance(error, OSError) and error.errno in _EXHAUSTION
