"""An etcd for one measurement, and its metrics."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from vethlib import VethError

__all__ = ["Server"]

_UP = 20.0  # seconds


class Server:
    """etcd on all addresses of this network namespace, with its data in `directory`, and without fsync."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("etcd") is None:
            raise VethError("etcd is not installed: apt-get install etcd-server")
        self._directory = directory
        self.port = 2379
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = ["etcd", "--data-dir", str(self._directory / "data"), "--unsafe-no-fsync"]
        command += ["--listen-client-urls", f"http://0.0.0.0:{self.port}"]
        command += ["--advertise-client-urls", f"http://127.0.0.1:{self.port}"]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self._wait(self._process)
        except BaseException:
            self.kill()  # after an exception in __enter__, __exit__ is not called
            raise

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _UP
        while not self._serves():
            if process.poll() is not None or time.monotonic() > deadline:
                end = (self._directory / "log").read_text(errors="replace")[-500:].strip()
                raise VethError(f"etcd does not start: {end or 'it printed nothing'}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it, like a crash. A second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def metrics(self) -> dict[str, float]:
        """Return its metrics by name; metrics with labels are added up."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=_UP) as answer:
            lines = answer.read().decode().splitlines()
        metrics: dict[str, float] = {}
        for line in lines:
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                metrics[name] = metrics.get(name, 0.0) + float(value)
        return metrics

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
                status: Any = answer.status
                return bool(status == 200)
        except OSError:
            return False
