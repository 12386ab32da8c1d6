"""Start the programs of a node, prepare the files that they see, and end them.

A program inherits the namespaces of the thread that starts it. So each is started by a separate thread, which enters
the namespaces of the node and ends there; the calling thread stays in its own. Programs that nobody waits for end with
the node, with Python, and with the process, however the process ends (supervision.py).
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from socket import AF_UNIX
from typing import Any

from vethlib import ns
from vethlib._primitives import Lock, time
from vethlib.errors import NotPermitted, VethError, errno_text
from vethlib.ns import Netns
from vethlib.ns.programs.errand import Errand, go_to
from vethlib.ns.programs.start import popen, words
from vethlib.text import printable

from . import mounts, supervision, supervisor

__all__ = ["Programs", "describe_program", "end_processes", "let_run"]

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_POLL = 0.001
_LONGEST = 100  # characters of a command that are shown


class Programs:
    """The programs of one node.

    `files` are the texts that replace files, by path; callables are called when the first program is started.
    """

    def __init__(self, netns: Netns, files: Mapping[str, str | Callable[[], str]]) -> None:
        self.files = dict(files)
        self._netns = netns
        self._maker = os.getpid()
        self._mounts: ns.Descriptor | None = None
        self._missing: OSError | None = None
        self._watched_by = 0  # the id of the process whose supervisor knows the namespace
        self._lock = Lock()
        # A node may be garbage-collected without being closed, and the inode number of its namespace reused.
        self._dropping = weakref.finalize(self, supervision.drop_netns, netns.identity[1])
        self._dropping.atexit = False

    def begin(
        self, command: Sequence[str], options: Mapping[str, Any], keep: Callable[[subprocess.Popen[Any]], object]
    ) -> subprocess.Popen[Any]:
        """Start a program like ``subprocess.Popen``. Raises the same errors, and NetnsNotFound.

        `keep` is called with it before any interruption is possible.
        """
        command = words(command)
        with ns.open_owned(self._netns) as netns:
            self._prepare(netns)
            fd, view, directory = netns.fileno(), self._mounts, _working_directory()

            def begin() -> subprocess.Popen[Any]:
                go_to(fd)
                if view is not None:
                    mounts.enter(view, directory)
                process = popen(command, options)
                keep(process)
                supervision.watch_process(process.pid)
                return process

            return Errand(begin, undo=_kill).run()

    def put(self, path: str, text: str | Callable[[], str]) -> None:
        """Replace the file `path` by `text` for the programs of the node, including those that already run.

        Raises NotPermitted if mounts are forbidden, or if there is no such file. Then nothing changes.
        """
        with self._lock:
            if self._mounts is not None:
                self._put({path: text})
            else:
                mounts.check(path)
            self.files[path] = text

    def forget(self, process: subprocess.Popen[Any]) -> None:
        """Note that a program has been waited for."""
        supervision.drop_processes({process.pid})

    def let_run(self) -> None:
        """Let the node's programs continue when this process ends."""
        self._dropping()

    def close(self) -> None:
        """Release the node's mount namespace, which ends with the last program in it."""
        self.let_run()
        if self._mounts is not None:
            self._mounts.close()
            self._mounts = None

    def _prepare(self, netns: ns.Descriptor) -> None:
        """Create what a program needs: the supervisor that ends it and the mount namespace it runs in."""
        with self._lock:
            if self._watched_by != os.getpid() or supervision.is_lost():
                Errand(supervision.begin).run()
                # In a forked child, the processes in the namespace may be its parent's.
                if self._maker == os.getpid() and self._dropping.alive:
                    supervision.watch_netns(self._netns.identity[1], _cookie(self._netns, netns.fileno()))
                self._watched_by = os.getpid()
            if self._mounts is None and self._missing is None:
                self._make_mounts(netns)
            if self._missing is not None and self.files:
                number = self._missing.errno or 0
                message = f"mounts are forbidden here, so that {next(iter(self.files))} cannot be the node's own"
                raise NotPermitted(f"{message}: {errno_text(number) if number else self._missing}", errno=number)

    def _make_mounts(self, netns: ns.Descriptor) -> None:
        def make() -> ns.Descriptor:
            go_to(netns.fileno())
            return mounts.make()

        try:
            self._mounts = Errand(make).run()
        except OSError as error:
            if isinstance(error, VethError):
                raise
            self._missing = error
            return
        if self.files:
            try:
                self._put(self.files)
            except BaseException:
                self._mounts.close()
                self._mounts = None
                raise

    def _put(self, files: Mapping[str, str | Callable[[], str]]) -> None:
        view = self._mounts
        assert view is not None
        texts = {path: text if isinstance(text, str) else text() for path, text in files.items()}

        def put() -> None:
            mounts.enter(view, "/")
            mounts.put(texts)

        Errand(put).run()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed


