"""From an errno to an exception that says what was to be done, to which link, where, and what to do about it."""

from __future__ import annotations

import copy
import errno
from types import TracebackType

from .._nl.batch import Outcome
from ..errors import NetlinkError, NotPermitted, VethError, errno_text, error_class

__all__ = ["copy_for", "refusal", "system_errors"]

_HINTS = {
    errno.EPERM: "this needs CAP_NET_ADMIN in the user namespace that owns the network namespace",
    errno.ENOMEM: "the kernel is out of memory",
    errno.ENOBUFS: "the kernel was short of memory, or its answer was lost: look before trying again",
    errno.EMFILE: "this process is out of file descriptors: raise `ulimit -n`",
    errno.ENFILE: "this host is out of file descriptors: raise fs.file-max",
}


def refusal(
    outcome: Outcome, request: str, netns: object, *, says: str = "", cls: type[NetlinkError] | None = None
) -> NetlinkError:
    """The exception for a failed outcome.

    `request` says in words what was asked ("create veth 'a' ⇄ 'b'"); `says` replaces the bare words of the errno
    where we know better; `cls` the class of the errno table where the number means something else here.
    """
    number = outcome.errno
    text = says or errno_text(number)
    if outcome.extack:
        text += f": {outcome.extack}"
    if hint := _HINTS.get(number):
        text += f" ({hint})"
    return (cls or error_class(number))(
        f"{request}: {text}", errno=number, extack=outcome.extack, request=request, netns=str(netns or "")
    )


class system_errors:  # noqa: N801 - it reads as contextlib's own do; as a generator it would cost 1 µs, here 0.3
    """Turn an OSError of a system call (a socket that cannot be had, a send that fails) into a NetlinkError.

    A block that says what was asked: ``with system_errors("talk rtnetlink", "blue"):``.
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
        if isinstance(error, NetlinkError):
            # From entering the namespace, which knows it by a descriptor of ours.
            error.args = (f"{self._request}: {error}",)
            error.request, error.netns = self._request, str(self._netns or "")
        elif isinstance(error, OSError) and not isinstance(error, VethError):
            raise _from_system(error, self._request, self._netns) from error


def _from_system(error: OSError, request: str, netns: object) -> NetlinkError:
    number = error.errno or 0
    hint = _HINTS.get(number, "")
    cls = NotPermitted if number in (errno.EPERM, errno.EACCES) else NetlinkError
    if cls is NotPermitted:
        hint = "entering a namespace needs CAP_SYS_ADMIN"
    text = f"{request}: {errno_text(number)}" + (f" ({hint})" if hint else "")
    return cls(text, errno=number, request=request, netns=str(netns or ""))


def copy_for(error: VethError, item: object, request: str = "") -> VethError:
    """A copy of `error` that belongs to `item`: where one refusal fails several, each is told of its own."""
    copied = copy.copy(error)
    copied.item = item
    copied.__cause__ = error.__cause__
    if request and isinstance(copied, NetlinkError):
        copied.args = (f"{request}: {error}",)
        copied.request = request
    return copied
