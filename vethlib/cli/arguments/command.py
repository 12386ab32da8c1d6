"""The definition of a command: its implementation, its help and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .parser import Parser

__all__ = ["Command"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: `function` (default: its name) of a `module` of vethlib.cli.commands, its help and its arguments.

    `alters`: it deletes, changes or replaces something, so it is suggested only for very similar words (hints.py).
    """

    module: str
    usage: str
    summary: str
    add_arguments: Callable[[Parser], object]
    more: str = ""
    function: str = ""
    alters: bool = False
