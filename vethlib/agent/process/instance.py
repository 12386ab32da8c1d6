"""The only agent of a label on a host: it holds a name that no other process can have (:mod:`.claim`)."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from vethlib.agent.config.mark import check_label
from vethlib.errors import VethError, errno_text

from .claim import Claim, Held, Holder, call, holder_of
from .rundir import RUN, base_directory

if TYPE_CHECKING:
    import asyncio

__all__ = ["AlreadyRunning", "Answering", "Instance", "agent_of", "ask", "running", "status_directory"]

_ROLE = "agent"
_CALLERS = 16  # open connections
_LISTEN = 2.0  # seconds for a caller to send its line and to read the answer
_LONGEST_LINE = 8192  # bytes; a longer line is not answered
_LONGEST_ANSWER = 16 << 20  # a value may have a megabyte by default, and up to six times that in ASCII
_PATIENCE = 5.0  # seconds to wait for an answer: the agent may be busy
_PAUSE = 0.5  # seconds without accepting; the kernel completes connections even so
_log = logging.getLogger("vethlib.agent")


class Reply(Protocol):
    """Answer the line of a caller."""

    def __call__(self, line: bytes, *, trusted: bool) -> bytes:
        """Return the answer."""


class AlreadyRunning(VethError):
    """An agent of that label already runs on this host; ``pid`` is its process, 0 if unknown."""

    def __init__(self, label: str, pid: int) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(
            f"an agent with the label {label} already runs on this host{who}: stop it, or give another --label"
        )
        self.pid = pid


class Instance:
    """The right to be the agent of a label here, until :meth:`close` or the end of the process.

    Raises AlreadyRunning, and VethError if this process may not create UNIX sockets.
    """

    def __init__(self, label: str) -> None:
        try:
            self._claim = Claim(_ROLE, label, socket.SOCK_STREAM)
        except Held as error:
            raise AlreadyRunning(label, error.holder.pid) from None
        except OSError as error:
            raise _refused(label, error) from None
        for warning in filter(None, (self._claim.squatter, self._claim.unlocked)):
            _log.warning("label %s: %s", label, warning)

    def fileno(self) -> int:
        """Return a descriptor that is readable when somebody connects."""
        return self._claim.fileno()

    def accept(self) -> Iterator[socket.socket]:
        """Yield the connections that wait. Raises OSError if no descriptor is left."""
        return self._claim.accept()

    def close(self) -> None:
        """Release the name."""
        self._claim.close()


class Answering:
    """Answer connections to an `instance` on a `loop`, until :meth:`close`. It pauses while no descriptor is left.

    An accepted connection proves that the agent runs. A caller that sends a line gets the result of `reply`, whose
    argument `trusted` is whether the caller is root or this process's user.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, instance: Instance, reply: Reply | None = None) -> None:
        self._loop, self._instance, self._reply = loop, instance, reply
        self._pause: asyncio.TimerHandle | None = None
        self._open: dict[socket.socket, asyncio.TimerHandle] = {}  # the oldest first
        self._listen()

    def close(self) -> None:
        """Stop answering."""
        self._loop.remove_reader(self._instance.fileno())
        if self._pause is not None:
            self._pause.cancel()
        for calling in list(self._open):
            self._hang_up(calling)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._instance.fileno(), self._answer)

    def _answer(self) -> None:
        try:
            for calling in self._instance.accept():
                if self._reply is None:
                    calling.close()
                else:
                    self._hold(calling)
        except OSError:
            self._loop.remove_reader(self._instance.fileno())
            self._pause = self._loop.call_later(_PAUSE, self._listen)

    def _hold(self, calling: socket.socket) -> None:
        """Wait a moment for the line of a caller. If there are too many callers, hang up on the oldest."""
        while len(self._open) >= _CALLERS:
            self._hang_up(next(iter(self._open)))
        calling.setblocking(False)
        self._open[calling] = self._loop.call_later(_LISTEN, self._hang_up, calling)
        self._loop.add_reader(calling, self._talk, calling)

    def _talk(self, calling: socket.socket) -> None:
        """Answer a line that arrived in one piece; otherwise hang up."""
        answer = b""
        try:
            line = calling.recv(_LONGEST_LINE)
            if line.endswith(b"\n") and self._reply is not None:
                answer = self._reply(line, trusted=_is_trusted(calling))
        except OSError:
            pass  # the caller has hung up
        finally:
            self._loop.remove_reader(calling)
            self._send(calling, memoryview(answer))

    def _send(self, calling: socket.socket, rest: memoryview) -> None:
        """Send what fits into the socket, the rest as the caller reads, and hang up at the end."""
        try:
            rest = rest[calling.send(rest, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            rest = rest[:0]  # the caller has hung up
        if rest:
            self._loop.add_writer(calling, self._send, calling, rest)
        else:
            self._hang_up(calling)

    def _hang_up(self, calling: socket.socket) -> None:
        self._open.pop(calling).cancel()
        self._loop.remove_reader(calling)
        self._loop.remove_writer(calling)
        calling.close()


def _is_trusted(calling: socket.socket) -> bool:
    _, uid, _ = struct.unpack("3i", calling.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())


def ask(label: str, request: object) -> dict[str, Any] | None:
    """Send a request to the agent of a label on this host and return its answer.

    Returns None if there is no agent or it does not answer in time, and {} for an answer that is not an object, such as
    that of another version.
    """
    calling, holder = call(_ROLE, label, socket.SOCK_STREAM)
    if calling is None or holder is None:
        return None
    with calling:
        calling.settimeout(_PATIENCE)
        received = b""
        until = time.monotonic() + _PATIENCE
        try:
            calling.sendall(json.dumps(request).encode() + b"\n")
            while len(received) < _LONGEST_ANSWER and time.monotonic() < until and (part := calling.recv(65536)):
                received += part
            answer = json.loads(received)
        except (OSError, ValueError, RecursionError):
            return None
    return answer if isinstance(answer, dict) else {}


def _refused(label: str, error: OSError) -> VethError:
    cure = "permit UNIX sockets to this process (RestrictAddressFamilies= of systemd, seccomp, LSM)"
    why = errno_text(error.errno or 0)
    return VethError(f"cannot become the agent with the label {label}: no abstract UNIX socket: {why}; {cure}")


def agent_of(label: str) -> Holder | None:
    """Return the holder of the name of that label's agent on this host, or None. It may be a squatter."""
    return holder_of(_ROLE, label, socket.SOCK_STREAM)


def running(label: str) -> int | None:
    """Return the process of the agent of that label on this host; 0 if it is unknown, None if there is no agent."""
    holder = agent_of(label)
    return holder.pid if holder is not None and holder.is_ours else None


def status_directory(label: str) -> str:
    """Return the default directory of the statuses of an agent."""
    own, of_host = (os.path.join(base, check_label(label), "status") for base in (base_directory(), RUN))
    # An ordinary user may mean the agent of the host.
    return own if os.path.isdir(own) or not os.path.isdir(of_host) else of_host
