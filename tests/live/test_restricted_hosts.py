"""On hosts whose distribution restricts user namespaces, an ordinary user is told which sysctl allows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.restricted_host import KINDS, can_refuse, on_restricted_host

ROOT = Path(__file__).parents[2]
VETHCTL = [sys.executable, "-m", "vethlib"]
ALLOWING = {
    "user.max_user_namespaces": "user.max_user_namespaces=10000",
    "kernel.unprivileged_userns_clone": "kernel.unprivileged_userns_clone=1",
    "kernel.apparmor_restrict_unprivileged_userns": "kernel.apparmor_restrict_unprivileged_userns=0",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != "user.max_user_namespaces" and not can_refuse():
        pytest.skip("the numbers of the system calls of this machine are not known")
    return str(request.param)


def run(kind: str, *command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*on_restricted_host(kind), *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def test_demo_names_the_sysctl(kind: str) -> None:
    done = run(kind, *VETHCTL, "--json", "demo")
    assert (done.returncode, done.stdout) == (2, "")
    told = json.loads(done.stderr)
    assert told["code"] == "not-permitted"
    assert f"sysctl {ALLOWING[kind]}" in told["error"]


def test_doctor_finds_it_and_names_the_sysctl(kind: str) -> None:
    findings = {one["check"]: one for one in json.loads(run(kind, *VETHCTL, "--json", "doctor").stdout)}
    found = findings["user namespaces"]
    assert (found["ok"], found["needed"]) == (False, False)
    assert ALLOWING[kind] in found["cure"]


def pytest_there(kind: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text("def test_it(netns):\n    pass\ndef test_another():\n    pass\n")
    plugin = ("-p", "vethlib.pytest_netns.plugin") if not _is_installed() else ()
    options = ("-q", "-rs", "-p", "no:cacheprovider", *plugin, *arguments)
    return run(kind, sys.executable, "-m", "pytest", *options, cwd=directory)


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.value.startswith("vethlib.pytest_netns") for point in entry_points(group="pytest11"))


def test_the_plugin_skips_what_needs_namespaces_and_names_the_sysctl(kind: str, tmp_path: Path) -> None:
    done = pytest_there(kind, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (skipped,) = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert f"sysctl {ALLOWING[kind]}" in skipped
    assert "1 passed, 1 skipped" in done.stdout


def test_isolation_that_is_required_is_a_usage_error_there(kind: str, tmp_path: Path) -> None:
    done = pytest_there(kind, tmp_path, "--netns-isolate=always")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"sysctl {ALLOWING[kind]}" in done.stderr


def test_make_quick_runs_there_and_names_the_sysctl(kind: str, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && {{ echo "$@"; exit; }}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = run(kind, "scripts/test", "--quick", VENV=str(tmp_path))
    assert done.returncode == 0
    assert "--netns-isolate=never" in done.stdout
    assert f"sysctl {ALLOWING[kind]}" in done.stderr
    assert "Traceback" not in done.stderr
