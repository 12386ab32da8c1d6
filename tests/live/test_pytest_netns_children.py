"""A child that a test has forked, and that goes on with the run, takes nothing from its parent, which still uses it."""

from __future__ import annotations

import pytest

from .plugin import Project

pytestmark = pytest.mark.slow

_FORKS = """
import json, os, socket, subprocess, sys
import pytest

def forks():
    "The child goes on when this returns, and has ended when the block of the parent ends."
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        {end}
        return None
    os.close(read)
    return pid, write

def goes_on(pid, write):
    os.close(write)
    os.waitpid(pid, 0)

def ip(*arguments):
    return subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True).stdout
"""

_PROGRAMS = """
@pytest.fixture(scope="module")
def of_module(module_topology):
    return module_topology("a -- b")["a"].start(["sleep", "600"])

PROGRAMS = []

def test_first(of_module):
    PROGRAMS.append(of_module)

def test_watched(topology):
    judge(PROGRAMS + [topology("a -- b")["a"].start(["sleep", "600"])])

def test_without_a_fixture():
    judge(PROGRAMS)

def judge(programs):
    child = forks()
    if child is None:
        return
    ip("link", "add", "x0", "type", "veth", "peer", "name", "x1")
    goes_on(*child)
    assert {link["ifname"] for link in json.loads(ip("link"))} >= {"x0", "x1"}
    assert [program.poll() for program in programs] == [None] * len(programs)
    ip("link", "del", "x0")
"""

_CAPTURES = """
def test_it(topology):
    net = topology("a -- b")
    child = forks()
    if child is None:
        return
    goes_on(*child)
    with net["a"].socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"said-after-the-child", (net["b"].ipv4, 7))
    assert False
"""

ENDS = pytest.mark.parametrize("end", ["", "sys.exit(0)"], ids=["returns", "exits"])


@ENDS
@pytest.mark.parametrize("test", ["watched", "without_a_fixture"])
def test_the_programs_and_links_of_the_parent_stay(pytester: pytest.Pytester, end: str, test: str) -> None:
    project = Project(pytester)
    project.write(_FORKS.replace("{end}", end) + _PROGRAMS)
    project.run("-s", "-k", f"first or {test}").assert_outcomes(passed=2, deselected=1)


@ENDS
def test_the_captures_of_the_parent_stay(pytester: pytest.Pytester, end: str) -> None:
    project = Project(pytester)
    project.write(_FORKS.replace("{end}", end) + _CAPTURES)
    result = project.run("-s", "--netns-pcap=failed")
    result.assert_outcomes(failed=1)
    (capture,) = (project.path / ".netns").rglob("*.pcap")
    assert b"said-after-the-child" in capture.read_bytes()


def test_the_nodes_of_the_parent_are_not_kept_for_its_child(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(_FORKS.replace("{end}", "sys.exit(0)") + _CAPTURES.replace("assert False", ""))
    result = project.run("-s", "--netns-keep")
    result.assert_outcomes(passed=1)
    assert "nsenter" not in result.stdout.str()


_FORKS_FIRST = """
import os
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    if "parent" in item.name:
        return None
    pid = os.fork()
    if not pid:
        os._exit(any(report.failed for report in runtestprotocol(item, log=False)))
    with open("statuses", "a") as file:
        print(item.name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=file)
    return True
"""


def test_a_child_that_is_forked_before_its_test_is_watched(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(_FORKS_FIRST, "conftest.py")
    project.write(
        "import subprocess\n"
        "def test_good(veth): pass\n"
        "def test_bad(veth): subprocess.run(['ip', 'link', 'add', 'x0', 'type', 'bridge'], check=True)\n"
    )
    project.run()
    assert (project.path / "statuses").read_text().split() == ["test_good", "0", "test_bad", "1"]


_SET_UP_BY_PARENT = """
import json, socket, subprocess
import pytest

@pytest.fixture(scope="session")
def running(session_topology):
    net = session_topology("a -- b")
    return net, net["a"].start(["sleep", "600"])

SOCKETS = []

@pytest.fixture(scope="session")
def leaving(running):
    "It leaves a link, and a socket of a node."
    subprocess.run(["ip", "link", "add", "x0", "type", "bridge"], check=True)
    SOCKETS.append(running[0]["a"].socket())
    return running

def test_parent_begins(FIXTURE): pass

def test_without_it(): pass

def test_with_it(FIXTURE):
    FIXTURE[0]["b"].run(["true"], check=True)

def test_parent_goes_on(running):
    net, program = running
    with net["a"].socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"said-after-the-children", (net["b"].ipv4, 7))
    assert program.poll() is None
    print("LINKS", [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))])
    assert not FAILS
"""

_PASSED = ["test_without_it", "0", "test_with_it", "0"]


def test_a_child_that_is_forked_before_its_test_takes_nothing_that_its_parent_has_set_up(
    pytester: pytest.Pytester,
) -> None:
    project = Project(pytester)
    project.write(_FORKS_FIRST, "conftest.py")
    project.write(_SET_UP_BY_PARENT.replace("FIXTURE", "running").replace("FAILS", "True"))
    project.run("--netns-pcap=failed").assert_outcomes(failed=1, passed=1)
    assert (project.path / "statuses").read_text().split() == _PASSED
    (capture,) = (project.path / ".netns").rglob("*.pcap")
    assert b"said-after-the-children" in capture.read_bytes()


def test_what_a_fixture_of_the_parent_leaves_is_deleted_and_reported_by_the_parent(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(_FORKS_FIRST, "conftest.py")
    project.write(_SET_UP_BY_PARENT.replace("FIXTURE", "leaving").replace("FAILS", "False"))
    result = project.run("-s")
    result.assert_outcomes(passed=2, errors=1)
    assert (project.path / "statuses").read_text().split() == _PASSED
    result.stdout.fnmatch_lines(["*LINKS *'x0'*", "*left behind: link x0 in *(left by the fixture leaving)*"])
    result.stdout.fnmatch_lines(["*and socket *(left by the fixture leaving)*"])
