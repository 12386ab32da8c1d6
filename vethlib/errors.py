"""The exceptions of vethlib, and the table that turns an errno into one of them.

Every exception is a :class:`VethError` and also the builtin a Python user would catch: ``LinkExists`` is a
``FileExistsError``, ``LinkNotFound`` a ``LookupError``. Messages carry our own context (what was to be done, to
which link, in which namespace), because the kernel rarely says more than a number. All of them pickle.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

__all__ = [
    "BatchError",
    "DuplicateAddress",
    "InvalidValue",
    "LinkExists",
    "LinkNotFound",
    "NetlinkError",
    "NetnsExists",
    "NetnsNotFound",
    "NotPermitted",
    "NotSupported",
    "SessionClosed",
    "VethError",
    "WaitTimeout",
    "errno_text",
    "error_class",
]


class VethError(Exception):
    """Anything vethlib raises on purpose.

    ``item`` is the element of a ``*_many`` call that the error belongs to, else None.
    """

    item: object = None

    def __reduce__(self) -> tuple[Callable[..., VethError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.args, _state(self))


def _state(error: VethError) -> dict[str, Any]:
    # OSError keeps errno in its C struct, where __dict__ does not see it.
    state = dict(error.__dict__)
    if isinstance(error, OSError):
        state["errno"] = error.errno
    return state


def _rebuild(cls: type[VethError], args: tuple[Any, ...], state: dict[str, Any]) -> VethError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidValue(VethError, ValueError):
    """A value that can never work; found before anything was sent.

    ``field`` names the parameter, ``value`` is what was given, ``hint`` says what would be accepted.
    """

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(f"{field} {value!r}: {hint}")
        self.field = field
        self.value = value
        self.hint = hint


class NetlinkError(VethError, OSError):
    """The kernel refused a request.

    ``errno`` is the kernel's number; ``extack`` its extended-ack text, or ""; ``request`` what we asked for, in
    words; ``netns`` the namespace it was asked in, as the caller spelt it.
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
    """The name is taken in that namespace."""


class LinkNotFound(NetlinkError, LookupError):
    """There is no such link in that namespace."""


class NotPermitted(NetlinkError, PermissionError):
    """A capability is missing; the message names it."""


class NotSupported(NetlinkError):
    """This kernel, or this kind of link, cannot do that."""


class DuplicateAddress(NetlinkError):
    """IPv6 duplicate address detection found another owner of the address."""


class NetnsNotFound(VethError, LookupError):
    """A namespace reference that leads nowhere (now). ``netns`` is the reference as it was given."""

    def __init__(self, message: str, *, netns: str = "") -> None:
        super().__init__(message)
        self.netns = netns


class NetnsExists(VethError, FileExistsError):
    """A named namespace of that name is there already."""

    def __str__(self) -> str:
        return str(self.args[0])


class WaitTimeout(VethError, TimeoutError):
    """What was waited for did not happen in time. What had been done before the wait stays done."""

    def __str__(self) -> str:
        return str(self.args[0])


class SessionClosed(VethError, RuntimeError):
    """The session was closed, or belongs to the process this one was forked from."""


class BatchError(VethError, ExceptionGroup[VethError]):
    """Some items of a ``*_many`` call failed: one exception per failed item, each with its ``.item``."""

    if TYPE_CHECKING:

        @property
        def exceptions(self) -> tuple[VethError, ...]:
            """One per failed item."""

    def __reduce__(self) -> tuple[Callable[..., VethError], tuple[Any, ...]]:
        return BatchError, (self.message, list(self.exceptions))

    def derive(self, excs: Sequence[VethError]) -> BatchError:  # type: ignore[override]
        """Keep the class when an ``except*`` or ``split()`` divides the group."""
        return BatchError(self.message, excs)


_CLASS_OF_ERRNO: dict[int, type[NetlinkError]] = {
    _errno.EEXIST: LinkExists,
    _errno.ENODEV: LinkNotFound,
    _errno.EPERM: NotPermitted,
    _errno.EACCES: NotPermitted,
    _errno.EOPNOTSUPP: NotSupported,
}


def error_class(number: int) -> type[NetlinkError]:
    """The class for a kernel errno; :class:`NetlinkError` itself where none is more telling."""
    return _CLASS_OF_ERRNO.get(number, NetlinkError)


def errno_text(number: int) -> str:
    """``Operation not permitted (EPERM)`` for 1: the words and the name, for messages."""
    return f"{os.strerror(number)} ({_errno.errorcode.get(number, number)})"
