"""Test runs within tests: a project of a few lines, run by a separate pytest with the plugin as installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .warm import UNPRIVILEGED

__all__ = ["UNPRIVILEGED", "Project", "unprivileged"]

_NOT_WANTED = ("randomly", "cacheprovider", "hypothesispytest", "rerunfailures", "socket", "timeout")
_QUIET = [word for name in _NOT_WANTED for word in ("-p", f"no:{name}")]


class Project:
    """A directory with tests, and the pytest that runs them."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.path = pytester.path

    def write(self, source: str, name: str = "test_it.py") -> Path:
        """Write a file of the project."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    def run(
        self,
        *arguments: str,
        before: list[str] | None = None,
        module: str = "pytest",
        asyncio: bool = False,
        stdin: str = "",
        timeout: float = 120 if (os.cpu_count() or 1) > 1 else 600,
    ) -> pytest.RunResult:
        """Run the project, optionally with a command in front; `module` and its arguments are what Python runs."""
        plugins = _QUIET if asyncio else [*_QUIET, "-p", "no:asyncio"]
        command = [*(before or []), sys.executable, "-m", *module.split(), *plugins, *arguments]
        return self._pytester.run(*command, timeout=timeout, stdin=stdin.encode())


def unprivileged(*command: str) -> list[str]:
    """Return the words to put before a command so that it runs without any capability."""
    return [*UNPRIVILEGED, *command]


def has_program(name: str) -> bool:
    """Return whether a program is installed; those for administrators are not in everybody's PATH."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None


def run(command: list[str]) -> str:
    """Run a command that has to succeed, and return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
