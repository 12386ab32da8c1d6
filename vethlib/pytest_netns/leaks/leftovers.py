"""Describe the leftovers of a test, and remove those that can be removed, so that the next test starts clean.

Only leftovers that cannot belong to anybody else are removed: links and names in namespaces of this run alone, and
processes in a namespace that only this test had. A descriptor belongs to its opener, and a thread can only end itself.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

from vethlib import ns
from vethlib._nl.link import delete_link, get_link, parse_link
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib._nl.sock import RtnlSocket
from vethlib._primitives import pidfd_open, pidfd_send_signal, select, socket
from vethlib.errors import VethError
from vethlib.ns.reference import HasFileno
from vethlib.text import printable
from vethlib.topology.live.node import Node

from .found import Found, Identity

__all__ = ["delete_links", "doomed_links", "kill", "names_of_nodes", "remove_names", "sentences"]

_MOST = 12  # leftovers of one kind that are described one by one
_PATIENCE = 1000  # ms for a killed process to end
_AT_A_TIME = 16  # processes that are killed: each takes a descriptor

Places = Mapping[Identity | None, int]
"""A descriptor of each namespace with links; None is the key of the home namespace."""


def names_of_nodes(first: Iterable[Node]) -> dict[Identity, str]:
    """Return names of namespaces for messages: the names of all nodes, those of `first` with precedence."""
    # Nodes that a test created itself can be found only as objects; `type` does not resolve proxies.
    others = [thing for thing in gc.get_objects() if type(thing) is Node]
    others.sort(key=lambda node: not node.closed)  # the inode number of a closed node may have been reused
    return {node.netns.identity: f"node {node.name}" for node in (*others, *first)}


def sentences(left: Mapping[Found, str], names: Mapping[Identity, str]) -> list[str]:
    """Return a line for each leftover, with a cure. `left` has the origin of each, "" for the test itself.

    The lines are printable: names and commands are arbitrary bytes, and a worker of pytest-xdist can report only UTF-8.
    """
    lines: dict[str, list[str]] = {}
    threads = {thread.native_id: thread.name for thread in threading.enumerate()}
    for fact in sorted(left, key=lambda found: (found.kind, found.number, found.text)):
        where = names.get(fact.netns, f"network namespace {fact.netns[1]}") if fact.netns else "the home namespace"
        origin = f" (left by {left[fact]})" if left[fact] else ""
        if fact.kind == "thread" and fact.number == threading.get_native_id():
            line = (
                f"the thread that runs the tests, in {where}: it was moved back; leave a node by ending its with block"
            )
        else:
            line = f"{_what(fact, where, threads)}{origin}: {_CURES[fact.kind]}"
        lines.setdefault(fact.kind, []).append(printable(line))
    shown = []
    for kind, of_kind in lines.items():
        shown.extend(of_kind[:_MOST])
        if len(of_kind) > _MOST:
            shown.append(f"{len(of_kind) - _MOST} more of this kind: {kind}")
    return shown


_CURES = {
    "link": "delete it before the test ends; it does not end with any namespace",
    "name": "remove it with ns.remove() or `ip netns del`",
    "descriptor": "it keeps the namespace alive; close its Netns or Topology, with close() or a with statement",
    "socket": "it keeps the namespace alive; close it, preferably with a with statement",
    "thread": "it keeps the namespace alive; let it return and wait for it, with join() or with result() of its future",
    "process": "it was killed; end it before the test ends, or start it with node.start()",
}


def _what(fact: Found, where: str, threads: Mapping[int | None, str]) -> str:
    if fact.kind == "link":
        return f"link {fact.text} in {where}"
    if fact.kind == "name":
        return f"namespace {fact.text}, in /run/netns"
    if fact.kind == "descriptor":
        return f"descriptor {fact.number}, open on {where}"
    if fact.kind == "socket":
        return f"socket {_socket(fact.number)} of {where}"
    if fact.kind == "thread":
        name = repr(threads[fact.number]) if fact.number in threads else "not of Python"
        return f"thread {fact.number} ({name}) in {where}"
    return f"process {fact.number} ({fact.text}) in {where}"


def _socket(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            family = getattr(copy.family, "name", f"family {copy.family}")
            kind = getattr(copy.type, "name", f"type {copy.type}")
            return f"{fd} ({family}, {kind}, bound to {copy.getsockname()!r})"
    except OSError:
        return str(fd)


def doomed_links(links: Collection[Found], places: Places, held: Sequence[HasFileno]) -> set[Found]:
    """Delete and return the links that end with the namespace of their peer, because that is not among those `held`.

    The kernel would delete them itself, but needs a moment for that, and the next test must not find them.
    """
    doomed = set()
    for place, links_here in _by_place(links, places):
        with _rtnetlink(place) as rtnl:
            # The links first, because this assigns an nsid here to the namespace of each peer that still exists.
            answers = rtnl.exchange([get_link(link.number) for link in links_here])
            asked = rtnl.exchange([get_nsid(descriptor.fileno()) for descriptor in held])
            ids = {parse_nsid(outcome.bodies[0]) for outcome in asked if outcome.bodies}
            for link, answer in zip(links_here, answers, strict=True):
                nsid = parse_link(answer.bodies[0]).link_netnsid if answer.bodies else None
                # -1: the other namespace is ending, so no nsid is assigned to it (peernet2id_alloc).
                if answer.errno == errno.ENODEV or (nsid is not None and nsid not in ids):
                    doomed.add(link)
            rtnl.exchange([delete_link(link.number) for link in links_here if link in doomed])
    return doomed


def delete_links(links: Collection[Found], places: Places) -> None:
    """Delete links, as far as possible; deleting one end of a pair deletes the other."""
    for place, links_here in _by_place(links, places):
        with suppress(VethError, OSError), _rtnetlink(place) as rtnl:
            rtnl.exchange([delete_link(link.number) for link in links_here])


def _by_place(links: Collection[Found], places: Places) -> Iterator[tuple[int, list[Found]]]:
    for netns, place in places.items():
        links_here = [link for link in links if link.netns == netns]
        if links_here:
            yield place, links_here


@contextmanager
def _rtnetlink(place: int) -> Iterator[RtnlSocket]:
    rtnl = ns.call_in(place, RtnlSocket)
    try:
        yield rtnl
    finally:
        rtnl.close()


def remove_names(names: Iterable[Found]) -> None:
    """Remove names from /run/netns."""
    for name in names:
        with suppress(VethError):
            ns.remove(name.text, missing_ok=True)


def kill(processes: Iterable[Found]) -> list[Found]:
    """Kill processes, wait for their end, and return those that were running, with their command lines."""
    left = iter(processes)
    killed: list[Found] = []
    while some := list(islice(left, _AT_A_TIME)):
        killed += _kill(some)
    return killed


def _kill(processes: Iterable[Found]) -> list[Found]:
    killed, fds = [], []
    for process in processes:
        try:
            fd = pidfd_open(process.number)
        except OSError:
            continue
        fds.append(fd)
        # The number may already have been reused, but from here on it cannot be.
        with suppress(OSError):
            seen = os.stat(f"/proc/{process.number}/ns/net")
            if (seen.st_dev, seen.st_ino) == process.netns:
                killed.append(process._replace(text=_command(process.number)))
                pidfd_send_signal(fd, signal.SIGKILL)
    for fd in fds:
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        ended.poll(_PATIENCE)
        os.close(fd)
    return killed


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    text = b" ".join(words).decode(errors="backslashreplace")
    return f"{text[:80]}…" if len(text) > 80 else text or "no command line"
