"""Programs in which gevent, eventlet, freezegun or pytest-socket has replaced parts of the standard library."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.plugin import Project
from tests.live.runtimes.cases import names_in

PROGRAMS = Path(__file__).parent / "runtimes"
ROOT = Path(__file__).parents[2]


@functools.cache
def results(program: str, *arguments: str) -> dict[str, str]:
    """The results of the cases of a program, up to the case in which it hung."""
    command = [sys.executable, "-m", f"tests.live.runtimes.{program}", *arguments]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=90, check=False)
        printed, said = ran.stdout, ran.stderr.decode()
    except subprocess.TimeoutExpired as error:
        printed, said = error.stdout or b"", "hung"
    told: dict[str, str] = json.loads(printed.splitlines()[-1]) if printed else {}
    return {name: told.get(name, said) for name in names_in(PROGRAMS / f"{program}.py")}


@pytest.mark.parametrize("case", names_in(PROGRAMS / "greenlets.py"))
@pytest.mark.parametrize("patched", ["before", "after"])
@pytest.mark.parametrize("runtime", ["gevent", "eventlet"])
def test_beside_greenlets(runtime: str, patched: str, case: str) -> None:
    assert results("greenlets", runtime, patched)[case] == ""


@pytest.mark.parametrize("case", names_in(PROGRAMS / "frozen.py"))
@pytest.mark.parametrize("stopped", ["before", "after"])
def test_while_the_clocks_stand_still(stopped: str, case: str) -> None:
    assert results("frozen", stopped)[case] == ""


FIXTURES = """
import socket
import {library}

{mark}
def test_it(topology, netns, veth{more}):
    net = topology("a -- r -- b", routes=True)
    net["a"].run(["ping", "-c", "1", "-W", "2", net["b"].ipv4])
    net["b"].start(["sleep", "60"])
    server, client = net["b"].socket(), net["a"].socket()
    server.bind((net["b"].ipv4, 7))
    server.listen()
    client.connect((net["b"].ipv4, 7))
    client.close()
    server.close()
    {last}
"""


def test_fixtures_serve_tests_that_may_have_no_sockets_of_their_own(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    last = "with pytest_socket.pytest.raises(pytest_socket.SocketBlockedError): socket.socket()"
    project.write(FIXTURES.format(library="pytest_socket", mark="", more="", last=last))
    project.run("-p", "pytest_socket", "--disable-socket", "-W", "ignore").assert_outcomes(passed=1)


def test_fixtures_serve_tests_while_the_clocks_stand_still(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    mark = '@freezegun.freeze_time("2020-01-01")'
    project.write(FIXTURES.format(library="freezegun", mark=mark, more="", last=""))
    project.run().assert_outcomes(passed=1)


def test_fixtures_serve_tests_of_greenlets(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(FIXTURES.format(library="gevent", mark="", more="", last=""))
    project.run(module="gevent.monkey --module pytest").assert_outcomes(passed=1)
