"""Exit codes, and reporting exceptions as errors with a hint."""

from __future__ import annotations

import errno
import re
from contextlib import suppress

from vethlib.errors import (
    BatchError,
    DuplicateAddress,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    Malformed,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    VethError,
    WaitTimeout,
)

from .crash import cure_of
from .homelinks import is_link
from .output import Output

__all__ = ["DONE", "INTERRUPTED", "INVALID", "PENDING", "REFUSED", "UNDONE", "report"]

DONE = 0
INVALID = 1  # usage, or invalid configuration
REFUSED = 2  # refused by the kernel, or by a store
PENDING = 3  # applied, but something is pending
UNDONE = 4  # tried and undone
INTERRUPTED = 130  # the exit code of shells for SIGINT

_PEER_OF_IP = re.compile("if[0-9]+|.*@.*", re.DOTALL)  # ip prints the index of a peer that is elsewhere

# Errors that a file may cause although its path is right
_OF_READING = (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_HINTS: tuple[tuple[type[VethError], str], ...] = (
    (NotPermitted, "run it as root, or see what is missing: vethctl doctor"),
    (LinkExists, "to see it: vethctl show --all"),
    (LinkNotFound, "to see all links: vethctl show --all"),
    (Malformed, "to see the messages of the kernel: VETHLIB_DEBUG=nl vethctl …"),
    (NotSupported, "to see its kind: vethctl show --all; for the features of this kernel: vethctl doctor"),
    (DuplicateAddress, "changes made before remain; give one of the two links another address"),
    (WaitTimeout, "changes made before remain; to see the links: vethctl show --all"),
)


def report(output: Output, error: VethError, *, hint: str | None = None) -> int:
    """Report an error and return its exit code. `hint` replaces the usual advice."""
    if isinstance(error, BatchError):
        return max(report(output, each, hint=hint) for each in error.exceptions)
    message = "; ".join([str(error), *getattr(error, "__notes__", ())])
    if isinstance(error, InvalidValue):
        output.error(message, code="invalid-value", field=error.field, hint=error.hint)
        return INVALID
    name = type(error).__name__
    # By name: importing the class would import protobuf, which takes longer than most commands.
    is_path = name == "UnreadablePath"
    output.error(
        message,
        code=_kebab(name),
        field=getattr(error, "field", "") if is_path else "",
        hint=_hint(error, name) if hint is None else hint,
        cause=_cause(error, name),
    )
    return INVALID if is_path else REFUSED


def _cause(error: VethError, name: str) -> tuple[str, str] | None:
    """Return the code of the reason for an error, and what that is about; None if the class is enough."""
    if name == "StoreError":
        return str(getattr(error, "code", "")), str(getattr(error, "path", ""))
    if isinstance(error, NotPermitted) and error.capability:
        return "missing-capability", error.capability
    return None


def _hint(error: VethError, name: str) -> str:
    """Return what to do about an error, unless its message already contains that."""
    number = getattr(error, "errno", None)
    if name == "UnreadablePath":
        scheme, colon, directory = str(getattr(error, "path", "")).partition(":")
        if colon and scheme == "dir":
            return f"of a store, give the directory alone: {directory or 'PATH'}"
        if number in _OF_READING:
            return cure_of(number)
        return "must be a JSON file, a directory of *.json files, or - for stdin"
    if isinstance(error, NetnsNotFound):
        kind, colon, value = error.netns.partition(":")
        if colon and kind != "netns":
            return ""  # for a process, a file or a container, the message is enough
        name = value or kind
        if error.taken:
            return _removal(name)
        if name.startswith("@"):
            return f"to see the namespaces: vethctl netns list; give the name without the '@': {name[1:] or 'NAME'}"
        if _PEER_OF_IP.fullmatch(name) or is_link(name):
            return "to see the namespaces: vethctl netns list; of NAME@PEER, as ip prints it, give NAME alone"
        return f"to see the namespaces: vethctl netns list; to create it: vethctl netns add {name or 'NAME'}"
    if isinstance(error, LinkExists) and error.dying:
        return "try again in a moment, or let create wait: --wait SECONDS"
    if isinstance(error, NetnsExists):
        name = error.netns.removeprefix("netns:") or "NAME"
        return _removal(name) if error.unusable else f"use it as it is, or delete it first: vethctl netns del {name}"
    if hint := next((hint for kind, hint in _HINTS if isinstance(error, kind)), ""):
        return hint
    # The kernel's lack of buffers is over by the time that somebody reads this.
    return "" if number == errno.ENOBUFS or "raise" in str(error) else cure_of(number)


def _removal(name: str) -> str:
    """Return how to remove what is in the place of a named namespace: `netns del` does it, but not for a directory."""
    from vethlib.ns.opening import NETNS_DIR, is_directory  # only for this error
    from vethlib.ns.search import mounted_elsewhere

    path = f"{NETNS_DIR}/{name}"
    with suppress(OSError):
        if pid := mounted_elsewhere(path):
            return f"do not remove it: that would end the namespace, which process {pid} has there"
    return f"remove it first: {f'rmdir {path}' if is_directory(path) else f'vethctl netns del {name}'}"


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
