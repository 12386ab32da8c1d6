"""Nothing depends on the encoding of the locale: Python can make an error of that (PEP 597)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vethlib import Netns

ROOT = Path(__file__).parents[2]
STRICT = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning"]

TEST = """
def test_one(topology, veth):
    veth.a.ping(veth.b)
    net = topology("a -- r -- b")
    net["a"].ping(net["r"])
    net["a"].run(["true"])
"""


@pytest.mark.parametrize(
    "command",
    ["doctor", "show --all", "completion bash", "completion zsh", "netns list", "top --once", "describe a", "demo"],
)
def test_no_command_reads_or_writes_in_it(home: Netns, command: str) -> None:
    done = subprocess.run([*STRICT, "-m", "vethlib", *command.split()], capture_output=True, text=True, cwd=ROOT)
    assert "EncodingWarning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plugin_does_not_either(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(TEST)
    variables = os.environ | {"PYTHONWARNDEFAULTENCODING": "1"}
    run = [*STRICT, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:asyncio"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
