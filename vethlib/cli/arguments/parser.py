"""A parser based on argparse, with errors that name argument, value and cure, and defaults from the environment."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from vethlib.endfields.words import neighbour_words, route_words
from vethlib.errors import InvalidValue

from .hints import no_such_flag

__all__ = [
    "STATES",
    "STORES",
    "Name",
    "OneOf",
    "Parser",
    "UsageError",
    "assignment",
    "at_separator",
    "count",
    "given",
    "interval",
    "json_wins",
    "neighbour",
    "number",
    "one_of",
    "reason_codes",
    "route",
    "seconds",
    "some_of",
    "state_names",
    "switch",
]

STATES = ("CONFIGURED", "PENDING", "RETRYING", "INVALID", "FAILED")  # of an interface, the worst last
STORES = "dir:PATH or etcd://HOST:PORT"  # for --store
_CODE = re.compile("[a-z]+(-[a-z]+)*")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class UsageError(Exception):
    """An error in a command line. `field` is the argument, `hint` is how to correct it."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class Name(str):
    """A word after "--": an argument, also if it begins with "-"."""

    __slots__ = ()


def at_separator(argv: list[str]) -> tuple[list[str], list[Name]]:
    """Split a command line at the first "--"; the words after it are not flags."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[:end], [Name(word) for word in argv[end + 1 :]]


class Parser(argparse.ArgumentParser):
    """The parser of a command. Raises UsageError where argparse would exit.

    The default of some flags comes from an environment variable, such as VETHLIB_LABEL for --label. These flags
    describe the environment (the store, the label), configure the agent (whose service is configured by variables
    alone), or set how northbound files are applied, how long to wait, and how results are shown. Flags that select an
    object or give it a value have no variable: otherwise, the variables of a hook, such as VETHLIB_NAME, would rename
    links.
    """

    def __init__(self, usage: str, description: str, more: str) -> None:
        self.completes: dict[str, str] = {}
        """Kinds of names that complete an argument (completion/candidates.py), by its `dest`."""
        self.flags: list[str] = []
        self.variables: dict[str, str] = {}
        """The flags that have a variable, by its name."""
        self.fallbacks: dict[str, str] = {}
        """The flags that also have a variable of another program, by its name; their own takes precedence."""
        self.invalid: dict[str, str] = {}
        """The problems of variables that a flag does not accept, by name. `read` reports one that is used."""
        self._inherited: dict[str, list[Any]] = {}
        super().__init__(
            prog="vethctl",
            usage=f"vethctl {usage}",
            description=description,
            epilog=more,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
            allow_abbrev=False,
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        # The method of argparse ignores errors when it writes the help or the version.
        if message:
            (file or sys.stdout).write(message)

    def add_argument(self, *names: Any, completes: str = "", **how: Any) -> argparse.Action:
        """Add an argument. `completes` is the kind of names that complete it, if its metavar does not imply one."""
        action = super().add_argument(*names, **how)
        self.completes[action.dest] = completes
        return action

    def option(self, *names: str, variable: bool = False, among: Any = None, completes: str = "", **how: Any) -> None:
        """Add a flag. `among` is a mutually exclusive group.

        With `variable`, its default comes from VETHLIB_<FLAG>; that of a repeatable flag has one value per line.
        """
        action: argparse.Action = (among or self).add_argument(*names, **how)
        self.completes[action.dest] = completes
        self.flags.append(names[-1])
        if variable:
            self._take_from_environment(action, names[-1])

    def add_variable(self, flag: str) -> str:
        """Return the name of the variable of a flag. Its value is read by the caller."""
        name = f"VETHLIB_{flag.removeprefix('--').replace('-', '_').upper()}"
        self.variables[name] = flag
        return name

    def _take_from_environment(self, action: argparse.Action, flag: str) -> None:
        name = self.add_variable(flag)
        if not (text := os.environ.get(name)):
            return
        read: Callable[[str], Any] = action.type if callable(action.type) else str
        try:
            if action.nargs == 0:
                if switch(text):
                    self.set_defaults(**{action.dest: action.const})
            elif isinstance(action.default, list):
                values = [read(line.strip()) for line in text.splitlines() if line.strip()]
                self.set_defaults(**{action.dest: values})
                self._inherited[action.dest] = values
            else:
                self.set_defaults(**{action.dest: read(text)})
        except argparse.ArgumentTypeError as error:
            self.invalid[name] = str(error)

    def read(self, argv: list[str]) -> argparse.Namespace:
        """Parse `argv`, with flags and positional arguments in any order; all after "--" are positional.

        `given` of the result has the names (`dest`) of the flags in `argv`, as opposed to those from the environment;
        `variables` has the variable of each flag that has its value from there.
        """
        words, names = at_separator(argv)
        args, rest = self.parse_known_intermixed_args([*words, *names])
        args.given = self._given(words)
        args.variables = self._used_variables(args.given)
        self._refuse_invalid(args.given)
        for dest in args.given & self._inherited.keys():
            del getattr(args, dest)[: len(self._inherited[dest])]  # argparse appends to a copy of the default
        for word in rest:
            if isinstance(word, Name) or not word.startswith("-"):
                _refuse_store(word)
        self._refuse_stores(args)
        if not rest:
            return args
        given = rest[0].partition("=")[0]
        if isinstance(rest[0], Name) or not given.startswith("-"):
            self.error(f"one argument too many: {given!r}", field=given)
        return self.error(no_such_flag(given, self.flags), field=given)

    def _given(self, words: list[str]) -> set[str]:
        actions = self._option_string_actions
        return {actions[flag].dest for word in words if (flag := word.partition("=")[0]) in actions}

    def _used_variables(self, given: set[str]) -> dict[str, str]:
        actions = self._option_string_actions
        return {
            flag: name
            for name, flag in (self.fallbacks | self.variables).items()
            if os.environ.get(name) and actions[flag].dest not in given
        }

    def _refuse_invalid(self, given: set[str]) -> None:
        """Refuse an invalid variable, unless its flag is given."""
        for name, problem in self.invalid.items():
            flag = self.variables[name]
            if self._option_string_actions[flag].dest not in given:
                raise UsageError(f"{name} {problem}", field=name, hint=f"correct it, or unset it and give {flag}")

    def _refuse_stores(self, args: argparse.Namespace) -> None:
        """Refuse a store in place of an argument that is not a flag."""
        for action in self._get_positional_actions():
            value = getattr(args, action.dest)
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str):
                    _refuse_store(word)

    def _parse_optional(self, arg_string: str) -> Any:
        # The method of argparse that decides whether a word is a flag: its intermixed mode forgets a "--".
        return None if isinstance(arg_string, Name) else super()._parse_optional(arg_string)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and any(isinstance(word, Name) for word in arg_strings):
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return super()._get_value(action, str(arg_string))  # no Name leaves this module

    def error(self, message: str, field: str = "") -> NoReturn:
        """Raise a UsageError instead of an error of argparse."""
        cause = sys.exc_info()[1]
        if isinstance(cause, argparse.ArgumentError):
            field, message = cause.argument_name or "", cause.message.replace("with argument ", "with ")
            # Errors of our types begin with the value: --count '0': must be a positive integer
            message = f"{field}{' ' if message.startswith(chr(39)) else ': '}{message}" if field else message
        required = "the following arguments are required: "
        if message.startswith(required):
            field = message.removeprefix(required)
            message = f"{field} {'are' if ', ' in field else 'is'} missing"
        raise UsageError(message, field=field, hint=f"usage: {self.usage}")


def _refuse_store(word: str) -> None:
    if word.startswith("etcd://") or (word.startswith("dir:/") and not os.path.lexists(word)):
        raise UsageError(f"{word!r} is the URL of a store", field="--store", hint="give it with --store")


def given(value: str | None, flag: str, example: str) -> str:
    """Return the value of a required flag. Raises UsageError if it is missing."""
    if value:
        return value
    variable = f"VETHLIB_{flag.removeprefix('--').upper()}"
    raise UsageError(f"{flag} is missing", field=flag, hint=f"give {flag} {example}, or set {variable}")


def json_wins(args: argparse.Namespace, over: str) -> bool:
    """Return whether to print JSON although the flag with the `dest` `over`, if it is given, is for another form.

    --json wins over that flag, but VETHLIB_JSON does not.
    """
    return bool(args.json) and ("json" in args.given or over not in args.given)


def switch(text: str) -> bool:
    """Parse the environment variable of a flag without a value."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: must be 1 or 0")


