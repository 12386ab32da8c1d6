"""Load a northbound configuration from JSON files, directories of them, or a stream."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, NamedTuple

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.progress import ProgressCallback, reported
from vethlib.errors import InvalidValue, VethError
from vethlib.linkref import as_list
from vethlib.ns.files.glance import glance_of
from vethlib.ns.opening import asked

from .filecontent import Content, content, mounts_on
from .model import Interface
from .northbound import Parsed, read

__all__ = ["Configuration", "SourceError", "UnreadablePath", "contents", "is_configuration", "load", "refuse_twin"]

STDIN = "-"

_PATH = (str, bytes, os.PathLike)
_PATHS = 'must be a list of paths, such as ["interfaces.json"]'
_PIECE = 1 << 20  # bytes or characters
_MOST_TWINS = 8  # places of one name that a message lists


class SourceError(VethError, OSError):
    """A source of configuration cannot be used.

    ``path`` is its path or URL, ``reason`` the reason (with a cure, if one is known), ``errno`` the number of the
    system's error.
    """

    def __init__(self, message: str, *, path: str = "", reason: str = "", errno: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


class UnreadablePath(SourceError):
    """A path cannot be read, which differs from a path with no content. ``field`` is the argument that has it."""

    field = "PATH"

    def __init__(self, path: str, reason: str, errno: int | None = None) -> None:
        super().__init__(f"cannot read {path}: {reason}", path=path, reason=reason, errno=errno)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All values read from some paths, valid or not, in the order of reading."""

    parsed: tuple[Parsed, ...]
    warnings: tuple[str, ...] = ()

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The valid interfaces by name."""
        return {value.interface.name: value.interface for value in self.parsed if value.interface is not None}

    @property
    def invalid(self) -> tuple[Parsed, ...]:
        """The invalid values. A configuration is meant to be applied as a whole or not at all."""
        return tuple(value for value in self.parsed if value.interface is None)


def load(
    paths: Iterable[str | os.PathLike[str]],
    stdin: IO[str] | IO[bytes] | None = None,
    *,
    limits: Limits = DEFAULT,
    progress: ProgressCallback | None = None,
) -> Configuration:
    """Read every path: a JSON file, a directory (its ``*.json`` files, nothing else), or ``-`` for `stdin`.

    A file contains one interface or a list of interfaces, and is read once even if given twice. An interface that is
    configured more than once is refused everywhere, and so are values that exceed the `limits`. `progress("read", done,
    total)` is called from time to time. Raises :class:`UnreadablePath`, and InvalidValue for anything but a list of
    paths.
    """
    several = as_list(paths, "paths", _PATHS)
    wrong = [paths] if isinstance(paths, _PATH) else [path for path in several if not isinstance(path, _PATH)]
    if wrong:
        raise InvalidValue("paths", wrong[0], _PATHS)
    parsed: list[Parsed] = []
    warnings: list[str] = []
    for source, raw in contents(several, stdin, limits.file_bytes, warnings, progress):
        parsed += read(raw, source, limits=limits)
    return Configuration(tuple(_without_twins(parsed)), tuple(warnings))


def contents(
    paths: Iterable[str | os.PathLike[str]],
    stdin: IO[str] | IO[bytes] | None,
    longest: int,
    warnings: list[str],
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[str, str | bytes]]:
    """Yield each source that :func:`load` reads, with up to `longest` + 1 bytes (or characters) of it.

    Adds to the `warnings`.
    """
    files: dict[str, str] = {}  # by real path, in the order given
    listed: dict[str, _Listed] = {}  # files found by listing a directory, not named by the caller
    for path in [_possible(os.fsdecode(path)) for path in paths]:
        if path == STDIN and stdin is not None:
            # Decoded here, not by the stream, so that undecodable bytes are reported with line and column.
            yield "stdin", _read_up_to(getattr(stdin, "buffer", stdin), longest + 1)
        elif os.path.isdir(path):
            in_directory = _json_files(path)
            if not in_directory:
                warnings.append(f"{path} has no *.json file: an empty configuration")
            listed |= in_directory
            for file, place in in_directory.items():
                files.setdefault(place.real, file)
        else:
            files.setdefault(os.path.realpath(path), path)
    for file in reported("read", [*files.values()], progress):
        # A pipe that the caller names, as the shell's <(…) does, is waited for; a pipe found in a directory is refused.
        yield file, _read_listed(file, longest, listed[file]) if file in listed else _read_named(file, longest)


def _possible(path: str) -> str:
    """Return a path. Raises UnreadablePath for a text that cannot be one."""
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    shown = path.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    raise UnreadablePath(shown, "it has a character that no path can have", errno.EINVAL)


def is_configuration(name: str) -> bool:
    """Return whether a file of this name is read when its directory is given."""
    # As with a shell's *.json: a dot file is usually the unfinished file of an editor or another writer.
    return name.endswith(".json") and not name.startswith(".")


def refuse_twin(value: Parsed, sources: Iterable[str]) -> Parsed:
    """Return `value`, refused if its name is also configured in other `sources` than its own.

    `sources` are all places of the name; that of `value` is included once.
    """
    others: dict[str, None] = {}
    own = more = False
    for source in sources:
        if source == value.source and not own:
            own = True
        elif len(others) < _MOST_TWINS or source in others:
            others[source] = None
        else:
            more = True
    if not others:
        return value
    where = ", ".join(others) + (" and in other places" if more else "")
    return value.refused(InvalidValue("name", value.name, f"configured in {value.source} and in {where}: keep one"))


class _Listed(NamedTuple):
    """A file of a directory on the file system `device`: its path without links, and whether it may be on another."""

    real: str
    device: int
    is_elsewhere: bool


def _json_files(directory: str) -> dict[str, _Listed]:
    """Return the path of each configuration file in a directory, in order, with where it is."""
    files: dict[str, _Listed] = {}
    try:
        with os.scandir(directory) as entries:
            found = sorted((entry for entry in entries if is_configuration(entry.name)), key=lambda entry: entry.name)
        parent = os.path.realpath(directory)
        device, mounts = _device_and_mounts(directory, [entry.name for entry in found])
    except OSError as error:
        raise _unreadable(directory, error) from error
    for entry in found:
        path = os.path.join(directory, entry.name)
        try:
            is_elsewhere = entry.name in mounts or entry.is_symlink()
            if is_elsewhere:
                is_directory, real = asked(path, partial(_behind, path), answering=[device])
            else:
                is_directory, real = entry.is_dir(follow_symlinks=False), os.path.join(parent, entry.name)
        except OSError as error:
            raise _unreadable(path, error) from error
        if not is_directory:
            files[path] = _Listed(real, device, is_elsewhere)
    return files


def _device_and_mounts(directory: str, names: Iterable[str]) -> tuple[int, Mapping[str, object]]:
    """Return the device of a directory, whose file system is asked directly, and what is mounted on these entries."""
    at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return glance_of(at).dev, mounts_on(names, at)
    finally:
        os.close(at)


def _behind(path: str) -> tuple[bool, str]:
    """Return whether a symbolic link, or a mount, leads to a directory, and its path without links."""
    return os.path.isdir(path), os.path.realpath(path)


def _read_named(path: str, longest: int) -> bytes:
    """Read up to `longest` + 1 bytes of a file: it may be /dev/zero, or grow while it is read."""
    try:
        with open(path, "rb") as file:
            content: bytes = _read_up_to(file, longest + 1)
            return content
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_up_to(file: IO[Any], most: int) -> Any:
    """Read up to `most` bytes or characters; read() alone would need memory for all of them, however few there are."""
    pieces = []
    while most:
        asked = min(most, _PIECE)
        pieces.append(file.read(asked))
        if len(pieces[-1]) < asked:
            break  # reading on at a terminal would wait for another end of file
        most -= asked
    return pieces[0][:0].join(pieces)


def _read_listed(path: str, longest: int, place: _Listed) -> bytes:
    """Read up to `longest` + 1 bytes of a file in a directory, where other users may have put it.

    A symbolic link may lead to a file system that never answers, and such a file system may be mounted on the file. So
    another thread reads these.
    """
    try:
        file = _content(path, longest, place)
        if file is None:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise _unreadable(path, error) from error
    return file.raw


def _content(path: str, longest: int, place: _Listed) -> Content | None:
    if not place.is_elsewhere:
        try:
            return _content_at(path, longest, follow=False)
        except OSError as error:
            if error.errno != errno.ELOOP:  # otherwise a link has replaced it since
                raise
    return asked(path, partial(_content_at, path, longest), answering=[place.device])


def _content_at(path: str, longest: int, *, follow: bool = True) -> Content | None:
    parent, name = os.path.split(path)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return content(name, directory, follow=follow, longest=longest)
    finally:
        os.close(directory)


def _unreadable(path: str, error: OSError) -> UnreadablePath:
    return UnreadablePath(path, error.strerror or str(error), error.errno)


def _without_twins(parsed: list[Parsed]) -> list[Parsed]:
    sources: dict[str, list[str]] = {}
    for value in parsed:
        # A few are enough to refuse a value; with all, a thousand twins would take a million comparisons.
        if value.name and len(known := sources.setdefault(value.name, [])) < 2 * _MOST_TWINS:
            known.append(value.source)
    return [refuse_twin(value, _with_own(value.source, sources.get(value.name, []))) for value in parsed]


def _with_own(source: str, sources: list[str]) -> list[str]:
    return sources if not sources or source in sources else [source, *sources]
