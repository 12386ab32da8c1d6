"""The sentences of the leak watch of the pytest plugin, all in this table: other tests ask for kinds and names."""

from __future__ import annotations

import socket
import threading

import pytest

from vethlib.pytest_netns.leaks.found import Found
from vethlib.pytest_netns.leaks.leftovers import sentences

A, B = (4, 4026532001), (4, 4026532002)
NAMES = {A: "node a"}
ALIVE = "it keeps the namespace alive"

SENTENCES = [
    (Found("link", None, 7, "br7"), "", "link br7 in the home namespace: delete it before the test ends; "
     "it does not end with any namespace"),
    (Found("link", A, 7, "br7"), "", "link br7 in node a: delete it before the test ends; "
     "it does not end with any namespace"),
    (Found("name", None, 0, "blue"), "the fixture tidy", "namespace blue, in /run/netns (left by the fixture tidy): "
     "remove it with ns.remove() or `ip netns del`"),
    (Found("descriptor", B, 9), "", f"descriptor 9, open on network namespace 4026532002: {ALIVE}; "
     "close its Netns or Topology, with close() or a with statement"),
    (Found("thread", A, 1), "", f"thread 1 (not of Python) in node a: {ALIVE}; "
     "let it return and wait for it, with join() or with result() of its future"),
    (Found("thread", A, threading.get_native_id()), "", "the thread that runs the tests, in node a: it was moved back; "
     "leave a node by ending its with block"),
    (Found("process", A, 42, "sleep 61"), "test_it.py::test_it", "process 42 (sleep 61) in node a "
     "(left by test_it.py::test_it): it was killed; end it before the test ends, or start it with node.start()"),
    (Found("link", A, 7, "d\udcff"), "", r"link d\xff in node a: delete it before the test ends; "
     "it does not end with any namespace"),
    (Found("name", None, 0, "b\udcff\x1b[1m"), "", r"namespace b\xff\x1b[1m, in /run/netns: "
     "remove it with ns.remove() or `ip netns del`"),
    (Found("process", A, 42, "sleep \x1b[1m\n"), "", r"process 42 (sleep \x1b[1m\n) in node a: "
     "it was killed; end it before the test ends, or start it with node.start()"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "origin", "text"), SENTENCES)
def test_a_leak_has_its_sentence(found: Found, origin: str, text: str) -> None:
    assert sentences({found: origin}, NAMES) == [text]


def test_a_socket_has_its_sentence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        (line,) = sentences({Found("socket", A, sock.fileno(), "12"): ""}, NAMES)
        assert line == (
            f"socket {sock.fileno()} (AF_INET, SOCK_DGRAM, bound to {sock.getsockname()!r}) of node a: {ALIVE}; "
            "close it, preferably with a with statement"
        )


def test_those_that_are_not_described_are_counted() -> None:
    *shown, last = sentences({Found("link", None, number, f"br{number}"): "" for number in range(20)}, NAMES)
    assert len(shown) == 12
    assert last == "8 more of this kind: link"