@dataclass(frozen=True, slots=True)
class OneOf:
    """The type of an argument with a few possible values."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Check a value; called by argparse."""
        if text in self.words:
            return text
        raise argparse.ArgumentTypeError(f"{text!r}: must be {', '.join(self.words[:-1])} or {self.words[-1]}")


def one_of(*words: str) -> OneOf:
    """Return the type of an argument whose value is one of `words`."""
    return OneOf(words)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_LONGEST = 40  # characters of a time; the expression takes quadratic time
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)\s*(ms|s|min|m|h)")


def seconds(text: str) -> float:
    """Parse a time: seconds, or with units: 2.5, 30s, 1m30s, 500ms."""
    try:
        if len(text) > _LONGEST:
            raise ValueError
        if re.fullmatch(rf"(?:{_DURATION.pattern}\s*)+", text, re.ASCII):
            value = sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
        else:
            value = float(text)
    except ValueError:
        value = -1
    if 0 <= value < math.inf:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, or a time such as 1m30s")


def some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    """Return the type of an argument whose value is a list of some of `words`, separated by commas."""

    def check(text: str) -> tuple[str, ...]:
        given = tuple(filter(None, text.split(",")))
        if given and all(word in words for word in given):
            return given
        raise argparse.ArgumentTypeError(f"{text!r}: must be one or more of {', '.join(words)}, separated by commas")

    return check


