"""Edit a directory of configuration, which others may edit and an agent may read at the same time.

An edit has four steps: the new text of each file is written to a dot file beside it, all of them are flushed to the
disk, all are renamed into place, and the directory is flushed. A failure in the first two steps leaves everything as it
was, and no reader ever sees half a file. The directory is locked (flock), together with a hidden file in it that only
editors can open, from before its files are read until after the last step, so that two editors of a file do not undo
each other's edits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from stat import S_IWGRP, S_IWOTH

from vethlib import _locks, _trusted
from vethlib._files import Replacement, flush, remove_unfinished
from vethlib._nl.wire import to_system
from vethlib.agent.config.jsontext import Undecodable
from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed, read
from vethlib.agent.config.writing import to_json
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.progress import ProgressCallback, reported
from vethlib.agent.stores.directories import Identity, file_names, identity, why
from vethlib.agent.stores.protocol import Edit, Snapshot, Stored, StoreError
from vethlib.agent.stores.texts import check_names, means, name_in
from vethlib.errors import InvalidValue, check_path
from vethlib.ns.descriptor import Descriptor
from vethlib.ns.files.glance import glance_of
from vethlib.ns.opening import asked

from .contents import Contents
from .listtext import Element, edited, read_elements
from .reading import Content, content, is_link, is_mount_point, is_of_another_user, opened, real_path, unreadable

__all__ = ["DirectoryEditor"]

_LOCK = ".vethlib.lock"  # hidden, so no reader takes it for configuration
_PATIENCE = 10.0  # seconds to wait for another editor, which may have many files to read and write


@dataclass(slots=True)
class _File:
    """A file with its text; `problem` is the reason why its elements are unknown, `real` its path without links.

    `others` are its further names in the directory: all of its names but one are links, or all are.
    """

    name: str
    real: str
    text: str = ""
    elements: list[Element] = field(default_factory=list)
    problem: InvalidValue | None = None
    others: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All names in the order of removal: the file itself last, so that links to it lead somewhere until then."""
        return sorted((self.name, *self.others), key=lambda name: name == os.path.basename(self.real))

    @property
    def decisive(self) -> list[str]:
        """The names that show which key the file is for: its own name if it has one here, else those of all links."""
        return [name for name in self.names if name == os.path.basename(self.real)] or self.names


@dataclass(frozen=True, slots=True)
class _Spot:
    """The location of an interface: a place among the elements of a file."""

    file: _File
    place: int

    @property
    def element(self) -> Element:
        return self.file.elements[self.place]


