"""A node: an anonymous network namespace that plays one host of a topology, and what a test does in it."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from .. import ns
from ..errors import WaitTimeout
from ..links import Interface, Link, Stats
from ..ns import Netns
from ..session import Session

__all__ = ["Node", "end_processes", "forget"]

P = ParamSpec("P")
T = TypeVar("T")

_GRACE = 2.0  # seconds a process has to end by itself
_POLL = 0.01  # seconds between two looks


class Node:
    """One host of a topology.

    `netns` is its namespace, good as a reference wherever one is taken; `name` is for people, nothing on the host
    bears it. In a ``with`` the calling thread, and no other, is inside. `addresses` are those it was given, in the
    order of its links. `started` is what :meth:`start` began; `was_entered` tells whether anything has been run in it.
    """

    def __init__(self, name: str, netns: Netns, session: Session, addresses: Iterable[Interface] = ()) -> None:
        self.name = name
        self.netns = netns
        self.addresses = tuple(addresses)
        self.started: list[subprocess.Popen[Any]] = []
        self.was_entered = False
        self._session = session
        self._blocks = threading.local()

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.netns}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Node:
        self.was_entered = True
        block = self.netns.entered()
        stack: list[AbstractContextManager[None]] = self._blocks.__dict__.setdefault("stack", [])
        block.__enter__()
        stack.append(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.stack.pop().__exit__(kind, error, trace)

    @property
    def ipv4(self) -> str:
        """Its first IPv4 address, as text for a socket. LookupError if it was given none."""
        return self._first(4)

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address, as text for a socket. LookupError if it was given none."""
        return self._first(6)

    def _first(self, version: int) -> str:
        for address in self.addresses:
            if address.version == version:
                return str(address.ip)
        raise LookupError(f"node {self.name} was given no IPv{version} address")

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:  # noqa: A002
        """A socket that belongs to the node, usable from anywhere: any thread, any event loop."""
        return ns.call_in(self.netns.fd, lambda: socket.socket(family, type, proto))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` inside, in a thread of its own, and return what it returns; it raises what that raises."""
        return self.submit(function, *args, **kwargs).result()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As :meth:`call`, but do not wait: the result is in the future that is returned.

        The thread is a daemon, so a function that never returns does not keep the process from ending.
        """
        future: Future[T] = Future()
        block = self.netns.entered()  # opened here, so that a closed node is told of at once
        self.was_entered = True

        def work() -> None:
            try:
                with block:
                    result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()
        threading.Thread(target=work, name=f"{self.name}: {_name(function)}", daemon=True).start()
        return future

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as ``subprocess.run`` does: output captured as text, failure an exception.

        What a failed program said is in the exception's notes.
        """
        __tracebackhide__ = True  # pytest: what is of interest is the line of the test
        options = {"check": True, "capture_output": True, "text": True} | options
        try:
            with self._entered():
                result: subprocess.CompletedProcess[str] = subprocess.run(command, **options)
        except (subprocess.SubprocessError, OSError) as error:
            for stream in (getattr(error, "stdout", None), getattr(error, "stderr", None)):
                if stream:
                    error.add_note(stream.rstrip() if isinstance(stream, str) else repr(stream))
            if isinstance(error, FileNotFoundError) and isinstance(command, str):
                error.add_note("a command is a list of words: node.run(['ip', 'addr'])")
            raise error.with_traceback(None) from None
        return result

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside, as ``subprocess.Popen`` does, and leave it running; it ends with the node.

        It gets a process group of its own. At the end that is sent SIGTERM, and what is left of it SIGKILL when the
        program has ended, or after two seconds. So it is when Python ends before the node does, but not where Python is
        killed. Output is text, and goes where the caller's goes unless `options` say otherwise.
        """
        options = {"stdin": subprocess.DEVNULL, "text": True, "process_group": 0} | options
        with self._entered():
            process = subprocess.Popen(command, **options)
        self.started.append(process)
        _running.add(process)
        return process

    def _entered(self) -> AbstractContextManager[None]:
        self.was_entered = True
        return self.netns.entered()

    def wait_listening(self, port: int, *, udp: bool = False, timeout: float = 5.0) -> None:
        """Return when something in the node listens on a TCP port, or has a UDP one: when a daemon is ready.

        Raises WaitTimeout after `timeout` seconds; at once, if all that was started in the node has failed by then
        (what ended well may be in the background).
        """
        deadline = time.monotonic() + timeout
        while not ns.call_in(self.netns.fd, lambda: _is_listening(port, udp=udp)):
            ended = [process for process in self.started if process.poll()]
            if time.monotonic() > deadline or (self.started and ended == self.started):
                what = f"nothing listens on {'UDP' if udp else 'TCP'} port {port} in node {self.name}"
                told = "".join(f"; {_program(one)} ended with exit code {one.returncode}" for one in ended)
                raise WaitTimeout(what + (told or f" after {timeout:g} s"))
            time.sleep(_POLL)

    def links(self) -> list[Link]:
        """Its links with their addresses."""
        return self._session.links(self.netns)

    def set(self, link: str, **changes: Any) -> Link:
        """Change a link of the node, as :meth:`vethlib.Session.set`: ``node.set("eth0", up=False)``."""
        return self._session.set(link, self.netns, **changes)

    def stats(self, link: str) -> Stats:
        """The counters of a link of the node."""
        return self._session.stats(link, self.netns)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self.netns.closed

    def close(self) -> None:
        """End what was started in it and let go of the namespace, which ends, and with it its links and their peers."""
        end_processes(self.started)
        self.netns.close()


def _is_listening(port: int, *, udp: bool) -> bool:
    """Whether a socket of the calling thread's namespace is bound to the port, and if TCP listens (proc_pid_net(5))."""
    # The state, in hexadecimal: 0A is TCP_LISTEN, a UDP socket that is not connected has 07, TCP_CLOSE.
    state = "07" if udp else "0A"
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{table}") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                        return True
        except FileNotFoundError:
            pass  # no IPv6 in this kernel
    return False


def _program(process: subprocess.Popen[Any]) -> str:
    command = process.args
    first = command if isinstance(command, (str, bytes, os.PathLike)) else next(iter(command))
    return os.path.basename(os.fsdecode(first))


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


_running: weakref.WeakSet[subprocess.Popen[Any]] = weakref.WeakSet()
"""What was started and is to end with Python at the latest."""


@atexit.register
def _end_with_python(mine: int = os.getpid()) -> None:
    if os.getpid() == mine:  # and not a child that was forked
        end_processes(_running)


def forget(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Let these run on when Python ends."""
    _running.difference_update(processes)


def end_processes(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """End the process groups of all these, at the same time: SIGTERM, and SIGKILL what is left after two seconds.

    Whatever interrupts it, they are killed.
    """
    processes = list(processes)
    running = [process for process in processes if process.poll() is None]
    deadline = time.monotonic() + _GRACE
    try:
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            _wait_without_reaping(process, deadline)
    finally:
        # While a leader has not been waited for, the number of its group cannot become another's.
        for process in running:
            _signal(process, signal.SIGKILL)
        for process in running:
            process.wait()
        for process in processes:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):  # what was written to it and not read is of no use any more
                        pipe.close()
        forget(processes)


def _wait_without_reaping(process: subprocess.Popen[Any], deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
        except ChildProcessError:
            return  # somebody else has waited for it
        time.sleep(_POLL / 10)


def _signal(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    # Whether it leads a group is the caller's choice.
    try:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
