"""A directory of configuration as an operator edits it, while others may do so and an agent reads.

An edit has four steps: the new text of each file is written to a dot file beside it, all of them are flushed to the
disk, all are renamed into place, and the directory is flushed. What fails in the first two leaves everything as it was,
and no reader ever sees half a file. The directory is locked (flock) from before its files are read until after that,
so that two who edit one file do not undo each other's edits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from stat import S_IMODE

from vethlib.agent.jsontext import Undecodable
from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed, read, to_json
from vethlib.errors import InvalidValue

from .contents import Contents
from .listtext import Element, edited, read_elements
from .protocol import Edit, Stored, StoreError
from .reading import content, file_names, opened, real_path, unreadable, why
from .texts import check_names, means, name_in

__all__ = ["DirectoryEditor"]


@dataclass(slots=True)
class _File:
    """A file as it is written; `problem` is why nothing is known of its elements. `real` is its path without links."""

    name: str
    real: str
    text: str = ""
    elements: list[Element] = field(default_factory=list)
    problem: InvalidValue | None = None


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a name stands: a place among the elements of a file."""

    file: _File
    place: int

    @property
    def element(self) -> Element:
        return self.file.elements[self.place]


class DirectoryEditor:
    """The configuration in the ``*.json`` files of a directory; see :class:`~.protocol.Editor`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def values(self) -> dict[str, Parsed]:
        """What an agent that starts now would be told."""
        contents = Contents()
        at = os.path.realpath(self._path)
        with opened(self._path) as directory:
            for name in file_names(directory):
                source = os.path.join(self._path, name)
                try:
                    found = content(name, directory)
                    parsed = None if found is None else read(found.raw, source)
                except OSError as error:
                    parsed = unreadable(source, error)
                if parsed is not None:
                    contents.put(name, parsed, real=real_path(name, directory, at))
        contents.settle()
        return contents.values

    def stored(self) -> list[Stored]:
        """What is written, good or bad, in the order of the places."""
        with opened(self._path) as directory:
            files = self._files(directory)
        stored: list[Stored] = []
        for file in files:
            if file.problem is not None:
                stored.append(Stored("", "", self._source(file), file.problem))
            for one in file.elements:
                stored.append(Stored(name_in(one.value), file.text[one.start : one.end], self._source(file, one)))
        return stored

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces, each where its name stands now, else in a file of that name.

        Raises InvalidValue, and stores nothing, where a name stands in two places, or may stand in a file that cannot
        be decoded.
        """
        return self._put({one.name: to_json(one, indent=2) for one in interfaces})

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects by the names that are in them, unchecked otherwise."""
        check_names(texts)
        return self._put(texts)

    def delete(self, *names: str) -> list[Edit]:
        """Delete the interfaces of exactly these names, wherever they stand; a file with nothing left goes, too."""
        with self._locked() as directory:
            files = self._files(directory)
            spots = _spots(files)
            edits: list[Edit] = []
            texts = _Texts(self._path)
            for name in dict.fromkeys(names):
                for spot in spots.get(name, ()):
                    texts.edit(spot, None)
                    edits.append(Edit("delete", name, self._source(spot.file, spot.element)))
                broken = None if name in spots else self._broken(files, name)
                if broken is not None:
                    texts.replace(broken, "")
                    edits.append(Edit("delete", name, self._source(broken)))
            self._write(directory, texts)
        return edits

    def _put(self, wanted: Mapping[str, str]) -> list[Edit]:
        made = self._path if self._make() else ""
        with self._locked() as directory:
            files = self._files(directory)
            spots = _spots(files)
            taken = set(os.listdir(directory))
            edits: list[Edit] = []
            texts = _Texts(self._path)
            for name, text in wanted.items():
                spot = self._only_spot(name, spots)
                if spot is not None:
                    if not means(spot.element.value, text):
                        texts.edit(spot, text)
                        edits.append(Edit("change", name, self._source(spot.file, spot.element)))
                    continue
                broken = self._broken(files, name)
                file = broken or _new_file(name, self._path, taken)
                texts.replace(file, f"{text.strip()}\n")
                edits.append(Edit("change" if broken else "add", name, self._source(file)))
            self._write(directory, texts)
        if made and edits:
            edits[0] = replace(edits[0], made=made)
        return edits

    def _make(self) -> bool:
        """Make the directory, if it is not there."""
        if os.path.isdir(self._path):
            return False
        try:
            os.makedirs(self._path, exist_ok=True)
        except OSError as error:
            raise _refusal(self._path, error) from error
        return True

    def _only_spot(self, name: str, spots: Mapping[str, list[_Spot]]) -> _Spot | None:
        found = spots.get(name, [])
        if len(found) > 1:
            where = " and in ".join(self._source(spot.file, spot.element) for spot in found)
            raise InvalidValue("name", name, f"configured in {where}: delete it first")
        return found[0] if found else None

    def _broken(self, files: list[_File], name: str) -> _File | None:
        """The file called after `name` if nothing in it can be read, and nothing else be in it."""
        for file in files:
            if file.name == _file_name(name) and file.problem is not None:
                if isinstance(file.problem, Undecodable) and not file.text.lstrip("\ufeff \t\r\n").startswith("["):
                    return file
                where = self._source(file)
                raise InvalidValue("name", name, f"{where} may hold it, and others: {file.problem}: mend that first")
        return None

    def _source(self, file: _File, element: Element | None = None) -> str:
        number = "" if element is None or element.number is None else f"[{element.number}]"
        return f"{os.path.join(self._path, file.name)}{number}"

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The directory, which nobody else edits meanwhile."""
        while True:
            with opened(self._path) as directory:
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX)
                    is_current = os.path.samestat(os.fstat(directory), os.stat(self._path))
                except OSError as error:
                    raise _refusal(self._path, error, "lock") from error
                if is_current:  # and not one that was replaced while we waited
                    yield directory
                    return

    def _files(self, directory: int) -> list[_File]:
        at = os.path.realpath(self._path)
        files: dict[str, _File] = {}  # by real path: one that has two names is one
        for name in file_names(directory):
            real = real_path(name, directory, at)
            if real in files:
                continue
            try:
                found = content(name, directory)
            except OSError as error:
                (parsed,) = unreadable(os.path.join(self._path, name), error)
                files[real] = _File(name, real, problem=parsed.problems[0])
                continue
            if found is not None:
                files[real] = _read(name, real, found.raw)
        return list(files.values())

    def _write(self, directory: int, texts: _Texts) -> None:
        beside: dict[str, str] = {}  # dot files by the file they are to replace
        at = self._path
        try:
            try:
                for at, text in texts.written():
                    beside[at] = os.path.join(os.path.dirname(at), f".vethlib-{os.getpid()}-{len(beside)}")
                    _write_beside(at, beside[at], text)
                for at in beside:
                    _flush(beside[at])
                for at in list(beside):
                    os.rename(beside[at], at)
                    del beside[at]
                for at in texts.removed():
                    os.unlink(at)
                if texts:
                    at = self._path
                    os.fsync(directory)
            finally:
                for path in beside.values():
                    _remove(path)
        except OSError as error:
            raise _refusal(at, error) from error


