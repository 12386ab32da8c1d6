"""Waiting until something listens in a node, and what a wait in vain reports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.refusing import raises
from vethlib import WaitTimeout
from vethlib.topology import Node, Topology
from vethlib.topology.live.state import describe


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b; node lonely") as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


@pytest.mark.parametrize(("kind", "udp"), [(socket.SOCK_STREAM, False), (socket.SOCK_DGRAM, True)])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_wait_listening_returns_when_something_listens(node: Node, family: int, kind: int, udp: bool) -> None:
    def listen_later() -> None:
        time.sleep(0.1)
        server.bind(("::" if family == socket.AF_INET6 else "", 80))
        if not udp:
            server.listen()

    with node.socket(family, kind) as server:
        listening = threading.Thread(target=listen_later)
        listening.start()
        node.wait_listening(80, udp=udp)
        listening.join()


def test_wait_listening_gives_up_in_time(node: Node) -> None:
    with node.socket() as bound:
        bound.bind(("", 80))  # which is not to listen
        with raises(WaitTimeout, awaited="listener", name="a", seconds=0.05):
            node.wait_listening(80, timeout=0.05)


def test_wait_listening_waits_for_a_program_that_goes_to_the_background(node: Node) -> None:
    server = "import socket, time; s = socket.create_server(('', 80)); time.sleep(600)"
    node.start(["sh", "-c", f'(sleep 0.2; exec {sys.executable} -c "{server}") &'])
    node.wait_listening(80, timeout=10)


def test_wait_listening_does_not_wait_for_a_program_that_has_ended(node: Node) -> None:
    node.start(["sh", "-c", "exit 3"])
    with raises(WaitTimeout, awaited="listener", name="a", seconds=60):
        node.wait_listening(80, timeout=60)


def end(program: subprocess.Popen[str], number: int, *, reap: bool) -> None:
    program.send_signal(number)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    if reap:
        program.wait()


ENDINGS: dict[str, Callable[[subprocess.Popen[str]], object]] = {
    "terminate and wait": partial(end, number=signal.SIGTERM, reap=True),
    "kill and wait": partial(end, number=signal.SIGKILL, reap=True),
    "interrupt and wait": partial(end, number=signal.SIGINT, reap=True),
    "terminate": partial(end, number=signal.SIGTERM, reap=False),
    "kill": partial(end, number=signal.SIGKILL, reap=False),
    "its exit code": lambda program: program.communicate("exit 7\n"),
}


def serve_later() -> socket.socket:
    time.sleep(0.3)
    return socket.create_server(("", 80))


@pytest.mark.parametrize("begins", ["submit", "run"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_wait_listening_waits_although_a_program_has_ended_as_the_test_knows(
    node: Node, ending: str, begins: str
) -> None:
    first = node.start(["sh"], stdin=subprocess.PIPE)
    ENDINGS[ending](first)
    if begins == "submit":
        serving = node.submit(serve_later)
    else:
        server = "import socket, time; time.sleep(0.3); s = socket.create_server(('', 80)); time.sleep(600)"
        node.run(["sh", "-c", f'{sys.executable} -c "{server}" <&- >&- 2>&- &'])
    node.wait_listening(80, timeout=60)
    if begins == "submit":
        serving.result().close()


@pytest.mark.parametrize("ending", ENDINGS)
def test_wait_listening_does_not_wait_if_the_next_program_fails(node: Node, ending: str) -> None:
    ENDINGS[ending](node.start(["sh"], stdin=subprocess.PIPE))
    node.start(["sh", "-c", "exit 3"])
    with raises(WaitTimeout, awaited="listener", name="a", seconds=60):
        node.wait_listening(80, timeout=60)


LOOKS: dict[str, Callable[[Node], object]] = {
    "wait_listening": lambda node: refused_at_once(node, 81),
    "wait_listening for UDP": lambda node: refused_at_once(node, 81, udp=True),
    "wait_listening in vain": lambda node: refused_at_once(node, 81, timeout=0),
    "the report of a failed test": lambda node: describe(node),
}


def refused_at_once(node: Node, port: int, **options: Any) -> None:
    with pytest.raises(WaitTimeout):
        node.wait_listening(port, **{"timeout": 60, **options})


@pytest.mark.parametrize("script", ["exit 3", "kill -SEGV $$"])
@pytest.mark.parametrize("look", LOOKS)
def test_wait_listening_does_not_wait_for_a_program_of_which_only_the_library_knows_that_it_has_failed(
    node: Node, look: str, script: str
) -> None:
    failing = node.start(["sh", "-c", script])
    os.waitid(os.P_PID, failing.pid, os.WEXITED | os.WNOWAIT)
    LOOKS[look](node)
    begun = time.monotonic()
    refused_at_once(node, 80)
    refused_at_once(node, 80)
    assert time.monotonic() - begun < 50


def test_wait_listening_leaves_it_to_the_test_to_wait_for_a_program(node: Node) -> None:
    failing = node.start(["sh", "-c", "exit 3"])
    refused_at_once(node, 80)
    assert failing.returncode is None
    assert failing.wait() == 3
    serving = node.submit(serve_later)
    node.wait_listening(80, timeout=60)
    serving.result().close()


def test_wait_listening_waits_for_what_a_program_has_started_that_ended_well(node: Node) -> None:
    server = "import socket, time; time.sleep(0.5); s = socket.create_server(('', 80)); time.sleep(600)"
    node.start(["sh", "-c", f'{sys.executable} -c "{server}" <&- >&- 2>&- &']).wait()
    node.start(["false"])
    node.wait_listening(80, timeout=60)


def a_program_has_failed(node: Node) -> None:
    node.start(["sh", "-c", "exit 3"])
    node.wait_listening(80, timeout=60)


TIMEOUTS: dict[str, Callable[[Node], object]] = {
    "nothing listens on TCP port 80 in node a after 0 s": lambda node: node.wait_listening(80, timeout=0),
    "nothing listens on UDP port 80 in node a after 0 s": lambda node: node.wait_listening(80, udp=True, timeout=0),
    "nothing listens on TCP port 80 in node a; sh ended with exit code 3": a_program_has_failed,
    "list does not hold in node a after 0 s": lambda node: node.wait_for(list, timeout=0),
    "partial does not hold in node a after 0 s: [Errno 2] No such file or directory: ''": lambda node: node.wait_for(
        partial(open, ""), timeout=0
    ),
}


def test_a_wait_in_vain_names_the_last_programs_only(node: Node) -> None:
    for program in [node.start(["sh", "-c", "exit 3"]) for _ in range(50)]:
        program.wait()
    node.start(["sh", "-c", "exit 4"])
    with pytest.raises(WaitTimeout) as caught:
        node.wait_listening(80, timeout=60)
    assert str(caught.value).count("exit code 3") < 20
    assert str(caught.value).count("exit code 4") == 1


@pytest.mark.parametrize("sentence", TIMEOUTS)
def test_a_wait_in_vain_has_this_sentence(node: Node, sentence: str) -> None:
    with pytest.raises(WaitTimeout) as caught:
        TIMEOUTS[sentence](node)
    assert str(caught.value) == sentence
