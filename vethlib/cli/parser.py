"""argparse as we want it: errors that name the argument, the value and the cure, and defaults from the environment."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = [
    "STORES",
    "OneOf",
    "Parser",
    "UsageError",
    "count",
    "given",
    "interval",
    "no_such",
    "number",
    "one_of",
    "seconds",
    "some_of",
    "switch",
]

STORES = "dir:PATH or etcd://HOST:PORT"  # of --store
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class UsageError(Exception):
    """What is wrong with a command line. `field` is the argument, `hint` how it should have been."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """The parser of one command. Raises UsageError where argparse would exit."""

    def __init__(self, usage: str, description: str, more: str) -> None:
        self.completes: dict[str, str] = {}
        """What the shell offers for an argument, by its `dest`: a kind of names in candidates.py."""
        self.flags: list[str] = []
        super().__init__(
            prog="vethctl",
            usage=f"vethctl {usage}",
            description=description,
            epilog=more,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
            allow_abbrev=False,
        )

    def add_argument(self, *names: Any, completes: str = "", **how: Any) -> argparse.Action:
        """Add an argument. `completes` says what the shell offers for it, where its metavar does not (words.py)."""
        action = super().add_argument(*names, **how)
        self.completes[action.dest] = completes
        return action

    def option(self, *names: str, among: Any = None, completes: str = "", **how: Any) -> None:
        """Add a flag, whose default its environment variable may be. `among` are those it excludes."""
        action: argparse.Action = (among or self).add_argument(*names, **how)
        self.completes[action.dest] = completes
        self.flags.append(names[-1])
        if how.get("action") not in ("append", "version"):
            self._take_from_environment(action, names[-1])

    def _take_from_environment(self, action: argparse.Action, flag: str) -> None:
        name = f"VETHLIB_{flag.removeprefix('--').replace('-', '_').upper()}"
        text = os.environ.get(name)
        if text is None:
            return
        try:
            if action.nargs == 0:
                if switch(text):
                    self.set_defaults(**{action.dest: action.const})
            else:
                self.set_defaults(**{action.dest: action.type(text) if callable(action.type) else text})
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{name} {error}", field=name, hint=f"or unset it, and give {flag}") from None

    def read(self, argv: list[str]) -> argparse.Namespace:
        """Parse `argv`, flags and positional arguments in any order."""
        args, rest = self.parse_known_intermixed_args(argv)
        if not rest:
            return args
        given = rest[0].partition("=")[0]
        if not given.startswith("-"):
            self.error(f"one argument too many: {given!r}", field=given)
        return self.error(no_such("flag", given, self.flags), field=given)

    def error(self, message: str, field: str = "") -> NoReturn:
        """What argparse calls, with words of its own."""
        cause = sys.exc_info()[1]
        if isinstance(cause, argparse.ArgumentError):
            field, message = cause.argument_name or "", cause.message.replace("with argument ", "with ")
            # Our types begin with the value: --timeout 'soon': write seconds, as in 2.5
            message = f"{field}{' ' if message.startswith(chr(39)) else ': '}{message}" if field else message
        required = "the following arguments are required: "
        if message.startswith(required):
            field = message.removeprefix(required)
            message = f"missing: {field}"
        raise UsageError(message, field=field, hint=f"usage: {self.usage}")


def given(value: str | None, flag: str, example: str) -> str:
    """The value of a flag that is needed, and may come from the environment."""
    if value:
        return value
    variable = f"VETHLIB_{flag.removeprefix('--').upper()}"
    raise UsageError(f"missing: {flag}", field=flag, hint=f"give {flag} {example}, or set {variable}")


def no_such(what: str, given: str, known: Iterable[str]) -> str:
    """That there is no `what` called `given`, and which one was meant."""
    from difflib import get_close_matches

    near = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"there is no {what} {given!r}" + (f"; did you mean {near[0]}?" if near else "")


def switch(text: str) -> bool:
    """An environment variable for a flag that has no value."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: write 1 or 0")


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value that is one of a few words."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """As argparse calls the type of an argument."""
        if text in self.words:
            return text
        raise argparse.ArgumentTypeError(f"{text!r}: write {', '.join(self.words[:-1])} or {self.words[-1]}")


def one_of(*words: str) -> OneOf:
    """A value that is one of these."""
    return OneOf(words)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)\s*(ms|s|min|m|h)")


def seconds(text: str) -> float:
    """A time to wait: seconds, or with units: 2.5, 30s, 1m30s, 500ms."""
    try:
        if re.fullmatch(rf"(?:{_DURATION.pattern}\s*)+", text, re.ASCII):
            value = sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
        else:
            value = float(text)
    except ValueError:
        value = -1
    if 0 <= value < math.inf:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: write seconds, or a time as in 1m30s")


def some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    """A value that is some of a few words, with commas between them."""

    def check(text: str) -> tuple[str, ...]:
        found = tuple(filter(None, text.split(",")))
        if found and all(word in words for word in found):
            return found
        raise argparse.ArgumentTypeError(f"{text!r}: write some of {', '.join(words)}, with commas between them")

    return check


def count(text: str) -> int:
    """How many: a whole number from 1 on."""
    if text.isascii() and text.isdecimal() and 0 < len(text) < 19 and (value := int(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1 on")


def interval(text: str) -> float:
    """A time between two looks: 0.1 seconds to a day."""
    value = seconds(text)
    if 0.1 <= value <= 86400:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: write a time from 0.1 (seconds) to 24h")


def number(text: str) -> int:
    """A whole number; whether it is in range is checked where it is used."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number") from None
