"""vethctl describe: one interface on one screen, with and without a running agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Said, Vethctl
from tests.programs import attended
from tests.witness import ip, poll, seen
from vethlib.agent.process.answering import Answering, ask
from vethlib.agent.process.instance import Instance

ROOT = Path(__file__).parents[2]
LABEL = "described"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    values: list[dict[str, Any]] = [
        {"name": "veth1", "enabled": True, "mtu": 1400, "ip_addresses": ["10.0.0.1/24"], "host_if_name": "eth0"},
        {"name": "veth2", "enabled": True, "mtu": 1400, "ip_addresses": ["10.0.0.2/24"]},
        {"name": "alone", "enabled": True},
    ]
    for value, peer in zip(values, ("veth2", "veth1", "nobody"), strict=True):
        value["veth"] = {"peer_if_name": peer}
        (tmp_path / f"{value['name']}.json").write_text(json.dumps(value))
    values[0]["namespace"] = {"type": 2, "name": "ns1"}
    (tmp_path / "veth1.json").write_text(json.dumps(values[0]))
    return tmp_path


@pytest.fixture
def agent(vethctl: Vethctl, store: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{store}", "--label", LABEL, "--docker=off"]
    with attended(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)) as process:
        try:
            assert poll(lambda: describe(vethctl, "veth1").code == 0)
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def describe(vethctl: Vethctl, name: str, *argv: str) -> Said:
    return vethctl("describe", name, "--label", LABEL, "--json", *argv)


def test_configuration_links_counters_and_changes_with_their_causes(
    vethctl: Vethctl, agent: subprocess.Popen[bytes], store: Path
) -> None:
    said = describe(vethctl, "veth1").json
    assert list(said)[:5] == ["name", "label", "agent", "status", "configuration"]
    assert said["agent"] == {"pid": agent.pid}
    assert (said["status"]["state"], said["configuration"]["mtu"]) == ("CONFIGURED", 1400)
    assert [(end["interface"], end["netns"], end["index"]) for end in said["links"]] == [
        ("veth1", "netns:ns1", seen("eth0", "ns1")["ifindex"]),
        ("veth2", "", seen("veth2")["ifindex"]),
    ]
    assert {"address": "10.0.0.1/24", "state": "usable"} in said["links"][0]["addresses"]
    assert said["links"][0]["fields"].keys() >= {"master", "routes", "neighbours", "offload", "txqlen"}
    assert set(said["links"][0]["counters"]) >= {"rx_bytes", "tx_bytes", "rx_dropped", "tx_errors"}

    def causes(name: str = "veth1") -> list[str]:
        return [change["cause"] for change in describe(vethctl, name).json["changes"]]

    assert causes() == ["configuration"]
    ip("link", "delete", "dev", "veth2")
    assert poll(lambda: causes() == ["configuration", "its link was deleted"])
    ip("netns", "delete", "ns1")
    assert poll(lambda: "netns:ns1 changed" in causes())
    (store / "veth2.json").unlink()
    assert poll(lambda: describe(vethctl, "veth1").json["status"]["state"] == "PENDING")
    last = describe(vethctl, "veth1").json["changes"][-1]
    assert (last["state"], last["cause"], last["count"]) == ("PENDING", "configuration", 1)
    assert last["done"]
    gone = describe(vethctl, "veth2").json
    assert (gone["status"], gone["configuration"], gone["changes"][-1]["state"]) == (None, None, "removed")
    text = vethctl("describe", "veth1", "--label", LABEL)
    assert (text.code, len(text.out.splitlines()) < 40) == (3, True)
    assert "its link was deleted" in text.out
    # A name that does not exist, and the name that is meant by it.
    assert describe(vethctl, "alone").code == 3
    unknown = describe(vethctl, "vteh1")
    assert (unknown.code, unknown.out, unknown.error["code"]) == (1, "", "no-such-interface")
    assert "veth1" in unknown.error["error"]
    assert "veth1?" in describe(vethctl, "eth0").error["error"]  # by the name of its link
    assert "did you mean" not in describe(vethctl, "quite-another").error["error"]


def test_without_an_agent_what_is_left_and_stored_is_shown(
    vethctl: Vethctl, agent: subprocess.Popen[bytes], store: Path
) -> None:
    agent.terminate()
    agent.wait(60)
    left = describe(vethctl, "veth1")
    assert (left.code, left.error["code"], left.json["agent"]) == (2, "not-running", None)
    assert [end["index"] for end in left.json["links"]] == [seen("eth0", "ns1")["ifindex"], seen("veth2")["ifindex"]]
    assert left.json["configuration"] is None
    stored = describe(vethctl, "veth1", "--store", f"dir:{store}")
    assert stored.json["configuration"]["host_if_name"] == "eth0"
    (store / "veth1.json").write_text('{"name": "veth1", "mtu": 5, "veth": {"peer_if_name": "veth2"}}')
    (bad,) = describe(vethctl, "veth1", "--store", f"dir:{store}").json["problems"]
    assert bad["field"] == "mtu"
    ip("netns", "delete", "ns1")
    assert poll(lambda: [end["index"] for end in describe(vethctl, "veth1").json["links"]] == [None, None])


# --- the socket by which the agent is asked


@pytest.fixture
def answering(home: object, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], object]:
    """Calls a function in a thread, while an agent's name answers with what it was asked."""
    monkeypatch.setattr("vethlib.agent.process.answering._PATIENCE", 30.0)

    def call(function: Callable[[], object]) -> object:
        async def serve() -> object:
            with closing(Instance(LABEL)) as instance:
                answers = Answering(asyncio.get_running_loop(), instance, _reply)
                try:
                    return await asyncio.wait_for(asyncio.to_thread(function), 60)
                finally:
                    answers.close()

        return asyncio.run(serve())

    return call


