"""What may stand at the end of a command line that is being typed. Pure, but for the environment that flags come from.

All of it follows from the parsers in `arguments`: a new command or flag is completed because it is there. What an
argument's value is, it says itself: by the words it accepts, by `completes`, or by a metavar of those below.
"""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .arguments import COMMANDS, parser_of, with_color_joined, without_command
from .parser import OneOf, Parser

__all__ = ["Wanted", "wanted"]

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
class Wanted:
    """What may come: `beginning` is what has been typed of it, `before` what stands in front in the same word.

    `words` are those that can be said now, with what they mean; `kinds` are kinds of names (candidates.py); `given` is
    what the command line says already, by `dest`, with the defaults.
    """

    beginning: str
    before: str = ""
    words: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)


def wanted(line: Sequence[str]) -> Wanted:
    """What may be the last word of `line`, which begins after "vethctl". Raises UsageError for a wrong environment."""
    *done, last = line
    open_, done = done[-1:] == ["--color"], with_color_joined(done)
    if open_:
        done[-1] = "--color"
    at = next((number for number, word in enumerate(done) if not word.startswith("-")), None)
    if at is None:
        parser = without_command()
        found = _Reading(parser, done).wanted(last)
        if not last.startswith("-"):
            colors = found.words if open_ else {}
            found.words = colors | {name: command.summary for name, command in COMMANDS.items()}
        return found
    if done[at] not in COMMANDS:
        return Wanted(last)
    return _Reading(parser_of(done[at]), done[:at] + done[at + 1 :]).wanted(last)


class _Reading:
    """What a command line that is not complete has said to a parser."""

    def __init__(self, parser: Parser, words: Iterable[str]) -> None:
        self._parser = parser
        self._positionals = parser._get_positional_actions()
        self._said: set[Action] = set()
        self._loose: list[str] = []
        self._given: dict[str, Any] = {action.dest: parser.get_default(action.dest) for action in parser._actions}
        self._open: Action | None = None  # a flag whose value is next
        self._only_positionals = False
        for word in words:
            self._read(word)

    def _read(self, word: str) -> None:
        if self._open is not None:
            flag, self._open = self._open, None
            # --color may stand alone.
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
        self._said.add(named)
        if named.nargs == 0:
            return
        if equals:
            self._given[named.dest] = value
        else:
            self._open = named

    def wanted(self, last: str) -> Wanted:
        """What `last` may become."""
        self._settle()
        if self._open is not None:
            found = self._value(self._open, last)
            if self._open.dest == "color":
                self._add_positionals(found)
            return found
        if last.startswith("-") and not self._only_positionals:
            name, equals, value = last.partition("=")
            if equals:
                flag = self._parser._option_string_actions.get(name)
                return Wanted(last) if flag is None or flag.nargs == 0 else self._value(flag, value, f"{name}=")
            return Wanted(last, words=dict(self._flags()), given=self._given)
        found = Wanted(last, given=self._given)
        self._add_positionals(found)
        if not found.kinds and not found.words and not self._only_positionals:
            found.words = dict(self._flags())
        return found

    def _settle(self) -> None:
        """Give the positional words that are there to their arguments; a list takes all that are left."""
        loose = list(self._loose)
        for action in self._positionals:
            if not loose:
                break
            if action.nargs in ("*", "+"):
                self._given[action.dest], loose = loose, []
            else:
                self._given[action.dest] = loose.pop(0)

    def _add_positionals(self, found: Wanted) -> None:
        """The argument whose turn it is, and the one after an optional one."""
        turn = len(self._loose)
        for number, action in enumerate(self._positionals):
            many = action.nargs in ("*", "+")
            if number < turn and not many:
                continue
            one = self._value(action, "")
            found.words |= one.words
            found.kinds += one.kinds
            if action.nargs != "?":
                break
        for word in self._loose:
            found.words.pop(word, None)

    def _value(self, action: Action, beginning: str, before: str = "") -> Wanted:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        kind = self._parser.completes.get(action.dest) or _BY_METAVAR.get(metavar, "")
        words = dict.fromkeys(_words(action), "")
        return Wanted(beginning, before, words, [kind] if kind and not words else [], self._given)

    def _flags(self) -> Iterator[tuple[str, str]]:
        """Those that can still be given."""
        excluded = {
            action
            for group in self._parser._mutually_exclusive_groups
            if self._said.intersection(group._group_actions)
            for action in group._group_actions
        }
        for action in self._parser._actions:
            again = type(action).__name__ == "_AppendAction"
            if action in excluded or (action in self._said and not again):
                continue
            meaning = (action.help or "") % {**vars(action), "prog": self._parser.prog}
            for name in sorted(action.option_strings, key=len, reverse=True):
                yield name, meaning


def _words(action: Action) -> tuple[str, ...]:
    return action.type.words if isinstance(action.type, OneOf) else tuple(action.choices or ())
