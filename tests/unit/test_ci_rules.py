"""The rules of the test run itself."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]


A_NEED = "import pytest\n\n@pytest.mark.{}\ndef test_it(): ...\n"
FILES = {
    "a_test": "import pytest\n\ndef test_it():\n    pytest.skip('nothing here')\n",
    "a_module": "import pytest\n\npytest.importorskip('nothing_here')\n",
    "no_such_cpus": A_NEED.format("needs_cpus(10**6)"),
    "too_new": A_NEED.format("needs_kernel('99.0')"),
    "old": A_NEED.format("needs_kernel('3.0')"),
}


@pytest.mark.parametrize(
    ("ci", "told", "named"),
    [
        ("true", {"failed": 1, "passed": 1, "skipped": 2, "error": 1}, {("FAILED", "a_test"), ("ERROR", "a_module")}),
        ("", {"passed": 1, "skipped": 4}, set()),
    ],
)
def test_a_skip_is_a_failure_in_ci_but_for_what_the_machine_lacks_and_nowhere_else(
    tmp_path: Path, ci: str, told: dict[str, int], named: set[tuple[str, str]]
) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    for name, text in FILES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        env={"CI": ci, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    assert {what: int(number) for number, what in re.findall(r"(\d+) (failed|passed|skipped|error)", last)} == told
    assert set(re.findall(r"^(FAILED|ERROR) \S*test_(\w+)\.py", done.stdout, re.MULTILINE)) == named


def test_a_need_that_the_machine_meets_but_the_process_does_not_is_a_failure_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    found = needs.lack([pytest.mark.needs_cpus(2).mark])
    assert found is not None
    assert not found.excused
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    found = needs.lack([pytest.mark.needs_cpus(2).mark])
    assert found is not None
    assert found.excused


def test_a_module_that_can_be_loaded_but_not_used_is_no_excuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(needs._USES, "made_up", "false")
    needed = [pytest.mark.needs_module("made_up").mark]
    found = needs.lack(needed)
    assert found is not None
    assert found.excused

    needs._module.cache_clear()
    monkeypatch.setattr(needs, "_machine_has", lambda name: name == "made_up")
    found = needs.lack(needed)
    assert found is not None
    assert not found.excused
    needs._module.cache_clear()


@pytest.mark.parametrize(
    ("running", "needed", "is_met"),
    [("5.10.46", "5.10", True), ("6.2.0", "6.12", False), ("6.12.0-rc1", "6.2", True), ("7.2-arch", "6.12", True)],
)
def test_kernels_are_compared_by_number(
    monkeypatch: pytest.MonkeyPatch, running: str, needed: str, is_met: bool
) -> None:
    monkeypatch.setattr(platform, "release", lambda: running)
    assert (needs.lack([pytest.mark.needs_kernel(needed).mark]) is None) == is_met


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
    """Otherwise, one cannot be changed without the other, and a run of both imports it twice."""
    importing = re.compile(r"^\s*(?:from (?:tests|\.)\S*test_\w+ import|import tests\.\S*test_)", re.MULTILINE)
    found = [path for path in (ROOT / "tests").rglob("*.py") if importing.search(path.read_text())]
    assert found == []
