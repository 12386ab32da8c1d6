"""One command of vethctl: where it is, and what may be said to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..parser import Parser

__all__ = ["Command"]


@dataclass(frozen=True, slots=True)
class Command:
    """`function` (default: the command's name) of `module` in vethlib.cli, its help, and who adds its arguments."""

    module: str
    usage: str
    summary: str
    add_arguments: Callable[[Parser], object]
    more: str = ""
    function: str = ""
