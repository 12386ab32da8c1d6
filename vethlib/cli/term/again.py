"""A command for a hint: another view of the same store, label and directory."""

from __future__ import annotations

from argparse import Namespace
from shlex import quote

__all__ = ["same_place"]

_FLAGS = ("--store", "--label", "--status-dir")


def same_place(args: Namespace, command: str) -> str:
    """Return `command` with those flags of this command line that select a store, a label or a directory."""
    words = [f"vethctl {command}"]
    for flag in _FLAGS:
        dest = flag.removeprefix("--").replace("-", "_")
        if dest in args.given:
            words += [flag, quote(str(getattr(args, dest)))]
    return " ".join(words)