def _reply(line: bytes, *, trusted: bool) -> bytes:
    asked = json.loads(line)
    more = {"much": "x" * asked["bytes"]} if isinstance(asked, dict) and "bytes" in asked else {}
    return json.dumps({"asked": asked, "trusted": trusted} | more).encode()


def _address() -> str:
    (name,) = (name for name in os.listdir("/run/vethlib") if name.endswith(".agent"))
    return f"/run/vethlib/{name}"


def test_a_field_that_is_false_is_shown_where_that_is_not_the_default(vethctl: Vethctl, store: Path) -> None:
    value = json.loads((store / "veth2.json").read_text())
    value |= {"offload": False, "ipv6": False, "link_only": False}
    (store / "veth2.json").write_text(json.dumps(value))
    out = vethctl("describe", "veth2", "--label", LABEL, "--store", f"dir:{store}").out
    assert "offload false" in out
    assert "ipv6 false" in out
    assert "link_only" not in out


def test_the_agent_is_asked_over_its_socket(answering: Callable[[Callable[[], object]], object]) -> None:
    assert answering(lambda: ask(LABEL, {"x": 1})) == {"asked": {"x": 1}, "trusted": True}
    assert ask(LABEL, {"x": 1}) is None


def test_an_answer_that_does_not_fit_into_the_socket_arrives_whole(
    answering: Callable[[Callable[[], object]], object],
) -> None:
    answer = answering(lambda: ask(LABEL, {"bytes": 6_000_000}))
    assert isinstance(answer, dict)
    assert len(answer["much"]) == 6_000_000


def test_those_who_do_not_read_a_long_answer_keep_nobody_else_from_one(
    answering: Callable[[Callable[[], object]], object],
) -> None:
    def attack() -> object:
        with ExitStack() as callers:
            for _ in range(20):
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.connect(_address())
                caller.sendall(b'{"bytes": 1000000}\n')
            return ask(LABEL, "me")

    assert answering(attack) == {"asked": "me", "trusted": True}


def test_those_who_say_nothing_or_too_much_keep_nobody_else_from_an_answer(
    answering: Callable[[Callable[[], object]], object],
) -> None:
    def attack() -> object:
        idle = [socket.socket(socket.AF_UNIX) for _ in range(60)]
        for one in idle:
            one.connect(_address())
        with socket.socket(socket.AF_UNIX) as loud:
            loud.connect(_address())
            loud.sendall(b"x" * 100_000)
            loud.settimeout(30)
            assert not _read(loud)  # hung up
        answer = ask(LABEL, "me")
        for one in idle[:40]:
            one.settimeout(30)
            assert not _read(one)  # hung up
        for one in idle:
            one.close()
        return answer

    assert answering(attack) == {"asked": "me", "trusted": True}


def _read(caller: socket.socket) -> bytes:
    try:
        return caller.recv(1)
    except ConnectionError:
        return b""