def state_names(text: str) -> tuple[str, ...]:
    """Parse a list of states of interfaces, separated by commas, in any letter case."""
    states = tuple(word.strip().upper() for word in text.split(",") if word.strip())
    if states and all(state in STATES for state in states):
        return states
    raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be one or more of {', '.join(STATES)}, separated by commas")


def reason_codes(text: str) -> tuple[str, ...]:
    """Parse a list of codes of reasons, separated by commas. An agent may know more of them than this program."""
    codes = tuple(word.strip() for word in text.split(",") if word.strip())
    if codes and all(_CODE.fullmatch(code) for code in codes):
        return codes
    raise argparse.ArgumentTypeError(
        f"{text[:80]!r}: must be one or more codes, separated by commas, such as link-foreign,peer-failed"
    )


def count(text: str) -> int:
    """Parse a count: a positive integer."""
    if text.isascii() and text.isdecimal() and 0 < len(text) < 19 and (value := int(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: must be a positive integer")


def interval(text: str) -> float:
    """Parse an interval between 0.1 seconds and a day."""
    value = seconds(text)
    if 0.1 <= value <= 86400:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: must be a time between 0.1 (seconds) and 24h")


def number(text: str) -> int:
    """Parse an integer; its range is checked where it is used."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an integer") from None


def assignment(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE; both are checked where they are used."""
    name, equals, value = text.partition("=")
    if name and equals:
        return name, value
    raise argparse.ArgumentTypeError(f"{text!r}: must be NAME=VALUE, such as rp_filter=0")


def route(text: str) -> dict[str, str | int]:
    """Parse a route in the words of `ip route`: DESTINATION [via IP] [metric N] [src IP] [mtu BYTES] [table N]."""
    try:
        return route_words(text)
    except InvalidValue as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.hint}") from None


def neighbour(text: str) -> dict[str, str]:
    """Parse a neighbour in the words of `ip neighbour`: IP [lladdr] MAC."""
    try:
        return neighbour_words(text)
    except InvalidValue as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.hint}") from None
