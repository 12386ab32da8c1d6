"""Deliver an event to a command: run it with the event on its stdin, and leave nothing of it behind.

1. The thread of the hooks spawns it without a shell, and therefore in the home namespace.
2. posix_spawn gives it its own process group, an empty signal mask and default signal handlers; subprocess could set
   the mask only in code between fork and exec, which is not safe in a process with threads.
3. Its stdin is a file in memory, so a command that does not read it blocks nobody. Its stderr is read continuously, and
   the end of it kept for the log; its stdout is /dev/null. It gets no other descriptor.
4. When it ends, its time is over, or the agent ends, its whole group is killed. This is done before the command is
   reaped, because until then no other group can have its number.
5. posix_spawn returns when the command is loaded, and Python runs no other thread meanwhile. So a command on a file
   system that does not answer is not run: its file is read before, in another thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from vethlib._primitives import memfd_create, pidfd_open, time
from vethlib.agent.process.descriptors import as_given
from vethlib.ns.files.glance import NoAnswer
from vethlib.ns.opening import asked

__all__ = ["cure_of", "run"]

_MFD_CLOEXEC: Final = 1  # include/uapi/linux/memfd.h
_KEPT: Final = 300  # bytes of its stderr
_LOOK: Final = 0.03  # seconds between checks of a command without a pidfd
_HANG: Final = 1.0  # seconds for a killed command to end
_PAUSE: Final = 0.001  # seconds between checks of a killed command
_INTERPRETERS: Final = 5  # a script may have an interpreter that is a script, and so on (exec_binprm, fs/exec.c)
_FIRST_LINE: Final = 256  # bytes of a script that may name its interpreter (BINPRM_BUF_SIZE)
_LEFT_OUT: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM")
_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


async def run(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str], timeout: float) -> str:
    """Run a command for up to `timeout` seconds; return the problem and its cure, or ""."""
    if silent := _silent_file(argv[0]):
        return f"it cannot be run now: {silent}: its file system does not answer; repair that, or move the command"
    complaint, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _spawn(argv, stdin, environment, write)
    except OSError as error:
        os.close(complaint)
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
            return f"it cannot be run now: {error.strerror}; raise the agent's limits of descriptors and processes"
        return f"it cannot be run: {error.strerror}; check that the file exists and is executable"
    except BaseException:
        os.close(complaint)
        raise
    finally:
        os.close(write)
    os.set_blocking(complaint, False)
    stderr = bytearray()
    timed_out = False
    try:
        try:
            async with asyncio.timeout(timeout):
                await _until_it_ends(pid, complaint, stderr)
        except TimeoutError:
            timed_out = True
    finally:
        try:
            status = _end(pid)
            _collect(complaint, stderr)
        finally:
            os.close(complaint)
    if timed_out:
        return f"it took longer than {timeout:g} s and was killed; raise --hook-timeout, or make it faster" + _quoted(
            stderr
        )
    if status is None:
        return "its exit status is unknown: this process must not ignore SIGCHLD, nor wait for every child" + _quoted(
            stderr
        )
    if status == 0:
        return ""
    how = f"it exited with {status}" if status > 0 else f"{_name(-status)} ended it"
    return how + _quoted(stderr)


def cure_of(command: str) -> str:
    """Return what to do so that a command can be run; "" if it can."""

    def cure() -> str:
        if os.access(command, os.X_OK):
            return ""
        return f"chmod +x {command}" if os.path.exists(command) else "create it; it is looked up for each event"

    try:
        return asked(command, cure)
    except NoAnswer:
        return "its file system does not answer"
    except OSError:
        return ""  # no thread can be started now, so nothing is known


def _silent_file(command: str) -> str:
    """Return the file of a command, or of its interpreter, whose file system does not answer; "" if there is none."""
    file = command
    for _ in range(_INTERPRETERS):
        try:
            file_of_interpreter = asked(file, partial(_interpreter, file))
        except NoAnswer:
            return file
        except OSError:
            return ""  # running it reports the reason
        if not file_of_interpreter:
            return ""
        file = file_of_interpreter
    return ""


def _interpreter(file: str) -> str:
    """Return the interpreter that a script names in its first line; "" for any other file."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        return ""
    with open(file, "rb", buffering=0) as script:
        line = script.read(_FIRST_LINE).partition(b"\n")[0].partition(b"\0")[0]
    words = line.removeprefix(b"#!").split(maxsplit=1)
    return os.fsdecode(words[0]) if line.startswith(b"#!") and words else ""


def _spawn(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str], complaint: int) -> int:
    # The agent's own variables, which may include the password of its store, are not passed on.
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("VETHLIB_") and key not in _LEFT_OUT
    }
    fds = list(map(int, os.listdir("/proc/self/fd")))
    inheritable = _inheritable(fds)
    event = memfd_create("event", _MFD_CLOEXEC)
    try:
        os.write(event, stdin)
        os.lseek(event, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, event, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, complaint, 2),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in inheritable),
        ]
        with as_given(len(fds), highest=max(event, complaint, *inheritable)) as give:
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                inherited | dict(environment),
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
            give(pid)
            return pid
    finally:
        os.close(event)


def _inheritable(fds: Iterable[int]) -> list[int]:
    """Return the descriptors that a library has left open for children; Python's own are not inheritable (PEP 446)."""
    inheritable = []
    for fd in fds:
        with suppress(OSError):  # the descriptor of the listing is closed
            if fd > 2 and os.get_inheritable(fd):
                inheritable.append(fd)
    return inheritable


async def _until_it_ends(pid: int, complaint: int, stderr: bytearray) -> None:
    loop = asyncio.get_running_loop()
    loop.add_reader(complaint, lambda: _collect(complaint, stderr) or loop.remove_reader(complaint))
    try:
        await _end_of(pid)
    finally:
        loop.remove_reader(complaint)


async def _end_of(pid: int) -> None:
    loop = asyncio.get_running_loop()
    try:
        pidfd = pidfd_open(pid)
    except OSError:  # a sandbox does not know pidfd_open, no descriptor is left, or the command has been reaped
        while not _has_ended(pid):
            await asyncio.sleep(_LOOK)
        return
    ended = asyncio.Event()
    try:
        loop.add_reader(pidfd, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # the kernel has reaped it, because the program ignores SIGCHLD, or another part of the program has


def _collect(complaint: int, stderr: bytearray) -> bool:
    """Read the available stderr; return whether there may be more later."""
    try:
        read = os.read(complaint, 65536)
    except BlockingIOError:
        return True
    stderr += read
    del stderr[:-_KEPT]
    return bool(read)


def _end(pid: int) -> int | None:
    """Kill the command's group and reap it; return its exit status (negative: a signal), None if that is unknown."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # another part of the program waits for every child
        for _ in range(2):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            # A killed process ends at once, unless it hangs in the kernel.
            deadline = time.monotonic() + _HANG
            while not _has_ended(pid) and time.monotonic() < deadline:
                time.sleep(_PAUSE)
    return None


def _quoted(stderr: bytearray) -> str:
    lines = bytes(stderr).decode("utf-8", "replace").strip().splitlines()
    return f"; its last line: {lines[-1]}" if lines else "; it printed nothing on stderr: run it by hand to see why"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
