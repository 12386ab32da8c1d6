"""vethctl agent with a Docker Engine, as a process; and the output of vethctl status and doctor about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.engine import ROOT, Engine
from tests.commands import Vethctl, runner
from tests.live.applying import reaches, value
from tests.reasons import of_entry
from tests.stores import write
from tests.witness import names, poll, seen

VETHCTL = [sys.executable, "-m", "vethlib"]
LABEL = "docked"

pytestmark = pytest.mark.usefixtures("home")

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts agents on one pair between microservice vnf1 and home."""
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "store").mkdir()
    there = {"namespace": {"type": 1, "microservice": "vnf1"}}
    write(tmp_path / "store" / "port1.json", value("port1", "uplink1", ip_addresses=["10.9.1.1/24"]) | there)
    write(tmp_path / "store" / "uplink1.json", value("uplink1", "port1", ip_addresses=["10.9.1.2/24"]))

    def begin(*options: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [*VETHCTL, "agent", "--store", f"dir:{tmp_path}/store", "--label", LABEL]
        command += ["--status-dir", f"{tmp_path}/status", *options]
        with (tmp_path / "log").open("ab") as log:
            started.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=os.environ | environment)
            )
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    return runner(capsys, monkeypatch)


def reason(tmp_path: Path) -> str:
    """What the status of port1 says."""
    try:
        entry: dict[str, Any] = json.loads((tmp_path / "status" / "port1.json").read_text())
    except FileNotFoundError:
        return ""
    return f"{of_entry(entry)} {entry.get('warning_code', '')}".strip()


def test_an_agent_wires_containers_as_they_come_and_go(start: Start, engine: Engine, tmp_path: Path) -> None:
    agent = start("--docker", f"unix://{engine.socket}")
    assert poll(lambda: reason(tmp_path) == "PENDING: microservice-not-running(microservice:vnf1)")
    container = engine.run("vnf", "vnf1")
    assert poll(lambda: reason(tmp_path) == "CONFIGURED")
    assert reaches("", "10.9.1.1", container.netns)
    index = seen("uplink1")["ifindex"]
    engine.kill9()
    assert poll(lambda: reason(tmp_path) == "CONFIGURED unchecked")
    engine.up()
    assert poll(lambda: reason(tmp_path) == "CONFIGURED")
    assert seen("uplink1")["ifindex"] == index
    container.kill()
    assert poll(lambda: reason(tmp_path) == "PENDING: microservice-not-running(microservice:vnf1)")
    assert names() == set()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) == 0
    log = (tmp_path / "log").read_text()
    assert log.count(f"the Docker Engine at {engine.socket} answers") == 2
    assert log.count("microservices cannot be found, so their links are left as they are: ") == 1


def test_an_agent_ends_at_once_whether_its_engine_is_there_or_not(start: Start, engine: Engine, tmp_path: Path) -> None:
    for socket, code in ((engine.socket, "microservice-not-running"), (f"{tmp_path}/none", "resolver-down")):
        agent = start("--docker", socket)
        assert poll(lambda: code in reason(tmp_path))  # noqa: B023
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0


def test_status_shows_that_two_containers_have_one_label(start: Start, engine: Engine, tmp_path: Path) -> None:
    engine.run("first", "vnf1")
    engine.run("second", "vnf1")
    start(VETHLIB_DOCKER=engine.socket)
    warning = "2 containers are microservice vnf1: first is used, which has been running longest, not second"
    assert poll(lambda: reason(tmp_path) == "CONFIGURED resolver-remark")
    command = [*VETHCTL, "status", "--label", LABEL, "--status-dir", f"{tmp_path}/status"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert shown[0].split()[-1] == "REASON"
    assert "CONFIGURED" in shown[1]
    assert shown[1].endswith(warning)
    assert warning not in shown[2]


def test_a_run_with_once_waits_for_the_engine_s_first_answer(start: Start, engine: Engine, tmp_path: Path) -> None:
    container = engine.run("vnf", "vnf1")
    agent = start("--docker", engine.socket, "--once")
    out, _ = agent.communicate(timeout=60)
    assert (agent.returncode, out.decode()) == (0, "2 CONFIGURED\n")
    assert reaches("", "10.9.1.1", container.netns)


def test_an_agent_may_do_without(start: Start, engine: Engine, tmp_path: Path) -> None:
    engine.run("vnf", "vnf1")
    agent = start("--docker", "off", "--once")
    out, _ = agent.communicate(timeout=60)
    assert (agent.returncode, out.decode()) == (3, "2 PENDING\n")
    assert reason(tmp_path) == "PENDING: resolver-down(microservice:vnf1)"


@pytest.mark.parametrize("url", ["tcp://10.0.0.1:2375", "docker.sock"])
def test_an_engine_elsewhere_is_refused(vethctl: Vethctl, tmp_path: Path, url: str) -> None:
    said = vethctl("agent", "--store", f"dir:{tmp_path}", "--label", LABEL, "--docker", url, "--json")
    assert (said.code, said.error["field"]) == (1, "--docker")
    assert "unix:///var/run/docker.sock" in said.err


def test_the_doctor_says_whether_there_is_an_engine(
    vethctl: Vethctl, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finding() -> dict[str, Any] | None:
        said = vethctl("doctor", "--json")
        assert said.code == 0
        return next((one for one in said.json if one["check"] == "Docker Engine"), None)

    version = engine.api("GET", "/version")["Version"]
    monkeypatch.setenv("VETHLIB_DOCKER", engine.socket)
    expected = {"check": "Docker Engine", "ok": True, "needed": False, "cure": "", "code": ""}
    assert finding() == expected | {"detail": f"{version}: its containers can be microservices"}
    monkeypatch.setenv("VETHLIB_DOCKER", f"{tmp_path}/none")
    found = finding()
    assert found is not None
    assert (found["ok"], found["code"]) == (False, "absent")
    assert found["cure"].startswith("only microservices need it")
    monkeypatch.setenv("VETHLIB_DOCKER", "off")
    assert finding() is None
