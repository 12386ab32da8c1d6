"""What nobody thought of: an exception that is none of ours ends a command with one line, not with a traceback.

Who wants to see where it came from sets VETHLIB_DEBUG=traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from typing import Any

from .output import Output

__all__ = ["be_quiet", "report_os_error", "report_unexpected", "with_tracebacks"]

_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_HINT = "this is a fault of vethctl's: report it with what VETHLIB_DEBUG=traceback shows, and `vethctl doctor --json`"


def with_tracebacks() -> bool:
    """Whether VETHLIB_DEBUG asks for them."""
    return "traceback" in os.environ.get("VETHLIB_DEBUG", "").split(",")


def report_os_error(output: Output, error: OSError) -> None:
    """Say what the system refused; what the kernel refused to do to links is told by errors of ours."""
    words = error.strerror or str(error)
    if error.filename:
        output.error(f"{error.filename}: {words}", code="os-error")
    elif error.errno in _OF_OUTPUT:
        output.error(f"cannot write the output: {words}", code="os-error", hint="make room where stdout leads to")
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        cure = "ulimit -n" if error.errno == errno.EMFILE else "fs.file-max"
        output.error(f"no file descriptor is left: {words}", code="os-error", hint=f"raise {cure}")
    else:
        report_unexpected(output, error)


def report_unexpected(output: Output, error: BaseException) -> None:
    """Say what happened, and how to tell those who can mend it."""
    if with_tracebacks():
        import traceback

        output.remark("".join(traceback.format_exception(error)).rstrip("\n"))
    output.error(_in_words(error), code="unexpected", hint=_HINT)


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}" + (f": {text}" if text else "")


def be_quiet(output: Output) -> None:
    """What Python itself would print to stderr in this process is told as everything is, or not at all.

    Warnings are for developers: none is shown unless -W or PYTHONWARNINGS asks for it. What is raised where nobody can
    catch it (in a thread, or at the end of an object) is told in one line.
    """
    if not sys.warnoptions and not with_tracebacks():
        warnings.simplefilter("ignore")

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            report_unexpected(output, args.exc_value)

    def at_an_end(args: Any) -> None:
        if args.exc_value is not None:
            report_unexpected(output, args.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = at_an_end