class DirectoryEditor:
    """The configuration in the ``*.json`` files of a directory; see :class:`~.protocol.Editor`.

    Values that exceed the `limits` are invalid. `progress("read", done, total)` is called from time to time.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, limits: Limits = DEFAULT, progress: ProgressCallback | None = None
    ) -> None:
        self._path = check_path(path, "path")
        self._progress = progress
        self._limits = limits

    def values(self) -> dict[str, Parsed]:
        """Return the values of :meth:`snapshot`."""
        return dict(self.snapshot().values)

    def snapshot(self) -> Snapshot:
        """Return the values that an agent starting now would read."""
        contents = Contents()
        at = os.path.realpath(self._path)
        with self._opened() as directory:
            for name in self._names(directory):
                source = os.path.join(self._path, name)
                real, file = self._look(name, directory, at)
                if isinstance(file, OSError):
                    contents.put(name, unreadable(source, file), real=real)
                elif file is not None:
                    contents.put(name, read(file.raw, source, limits=self._limits), real=real)
        contents.settle()
        return Snapshot(contents.values, contents.complete)

    def stored(self) -> list[Stored]:
        """Return all stored values, valid or not, ordered by place."""
        with self._opened() as directory:
            files = self._files(directory)
        stored: list[Stored] = []
        for file in files:
            if file.problem is not None:
                stored.append(Stored("", "", self._source(file), file.problem))
            for element in file.elements:
                text = file.text[element.start : element.end]
                stored.append(Stored(name_in(element.value), text, self._source(file, element)))
        return stored

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces, each at its present place, or else in a new file called after it.

        Raises InvalidValue, and stores nothing, if an interface is stored in two places, or may be in a file that
        cannot be decoded.
        """
        return self._put({interface.name: to_json(interface, indent=2) for interface in interfaces})

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects, by the names that they contain, without checking them."""
        check_names(texts)
        return self._put(texts)

    def delete(self, *names: str) -> list[Edit]:
        """Delete the interfaces with exactly these names from all files; a file with nothing left is removed."""
        with self._locked() as directory:
            files = self._files(directory)
            spots, problems = _spots(files), _problems(files)
            edits: list[Edit] = []
            texts = _Texts("deleted")
            for name in dict.fromkeys(names):
                for spot in spots.get(name, ()):
                    texts.edit(spot, None, name)
                    edits.append(Edit("delete", name, self._source(spot.file, spot.element)))
                broken = None if name in spots else self._broken(problems, name)
                if broken is not None:
                    texts.replace(broken, "", name)
                    edits.append(Edit("delete", name, self._source(broken)))
            self._write(directory, texts)
        return edits

    def _put(self, new: Mapping[str, str]) -> list[Edit]:
        made = self._path if self._make() else ""
        with self._locked() as directory:
            files = self._files(directory)
            spots, problems = _spots(files), _problems(files)
            taken = set(os.listdir(directory))
            edits: list[Edit] = []
            texts = _Texts("stored")
            for name, text in new.items():
                spot = self._only_spot(name, spots)
                if spot is not None:
                    if not means(spot.element.value, text):
                        texts.edit(spot, text, name)
                        edits.append(Edit("change", name, self._source(spot.file, spot.element)))
                    continue
                broken = self._broken(problems, name)
                file = broken or _new_file(name, self._path, taken)
                texts.replace(file, f"{text.strip()}\n", name)
                edits.append(Edit("change" if broken else "add", name, self._source(file)))
            self._write(directory, texts)
        if made and edits:
            edits[0] = replace(edits[0], made=made)
        return edits

    def _make(self) -> bool:
        """Create the directory if it is missing; return whether it was."""
        if os.path.isdir(self._path):
            return False
        try:
            os.close(_trusted.open_directory(self._path, make=True))
        except OSError as error:
            raise _refusal(self._path, error) from error
        return True

    def _only_spot(self, name: str, spots: Mapping[str, list[_Spot]]) -> _Spot | None:
        places = spots.get(name, [])
        if len(places) > 1:
            where = " and in ".join(self._source(spot.file, spot.element) for spot in places)
            raise InvalidValue("name", name, f"configured in {where}: delete it first")
        return places[0] if places else None

    def _broken(self, problems: Mapping[str, _File], name: str) -> _File | None:
        """Return the file called after `name` if it is unreadable, but cannot contain any other interface."""
        file = problems.get(_file_name(name))
        if file is None:
            return None
        is_list = file.text.lstrip("\ufeff \t\r\n").startswith("[")
        if isinstance(file.problem, Undecodable) and not is_list and len(file.decisive) == 1:
            return file
        where = self._source(file)
        raise InvalidValue("name", name, f"{where} may contain it and others: {file.problem}: correct that file first")

    def _source(self, file: _File, element: Element | None = None) -> str:
        number = "" if element is None or element.number is None else f"[{element.number}]"
        return f"{os.path.join(self._path, file.name)}{number}"

    @contextmanager
    def _opened(self, *, trusted: bool = False) -> Iterator[int]:
        """Open the directory as :func:`opened` does; whatever cannot be read in it afterwards is a StoreError, too."""
        try:
            with opened(self._path, trusted=trusted) as directory:
                yield directory
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise _refusal(self._path, error, "read") from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the directory and lock it against other editors."""
        while True:
            with self._opened(trusted=True) as directory, ExitStack() as locks:
                try:
                    status = os.fstat(directory)
                    locks.enter_context(_exclusive(directory, status))
                    is_current = os.path.samestat(status, os.stat(self._path))
                except OSError as error:
                    raise _refusal(self._path, error, "lock") from error
                if is_current:  # it was not replaced during the wait
                    yield directory
                    return

    def _files(self, directory: int) -> list[_File]:
        at = os.path.realpath(self._path)
        files: dict[str, _File] = {}  # by real path, so that a file with two names is edited once
        for name in self._names(directory):
            real, file = self._look(name, directory, at)
            if real in files:
                files[real].others.append(name)
            elif isinstance(file, OSError):
                if is_of_another_user(name, directory):  # a link that is not followed, so it may be replaced
                    files[real] = _File(name, real, problem=Undecodable(f"cannot be read: {why(file)}"))
                else:
                    (parsed,) = unreadable(os.path.join(self._path, name), file)
                    files[real] = _File(name, real, problem=parsed.problems[0])
            elif file is not None:
                files[real] = _read(name, real, file.raw, self._limits)
        return list(files.values())

    def _names(self, directory: int) -> Iterator[str]:
        return reported("read", [*file_names(directory)], self._progress)

    def _look(self, name: str, directory: int, at: str) -> tuple[str, Content | OSError | None]:
        """Return the path of a file in the directory `at` without links, and its content.

        Another thread follows a link, or opens what is mounted on the file: its file system may never answer.
        """

        def look(where: int, *, follow: bool = True) -> tuple[str, Content | OSError | None]:
            real = real_path(name, where, at) if follow else path
            try:
                return real, content(name, where, follow=follow, longest=self._limits.file_bytes)
            except OSError as error:
                return real, error

        path = os.path.join(at, name)
        if not (is_link(name, directory) or is_mount_point(name, directory)):
            return look(directory, follow=False)
        # The caller closes its descriptor, perhaps before the thread has ended, and a copy of it would keep its lock.
        own = Descriptor.fromfd(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory))

        def look_behind() -> tuple[str, Content | OSError | None]:
            try:
                return look(own.fileno())
            finally:
                own.close()

        try:
            return asked(path, look_behind, answering=[glance_of(directory).dev])
        except OSError as error:
            return path, error

    def _write(self, directory: int, texts: _Texts) -> None:
        replacements: dict[str, Replacement] = {}  # by the path of the file
        directories: dict[Identity, Descriptor] = {}  # one descriptor for each, however many files are written there
        at, real = self._path, ""
        done: list[str] = []
        try:
            try:
                if texts:
                    remove_unfinished(directory)
                for file, text in texts.written():
                    at = real = file.real
                    # A trusted link is followed; a link of another user is itself replaced.
                    place = _trusted.locate(file.name, directory)
                    there = directories.setdefault(identity(place.directory.fileno()), place.directory)
                    replacements[at] = Replacement(place.name, directory=there.fileno())
                    replacements[at].write(text.encode(), keep=True)
                for at in replacements:
                    real = at
                    replacements[at].flush()
                for at in replacements:
                    real = at
                    replacements[at].replace()
                    done.append(at)
                for file in texts.removed():
                    real = file.real
                    for name in file.names:
                        at = os.path.join(self._path, name)
                        os.unlink(name, dir_fd=directory)
                    done.append(real)
                if texts:
                    at, real = self._path, ""
                    flush(directory)
            finally:
                for replacement in replacements.values():
                    replacement.discard()
                for there in directories.values():
                    there.close()
        except OSError as error:
            raise texts.cut_short(_refusal(at, error), real, done) from error


