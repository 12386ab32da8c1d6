"""netns list, add and del: the namespaces of /run/netns."""

from __future__ import annotations

from argparse import Namespace

from vethlib import ns
from vethlib.ns import Netns

from . import DONE
from .output import Output

__all__ = ["netns"]


def netns(args: Namespace, output: Output) -> int:
    """Run one of the three."""
    names = ns.names() if args.action == "list" else args.names
    if args.action == "add":
        for name in names:
            Netns.create(name).close()
    elif args.action == "del":
        for name in names:
            ns.remove(name)
    if output.as_json:
        output.json([{"name": name} for name in names])
    elif args.action == "list":
        for name in names:
            output.line(name)
    return DONE
