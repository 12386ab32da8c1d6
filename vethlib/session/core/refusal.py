"""Turn an errno into an exception that has the request, the link, its namespace, and a hint what to do about it."""

from __future__ import annotations

import errno
import os
import sys
from types import TracebackType
from typing import Final, NoReturn

from vethlib._nl.batch import Outcome
from vethlib.errors import NetlinkError, NotPermitted, VethError, errno_text, error_class, not_permitted

__all__ = [
    "READ_ONLY",
    "copy_for",
    "loading",
    "raise_with_request",
    "refusal",
    "sysctl_error",
    "system_error",
    "system_errors",
]

_HINTS = {
    errno.EPERM: "this needs CAP_NET_ADMIN in the user namespace that owns the network namespace",
    errno.ENOMEM: "the kernel is out of memory",
    errno.ENOBUFS: "the kernel was short of memory, or its answer was lost: check before trying again",
    errno.EMFILE: "this process is out of file descriptors: raise `ulimit -n`",
    errno.ENFILE: "this host is out of file descriptors: raise fs.file-max",
}

READ_ONLY: Final = "a container has /proc/sys read-only, unless it is privileged"

_OF_SYSCTLS: Final = {
    errno.EROFS: READ_ONLY,
    errno.ENOENT: "this kernel has no such setting, or the link is gone; `ls /proc/sys/net/ipv[46]/conf/lo` lists them",
}


def refusal(
    outcome: Outcome, request: str, netns: object, *, says: str = "", cls: type[NetlinkError] | None = None
) -> NetlinkError:
    """Return the exception for a failed outcome.

    `request` is the request in words ("create veth 'a' ⇄ 'b'"). `says` replaces the text of the errno if more is known,
    and `cls` replaces the class from the table of errnos if the number has another meaning here.
    """
    number = outcome.errno
    text = says or errno_text(number)
    if outcome.extack and not (says and number == errno.EEXIST):  # whose extack adds nothing to ours (Linux 7.2)
        text += f": {outcome.extack}"
    if hint := _HINTS.get(number):
        text += f" ({hint})"
    error = (cls or error_class(number))(
        f"{request}: {text}", errno=number, extack=outcome.extack, request=request, netns=str(netns or "")
    )
    if isinstance(error, NotPermitted) and number == errno.EPERM:
        error.capability = "CAP_NET_ADMIN"
    return error


class system_errors:  # noqa: N801 - named like those of contextlib; a generator would cost 1 µs, this 0.3
    """Turn an OSError of a system call (no socket can be opened, a send fails) into a NetlinkError with the request.

    ``with system_errors("talk rtnetlink", "blue"):``
    """

    __slots__ = ("_netns", "_request")

    def __init__(self, request: str, netns: object = "") -> None:
        self._request = request
        self._netns = netns

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise_with_request(error, self._request, self._netns)


class _Loading(system_errors):
    """Also turn the ImportError of a module that this thread is already loading into a VethError."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ImportError) and _is_being_loaded(error.name):
            # Python does not wait for the thread that loads a module if that is the calling thread.
            says = "is being loaded by this thread, which a signal handler has interrupted"
            raise VethError(f"{self._request}: {error.name!r} {says}") from error
        super().__exit__(kind, error, trace)


def _is_being_loaded(name: str | None) -> bool:
    """Return whether a module has begun to run and not ended, by the same criterion as Python itself."""
    spec = getattr(sys.modules.get(name or ""), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


loading: Final = _Loading("load a module of vethlib")
"""For modules that are imported when they are first needed, which takes a descriptor for a moment."""


def raise_with_request(error: Exception, request: str, netns: object) -> NoReturn:
    """Raise the error of a system call, or of entering a namespace for it, with the request."""
    if isinstance(error, NetlinkError):
        # It was raised when the namespace was entered, and identifies the namespace by our descriptor.
        error.args = (f"{request}: {error}",)
        error.request, error.netns = request, str(netns or "")
    if isinstance(error, VethError):
        raise error
    raise system_error(error, request, netns) from error


def system_error(error: Exception, request: str, netns: object) -> NetlinkError:
    """Return the NetlinkError for an error of a system call, or of entering a namespace for it."""
    number = getattr(error, "errno", 0) or 0
    if isinstance(error, VethError):
        cls = type(error) if isinstance(error, NetlinkError) else NetlinkError
        named = cls(f"{request}: {error}", errno=number, request=request, netns=str(netns or ""))
        if isinstance(error, NotPermitted) and isinstance(named, NotPermitted):
            named.capability = error.capability
        return named
    hint = _HINTS.get(number, "")
    filename = getattr(error, "filename", None)  # that of a descriptor is a number
    file = os.fsdecode(filename) if isinstance(filename, str | bytes) else ""
    if number == errno.ENOENT and file.startswith("/proc/"):
        hint = f"{file}; is /proc mounted?"
    if number in (errno.EPERM, errno.EACCES):
        if file.startswith("/proc/sys/"):
            return _not_administrator(number, request, netns)
        capability = "CAP_SYS_ADMIN"
        text = f"{request}: {errno_text(number)} (entering a namespace needs {capability})"
        return not_permitted(text, capability, errno=number, request=request, netns=str(netns or ""))
    text = f"{request}: {errno_text(number)}" + (f" ({hint})" if hint else "")
    return NetlinkError(text, errno=number, request=request, netns=str(netns or ""))


def _not_administrator(number: int, request: str, netns: object) -> NotPermitted:
    """Return the error for a setting: CAP_NET_ADMIN lets a user do there what root may do (net_ctl_permissions)."""
    text = f"{request}: {errno_text(number)} ({_HINTS[errno.EPERM]})"
    return not_permitted(text, "CAP_NET_ADMIN", errno=number, request=request, netns=str(netns or ""))


def sysctl_error(error: OSError, request: str, netns: object) -> NetlinkError:
    """Return the NetlinkError for a file of /proc/sys that cannot be written."""
    number = error.errno or 0
    if number in (errno.EPERM, errno.EACCES) and not isinstance(error, VethError):
        return _not_administrator(number, request, netns)
    if number not in _OF_SYSCTLS:
        return system_error(error, request, netns)
    text = f"{request}: {errno_text(number)} ({_OF_SYSCTLS[number]})"
    return NetlinkError(text, errno=number, request=request, netns=str(netns or ""))


def copy_for(error: VethError, item: object, request: str = "") -> VethError:
    """Return a copy of `error` for `item`: if one refusal affects several items, each gets its own error."""
    with loading:
        from copy import copy  # rarely needed

    copied = copy(error)
    copied.item = item
    copied.__cause__ = error.__cause__
    if request and isinstance(copied, NetlinkError):
        copied.args = (f"{request}: {error}",)
        copied.request = request
    return copied