class _Texts:
    """The new texts of some files; "" for a file to remove."""

    def __init__(self, done: str) -> None:
        self._done = done  # the word for what was done: "stored" or "deleted"
        self._files: dict[str, _File] = {}
        self._whole: dict[str, str] = {}
        self._edits: dict[str, dict[int, str | None]] = {}
        self._interfaces: dict[str, list[str]] = {}  # by the path of the file without links

    def __bool__(self) -> bool:
        return bool(self._files)

    def edit(self, spot: _Spot, text: str | None, interface: str) -> None:
        """Replace the text of an element, or remove it (None)."""
        self._interfaces.setdefault(spot.file.real, []).append(interface)
        self._files[spot.file.name] = spot.file
        self._edits.setdefault(spot.file.name, {})[spot.place] = text

    def replace(self, file: _File, text: str, interface: str) -> None:
        """Replace the text of a whole file, or remove it ("")."""
        self._interfaces.setdefault(file.real, []).append(interface)
        self._files[file.name] = file
        self._whole[file.name] = text

    def written(self) -> Iterator[tuple[_File, str]]:
        """Yield each file that gets a text, with that text."""
        for name, file in self._files.items():
            if text := self._text(name):
                yield file, text

    def removed(self) -> Iterator[_File]:
        """Yield each file to remove, with all its names; the target of a link stays if it has no name of its own."""
        for name, file in self._files.items():
            if not self._text(name):
                yield file

    def cut_short(self, error: StoreError, real: str, done: Iterable[str]) -> StoreError:
        """Complete an error at the file with the path `real` ("": at none), before which these files were done."""
        left = {name for file in self._interfaces.keys() - set(done) for name in self._interfaces[file]}
        every = {name for names in self._interfaces.values() for name in names}
        error.names = tuple(self._interfaces.get(real, ()))
        error.done, error.left = len(every) - len(left), len(left)
        if error.done or len(every) > len(error.names):
            error.args = (f"{error}; {error.done} of {len(every)} were {self._done} before the error",)
        return error

    def _text(self, name: str) -> str:
        if name in self._whole:
            return self._whole[name]
        file = self._files[name]
        return edited(file.text, file.elements, self._edits[name])


