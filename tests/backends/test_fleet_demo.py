"""``make fleet-demo``, as whoever tries it sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.backends.engine import missing as no_engine
from tests.backends.etcd import missing as no_etcd
from tests.witness import names

DEMO = Path(__file__).parents[2] / "examples" / "fleet" / "demo.py"


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose path is short, for the sockets in it."""
    with TemporaryDirectory(prefix="demo-", dir="/tmp") as directory:
        yield Path(directory)


def test_the_fleet_demo_wires_containers_restarts_one_and_leaves_nothing(directory: Path) -> None:
    if why := no_etcd() or no_engine():
        pytest.skip(why)
    before = names()
    done = subprocess.run(
        [sys.executable, DEMO], env=os.environ | {"TMPDIR": str(directory)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("3 packets transmitted, 3 packets received") == 6
    assert done.stdout.count("CONFIGURED") == 12
    old, new = re.findall(r"another process \((\d+) → (\d+)\)", done.stdout)[0]
    assert old != new
    assert done.stderr == ""
    assert list(directory.iterdir()) == []
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    assert not [pid for pid in os.listdir("/proc") if pid.isdecimal() and _mentions(pid, str(directory))]
    assert names() == before


def _mentions(pid: str, text: str) -> bool:
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False


def test_the_fleet_demo_says_what_it_lacks() -> None:
    done = subprocess.run(
        [sys.executable, DEMO], env=os.environ | {"PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "dockerd" in line or "root" in line
