"""vethctl agent in a process of its own, whose service manager the test is."""

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
PATIENCE = 300  # seconds to start, to say anything, or to end; an emulated and busy machine needs 60
_agents = count()


class Agent:
    """A running vethctl agent, and what it tells its service manager."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.store = directory / "store"
        self.status = directory / "status"
        self.errors = directory / "errors"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An address has 107 bytes, and a temporary directory may have more.
        address = f"vethlib-tests/{os.getpid()}/{next(_agents)}"
        self._manager.bind(f"\0{address}")
        self._manager.settimeout(PATIENCE)
        command = [*VETHCTL, "agent", "--store", f"dir:{self.store}", "--label", LABEL]
        command += ["--status-dir", str(self.status), *options]
        # Not under our own manager, whatever runs us.
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
    """Run vethctl status, which needs no process of its own: to start one takes longer than what it does."""
    command = ["status", "--label", LABEL, "--status-dir", str(agent.status), *argv]
    done = said(*command)
    return subprocess.CompletedProcess(command, done.code, done.out, done.err)


def entry_of(agent: Agent, name: str) -> dict[str, Any]:
    """Return what `vethctl status --json` says of one interface."""
    (entry,) = json.loads(status(agent, name, "--json").stdout)
    found: dict[str, Any] = entry
    return found
