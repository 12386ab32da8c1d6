"""A real podman service of the tests' own, beside Docker's engine, used over the same bare HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.backends.engine import Container, Engine, missing_programs, needs_root
from tests.witness import poll
from vethlib import ns
from vethlib.follow.docker.containers import VARIABLE

__all__ = ["Podman", "missing"]

_PROGRAMS = {"podman": "podman", "conmon": "conmon", "busybox": "busybox-static"}
_LIFE: Final = 900  # seconds, so that no container runs for ever if the tests are killed

# Locks in files, because those in shared memory are one file of the host's. The limits are below anybody's own.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
lock_type = "file"
events_logger = "file"
static_dir = "{0}/static"
volume_path = "{0}/volumes"
[network]
network_config_dir = "{0}/networks"
"""

_STORAGE_CONF = """\
[storage]
driver = "vfs"
graphroot = "{0}/root"
runroot = "{0}/run"
"""


def missing() -> str:
    """Why there can be no podman, or ""."""
    return missing_programs(_PROGRAMS) or needs_root("podman")


def _runtime() -> str:
    """Return the first runtime that is here: crun, unless it refuses the cgroups of this machine.

    It does so if there are hierarchies of version 1, and one of version 2 that has controllers, too.
    """
    try:
        is_hybrid = bool(Path("/sys/fs/cgroup/unified/cgroup.controllers").read_text().strip())
    except OSError:
        is_hybrid = False
    names = ["runc", "crun"] if is_hybrid else ["crun", "runc"]
    return next(filter(None, map(shutil.which, names)), "runc")


class Podman(Engine):
    """A podman service in `directory`, in the namespaces of the process that creates this; :meth:`up` starts it.

    Its containers are not children of its own processes: unless it is ended by :meth:`down`, they keep running.
    Everything that it needs is in `directory`; there is no image and no network, so no cache of the host is touched.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._home = ns.Netns.open("")
        self._service: subprocess.Popen[bytes] | None = None
        self._cgroup = f"vethlib-{directory.parent.name}-{directory.name}"
        self.socket = str(directory / "podman.sock")

    @property
    def pid(self) -> int:
        assert self._service is not None
        return self._service.pid

    def up(self) -> None:
        if self._service is not None and self._service.poll() is None:
            return
        self._prepare()
        Path(self.socket).unlink(missing_ok=True)
        # It outlives a test, and must not keep the namespace alive in which this is called.
        with ns.entered(self._home), (self._directory / "log").open("ab") as log:
            self._service = subprocess.Popen(
                self._command(), env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        service = self._service
        assert poll(lambda: self._answers() or service.poll() is not None, 30)
        assert service.poll() is None, (self._directory / "log").read_text()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def down(self) -> None:
        """End all of it, and leave nothing."""
        if self._directory.exists():
            self.up()
            self.remove_all()
        self.stop()
        for pid in self._monitors():
            os.kill(pid, signal.SIGKILL)
        self._unmount()
        self._remove_cgroups()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._home.close()

    def api(self, method: str, target: str, body: Any = None) -> Any:
        deadline = time.monotonic() + 30
        while True:
            try:
                return super().api(method, target, body)
            except AssertionError as error:
                # A process of podman cleans up after the last process of a container, and may be late.
                if "already exists: OCI runtime error" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def remove_all(self) -> None:
        for one in self.api("GET", "/containers/json?all=1"):
            # Those that share its namespace, which would forbid it, are removed with it.
            self.api("DELETE", f"/v4.0.0/libpod/containers/{one['Id']}?force=true&depend=true&ignore=true")

    def create(
        self,
        name: str,
        label: str = "",
        *,
        env: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        network: str = "none",
        **how: Any,
    ) -> Container:
        mode, _, value = network.partition(":")
        described = {
            "name": name,
            "rootfs": str(self._directory / "image"),
            "command": ["/bin/sleep", str(_LIFE)],
            "env": dict(one.split("=", 1) for one in [*([f"{VARIABLE}={label}"] if label else []), *env]),
            "labels": labels or {},
            "stop_signal": int(signal.SIGKILL),  # as process 1, sleep ignores any other
            "netns": {"nsmode": mode, "value": value},
            "cgroup_parent": f"/{self._cgroup}",
            **how,
        }
        made = self.api("POST", "/v4.0.0/libpod/containers/create", described)
        return Container(self, made["Id"], name)

    def _answers(self) -> bool:
        try:
            self.api("GET", "/version")
        except OSError:
            return False
        return True

    def _command(self) -> list[str]:
        at = self._directory
        return [
            *("podman", "--root", f"{at}/root", "--runroot", f"{at}/run", "--tmpdir", f"{at}/tmp"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"),
            *("--runtime", _runtime(), "--runtime-flag", f"root={at}/runtime", "--log-level", "error"),
            *("system", "service", "--time", "0", f"unix://{self.socket}"),
        ]

    def _environment(self) -> dict[str, str]:
        ours = {
            "CONTAINERS_CONF": f"{self._directory}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self._directory}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{self._directory}/registries.conf",
            "HOME": str(self._directory),
            "TMPDIR": str(self._directory),
        }
        return {name: text for name, text in os.environ.items() if not name.startswith("XDG_")} | ours

    def _prepare(self) -> None:
        root = self._directory / "image"
        if root.exists():
            return
        self._directory.mkdir(parents=True)
        (self._directory / "containers.conf").write_text(_CONTAINERS_CONF.format(self._directory))
        (self._directory / "storage.conf").write_text(_STORAGE_CONF.format(self._directory))
        (self._directory / "registries.conf").write_text("")
        for name in ("bin", "dev", "proc", "sys", "etc", "tmp", "run"):
            (root / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "busybox", root / "bin" / "busybox")
        (root / "bin" / "sleep").symlink_to("busybox")

    def _end(self, sig: signal.Signals) -> None:
        if self._service is not None:
            self._service.send_signal(sig)
            self._service.wait(30)

    def _monitors(self) -> Iterator[int]:
        """The processes that watch its containers, or clean up after them: they name our directory."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                name = os.path.basename(arguments[0])
                if name in (b"conmon", b"podman") and any(
                    one.startswith(os.fsencode(self._directory) + b"/") for one in arguments
                ):
                    yield int(entry.name)

    def _unmount(self) -> None:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for path in reversed(mounts):
            if path.startswith(f"{self._directory}/"):
                subprocess.run(["umount", "-l", path], check=False)

    def _remove_cgroups(self) -> None:
        # A hierarchy each with version 1, one with version 2. What was killed just now may take a moment to leave.
        top = Path("/sys/fs/cgroup")
        for group in [top / self._cgroup, *top.glob(f"*/{self._cgroup}")]:
            deadline = time.monotonic() + 2
            while group.exists() and time.monotonic() < deadline:
                for directory, _, _ in os.walk(group, topdown=False):
                    try:
                        os.rmdir(directory)
                    except OSError:
                        time.sleep(0.01)
