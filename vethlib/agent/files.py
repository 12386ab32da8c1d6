"""Northbound configuration in files: a JSON file, a directory of them, or a stream."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vethlib.errors import InvalidValue, VethError

from .model import Interface
from .northbound import Parsed, read

__all__ = ["Configuration", "UnreadablePath", "is_configuration", "load", "refuse_twin"]

STDIN = "-"


class UnreadablePath(VethError, OSError):
    """A path that cannot be read, which is not the same as one with nothing in it.

    ``path`` is the path, ``reason`` the system's words, ``errno`` its number.
    """

    def __init__(self, path: str, reason: str, errno: int | None = None) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path
        self.reason = reason
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that was read from some paths, good and bad, in the order of reading."""

    parsed: tuple[Parsed, ...]
    warnings: tuple[str, ...] = ()

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The valid interfaces by name."""
        return {one.interface.name: one.interface for one in self.parsed if one.interface is not None}

    @property
    def invalid(self) -> tuple[Parsed, ...]:
        """What was refused; a configuration is to be applied as a whole or not at all."""
        return tuple(one for one in self.parsed if one.interface is None)


def load(paths: Iterable[str | os.PathLike[str]], stdin: IO[str] | IO[bytes] | None = None) -> Configuration:
    """Read every path: a JSON file, a directory (its ``*.json`` files, nothing else), or ``-`` for `stdin`.

    A file holds one interface or a list of them, and is read once even if given twice. An interface that is
    named more than once is refused wherever it is named. Raises :class:`UnreadablePath`.
    """
    parsed: list[Parsed] = []
    warnings: list[str] = []
    files: dict[str, str] = {}  # by real path, in the order given
    for path in [os.fspath(path) for path in paths]:
        if path == STDIN and stdin is not None:
            # Undecodable bytes are to be reported with their place, so we do the decoding.
            parsed += read(getattr(stdin, "buffer", stdin).read(), "stdin")
        elif os.path.isdir(path):
            found = _json_files(path)
            if not found:
                warnings.append(f"{path} has no *.json file: an empty configuration")
            for file in found:
                files.setdefault(os.path.realpath(file), file)
        else:
            files.setdefault(os.path.realpath(path), path)
    for file in files.values():
        parsed += read(_content(file), file)
    return Configuration(tuple(_without_twins(parsed)), tuple(warnings))


def is_configuration(name: str) -> bool:
    """Whether a file of this name is read where a directory is given."""
    # A dot file is an editor's or a writer's half-finished one (as with a shell's *.json).
    return name.endswith(".json") and not name.startswith(".")


def refuse_twin(one: Parsed, sources: Iterable[str]) -> Parsed:
    """`one` as it is where its name stands in all these `sources`, its own among them: refused if there are others."""
    others = list(sources)
    if len(others) < 2:
        return one
    others.remove(one.source)
    where = ", ".join(dict.fromkeys(others))
    return one.refused(InvalidValue("name", one.name, f"configured in {one.source} and in {where}: keep one"))


def _json_files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(directory, error) from error
    found = (os.path.join(directory, name) for name in names if is_configuration(name))
    return [path for path in found if not os.path.isdir(path)]


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> UnreadablePath:
    return UnreadablePath(path, error.strerror or str(error), error.errno)


def _without_twins(parsed: list[Parsed]) -> list[Parsed]:
    sources: dict[str, list[str]] = {}
    for one in parsed:
        if one.name:
            sources.setdefault(one.name, []).append(one.source)
    return [refuse_twin(one, sources.get(one.name, ())) for one in parsed]
