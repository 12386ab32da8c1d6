"""Commands to the relay that are interrupted before its answer, or sent by several threads at once."""

from __future__ import annotations

import fcntl
import select
import signal
import struct
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.programs import freeze
from tests.witness import poll
from vethlib.topology import Impairment, Topology


class Interruption(Exception):
    """The exception that the handler of a signal raises."""


def unread(descriptor: int) -> int:
    """Return how many bytes that were sent through a socket have not been received yet."""
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
    return count


@contextmanager
def interrupted_while_the_relay_is_stopped(net: Topology) -> Iterator[None]:
    """A block whose command is interrupted after it was sent; the relay has not read it by then, but does later."""
    relay = net._relay
    assert relay is not None
    main, control = threading.get_ident(), relay._control.fileno()

    def interrupt() -> None:
        assert poll(lambda: unread(control) > 0)
        signal.pthread_kill(main, signal.SIGUSR1)

    def refuse(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, refuse)
    freeze(relay._process.pid)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(Interruption):
            yield
    finally:
        interrupting.join()
        relay._process.send_signal(signal.SIGCONT)
        signal.signal(signal.SIGUSR1, before)


def test_after_an_interrupted_change_what_happens_on_a_wire_is_what_is_read() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        wire = net.wire("a", "b")
        with interrupted_while_the_relay_is_stopped(net):
            wire.set(loss="100%", towards="b")
        assert wire.impairment("b") == Impairment(delay=0.001, loss=1.0)
        assert wire.impairment("a") == Impairment(delay=0.001)
        assert not net["a"].ping(net["b"], timeout=0.2)
        wire.set(loss=0, towards="b")
        assert net["a"].ping(net["b"])


def test_a_change_after_an_interrupted_one_keeps_what_that_has_changed() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        wire = net.wire("a", "b")
        with interrupted_while_the_relay_is_stopped(net):
            wire.clear()
        wire.set(limit=500)
        assert wire.impairment("b") == Impairment(limit=500)  # the first of both directions
        assert wire.impairment("a") == Impairment(delay=0.001, limit=500)


def test_a_command_after_an_interrupted_one_waits_for_its_own_answer() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        relay, wire = net._relay, net.wire("a", "b")
        assert relay is not None
        with interrupted_while_the_relay_is_stopped(net):
            wire.set(loss="100%", towards="b")
        assert poll(lambda: bool(select.select([relay._control], [], [], 0)[0]))
        freeze(relay._process.pid)
        clearing = threading.Thread(target=wire.clear, kwargs={"towards": "b"})
        clearing.start()
        try:
            clearing.join(0.2)  # nothing is to happen
            assert clearing.is_alive()
        finally:
            relay._process.send_signal(signal.SIGCONT)
            clearing.join()
        assert net["a"].ping(net["b"])


def test_a_relay_that_was_almost_kept_ends_with_its_topology() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        process = net._relay._process
        with interrupted_while_the_relay_is_stopped(net):
            net.let_go()
        ending = threading.Thread(target=net.close, daemon=True)
        ending.start()
        ending.join(20)
        assert not ending.is_alive()
        assert process.poll() is not None


def test_two_threads_that_change_a_wire_leave_what_is_read() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        relay, wire = net._relay, net.wire("a", "b")
        assert relay is not None
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda limit: wire.set(limit=limit), range(100, 300)))
        known = {towards: wire.impairment(towards) for towards in "ab"}
        relay._now.clear()  # so that the relay itself is asked
        assert {towards: wire.impairment(towards) for towards in "ab"} == known
