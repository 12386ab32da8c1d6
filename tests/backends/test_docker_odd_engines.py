"""A resolver with engines that answer oddly: an odd container affects no other, and no event's name is trusted."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.backends.engine_fake import SLOW
from tests.backends.resolving import NOT_RUNNING, answer, until
from tests.refusing import raises
from tests.witness import poll
from vethlib.agent import DockerResolver, ResolverDown
from vethlib.follow.docker import engine
from vethlib.follow.docker import resolver as docker

FAKE = Path(__file__).with_name("engine_fake.py")
IDS = {number: f"{number:012}".ljust(64, "0") for number in (1, 2)}
NOT_RUNNING_2 = "microservice vnf2 is not running"

Tell = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The socket of an engine with two containers, vnf1 and vnf2, or of the kind that is the parameter."""
    path = tmp_path / "fake.sock"
    running = subprocess.Popen([sys.executable, str(FAKE), str(path), getattr(request, "param", "sick")])
    assert poll(lambda: listens(path))
    yield path
    running.kill()
    running.wait()


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as calling:
        return calling.connect_ex(str(path)) == 0


@pytest.fixture
def resolver(path: Path) -> Iterator[DockerResolver]:
    resolver = DockerResolver(str(path))
    yield resolver
    resolver.close()


@pytest.fixture
def tell(path: Path) -> Tell:
    """Has the engine tell these events."""

    def tell(*events: Any) -> None:
        new = path.with_name("new")
        new.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in events))
        os.replace(new, f"{path}.event")

    return tell


def event(action: str, number: int = 2, **fields: Any) -> dict[str, Any]:
    return {"Type": "container", "Action": action, "Actor": {"ID": IDS[number]}} | fields


def says(path: Path, how: str) -> None:
    """What it says of the second container from now on; "" for the truth."""
    status = path.with_name(f"{path.name}.status")
    if how:
        new = path.with_name("new-status")
        new.write_text(how)
        os.replace(new, status)
    else:
        status.unlink()


def refused(path: Path) -> bool:
    """Whether it has said so since the last call."""
    try:
        path.with_name(f"{path.name}.refused").unlink()
    except FileNotFoundError:
        return False
    return True


def looks(path: Path) -> int:
    return len(path.with_name(f"{path.name}.looks").read_text())


def quiet(resolver: DockerResolver) -> bool:
    return not select.select([resolver], [], [], 0.1)[0]


# --- events


EVENTS: list[Any] = [
    event("die"),
    event("destroy"),
    event("died"),
    event("remove"),
    event("cleanup"),
    event("of a name that is yet to be invented"),
    {"Type": "container", "status": "died", "id": IDS[2]},
    {"id": IDS[2]},
    {"Type": "container", "Action": "die", "Actor": {"ID": IDS[2]}, "status": None, "id": None},
    # Whose it is, is not said, or not so that it can be read: it may be anybody's.
    {"Type": "container", "Action": "died"},
    {"Type": "container", "Action": "died", "Actor": None},
    {"Type": "container", "Action": ["died"], "Actor": {"ID": 2}},
    [],
    "7",
]


@pytest.mark.parametrize("how", ["gone", "stopped"])
def test_whatever_an_event_is_called_the_container_is_looked_at_again(
    path: Path, resolver: DockerResolver, tell: Tell, how: str
) -> None:
    for told in EVENTS:
        until(resolver, "pid:2", label="vnf2")
        says(path, how)
        tell(told)
        until(resolver, NOT_RUNNING_2, label="vnf2")
        assert answer(resolver) == "pid:1"
        says(path, "")
        tell(told)


def test_what_is_run_inside_a_container_and_what_else_exists_is_no_occasion_to_look(
    path: Path, resolver: DockerResolver, tell: Tell
) -> None:
    """A healthcheck is three events a time."""
    until(resolver, "pid:1")
    before = looks(path)
    tell(
        *(event(f"exec_{part}: /bin/true") for part in ("create", "start", "die")),
        event("exec_died"),
        event("health_status: healthy"),
        event("health_status"),
        *(event("create", Type=kind) for kind in ("network", "volume", "image", "pod")),
        event("update", 1),
    )
    assert poll(lambda: looks(path) > before)
    assert quiet(resolver)
    assert looks(path) == before + len("1\n")


