"""What the files of a directory say, key by key. Pure: files come in as they were read, changes go out.

1. A file names keys: the names of its interfaces. One file that names a key decides on its value; where it is named
   twice, it is refused, with both places.
2. What cannot be read has no name: a whole file, or an element. The keys that its file had before and does not name
   now are lost in it, and have its problems for a value. They are not deleted: the text that cannot be read may well
   hold them.
3. Where nothing is lost, a whole file is taken for the one that it is called after (``veth1.json``), and any other
   nameless thing stands for itself, under its place. Nobody knows then what it holds: see :attr:`Contents.complete`.
4. What is lost or guessed yields to a file that does name the key.
5. A file that has vanished names what it did, until it is dropped; but it yields, too. Editors that write by renaming
   leave a moment without a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vethlib.agent.files import refuse_twin
from vethlib.agent.model import check_interface_name
from vethlib.agent.northbound import Parsed, same
from vethlib.errors import InvalidValue

from .protocol import Change

__all__ = ["Contents"]


@dataclass(slots=True)
class _File:
    """What one file says. `real` is the path that it really has, so that a file with two names is read once."""

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

    def spoken_of(self) -> Iterator[str]:
        for keys in (self.named, self.nameless, self.lost, self.guessed):
            yield from keys


class Contents:
    """The files of a directory, and the values of their keys."""

    def __init__(self) -> None:
        self.values: dict[str, Parsed] = {}
        self._files: dict[str, _File] = {}
        self._holders: dict[str, dict[str, None]] = {}  # the files that say something of a key
        self._touched: dict[str, None] = {}
        self._blind: set[str] = set()
        self._before: dict[str, tuple[str, ...]] = {}  # the keys that files of the last directory had

    @property
    def complete(self) -> bool:
        """Whether there is no file that may hold any key whatever."""
        return not self._blind

    def files(self) -> list[str]:
        """Every file, vanished ones too."""
        return list(self._files)

    def has(self, name: str) -> bool:
        """Whether this file is known, though it may have vanished."""
        return name in self._files

    def put(self, name: str, parsed: Iterable[Parsed], *, real: str = "", formerly: str = "") -> None:
        """A file is there and was read. `formerly` is the file that it was renamed from, if it was."""
        before = self._keys(name) or self._keys(formerly)
        self.drop(name)
        file = self._files[name] = _file(name, list(parsed), before, real or name)
        if file.blind:
            self._blind.add(name)
        for key in file.spoken_of():
            self._holders.setdefault(key, {})[name] = None
            self._touched[key] = None

    def vanish(self, name: str) -> None:
        """A file is not there, which may be for a moment only."""
        file = self._files[name]
        file.vanished = True
        self._touched.update(dict.fromkeys(file.spoken_of()))

    def drop(self, name: str) -> None:
        """A file is no more."""
        file = self._files.pop(name, None)
        if file is None:
            return
        self._blind.discard(name)
        for key in file.spoken_of():
            self._touched[key] = None
            self._holders[key].pop(name, None)
            if not self._holders[key]:
                del self._holders[key]

    def restart(self) -> None:
        """Another directory takes the place of this one. Its files may be lost for keys that those of now have."""
        self._before |= {name: self._keys(name) for name in self._files}
        for name in list(self._files):
            self.drop(name)

    def settle(self) -> list[Change]:
        """What has come out differently since the last call; `values` is brought up to date."""
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
        return changes

    def _affected(self) -> dict[str, None]:
        """The touched keys, and those of places that come out differently because of them (rule 4)."""
        affected = dict(self._touched)
        for key in self._touched:
            for name in self._holders.get(key, ()):
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
            return refuse_twin(named[0], [one.source for one in named])
        for file in files:
            if key in file.claimed:
                return file.claimed[key]
        for file in files:
            if not file.claimed or not (file.vanished or self._has_its_way(file)):
                return file.nameless[key]
        return None

    def _has_its_way(self, file: _File) -> bool:
        """Whether its problems are told under a key that it claims."""
        return any(self._value(key) is value for key, value in file.claimed.items())


def _file(name: str, parsed: list[Parsed], before: tuple[str, ...], real: str) -> _File:
    named: dict[str, list[Parsed]] = {}
    nameless: dict[str, Parsed] = {}
    for one in parsed:
        if one.interface is not None or _can_be_a_name(one.name):
            named.setdefault(one.name, []).append(one)
        else:
            place = f"file:{one.source.rpartition('/')[2]}"
            nameless[place] = replace(one, name=place)
    lost: dict[str, Parsed] = {}
    guessed: dict[str, Parsed] = {}
    if nameless:
        problems = tuple(problem for one in nameless.values() for problem in one.problems)
        (first, *_) = nameless.values()
        lost = {key: Parsed(None, key, problems, source=first.source) for key in before if key not in named}
        stem = name.removesuffix(".json")
        if not lost and f"file:{name}" in nameless and _can_be_a_name(stem):
            guessed = {stem: replace(first, name=stem)}
    return _File(real, named, nameless, lost, guessed)


def _can_be_a_name(name: str) -> bool:
    try:
        check_interface_name(name)
    except InvalidValue:
        return False
    return True


def _named(key: str, files: list[_File], *, vanished: bool) -> list[Parsed]:
    """What the files that name `key` say; a file that is there under two names speaks once."""
    by_path = {file.real: file for file in reversed(files) if file.vanished is vanished}
    return [one for file in reversed(by_path.values()) for one in file.named.get(key, ())]
