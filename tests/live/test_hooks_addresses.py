"""Hooks to hosts with several addresses, of which some do not answer, and to name services that do not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.witness import poll
from vethlib.agent.hooks import UrlTarget, read_target
from vethlib.agent.hooks.post import Answer, post

pytestmark = pytest.mark.usefixtures("home")

PATIENCE = 30.0  # more than any of this takes, so that only an address that takes all the time exceeds it


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class HTTP6Server(HTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server at 127.0.0.2, and of one at 127.0.0.1 that accepts nothing."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with ExitStack() as opened, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = int(full.getsockname()[1])
        for _ in range(3):  # its queue is full, so the kernel drops further SYNs
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        with HTTPServer(("127.0.0.2", port), Handler) as server:
            serving = threading.Thread(target=server.serve_forever, args=(0.01,))
            serving.start()
            yield port
            server.shutdown()
            serving.join()


def resolve(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def sent(url: str, timeout: float = PATIENCE) -> Answer:
    target = read_target(url)
    assert isinstance(target, UrlTarget)
    return asyncio.run(post(target, b"{}", timeout))


@pytest.mark.parametrize(
    "hosts",
    [
        ("127.0.0.1", "127.0.0.2"),
        ("127.0.0.3", "127.0.0.2"),  # refused
        ("127.0.0.1", "127.0.0.3", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.2", "127.0.0.1"),
    ],
)
def test_an_address_that_does_not_answer_keeps_no_event_from_the_next(
    port: int, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...]
) -> None:
    resolve(monkeypatch, *hosts)
    assert sent(f"http://hook.example:{port}/") == Answer()


@pytest.mark.parametrize(("hosts", "again"), [(("127.0.0.3", "127.0.0.4"), True), ((), True), (("127.0.0.1",), True)])
def test_without_an_address_that_answers_it_fails(
    port: int, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], again: bool
) -> None:
    resolve(monkeypatch, *hosts)
    answer = sent(f"http://hook.example:{port}/", 0.5)
    assert answer.problem
    assert answer.again is again


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), MemoryError(), KeyError("h")])
def test_a_look_up_that_fails_in_any_way_is_reported_and_repeated(
    port: int, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        raise error

    target = read_target(f"http://hook.example:{port}/")
    assert isinstance(target, UrlTarget)

    async def events() -> Answer:
        with monkeypatch.context() as patches:
            patches.setattr(socket, "getaddrinfo", getaddrinfo)
            failed = await asyncio.wait_for(post(target, b"{}", PATIENCE), PATIENCE / 2)
        assert failed.problem
        assert failed.again
        resolve(monkeypatch, "127.0.0.2")
        return await post(target, b"{}", PATIENCE)

    assert asyncio.run(events()) == Answer()


def test_a_link_local_address_is_reached_with_its_zone() -> None:
    subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "v1"], check=True)
    for link in ("lo", "v0", "v1"):
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
    subprocess.run(["ip", "addr", "add", "fe80::9/64", "dev", "v0", "nodad"], check=True)
    with HTTP6Server(("::", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            for zone in ("%v0", "%25v0"):
                assert sent(f"http://[fe80::9{zone}]:{server.server_port}/") == Answer()
        finally:
            server.shutdown()
            serving.join()


def test_a_name_service_that_never_answers_costs_one_thread_however_many_events_there_are(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = threading.Event()
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        answering.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    target, other = (read_target(f"http://{host}.example:{port}/") for host in ("hook", "other"))
    assert isinstance(target, UrlTarget)
    assert isinstance(other, UrlTarget)

    async def events() -> list[Answer]:
        for _ in range(5):
            assert (await post(target, b"{}", 0.02)).again
        assert (await post(other, b"{}", 0.02)).again
        late = asyncio.create_task(post(target, b"{}", PATIENCE))
        await asyncio.sleep(0)
        answering.set()
        return [await late, await post(target, b"{}", PATIENCE)]

    try:
        assert asyncio.run(events()) == [Answer(), Answer()]
    finally:
        answering.set()
    assert asked.count("other.example") == 1
    assert asked.count("hook.example") == 2
    assert poll(lambda: not any(thread.name == "vethlib-hooks-dns" for thread in threading.enumerate()))