def _kill(process: subprocess.Popen[Any]) -> None:
    with process:
        process.kill()
    supervision.drop_processes({process.pid})


def describe_program(process: subprocess.Popen[Any], *, arguments: bool = False) -> str:
    """Return the name of a program and its state: "dnsmasq ended with exit code 2"; on demand with its arguments."""
    name, code = _name(process, arguments=arguments), process.poll()
    if code is None:
        return f"{name} is running (pid {process.pid})"
    if code >= 0:
        return f"{name} ended with exit code {code}"
    try:
        return f"{name} was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"{name} was killed by signal {-code}"


def _name(process: subprocess.Popen[Any], *, arguments: bool) -> str:
    command = process.args
    words = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
    first, *rest = (os.fsdecode(word) for word in words)
    text = " ".join([os.path.basename(first), *(rest if arguments else ())])
    text = printable(text)
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text


_running: weakref.WeakSet[subprocess.Popen[Any]] = weakref.WeakSet()
"""Programs that must end with Python at the latest."""


@atexit.register
def _end_with_python(mine: int = os.getpid()) -> None:
    if os.getpid() == mine:  # not in a forked child
        end_processes(_running)


def end_with_python(process: subprocess.Popen[Any]) -> None:
    """End a program when Python ends."""
    _running.add(process)


def _cookie(netns: Netns, fd: int) -> int:
    """Return the cookie of a network namespace, before Linux 5.14 its tag; 0 if it can have neither."""

    def tag() -> int:
        go_to(fd)
        return supervisor.tag()

    try:
        with netns.socket(AF_UNIX) as inside:
            return supervisor.cookie_of(inside)
    except (OSError, VethError):
        pass
    try:
        return Errand(tag).run()
    except (OSError, VethError):
        return 0  # /proc/sys is read-only in a container


def let_run(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Let programs continue when Python ends."""
    processes = list(processes)
    _running.difference_update(processes)
    supervision.drop_processes({process.pid for process in processes})


def end_processes(processes: Iterable[subprocess.Popen[Any]], awaited: Iterable[subprocess.Popen[Any]] = ()) -> None:
    """End all these process groups at the same time: SIGTERM, and after two seconds SIGKILL.

    Even if this is interrupted, they are killed. The pipes to `awaited` processes are left to their waiters.
    """
    processes = list(processes)
    both = [*processes, *awaited]
    running = [process for process in both if process.poll() is None]
    deadline = time.monotonic() + _GRACE
    try:
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            _wait_without_reaping(process, deadline)
    finally:
        # As long as the leader has not been waited for, the number of its group cannot be reused.
        for process in running:
            _signal(process, signal.SIGKILL)
        for process in running:
            process.wait()
        for process in processes:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):  # unread output is lost
                        pipe.close()
        let_run(both)


def _wait_without_reaping(process: subprocess.Popen[Any], deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
        except ChildProcessError:
            return  # somebody else has waited for it
        time.sleep(_POLL)


def _signal(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    # The caller may have chosen not to make it the leader of a group.
    try:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
