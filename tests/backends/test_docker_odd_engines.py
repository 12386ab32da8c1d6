"""A resolver with engines that answer oddly: an odd container affects no other, and no event's name is trusted."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
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
