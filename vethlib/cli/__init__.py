"""vethctl: the command line.

A command's module is imported when the command is called, so that `--help` and usage errors come at once.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from vethlib.errors import VethError

from .arguments import json_is_wanted, parse
from .exits import DONE, INTERRUPTED, INVALID, REFUSED, report
from .output import Output, abandon_stdout
from .parser import UsageError
from .unexpected import be_quiet, report_os_error, report_unexpected

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    is_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["complete"]:
            from .complete import complete

            return complete(argv[1:])
        if is_process:
            be_quiet(Output(as_json=json_is_wanted(argv)))
        return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        abandon_stdout()
        return DONE
    except OSError as error:
        abandon_stdout()
        report_os_error(Output(as_json=json_is_wanted(argv)), error)
        return REFUSED
    except Exception as error:
        report_unexpected(Output(as_json=json_is_wanted(argv)), error)
        return REFUSED


def _run(argv: list[str]) -> int:
    output = Output(as_json=json_is_wanted(argv))
    try:
        args = parse(argv)
        output = Output(as_json=args.json, color=args.color)
        module = import_module(f".{args.module}", __name__)
        command: Callable[[Namespace, Output], int] = getattr(module, args.command)
        code = command(args, output)
    except UsageError as error:
        output.error(str(error), code="usage", field=error.field, hint=error.hint)
        code = INVALID
    except SystemExit:
        code = DONE  # argparse has printed the help
    except VethError as error:
        code = report(output, error)
    sys.stdout.flush()
    return code
