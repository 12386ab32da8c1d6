"""Without inotify_simple, following files raises an error that names the missing package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDDEN = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda _, name, *rest: None if name == "inotify_simple" else find(name, *rest))
from vethlib.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("option", ["-B", "-OO"])
@pytest.mark.parametrize(
    "command", ["watch --timeout 1", "agent --once --label x --store dir:{}", "status --watch --label x --store dir:{}"]
)
def test_the_missing_package_is_named(tmp_path: Path, option: str, command: str) -> None:
    words = command.format(tmp_path).split()
    done = subprocess.run(
        [sys.executable, option, "-c", HIDDEN, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "inotify_simple" in done.stderr
    assert "pip install" in done.stderr
    assert "bug" not in done.stderr
