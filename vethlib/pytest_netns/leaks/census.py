"""Take looks: lists of everything in this process that keeps a network namespace alive, or is inside one.

A namespace ends some time after its last user has released it (cleanup_net, net/core/net_namespace.c), without an
event. So nothing here checks whether a namespace still exists, only what keeps it alive:

- a descriptor of it, or a socket that was created in it, in this process;
- a name in /run/netns, which is a mount;
- a thread or a process inside.

Links keep nothing alive, but they remain in a namespace that continues to exist.

A look is a set of facts that can be subtracted from another look; threads and descriptors of the home namespace are
left out. It is taken twice for each test, so it has to be cheap: two listings of /proc/self, a stat of each descriptor,
and the names of the links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fcntl import ioctl
from typing import TYPE_CHECKING

from vethlib import ns
from vethlib.errors import VethError
from vethlib.ns.descriptor import duplicated
from vethlib.ns.programs.newer import Moment, pids_since
from vethlib.ns.syscalls import CLONE_NEWNET, ns_type

from .found import Found, Identity, Kind
from .watched_links import WatchedLinks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from vethlib.topology.live.node import Node

__all__ = ["Census", "here"]

_NAMES = "/run/netns"
_SIOCGSKNS = 0x894C  # include/uapi/linux/sockios.h: returns a descriptor of the namespace of a socket
_MANY = 512  # sockets that are cached


class Census:
    """Take looks. It is created in the home namespace of the process, to which its threads belong.

    If other processes use the home namespace, too, its links (`shares_links`) and the named namespaces (`shares_names`)
    may be theirs, so they are left out.
    """

    def __init__(self, *, shares_links: bool, shares_names: bool) -> None:
        self.home = ns.Netns(ns.current())
        self._shares_links = shares_links
        self._shares_names = shares_names
        # Threads that existed before the process moved here stay in its former namespace.
        self._homes = {self.home.identity, *(netns for _, netns in _threads())}
        self._sockets: dict[int, Identity | None] = {}  # the namespace of each socket, by the socket's inode
        self._held: dict[int, Found | None] = {}
        self._links = WatchedLinks()

    def close(self) -> None:
        """Release the home namespace."""
        self._links.close()
        self.home.close()

    def look(self, nodes: Iterable[Node] = (), *, quick: bool = False) -> set[Found]:
        """Take a look, including the links of these nodes. Call this only in the thread that runs the tests.

        A `quick` look assumes that descriptors are unchanged since the last one, so no test may have run since.
        """
        places: dict[Identity | None, int] = {node.netns.identity: node.netns.fd for node in nodes if not node.closed}
        facts = set(self._links_in(places))  # first, because this may release namespaces
        own = {self.home.fd, *places.values(), *self._links.filenos()}
        self._held = dict(self._descriptors(own, self._held if quick else {}))
        facts.update([fact for fact in self._held.values() if fact is not None])
        facts.update([Found("thread", netns, tid) for tid, netns in _threads() if netns not in self._homes])
        if not self._shares_names:
            facts.update([Found("name", None, 0, name) for name in _names()])
        return facts

    def _descriptors(self, own: set[int], known: Mapping[int, Found | None]) -> Iterator[tuple[int, Found | None]]:
        """Return the descriptors of this process, except those of the watch and of nodes, each with its facts."""
        home_dev = self.home.identity[0]
        for fd in set(map(int, os.listdir("/proc/self/fd"))) - own:
            if fd in known:
                yield fd, known[fd]
                continue
            try:
                seen = os.fstat(fd)
            except OSError:
                continue  # the descriptor of the listing itself, or one closed by another thread
            if seen.st_dev == home_dev:
                yield fd, self._foreign("descriptor", (seen.st_dev, seen.st_ino), fd) if _is_netns(fd) else None
            elif stat.S_ISSOCK(seen.st_mode):
                yield fd, self._foreign("socket", self._made_in(fd, seen.st_ino), fd, str(seen.st_ino))
            else:
                yield fd, None

    def _foreign(self, kind: Kind, netns: Identity | None, fd: int, text: str = "") -> Found | None:
        return None if netns is None or netns in self._homes else Found(kind, netns, fd, text)

    def _made_in(self, fd: int, inode: int) -> Identity | None:
        # Most sockets exist for many looks, and their namespaces never change.
        if inode not in self._sockets:
            if len(self._sockets) >= _MANY:
                self._sockets.clear()
            self._sockets[inode] = _namespace_of_socket(fd)
        return self._sockets[inode]

    def _links_in(self, nodes: Mapping[Identity | None, int]) -> list[Found]:
        try:
            return self._links.look(nodes if self._shares_links else {None: self.home.fd, **nodes})
        except VethError:
            return []  # the test has closed the descriptor of the watch, which is reported elsewhere

    def processes(self, inside: Collection[Identity], since: Moment | None) -> set[Found]:
        """Return the processes in these namespaces, at least those that were started after `since`; None for all."""
        facts = set()
        for pid in pids_since(since):
            netns = _identity(f"/proc/{pid}/ns/net")
            if netns in inside and pid != os.getpid():
                facts.add(Found("process", netns, pid))
        return facts

    def holders(self, facts: Iterable[Found]) -> list[ns.Descriptor]:
        """Open every namespace that these facts keep alive."""
        opened: list[ns.Descriptor] = []
        for fact in facts:
            with suppress(OSError, VethError):
                if fact.kind == "socket":
                    opened.append(ns.Descriptor.fromfd(ioctl(fact.number, _SIOCGSKNS)))
                elif fact.kind == "descriptor":
                    with duplicated(fact.number) as copy:  # a copy also of vethlib's own descriptors
                        opened.append(ns.open_owned(f"fd:{copy.fileno()}"))
                elif path := _path(fact):
                    opened.append(ns.open_owned(f"path:{path}"))
        return opened


def _path(fact: Found) -> str:
    return {
        "thread": f"/proc/self/task/{fact.number}/ns/net",
        "name": f"{_NAMES}/{fact.text}",
    }.get(fact.kind, "")


def _threads() -> Iterator[tuple[int, Identity]]:
    for tid in os.listdir("/proc/self/task"):
        netns = _identity(f"/proc/self/task/{tid}/ns/net")
        if netns is not None:
            yield int(tid), netns


def here() -> Identity:
    """Return the namespace of the calling thread."""
    seen = os.stat("/proc/thread-self/ns/net")
    return seen.st_dev, seen.st_ino


def _identity(path: str) -> Identity | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None  # it has ended, or belongs to another user
    return seen.st_dev, seen.st_ino


def _is_netns(fd: int) -> bool:
    try:
        return ns_type(fd) == CLONE_NEWNET  # namespaces of other kinds are also files of nsfs
    except OSError:
        return False  # closed meanwhile, by another thread


def _namespace_of_socket(fd: int) -> Identity | None:
    """Return the network namespace of a socket; None if unknown (the kernel requires CAP_NET_ADMIN in it)."""
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
