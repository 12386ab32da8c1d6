"""How much an event socket receives at a time, with a simulated kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vethlib._nl import events as events_module
from vethlib._nl.events import EventSocket
from vethlib._nl.wire import READ_SIZE

SHORT, MSG_TRUNC = 1500, 0x20


class Kernel:
    """Takes the place of the socket: has events of the lengths in `queue`, and notes the size of each buffer."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.sizes: list[int] = []
        self.port = 0  # the port of the sender

    def recvmsg(self, size: int, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple[int, int]]:
        if not self.queue:
            raise BlockingIOError
        length = self.queue.pop(0)
        self.sizes.append(size)
        return bytes(min(size, length)), [], MSG_TRUNC if length > size else 0, (self.port, 1)

    def setsockopt(self, *_: object) -> None:
        pass

    def getsockopt(self, *_: int) -> int:
        return 1 << 20

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()

    monkeypatch.setattr(events_module, "open_socket", lambda: kernel)
    return kernel


@pytest.fixture
def events(kernel: Kernel) -> Iterator[EventSocket]:
    events = EventSocket([1], 1 << 20)
    yield events
    events.close()


def receive(events: EventSocket, kernel: Kernel, *lengths: int) -> list[int]:
    """Receive events of these lengths; returns how long each was, 0 for one that was cut."""
    kernel.queue += lengths
    received = []
    while (event := events.receive()) is not None:
        received.append(len(event[1] or b""))
    return received


def test_an_event_longer_than_the_buffer_makes_it_grow_until_such_a_one_fits(
    events: EventSocket, kernel: Kernel
) -> None:
    long = 5 * READ_SIZE
    assert receive(events, kernel, *[long] * 5) == [0, 0, 0, long, long]


def test_a_buffer_that_has_grown_is_as_before_some_time_after_the_last_long_event(
    events: EventSocket, kernel: Kernel
) -> None:
    receive(events, kernel, *[30 * READ_SIZE] * 6)
    receive(events, kernel, *[SHORT] * 3000)
    assert kernel.sizes[-1] == READ_SIZE
    assert len(set(kernel.sizes)) == 6  # halved step by step
    assert receive(events, kernel, READ_SIZE) == [READ_SIZE]


def test_long_events_among_short_ones_are_not_cut_again(events: EventSocket, kernel: Kernel) -> None:
    long = 5 * READ_SIZE
    receive(events, kernel, *[long] * 4)
    assert 0 not in receive(events, kernel, *([SHORT] * 200 + [long]) * 20)


def test_a_buffer_that_was_never_too_small_stays_as_it_is(events: EventSocket, kernel: Kernel) -> None:
    receive(events, kernel, *[SHORT] * 3000)
    assert set(kernel.sizes) == {READ_SIZE}


@pytest.mark.parametrize("length", [0, 15, SHORT, READ_SIZE, 5 * READ_SIZE])
def test_what_a_program_sends_is_not_read_and_counts_by_the_room_that_it_takes(
    events: EventSocket, kernel: Kernel, length: int
) -> None:
    kernel.port, kernel.queue = 77, [length, SHORT]
    event = events.receive()
    assert event is not None
    assert event[:2] == (-1, b"")
    assert event[2] == max(1, min(length, READ_SIZE) // 512)
    kernel.port = 0
    assert events.receive() == (-1, bytes(SHORT), 1)
    assert set(kernel.sizes) == {READ_SIZE}
