"""Programs of nodes end with the run, however that ends; and ended programs are in the report of a failure."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.programs import DEADLINE, attended, see_end

from .plugin import Project

STARTS = """
import os, signal, subprocess, time
import pytest

@pytest.fixture(scope="module")
def daemon(module_topology):
    node = module_topology("a -- b")["a"]
    shell = node.start(["sh", "-c", "setsid sleep 600 & echo $!; exec sleep 600"], stdout=subprocess.PIPE)
    with open("pids.part", "w") as file:
        print(shell.pid, shell.stdout.readline(), file=file)
    os.rename("pids.part", "pids")

def test_it(daemon):
    {}
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def see_both_end(project: Project) -> None:
    pids = [int(word) for word in (project.path / "pids").read_text().split()]
    assert len(pids) == 2
    see_end(*pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_programs_end_with_a_run_that_a_signal_ends(project: Project, number: signal.Signals) -> None:
    project.write(STARTS.format("time.sleep(60)"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    with attended(subprocess.Popen(command, cwd=project.path, stdout=subprocess.DEVNULL)) as run:
        deadline = time.monotonic() + DEADLINE
        while not (project.path / "pids").exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.send_signal(number)
    assert run.returncode == -number
    see_both_end(project)


def test_programs_end_with_a_run_that_takes_too_long(project: Project) -> None:
    pytest.importorskip("pytest_timeout")
    project.write(STARTS.format("time.sleep(60)"))
    result = project.run("-p", "timeout", "--timeout=8", "--timeout-method=thread")
    assert result.ret == 1
    assert "Timeout" in result.stderr.str() + result.stdout.str()
    see_both_end(project)


def test_programs_end_with_a_worker_that_crashes(project: Project) -> None:
    project.write(STARTS.format("os.kill(os.getpid(), signal.SIGKILL)"))
    project.run("-n", "1", "--max-worker-restart=0").assert_outcomes(failed=1)
    see_both_end(project)


def test_programs_that_were_started_are_in_the_report_of_a_failure(project: Project) -> None:
    project.write("""
import subprocess
def test_it(veth):
    a, b = veth
    a.start(["sh", "-c", "exit 3"], stderr=subprocess.DEVNULL).wait()
    a.start(["sh", "-c", "kill -9 $$"]).wait()
    a.start(["sleep", "60"])
    assert False
""")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*netns node a*",
            "*sh -c exit 3 ended with exit code 3",
            "*sh -c kill -9 $$ was killed by SIGKILL",
            "*sleep 60 is running (pid *)",
            "*netns node b*",
        ]
    )
