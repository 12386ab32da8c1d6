"""The file in which an agent reports on itself: the store that it follows, and whether that can be read.

Statuses cannot contain this: in an outage they stay as they are, so all interfaces may be CONFIGURED while no change of
the store reaches the host.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, replace

from vethlib._files import write_whole
from vethlib._primitives import time
from vethlib.agent.process.rundir import open_for_writing
from vethlib.agent.reconcile.backoff import delay

from .reading import absolute, content, why

__all__ = ["AgentFile", "AgentReport", "read_report"]

# Not a name of a status (see status_file), and not seen by readers of *.json.
_FILE = ".agent"
_LONGEST = 1 << 16  # bytes; other users may be able to write anything there
_END = 253402300799.0  # the end of the year 9999, the latest time that datetime can represent

_log = logging.getLogger("vethlib.agent")


@dataclass(frozen=True, slots=True)
class AgentReport:
    """The report of an agent on itself.

    `store` is the URL of its store without the password. `ready` is True once it has published a status of each
    interface. `outage` is the reason why the store cannot be read, "" if it can be, and `outage_since` the start of the
    outage, in seconds since 1970; `outage_code` is the reason for programs, "" also if an older agent has written it.
    `home` is (st_dev, st_ino) of the namespace that the agent calls home; None if an older agent has written the file.
    """

    store: str
    ready: bool = False
    outage: str = ""
    outage_since: float = 0.0
    outage_code: str = ""
    home: tuple[int, int] | None = None


class AgentFile:
    """The file of one agent's report, in the directory of its statuses.

    If the file cannot be written, that is logged once and tried again, because its content may be an outage that has
    ended.
    """

    def __init__(self, directory: str | os.PathLike[str], store: str, home: tuple[int, int] | None = None) -> None:
        self._directory = absolute(directory)
        self._report = AgentReport(store, home=home)
        self._failures = 0  # in a row
        self._retry_at = 0.0  # monotonic time of the next attempt
        self._has_directory = False

    def write(self, outage: str = "", code: str = "") -> None:
        """Report that the store can be read; with a reason and its code, that it cannot."""
        since = 0.0
        if outage:
            since = self._report.outage_since or time.time()
        self._report = replace(self._report, outage=outage, outage_since=since, outage_code=code)
        self._write()

    def published(self) -> None:
        """Report that all statuses are published. Also writes the file again if somebody has removed it."""
        if not self._report.ready or not os.path.lexists(os.path.join(self._directory, _FILE)):
            self._report = replace(self._report, ready=True)
            self._write()

    def due(self) -> float | None:
        """Return the seconds until :meth:`try_again` should be called; None if the file is written."""
        return max(0.0, self._retry_at - time.monotonic()) if self._failures else None

    def try_again(self) -> None:
        """Write the file if the last attempt failed and the pause after it is over."""
        if self._failures and self._retry_at <= time.monotonic():
            self._write()

    def remove(self) -> None:
        """Remove the file when the agent ends. Raises nothing."""
        try:
            os.unlink(os.path.join(self._directory, _FILE))
        except OSError:
            pass  # readers check whether the agent runs, so a file that is left misleads nobody

    def _write(self) -> None:
        try:
            if self._has_directory:
                os.stat(self._directory)
            directory = open_for_writing(self._directory)
            self._has_directory = True
            try:
                write_whole(_FILE, f"{json.dumps(asdict(self._report))}\n".encode(), directory=directory)
            finally:
                os.close(directory)
        except OSError as error:
            # If somebody has removed the directory, the next publication of statuses creates it again.
            if not self._failures and not (self._has_directory and isinstance(error, FileNotFoundError)):
                _log.warning(
                    "`vethctl status` cannot show whether the store can be read, because %s cannot be written: %s",
                    os.path.join(self._directory, _FILE),
                    why(error),
                )
            self._retry_at = time.monotonic() + delay(self._failures)
            self._failures += 1
        else:
            self._failures = 0


def read_report(directory: str) -> AgentReport | None:
    """Read the report of the agent that publishes its statuses to `directory`; None if there is no valid one."""
    try:
        file = content(os.path.join(directory, _FILE), None, follow=False, longest=_LONGEST)
        if file is None:
            return None
        value = json.loads(file.raw)
        since, code = float(value["outage_since"]), value.get("outage_code", "")
        home = _identity(value.get("home"))
        report = AgentReport(value["store"], value["ready"], value["outage"], since, code, home)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    texts = (report.store, report.outage, report.outage_code)
    has_types = isinstance(report.ready, bool) and all(isinstance(text, str) for text in texts)
    return report if has_types and 0 <= report.outage_since < _END else None


def _identity(value: object) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value):
        return value[0], value[1]
    return None
