"""The example that forwards frames between two namespaces does so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.witness import nothing_changes
from vethlib import ns

FORWARD = Path(__file__).parents[2] / "examples" / "forward.py"


def test_the_demo_answers_every_ping_and_leaves_nothing(home: ns.Netns) -> None:
    with nothing_changes():
        done = subprocess.run(
            [sys.executable, FORWARD, "--demo"], capture_output=True, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(": answered")] == [f"ping {n}: answered" for n in range(1, 6)]
    assert {"to-left plugged in", "to-right plugged in", "left: CONFIGURED", "right: CONFIGURED"} <= set(lines)
    sent = {side: int(count) for count, side in re.findall(r"(\d+) frames sent out of (to-\w+)", done.stdout)}
    assert sent.keys() == {"to-left", "to-right"}
    assert min(sent.values()) >= 5
