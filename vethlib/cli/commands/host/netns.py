"""netns list, add and del: named namespaces."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial

from vethlib import ns
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import natural
from vethlib.errors import BatchError, VethError
from vethlib.ns import Netns

__all__ = ["netns"]


def netns(args: Namespace, output: Output) -> int:
    """List, add or delete; return the exit code."""
    if (args.action == "list") == bool(args.names):
        wrong = f"too many: {args.names[0]!r}" if args.names else "missing: NAME"
        raise UsageError(wrong, field="NAME", hint="usage: vethctl netns [list | add [--up] NAME… | del NAME…]")
    if args.up and args.action != "add":
        raise UsageError("--up needs add", field="--up", hint="usage: vethctl netns add --up NAME…")
    names = sorted(ns.names(), key=natural)
    if args.action != "list":
        names = _each(args.names, partial(_add, up=args.up) if args.action == "add" else ns.remove)
    if output.as_json:
        output.json([{"name": name} for name in names])
    elif args.action == "list":
        for name in names:
            output.line(name)
    return DONE


def _add(name: str, *, up: bool) -> None:
    Netns.create(name, up=up).close()


def _each(names: Iterable[str], act: Callable[[str], object]) -> list[str]:
    """Act on every name, and return those that succeed. Raises BatchError if some fail."""
    done: list[str] = []
    errors: list[VethError] = []
    for name in names:
        try:
            act(name)
            done.append(name)
        except VethError as error:
            errors.append(error)
    if errors:
        raise BatchError(f"{len(errors)} of {len(done) + len(errors)} namespaces", errors)
    return done
