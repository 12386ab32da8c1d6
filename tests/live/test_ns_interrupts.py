"""KeyboardInterrupt at any instant, and the thread is at home.

Two ways of finding the instant: a signal that is raised at one bytecode from inside C, so that the interpreter acts on
it at the next place where it looks; and thousands of timers that go off at random. Both are first shown to catch the
context manager that everybody would write.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.interrupts import boundaries, distinct, interrupted
from tests.programs import children, runs
from tests.witness import open_fds, poll
from vethlib import ns
from vethlib.errors import NetnsNotFound
from vethlib.ns import entering
from vethlib.topology import Node, Topology

SECONDS = float(os.environ.get("VETHLIB_STRESS_SECONDS", "3"))

_raise_signal = ctypes.PyDLL(None)["raise"]


def inode(path: str = "/proc/thread-self/ns/net") -> int:
    return os.stat(path).st_ino


def pending_signal() -> Iterator[int]:
    """Unpacked, it leaves a signal pending: C calls C in there, and the interpreter looks for signals nowhere."""
    return map(_raise_signal, [signal.SIGUSR1])


class Interrupts:
    """Set the signal handlers: they raise an interrupt while `armed`, and do nothing otherwise."""

    def __init__(self) -> None:
        self.armed = False
        self.count = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.count += 1
            raise KeyboardInterrupt


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    interrupts = Interrupts()
    before = {number: signal.signal(number, interrupts.handle) for number in (signal.SIGALRM, signal.SIGUSR1)}
    # An interrupt that hits a __del__ is printed and swallowed there, as always in Python; and objects that were
    # made but not yet assigned when it came are unclosed. Neither is what is looked for here.
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    # Coverage's tracer calls Python to take a lock at each function's entry; interrupted there, it never lets go of it.
    trace = sys.gettrace()
    sys.settrace(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield interrupts
        gc.collect()
    sys.settrace(trace)
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def home(interrupts: Interrupts) -> Iterator[int]:
    """The inode of home, to which the thread is returned after the test, however that ended."""
    with ns.open_owned("") as descriptor:
        yield os.fstat(descriptor.fileno()).st_ino
        signal.setitimer(signal.ITIMER_REAL, 0)
        entering._enter(descriptor.fileno(), 0)


@pytest.fixture
def fds() -> Iterator[list[int]]:
    for name in ("blue", "red"):
        subprocess.run(["ip", "netns", "add", name], check=True)
    fds = [ns.open_fd("blue"), ns.open_fd("red")]
    yield fds
    for fd in fds:
        os.close(fd)
    for name in ns.names():
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def node() -> Iterator[Node]:
    with Topology.build("node a") as net:
        yield net["a"]


class Obvious:
    """The naive context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> None:
        self.home = ns.current()
        entering._enter(self.fd, 0)

    def __exit__(self, *exception: object) -> None:
        entering._enter(self.home.fileno(), 0)


def interrupted_at_the_end_of(block: AbstractContextManager[Any], interrupts: Interrupts, count: int = 1) -> None:
    pending = pending_signal()
    interrupts.armed = True
    with pytest.raises(KeyboardInterrupt), block:
        (_,) = pending
    assert interrupts.count == count


