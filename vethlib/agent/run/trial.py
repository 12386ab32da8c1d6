"""A trial that waits for a decision: at most one per label on a host; another process can decide to keep or to undo.

As with the agent, only one process can hold the name of a trial (:mod:`vethlib.agent.process.claim`). Only root and the
user who runs the trial may decide: both processes ask the kernel who the other is (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from vethlib._closing import Closing
from vethlib._primitives import select, time
from vethlib.agent.process.claim import Claim, Held, call, holder_of
from vethlib.errors import VethError

__all__ = ["AlreadyTrying", "NoTrial", "Trial", "settle"]

_UCRED: Final = struct.Struct("3i")  # struct ucred, include/linux/socket.h: pid, uid, gid
_PATIENCE: Final = 1.0  # seconds for a message of four bytes
_FULL: Final = 5.0  # seconds until a full queue of connections has room
_LONGEST: Final = 600.0  # seconds for an answer: undoing thousands of pairs takes seconds, not minutes
_POLL: Final = 0.05
_ROLE: Final = "try"
_WORDS: Final = (b"keep", b"undo")


class AlreadyTrying(VethError):
    """A trial with that label is under way."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"a trial with the label {label} is under way on this host: end it with vethctl confirm, or confirm --undo"
        )


class NoTrial(VethError, LookupError):
    """No trial with that label is under way, or it ended before it answered."""


class Trial(Closing):
    """The exclusive right to a trial with a label, and the socket for its confirmation.

    `warning` is the reason why some connections may not reach it, "" if all do. Close it, or use it in a ``with``
    statement. Raises AlreadyTrying.
    """

    def __init__(self, label: str) -> None:
        self._asking: socket.socket | None = None
        try:
            self._claim = Claim(_ROLE, label, socket.SOCK_SEQPACKET, mode=0o600)
        except Held:
            raise AlreadyTrying(label) from None
        self.warning = self._claim.squatter

    def fileno(self) -> int:
        """Return a descriptor that is readable when a process connects."""
        return self._claim.fileno()

    def hear(self) -> str:
        """Return the decision of a process that has connected: "keep" or "undo"; "" if it may not decide."""
        try:
            for calling in self._claim.accept():
                if word := self._hear(calling):
                    return word
        except OSError:
            time.sleep(_POLL)  # no descriptor is left for the connection; it is tried again
        return ""

    def _hear(self, calling: socket.socket) -> str:
        calling.settimeout(_PATIENCE)
        try:
            _, uid, _ = _UCRED.unpack(calling.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            word = calling.recv(16) if uid in (0, os.geteuid()) else b""
        except OSError:
            word = b""
        if word not in _WORDS:
            calling.close()
            return ""
        self._asking = calling
        return word.decode()

    def answer(self, outcome: str) -> None:
        """Send the outcome to the process that has decided. The trial is over, so that another one may begin."""
        self._claim.close()
        if self._asking is not None:
            try:
                self._asking.send(outcome.encode())
            except OSError:
                pass  # the process has ended
            self._asking.close()
            self._asking = None

    def close(self) -> None:
        """Release the label, so that another trial may begin."""
        if self._asking is not None:
            self._asking.close()
        self._claim.close()


def settle(label: str, word: str, *, timeout: float = 0.0) -> str:
    """Decide the trial of a label with "keep" or "undo", and return the outcome: "kept" or "undone".

    Wait up to `timeout` seconds for a trial to begin, and then for its answer. Raises NoTrial.
    """
    with _called(label, timeout) as calling:
        try:
            calling.send(word.encode())
            outcome = _answer(calling)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            outcome = ""
    if outcome not in ("kept", "undone"):
        raise NoTrial(
            f"the trial with the label {label} ended without an answer: it was over, or belongs to another user"
        )
    return outcome


def _called(label: str, timeout: float) -> socket.socket:
    began = time.monotonic()
    while True:
        calling, holder = call(_ROLE, label, socket.SOCK_SEQPACKET)
        if calling is not None:
            return calling
        patience = max(timeout, _FULL) if holder is not None and holder.is_ours else timeout
        if time.monotonic() - began >= patience:
            break
        time.sleep(_POLL)
    holder = holder_of(_ROLE, label, socket.SOCK_SEQPACKET)
    if holder is None:
        raise NoTrial(f"no trial with the label {label} is under way on this host")
    if holder.is_ours:
        raise NoTrial(f"the trial with the label {label} accepts no more connections")
    # Any process may hold the abstract name: its answer is not trusted.
    who = f"a process of the user {holder.uid}" if holder.uid >= 0 else "a process of another user"
    which = f" (process {holder.pid})" if holder.pid else ""
    raise NoTrial(f"no trial with the label {label} can be reached: {who} holds its name{which}")


def _answer(calling: socket.socket) -> str:
    poll = select.poll()
    poll.register(calling, select.POLLIN)
    if not poll.poll(_LONGEST * 1000):
        return ""
    return calling.recv(64).decode("ascii", "replace")
