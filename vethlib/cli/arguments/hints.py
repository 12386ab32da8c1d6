"""Suggestions for commands, flags and names that do not exist. Pure.

1. Verbs of other tools are looked up in a table, which only has those that mean the same thing.
2. Any other word must be a typing error away: a character too many, too few or swapped, or in a longer word a wrong
   one; and it must begin like the suggestion.
3. Commands and flags that alter something (because they delete, or delete more) are suggested only for words that can
   hardly be meant otherwise: never for a wrong or an additional character, as in "more" and "movie" for "move".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

__all__ = ["VERBS", "distance", "near", "no_such_command", "no_such_flag", "none_such"]

_LONGEST: Final = 64  # characters of a word that are compared, which takes quadratic time
_SUGGESTED: Final = 16  # names for which similar ones are looked for, which takes 10 µs for each name that exists

VERBS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("add", "new", "make", "build"), ("create",)),
    **dict.fromkeys(("rm", "remove", "destroy", "erase", "unlink"), ("delete", "del")),
    **dict.fromkeys(("ls", "links"), ("show", "list")),
    **dict.fromkeys(("mv", "rehome"), ("move",)),
    **dict.fromkeys(("info", "inspect", "details", "detail", "explain"), ("describe", "show")),
    **dict.fromkeys(("state", "states", "ps"), ("status",)),
    **dict.fromkeys(("logs", "log", "events", "monitor", "follow", "tail"), ("watch",)),
    **dict.fromkeys(("check",), ("validate", "doctor")),
    **dict.fromkeys(("lint", "verify"), ("validate",)),
    **dict.fromkeys(("plan", "compare", "drift", "preview", "dry-run"), ("diff",)),
    **dict.fromkeys(("daemon", "serve"), ("agent",)),
    **dict.fromkeys(("backup", "export", "cat"), ("dump",)),
    **dict.fromkeys(("import", "upload"), ("put",)),
    **dict.fromkeys(("draw", "picture", "plot", "svg", "dot", "diagram"), ("graph",)),
    **dict.fromkeys(("ns", "namespace", "namespaces"), ("netns",)),
    **dict.fromkeys(("counters", "statistics"), ("stats",)),
    **dict.fromkeys(("man", "usage", "docs"), ("help",)),
    **dict.fromkeys(("keep",), ("confirm",)),
    # Nothing here does what these do elsewhere.
    **dict.fromkeys(("edit", "update", "change", "modify", "rename", "replace", "flush", "reset"), ()),
    **dict.fromkeys(("start", "stop", "restart", "reload", "kill", "exec", "run", "ping", "test", "try", "init"), ()),
    **dict.fromkeys(("undo", "rollback", "attach", "detach", "addr", "address", "route", "neigh", "link", "peer"), ()),
    **dict.fromkeys(("deal", "model", "version", "config", "store", "map"), ()),
}
"""Verbs of other tools, and the commands that do the same here. No other command is suggested for these verbs."""

_SHORT: Final[Mapping[str, str]] = {"-j": "--json", "-a": "--all", "-w": "--watch", "-V": "--version"}
_SAME_FLAG: Final[Mapping[str, str]] = {"--follow": "--watch", "--dryrun": "--dry-run", "--colour": "--color"}
_ALTERING_FLAGS: Final = frozenset(("--prune", "--prefix", "--force", "--undo", "--missing-ok", "--no-validate"))


class _Command(Protocol):
    """What a hint needs of a :class:`~.command.Command`."""

    @property
    def summary(self) -> str: ...

    @property
    def alters(self) -> bool: ...


def no_such_command(given: str, commands: Mapping[str, _Command]) -> str:
    """Return the message for a command that does not exist, with suggestions."""
    meant = [name for name in VERBS.get(given.lower(), ()) if name in commands]
    if not meant and given.lower() not in VERBS:
        meant = [name for name, command in commands.items() if _is_slip(given, name, alters=command.alters)][:3]
    if len(meant) < 2:
        return _asked(f"there is no command {given!r}", meant)
    return _asked(f"there is no command {given!r}", [f"{name} ({commands[name].summary})" for name in meant])


def no_such_flag(given: str, flags: Iterable[str]) -> str:
    """Return the message for a flag that does not exist, with a suggestion."""
    known = [*flags, "--json", "--color", "--help"]
    same = _SHORT.get(given) or _SAME_FLAG.get(given)
    meant = [same] if same in known else []
    if not meant and given.startswith("--"):
        flags = (flag for flag in known if flag.startswith("--"))
        meant = [flag for flag in flags if _is_slip(given[2:], flag[2:], alters=flag in _ALTERING_FLAGS)][:1]
    return _asked(f"there is no flag {given!r}", meant)


def none_such(what: str, given: Iterable[str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each name of a `what` that does not exist, with the message about it; the first few with a similar name."""
    known = list(known)
    for number, name in enumerate(given):
        yield name, _asked(f"there is no {what} {name!r}", near(name, known) if number < _SUGGESTED else [])


def near(given: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Return up to `most` names that are a few typing errors away, the nearest first."""
    from difflib import get_close_matches  # a quick preselection among thousands

    names = get_close_matches(given[:_LONGEST], list(known), n=4 * most, cutoff=0.5)
    steps = {name: distance(given.lower(), name.lower()) for name in names}
    allowed = 1 if len(given) <= 4 else 2 if len(given) <= 8 else 3
    return sorted((name for name in names if steps[name] <= allowed), key=lambda name: steps[name])[:most]


def _asked(message: str, meant: list[str]) -> str:
    if not meant:
        return message
    words = meant[0] if len(meant) == 1 else f"{', '.join(meant[:-1])} or {meant[-1]}"
    return f"{message}; did you mean {words}?"


def _is_slip(given: str, name: str, *, alters: bool) -> bool:
    """Return whether `given` may be a typing error for `name`."""
    given = given.lower()
    if given == name:
        return True
    if given[:1] != name[:1] or len(name) < 4 or (alters and len(given) < 4):
        return given != name and sorted(given) == sorted(name) and not alters  # "gte"
    if len(given) >= 4 and name.startswith(given):
        return True
    if alters:
        return given in _slips(name)
    cost = 2 if len(name) < 5 else 1  # cost of a wrong character, which often makes another word
    return distance(given, name, wrong=cost) <= (2 if len(name) >= 7 else 1)


def _slips(name: str) -> set[str]:
    """Return the words with one character left out, doubled or swapped with the next."""
    places = range(len(name))
    left_out = {name[:at] + name[at + 1 :] for at in places}
    doubled = {name[: at + 1] + name[at:] for at in places}
    return (
        left_out | doubled | {name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :] for at in places}
    )


def distance(a: str, b: str, *, wrong: int = 1) -> int:
    """Return the Damerau–Levenshtein distance; each wrong character costs `wrong`."""
    a, b = a[:_LONGEST], b[:_LONGEST]
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (0 if x == y else wrong))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
    return last[-1]
