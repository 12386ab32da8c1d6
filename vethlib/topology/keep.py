"""Leaving nodes up when the process that made them ends, for somebody to look at.

A process of its own, the holder, keeps their namespaces. It has a mount namespace in which each has its name in
/run/netns, so that ``ip netns exec``, ``ip -n`` and ``vethctl`` know them, once there; the host's /run/netns is
another. When it is sent SIGTERM it ends the processes that are in its nodes, and with itself all that it keeps.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from .. import ns
from ..errors import NetlinkError, VethError
from ..ns.syscalls import MS_BIND, mount
from .node import Node

__all__ = ["Kept", "keep"]

_NETNS_DIR = "/run/netns"
_READY = "ready"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept: the holder's process id, and the nodes by the names that they have there.

    `as_user` says that it is in a user namespace, which has to be entered too.
    """

    pid: int
    nodes: tuple[str, ...]
    as_user: bool

    @property
    def enter(self) -> str:
        """The command before another one that is to see the nodes by their names."""
        user = " --user --preserve-credentials" if self.as_user else ""
        return f"nsenter --target {self.pid}{user} --mount --net"

    @property
    def end(self) -> str:
        """The command that ends it all."""
        return f"kill {self.pid}"


def keep(nodes: Iterable[Node], *, as_user: bool = False) -> Kept:
    """Have these nodes kept by a process of their own; the caller may close them then. Raises NetlinkError.

    Where two have one name, the second is called NAME.2, and so on.
    """
    named = _named(nodes)
    descriptors = [node.netns.fd for node in named.values()]
    arguments = [f"{fd}:{name}" for fd, name in zip(descriptors, named, strict=True)]
    holder = subprocess.run(
        [sys.executable, "-m", __name__, *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    word, _, pid = holder.stdout.strip().partition(" ")
    if word != _READY:
        raise NetlinkError(f"nodes cannot be kept: {holder.stderr.strip() or holder.stdout.strip()}")
    return Kept(int(pid), tuple(named), as_user)


def _named(nodes: Iterable[Node]) -> dict[str, Node]:
    named: dict[str, Node] = {}
    for node in nodes:
        name, number = node.name, 1
        while name in named:
            number += 1
            name = f"{node.name}.{number}"
        named[name] = node
    return named


def _hold(arguments: Sequence[str]) -> NoReturn:
    """The holder: what ``python -m vethlib.topology.keep FD:NAME…`` does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        held = {ns.identity(fd) for fd in _bind(arguments)}
    except (VethError, OSError) as error:
        sys.exit(str(error))
    if pid := os.fork():
        # Whoever called waits for this one only, and whoever reads its output for the end of it.
        print(_READY, pid, flush=True)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    # The descriptors of the namespaces stay open: with one gone, another namespace could get its identity.
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    _end_processes(held)
    os._exit(0)


def _bind(arguments: Sequence[str]) -> list[int]:
    ns.isolate_names()
    descriptors = []
    for argument in arguments:
        number, _, name = argument.partition(":")
        path = f"{_NETNS_DIR}/{name}"
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
        mount(f"/proc/self/fd/{number}".encode(), path.encode(), None, MS_BIND, None)
        descriptors.append(int(number))
    return descriptors


def _end_processes(inside: set[tuple[int, int]]) -> None:
    """Kill every process in these namespaces, and wait until they are gone."""
    ended = select.poll()
    waiting = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fd = os.pidfd_open(int(pid))  # from here on, the number cannot become another's
            seen = os.stat(f"/proc/{pid}/ns/net")
            if (seen.st_dev, seen.st_ino) in inside:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                ended.register(fd, select.POLLIN)
                waiting += 1
        except OSError:
            continue  # ended, or not ours to look at
    while waiting:
        for fd, _ in ended.poll():
            ended.unregister(fd)
            waiting -= 1


if __name__ == "__main__":
    _hold(sys.argv[1:])
