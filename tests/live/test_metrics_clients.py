"""Whatever clients send to the metrics endpoint of an agent, the health check is answered at once."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from tests.live.descriptors import no_descriptor_left
from tests.live.scraping import get, has_ended
from tests.witness import ip, poll
from vethlib.agent.limits import Limits
from vethlib.agent.metrics import Endpoint
from vethlib.agent.metrics.endpoint import Address

SOON = 20.0  # seconds, on a machine that is busy


class Numbers:
    """What is collected: a lot of text, slowly if asked to."""

    def __init__(self) -> None:
        self.times = 0
        self.lines = 10
        self.seconds = 0.0
        self.error: Exception | None = None

    def collect(self) -> Iterator[Any]:
        self.times += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        family = GaugeMetricFamily("some", "numbers", labels=["which"])
        for number in range(self.lines):
            family.add_metric([f"{number:0100}"], number)
        yield family


@contextmanager
def served(numbers: Numbers, **limits: Any) -> Iterator[int]:
    """The port of an endpoint on a loop of its own."""
    registry = CollectorRegistry()
    registry.register(numbers)
    numbers.times = 0
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    endpoint = Endpoint(Address("127.0.0.1", 0), registry, lambda: "", limits=Limits(**limits))

    async def serve() -> None:
        async with endpoint:
            ready.set()
            await done.wait()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield endpoint.address.port
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()


@pytest.fixture
def numbers(home: object) -> Numbers:
    ip("link", "set", "lo", "up")
    return Numbers()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def is_well(port: int) -> bool:
    began = time.monotonic()
    return get(port, "/healthz")[::2] == ("200 OK", "ok\n") and time.monotonic() - began < SOON


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /metrics HTTP/1.1\r\n"])
def test_any_number_of_idle_connections_keeps_nobody_out(numbers: Numbers, sent: bytes) -> None:
    with served(numbers, metrics_clients=16) as port:
        idle = []
        for _ in range(40):
            idle.append(connected(port))
            idle[-1].sendall(sent)
            assert is_well(port)
        assert sum(map(has_ended, idle)) >= 40 - 16
        for one in idle:
            one.close()


def test_one_that_takes_its_time_is_given_a_little(numbers: Numbers) -> None:
    with served(numbers, metrics_seconds=0.5) as port, connected(port) as slow:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 10_000:
                slow.sendall(bytes([byte]))
                time.sleep(0.02)
        assert 0.4 < time.monotonic() - began < 60  # of the 200 s that all of it would take
        assert is_well(port)


def test_one_that_does_not_take_its_answer_delays_nobody_and_is_ended(numbers: Numbers) -> None:
    numbers.lines = 40_000  # more than the kernel keeps for who does not read
    with served(numbers, metrics_seconds=1.0) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(60)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert poll(lambda: numbers.times == 1)
        assert is_well(port)
        time.sleep(3)  # a busy machine gets to the end of the second a little later
        read = 0
        try:
            while more := deaf.recv(1 << 20):
                read += len(more)
        except ConnectionResetError:
            pass
        assert read < 40_000 * 100


OPENMETRICS = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version="
ODD: dict[str, bytes] = {
    "a version that is no number": OPENMETRICS + b"1.a\r\n\r\n",
    "a version of nothing": OPENMETRICS + b"\r\n\r\n",
    "a version of many parts": OPENMETRICS + b"1.0.0.0.\r\n\r\n",
    "an escaping nobody knows": b"GET /metrics HTTP/1.1\r\nAccept: text/plain;version=1.0.0;escaping=x=y\r\n\r\n",
    "a lot to accept": b"GET /metrics HTTP/1.1\r\nAccept: " + b";,=" * 2000 + b"\r\n\r\n",
    "bytes that are no text": b"GET /metrics HTTP/1.1\r\nAccept: \xff\x00\xfe;version=\xff\r\n\r\n",
    "two of a header": b"GET /metrics HTTP/1.1\r\nAccept: a\r\nAccept: version=b\r\n\r\n",
    "a line without a colon": b"GET /metrics HTTP/1.1\r\nnonsense\r\n : \r\n\r\n",
    "a folded line": b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n  ;version=x\r\n\r\n",
    "no carriage returns": b"GET /metrics HTTP/1.1\n\n",
    "an absolute address": b"GET http://x:1/metrics?a=b HTTP/1.1\r\n\r\n",
    "two at once": b"GET /metrics HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
    "a body": b"GET /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
}
REFUSED: dict[str, bytes] = {
    "HTTP/0.9": b"GET /metrics\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": b"get /metrics HTTP/1.1\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "zeros": bytes(10_000),
    "an empty line": b"\r\n\r\n",
    "a line without an end": b"G" * 100_000,
    "a path of spaces": b"GET / metrics HTTP/1.1\r\n\r\n",
    "a control character": b"GET /met\x07rics HTTP/1.1\r\n\r\n",
    "a long path": b"GET /" + b"x" * 8100 + b" HTTP/1.1\r\n\r\n",
}


def answer_to(port: int, sent: bytes) -> bytes:
    with connected(port) as client:
        received = b""
        try:
            client.sendall(sent)
            while more := client.recv(1 << 16):
                received += more
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received


def test_odd_requests_are_answered_or_refused_and_nothing_is_logged_of_them(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    with served(numbers) as port:
        caplog.clear()
        for what, sent in ODD.items():
            received = answer_to(port, sent)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n"), what
            assert b"some{" in received, what
        for what, sent in REFUSED.items():
            assert answer_to(port, sent)[:10] in (b"", b"HTTP/1.1 4"), what
        for method in ("OPTIONS", "DELETE", "CONNECT", "TRACE"):
            assert answer_to(port, f"{method} /metrics HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 405 ")
        assert is_well(port)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_request_may_come_in_any_pieces_and_its_sender_may_leave_at_any_time(numbers: Numbers) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(numbers) as port:
        for length in range(len(request)):
            with connected(port) as client:
                client.sendall(request[:length])
                if length % 3 == 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
                elif length % 3 == 1:
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(1) == b""
                else:
                    client.sendall(request[length:])
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert is_well(port)


def test_numbers_that_cannot_be_collected_are_an_answer_and_one_line_of_the_log(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    with served(numbers) as port:
        numbers.error = RuntimeError("broken")
        caplog.clear()
        assert [get(port, "/metrics")[0] for _ in range(3)] == ["500 Internal Server Error"] * 3
        assert is_well(port)
        assert len(caplog.records) == 1
        numbers.error = None
        assert get(port, "/metrics")[0] == "200 OK"


def test_who_asks_without_end_takes_a_part_of_the_loop(numbers: Numbers) -> None:
    numbers.seconds = 0.1
    with served(numbers) as port:
        began = time.monotonic()
        while time.monotonic() - began < 1:
            assert get(port, "/metrics")[0] == "200 OK"
        assert numbers.times <= 4 * (time.monotonic() - began)


SPOKEN = ("application/openmetrics-text;version={}", "text/plain;version={}", "text/plain;version=1.0.0;escaping={}")


def test_who_asks_for_ever_new_versions_takes_no_more_of_the_loop_and_of_memory(numbers: Numbers) -> None:
    numbers.seconds = 0.1
    kinds = set()
    with served(numbers) as port:
        began = time.monotonic()
        for number in range(1_000_000):
            status, headers, body = get(port, "/metrics", SPOKEN[number % 3].format(f"1.0.{number}"))
            assert status == "200 OK"
            assert "some{" in body
            kinds.add(headers["content-type"])
            if time.monotonic() - began > 2:
                break
        assert numbers.times <= 4 * (time.monotonic() - began)
    assert len(kinds) <= 3


def test_without_descriptors_callers_take_turns_and_nobody_spins(numbers: Numbers) -> None:
    with served(numbers) as port:
        assert is_well(port)
        callers = [socket.socket() for _ in range(20)]
        with no_descriptor_left():
            before = time.process_time()
            for number, one in enumerate(callers):
                one.settimeout(60)
                one.connect(("127.0.0.1", port))
                if number % 2:  # the others are silent, and stay
                    one.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                    assert one.recv(100).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.5)
            assert time.process_time() - before < 0.3
        for one in callers:
            one.close()
        assert is_well(port)


def test_a_limit_of_the_request_above_all_memory_is_none() -> None:
    with served(Numbers(), metrics_head_bytes=10**15) as port:
        assert get(port, "/healthz")[0].endswith("200 OK")
