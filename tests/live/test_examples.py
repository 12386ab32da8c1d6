"""The examples work: programs, and files for pytest. The container is in tests/backends."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.live.examples import EXAMPLES, run_tests
from tests.witness import nothing_changes
from vethlib import ns


@pytest.mark.slow
def test_those_for_pytest_pass() -> None:
    if not shutil.which("bird", path="/usr/sbin:/usr/bin"):
        pytest.skip("bird not installed: apt-get install bird2")
    assert "3 passed" in run_tests("test_ospf.py", "test_lossy_tcp.py")


def test_the_switch_delivers_every_byte_in_frames_that_fit_the_mtu(home: ns.Netns) -> None:
    with nothing_changes():
        done = subprocess.run(
            [sys.executable, EXAMPLES / "switch.py"], capture_output=True, text=True, timeout=120, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    numbers = [int(number) for number in re.findall(r"\b\d+\b", done.stdout)]
    assert numbers == [1 << 20, 1514, 2]  # bytes of TCP, of the longest frame, and addresses learnt
