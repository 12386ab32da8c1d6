"""A program whose exit status cannot be known is never reported as successful.

The kernel discards the statuses of children if SIGCHLD is ignored, as it is after ``trap '' CHLD``; and another part of
a program may wait for every child.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.plugin import Project
from vethlib.agent.hooks import Hooks
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.state import State
from vethlib.agent.status import Status

ROOT = Path(__file__).parents[2]
IGNORED = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
REAPED = """
import os, threading, time
def reap():
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED)
        except ChildProcessError:
            time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
"""
WITH_NODE = """
import errno, subprocess, sys, time
from vethlib import NotSupported, ns
from vethlib.topology import Topology
net = Topology.build("a -- b")
a = net["a"]
"""
UNKNOWN = 255


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def outcome(*code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", "\n".join(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    return done.stdout.strip()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("program", ["true", "false"])
@pytest.mark.parametrize(
    "call", ["ns.run(a.netns, [{program!r}])", "a.run([{program!r}])", "a.run([{program!r}], check=False)"]
)
def test_a_program_is_not_run_if_its_exit_status_would_be_discarded(call: str, program: str) -> None:
    code = f"""
try:
    print({call.format(program=program)})
except NotSupported as error:
    print(error.errno)
"""
    assert outcome(IGNORED, WITH_NODE, code) == str(errno.ECHILD)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "wait",
    [
        "program.wait()",
        "program.wait(60)",
        "next(status for status in iter(program.poll, 0.5) if status is not None)",
        "program.communicate() and program.returncode",
    ],
)
def test_a_program_that_was_started_has_no_exit_status_that_is_not_its_own(wait: str) -> None:
    started = "program = a.start(['sh', '-c', 'sleep 0.2; exit 3'])"
    assert outcome(WITH_NODE, IGNORED, started, f"print({wait})", "net.close()") == str(UNKNOWN)
    # Which of the two is first is not certain.
    assert outcome(WITH_NODE, REAPED, started, f"print({wait})", "net.close()") in ("3", str(UNKNOWN))


@pytest.mark.usefixtures("home")
def test_a_program_that_somebody_else_waits_for_has_not_succeeded() -> None:
    code = """
def taken(pid, *_):
    raise ChildProcessError(errno.ECHILD, "")
from vethlib.ns.programs import start
start.posix = type("posix", (), dict(waitpid=staticmethod(taken)))
print(ns.run(a.netns, ["true"]).returncode)
"""
    assert outcome(WITH_NODE, code) == str(UNKNOWN)


@pytest.mark.usefixtures("home")
def test_exit_statuses_are_those_of_the_programs_otherwise() -> None:
    code = """
print(ns.run(a.netns, ["sh", "-c", "exit 3"]).returncode, a.run(["true"]).returncode, end=" ")
print(a.start(["sh", "-c", "kill -9 $$"]).wait(60), a.start(["false"]).wait())
"""
    assert outcome(WITH_NODE, code) == "3 0 -9 1"


def test_ids_are_not_taken_for_mapped_by_a_helper_whose_exit_status_is_unknown(tmp_path: Path) -> None:
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    code = f"""
import os
os.environ["PATH"] = {str(tmp_path)!r} + ":" + os.environ["PATH"]
from vethlib.ns import idmap
idmap._granted_in = lambda *_: [(100000, 65536)]
print(idmap.Mapper(0, 0).map())
"""
    assert outcome(IGNORED, code) == "False"


def test_a_hook_whose_exit_status_is_unknown_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    ignored = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with caplog.at_level(logging.INFO, "vethlib"), Hooks([f"exec:{hook}"]) as hooks:
            hooks.tell(StatusChange("a", Status("a", State.FAILED, "for a reason", 0.0), None))
            assert hooks.drain(60)
            assert (hooks.counts()[0].delivered, hooks.counts()[0].failed) == (0, 1)
    finally:
        signal.signal(signal.SIGCHLD, ignored)
    assert "SIGCHLD" in caplog.text


def test_a_test_run_does_not_inherit_that_sigchld_is_ignored(project: Project) -> None:
    project.write("""
import signal, subprocess

def test_statuses_are_known(netns_session):
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert subprocess.run(["false"]).returncode == 1
""")
    project.run(before=["bash", "-c", 'trap "" CHLD; exec "$@"', "bash"]).assert_outcomes(passed=1)


@pytest.mark.parametrize("fixture", ["veth", "module_veth"])
def test_a_test_that_leaves_sigchld_ignored_hides_no_exit_status_from_later_ones(
    project: Project, fixture: str
) -> None:
    project.write(f"""
import signal, subprocess
import pytest

def test_statuses_are_known({fixture}):
    assert {fixture}.a.run(["false"], check=False).returncode == 1

def test_ignores():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def test_statuses_are_known_again({fixture}):
    assert {fixture}.a.run(["false"], check=False).returncode == 1
    assert subprocess.run(["false"]).returncode == 1
""")
    project.run().assert_outcomes(passed=3)
