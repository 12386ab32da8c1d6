"""netns list, add and del: the namespaces of /run/netns."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable

from vethlib import ns
from vethlib.errors import BatchError, VethError
from vethlib.ns import Netns

from .exits import DONE
from .output import Output
from .parser import UsageError
from .text import natural

__all__ = ["netns"]


def netns(args: Namespace, output: Output) -> int:
    """Run one of the three."""
    if (args.action == "list") == bool(args.names):
        wrong = f"too many: {args.names[0]!r}" if args.names else "missing: NAME"
        raise UsageError(wrong, field="NAME", hint="usage: vethctl netns list | add NAME… | del NAME…")
    names = sorted(ns.names(), key=natural)
    if args.action != "list":
        names = _each(args.names, _add if args.action == "add" else ns.remove)
    if output.as_json:
        output.json([{"name": name} for name in names])
    elif args.action == "list":
        for name in names:
            output.line(name)
    return DONE


def _add(name: str) -> None:
    Netns.create(name).close()


def _each(names: Iterable[str], act: Callable[[str], object]) -> list[str]:
    """Do it for every name that it can be done for; raises BatchError for the others."""
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