def test_a_signal_at_the_end_of_a_block_strands_the_obvious_way(
    interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    interrupted_at_the_end_of(Obvious(fds[0]), interrupts)
    assert inode() == inode("/run/netns/blue")


def test_a_signal_at_the_end_of_a_block_finds_the_thread_at_home(
    interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    interrupted_at_the_end_of(ns.entered("blue"), interrupts)
    assert inode() == home


def test_a_signal_together_with_an_exception_finds_the_thread_at_home(
    interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    pending = pending_signal()
    interrupts.armed = True

    def fail() -> None:
        with ns.entered("blue"):
            (zero,) = pending
            zero / zero

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert inode() == home


def test_a_signal_at_the_end_of_a_block_in_a_node_finds_the_thread_at_home(
    node: Node, interrupts: Interrupts, home: int
) -> None:
    interrupted_at_the_end_of(node, interrupts)
    assert inode() == home
    with node:
        interrupted_at_the_end_of(node, interrupts, 2)
        assert inode() == node.netns.identity[1]
    assert inode() == home


@pytest.mark.parametrize("name", ["call_in", "map_in", "call_in_new"])
def test_a_signal_during_the_function_finds_the_thread_at_home(
    name: str, interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    be_hit = partial(_raise_signal, signal.SIGUSR1)
    calls: dict[str, Callable[[], object]] = {
        "call_in": lambda: ns.call_in(fds[0], be_hit),
        "map_in": lambda: ns.map_in(fds, be_hit),
        "call_in_new": lambda: ns.call_in_new(be_hit),
    }
    interrupts.armed = True
    with pytest.raises(KeyboardInterrupt):
        calls[name]()
    assert inode() == home


def in_block(fd: int) -> None:
    with ns.entered(f"fd:{fd}"):
        pass


def in_blocks(fds: list[int]) -> None:
    with ns.entered("blue"), ns.entered(f"fd:{fds[1]}"):
        pass


def in_obvious_block(fd: int) -> None:
    with Obvious(fd):
        pass


def in_sockets(fds: list[int]) -> None:
    for made in ns.map_in(fds, socket.socket):
        made.close()


def repeat(operation: Callable[[], object], interrupts: Interrupts) -> None:
    """Call the operation until an interrupt, even if a __del__ swallows it.

    A function of its own: in Python 3.13 the jump back to the head of a loop is in no `try` block, and there the
    interpreter looks for signals (github.com/python/cpython/issues/130279).
    """
    while interrupts.armed:
        operation()


def bombard(
    operation: Callable[[], object], home: int, interrupts: Interrupts, seconds: float, at_least: int = 0
) -> int:
    """Repeat the operation under interrupts at random moments; return how often the thread was not in home afterwards.

    It goes on for these seconds, and until there were `at_least` this many interrupts, which a busy machine delays.
    """
    operation()
    began = time.perf_counter()
    operation()
    usual = time.perf_counter() - began
    stranded = 0
    end = time.monotonic() + seconds
    while (time.monotonic() < end or (interrupts.count < at_least and time.monotonic() < end + 60)) and not stranded:
        try:
            interrupts.armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2 * usual))
            repeat(operation, interrupts)
        except KeyboardInterrupt:
            pass
        stranded += inode() != home
    interrupts.armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    return stranded


def test_random_signals_strand_the_obvious_way(interrupts: Interrupts, home: int, fds: list[int]) -> None:
    assert bombard(lambda: in_obvious_block(fds[0]), home, interrupts, 20) == 1


OPERATIONS: dict[str, Callable[[list[int]], object]] = {
    "entered": lambda fds: in_block(fds[0]),
    "entered twice": in_blocks,
    "call_in": lambda fds: ns.call_in(fds[0], inode),
    "call_in for a socket": lambda fds: ns.call_in(fds[0], socket.socket).close(),
    "map_in": lambda fds: ns.map_in(fds * 3, inode),
    "map_in for sockets": lambda fds: in_sockets(fds),
    "open_owned": lambda fds: ns.open_owned("blue"),
    "anonymous": lambda fds: ns.Netns.anonymous().close(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_random_signals_find_the_thread_at_home_and_nothing_open(
    name: str, interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    assert bombard(lambda: OPERATIONS[name](fds), home, interrupts, SECONDS / (len(OPERATIONS) + 1), at_least=21) == 0
    assert interrupts.count > 20
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def in_node(node: Node) -> None:
    with node:
        pass


def in_node_twice(node: Node) -> None:
    with node, node:
        pass


def in_node_and_elsewhere(node: Node) -> None:
    with node, ns.entered(""), node:
        pass


@pytest.mark.parametrize("operation", [in_node, in_node_twice, in_node_and_elsewhere])
def test_random_signals_in_the_block_of_a_node_find_the_thread_at_home_and_nothing_open(
    operation: Callable[[Node], None], node: Node, interrupts: Interrupts, home: int
) -> None:
    operation(node)
    before = open_fds()
    assert bombard(lambda: operation(node), home, interrupts, SECONDS / (len(OPERATIONS) + 1), at_least=21) == 0
    assert interrupts.count > 20
    assert open_fds() == before
    operation(node)
    assert inode() == home


def test_random_signals_during_creation_leave_no_half_of_a_namespace(
    interrupts: Interrupts, home: int, fds: list[int]
) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    end = time.monotonic() + max(SECONDS / 3, 0.5)
    while time.monotonic() < end or (interrupts.count <= 20 and time.monotonic() < end + 60):
        try:
            interrupts.armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-3))
            ns.Netns.create("stress").close()
        except KeyboardInterrupt:
            pass
        interrupts.armed = False
        assert inode() == home
        if "stress" in ns.names():
            ns.open_owned("stress")  # whole, not a leftover file
            ns.remove("stress")
    assert interrupts.count > 20
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(NetnsNotFound):
        ns.open_owned("stress")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("use", ["ns.run", "node.run"])
def test_an_interruption_of_a_run_at_any_bytecode_ends_the_program(use: str, tmp_path: Path) -> None:
    functions = {"completed", "_communicated", "Errand.run", "Popen.__enter__", "Popen.communicate"}
    functions |= {"Errand._let_end", "ExitStack.__exit__"}  # which such a function must not depend on
    written, pause = tmp_path / "written", 0.1

    def belongs(code: CodeType) -> bool:
        return code.co_qualname in functions

    with Topology.build("node a") as net:
        start = net["a"].run if use == "node.run" else partial(ns.run, net["a"])
        run = partial(start, ["sh", "-c", f"sleep {pause}; echo >{written}"])
        others = children()
        run()
        threads = len(os.listdir("/proc/self/task"))
        for boundary in distinct(boundaries(run, belongs)):
            written.unlink(missing_ok=True)
            began = time.monotonic()
            interrupted(run, boundary)
            if time.monotonic() - began < pause:
                assert poll(lambda: not any(map(runs, children() - others)))
                assert not written.exists(), boundary
            assert poll(lambda: len(os.listdir("/proc/self/task")) <= threads), boundary
        gc.collect()  # pipes, while the warnings about them are ignored
