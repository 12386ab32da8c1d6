"""A real Docker Engine of the tests' own, used over bare HTTP, independently of vethlib."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vethlib import ns
from vethlib.follow.docker.containers import VARIABLE

__all__ = ["ROOT", "Container", "Engine", "UnixConnection", "missing", "missing_programs", "needs_root"]

ROOT = Path(__file__).parents[2]
_PROGRAMS = {"dockerd": "docker.io", "containerd": "docker.io", "busybox": "busybox-static"}
_IMAGE = "vethlib-test"


def missing() -> str:
    """Why there can be no engine, or ""."""
    return missing_programs(_PROGRAMS) or needs_root("a Docker Engine")


def missing_programs(packages: Mapping[str, str]) -> str:
    """Return which programs are missing, and how to install their packages; or ""."""
    absent = {program: package for program, package in packages.items() if shutil.which(program) is None}
    if not absent:
        return ""
    return f"{' and '.join(absent)} not installed: apt-get install {' '.join(dict.fromkeys(absent.values()))}"


def needs_root(engine: str) -> str:
    """Return why such an engine cannot run for lack of privilege, or ""."""
    # Not the user: in a user namespace of the tests' own everybody is root.
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"] or os.geteuid() != 0:
        return f"{engine} needs root"
    return ""


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: str, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """An engine in `directory`, in the namespaces of the process that creates this; :meth:`up` starts it.

    Unless it is ended by :meth:`down`, its containers keep running.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._home = ns.Netns.open("")
        self.socket = str(directory / "docker.sock")

    def up(self) -> None:
        self._run("up")

    def kill9(self) -> None:
        self._run("kill9")

    def stop(self) -> None:
        self._run("stop")

    def down(self) -> None:
        self._run("down")
        self._home.close()

    def _run(self, verb: str) -> None:
        # Its processes outlive a test, and must not keep the namespace alive in which this is called.
        with ns.entered(self._home):
            done = subprocess.run(
                [ROOT / "scripts" / "engine", verb],
                env=os.environ | {"ENGINE_DIR": str(self._directory), "PYTHON": sys.executable},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"engine {verb}: {done.stderr}"

    @property
    def pid(self) -> int:
        return int((self._directory / "dockerd.pid").read_text())

    def api(self, method: str, target: str, body: Any = None) -> Any:
        """Return the decoded answer to a request, None if it is empty. Raises AssertionError unless it is a success."""
        connection = UnixConnection(self.socket)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status < 400, f"{method} {target}: {text}"
        return json.loads(text) if text else None

    def create(
        self,
        name: str,
        label: str = "",
        *,
        env: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        network: str = "none",
        **host: Any,
    ) -> Container:
        """Create a container without starting it; `label` is the microservice label in its environment."""
        described = {
            "Image": _IMAGE,
            "Env": [*([f"{VARIABLE}={label}"] if label else []), *env],
            "Labels": labels or {},
            "StopSignal": "SIGKILL",  # as process 1, sleep ignores any other
            "HostConfig": {"NetworkMode": network, **host},
        }
        made = self.api("POST", f"/containers/create?name={name}", described)
        return Container(self, made["Id"], name)

    def run(self, name: str, label: str = "", **how: Any) -> Container:
        """A container that runs."""
        container = self.create(name, label, **how)
        container.start()
        return container

    def remove_all(self) -> None:
        """Remove every container; some may already be gone."""
        for one in self.api("GET", "/containers/json?all=1"):
            Container(self, one["Id"], "").remove()

    def event(self, container: Container, action: str) -> float:
        """Return the time of the last event of that kind for a container, in seconds since 1970."""
        filters = quote(json.dumps({"container": [container.id], "event": [action]}))
        connection = UnixConnection(self.socket)
        try:
            connection.request("GET", f"/events?since=0&until={time.time():.6f}&filters={filters}")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return float(json.loads(text.splitlines()[-1])["timeNano"]) / 1e9


class Container:
    """A container of an engine; its methods return when the engine has finished."""

    def __init__(self, engine: Engine, id_: str, name: str) -> None:
        self._engine = engine
        self.id = id_
        self.name = name

    def inspect(self) -> Any:
        return self._engine.api("GET", f"/containers/{self.id}/json")

    @property
    def pid(self) -> int:
        """0 if it does not run."""
        return int(self.inspect()["State"]["Pid"])

    @property
    def netns(self) -> str:
        """A reference to its namespace, as long as it runs."""
        return f"pid:{self.pid}"

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop?t=5")

    def restart(self) -> None:
        self._do("restart?t=5")

    def kill(self, signal: str = "SIGKILL") -> None:
        self._do(f"kill?signal={signal}")

    def pause(self) -> None:
        self._do("pause")

    def unpause(self) -> None:
        self._do("unpause")

    def rename(self, name: str) -> None:
        self._do(f"rename?name={name}")
        self.name = name

    def remove(self) -> None:
        """Remove it, whether it runs or not."""
        self._engine.api("DELETE", f"/containers/{self.id}?force=1&v=1")

    def _do(self, what: str) -> None:
        self._engine.api("POST", f"/containers/{self.id}/{what}")
