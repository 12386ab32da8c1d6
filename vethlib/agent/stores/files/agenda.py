"""Which files of a directory to read next, and when.

1. A file that has vanished counts as deleted only after :data:`GRACE`. Editors and git write by renaming the old file
   and creating a new one; without the grace, the pair would be deleted and created again each time. A new file is left
   to its writer for the same time; the event of closing it marks it as complete.
2. Files are read for :data:`_SLICE` per call, in the order in which they changed; the rest are due immediately. Those
   that take long are read for up to a tenth of the time (:mod:`.longreads`), so that a user who can write files cannot
   keep the agent busy reading them. The former values of such a file stay in force meanwhile. Symbolic links take a
   millisecond each, and one event may concern thousands of them, so they take turns with all others.
3. Unreadable files are read again every second, after all others (:mod:`.unreadable`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Final

from vethlib._primitives import time
from vethlib.agent.config.files import is_configuration
from vethlib.follow.directories import Seen, Watch, created, gone, is_about_attributes

from .contents import Contents
from .longreads import LongReads
from .reading import is_link, names_of, status_of
from .unreadable import UnreadableFiles

__all__ = ["GRACE", "Agenda"]

GRACE: Final = 0.03  # seconds
_SLICE = 0.05  # seconds of processor time, and of waiting for other threads that read links


class Agenda:
    """The files to look at: those that have changed, have vanished or cannot be read, each with its time."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        # Files that have vanished, or are to be read, each with the time to look at it again.
        self._gone: dict[str, float] = {}
        self._new: dict[str, float] = {}
        self._unreadable = UnreadableFiles()
        self._links: set[str] = set()  # of all these files, those that may be links, or have further names
        self._formerly: dict[str, str] = {}  # the names from which files that are to be read were renamed
        self._long = LongReads()

    def clear(self) -> None:
        """Forget all files."""
        for known in (self._gone, self._new, self._formerly):
            known.clear()
        self._links.clear()
        self._unreadable.clear()
        self._long = LongReads()

    def times(self) -> list[float]:
        """Return the times at which files are due."""
        again = self._unreadable.due()
        return [*self._gone.values(), *self._new.values(), *([] if again is None else [again])]

    def add(self, name: str) -> None:
        """Note that a file has perhaps changed, or what is behind a link or a mount."""
        self._new.setdefault(name, time.monotonic())
        self._links.add(name)

    def add_events(self, seen: Seen, watch: Watch, directory: int) -> None:
        """Note the files that events name."""
        names: dict[str, str] = {}  # each with the name that it was renamed from, or ""
        renamed: dict[int, str] = {}
        linked: set[int] = set()  # inodes with several names
        vanished: set[str] = set()
        for name, mask, cookie in seen.files:
            if not is_configuration(name):
                continue
            if gone(mask):
                self._new.pop(name, None)
                if watch.is_followed(name):
                    self._links.add(name)  # it is dropped after another link is read that may have its values
                else:
                    self._links.discard(name)
                vanished.add(name)
                self.vanish(name)
                # If it was not read since it got this name, its content is still known by the former one.
                former = self._formerly.pop(name, "") or names.get(name, "")
                if former in self._gone:
                    self._gone[former] = min(self._gone[former], time.monotonic() + GRACE)
                renamed[cookie] = former or name
                names.pop(name, None)
            elif created(mask):
                if self._is_complete(name, directory, linked):
                    names[name] = ""
            elif not (
                is_about_attributes(mask) and name in self._new
            ):  # a writer may set the mode before it closes the file
                names[name] = renamed.get(cookie, "") if cookie else names.get(name, "")
        if linked:  # the other names of these inodes have to be followed, too
            names |= dict.fromkeys(names_of(linked, directory), "")
        now = time.monotonic()
        # That a link has vanished is also an event of the link itself, but it has its grace.
        for name in (*names, *(seen.linked.keys() - vanished)):
            self._new[name] = min(now, self._new.get(name, now))
            if name in seen.linked or is_link(name, directory):
                self._links.add(name)
            if formerly := names.get(name):
                self._formerly[name] = formerly

    def due(self, directory: int, spent: Callable[[], float]) -> Iterator[str]:
        """Yield the files to read now, for one slice of the seconds that `spent` counts; :meth:`take` each of them.

        Files that have vanished come after what was there before. Unreadable files come last, one of them in any case:
        others may be rewritten all the time.
        """
        now, until = time.monotonic(), spent() + _SLICE
        due: dict[str, float] = {}
        for times in (self._new, self._gone):
            for name, when in times.items():
                if when <= now:
                    due.setdefault(name, when)
        for name in self._in_turn(due):
            if not self.must_wait(name, directory):
                yield name
            if spent() >= until:
                break
        if (again := self._unreadable.due()) is not None and again <= now:
            began = spent()
            while (unreadable := self._unreadable.next(now)) is not None:
                if not self.must_wait(unreadable, directory):
                    yield unreadable
                if spent() >= until:
                    break
            self._unreadable.read_for(spent() - began)

    def must_wait(self, name: str, directory: int) -> bool:
        """Have a file wait that may take long to read, if such files rest; return whether it has to."""
        if not self._long.must_wait(name, directory):
            return False
        self._unreadable.discard(name)
        self._gone.pop(name, None)  # it is there again
        self._new[name] = self._long.until
        if (formerly := self._formerly.get(name, "")) in self._gone:
            self._gone[formerly] = self._long.until  # otherwise its keys would be deleted until then
        return True

    def take(self, name: str) -> tuple[str, bool]:
        """Remove a file that is read now; return the name from which it was renamed, and whether it was unreadable.

        A file that has vanished keeps its grace until it is :meth:`found`, or dropped.
        """
        self._new.pop(name, None)
        self._links.discard(name)
        return self._formerly.pop(name, ""), self._unreadable.discard(name)

    def found(self, name: str) -> None:
        """Note that a file is there."""
        self._gone.pop(name, None)

    def failed(self, name: str) -> None:
        """Note that a file could not be read."""
        self._unreadable.add(name)

    def took(self, name: str, seconds: float, size: int, directory: int) -> None:
        """Note the processor time that reading a file of `size` bytes has taken."""
        self._long.note(name, seconds, size, directory)

    def end_rest(self) -> None:
        """Let no file wait from now on, however long files have taken."""
        self._long.end_rest()

    def vanish(self, name: str) -> bool:
        """Note that a file is missing; return False if its grace is over, or it was not known."""
        if not self._contents.has(name):
            return False
        if name not in self._gone:
            self._gone[name] = time.monotonic() + GRACE
            self._contents.vanish(name)
        return time.monotonic() < self._gone[name]

    def drop(self, name: str) -> None:
        """Forget a file that was deleted, and its values."""
        self._gone.pop(name, None)
        self._long.forget(name)
        self._contents.drop(name)

    def _in_turn(self, due: Mapping[str, float]) -> Iterator[str]:
        """Yield the files that are due: in the order in which they changed, but one link after one other file."""
        names = sorted(due, key=lambda name: (due[name], self._long.rank(name)))
        taking_turns = {name for name in self._links if not self._long.has_waited(name)}
        others = [name for name in names if name not in taking_turns]
        links = [name for name in names if name in taking_turns]
        for pair in zip_longest(others, links):
            yield from filter(None, pair)

    def _is_complete(self, name: str, directory: int, linked: set[int]) -> bool:
        """Return whether to read a new file at once.

        If not, it is left to its writer, or its inode is added to `linked`.
        """
        try:
            status = status_of(name, directory)
        except OSError:
            return True  # it has vanished already, or something is mounted on it
        if stat.S_ISLNK(status.st_mode):
            return True
        if status.st_nlink > 1:
            linked.add(status.st_ino)
            return False
        self._new[name] = time.monotonic() + GRACE
        return False
