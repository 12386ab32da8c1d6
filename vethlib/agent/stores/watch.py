"""Watching a directory, and the way to it, by inotify.

1. The directory itself is watched for what happens to its files. A new file is news when its writer closes it
   (IN_CLOSE_WRITE); only links are complete when they appear (IN_CREATE).
2. That is a watch on an inode, which says nothing of the path. So every directory and symbolic link that the path
   leads through is watched, too, for being moved, deleted or replaced: each of them itself, for the directories they
   are in may be busy ones. Only in the parent every deletion is heard of: an inode's own IN_DELETE_SELF comes when
   the last one who has it open lets go of it (fsnotify_inoderemove() from dentry_unlink_inode(), fs/dcache.c), and
   a shell may stand in the directory.
3. A mount or an unmount on the way is no event of inotify. /proc/self/mountinfo is readable out of band after one
   (mounts_poll(), fs/proc_namespace.c), but only until somebody polls it: so a descriptor that was found readable has
   to be read, and not be waited for again.
4. A file that is a symbolic link is watched where it leads to, and on the way there likewise; one that has more names
   than one is watched itself, for a directory hears only of what is done under the name that it has there.
5. While there is no directory, the nearest one that does exist is watched for what appears in it.

All this only says when to look. What there is now is found by looking.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Set
from dataclasses import dataclass, field

from vethlib.agent.inotify import INotify, flags

__all__ = ["Seen", "Watch", "created", "gone", "is_about_attributes"]

_GONE = int(flags.MOVED_FROM | flags.DELETE)
_SELF = int(flags.MOVE_SELF | flags.DELETE_SELF)
_READY = int(flags.CLOSE_WRITE | flags.MOVED_TO | flags.ATTRIB)
_CREATE, _ATTRIB, _ISDIR = int(flags.CREATE), int(flags.ATTRIB), int(flags.ISDIR)
_IGNORED, _OVERFLOW, _UNMOUNT = int(flags.IGNORED), int(flags.Q_OVERFLOW), int(flags.UNMOUNT)
_ADD, _ONLYDIR, _DONT_FOLLOW = int(flags.MASK_ADD), int(flags.ONLYDIR), int(flags.DONT_FOLLOW)

_OF_DIRECTORY = _READY | _GONE | _CREATE | _SELF | _ONLYDIR
_OF_STEP = _SELF | _ONLYDIR
_OF_PARENT = _SELF | _GONE | _ONLYDIR
_OF_LINK = _SELF | _ATTRIB | _DONT_FOLLOW  # one that is replaced by a rename loses its last name: IN_ATTRIB
_OF_NEAREST = _SELF | _GONE | _CREATE | _ATTRIB | int(flags.MOVED_TO) | _ONLYDIR
_OF_TARGET = _SELF | int(flags.CLOSE_WRITE | flags.ATTRIB)

_MAX_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h


def gone(mask: int) -> bool:
    """Whether the file of this event went away."""
    return bool(mask & _GONE)


def created(mask: int) -> bool:
    """Whether the file of this event appeared, and is not known to be complete."""
    return bool(mask & _CREATE)


def is_about_attributes(mask: int) -> bool:
    """Whether this event says nothing of what is in the file."""
    return bool(mask & _ATTRIB)


@dataclass(slots=True)
class Seen:
    """What the watches have told.

    `files` are the files of the directory that something happened to, in order: name, inotify's mask, and the cookie
    that joins the two halves of a rename. `linked` are those that are followed to something that was touched. `way` is
    whether the path may lead elsewhere because of something done to a directory or a link; `missed` whether events
    were lost; `ended` whether the directory is no more or its file system was unmounted, and the watch went with it.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    linked: dict[str, None] = field(default_factory=dict)
    way: bool = False
    missed: bool = False
    ended: bool = False


