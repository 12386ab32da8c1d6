"""Test runs within tests, with the leak watch: a module, run by a separate pytest with the plugin."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import TypeAlias

import pytest

__all__ = ["OPTIONS", "PREAMBLE", "Project", "failed_teardowns", "leaks", "project_of", "said"]


Project: TypeAlias = Callable[..., pytest.RunResult]


# A dummy would be the natural link to leave behind, but not every kernel has them.
PREAMBLE = """
import os, signal, socket, subprocess, threading, time
import pytest
from vethlib import End, Netns, Veth, ns

KEPT = []

def add_link(name):
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)

def names():
    said = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout
    return {line.split()[0].split("@")[0] for line in said.splitlines()} - {"lo"}
"""


# In the order of the file, and without unrelated plugins: that of Hypothesis takes a second to load.
OPTIONS = ["-rA", "-pno:randomly", "-pno:cacheprovider", "-pno:asyncio", "-pno:hypothesispytest", "-pno:rerunfailures"]


def project_of(pytester: pytest.Pytester) -> Project:
    """Return a function that runs a test module with the plugin, in its order."""

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(PREAMBLE + textwrap.dedent(source))
        return pytester.runpytest_subprocess(*OPTIONS, *options)

    return run


def said(result: pytest.RunResult) -> str:
    return result.stdout.str()


def failed_teardowns(result: pytest.RunResult) -> list[str]:
    """Return the tests with an error in their teardown."""
    return re.findall(r"^_+ ERROR at teardown of (\S+) _+$", said(result), re.MULTILINE)


def leaks(result: pytest.RunResult) -> list[str]:
    """Return the reported leftovers, each with its cure."""
    lines = said(result).split("short test summary info")[0].splitlines()
    return [line.split(maxsplit=2 if line.startswith("left behind: ") else 1)[-1] for line in lines if _tells(line)]


def _tells(line: str) -> bool:
    return line.startswith(("left behind: ", "  and "))
