"""The only agent of a label on a host: it holds a name that no other process can have (:mod:`.claim`)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

from vethlib.errors import NetlinkError, VethError, errno_text

from .claim import Claim, Held, Holder, NoUnixSockets, holder_of
from .descriptors import EXHAUSTED

__all__ = ["ROLE", "AlreadyRunning", "Instance", "agent_of", "running"]

ROLE = "agent"
_log = logging.getLogger("vethlib.agent")


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
            self._claim = Claim(ROLE, label, socket.SOCK_STREAM)
        except Held as error:
            raise AlreadyRunning(label, error.holder.pid) from None
        except (OSError, NoUnixSockets) as error:
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


def _refused(label: str, error: OSError | NoUnixSockets) -> VethError:
    what = f"cannot start the agent with the label {label}"
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return NetlinkError(f"{what}: {errno_text(error.errno)}", errno=error.errno)
    is_named = isinstance(error, NoUnixSockets) or error.filename  # a file that is missing, such as one of /proc
    why = error if is_named else NoUnixSockets(error.errno or 0)
    return VethError(f"{what}: {why}")


def agent_of(label: str) -> Holder | None:
    """Return the holder of the name of that label's agent on this host, or None. It may be a squatter.

    Raises NoUnixSockets: then it is unknown.
    """
    return holder_of(ROLE, label, socket.SOCK_STREAM)


def running(label: str) -> int | None:
    """Return the process of the agent of that label on this host; 0 if it is unknown, None if there is no agent."""
    holder = agent_of(label)
    return holder.pid if holder is not None and holder.is_ours else None
