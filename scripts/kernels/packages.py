"""Debian packages of any release, fetched by the machine's own apt client from the mirror that its sources name.

apt gets a configuration of its own, with lists and a cache below one directory. Nothing is installed, and the machine's
own configuration, lists and cache are only read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Apt", "Unavailable"]

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 300.0  # seconds for one call of apt


class Unavailable(Exception):
    """Something that cannot be had here; the text says what, and why."""


class Apt:
    """The apt client, for the packages of one Debian suite: a codename, or `CODENAME-security`.

    What is not done at `deadline`, by the monotonic clock, is unavailable.
    """

    def __init__(self, directory: Path, suite: str, deadline: float) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed: kernels are fetched as Debian packages")
        label = "Debian-Security" if suite.endswith("-security") else "Debian"
        mirror = _mirrors().get(label)
        if mirror is None:
            raise Unavailable(f"the apt sources of this machine name no mirror of {label}")

        self._directory = directory
        self._suite = suite
        self._deadline = deadline
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        options = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
        sources = directory / "sources.list"
        sources.write_text(f"deb {options}{mirror} {suite} main\n")
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::Lists": directory / "lists",
            "Dir::Cache": directory / "cache",
            "Dir::State::status": "/dev/null",  # as if nothing were installed: all versions are those of the suite
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "APT::Update::Error-Mode": "any",  # rather than a mirror that cannot be reached and "has no such package"
            "Acquire::http::Timeout": 20,
            "Acquire::Retries": 1,
        }
        config = directory / "apt.conf"
        config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = os.environ | {"APT_CONFIG": str(config), "LC_ALL": "C"}
        self._run("apt-get", "update", "-q")

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Download these packages, and extract their files below `into`."""
        debs = self._directory / "debs"
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir()
        self._run("apt-get", "download", "-q", *packages, directory=debs)
        files = sorted(debs.glob("*.deb"))
        if len(files) != len(packages):
            raise Unavailable(f"the mirror of this machine has not all of {', '.join(packages)} in {self._suite}")
        into.mkdir(parents=True, exist_ok=True)
        for file in files:
            self._run("dpkg-deb", "-x", str(file), str(into))
        shutil.rmtree(debs)

    def depends(self, package: str) -> list[str]:
        """Return the names in the dependencies of a package, without their versions."""
        shown = self._run("apt-cache", "show", "--no-all-versions", package)
        lines = [line.partition(" ")[2] for line in shown.splitlines() if line.startswith("Depends: ")]
        return [name for line in lines for name in re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]*)", line)]

    def closure(self, package: str) -> list[str]:
        """Return a package and all that it depends on, down to the C library."""
        simulated = self._run("apt-get", "-q", "--simulate", "--no-install-recommends", "install", package)
        return re.findall(r"^Inst (\S+)", simulated, re.MULTILINE)

    def _run(self, *command: str, directory: Path | None = None) -> str:
        try:
            ended = subprocess.run(
                command,
                env=self._environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=max(0.0, min(_TIMEOUT, self._deadline - time.monotonic())),
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]} {command[1]} has not ended in time") from None
        with open(self._directory / "apt.txt", "a") as log:
            log.write(f"+ {' '.join(command)}\n{ended.stdout if ended.returncode else ''}{ended.stderr}")
        if ended.returncode:
            error = (ended.stderr.strip() or ended.stdout.strip() or "no output").splitlines()[-1]
            raise Unavailable(f"{' '.join(command)}: {error}")
        return ended.stdout


def _mirrors() -> dict[str, str]:
    """Return the mirrors of Debian and of its security updates that the machine's own sources name, by label."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():
        label, _, uri = line.partition(" ")
        found.setdefault(label, uri)
    return found
