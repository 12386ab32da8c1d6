"""vethctl: the command line.

The module of a command is imported when the command is run, so that `--help` and usage errors appear at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from vethlib.errors import InvalidValue, VethError

from .arguments import json_is_requested, parse
from .arguments.parser import UsageError
from .term.crash import replace_hooks, report_os_error, report_unexpected
from .term.exits import DONE, INTERRUPTED, INVALID, REFUSED, report
from .term.output import Output, abandon_stdout
from .term.signals import Terminated, preserved, undone_by_signals
from .term.streams import open_missing, wait_for_readers

__all__ = ["main"]

_WITHOUT_PROC: Final = ("completion", "doctor", "help")


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    is_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    try:
        if is_process:
            open_missing()
            wait_for_readers()
        if argv[:1] == ["complete"]:
            from .completion.answer import complete

            return complete(argv[1:])
        if is_process:
            replace_hooks(Output(as_json=json_is_requested(argv)))
            with undone_by_signals():
                return _run(argv)
        with preserved(signal.SIGHUP), preserved(signal.SIGCHLD):  # the agent changes them until its process has ended
            return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated as terminated:
        return terminated.obey()
    except BrokenPipeError:  # a command that prints until it is stopped has lost its reader
        abandon_stdout()
        return DONE
    except OSError as error:
        abandon_stdout()
        report_os_error(Output(as_json=json_is_requested(argv)), error)
        return REFUSED
    except MemoryError:
        no_memory = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        report_os_error(Output(as_json=json_is_requested(argv)), no_memory)
        return REFUSED
    except Exception as error:
        report_unexpected(Output(as_json=json_is_requested(argv)), error)
        return REFUSED


def _has_proc(output: Output) -> bool:
    """Return whether /proc is mounted, without which neither namespaces nor files are opened; report if it is not."""
    if sys.platform != "linux" or os.path.exists("/proc/self"):
        return True
    output.error("/proc is not mounted", code="not-mounted", hint="mount -t proc proc /proc")
    return False


def _run(argv: list[str]) -> int:
    output = Output(as_json=json_is_requested(argv))
    variables: dict[str, str] = {}
    try:
        args = parse(argv)
        variables = args.variables
        output = Output(as_json=args.json, color=args.color)
        module = import_module(f".commands.{args.module}", __name__)
        command: Callable[[Namespace, Output], int] = getattr(module, args.command)
        code = command(args, output) if args.command in _WITHOUT_PROC or _has_proc(output) else REFUSED
    except UsageError as error:
        output.error(str(error), code="usage", field=error.field, hint=error.hint)
        code = INVALID
    except SystemExit:
        code = DONE  # argparse has printed the help
    except VethError as error:
        code = report(output, _named(error, variables))
    output.flush()
    return code


def _named(error: VethError, variables: Mapping[str, str]) -> VethError:
    """Return an error about the value of a flag, which names the variable that has this value instead, if any."""
    if type(error) is InvalidValue and error.field in variables:
        hint = f"{error.hint}; correct it, or unset it and give {error.field}"
        return InvalidValue(variables[error.field], error.value, hint)
    return error
