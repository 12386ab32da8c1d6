"""One agent of a label on a host: a name that only one process can hold, and that ends with it.

The name is an abstract UNIX socket (unix(7)). Those belong to a network namespace, as the host of an agent does: two
hosts on one machine, each in a network namespace of its own, have an agent of the same label each.
"""

from __future__ import annotations

import errno
import socket
import struct

from vethlib.errors import VethError, errno_text

from .mark import check_label

__all__ = ["AlreadyRunning", "Instance", "running", "status_directory"]

_UCRED = struct.Struct("3i")  # struct ucred, include/linux/socket.h: pid, uid, gid


class AlreadyRunning(VethError):
    """An agent of that label runs on this host; ``pid`` is its process, 0 if that cannot be told."""

    def __init__(self, label: str, pid: int) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(
            f"an agent with the label {label} runs on this host already{who}: stop it, or give another label"
        )
        self.pid = pid


class Instance:
    """The right to be the agent of a label here, until :meth:`close` or the end of the process."""

    def __init__(self, label: str) -> None:
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_UNIX, kind)
        except OSError as error:
            raise _refused(label, error) from None
        try:
            self._socket.bind(_address(label))
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise _refused(label, error) from None
            raise AlreadyRunning(label, running(label) or 0) from None

    def fileno(self) -> int:
        """Readable when somebody has asked."""
        return self._socket.fileno()

    def answer(self) -> None:
        """Let go of those who have asked; being there was the answer."""
        try:
            while True:
                self._socket.accept()[0].close()
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Let another one be it."""
        self._socket.close()


def _refused(label: str, error: OSError) -> VethError:
    cure = "let this process have UNIX sockets (RestrictAddressFamilies= of systemd, seccomp, LSM)"
    why = errno_text(error.errno or 0)
    return VethError(f"cannot be the agent with the label {label}: no abstract UNIX socket: {why}; {cure}")


def running(label: str) -> int | None:
    """The process of the agent of that label on this host; None if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(_address(label))
        except BlockingIOError:
            return 0  # so many are asking that its queue is full
        except OSError:
            return None
        pid, _, _ = _UCRED.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return int(pid)


def _address(label: str) -> str:
    return f"\0vethlib/agent/{check_label(label)}"


def status_directory(label: str) -> str:
    """Where an agent writes what it says of its interfaces, unless it is told otherwise."""
    return f"/run/vethlib/{check_label(label)}/status"
