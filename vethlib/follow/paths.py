"""Follow files by path: whether they exist, and whether another file has taken their place.

1. A name is resolved in its directory, and that in its parent. So there is a node for each followed path and for each
   path above it, and an inotify watch on every directory that contains a node: thousands of names in one directory take
   one watch. A missing directory is awaited by the watch on the nearest existing one above it, and there are no nodes
   below it until it appears.
2. A directory is watched before its entries are looked at, so no change is missed. Watches are added by path, again
   whenever the path may lead to another directory; a directory that is already watched has the same watch number
   (fs/notify/inotify/inotify_user.c, inotify_update_existing_watch), so another number means another directory.
3. If a node is a symbolic link, the path of its target is walked like the kernel does, every directory on it gets
   nodes, too, and a change of one of these is a change of the link. Others may have put the link there, so a path with
   more names than MOST_NAMES, those of its links included, is treated like a link that leads to itself.
4. A file becomes a namespace by a mount on it, which causes no event of inotify. But mountinfo becomes readable at
   every change of the mount table (mounts_poll, fs/proc_namespace.c) of the thread that created the follower. It does
   not show which mount has changed. So the directories and the files that are no namespaces are looked at again, which
   is quick. A namespace is looked at again if its mount no longer exists or its path has a new mount
   (vethlib/ns/files/mounts.py); all are, if the ids of mounts are not known, or if symbolic links may lead to
   them. Each of these checks takes up to a tenth of the time, unless its cost is negligible. Missing files need no
   check: nothing can be mounted on them before their directory has an event.
5. After lost events, everything is looked at again, also for up to a tenth of the time, so that a program that creates
   files faster than their events are read cannot keep the follower busy.
6. A file is created before the mount on it. So mountinfo is polled before inotify, and a file is known by the time its
   mount is.

There are no events for a procfs that is not mounted on /proc, nor for mounts in another mount namespace that do not
propagate here (/proc/42/root/run/netns/blue): paths below /proc/42 are checked (`whereabouts.py`). A directory that
cannot be watched, because it is unreadable or the max_user_watches of fs.inotify are in use, is looked at every second,
and so are entries that cannot be looked at. A file system that does not answer does not delay this
(vethlib/ns/files/answers.py).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from vethlib._primitives import select, time
from vethlib._trusted import MOST_NAMES
from vethlib.ns.deadline import earliest
from vethlib.ns.descriptor import opened
from vethlib.ns.files.glance import nsfs
from vethlib.ns.files.mounts import mount_ids, mount_point
from vethlib.ns.opening import entry_at, unhurried

from .processes import is_of_process
from .turns import Turn

__all__ = ["Paths"]

# include/uapi/linux/inotify.h. Attributes, because a file may have become readable.
IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x4, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_MASK_ADD = 0x4000, 0x8000, 0x0100_0000, 0x2000_0000
# IN_MASK_ADD, because without it, adding a watch again clears its mask for a moment while the kernel replaces it
# (fs/notify/inotify/inotify_user.c, inotify_update_existing_watch): 18 events of 80 000 were lost.
WATCHED = IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_MASK_ADD

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of a missing file: its creation causes an event. Nothing reports the end of any other error."""

MAX_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h
DEAF_AGAIN = 1.0  # seconds

MOUNTS = "/proc/thread-self/mountinfo"

_UNKNOWN: Final = -1
"""The id of the mount on which a namespace is, if statx(2) does not return it: before Linux 6.8, or without statx."""


