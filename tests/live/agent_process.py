"""Run vethctl agent in a separate process, with the test as its service manager."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

from tests.commands import said
from vethlib.agent.stores.agentreport import read_report

ROOT = Path(__file__).parents[2]
VETHCTL = [sys.executable, "-m", "vethlib"]
LABEL = "tested"
PATIENCE = 300  # seconds to start, to print anything, or to end; a busy emulated machine needs 60
_agents = count()


class Agent:
    """A running vethctl agent, and its notifications to the service manager."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.store = directory / "store"
        self.status = directory / "status"
        self.errors = directory / "errors"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The address of a socket has at most 107 bytes, and the path of a temporary directory may be longer.
        address = f"vethlib-tests/{os.getpid()}/{next(_agents)}"
        self._manager.bind(f"\0{address}")
        self._manager.settimeout(PATIENCE)
        command = [*VETHCTL, "agent", "--store", f"dir:{self.store}", "--label", LABEL]
        command += ["--status-dir", str(self.status), *options]
        # Not under the service manager of the test run, if there is one.
        env = {key: text for key, text in os.environ.items() if key != "JOURNAL_STREAM"}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, env=env | {"NOTIFY_SOCKET": f"@{address}"} | environment, stderr=errors, cwd=ROOT
            )

    def told(self) -> dict[str, str]:
        """The next notification."""
        return dict(line.split("=", 1) for line in self._manager.recv(4096).decode().splitlines())

    def wait_until(self, key: str) -> dict[str, str]:
        while key not in (told := self.told()):
            pass
        return told

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._manager.close()
        return code

    def is_without_its_store(self) -> bool:
        """Whether it reports an outage of its store."""
        report = read_report(str(self.status))
        return report is not None and bool(report.outage)

    def has_its_store(self) -> bool:
        report = read_report(str(self.status))
        return report is not None and not report.outage

    @property
    def log(self) -> str:
        return self.errors.read_text()


def vethctl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VETHCTL, *argv], capture_output=True, text=True, check=False, cwd=ROOT)


def status(agent: Agent, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run vethctl status in this process, because starting another one takes longer than the command."""
    command = ["status", "--label", LABEL, "--status-dir", str(agent.status), *argv]
    done = said(*command)
    return subprocess.CompletedProcess(command, done.code, done.out, done.err)


def entry_of(agent: Agent, name: str) -> dict[str, Any]:
    """Return the entry of one interface in `vethctl status --json`."""
    (entry,) = json.loads(status(agent, name, "--json").stdout)
    found: dict[str, Any] = entry
    return found
