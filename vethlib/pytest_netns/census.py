"""Who keeps network namespaces alive, or is in them, as far as this process can have to do with it: one look.

A namespace ends some time after the last who held it has let go (cleanup_net, net/core/net_namespace.c), and nobody is
told when. So nothing here asks whether a namespace is still there; what counts is what holds it:

- a descriptor of it, or a socket that was made in it, in this process;
- a name in /run/netns, which is a mount;
- a thread or a process inside.

Links hold nothing, but those in a namespace that lives on stay there.

A look is a set of facts that can be subtracted from another one; everything that is in the home namespace, where
it belongs, is left out of it from the start. It is taken twice for each test, so it asks for little: two listings of
/proc/self, a stat of each descriptor, and the names of the links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fcntl import ioctl
from typing import TYPE_CHECKING

from .. import ns
from ..errors import VethError
from ..ns.syscalls import CLONE_NEWNET, ns_type
from .found import Found, Identity, Kind
from .watched_links import WatchedLinks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..topology.node import Node

__all__ = ["Census", "here", "last_pid"]

_NAMES = "/run/netns"
_SIOCGSKNS = 0x894C  # include/uapi/linux/sockios.h: a descriptor of the namespace of a socket
_MANY = 512  # sockets that are remembered; process ids that are looked at one by one, not found by a listing


class Census:
    """Takes looks. It is made where the process is at home: what is there then is where its threads belong.

    `shared` says that others than this process work at home, too, so that its links and the named namespaces may be
    theirs: they are left out.
    """

    def __init__(self, *, shared: bool) -> None:
        self.home = ns.Netns(ns.current())
        self._shared = shared
        # Threads that were there before the process moved here are, and stay, in the namespace that it came from.
        self._homes = {self.home.identity, *(netns for _, netns in _threads())}
        self._sockets: dict[int, Identity | None] = {}  # of each socket's inode, the namespace it was made in
        self._held: dict[int, Found | None] = {}
        self._links = WatchedLinks()

    def close(self) -> None:
        """Let go of home."""
        self._links.close()
        self.home.close()

    def look(self, nodes: Iterable[Node] = (), *, quick: bool = False) -> set[Found]:
        """What there is now, with the links of these nodes; to be called by the thread that runs the tests.

        A `quick` look takes a descriptor for what it was in the last one. So it is for when no test has run since.
        """
        places: dict[Identity | None, int] = {node.netns.identity: node.netns.fd for node in nodes if not node.closed}
        found = set(self._links_in(places))  # first, for it may let go of namespaces
        own = {self.home.fd, *places.values(), *self._links.filenos()}
        self._held = dict(self._descriptors(own, self._held if quick else {}))
        found.update([one for one in self._held.values() if one is not None])
        found.update([Found("thread", netns, tid) for tid, netns in _threads() if netns not in self._homes])
        if not self._shared:
            found.update([Found("name", None, 0, name) for name in _names()])
        return found

    def _descriptors(self, own: set[int], known: Mapping[int, Found | None]) -> Iterator[tuple[int, Found | None]]:
        """The descriptors of this process but our own and those of nodes, with what there is to be told of each."""
        home_dev = self.home.identity[0]
        for fd in set(map(int, os.listdir("/proc/self/fd"))) - own:
            if fd in known:
                yield fd, known[fd]
                continue
            try:
                seen = os.fstat(fd)
            except OSError:
                continue  # the listing's own, or closed by another thread
            if seen.st_dev == home_dev:
                yield fd, self._foreign("descriptor", (seen.st_dev, seen.st_ino), fd) if _is_netns(fd) else None
            elif stat.S_ISSOCK(seen.st_mode):
                yield fd, self._foreign("socket", self._made_in(fd, seen.st_ino), fd, str(seen.st_ino))
            else:
                yield fd, None

    def _foreign(self, kind: Kind, netns: Identity | None, fd: int, text: str = "") -> Found | None:
        return None if netns is None or netns in self._homes else Found(kind, netns, fd, text)

    def _made_in(self, fd: int, inode: int) -> Identity | None:
        # Most sockets outlive many looks, and where one was made never changes.
        if inode not in self._sockets:
            if len(self._sockets) >= _MANY:
                self._sockets.clear()
            self._sockets[inode] = _namespace_of_socket(fd)
        return self._sockets[inode]

    def _links_in(self, nodes: Mapping[Identity | None, int]) -> list[Found]:
        try:
            return self._links.look(nodes if self._shared else {None: self.home.fd, **nodes})
        except VethError:
            return []  # a test can close any descriptor, and will hear of it elsewhere

    def processes(self, inside: Collection[Identity], since: int | None) -> set[Found]:
        """The processes in these namespaces that began after the last one was `since`; None: whenever."""
        found = set()
        for pid in _pids_since(since):
            netns = _identity(f"/proc/{pid}/ns/net")
            if netns in inside and pid != os.getpid():
                found.add(Found("process", netns, pid))
        return found

    def holders(self, found: Iterable[Found]) -> list[ns.Descriptor]:
        """Every namespace that is held by what was found, opened."""
        opened: list[ns.Descriptor] = []
        for one in found:
            with suppress(OSError):
                if one.kind == "socket":
                    opened.append(ns.Descriptor.fromfd(ioctl(one.number, _SIOCGSKNS)))
                elif path := _path(one):
                    opened.append(_open(path))
        return opened


def _path(found: Found) -> str:
    return {
        "descriptor": f"/proc/self/fd/{found.number}",
        "thread": f"/proc/self/task/{found.number}/ns/net",
        "name": f"{_NAMES}/{found.text}",
    }.get(found.kind, "")


def _open(path: str) -> ns.Descriptor:
    return ns.Descriptor.fromfd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def last_pid() -> int | None:
    """The process or thread id that was given last (Documentation/admin-guide/sysctl/kernel.rst); None: not known."""
    try:
        fd = os.open("/proc/sys/kernel/ns_last_pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # a kernel without CONFIG_CHECKPOINT_RESTORE
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def _pids_since(since: int | None) -> Iterable[int]:
    last = last_pid()
    if since is not None and last is not None and 0 <= last - since <= _MANY:
        return range(since + 1, last + 1)
    # Ids are given in a circle (alloc_pid, kernel/pid.c): after its end, all of them may be new.
    first = since + 1 if since is not None and last is not None and last > since else 0
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) >= first]


def _threads() -> Iterator[tuple[int, Identity]]:
    for tid in os.listdir("/proc/self/task"):
        netns = _identity(f"/proc/self/task/{tid}/ns/net")
        if netns is not None:
            yield int(tid), netns


def here() -> Identity:
    """The namespace that the calling thread is in."""
    seen = os.stat("/proc/thread-self/ns/net")
    return seen.st_dev, seen.st_ino


def _identity(path: str) -> Identity | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None  # it has ended, or is somebody else's
    return seen.st_dev, seen.st_ino


def _is_netns(fd: int) -> bool:
    try:
        return ns_type(fd) == CLONE_NEWNET  # the other kinds of namespace are files of nsfs, too
    except OSError:
        return False  # closed meanwhile, by another thread


def _namespace_of_socket(fd: int) -> Identity | None:
    """The network namespace a socket was made in; None where that is not told (it takes CAP_NET_ADMIN there)."""
    try:
        netns = ioctl(fd, _SIOCGSKNS)
    except OSError:
        return None
    try:
        seen = os.fstat(netns)
    finally:
        os.close(netns)
    return seen.st_dev, seen.st_ino


def _names() -> list[str]:
    try:
        return os.listdir(_NAMES)
    except OSError:
        return []