@dataclass(slots=True, eq=False)
class _Node:
    path: str
    parent: _Node | None  # None: the root
    followed: bool = False
    inside: dict[str, _Node] | None = None  # None, since empty dicts would be a tenth of the cost of following
    awaited: set[str] | None = None  # the followed paths below it that have no nodes, because it is missing
    seen: tuple[int, int, int] | None = None  # None: it does not exist
    wd: int = -1
    link: str = ""  # the target of a symbolic link
    passed: tuple[_Node, ...] = ()  # the nodes on the path of the target, if anything depends on it
    behind: str | None = None  # the target without links; None: it does not exist
    walked: int = 0  # how many names were looked up to find the target
    of_process: str = ""  # the path in /proc, if it belongs to a process
    links: set[_Node] | None = None  # the links whose targets' paths pass this node
    mount: int = 0  # the id of the mount on which a namespace is

    @property
    def is_missing(self) -> bool:
        """Whether nothing can be below it: it does not exist, or is a link that leads nowhere."""
        return not self.of_process and (self.seen is None or (bool(self.link) and self.behind is None))


class Paths:
    """Follow files by absolute paths, without "//" and "/./"; the descriptors are registered in `epoll`."""

    def __init__(self, epoll: select.epoll) -> None:
        self._root = _Node("/", None, seen=(0, 0, 0))
        self._nodes = {"/": self._root}
        self._watches: dict[int, set[_Node]] = {}
        self._mounted: dict[int, set[_Node]] = {}  # namespaces, by the ids of their mounts
        self._symbolic: set[_Node] = set()  # symbolic links
        self._long: set[_Node] = set()  # those whose targets' paths have too many names
        self._bare: set[_Node] = set()  # files that are no namespaces yet
        self._deaf: set[_Node] = set()  # directories that cannot be watched
        self._silent: set[_Node] = set()  # entries that cannot be looked at
        self._deaf_until = 0.0
        self._quick, self._full, self._missed = Turn(), Turn(), Turn()
        self._nsfs = nsfs()
        self._inotify = _new_inotify()
        try:
            self._mounts = opened(MOUNTS)
            self._mount_ids = mount_ids()
            epoll.register(self._inotify, select.EPOLLIN)
            # mounts_poll reports each change only once, to whoever polls. With EPOLLPRI, an epoll around this one would
            # consume it by checking for events. EPOLLIN is always set, and EPOLLET reports it only when a change of the
            # mount table wakes the waiter.
            epoll.register(self._mounts, select.EPOLLIN | select.EPOLLET)
        except BaseException:
            self._inotify.close()
            raise

    def close(self) -> None:
        """Close both descriptors, and thereby all watches."""
        self._inotify.close()
        self._mounts.close()

    # --- following

    def follow(self, path: str) -> str:
        """Follow a file, which may be missing; return the result of :meth:`of_process`."""
        return self._follow(path).of_process

    def of_process(self, path: str) -> str:
        """Return the file of a process in /proc to which symbolic links lead from this followed file, or ""."""
        node = self._nodes.get(path)
        return "" if node is None else node.of_process

    def too_long(self, path: str) -> bool:
        """Return whether a path, with those of the symbolic links on it, has more names than are followed."""
        if not self._long:
            return False
        node: _Node | None = self._nearest(path)
        while node is not None and node not in self._long:
            node = node.parent
        return node is not None

    def unfollow(self, path: str) -> None:
        """Stop following a file."""
        node = self._nearest(path)
        if node.path == path:
            node.followed = False
            self._release(node)
        # Usually the nearest node awaits it, unless an interruption has prevented that, or following it.
        above: _Node | None = node
        while above is not None:
            if above.awaited and path in above.awaited:
                above.awaited.discard(path)
                self._release(above)
                break
            above = above.parent

    def _follow(self, path: str) -> _Node:
        """Follow a file; return its node, or the missing one above it which awaits it."""
        node = self._make(path)
        if node.path == path:
            node.followed = True
            if node.link and not node.passed:
                self._pass(node)
        elif node.awaited is None:
            node.awaited = {path}
        else:
            node.awaited.add(path)
        return node

    def _nearest(self, path: str) -> _Node:
        """Return the node of `path`, or of the nearest directory above it that has one."""
        node = self._nodes.get(path) or self._nodes.get(_above(path))
        if node is None:
            node = self._root
            for name in path[1:].split("/"):
                below = node.inside.get(name) if node.inside else None
                if below is None or self._nodes.get(below.path) is not below:  # an interrupted one does not count
                    break
                node = below
        return node

    def _make(self, path: str) -> _Node:
        """Create the nodes on `path` down to the first missing file; return the last, which may have been there.

        The new nodes are looked at, and their parents are watched.
        """
        node = self._nearest(path)
        while node.path != path:
            above = node
            if above.link and not above.passed:
                self._pass(above, needed=True)
            if above.is_missing:
                break
            end = path.find("/", len(above.path.rstrip("/")) + 1)
            node = _Node(path if end < 0 else path[:end], above)
            if above.inside is None:
                above.inside = {}
            above.inside[_name(node.path)] = node
            if above.wd < 0:
                self._watch(above)
            self._look(node)
            self._nodes[node.path] = node  # last, so that an interrupted node does not count
        return node

    def _release(self, node: _Node) -> None:
        """Drop a node on which nothing depends now, and the nodes that it depended on."""
        while node.parent is not None and not node.followed and not node.inside and not node.awaited:
            passed, node.passed = node.passed, ()
            self._unlink(node, passed)
            if node.links or self._nodes.get(node.path) is not node:
                return  # needed by a link, or already dropped with its dependencies: links may be circular
            del self._nodes[node.path]
            self._bare.discard(node)
            self._silent.discard(node)
            self._symbolic.discard(node)
            self._long.discard(node)
            self._note_mount(node, 0)
            self._unwatch(node)
            above = node.parent
            assert above.inside
            del above.inside[_name(node.path)]
            if not above.inside:
                self._unwatch(above)
            node = above

    # --- looking

    def _look(self, node: _Node) -> bool:
        """Check one entry of a directory; return whether it has changed since the last check."""
        above = node.parent
        if above is not None and above.of_process:
            # Whether it is the same process as before cannot be seen here.
            node.of_process = f"{above.of_process}/{_name(node.path)}"
            node.link, node.seen = "", None
            return True
        seen, of_process, link, bare, silent, mount = node.seen, node.of_process, "", False, False, 0
        try:
            if above is not None and above.is_missing:
                raise FileNotFoundError(errno.ENOENT, "its directory is missing")
            entry = entry_at(node.path)
            link = entry.link
            if stat.S_ISDIR(entry.mode):
                node.seen = (entry.dev, entry.ino, 0)  # its times change with its entries
            else:
                # The inode number of an ended namespace is reused for the next one, which has another time.
                node.seen = (entry.dev, entry.ino, entry.ctime_ns)
                bare = not link and entry.dev != self._nsfs
                mount = 0 if link or bare else entry.mount or _UNKNOWN
        except OSError as error:
            node.seen, silent = None, error.errno not in NOWHERE
        if silent:
            self._silent.add(node)
        else:
            self._silent.discard(node)
        if bare:
            self._bare.add(node)
        else:
            self._bare.discard(node)
        if mount != node.mount:
            self._note_mount(node, mount)
        if link or node.link or of_process:
            node.link, node.of_process = link, ""
            if link:
                self._symbolic.add(node)
            else:
                self._symbolic.discard(node)
            self._pass(node)
        return node.seen != seen or node.of_process != of_process

    def _note_mount(self, node: _Node, mount: int) -> None:
        """Note the mount on which the namespace of a node is; 0 for none."""
        nodes = self._mounted.get(node.mount)
        if nodes is not None:
            nodes.discard(node)
            if not nodes:
                del self._mounted[node.mount]
        node.mount = mount
        if mount:
            self._mounted.setdefault(mount, set()).add(node)

    def _pass(self, node: _Node, *, needed: bool = False) -> None:
        """Walk the path of a link's target, and depend on all nodes on it."""
        before = node.passed
        if node.link and (needed or node.followed or node.inside or node.awaited):
            passed = self._walk(node)
            node.passed = tuple(passed)
            for other in passed:
                if other.links is None:
                    other.links = set()
                other.links.add(node)
        else:
            node.passed = ()
            self._long.discard(node)
        self._unlink(node, set(before).difference(node.passed))

    def _unlink(self, node: _Node, passed: Iterable[_Node]) -> None:
        for other in passed:
            if other.links is not None:
                other.links.discard(node)
                self._release(other)

    def _walk(self, node: _Node) -> dict[_Node, None]:
        """Return the nodes on the path of a link's target.

        Links and names are counted, not nested (path_walk, fs/namei.c), beginning with those of the path to the link.
        """
        passed: dict[_Node, None] = {}
        node.behind = None
        assert node.parent is not None
        here, node.walked = _real(node.parent)
        names, count = _names(node.link), 0
        node.walked += 1
        self._long.discard(node)
        if node.link.startswith("/"):
            here = "/"
        while names and here is not None:
            if node.walked >= MOST_NAMES:
                self._long.add(node)
                break
            node.walked += 1
            name = names.pop()
            if name == "..":
                here = _above(here)
                continue
            path = f"{here.rstrip('/')}/{name}"
            if is_of_process(path):
                node.of_process = node.behind = "/".join([path, *reversed(names)])
                break
            other = self._nodes.get(path) or self._make(path)
            passed[other] = None
            if other.path != path:
                break  # something on the way to it has just vanished
            if other.link and count < MAX_LINKS:
                count += 1
                names += _names(other.link)
                if other.link.startswith("/"):
                    here = "/"
            elif other.seen is None or other.link:
                break
            else:
                here = path
        else:
            node.behind = here
        return passed

    def _watch(self, node: _Node) -> bool:
        """Watch the directory to which `node` leads; return whether it is another directory than before."""
        wd, deaf = -1, False
        if node.seen is not None and not node.of_process:
            try:
                # The kernel asks the file system whether it may be read (inotify_find_inode, fs/notify/inotify).
                wd = unhurried(node.path, lambda path: int(self._inotify.add_watch(path, WATCHED)))
            except OSError as error:
                deaf = error.errno not in NOWHERE
        another = wd != node.wd
        if another:
            self._unwatch(node)
        if another and wd >= 0:
            self._watches.setdefault(wd, set()).add(node)
            node.wd = wd
        if deaf:
            self._deaf.add(node)
        else:
            self._deaf.discard(node)
        return another

    def _unwatch(self, node: _Node) -> None:
        self._deaf.discard(node)
        wd, node.wd = node.wd, -1
        nodes = self._watches.get(wd)
        if nodes is None:
            return
        nodes.discard(node)
        if not nodes:
            del self._watches[wd]
            try:
                self._inotify.rm_watch(wd)
            except OSError:
                pass  # EINVAL: it has ended with its directory, and its event is still to be read

    # --- changes

    def due(self) -> float | None:
        """Return the seconds until :meth:`changed` must be called even if no descriptor is readable, or None."""
        times = [turn.due() for turn in (self._quick, self._full, self._missed) if turn.requested]
        if self._deaf or self._silent:
            times.append(max(0.0, self._deaf_until - time.monotonic()))
        return earliest(*times)

    def changed(self, ready: Container[int], everything: bool = False) -> set[str]:
        """Return the followed paths that may have changed since the last call; with `everything`, all of them.

        `ready` are the descriptors that the epoll has just reported, which it does only once.
        """
        remounted: set[_Node] = set()
        if self._mounts.fileno() in ready:
            self._quick.requested = True
            remounted = self._remounted()
        changed = set(self._read())
        if everything:
            changed.update(self._nodes.values())
        pending = changed | remounted
        if (self._deaf or self._silent) and self._deaf_until <= time.monotonic():
            pending.update(self._deaf, self._silent, *(node.inside.values() for node in self._deaf if node.inside))
            self._deaf_until = time.monotonic() + DEAF_AGAIN
        self._settle(pending, changed)
        if self._quick.requested and self._quick.due() == 0:
            begun = self._quick.begin()
            self._settle(self._bare.union(*self._watches.values()), changed)
            self._quick.end(begun)
        if self._missed.requested and self._missed.due() == 0:
            begun = self._missed.begin()
            self._settle(set(self._nodes.values()), changed)
            self._missed.end(begun)
        if self._full.requested and self._full.due() == 0:
            begun = self._full.begin()
            self._settle(self._other_namespaces(), changed)
            self._full.end(begun)
        return {node.path for node in changed if node.followed}

    def _read(self) -> Iterator[_Node]:
        """Yield the nodes of directory entries that have events."""
        for wd, mask, _, name in self._inotify.read(0):
            if mask & IN_Q_OVERFLOW:
                self._missed.requested = True
                continue
            for node in self._watches.get(wd, ()):
                if mask & IN_IGNORED:
                    node.wd = -1
                    yield node
                elif node.inside and name in node.inside:
                    yield node.inside[name]
            if mask & IN_IGNORED:
                self._watches.pop(wd, None)

    def _settle(self, pending: set[_Node], changed: set[_Node]) -> None:
        """Look at the `pending` nodes and at those that depend on them; add the different ones to `changed`."""
        while pending:
            node = pending.pop()
            if self._nodes.get(node.path) is not node:
                continue
            if self._look(node):
                changed.add(node)
            another = bool(node.inside) and self._watch(node)
            if node.inside and (another or node in changed):
                pending.update(node.inside.values())
            if node.awaited and not node.is_missing:
                changed |= self._reach(node)
            if node in changed and node.links:
                links = node.links - changed
                changed |= links
                pending |= links

    def _reach(self, node: _Node) -> set[_Node]:
        """Follow the files that a node awaited, which is missing no more; return the nodes of those that exist."""
        reached: set[_Node] = set()
        assert node.awaited is not None
        for path in tuple(node.awaited):
            last = self._follow(path)
            if last is not node:
                node.awaited.discard(path)  # not before, since this may be interrupted
            if last.path == path and (last.seen is not None or last.of_process):
                reached.add(last)
        return reached

    def _remounted(self) -> set[_Node]:
        """Return the namespaces whose mount has ended or is covered; request a check of all if that is unknown."""
        before, now = self._mount_ids, mount_ids()
        self._mount_ids = now
        if before is None or now is None or self._symbolic or _UNKNOWN in self._mounted:
            self._full.requested = True
            return set()
        nodes = set[_Node]().union(*(self._mounted[mount] for mount in self._mounted.keys() - now))
        for mount in now - before:
            node = self._nodes.get(mount_point(mount))
            if node is not None:
                nodes.add(node)
        return nodes

    def _other_namespaces(self) -> set[_Node]:
        """Return the nodes that were a namespace and are no longer the same one."""
        others = set()
        for node in self._nodes.values():
            if node.seen is None or node.seen[0] != self._nsfs:
                continue
            try:
                entry = entry_at(node.path)
            except OSError:
                others.add(node)
            else:
                if node.seen != (entry.dev, entry.ino, entry.ctime_ns):
                    others.add(node)
        return others


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _names(target: str) -> list[str]:
    """Return the names on the path of a link's target, the first one last."""
    return [name for name in reversed(target.split("/")) if name not in ("", ".")]


def _real(node: _Node) -> tuple[str | None, int]:
    """Return the path of a directory without links (None if a link is dangling), and how many names lead there."""
    names = []
    while node.parent is not None and not node.link:
        names.append(_name(node.path))
        node = node.parent
    path, walked = (node.behind, node.walked) if node.link else ("/", 0)
    for name in reversed(names):
        if path is not None:
            path = _above(path) if name == ".." else f"{path.rstrip('/')}/{name}"
    return path, walked + len(names)


def _new_inotify() -> Any:
    from .inotify import INotify  # takes 6 ms, and only followers need it

    return INotify()
