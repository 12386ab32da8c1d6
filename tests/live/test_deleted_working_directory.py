"""Commands in a working directory that has been deleted: absolute paths work, and relative ones are refused as such."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.applying import value

ROOT = Path(__file__).parents[2]
STORE = "--store dir:{0}/store --label cwd"
COMMANDS = [
    f"agent {STORE} --once --status-dir {{0}}/status",
    f"list {STORE}",
    f"put {{0}}/store/a.json {STORE}",
    "validate {0}/store",
    "diff {0}/store",
    "apply {0}/store",
    "show",
    "doctor",
    "demo",
]


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    gone = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    (tmp_path / "gone").mkdir()
    command = ["sh", "-c", gone, "sh", str(tmp_path / "gone"), sys.executable, "-m", "vethlib", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", COMMANDS)
def test_absolute_paths_work(tmp_path: Path, command: str) -> None:
    (tmp_path / "store").mkdir()
    for name, peer in ("a", "b"), ("b", "a"):
        (tmp_path / f"store/{name}.json").write_text(json.dumps(value(name, peer)))
    done = run(tmp_path, *command.format(tmp_path).split())
    assert "bug" not in done.stderr
    assert done.returncode == (1 if command.startswith("diff") else 0), done.stderr


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("option", ["--store=dir:store", "--status-dir=status"])
def test_a_relative_path_is_refused_with_the_reason(tmp_path: Path, option: str) -> None:
    options = {"--store": f"dir:{tmp_path}/store", "--status-dir": f"{tmp_path}/status"}
    (tmp_path / "store").mkdir()
    name, _, given = option.partition("=")
    words = [f"{key}={text}" for key, text in (options | {name: given}).items()]
    done = run(tmp_path, "agent", "--once", "--label", "cwd", *words)
    assert done.returncode == 1
    assert "the working directory has been deleted" in done.stderr
