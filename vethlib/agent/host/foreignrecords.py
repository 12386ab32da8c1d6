"""The records of other agents of the same label on this machine, each with a home namespace of its own.

An agent that finds no record of its own reads them: a pair of its label may be theirs. A record that cannot be
read is left out; that of an agent that sees another /run is not found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from vethlib.agent.config.filecontent import content
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.recorded import ForeignRecord, PairRecord, read_header
from vethlib.agent.process.rundir import base_directories

__all__ = ["foreign_records"]

_LONGEST: Final = 1 << 26  # bytes; ten thousand pairs have a twentieth of it


def foreign_records(label: str, boot: str, directory: str | None, *, home: NetnsId) -> list[ForeignRecord]:
    """Return the records of a label and a boot, except that of `home`, below /run/vethlib and in `directory`."""
    directories = [os.path.join(base, label) for base in base_directories()]
    if directory:
        directories.append(directory)
    records = []
    for first, *lines in _files(directories):
        start = read_header(first, label, boot)
        if start is not None and start[0] != home:
            record = PairRecord(adopts=False)
            record.read(lines)
            records.append(ForeignRecord(*start, record))
    return records


def _files(directories: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each record that has some."""
    for directory in directories:
        with suppress(OSError):
            names = [name for name in os.listdir(directory) if name.startswith("pairs.")]
            for path in (os.path.join(directory, name) for name in names):
                with suppress(OSError):
                    file = content(path, None, follow=False, longest=_LONGEST)
                    if file is not None and (lines := file.raw.decode("utf-8", "replace").splitlines(keepends=True)):
                        yield lines
