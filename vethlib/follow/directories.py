"""Watch a directory, and the path to it, by inotify.

1. The directory itself is watched for changes of its files. A new file is reported when its writer closes it
   (IN_CLOSE_WRITE); only links are complete when they appear (IN_CREATE).
2. That is a watch on an inode, independent of its path. So every directory and symbolic link on the path is watched,
   too, for being moved, deleted or replaced. Each of them is watched itself, because its parent may be a busy
   directory. Only the immediate parent is watched for all deletions: IN_DELETE_SELF of an inode is sent when its last
   descriptor is closed (fsnotify_inoderemove() from dentry_unlink_inode(), fs/dcache.c), and a shell may have the
   directory open.
3. inotify has no event for mounts along the path. /proc/self/mountinfo becomes readable out of band after one
   (mounts_poll(), fs/proc_namespace.c), but only until somebody polls it: a descriptor that was found readable must be
   read, not waited for again.
4. If a file is a symbolic link, its target is watched, and the path to it in the same way. A file with several names is
   watched itself, because a directory only reports changes made through the name in it. Of a device or a pipe, such as
   /dev/null, which all programs write to, only its end is watched, and its attributes.
5. If the directory is missing, the nearest existing one is watched for new entries.

All this only triggers a check, which finds the present state.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Set
from dataclasses import dataclass, field

from vethlib._primitives import select
from vethlib._trusted import MOST_NAMES

from .inotify import INotify, flags

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
_OF_LINK = _SELF | _ATTRIB | _DONT_FOLLOW  # a link that a rename replaces loses its last name: IN_ATTRIB
_OF_NEAREST = _SELF | _GONE | _CREATE | _ATTRIB | int(flags.MOVED_TO) | _ONLYDIR
_OF_TARGET = _SELF | int(flags.CLOSE_WRITE | flags.ATTRIB)
_OF_DEVICE = _SELF | _ATTRIB

_MAX_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h


def gone(mask: int) -> bool:
    """Return whether this event means that a file is no longer in the directory."""
    return bool(mask & _GONE)


def created(mask: int) -> bool:
    """Return whether this event means that a file was created, and may still be incomplete."""
    return bool(mask & _CREATE)


def is_about_attributes(mask: int) -> bool:
    """Return whether this event is about attributes of a file, not its content."""
    return bool(mask & _ATTRIB)


@dataclass(slots=True)
class Seen:
    """The events of the watches.

    `files` are the events of files in the directory, in order: name, inotify's mask, and the cookie that joins the two
    halves of a rename. `linked` are files whose targets have events. `way` is whether the path may lead elsewhere
    because a directory or a link was changed; `missed` whether events were lost; `ended` whether the directory was
    deleted or unmounted, which ends its watch; `remounted` whether something was mounted or unmounted anywhere.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    linked: dict[str, None] = field(default_factory=dict)
    way: bool = False
    missed: bool = False
    ended: bool = False
    remounted: bool = False


