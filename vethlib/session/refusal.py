"""From an errno to an exception that says what was to be done, to which link, where, and what to do about it."""

from __future__ import annotations

import copy
import errno
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def system_errors(request: str, netns: object = "") -> Iterator[None]:
    """Turn an OSError of a system call (a socket that cannot be had, a send that fails) into a NetlinkError."""
    try:
        yield
    except NetlinkError as error:
        # From entering the namespace, which knows it by a descriptor of ours.
        error.args = (f"{request}: {error}",)
        error.request, error.netns = request, str(netns or "")
        raise
    except VethError:
        raise
    except OSError as error:
        number = error.errno or 0
        hint = _HINTS.get(number, "")
        cls = NotPermitted if number in (errno.EPERM, errno.EACCES) else NetlinkError
        if cls is NotPermitted:
            hint = "entering a namespace needs CAP_SYS_ADMIN"
        text = f"{request}: {errno_text(number)}" + (f" ({hint})" if hint else "")
        raise cls(text, errno=number, request=request, netns=str(netns or "")) from error


def copy_for(error: VethError, item: object, request: str = "") -> VethError:
    """A copy of `error` that belongs to `item`: where one refusal fails several, each is told of its own."""
    copied = copy.copy(error)
    copied.item = item
    copied.__cause__ = error.__cause__
    if request and isinstance(copied, NetlinkError):
        copied.args = (f"{request}: {error}",)
        copied.request = request
    return copied
