"""complete -- WORD…: what may become of the last WORD. Hidden: it is for the shells, whose half is in `shells/`.

A line for each candidate, with a TAB and what it means where there is something to say; and a line ":files" or
":directories" where the shell is to offer those. Always exits 0, and says nothing on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from vethlib.errors import VethError

from .exits import DONE
from .parser import UsageError
from .text import natural
from .words import Wanted, wanted

__all__ = ["complete"]


def complete(argv: list[str]) -> int:
    """Print the candidates for a command line."""
    line = argv[1:] if argv[:1] == ["--"] else argv
    try:
        found = wanted(line or [""])
        offered = dict(_offered(found))
    except (UsageError, VethError, OSError):
        return DONE  # the command itself will say what is wrong
    for name in sorted(offered, key=natural):
        # No candidate can hold what ends one here; a name of bytes that are no text can be typed, not offered.
        if name.isprintable():
            meaning = offered[name].split("\n")[0]
            sys.stdout.write(f"{name}\t{meaning}\n" if meaning else f"{name}\n")
    sys.stdout.flush()
    return DONE


def _offered(found: Wanted) -> Iterator[tuple[str, str]]:
    for word, meaning in found.words.items():
        if word.startswith(found.beginning):
            yield found.before + word, meaning
    if not found.kinds:
        return
    from .candidates import DIRECTORIES, FILES, candidates

    for kind in found.kinds:
        for name, meaning in candidates(kind, found.beginning, found.given):
            if name in (FILES, DIRECTORIES):
                yield name, ""
            elif name.startswith(found.beginning):
                yield found.before + name, meaning
