"""Telling a command: it is run with an event on its stdin, and nothing of it is left afterwards.

1. It is spawned by the hooks' own thread, so in the home namespace, without a shell.
2. posix_spawn gives it a process group of its own, an empty signal mask and every signal's default; subprocess could
   do the mask only in code that runs between fork and exec, which is not safe beside other threads.
3. Its stdin is a file in memory, so a command that does not read it keeps nobody waiting; what it says on stderr is
   read as it comes, and the end of it kept for the log; its stdout goes nowhere. It gets no other descriptor.
4. When it has ended, or its time is over, or the agent ends, its whole group is killed. That is done before the command
   is reaped: until then the group's number cannot be another's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

__all__ = ["run"]

_KEPT: Final = 300  # bytes of its stderr
_LEFT_OUT: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM")
_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


async def run(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str], timeout: float) -> str:
    """Run a command to its end, at most `timeout` seconds; what went wrong and its cure, "" if nothing did."""
    complaint, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _spawn(argv, stdin, environment, write)
    except OSError as error:
        os.close(complaint)
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
            return f"it cannot be run now: {error.strerror}; raise the limits of the agent"
        return f"it cannot be run: {error.strerror}; check that the file is there and executable"
    except BaseException:
        os.close(complaint)
        raise
    finally:
        os.close(write)
    os.set_blocking(complaint, False)
    said = bytearray()
    timed_out = False
    try:
        try:
            async with asyncio.timeout(timeout):
                await _until_it_ends(pid, complaint, said)
        except TimeoutError:
            timed_out = True
    finally:
        status = _end(pid)
        _collect(complaint, said)
        os.close(complaint)
    if timed_out:
        return f"it took longer than {timeout:g} s and was killed; raise --hook-timeout, or have it do less" + _quoted(
            said
        )
    if status is None or status == 0:
        return ""
    how = f"it exited with {status}" if status > 0 else f"it was ended by {_name(-status)}"
    return how + _quoted(said)


def _spawn(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str], complaint: int) -> int:
    # What the agent was given for itself, its store's password among it, is not for others.
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("VETHLIB_") and key not in _LEFT_OUT
    }
    event = os.memfd_create("event", os.MFD_CLOEXEC)
    try:
        os.write(event, stdin)
        os.lseek(event, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, event, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, complaint, 2),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
        ]
        return os.posix_spawn(
            argv[0],
            list(argv),
            inherited | dict(environment),
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    finally:
        os.close(event)


def _inheritable() -> list[int]:
    """Descriptors that a library has left open for children; Python's own are not (PEP 446)."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the listing itself is closed
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
    return found


async def _until_it_ends(pid: int, complaint: int, said: bytearray) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it has ended, in a program that has its children reaped by the kernel (SIGCHLD ignored)
    try:
        loop.add_reader(pidfd, ended.set)
        loop.add_reader(complaint, lambda: _collect(complaint, said) or loop.remove_reader(complaint))
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        loop.remove_reader(complaint)
        os.close(pidfd)


def _collect(complaint: int, said: bytearray) -> bool:
    """Read what there is on stderr; whether there may be more later."""
    try:
        read = os.read(complaint, 65536)
    except BlockingIOError:
        return True
    said += read
    del said[:-_KEPT]
    return bool(read)


def _end(pid: int) -> int | None:
    """Kill what there is of its group, and reap it; its exit status (negative: a signal), None if it cannot die."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # another part of the program waits for every child
        for _ in range(2):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            # Killed, it needs no time to speak of, unless it hangs in the kernel.
            pidfd = os.pidfd_open(pid)
            try:
                poller = select.poll()
                poller.register(pidfd, select.POLLIN)
                poller.poll(1000)
            finally:
                os.close(pidfd)
    return None


def _quoted(said: bytearray) -> str:
    lines = bytes(said).decode("utf-8", "replace").strip().splitlines()
    return f"; it said last: {lines[-1]}" if lines else "; run it by hand to see why: it said nothing on stderr"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
