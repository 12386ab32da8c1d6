"""A program has the first 15 bytes of its file name in /proc, which may end within a character, or be any bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = """
import sys
open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv.pop(1)))
"""
USES = {
    "privileges": "from vethlib import ns; assert ns.is_privileged()",
    "isolation": "from vethlib import ns; ns.isolate(); assert ns.names() == []",
    "doctor": "from vethlib.cli import main; main(['--json', 'doctor'])",
    "an engine": "import os; from vethlib.follow.docker import engine; assert engine._levels(os.getpid()) == 1",
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["messwerte-netzü.py".encode()[:15], b"\xff\xfe"], ids=["cut", "bytes"])
def test_a_name_that_is_not_text_is_no_obstacle(use: str, name: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NAMED + USES[use], name.hex()], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
