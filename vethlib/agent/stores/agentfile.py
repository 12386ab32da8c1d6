"""What an agent says of itself beside its statuses: which store it follows, and whether that can be read now.

The statuses cannot say it: in an outage they stay as they are, and so all may be CONFIGURED while nothing of what is
stored reaches the host.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from dataclasses import asdict, dataclass, replace

from .reading import why

__all__ = ["AgentFile", "Said", "read_said"]

# No status has such a name (status_file), and nobody who reads *.json sees it.
_FILE, _TEMPORARY = ".agent", ".agent.new"
_LONGEST = 1 << 16  # bytes; who may write there may write anything
_END = 253402300799.0  # the end of the year 9999: no later time can be shown

_log = logging.getLogger("vethlib.agent")


@dataclass(frozen=True, slots=True)
class Said:
    """The `store` that the agent follows, without a password; whether it is `ready`, having said of all interfaces what
    became of them; why the store cannot be read (`outage`, "" if it can), and since when not, in seconds since 1970.
    """

    store: str
    ready: bool = False
    outage: str = ""
    outage_since: float = 0.0


class AgentFile:
    """The file of one agent in the directory of its statuses. That it cannot be written is logged, once in a row."""

    def __init__(self, directory: str | os.PathLike[str], store: str) -> None:
        self._directory = os.path.join(os.getcwd(), os.fspath(directory))
        self._said = Said(store)
        self._is_refused = False
        self._is_there = False  # the directory

    def say(self, outage: str = "") -> None:
        """The store can be read, or, with a reason, cannot."""
        since = 0.0
        if outage:
            since = self._said.outage_since or time.time()
        self._said = replace(self._said, outage=outage, outage_since=since)
        self._write()

    def published(self) -> None:
        """The statuses are written. So is this, if it has to be: somebody may have removed it."""
        if not self._said.ready or not os.path.lexists(os.path.join(self._directory, _FILE)):
            self._said = replace(self._said, ready=True)
            self._write()

    def remove(self) -> None:
        """There is no agent any more."""
        try:
            os.unlink(os.path.join(self._directory, _FILE))
        except OSError:
            pass  # who asks finds that nobody runs, whatever the file says

    def _write(self) -> None:
        temporary = os.path.join(self._directory, _TEMPORARY)
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if not self._is_there:
                self._make_directory()
            with open(os.open(temporary, how, 0o644), "wb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o644)
                text = f"{json.dumps(asdict(self._said))}\n".encode()
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(temporary, os.path.join(self._directory, _FILE))
        except OSError as error:
            # Whoever has removed the directory has done so to the statuses, too, and it comes back with them.
            if not self._is_refused and not (self._is_there and isinstance(error, FileNotFoundError)):
                _log.warning(
                    "`vethctl status` will not tell whether the store can be read, for %s cannot be written: %s",
                    os.path.join(self._directory, _FILE),
                    why(error),
                )
            self._is_refused = True
        else:
            self._is_refused = False

    def _make_directory(self) -> None:
        if not os.path.isdir(self._directory):
            if os.path.lexists(self._directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.makedirs(self._directory, exist_ok=True)
            os.chmod(self._directory, 0o755)
        self._is_there = True


def read_said(directory: str) -> Said | None:
    """What the agent that writes its statuses there says of itself; None if it says nothing that can be read."""
    try:
        with open(os.path.join(directory, _FILE), "rb") as file:
            value = json.loads(file.read(_LONGEST))
        said = Said(value["store"], value["ready"], value["outage"], float(value["outage_since"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    has_types = isinstance(said.store, str) and isinstance(said.ready, bool) and isinstance(said.outage, str)
    return said if has_types and 0 <= said.outage_since < _END else None
