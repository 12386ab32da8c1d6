"""How a command ends: its exit code, and in words what was raised."""

from __future__ import annotations

from vethlib.errors import (
    BatchError,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    VethError,
    WaitTimeout,
)

from .output import Output

__all__ = ["DONE", "INTERRUPTED", "INVALID", "PENDING", "REFUSED", "UNDONE", "report"]

DONE = 0
INVALID = 1  # usage, or invalid configuration
REFUSED = 2  # by the kernel
PENDING = 3  # applied, but something waits
UNDONE = 4  # tried, and taken back
INTERRUPTED = 130  # as a shell counts SIGINT

_HINTS: tuple[tuple[type[VethError], str], ...] = (
    (NotPermitted, "run it as root, or see what is missing: vethctl doctor"),
    (LinkExists, "see what it is: vethctl show --all"),
    (LinkNotFound, "see what is there: vethctl show --all"),
    (NetnsExists, "use it as it is, or delete it first: vethctl netns del NAME"),
    (NotSupported, "see its kind: vethctl show --all; or what this kernel lacks: vethctl doctor"),
    (WaitTimeout, "what was done before stays done; see how it is: vethctl show --all"),
)


def report(output: Output, error: VethError) -> int:
    """Say what went wrong; returns the exit code it stands for."""
    if isinstance(error, BatchError):
        return max(report(output, one) for one in error.exceptions)
    message = "; ".join([str(error), *getattr(error, "__notes__", ())])
    if isinstance(error, InvalidValue):
        output.error(message, code="invalid-value", field=error.field, hint=error.hint)
        return INVALID
    name = type(error).__name__
    output.error(message, code=_kebab(name), hint=_hint(error, name))
    # Its class lives beside protobuf, whose import costs more than the rest of a command.
    return INVALID if name == "UnreadablePath" else REFUSED


def _hint(error: VethError, name: str) -> str:
    """What to do about it, where its message does not say."""
    if name == "UnreadablePath":
        return "name a JSON file, a directory of *.json, or - for stdin"
    if isinstance(error, NetnsNotFound):
        kind, colon, value = error.netns.partition(":")
        if colon and kind != "netns":
            return ""  # a process, a file or a container: the message is all there is to say
        return f"see what is there: vethctl netns list; or make it: vethctl netns add {value or kind or 'NAME'}"
    return next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
