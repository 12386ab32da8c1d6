"""vethctl: the command line. Each command is imported when it is called, so that `--help` and errors come at once."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from vethlib.errors import BatchError, InvalidValue, NotPermitted, VethError

from .arguments import UsageError, parse
from .output import Output

__all__ = ["main"]

DONE, INVALID, REFUSED, PENDING = range(4)
"""Exit codes: done; usage or invalid configuration; refused by the kernel or a store; applied, but something waits."""

_MODULE_OF = {
    "apply": "configuration",
    "diff": "configuration",
    "validate": "configuration",
    "create": "links",
    "move": "links",
    "delete": "links",
    "stats": "links",
    "show": "show",
    "netns": "netns",
    "doctor": "doctor",
    "demo": "demo",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse(argv)
    except UsageError as error:
        Output(as_json="--json" in argv).error(str(error.args[0]), code="usage", hint=f"usage: {error.args[1]}")
        return INVALID
    if args.version:
        import vethlib

        print(f"vethctl {vethlib.__version__}")
        return DONE
    color = getattr(args, "color", None) or os.environ.get("VETHLIB_COLOR", "auto")
    as_json = getattr(args, "json", False) or os.environ.get("VETHLIB_JSON", "") in ("1", "true")
    return _guarded(args, Output(as_json=as_json, color=color))


def _guarded(args: Namespace, output: Output) -> int:
    """Run the command; whatever it raises becomes a message and an exit code."""
    try:
        module = import_module(f".{_MODULE_OF[args.command]}", __name__)
        command: Callable[[Namespace, Output], int] = getattr(module, args.command)
        code = command(args, output)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (VethError, ExceptionGroup) as error:
        return report(output, error)
    return code


def report(output: Output, error: BaseException) -> int:
    """Say what went wrong; returns the exit code it stands for."""
    if isinstance(error, BatchError):
        return max(report(output, one) for one in error.exceptions)
    if isinstance(error, InvalidValue):
        output.error(str(error), code="invalid-value", field=error.field, hint=error.hint)
        return INVALID
    hint = ""
    if isinstance(error, NotPermitted):
        hint = "run it as root, or look at: vethctl doctor"
    output.error(str(error), code=_kebab(type(error).__name__), hint=hint)
    return INVALID if type(error).__name__ == "UnreadablePath" else REFUSED


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
