"""The rules of the test run itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


A_TEST = "import pytest\n\ndef test_it():\n    pytest.skip('nothing here')\n"
A_MODULE = "import pytest\n\npytest.importorskip('nothing_here')\n"


@pytest.mark.parametrize(
    ("skipped", "ci", "told"),
    [
        (A_TEST, "true", "1 failed"),
        (A_TEST, "", "1 skipped"),
        (A_MODULE, "true", "1 error"),
        (A_MODULE, "", "1 skipped"),
    ],
)
def test_a_skip_is_a_failure_in_ci_and_nowhere_else(tmp_path: Path, skipped: str, ci: str, told: str) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(skipped)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        env={"CI": ci, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told in done.stdout


def test_commit_hooks_run_programs_of_the_environment_and_download_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    commands = re.findall(r"entry: (.*)", text)
    assert commands
    assert re.findall(r"language: (.*)", text) == ["system"] * len(commands)
    assert all(command.startswith(".venv/bin/") for command in commands)


def test_the_workflow_runs_what_anybody_can_run() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    jobs = re.findall(r"^  (\w+):\n    runs-on", text, re.MULTILINE)
    assert jobs == ["ubuntu", "debian"]
    assert len(re.findall(r"- run: (?:sudo )?\.ci/run$", text, re.MULTILINE)) == len(jobs)


def test_helpers_are_never_imported_from_test_modules() -> None:
    """Else the one cannot be changed without the other, and a run of both imports it twice."""
    importing = re.compile(r"^\s*(?:from (?:tests|\.)\S*test_\w+ import|import tests\.\S*test_)", re.MULTILINE)
    found = [path for path in (ROOT / "tests").rglob("*.py") if importing.search(path.read_text())]
    assert found == []
