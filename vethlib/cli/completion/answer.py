"""complete -- WORD…: print the completions of the last WORD. A hidden command for the scripts in `shells/`.

Prints one line per candidate, with a TAB and its meaning if it has one; and a line ":files" or ":directories" for those
that the shell completes itself. Always exits with 0, and prints nothing on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.text import natural, printable
from vethlib.errors import VethError

from .words import Completions, completions

__all__ = ["complete"]

# bash inserts candidates unquoted, so these characters would take effect; any user may create a link with such a name.
_FOR_A_SHELL = frozenset("$`;|&<>()\"'\\!{}*?[]~^# \t")


def complete(argv: list[str]) -> int:
    """Print the candidates for a command line."""
    line = argv[1:] if argv[:1] == ["--"] else argv
    try:
        word = completions(line or [""])
        offered = dict(_offered(word))
    except (UsageError, VethError, OSError):
        return DONE  # the command itself reports the error
    encoding = sys.stdout.encoding or "utf-8"
    for name in sorted(offered, key=natural):
        # A candidate cannot contain the separators; a name that is not text can be typed, but not offered, and one that
        # the encoding of stdout lacks cannot be written: escaped, it would be another name.
        if name.isprintable() and _is_in(encoding, name):
            meaning = printable(offered[name]).encode(encoding, "backslashreplace").decode(encoding)
            sys.stdout.write(f"{name}\t{meaning}\n" if meaning else f"{name}\n")
    sys.stdout.flush()
    return DONE


def _is_in(encoding: str, name: str) -> bool:
    try:
        name.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _offered(word: Completions) -> Iterator[tuple[str, str]]:
    for text, meaning in word.words.items():
        if text.startswith(word.beginning):
            yield word.before + text, meaning
    if not word.kinds:
        return
    from .candidates import DIRECTORIES, FILES, candidates

    for kind in word.kinds:
        for name, meaning in candidates(kind, word.beginning, word.given):
            if name in (FILES, DIRECTORIES):
                yield name, ""
            elif name.startswith(word.beginning) and _is_plain(name, word.before):
                yield word.before + name, meaning


def _is_plain(name: str, before: str) -> bool:
    """Return whether neither a shell nor vethctl, which could take it for a flag, sees more in it than a name."""
    return _FOR_A_SHELL.isdisjoint(name) and (bool(before) or not name.startswith("-"))
