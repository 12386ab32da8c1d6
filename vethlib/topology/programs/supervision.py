"""Report the programs and namespaces that must end with this process to supervisor.py.

Only :func:`begin` takes a lock, in a separate thread. The other functions run in any thread at any time, including
signal handlers and the garbage collector, even while they are already running in the same thread.
"""

from __future__ import annotations

import errno
import os
import subprocess

from vethlib._primitives import Lock, posix, real_subprocess, select
from vethlib.errors import NetlinkError, NotPermitted, VethError, errno_text
from vethlib.ns.syscalls import CLONE_NEWNET, unshare
from vethlib.text import printable

from . import supervisor
from .scripts import own_pidfd, script

__all__ = ["begin", "drop_netns", "drop_processes", "is_lost", "watch_netns", "watch_process"]

# The shell exits at once, so that the supervisor is not a child of this process.
_DETACHED = ["/bin/sh", "-c", "trap '' INT HUP TERM; \"$@\" &", "sh"]
_CANNOT = "cannot start the process that ends the programs of nodes together with this process"
_BEGINNING = 60.0  # seconds for a supervisor to begin, which usually takes 15 ms
_PATIENCE = 1000  # ms to wait for a supervisor that does not read


class _Reported:
    """The state that was reported to the supervisor of a process, and the pipe to it (-1: none)."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.pipe = -1
        self.lock = Lock()
        self.namespaces: dict[int, int] = {}  # inode → cookie
        self.processes: set[int] = set()


_reported = _Reported(os.getpid())


def _mine() -> _Reported:
    global _reported
    if _reported.owner != os.getpid():
        _reported = _Reported(os.getpid())  # a forked child does not own its parent's programs
    return _reported


def begin() -> None:
    """Start the supervisor of this process unless it runs. Raises NetlinkError if it cannot be started.

    This moves the calling thread to a new network namespace, so call it in a thread that is about to end: the
    supervisor keeps the namespace alive in which it is started, and that must not be a node's.
    """
    reported = _mine()
    with reported.lock:
        if _is_lost(reported):
            try:
                _begin(reported)
            except VethError as error:
                error.args = (f"{_CANNOT}: {error}",)
                raise
            except OSError as error:
                raise _refused(error) from error
            except subprocess.TimeoutExpired:  # sys.executable is another program, with an embedded Python
                raise NetlinkError(f"{_CANNOT}: it has not begun within {_BEGINNING:g} s") from None


def is_lost() -> bool:
    """Return whether the supervisor of this process has ended."""
    return _is_lost(_mine())


def _is_lost(reported: _Reported) -> bool:
    if reported.pipe < 0:
        return True
    looking = select.poll()
    looking.register(reported.pipe, 0)  # POLLERR is always reported, and means that there is no reader left
    return bool(looking.poll(0))


def _refused(error: OSError) -> NetlinkError:
    number = error.errno or 0
    message = f"{_CANNOT}: {errno_text(number)}"
    return (NotPermitted if isinstance(error, PermissionError) else NetlinkError)(message, errno=number)


def _begin(reported: _Reported) -> None:
    unshare(CLONE_NEWNET)
    command = [*_DETACHED, *script(supervisor)]
    opened: list[int] = []
    own = own_pidfd()
    try:
        opened += os.pipe2(os.O_CLOEXEC)
        reading, writing, owner = *opened, own.fileno()
        os.set_blocking(writing, False)
        shell = real_subprocess().run(
            [*command, str(owner), str(reading)],
            pass_fds=(owner, reading),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            check=False,
            timeout=_BEGINNING,
        )
        if shell.returncode:
            raise BlockingIOError(errno.EAGAIN, "the shell can start no process")
        if supervisor.BEGUN not in shell.stdout:  # a preloaded library may have printed something, too
            lines = shell.stderr.decode(errors="replace").splitlines() or ["it ended at once, without an error"]
            raise NetlinkError(printable(lines[-1]))
        # Only now, because this shows others that there is a supervisor.
        if reported.pipe < 0:
            opened.remove(writing)
            reported.pipe = writing
        else:
            os.dup2(writing, reported.pipe, inheritable=False)  # in one step, because others may be writing
    finally:
        own.close()
        for descriptor in opened:
            os.close(descriptor)
    # Processes are not reported again: the number of a process that has ended may have been reused.
    for inode, cookie in list(reported.namespaces.items()):
        _write(reported, f"+netns {inode} {cookie}")
        if inode not in reported.namespaces:  # forgotten meanwhile, perhaps before that line
            _write(reported, f"-netns {inode}")


def watch_netns(inode: int, cookie: int) -> None:
    """End all processes in a network namespace when this process is gone. The cookie is 0 if it is unknown."""
    reported = _mine()
    reported.namespaces[inode] = cookie
    _report(reported, f"+netns {inode} {cookie}")


def drop_netns(inode: int) -> None:
    """Forget a namespace that is about to end (its number may be reused), or whose processes may continue."""
    reported = _mine()
    if reported.namespaces.pop(inode, None) is not None:
        _report(reported, f"-netns {inode}")


def watch_process(pid: int) -> None:
    """End a process and its group when this process is gone. It must not have been waited for yet."""
    reported = _mine()
    _report(reported, f"+pid {pid}")
    reported.processes.add(pid)


def drop_processes(pids: set[int]) -> None:
    """Forget processes that have ended or may continue."""
    reported = _mine()
    if pids := pids & reported.processes:
        reported.processes -= pids
        for pid in pids:
            _report(reported, f"-pid {pid}")


def _report(reported: _Reported, line: str) -> None:
    if reported.pipe < 0:
        return
    try:
        _write(reported, line)
    except BrokenPipeError:
        pass  # it was killed; the next program starts another supervisor


def _write(reported: _Reported, line: str) -> None:
    data = f"{line}\n".encode()
    for attempt in range(2):
        try:
            posix.write(reported.pipe, data)
            return
        except BlockingIOError:
            if attempt:
                return  # the supervisor was stopped, but the test must not wait for it
            waiting = select.poll()
            waiting.register(reported.pipe, select.POLLOUT)
            waiting.poll(_PATIENCE)
