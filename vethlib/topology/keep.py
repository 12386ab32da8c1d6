"""Keep nodes up for inspection after the process that created them has ended.

A separate process, the holder, keeps their namespaces alive. In its mount namespace, each has its name in /run/netns,
so that ``ip netns exec``, ``ip -n`` and ``vethctl`` find them there; the host's /run/netns is not changed. On SIGTERM,
it ends the processes in its nodes and itself, and with that everything that it keeps.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NoReturn

from vethlib import ns
from vethlib._primitives import pidfd_open, pidfd_send_signal, posix, real_subprocess, select
from vethlib.errors import NetlinkError, VethError
from vethlib.ns.descriptor import owned
from vethlib.ns.syscalls import MS_BIND, mount

from .live.node import Node
from .programs.scripts import interpreter

__all__ = ["Kept", "hold", "keep"]

_NETNS_DIR = "/run/netns"
_READY = "ready"
_ROUND: Final = 16  # processes that are killed at a time
_HOLDER = f"import sys; sys.path.append(sys.argv[1]); from {__name__} import hold; hold(sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class Kept:
    """Kept nodes: the process id of their holder, and their names there.

    `as_user` is True if the holder is in a user namespace, which has to be entered, too.
    """

    pid: int
    nodes: tuple[str, ...]
    as_user: bool

    @property
    def enter(self) -> str:
        """The prefix for commands that use the nodes by name."""
        user = " --user --preserve-credentials" if self.as_user else ""
        return f"nsenter --target {self.pid}{user} --mount --net"

    @property
    def end(self) -> str:
        """The command that ends all kept nodes."""
        return f"kill {self.pid}"


def keep(nodes: Iterable[Node], *, as_user: bool = False) -> Kept:
    """Have these nodes kept by another process, so that the caller may close them. Raises NetlinkError.

    If several nodes have the same name, the second is called NAME.2, and so on.
    """
    named = _named(nodes)
    descriptors = [node.netns.fd for node in named.values()]
    arguments = [f"{fd}:{name}" for fd, name in zip(descriptors, named, strict=True)]
    holder = real_subprocess().run(
        # Like the supervisor, it uses only Python's own modules and vethlib, whatever precedes them in this process's
        # path.
        [interpreter(), "-I", "-S", "-c", _HOLDER, _root(), *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    word, _, pid = holder.stdout.strip().partition(" ")
    if word != _READY:
        raise NetlinkError(f"nodes cannot be kept: {holder.stderr.strip() or holder.stdout.strip()}")
    return Kept(int(pid), tuple(named), as_user)


def _root() -> str:
    """Return the directory or archive that contains vethlib."""
    return os.path.dirname(os.path.dirname(os.path.abspath(ns.__path__[0])))


def _named(nodes: Iterable[Node]) -> dict[str, Node]:
    named: dict[str, Node] = {}
    for node in nodes:
        name, number = node.name, 1
        while name in named:
            number += 1
            name = f"{node.name}.{number}"
        named[name] = node
    return named


def hold(arguments: Sequence[str]) -> NoReturn:
    """Run as the holder, whose arguments are FD:NAME…"""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        held = {ns.identity(fd) for fd in _bind(arguments)}
    except (VethError, OSError) as error:
        sys.exit(str(error))
    if pid := posix.fork():
        # The caller waits only for this process, and readers of its output wait for the end of the output.
        print(_READY, pid, flush=True)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    # The descriptors of the namespaces stay open, so that no other namespace can get their identities.
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
    """Kill every process in these namespaces, also those that are started meanwhile, and wait until they have ended."""
    # Each round is limited: there may be more processes than this one may have descriptors.
    while killed := list(islice(_killed(inside), _ROUND)):
        for pidfd in killed:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll()
            pidfd.close()


def _killed(inside: set[tuple[int, int]]) -> Iterator[ns.Descriptor]:
    """Kill the processes in these namespaces, and yield a pidfd of each."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if not _is_inside(pid, inside):
                continue
            pidfd = owned(pidfd_open, int(pid))
            if _is_inside(pid, inside):  # the number cannot have been reused since
                pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
                yield pidfd
        except OSError:
            continue  # it has ended, or this user may not inspect or end it


def _is_inside(pid: str, inside: set[tuple[int, int]]) -> bool:
    seen = os.stat(f"/proc/{pid}/ns/net")
    return (seen.st_dev, seen.st_ino) in inside