class Watch:
    """The watches of one path. Raises OSError if the user has no inotify instance left."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inotify = INotify(nonblocking=True)
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._inotify.fileno(), select.EPOLLIN)
        self._epoll.register(self._mounts, select.EPOLLPRI)
        # Waiting for the epoll consumes the event of its mountinfo, so the reason is read from a second descriptor.
        try:
            self._own_mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._mounts)
            raise
        self._remounted = select.poll()
        self._remounted.register(self._own_mounts, select.POLLPRI)
        self._directory = -1
        self._at = path  # the path without links
        self._way: set[int] = set()
        self._names: set[str] = set()  # the names along the path, including those of links' targets
        self._targets: dict[str, set[int]] = {}  # the watches of each file that is followed
        self._linked: dict[int, dict[str, None]] = {}  # the inverse

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`seen` may have events."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        self._inotify.close()
        os.close(self._mounts)
        os.close(self._own_mounts)

    def seen(self) -> Seen:
        """Return the events since the last call."""
        self._epoll.poll(0)  # mountinfo stays readable until it is polled
        seen = Seen(remounted=bool(self._remounted.poll(0)))
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
                # An event of a removed watch was queued before the last check of the path.
                seen.way |= name in self._names if name else watch in self._way
            if mask & _IGNORED:
                seen.ended |= watch == self._directory
                self._forget(watch)
        return seen

    def start(self, directory: int) -> None:
        """Watch an open directory, to which the path leads. Raises OSError if inotify refuses."""
        old, self._directory = self._directory, self._add(f"/proc/self/fd/{directory}", _OF_DIRECTORY)
        way = self._watch_way()
        self._at = way.at
        self._way.add(self._try(os.path.dirname(way.at), _OF_PARENT))
        self._leave({old})

    def wait(self) -> None:
        """Watch for a missing directory to appear."""
        old, self._directory = self._directory, -1
        way = self._watch_way()
        # The path may lead to a file, or to an unreadable directory: then only its parent has events.
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

    def watches_along(self, name: str) -> set[int]:
        """Watch a file, or the target of a symbolic link; return the watches, for :meth:`follow`.

        Another thread may call this, since a file system on the path may not answer: it changes nothing in this object.
        """
        way = _walk(self._at, name)
        watches = {self._try(path, _OF_LINK if is_link else _OF_STEP) for path, is_link in way.steps}
        if way.whole:
            watches.add(self._try(way.at, _OF_TARGET if os.path.isfile(way.at) else _OF_DEVICE))
        return watches

    def follow(self, name: str, watches: Set[int]) -> None:
        """Note the watches of a file, which replace those that it had before."""
        watches = set(watches - {self._directory, -1})
        self.unfollow(name, kept=watches)
        self._targets[name] = watches
        for watch in watches:
            self._linked.setdefault(watch, {})[name] = None

    def is_followed(self, name: str) -> bool:
        """Return whether a file has watches of its own, or had them until it was deleted."""
        return name in self._targets

    def unfollow(self, name: str, *, kept: Set[int] = frozenset()) -> None:
        """Stop watching the target of a file."""
        for watch in self._targets.pop(name, set()) - kept:
            self._linked[watch].pop(name)
            if not self._linked[watch]:
                del self._linked[watch]
                self._leave({watch})

    def _add(self, path: str, mask: int) -> int:
        # A second watch of an inode is the same watch (inotify(7)): keep the bits of the first.
        watch: int = self._inotify.add_watch(path, mask | _ADD)
        return watch

    def _try(self, path: str, mask: int) -> int:
        """Watch a path; return -1 if it no longer exists or may not be watched."""
        try:
            return self._add(path, mask)
        except OSError:
            return -1

    def _leave(self, watches: Set[int]) -> None:
        """Remove the watches that are no longer needed."""
        for watch in watches - self._way - self._linked.keys() - {self._directory, -1}:
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                pass  # the inode was deleted, and the watch with it

    def _forget(self, watch: int) -> None:
        """Note that a watch has ended with its inode."""
        self._way.discard(watch)
        for name in self._linked.pop(watch, {}):
            self._targets[name].discard(watch)
        if watch == self._directory:
            self._directory = -1


@dataclass(slots=True)
class _Way:
    """The directories and links along a path, each by a path without links before its last part.

    `names` are the names that were looked up, `at` is the last existing part, and `whole` whether that is the end.
    """

    at: str
    steps: list[tuple[str, bool]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    whole: bool = False


def _walk(at: str, path: str) -> _Way:
    """Walk `path` from the directory `at` like the kernel does; if links lead through too many names, up to there."""
    way = _Way(at)
    rest = path.split("/")[::-1]
    links, left = 0, MOST_NAMES
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
                return way  # it does not exist
            way.steps.append((here, False))
            way.at = here
            continue
        way.steps.append((here, True))
        names = target.split("/")[::-1]
        links, left = links + 1, left - len(names)
        if links > _MAX_LINKS or left < 0:
            return way
        if target.startswith("/"):
            way.at = "/"
        rest += names
    way.whole = True
    return way
