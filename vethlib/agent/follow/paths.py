"""Files followed by name: what is there, and that something else is there.

1. A name leads where its directory says, and that where the directory above says. So there is a node for a followed
   path and for each path above it, and an inotify watch on every directory with a node in it: thousands of names in one
   directory cost one watch. A directory that is missing is waited for by the nearest one above it that is there.
2. A directory is watched before what is in it is looked at, so nothing falls between. Watching is by path and
   repeated whenever the path may lead to another directory; the number of a watch is that of the directory itself
   (fs/notify/inotify/inotify_user.c, inotify_update_existing_watch), so another number is another directory.
3. Where a node is a symbolic link, the path behind it is walked as the kernel would, every directory on it gets nodes
   too, and what happens to one of these happens to the link.
4. A file becomes a namespace by a mount over it, of which inotify says nothing. But mountinfo becomes readable anew at
   every change of the mount table (mounts_poll, fs/proc_namespace.c), that of the thread which makes the follower.
   Which mount it was remains open. So all is looked at again: first the files that are no namespace and the
   directories, which is quick, then the namespaces. Either takes at most a tenth of the time, if it takes any to speak
   of. What does not exist need not be looked at: nothing can be mounted there before its directory says that it does.
5. The mount comes after the file. So mountinfo is asked first, inotify next; then files are known when their mount is.

Not heard: what is mounted in another mount namespace without propagating into this one (/proc/42/root/run/netns/blue),
and what is in a procfs that is not mounted on /proc. A directory that cannot be watched, because fs.inotify's
max_user_watches are in use or for want of the right to read it, is looked at every second.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vethlib.ns.descriptor import opened

from .processes import is_of_process

__all__ = ["Paths"]

# include/uapi/linux/inotify.h. Attributes, because a file may have become readable.
IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x4, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_MASK_ADD = 0x4000, 0x8000, 0x0100_0000, 0x2000_0000
# IN_MASK_ADD, because a watch that is repeated without it hears nothing for a moment, as the kernel replaces its mask
# (fs/notify/inotify/inotify_user.c, inotify_update_existing_watch): 18 events in 80 000 were lost so.
WATCHED = IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_MASK_ADD

MAX_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h
DEAF_AGAIN = 1.0  # seconds
AT_ONCE = 0.0005  # seconds of work that need not be saved

MOUNTS = "/proc/thread-self/mountinfo"


@dataclass(slots=True, eq=False)
class _Node:
    path: str
    parent: _Node | None  # None: the root
    followed: bool = False
    inside: dict[str, _Node] | None = None  # empty ones would be a tenth of the price of following
    seen: tuple[int, int, int] | None = None  # None: nothing is there
    wd: int = -1
    link: str = ""  # what the symbolic link says
    passed: tuple[_Node, ...] = ()  # the nodes that the path behind the link passes, if anything depends on it
    behind: str | None = None  # where it ends, without links; None: nowhere
    of_process: str = ""  # what it is in /proc, for what goes with a process
    links: set[_Node] | None = None  # those that pass this one


class _Turn:
    """When to do what takes a while: as soon as it is wanted, but for at most a tenth of the time."""

    __slots__ = ("_not_before", "wanted")

    def __init__(self) -> None:
        self.wanted = False
        self._not_before = 0.0

    def due(self) -> float | None:
        return max(0.0, self._not_before - time.monotonic()) if self.wanted else None

    def begin(self) -> float:
        self.wanted = False
        return time.thread_time()

    def end(self, begun: float) -> None:
        took = time.thread_time() - begun
        self._not_before = time.monotonic() + 10 * took if took > AT_ONCE else 0.0


class Paths:
    """Follows files by their absolute paths, without "//" and "/./"; its descriptors are in `epoll`."""

    def __init__(self, epoll: select.epoll) -> None:
        self._root = _Node("/", None, seen=(0, 0, 0))
        self._nodes = {"/": self._root}
        self._watches: dict[int, set[_Node]] = {}
        self._bare: set[_Node] = set()  # files that are no namespace, so far
        self._deaf: set[_Node] = set()  # directories that cannot be watched
        self._deaf_until = 0.0
        self._quick, self._full = _Turn(), _Turn()
        self._nsfs = os.stat("/proc/self/ns/net").st_dev
        self._inotify = _new_inotify()
        try:
            self._mounts = opened(MOUNTS)
            epoll.register(self._inotify, select.EPOLLIN)
            # mounts_poll forgets a change as soon as it has told it once, to whoever asks. Were that EPOLLPRI, then an
            # epoll around this one would take it away in asking whether there is something. EPOLLIN is always on, and
            # EPOLLET makes it news only when the mount table wakes us.
            epoll.register(self._mounts, select.EPOLLIN | select.EPOLLET)
        except BaseException:
            self._inotify.close()
            raise

    def close(self) -> None:
        """Close both descriptors, and with inotify's all watches."""
        self._inotify.close()
        self._mounts.close()

    # --- what is followed

    def follow(self, path: str) -> str:
        """Follow a file, there or not; returns what :meth:`of_process` does."""
        node = self._nodes.get(path) or self._make(path)
        node.followed = True
        if node.link and not node.passed:
            self._pass(node)
        return node.of_process

    def of_process(self, path: str) -> str:
        """The file in /proc to which symbolic links lead from this followed one, where that goes with a process; ""."""
        return self._nodes[path].of_process

    def unfollow(self, path: str) -> None:
        """Follow this one no more."""
        node = self._nodes.get(path)
        if node is not None:  # where following it was interrupted
            node.followed = False
            self._release(node)

    def _make(self, path: str) -> _Node:
        """The node of `path`, and those above it; the new ones are looked at, and what is above them is watched."""
        missing = [path]
        while (node := self._nodes.get(path := path.rpartition("/")[0] or "/")) is None:
            missing.append(path)
        while missing:
            above, path = node, missing.pop()
            node = _Node(path, above)
            if above.inside is None:
                above.inside = {}
            above.inside[_name(path)] = node
            if above.wd < 0:
                if above.link and not above.passed:
                    self._pass(above)
                self._watch(above)
            self._look(node)
            self._nodes[path] = node  # last: one whose making is interrupted is as good as none
        return node

    def _release(self, node: _Node) -> None:
        """Drop a node on which nothing depends any more, and those it depended on."""
        while node.parent is not None and not node.followed and not node.inside:
            passed, node.passed = node.passed, ()
            self._unlink(node, passed)
            if node.links or self._nodes.get(node.path) is not node:
                return  # needed by another, or gone with those it depended on: links may go round
            del self._nodes[node.path]
            self._bare.discard(node)
            self._unwatch(node)
            above = node.parent
            assert above.inside
            del above.inside[_name(node.path)]
            if not above.inside:
                self._unwatch(above)
            node = above

    # --- looking

    def _look(self, node: _Node) -> bool:
        """Look at one entry of a directory; whether it is another one than at the last look."""
        above = node.parent
        if above is not None and above.of_process:
            # Not for us to see whether it is the same process as before.
            node.of_process = f"{above.of_process}/{_name(node.path)}"
            node.link, node.seen = "", None
            return True
        seen, of_process, link, bare = node.seen, node.of_process, "", False
        try:
            status = os.lstat(node.path)
            mode = status.st_mode
            if stat.S_ISDIR(mode):
                node.seen = (status.st_dev, status.st_ino, 0)  # its times change with what is in it
            else:
                # The number of a dead namespace is given to the next one, which then has another time.
                node.seen = (status.st_dev, status.st_ino, status.st_ctime_ns)
                if stat.S_ISLNK(mode):
                    link = os.readlink(node.path)
                else:
                    bare = status.st_dev != self._nsfs
        except OSError:
            node.seen = None
        if bare:
            self._bare.add(node)
        else:
            self._bare.discard(node)
        if link or node.link or of_process:
            node.link, node.of_process = link, ""
            self._pass(node)
        return node.seen != seen or node.of_process != of_process

    def _pass(self, node: _Node) -> None:
        """Walk the path behind a link, and depend on all that it passes."""
        before = node.passed
        if node.link and (node.followed or node.inside):
            passed = self._walk(node)
            node.passed = tuple(passed)
            for one in passed:
                if one.links is None:
                    one.links = set()
                one.links.add(node)
        else:
            node.passed = ()
        self._unlink(node, set(before).difference(node.passed))

    def _unlink(self, node: _Node, passed: Iterable[_Node]) -> None:
        for one in passed:
            if one.links is not None:
                one.links.discard(node)
                self._release(one)

    def _walk(self, node: _Node) -> dict[_Node, None]:
        """The nodes that the path behind a link passes. As path_walk (fs/namei.c): links are counted, not nested."""
        passed: dict[_Node, None] = {}
        node.behind = None
        assert node.parent is not None
        here = _real(node.parent)
        names, count = [node.link], 0
        if node.link.startswith("/"):
            here = "/"
        while names and here is not None:
            name, _, rest = names.pop().partition("/")
            if rest:
                names.append(rest)
            if name in ("", "."):
                continue
            if name == "..":
                here = _above(here)
                continue
            path = f"{here.rstrip('/')}/{name}"
            if is_of_process(path):
                node.of_process = node.behind = "/".join([path, *reversed(names)])
                break
            one = self._nodes.get(path) or self._make(path)
            passed[one] = None
            if one.link and count < MAX_LINKS:
                count += 1
                names.append(one.link)
                if one.link.startswith("/"):
                    here = "/"
            elif one.seen is None or one.link:
                break
            else:
                here = path
        else:
            node.behind = here
        return passed

    def _watch(self, node: _Node) -> bool:
        """Watch the directory that `node` leads to; whether that is another one than before."""
        wd, deaf = -1, False
        if node.seen is not None and not node.of_process:
            try:
                wd = self._inotify.add_watch(node.path, WATCHED)
            except OSError as error:
                deaf = error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
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
                pass  # EINVAL: it went with its directory, and we shall read of it

    # --- what has changed

    def due(self) -> float | None:
        """In how many seconds :meth:`changed` is to be called though no descriptor is readable; None: need not."""
        times = [self._quick.due(), self._full.due()]
        if self._deaf:
            times.append(max(0.0, self._deaf_until - time.monotonic()))
        return min((time for time in times if time is not None), default=None)

    def changed(self, ready: Container[int], everything: bool = False) -> set[str]:
        """The followed paths where something else may be than at the last call; with `everything`, all of them.

        `ready` are the descriptors that the epoll has just told, which it does once.
        """
        if self._mounts.fileno() in ready:
            self._quick.wanted = self._full.wanted = True
        told = set(self._read())
        if everything:
            told.update(self._nodes.values())
        pending = set(told)
        if self._deaf and self._deaf_until <= time.monotonic():
            pending.update(self._deaf, *(node.inside.values() for node in self._deaf if node.inside))
            self._deaf_until = time.monotonic() + DEAF_AGAIN
        self._settle(pending, told)
        if self._quick.due() == 0:
            begun = self._quick.begin()
            self._settle(self._bare.union(*self._watches.values()), told)
            self._quick.end(begun)
        if self._full.due() == 0:
            begun = self._full.begin()
            self._settle(self._other_namespaces(), told)
            self._full.end(begun)
        return {node.path for node in told if node.followed}

    def _read(self) -> Iterator[_Node]:
        """The entries of directories that something happened to."""
        for wd, mask, _, name in self._inotify.read(0):
            if mask & IN_Q_OVERFLOW:
                yield from self._nodes.values()
                continue
            for node in self._watches.get(wd, ()):
                if mask & IN_IGNORED:
                    node.wd = -1
                    yield node
                elif node.inside and name in node.inside:
                    yield node.inside[name]
            if mask & IN_IGNORED:
                self._watches.pop(wd, None)

    def _settle(self, pending: set[_Node], told: set[_Node]) -> None:
        """Look at the nodes that are `pending` and at all that this makes worth a look; add to `told` what is new."""
        while pending:
            node = pending.pop()
            if self._nodes.get(node.path) is not node:
                continue
            if self._look(node):
                told.add(node)
            another = bool(node.inside) and self._watch(node)
            if node.inside and (another or node in told):
                pending.update(node.inside.values())
            if node in told and node.links:
                links = node.links - told
                told |= links
                pending |= links

    def _other_namespaces(self) -> set[_Node]:
        """The nodes that were a namespace and are not that one now."""
        others = set()
        for node in self._nodes.values():
            if node.seen is None or node.seen[0] != self._nsfs:
                continue
            try:
                status = os.lstat(node.path)
            except OSError:
                others.add(node)
            else:
                if node.seen != (status.st_dev, status.st_ino, status.st_ctime_ns):
                    others.add(node)
        return others


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _real(node: _Node) -> str | None:
    """The path of a directory without links; None if they lead nowhere."""
    names = []
    while node.parent is not None and not node.link:
        names.append(_name(node.path))
        node = node.parent
    path = node.behind if node.link else "/"
    for name in reversed(names):
        if path is not None:
            path = _above(path) if name == ".." else f"{path.rstrip('/')}/{name}"
    return path


def _new_inotify() -> Any:
    from vethlib.agent.inotify import INotify  # 6 ms, for those who follow

    return INotify()