def _exclusive(directory: int, status: os.stat_result) -> AbstractContextManager[None]:
    """Lock the directory against other editors. Raises TimeoutError if another editor does not finish.

    Anybody who can read the directory can lock it, but only users who can write to it are editors.
    """

    def may_edit(user: int) -> bool:
        return user in (0, os.geteuid(), status.st_uid) or bool(status.st_mode & (S_IWGRP | S_IWOTH))

    return _locks.exclusive(directory, _PATIENCE, may_edit, file=_LOCK, directory=directory)


def _read(name: str, real: str, raw: bytes, limits: Limits) -> _File:
    try:
        return _File(name, real, *read_elements(raw, limits))
    except Undecodable as error:
        return _File(name, real, raw.decode(errors="replace"), problem=error)


def _spots(files: list[_File]) -> dict[str, list[_Spot]]:
    spots: dict[str, list[_Spot]] = {}
    for file in files:
        for place, element in enumerate(file.elements):
            if name := name_in(element.value):
                spots.setdefault(name, []).append(_Spot(file, place))
    return spots


def _problems(files: list[_File]) -> dict[str, _File]:
    """Return the files whose elements are unknown, by the names that show which keys they are for."""
    return {name: file for file in files if file.problem is not None for name in file.decisive}


def _file_name(name: str, number: int = 1) -> str:
    """Return the file name for a new interface; '%' is in no interface name, a leading dot would hide the file."""
    stem = f"%2E{name[1:]}" if name.startswith(".") else name
    return to_system(f"{stem}.json" if number == 1 else f"{stem}%{number}.json")


def _new_file(name: str, path: str, taken: set[str]) -> _File:
    """Return a new file for `name`, called after it unless that file exists already."""
    file = next(file for file in (_file_name(name, number) for number in count(1)) if file not in taken)
    taken.add(file)
    return _File(file, os.path.join(path, file))


def _refusal(path: str, error: OSError, what: str = "write") -> StoreError:
    reason = why(error)
    return StoreError(f"cannot {what} {path}: {reason}", path=path, reason=reason, errno=error.errno)