class _Texts:
    """The new texts of some files; "" for one that goes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, _File] = {}
        self._whole: dict[str, str] = {}
        self._edits: dict[str, dict[int, str | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def edit(self, spot: _Spot, text: str | None) -> None:
        """Another text for one element, or none."""
        self._files[spot.file.name] = spot.file
        self._edits.setdefault(spot.file.name, {})[spot.place] = text

    def replace(self, file: _File, text: str) -> None:
        """Another text for a whole file, or none."""
        self._files[file.name] = file
        self._whole[file.name] = text

    def written(self) -> Iterator[tuple[str, str]]:
        """The files that get a text, by the path that a link leads to: the link stays one."""
        for name, file in self._files.items():
            if text := self._text(name):
                yield file.real, text

    def removed(self) -> Iterator[str]:
        """The files that go; of a link, only that goes."""
        for name in self._files:
            if not self._text(name):
                yield os.path.join(self._path, name)

    def _text(self, name: str) -> str:
        if name in self._whole:
            return self._whole[name]
        file = self._files[name]
        return edited(file.text, file.elements, self._edits[name])


def _read(name: str, real: str, raw: bytes) -> _File:
    try:
        return _File(name, real, *read_elements(raw))
    except Undecodable as error:
        return _File(name, real, raw.decode(errors="replace"), problem=error)


def _spots(files: list[_File]) -> dict[str, list[_Spot]]:
    spots: dict[str, list[_Spot]] = {}
    for file in files:
        for place, element in enumerate(file.elements):
            if name := name_in(element.value):
                spots.setdefault(name, []).append(_Spot(file, place))
    return spots


def _file_name(name: str, number: int = 1) -> str:
    """Where a new interface is stored. '%' is in no interface's name; a leading dot would hide the file."""
    stem = f"%2E{name[1:]}" if name.startswith(".") else name
    return f"{stem}.json" if number == 1 else f"{stem}%{number}.json"


def _new_file(name: str, path: str, taken: set[str]) -> _File:
    """A file for `name`: called after it, unless others have moved in there."""
    file = next(file for file in (_file_name(name, number) for number in count(1)) if file not in taken)
    taken.add(file)
    return _File(file, os.path.join(path, file))


def _write_beside(path: str, beside: str, text: str) -> None:
    """Write what is to replace `path`, with the mode and owner that it has."""
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, how, 0o600), "w", encoding="utf-8", newline="") as file:
        file.write(text)
        try:
            old = os.stat(path)
        except FileNotFoundError:
            os.fchmod(file.fileno(), 0o644)
            return
        try:
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
        except PermissionError:
            pass  # it becomes the editor's own, as with any editor
        os.fchmod(file.fileno(), S_IMODE(old.st_mode))


def _flush(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _refusal(path: str, error: OSError, what: str = "write") -> StoreError:
    reason = why(error)
    return StoreError(f"cannot {what} {path}: {reason}", path=path, reason=reason, errno=error.errno)