def test_events_that_end_while_the_engine_answers_are_no_news(
    path: Path, resolver: DockerResolver, tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy before it ends connections that are idle, for one."""
    caplog.set_level(logging.INFO, "vethlib.agent")
    until(resolver, "pid:1")
    resolver.changed()
    for _ in range(3):
        before = looks(path)
        tell("cut")
        assert poll(lambda: looks(path) >= before + len("1\n2\n"))  # noqa: B023
        assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")
    assert quiet(resolver)
    says(path, "stopped")
    tell("cut")
    until(resolver, NOT_RUNNING_2, label="vnf2")
    assert answer(resolver) == "pid:1"
    assert [one for one in caplog.messages if "answers" not in one] == []
    assert len(caplog.messages) == 1


# --- one container of which nothing can be known

UNKNOWN = ["409", "500", "garbage", "strange"]


@pytest.mark.parametrize("how", UNKNOWN)
def test_a_container_that_cannot_be_looked_at_hides_no_other_one(
    path: Path,
    resolver: DockerResolver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """It may run, so of the labels that nobody has none is known not to; it is looked at again, without any event."""
    monkeypatch.setattr(docker, "_AGAIN", (0.2, 0.4))
    says(path, how)
    until(resolver, "pid:1")
    with raises(ResolverDown, code="uninspected"):
        resolver("vnf2")
    resolver.changed()
    assert refused(path)
    assert poll(lambda: refused(path))  # a second time, of which there is nothing to tell
    assert quiet(resolver)
    says(path, "")
    assert poll(lambda: answer(resolver, "vnf2") == "pid:2")
    assert answer(resolver) == "pid:1"
    assert answer(resolver, "vnf3") == "microservice vnf3 is not running"
    (warning,) = [one for one in caplog.messages if "cannot be inspected" in one]
    assert warning.startswith("container 000000000002 cannot be inspected, so its last known state is kept: ")
    assert not [one for one in caplog.messages if "microservices cannot be found" in one]


@pytest.mark.parametrize("how", UNKNOWN)
def test_a_container_that_cannot_be_looked_at_any_more_is_what_it_was(
    path: Path, resolver: DockerResolver, tell: Tell, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    until(resolver, "pid:1")
    says(path, how)
    for _ in range(2):
        tell(event("update"))
        assert poll(lambda: refused(path))
        assert poll(lambda: "cannot be inspected" in caplog.text)
        assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")
        assert answer(resolver, "vnf3") == "microservice vnf3 is not running"
    assert len([one for one in caplog.messages if "cannot be inspected" in one]) == 1
    says(path, "")
    assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")


def test_a_container_about_which_the_engine_never_answers_hides_no_other_one(
    path: Path, resolver: DockerResolver, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker is known for containers on whose lock every question waits."""
    monkeypatch.setattr(engine, "_TIMEOUT", 0.5)
    monkeypatch.setattr(docker, "HASTE", 0.2)

    says(path, "late")
    until(resolver, "pid:1")
    assert answer(resolver, "vnf2").code == "uninspected"
    says(path, "")
    until(resolver, "pid:2", 10, label="vnf2")
    says(path, "late")
    tell(event("update"), event("update", 1))
    before = looks(path)
    assert poll(lambda: looks(path) >= before + len("2\n1\n"))
    assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")
    says(path, "")


@pytest.mark.parametrize("path", ["crowded"], indirect=True)
def test_twenty_containers_about_which_the_engine_never_answers_delay_the_others_by_little(
    path: Path, resolver: DockerResolver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_TIMEOUT", 60.0)
    says(path, "late")
    until(resolver, "pid:1", 40)
    assert answer(resolver, "vnf2").code == "uninspected"
    assert "cannot be inspected" not in caplog.text  # they have not had the time for an answer yet
    says(path, "")
    for number in range(2, SLOW + 1):
        until(resolver, f"pid:{number}", label=f"vnf{number}")


@pytest.mark.parametrize("path", ["few"], indirect=True)
def test_each_container_that_is_late_gets_the_whole_time_once_and_is_warned_of_then(
    path: Path, resolver: DockerResolver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(docker, "HASTE", 0.1)
    monkeypatch.setattr(docker, "_AGAIN", (0.05, 0.1))
    says(path, "late")
    until(resolver, "pid:22", label="vnf22")  # it answers, though never in haste
    assert caplog.text.count("cannot be inspected") == 2
    assert answer(resolver) == "pid:1"
    says(path, "")
    until(resolver, "pid:3", label="vnf3")


def test_an_engine_that_has_stopped_answering_takes_nothing_back(
    path: Path, resolver: DockerResolver, tell: Tell
) -> None:
    until(resolver, "pid:1")
    assert answer(resolver, "vnf3") == NOT_RUNNING.replace("vnf1", "vnf3")
    says(path, "500")
    tell(event("die"), "cut")
    assert poll(lambda: refused(path))
    assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")


# --- what is no engine


def answers(text: str | bytes, status: str = "200 OK") -> bytes:
    body = text.encode() if isinstance(text, str) else text
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n{" + b" " * (3 << 20)


@contextmanager
def says_always(path: Path, raw: bytes, then: bytes = b"") -> Iterator[None]:
    """A program that listens there, and answers every request with this, `then` again and again."""

    def serve(calling: socket.socket) -> None:
        with calling:
            try:
                calling.recv(65536)
                calling.sendall(raw)
                while then:
                    calling.sendall(then)
                    time.sleep(0.02)
            except OSError:
                pass  # it is not heard to the end

    def listen() -> None:
        while True:
            try:
                calling, _ = listening.accept()
            except OSError:
                return
            serve(calling)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"\0\0\x0c\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04\0\x10\0\0", "BadStatusLine", id="containerd"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "BadStatusLine('SSH-2.0-OpenSSH_9.6", id="ssh"),
        pytest.param(b"x" * 100_000, "LineTooLong", id="a long line"),
        pytest.param(answers("<html>"), "its answer is not JSON", id="a web server"),
        pytest.param(answers("not found", "404 Not Found"), "404 Client Error", id="another service"),
        pytest.param(answers("x" * 100_000, "404 Not Found"), "404 Client Error", id="one with long pages"),
        pytest.param(answers("{}"), "ApiVersion is missing", id="an empty object"),
        pytest.param(answers("[1]"), "ApiVersion is missing", id="a list"),
        pytest.param(answers('{"ApiVersion": 1.41}'), "ApiVersion is 1.41", id="a number"),
        pytest.param(answers('{"ApiVersion": "%s"}' % ("9" * 5000)), "ApiVersion is '9999", id="a long version"),
        pytest.param(ENDLESS, "its answer has more than 1 MiB", id="endless"),
    ],
)
def test_a_socket_of_another_program_is_told_with_the_cure(
    tmp_path: Path, raw: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LONGEST_ANSWER", 1 << 20)
    path = tmp_path / "other.sock"
    resolver = DockerResolver(str(path))
    try:
        with says_always(path, raw):
            until(resolver, lambda said: said.code not in ("unanswered", "absent"))
            said = answer(resolver)
    finally:
        resolver.close()
    assert said.code == "engine-error"
    assert said.startswith(f"what listens at {path} does not answer as a container engine does: ")
    assert why in said
    assert said.endswith("; give the socket of this host's engine, such as unix:///var/run/docker.sock")
    assert len(said) < 700


@pytest.mark.parametrize("header", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_an_answer_that_comes_too_slowly_is_late_though_some_of_it_always_comes(
    tmp_path: Path, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_TIMEOUT", 0.3)
    path = tmp_path / "slow.sock"
    resolver = DockerResolver(str(path))
    try:
        then = b"1\r\n \r\n" if "chunked" in header else b" "
        with says_always(path, f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode(), then):
            until(resolver, f"the Docker Engine at {path} cannot be queried: it does not answer", within=10)
    finally:
        resolver.close()


def test_an_answer_without_end_about_one_container_hides_no_other_one(
    path: Path, resolver: DockerResolver, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(resolver, "pid:2", label="vnf2")
    monkeypatch.setattr(engine, "_LONGEST_ANSWER", 1 << 20)
    says(path, "endless")
    tell(event("start"))
    assert poll(lambda: refused(path))
    tell(event("start", 1))
    assert poll(lambda: resolver._unseen.keys() == {IDS[2]})
    assert (answer(resolver), answer(resolver, "vnf2")) == ("pid:1", "pid:2")
    assert "its answer has more than 1 MiB" in resolver._unseen[IDS[2]].reason


@pytest.mark.parametrize("kind", ["file", "directory", "datagram", "long"])
def test_what_is_no_socket_of_a_server_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x" * 120 if kind == "long" else "it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        if kind == "file":
            path.touch()
        elif kind == "directory":
            path.mkdir()
        elif kind == "datagram":
            datagrams.bind(str(path))
        resolver = DockerResolver(str(path), patience=60.0)
        try:
            said = answer(resolver)
        finally:
            resolver.close()
    assert str(path) in said
    expected = {
        "file": "is a file, not a socket",
        "directory": "is a directory, not a socket",
        "datagram": "Protocol wrong type for socket",
        "long": "AF_UNIX path too long",
    }
    assert expected[kind] in said
