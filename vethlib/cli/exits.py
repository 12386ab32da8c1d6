"""How a command ends: its exit code, and in words what was raised."""

from __future__ import annotations

from vethlib.errors import (
    BatchError,
    InvalidValue,
    LinkNotFound,
    NetnsNotFound,
    NotPermitted,
    VethError,
)

from .output import Output

__all__ = ["DONE", "INTERRUPTED", "INVALID", "PENDING", "REFUSED", "report"]

DONE = 0
INVALID = 1  # usage, or invalid configuration
REFUSED = 2  # by the kernel
PENDING = 3  # applied, but something waits
INTERRUPTED = 130  # as a shell counts SIGINT

_HINTS: tuple[tuple[type[VethError], str], ...] = (
    (NotPermitted, "run it as root, or see what is missing: vethctl doctor"),
    (LinkNotFound, "see what is there: vethctl show --all"),
    (NetnsNotFound, "see what is there: vethctl netns list"),
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
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    output.error(message, code=_kebab(name), hint=hint)
    # Its class lives beside protobuf, whose import costs more than the rest of a command.
    return INVALID if name == "UnreadablePath" else REFUSED


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
