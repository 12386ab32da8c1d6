"""What a test left: how it is told of, and what can be taken away so that the next test starts clean.

What is taken away is what nobody else can own: links and names in namespaces that are this run's alone, and processes
in a namespace that only this test had. A descriptor belongs to whoever opened it, and a thread can only end itself.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from .. import ns
from .._nl.link import delete_link, get_link, parse_link
from .._nl.nsid import get_nsid, parse_nsid
from .._nl.sock import RtnlSocket
from ..errors import VethError
from ..ns.reference import HasFileno
from ..topology.node import Node
from .found import Found, Identity

__all__ = ["delete_links", "doomed_links", "kill", "names_of_nodes", "remove_names", "sentences"]

_MOST = 12  # of one kind that are told of one by one
_PATIENCE = 1000  # ms for a killed process to be gone

Places = Mapping[Identity | None, int]
"""A descriptor of each namespace that links were found in; of home under None."""


def names_of_nodes(first: Iterable[Node]) -> dict[Identity, str]:
    """What to call namespaces: the name of each node there is, `first` of all of these ones."""
    # Whatever a test made itself is found as an object only; `type` asks no proxy to become what it stands for.
    others = [one for one in gc.get_objects() if type(one) is Node]
    others.sort(key=lambda node: not node.closed)  # a closed one's number may be another's by now
    return {node.netns.identity: f"node {node.name}" for node in (*others, *first)}


def sentences(left: Mapping[Found, str], names: Mapping[Identity, str]) -> list[str]:
    """A line for each, with how to end it. `left` says of each who left it; "": the test that is told of."""
    lines: dict[str, list[str]] = {}
    threads = {thread.native_id: thread.name for thread in threading.enumerate()}
    for one in sorted(left, key=lambda found: (found.kind, found.number, found.text)):
        where = names.get(one.netns, f"network namespace {one.netns[1]}") if one.netns else "the home namespace"
        origin = f" (left by {left[one]})" if left[one] else ""
        if one.kind == "thread" and one.number == threading.get_native_id():
            line = f"the thread that runs the tests, in {where}: it is back; leave a node by the with that entered it"
        else:
            line = f"{_what(one, where, threads)}{origin}: {_CURES[one.kind]}"
        lines.setdefault(one.kind, []).append(line)
    told = []
    for kind, those in lines.items():
        told.extend(those[:_MOST])
        if len(those) > _MOST:
            told.append(f"{len(those) - _MOST} more of the kind: {kind}")
    return told


_CURES = {
    "link": "delete it before the test ends; it has not ended with any namespace",
    "name": "remove it, by ns.remove() or by `ip netns del`",
    "descriptor": "it keeps the namespace alive; close what opened it, a Netns or a Topology by close() or a with",
    "socket": "it keeps the namespace alive; close it, best by a with",
    "thread": "it keeps the namespace alive; have it return, and wait for it: join(), or result() of a future",
    "process": "it was killed; node.start() is for processes that are to end with the node",
}


def _what(found: Found, where: str, threads: Mapping[int | None, str]) -> str:
    if found.kind == "link":
        return f"link {found.text} in {where}"
    if found.kind == "name":
        return f"namespace {found.text}, in /run/netns"
    if found.kind == "descriptor":
        return f"descriptor {found.number}, open on {where}"
    if found.kind == "socket":
        return f"socket {_socket(found.number)} of {where}"
    if found.kind == "thread":
        name = repr(threads[found.number]) if found.number in threads else "not of Python"
        return f"thread {found.number} ({name}) in {where}"
    return f"process {found.number} ({found.text}) in {where}"


def _socket(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            family = getattr(copy.family, "name", f"family {copy.family}")
            kind = getattr(copy.type, "name", f"type {copy.type}")
            return f"{fd} ({family}, {kind}, bound to {copy.getsockname()!r})"
    except OSError:
        return str(fd)


def doomed_links(links: Collection[Found], places: Places, held: Sequence[HasFileno]) -> set[Found]:
    """Those of the links whose other end is in a namespace that is none of the `held` ones: they end with it.

    The kernel needs a moment for that, so they are deleted here, for the next test not to meet them.
    """
    doomed = set()
    for place, there in _by_place(links, places):
        with _rtnetlink(place) as rtnl:
            # The links first: that is what gives the namespace of another end, if it lives, its id here.
            answers = rtnl.exchange([get_link(link.number) for link in there])
            asked = rtnl.exchange([get_nsid(one.fileno()) for one in held])
            ids = {parse_nsid(outcome.bodies[0]) for outcome in asked if outcome.bodies}
            for link, answer in zip(there, answers, strict=True):
                nsid = parse_link(answer.bodies[0]).link_netnsid if answer.bodies else None
                # -1: there is none to give, the other namespace has begun to end (peernet2id_alloc).
                if answer.errno == errno.ENODEV or (nsid is not None and nsid not in ids):
                    doomed.add(link)
            rtnl.exchange([delete_link(link.number) for link in there if link in doomed])
    return doomed


def delete_links(links: Collection[Found], places: Places) -> None:
    """Delete them, as far as the kernel lets us: with one end of a pair goes the other."""
    for place, there in _by_place(links, places):
        with suppress(VethError, OSError), _rtnetlink(place) as rtnl:
            rtnl.exchange([delete_link(link.number) for link in there])


def _by_place(links: Collection[Found], places: Places) -> Iterator[tuple[int, list[Found]]]:
    for netns, place in places.items():
        there = [link for link in links if link.netns == netns]
        if there:
            yield place, there


@contextmanager
def _rtnetlink(place: int) -> Iterator[RtnlSocket]:
    rtnl = ns.call_in(place, RtnlSocket)
    try:
        yield rtnl
    finally:
        rtnl.close()


def remove_names(names: Iterable[Found]) -> None:
    """Take names away from /run/netns."""
    for one in names:
        with suppress(VethError):
            ns.remove(one.text, missing_ok=True)


def kill(processes: Iterable[Found]) -> list[Found]:
    """End processes, wait for it, and return them with their command lines, those that were not gone before."""
    killed, fds = [], []
    for one in processes:
        try:
            fd = os.pidfd_open(one.number)
        except OSError:
            continue
        fds.append(fd)
        # The number may be another process's by now, but from here on no more.
        with suppress(OSError):
            seen = os.stat(f"/proc/{one.number}/ns/net")
            if (seen.st_dev, seen.st_ino) == one.netns:
                killed.append(one._replace(text=_command(one.number)))
                signal.pidfd_send_signal(fd, signal.SIGKILL)
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
