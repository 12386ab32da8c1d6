"""netns list, add, del and exec: named namespaces."""

from __future__ import annotations

import errno
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial

from vethlib import ns
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.arguments.references import parse_netns
from vethlib.cli.term.exits import DONE, report
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import natural, paint
from vethlib.errors import InvalidValue, NetnsNotFound, VethError, errno_text
from vethlib.ns import Netns
from vethlib.ns.programs.running import become

__all__ = ["netns"]

_USAGE = "usage: vethctl netns [list | add [--up] NAME… | del NAME… | exec NETNS PROGRAM [ARGUMENT…]]"
_CANNOT_RUN, _NOT_FOUND = 126, 127  # the exit codes of shells


def netns(args: Namespace, output: Output) -> int:
    """List, add, delete or run a program; return the exit code."""
    if args.action == "exec":
        return _run(args, output)
    if (args.action == "list") == bool(args.names):
        wrong = f"one argument too many: {args.names[0]!r}" if args.names else "NAME is missing"
        raise UsageError(wrong, field="NAME", hint=_USAGE)
    if args.up and args.action != "add":
        raise UsageError("--up needs add", field="--up", hint="usage: vethctl netns add --up NAME…")
    if args.action == "list":
        _show(output, sorted(ns.names(), key=natural))
        return DONE
    adds = args.action == "add"
    done, errors = _each(args.names, partial(_add, up=args.up) if adds else ns.remove)
    if output.as_json and (done or not errors):
        _show(output, done)
    elif not output.as_json and errors:  # otherwise all names were done
        sign = paint("+", "good") if adds else paint("-", "bad")
        output.lines(f"{sign} {name}" for name in done)
    # The usual hint about a missing namespace is to create it, which is of no use to somebody who wants it deleted.
    return max((report(output, error, hint=None if adds else _hint(error)) for error in errors), default=DONE)


def _hint(error: VethError) -> str | None:
    """Return what to do if a namespace could not be deleted; None for the usual advice."""
    return "to see the namespaces: vethctl netns list" if isinstance(error, NetnsNotFound) else None


def _show(output: Output, names: Iterable[str]) -> None:
    if output.as_json:
        output.json([{"name": name} for name in names])
    else:
        output.lines(names)


def _run(args: Namespace, output: Output) -> int:
    """Replace this process by a program in a namespace; return only if it cannot be run."""
    if not (args.names and args.program):
        raise UsageError(f"{'PROGRAM' if args.names else 'NETNS'} is missing", field="PROGRAM", hint=_USAGE)
    if args.up:
        raise UsageError("--up needs add", field="--up", hint="usage: vethctl netns add --up NAME…")
    ref = parse_netns(args.names[0], "NETNS")
    for text in become(ref):
        output.warning(text)
    sys.stdout.flush()
    sys.stderr.flush()
    for ignored in _IGNORED_BY_PYTHON:
        signal.signal(ignored, signal.SIG_DFL)
    program = args.program[0]
    try:
        os.execvp(program, args.program)
    except (OSError, ValueError) as error:  # ValueError: the name is empty
        number = (isinstance(error, OSError) and error.errno) or errno.ENOENT
        hint = "a script begins with a line such as #!/bin/sh" if number == errno.ENOEXEC else ""
        output.error(f"cannot run {program!r}: {errno_text(number)}", code="not-run", field="PROGRAM", hint=hint)
        return _NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else _CANNOT_RUN


_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that a program would ignore otherwise; the default of Python is not that of other programs."""


def _add(name: str, *, up: bool) -> None:
    Netns.create(name, up=up).close()


def _each(names: Iterable[str], act: Callable[[str], object]) -> tuple[list[str], list[VethError]]:
    """Act on every name; return those that succeed, as `netns list` spells them, and the errors of the others."""
    done: list[str] = []
    errors: list[VethError] = []
    for name in names:
        try:
            if "/" in name:
                raise InvalidValue("NAME", name, "must be the name of a file in /run/netns, without '/'")
            act(name)
            done.append(name.removeprefix("netns:"))
        except InvalidValue as error:
            errors.append(InvalidValue("NAME", error.value, error.hint))
        except VethError as error:
            errors.append(error)
    return done, errors
