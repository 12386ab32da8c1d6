"""Write the report of an agent on itself (:mod:`.agentreport`)."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from typing import Any

from vethlib._files import overwrite, write_whole
from vethlib._primitives import time
from vethlib.agent.attempts import Attempts

from .agentreport import FILE, AgentReport
from .directories import Identity, absolute, check_answer, why
from .statusdirectory import opener

__all__ = ["AgentFile"]

_log = logging.getLogger("vethlib.agent")


class AgentFile:
    """The file of one agent's report, in the directory of its statuses.

    If the file cannot be replaced, as when the file system is full, it is overwritten in place. If that fails, too, it
    is logged once and tried again, because its content may be an outage that has ended.
    """

    def __init__(
        self, directory: str | os.PathLike[str], store: str, home: Identity | None = None, label: str = ""
    ) -> None:
        self._opened = opener(directory)
        self._directory = absolute(directory)
        self._report = AgentReport(store, home=home, label=label)
        self._attempts = Attempts()
        self._has_directory = False

    def write(self, outage: str = "", code: str = "") -> None:
        """Report that the store can be read; with a reason and its code, that it cannot."""
        since = 0.0
        if outage:
            since = self._report.outage_since or time.time()
        self._report = replace(self._report, outage=outage, outage_since=since, outage_code=code)
        self._write()

    def unwritten(self, reason: str) -> None:
        """Report why statuses cannot be written; "" if they can be."""
        if reason != self._report.unwritten:
            since = (self._report.unwritten_since or time.time()) if reason else 0.0
            self._report = replace(self._report, unwritten=reason, unwritten_since=since)
            self._write()

    def publication(self) -> dict[str, Any]:
        """Return where statuses are published, and why they cannot be, for readers who do not find this file."""
        report = self._report
        return {
            "place": self._directory,
            "unwritten": report.unwritten,
            "unwritten_since": report.unwritten_since,
        }

    def published(self) -> None:
        """Report that all statuses are published. Also writes the file again if somebody has removed it."""
        if not self._report.ready or self._is_missing(FILE):
            self._report = replace(self._report, ready=True)
            self._write()

    def due(self) -> float | None:
        """Return the seconds until :meth:`try_again` should be called; None if the file is written."""
        return self._attempts.left(time.monotonic()) if self._attempts.failed else None

    def try_again(self) -> None:
        """Write the file if the last attempt failed and the pause after it is over."""
        if self._attempts.take(time.monotonic()):
            self._write()

    def ended(self) -> None:
        """Report that the agent has ended: only whose the statuses are remains true."""
        self._report = AgentReport(self._report.store, home=self._report.home, label=self._report.label)
        if not self._is_missing("."):
            self._write()

    def _is_missing(self, name: str) -> bool:
        """Return whether a file of the directory is missing; False if its file system does not answer."""
        try:
            check_answer(self._directory)
        except OSError:
            return False
        return not os.path.lexists(os.path.join(self._directory, name))

    def _write(self) -> None:
        try:
            check_answer(self._directory)
            if self._has_directory:
                os.stat(self._directory)
            directory = self._opened()
            self._has_directory = True
            try:
                _write_to(directory, f"{json.dumps(asdict(self._report))}\n".encode())
            finally:
                os.close(directory)
        except OSError as error:
            # If somebody has removed the directory, the next publication of statuses creates it again.
            if not self._attempts.failed and not (self._has_directory and isinstance(error, FileNotFoundError)):
                _log.warning(
                    "`vethctl status` cannot show whether the store can be read, because %s cannot be written: %s",
                    os.path.join(self._directory, FILE),
                    why(error),
                )
            self._attempts.fail(time.monotonic())
        else:
            self._attempts.succeed()


def _write_to(directory: int, content: bytes) -> None:
    try:
        write_whole(FILE, content, directory=directory)
    except OSError as error:
        try:
            overwrite(FILE, content, directory=directory)
        except OSError:
            raise error from None
