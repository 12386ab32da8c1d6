"""Turn the files of a directory into values by key. Pure: its input are parsed files, its output changes.

1. A file names keys: the names of its interfaces. If one file names a key, it decides on the value. If several do, the
   file called after the key (``veth1.json``) takes precedence, so that a user who can write another file cannot have
   the key refused; without such a file the key is refused, and the problem lists all places. A key that a file names
   twice is refused, too.
2. An unreadable part, a whole file or an element, has no name. The keys that its file named before and does not name
   now are *lost* in it: their value is the problem of the part. They are not deleted, since the unreadable text may
   well contain them.
3. If nothing is lost, an unreadable file is *guessed* to contain the interface that it is called after
   (``veth1.json``), and any other nameless part has its place as key. Its real content is unknown: see
   :attr:`Contents.complete`.
4. A lost or guessed key yields to a file that names the key.
5. A file that has vanished still names its keys until it is dropped, but yields to others, too: editors that write by
   renaming leave a moment without a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from vethlib._nl.wire import from_system, to_system
from vethlib.agent.config.files import refuse_twin
from vethlib.agent.config.jsontext import Stray
from vethlib.agent.config.northbound import Parsed, same
from vethlib.agent.config.problems import MOST_PROBLEMS, MoreProblems, Remark
from vethlib.agent.config.textchecks import check_interface_name
from vethlib.agent.stores.protocol import Change
from vethlib.errors import InvalidValue
from vethlib.text import without_controls

__all__ = ["Contents"]

_MOST_NAMELESS = 20  # nameless parts of a file that are reported, each with a status and a line in the log


@dataclass(slots=True)
class _File:
    """The values of one file. `real` is its path without links, so that a file with two names counts once."""

    real: str
    named: dict[str, list[Parsed]]
    nameless: dict[str, Parsed]  # by place
    lost: dict[str, Parsed]
    guessed: dict[str, Parsed]
    vanished: bool = False

    @property
    def claimed(self) -> dict[str, Parsed]:
        return self.lost or self.guessed

    @property
    def blind(self) -> bool:
        return bool(self.nameless) and not self.lost

    def all_keys(self) -> Iterator[str]:
        for keys in (self.named, self.nameless, self.lost, self.guessed):
            yield from keys


class Contents:
    """The files of a directory, and the values of their keys."""

    def __init__(self) -> None:
        self.values: dict[str, Parsed] = {}
        self._files: dict[str, _File] = {}
        self._holders: dict[str, dict[str, None]] = {}  # the files that have something for a key
        self._touched: dict[str, None] = {}
        self._blind: set[str] = set()
        self._before: dict[str, tuple[str, ...]] = {}  # the keys that files of the previous directory had
        # Whether the problems of a file are reported under a key that it claims, cached during settle(): this is needed
        # for each nameless part of a file, of which there may be as many as keys.
        self._reported: dict[int, bool] = {}

    @property
    def complete(self) -> bool:
        """Whether all keys are known: no file is unreadable in a part that may contain any key."""
        return not self._blind

    def files(self) -> list[str]:
        """Return the names of all files, including vanished ones."""
        return list(self._files)

    @property
    def is_empty(self) -> bool:
        """Whether no file is known."""
        return not self._files

    def has(self, name: str) -> bool:
        """Return whether this file is known; it may have vanished."""
        return name in self._files

    def put(self, name: str, parsed: Iterable[Parsed], *, real: str = "", formerly: str = "") -> None:
        """Set the values of a file that was read. `formerly` is the name that it was renamed from, if any."""
        before = self._keys(name) or self._keys(formerly)
        self.drop(name)
        file = self._files[name] = _file(name, list(parsed), before, real or name)
        if file.blind:
            self._blind.add(name)
        for key in file.all_keys():
            self._holders.setdefault(key, {})[name] = None
            self._touched[key] = None

    def vanish(self, name: str) -> None:
        """Note that a file is missing, perhaps only for a moment."""
        file = self._files[name]
        file.vanished = True
        self._touched.update(dict.fromkeys(file.all_keys()))

    def drop(self, name: str) -> None:
        """Note that a file was deleted."""
        file = self._files.pop(name, None)
        if file is None:
            return
        self._blind.discard(name)
        for key in file.all_keys():
            self._touched[key] = None
            self._holders[key].pop(name, None)
            if not self._holders[key]:
                del self._holders[key]

    def restart(self) -> None:
        """Drop all files, as another directory has replaced theirs; their keys can still be lost in its files."""
        self._before |= {name: self._keys(name) for name in self._files}
        for name in list(self._files):
            self.drop(name)

    def settle(self) -> list[Change]:
        """Update `values`, and return what has changed since the last call."""
        changes: list[Change] = []
        for key in self._affected():
            value, old = self._value(key), self.values.get(key)
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
            if not same(value, old):
                changes.append(Change(key, value))
        self._touched.clear()
        self._before.clear()
        self._reported.clear()
        return changes

    def _affected(self) -> dict[str, None]:
        """Return the touched keys, and the keys of nameless parts that depend on them (rule 4)."""
        affected = dict(self._touched)
        holders = {name: None for key in self._touched for name in self._holders.get(key, ())}
        for name in holders:
            affected.update(dict.fromkeys(self._files[name].nameless))
        return affected

    def _keys(self, name: str) -> tuple[str, ...]:
        file = self._files.get(name)
        return self._before.get(name, ()) if file is None else (*file.named, *file.lost)

    def _value(self, key: str) -> Parsed | None:
        names = self._holders.get(key, {})
        files = [self._files[name] for name in (sorted(names) if len(names) > 1 else names)]
        files.sort(key=lambda file: file.vanished)
        named = _named(key, files, vanished=False) or _named(key, files, vanished=True)
        if named:
            return self._decided(key, named)
        for file in files:
            if key in file.claimed:
                return file.claimed[key]
        for file in files:
            if not file.claimed or not (file.vanished or self._is_reported(file)):
                return file.nameless[key]
        return None

    def _decided(self, key: str, named: list[Parsed]) -> Parsed:
        """Return the value of a key from all values that files have for it (rule 1)."""
        file = self._files.get(to_system(f"{key}.json"))
        own = file.named.get(key, []) if file is not None and not file.vanished else []
        if not own or len(own) == len(named):
            return refuse_twin(named[0], [value.source for value in named])
        decided = refuse_twin(own[0], [value.source for value in own])
        # The warning names one other place; other users may have made any number of them.
        sources = {value.source for value in own}
        other = next(value.source for value in named if value.source not in sources)
        warning = f"also configured in {other}, which is ignored: {own[0].source} takes precedence"
        return decided.remarked(Remark("configured-twice", ("name",), warning))

    def _is_reported(self, file: _File) -> bool:
        """Return whether the problems of a file are reported under a key that it claims."""
        if id(file) not in self._reported:
            self._reported[id(file)] = any(self._value(key) is value for key, value in file.claimed.items())
        return self._reported[id(file)]


def _file(name: str, parsed: list[Parsed], before: tuple[str, ...], real: str) -> _File:
    named: dict[str, list[Parsed]] = {}
    unnamed: list[Parsed] = []
    for value in parsed:
        if value.interface is not None or _can_be_a_name(value.name):
            named.setdefault(value.name, []).append(value)
        else:
            unnamed.append(value)
    nameless = _by_place(name, unnamed)
    lost: dict[str, Parsed] = {}
    guessed: dict[str, Parsed] = {}
    if nameless:
        problems = _first(problem for value in nameless.values() for problem in value.problems)
        (first, *_) = nameless.values()
        lost = {key: Parsed(None, key, problems, source=first.source) for key in before if key not in named}
        stem = from_system(name).removesuffix(".json")
        if not lost and f"file:{_last(name)}" in nameless and _can_be_a_name(stem):
            guessed = {stem: replace(first, name=stem)}
    return _File(real, named, nameless, lost, guessed)


def _by_place(name: str, unnamed: list[Parsed]) -> dict[str, Parsed]:
    """Return the nameless values of a file under their places: the first few, and one for the number of the rest."""
    by_place: dict[str, Parsed] = {}
    for value in unnamed[:_MOST_NAMELESS]:
        place = f"file:{_last(value.source)}"
        by_place[place] = replace(value, name=place)
    if (more := len(unnamed) - _MOST_NAMELESS) > 0:
        place, source = f"file:{_last(name)}[…]", unnamed[0].source.rpartition("[")[0]
        by_place[place] = Parsed(None, place, (Stray("file", f"{more} more elements cannot be read"),), source=source)
    return by_place


def _last(path: str) -> str:
    """Return the last part of a path, with control characters escaped."""
    return without_controls(path.rpartition("/")[2].replace("\\", "\\\\"))


def _first(problems: Iterable[InvalidValue]) -> tuple[InvalidValue, ...]:
    """Return the problems that each key lost in a file gets: the first ones, and the number of the rest."""
    first = list(islice(problems, MOST_PROBLEMS))
    more = sum(1 for _ in problems)
    return (*first, *([MoreProblems(more)] if more else []))


def _can_be_a_name(name: str) -> bool:
    try:
        check_interface_name(name)
    except InvalidValue:
        return False
    return True


def _named(key: str, files: list[_File], *, vanished: bool) -> list[Parsed]:
    """Return the values that files have for `key`; a file with two names counts once."""
    by_path = {file.real: file for file in reversed(files) if file.vanished is vanished}
    return [value for file in reversed(by_path.values()) for value in file.named.get(key, ())]