class Watch:
    """The watches of one path. Raises OSError where the user has no inotify instance left."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inotify = INotify(nonblocking=True)
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._inotify.fileno(), select.EPOLLIN)
        self._epoll.register(self._mounts, select.EPOLLPRI)
        self._directory = -1
        self._at = path  # where the path really leads
        self._way: set[int] = set()
        self._names: set[str] = set()  # what was looked up on the way
        self._targets: dict[str, set[int]] = {}  # by the file that leads to them
        self._linked: dict[int, dict[str, None]] = {}  # the other way round

    def fileno(self) -> int:
        """Readable when :meth:`seen` has something."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        self._inotify.close()
        os.close(self._mounts)

    def seen(self) -> Seen:
        """What was told since the last call."""
        self._epoll.poll(0)  # mountinfo is readable until it was polled
        seen = Seen()
        for watch, mask, cookie, name in self._inotify.read(timeout=0):
            if mask & _OVERFLOW:
                seen.missed = True
            elif watch == self._directory:
                if name and not mask & _ISDIR:
                    seen.files.append((name, mask, cookie))
                elif mask & _SELF:
                    seen.way = True
            elif watch in self._linked:
                seen.linked.update(self._linked[watch])
            if watch != self._directory and not mask & (_IGNORED | _UNMOUNT):
                # What a watch tells that is none any more was queued before the path was looked at.
                seen.way |= name in self._names if name else watch in self._way
            if mask & _IGNORED:
                seen.ended |= watch == self._directory
                self._forget(watch)
        return seen

    def start(self, directory: int) -> None:
        """Watch an open directory, which the path leads to. Raises OSError where that is refused."""
        old, self._directory = self._directory, self._add(f"/proc/self/fd/{directory}", _OF_DIRECTORY)
        way = self._watch_way()
        self._at = way.at
        self._way.add(self._try(os.path.dirname(way.at), _OF_PARENT))
        self._leave({old})

    def wait(self) -> None:
        """Watch for a directory that is not there."""
        old, self._directory = self._directory, -1
        way = self._watch_way()
        # What the path leads to may be no directory, or one that cannot be read: then it is its parent that tells.
        for path in {way.at, os.path.dirname(way.at)}:
            self._way.add(self._try(path, _OF_NEAREST))
        self._leave({old})

    def _watch_way(self) -> _Way:
        way = _walk("/", self._path)
        watches = {self._try(path, _OF_LINK if is_link else _OF_STEP) for path, is_link in way.steps}
        old, self._way = self._way, watches
        self._names = way.names
        self._leave(old)
        return way

    def follow(self, name: str) -> None:
        """Watch a file itself, or what it leads to if it is a symbolic link."""
        way = _walk(self._at, name)
        watches = {self._try(path, _OF_LINK if is_link else _OF_STEP) for path, is_link in way.steps}
        if way.whole:
            watches.add(self._try(way.at, _OF_TARGET))
        watches -= {self._directory, -1}
        self.unfollow(name, kept=watches)
        self._targets[name] = watches
        for watch in watches:
            self._linked.setdefault(watch, {})[name] = None

    def unfollow(self, name: str, *, kept: Set[int] = frozenset()) -> None:
        """Leave off watching what a file led to."""
        for watch in self._targets.pop(name, set()) - kept:
            self._linked[watch].pop(name)
            if not self._linked[watch]:
                del self._linked[watch]
                self._leave({watch})

    def _add(self, path: str, mask: int) -> int:
        # A second watch of one inode is the first one: what that is for must not be lost.
        watch: int = self._inotify.add_watch(path, mask | _ADD)
        return watch

    def _try(self, path: str, mask: int) -> int:
        """Watch what may be gone by now, or be closed to us, in which case nothing is heard of it; -1 then."""
        try:
            return self._add(path, mask)
        except OSError:
            return -1

    def _leave(self, watches: Set[int]) -> None:
        """Remove those watches that nothing needs any more."""
        for watch in watches - self._way - self._linked.keys() - {self._directory, -1}:
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                pass  # its inode is gone, and so is the watch

    def _forget(self, watch: int) -> None:
        """A watch has ended with its inode."""
        self._way.discard(watch)
        for name in self._linked.pop(watch, {}):
            self._targets[name].discard(watch)
        if watch == self._directory:
            self._directory = -1


@dataclass(slots=True)
class _Way:
    """What a path leads through: directories and links, each by a path that has no link before its end.

    `names` are those that were looked up, `at` is how far it leads, `whole` whether that is all the way.
    """

    at: str
    steps: list[tuple[str, bool]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    whole: bool = False


def _walk(at: str, path: str) -> _Way:
    """Walk `path` from the directory `at` on, as the kernel does."""
    way = _Way(at)
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            way.at = os.path.dirname(way.at)
            continue
        way.names.add(name)
        here = os.path.join(way.at, name)
        try:
            target = os.readlink(here)
        except OSError as error:
            if error.errno != errno.EINVAL:
                return way  # there is nothing
            way.steps.append((here, False))
            way.at = here
            continue
        way.steps.append((here, True))
        links += 1
        if links > _MAX_LINKS:
            return way
        if target.startswith("/"):
            way.at = "/"
        rest += target.split("/")[::-1]
    way.whole = True
    return way
