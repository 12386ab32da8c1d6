"""End the programs of nodes, and the processes that these have started, with the node or with Python.

Two kinds of processes end with a program that this process has started:

- its process group, which it leads;
- everything in the mount namespace of its node (mounts.py), or in a copy of that (``unshare --mount``, ``ip netns
  exec``), whatever its network namespace is: a daemon that goes to the background leaves the group, and the process
  that was started ends at once. A copy still has the mounts of directories that belong to the node, unless somebody has
  unmounted them, as happens in a container that gets another root directory.

Other processes in the network namespace of a node are left alone: those that somebody has started in ``with node:``,
and those that have entered it from outside, for example by ``nsenter --net``, are not in such a mount namespace. (After
the death of this process, this can no longer be determined: supervisor.py.)
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

from vethlib import ns
from vethlib._primitives import pidfd_open, pidfd_send_signal, select, time
from vethlib.ns.descriptor import owned
from vethlib.ns.programs.newer import earliest, pids_since

from . import supervision
from .mounts import MARK, View

__all__ = ["end_processes", "end_with_python", "let_run"]

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_PATIENCE = 5.0  # seconds for killed processes to end; they may have started others meanwhile
_POLL = 0.001

Program = subprocess.Popen[Any]

_running: weakref.WeakSet[Program] = weakref.WeakSet()
"""Programs that must end with Python at the latest."""


@atexit.register
def _end_with_python(mine: int = os.getpid()) -> None:
    if os.getpid() == mine:  # not in a forked child
        end_processes(_running)


def end_with_python(program: Program) -> None:
    """End a program when Python ends."""
    _running.add(program)


def let_run(programs: Iterable[Program]) -> None:
    """Let programs continue when Python ends."""
    programs = list(programs)
    _running.difference_update(programs)
    supervision.drop_processes({program.pid for program in programs})


def end_processes(programs: Iterable[Program], awaited: Iterable[Program] = (), views: Collection[View] = ()) -> None:
    """End these programs and all processes in `views` at the same time: SIGTERM, and after two seconds SIGKILL.

    Even if this is interrupted, they are killed. The pipes to `awaited` programs are left to their waiters.
    """
    programs = list(programs)
    both = [*programs, *awaited]
    try:
        _end_gently(both, views)
    finally:
        # As long as the leader has not been waited for, the number of its group cannot be reused.
        for program in both:
            _signal(program, signal.SIGKILL)
        _kill_in(views)
        for program in both:
            program.wait()
        for program in programs:
            for pipe in (program.stdin, program.stdout, program.stderr):
                if pipe is not None:
                    with suppress(OSError):  # unread output is lost
                        pipe.close()
        let_run(both)


def _end_gently(programs: Collection[Program], views: Collection[View]) -> None:
    deadline = time.monotonic() + _GRACE
    states = {program.pid: _state(program) for program in programs}
    for program in programs:
        _signal(program, signal.SIGTERM)
    others = []
    for pid, pidfd in _processes_in(views):
        leader = states.get(_group(pid), "gone")
        if leader == "gone":
            _send(pidfd, signal.SIGTERM)  # the other processes of the group have received it with the group
        if leader != "running":  # a group gets no more time than its leader
            others.append(pidfd)
    for program in programs:
        while _state(program) == "running" and time.monotonic() < deadline:
            time.sleep(_POLL)
    _wait(others, deadline)


def _state(program: Program) -> str:
    """Return "running", "ended" if nobody has waited for the program yet, or "gone"."""
    if program.returncode is not None:
        return "gone"
    try:
        ended = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "gone"  # somebody else has waited for it, or it belongs to the parent of this process
    return "running" if ended is None else "ended"


def _signal(program: Program, number: signal.Signals) -> None:
    """Send a signal to a program and its group, also if the program itself has ended."""
    if _state(program) == "gone":
        return
    # The caller may have chosen not to make the program the leader of a group.
    try:
        if os.getpgid(program.pid) == program.pid:
            os.killpg(program.pid, number)
        else:
            os.kill(program.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _processes_in(views: Collection[View]) -> Iterator[tuple[int, ns.Descriptor]]:
    """Return the id and a pidfd of each process in these mount namespaces and in copies of them."""
    inside = {view.identity for view in views}
    if not inside:
        return
    marks = {view.mark for view in views}
    here = _mounts_of("self")
    unmarked = set[tuple[tuple[int, int], str]]()  # most processes of a host share their mounts with others

    def is_inside(pid: int) -> bool:
        mounts = _mounts_of(pid)
        if mounts is None or mounts == here:
            return False
        if mounts in inside:
            return True
        if (mounts, _root_of(pid)) in unmarked:
            return False
        found = _marks_in(pid)
        if found is not None and marks.isdisjoint(found):
            unmarked.add((mounts, _root_of(pid)))  # after a chroot meanwhile, it sees fewer mounts, but no others
            return False
        return found is not None

    for pid in pids_since(earliest(view.since for view in views)):
        if not is_inside(pid):
            continue
        try:
            pidfd = owned(pidfd_open, pid)
        except OSError:
            continue  # it has ended, or is a thread of this process that starts a program
        if is_inside(pid):  # the number cannot have been reused since
            yield pid, pidfd


def _mounts_of(pid: int | Literal["self"]) -> tuple[int, int] | None:
    try:
        seen = os.stat(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None  # it has ended, or belongs to another user
    return seen.st_dev, seen.st_ino


def _root_of(pid: int) -> str:
    """Return the root directory of a process, which sees only the mounts below it."""
    try:
        return os.readlink(f"/proc/{pid}/root")
    except OSError:
        return ""  # it has ended


def _marks_in(pid: int) -> list[bytes] | None:
    """Return the marks in all mounts that a process sees. Unlike a path, the list never waits for a file system."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as lines:
            return MARK.findall(lines.read())
    except OSError:
        return None  # it has ended


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _send(pidfd: ns.Descriptor, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        pidfd_send_signal(pidfd.fileno(), number)


def _wait(pidfds: Iterable[ns.Descriptor], deadline: float) -> None:
    """Wait until all these processes have ended, or until the deadline."""
    for pidfd in pidfds:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        ended.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _kill_in(views: Collection[View]) -> None:
    """Kill everything in these mount namespaces, including processes that are started meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while (left := [pidfd for _, pidfd in _processes_in(views)]) and time.monotonic() < deadline:
        for pidfd in left:
            _send(pidfd, signal.SIGKILL)
        _wait(left, deadline)
