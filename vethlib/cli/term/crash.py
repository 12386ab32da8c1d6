"""Unexpected exceptions: a command prints one line instead of a traceback, which VETHLIB_DEBUG=traceback shows."""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from typing import Any

from .output import Output

__all__ = ["cure_of", "replace_hooks", "report_os_error", "report_unexpected", "with_tracebacks"]

# What to do if the output cannot be written. EBADF: stdout is not open (streams.py).
_ROOM = "free some space where stdout is written to"
_OF_OUTPUT = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise ulimit -f",
    errno.EIO: "",
    errno.EBADF: "stdout is closed: redirect it",
}
_MEMORY = "free some, or raise the limit: ulimit -v, or memory.max of the control group"
_EXHAUSTED = {
    errno.EMFILE: "raise ulimit -n",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
}
_HINT = "this is a bug in vethctl: report it with the output of VETHLIB_DEBUG=traceback and of `vethctl doctor --json`"


def with_tracebacks() -> bool:
    """Return whether VETHLIB_DEBUG contains traceback."""
    return "traceback" in os.environ.get("VETHLIB_DEBUG", "").split(",")


def report_os_error(output: Output, error: OSError) -> None:
    """Report an error of the operating system that is not about links; those are VethErrors."""
    words = error.strerror or str(error)
    cure = cure_of(error.errno)
    if error.filename and not isinstance(error.filename, int):  # a number is that of a descriptor
        output.error(f"{error.filename}: {words}", code="os-error", hint=cure)
    elif cure:
        what = "file descriptor" if error.errno in (errno.EMFILE, errno.ENFILE) else "memory"
        output.error(f"no {what} is left: {words}", code="os-error", hint=cure)
    elif error.errno in _OF_OUTPUT:
        output.error(f"cannot write the output: {words}", code="os-error", hint=_OF_OUTPUT[error.errno])
    else:
        report_unexpected(output, error)


def cure_of(number: int | None) -> str:
    """Return what to do if the process or the host has run out of something, by errno; "" for any other error."""
    return _EXHAUSTED.get(number or 0, "")


def report_unexpected(output: Output, error: BaseException) -> None:
    """Report an unexpected exception, and how to report the bug."""
    output.error(_in_words(error), code="unexpected", hint=_HINT, traceback=_traceback(error))


def _traceback(error: BaseException) -> list[str]:
    """Return the lines of the traceback, if it was asked for."""
    if not with_tracebacks():
        return []
    import traceback

    return "".join(traceback.format_exception(error)).splitlines()


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}" + (f": {text}" if text else "")


def replace_hooks(output: Output) -> None:
    """Replace what Python itself prints to stderr, for this process.

    Warnings are for developers, so they are only shown with -W or PYTHONWARNINGS. An exception that cannot be caught
    (in a thread, or when an object is deleted) is reported in one line.
    """
    if not sys.warnoptions and not with_tracebacks():
        warnings.simplefilter("ignore")

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            report_unexpected(output, args.exc_value)

    def when_deleted(args: Any) -> None:
        if args.exc_value is not None:
            report_unexpected(output, args.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = when_deleted
