"""Possible words at the end of an incomplete command line. Pure, apart from the environment for defaults of flags.

Everything is derived from the parsers in `arguments`, so new commands and flags are completed automatically. The values
of an argument follow from the words it accepts, from `completes`, or from its metavar.
"""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vethlib.cli.arguments import COMMANDS, parser_of, split, with_color_joined, without_command
from vethlib.cli.arguments.parser import OneOf, Parser

__all__ = ["Completions", "completions"]

_BY_METAVAR = {
    "LINK": "link",
    "LINK[@NETNS]": "link",
    "LINK[@NETNS]|@NETNS": "target",
    "@NETNS": "target",
    "A[@NETNS]": "end",
    "B[@NETNS]": "end",
    "NETNS": "netns",
    "PATH": "file",
    "FILE": "file",
    "DIR": "directory",
    "LABEL": "label",
}


@dataclass(slots=True)
class Completions:
    """Completions of a word: `beginning` is its part to complete, `before` the part that precedes it, as in --flag=.

    `words` are possible words with their meanings; `kinds` are kinds of names (candidates.py); `given` are the values
    on the command line by `dest`, and defaults for the others.
    """

    beginning: str
    before: str = ""
    words: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)


def completions(line: Sequence[str]) -> Completions:
    """Return the completions of the last word of `line`, which begins after "vethctl".

    Raises UsageError for an invalid environment variable.
    """
    *done, last = line
    if len(program := split([*done, "x"])[1]):
        # Words of the program to run, of which we know only the first.
        return Completions(last, kinds=["program"] if len(program) == 1 else ["file"])
    open_, done = done[-1:] == ["--color"], with_color_joined(done)
    if open_:
        done[-1] = "--color"
    at = next((number for number, word in enumerate(done) if not word.startswith("-")), None)
    if at is None:
        parser = without_command()
        result = _Reading(parser, done).completions(last)
        if not last.startswith("-"):
            colors = result.words if open_ else {}
            result.words = colors | {name: command.summary for name, command in COMMANDS.items()}
        return result
    if done[at] not in COMMANDS:
        return Completions(last)
    return _Reading(parser_of(done[at]), done[:at] + done[at + 1 :]).completions(last)


class _Reading:
    """An incomplete command line, as far as it is parsed."""

    def __init__(self, parser: Parser, words: Iterable[str]) -> None:
        self._parser = parser
        self._positionals = parser._get_positional_actions()
        self._flags_given: set[Action] = set()
        self._loose: list[str] = []
        self._given: dict[str, Any] = {action.dest: parser.get_default(action.dest) for action in parser._actions}
        self._open: Action | None = None  # a flag whose value is next
        self._only_positionals = False
        for word in words:
            self._read(word)

    def _read(self, word: str) -> None:
        if self._open is not None:
            flag, self._open = self._open, None
            # --color needs no value.
            if flag.dest != "color" or word in _words(flag):
                self._given[flag.dest] = word
                return
        if self._only_positionals or not word.startswith("-") or word == "-":
            self._loose.append(word)
            return
        if word == "--":
            self._only_positionals = True
            return
        name, equals, value = word.partition("=")
        named = self._parser._option_string_actions.get(name)
        if named is None:
            return
        self._flags_given.add(named)
        if named.nargs == 0:
            return
        if equals:
            self._given[named.dest] = value
        else:
            self._open = named

    def completions(self, last: str) -> Completions:
        """Return the completions of the word `last`."""
        self._settle()
        if self._open is not None:
            result = self._value(self._open, last)
            if self._open.dest == "color":
                self._add_positionals(result)
            return result
        if last.startswith("-") and not self._only_positionals:
            name, equals, value = last.partition("=")
            if equals:
                flag = self._parser._option_string_actions.get(name)
                return Completions(last) if flag is None or flag.nargs == 0 else self._value(flag, value, f"{name}=")
            return Completions(last, words=dict(self._flags()), given=self._given)
        result = Completions(last, given=self._given)
        self._add_positionals(result)
        if not result.kinds and not result.words and not self._only_positionals:
            result.words = dict(self._flags())
        return result

    def _settle(self) -> None:
        """Assign the positional words to their arguments; a list takes all remaining words."""
        loose = list(self._loose)
        for action in self._positionals:
            if not loose:
                break
            if action.nargs in ("*", "+"):
                self._given[action.dest], loose = loose, []
            else:
                self._given[action.dest] = loose.pop(0)

    def _add_positionals(self, result: Completions) -> None:
        """Add the completions of the next argument, and of the one after it if it is optional."""
        turn = len(self._loose)
        for number, action in enumerate(self._positionals):
            many = action.nargs in ("*", "+")
            if number < turn and not many:
                continue
            value = self._value(action, "")
            result.words |= value.words
            result.kinds += value.kinds
            if action.nargs != "?":
                break
        for word in self._loose:
            result.words.pop(word, None)

    def _value(self, action: Action, beginning: str, before: str = "") -> Completions:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        kind = self._parser.completes.get(action.dest) or _BY_METAVAR.get(metavar, "")
        words = dict.fromkeys(_words(action), "")
        if kind == "command":
            words = {name: command.summary for name, command in COMMANDS.items()}
        return Completions(beginning, before, words, [kind] if kind and not words else [], self._given)

    def _flags(self) -> Iterator[tuple[str, str]]:
        """Yield the flags that can still be given, with their meanings."""
        excluded = {
            action
            for group in self._parser._mutually_exclusive_groups
            if self._flags_given.intersection(group._group_actions)
            for action in group._group_actions
        }
        for action in self._parser._actions:
            again = type(action).__name__ == "_AppendAction"
            if action in excluded or (action in self._flags_given and not again):
                continue
            meaning = (action.help or "") % {**vars(action), "prog": self._parser.prog}
            for name in sorted(action.option_strings, key=len, reverse=True):
                yield name, meaning


def _words(action: Action) -> tuple[str, ...]:
    return action.type.words if isinstance(action.type, OneOf) else tuple(action.choices or ())
