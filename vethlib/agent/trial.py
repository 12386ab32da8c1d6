"""A trial that waits for a word: one of a label on a host, and how another process tells it to keep or to undo.

As with the agent (:mod:`.instance`), an abstract UNIX socket: it belongs to the network namespace of the host, and ends
with its process. It has no owner, so the trial asks the kernel who is calling (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from types import TracebackType
from typing import Final

from vethlib.errors import VethError

from .mark import check_label

__all__ = ["AlreadyTrying", "NoTrial", "Trial", "settle"]

_UCRED: Final = struct.Struct("3i")  # struct ucred, include/linux/socket.h: pid, uid, gid
_PATIENCE: Final = 1.0  # seconds for a word that is four bytes
_POLL: Final = 0.05
_WORDS: Final = (b"keep", b"undo")


class AlreadyTrying(VethError):
    """A trial with that label is under way."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"a trial with the label {label} is under way on this host: end it with vethctl confirm, or confirm --undo"
        )


class NoTrial(VethError, LookupError):
    """No trial with that label is under way, or it ended before it answered."""


class Trial:
    """The right to try something with a label, and the ear for a word on it. Close it, or use it in a ``with``."""

    def __init__(self, label: str) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._asking: socket.socket | None = None
        try:
            self._socket.bind(_address(label))
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise AlreadyTrying(label) from None

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when somebody calls."""
        return self._socket.fileno()

    def hear(self) -> str:
        """The word of whoever calls: "keep" or "undo", or "" if it was nothing or not theirs to say."""
        try:
            calling, _ = self._socket.accept()
        except OSError:
            return ""  # gone again
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
        """Tell whoever gave the word what has become of the trial, which is over: others may try from now on."""
        self._socket.close()
        if self._asking is not None:
            try:
                self._asking.send(outcome.encode())
            except OSError:
                pass  # they have gone, and will find out
            self._asking.close()
            self._asking = None

    def close(self) -> None:
        """Let others try."""
        if self._asking is not None:
            self._asking.close()
        self._socket.close()


def settle(label: str, word: str, *, timeout: float = 0.0) -> str:
    """Tell the trial of that label to "keep" or to "undo"; returns what became of it: "kept" or "undone".

    Waits up to `timeout` seconds for one to begin, and as long as it needs for its answer. Raises NoTrial.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as calling:
        while True:
            try:
                calling.connect(_address(label))
                break
            except OSError as error:
                if error.errno not in (errno.ECONNREFUSED, errno.EAGAIN):
                    raise
                if time.monotonic() >= deadline:
                    raise NoTrial(f"no trial with the label {label} is under way on this host") from None
            time.sleep(_POLL)
        # Anybody may hold the name: what they say is not believed.
        _, uid, _ = struct.unpack("3i", calling.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            raise NoTrial(f"no trial of ours: a process of the user {uid} holds the name of the label {label}")
        try:
            calling.send(word.encode())
            outcome = calling.recv(64).decode("ascii", "replace")
        except (BrokenPipeError, ConnectionResetError):
            outcome = ""
    if outcome not in ("kept", "undone"):
        raise NoTrial(f"the trial with the label {label} ended without an answer: it was over, or is another user's")
    return outcome


def _address(label: str) -> str:
    return f"\0vethlib/try/{check_label(label)}"
