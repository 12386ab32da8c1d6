"""vethctl status beside a running agent."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import said
from tests.live.agent_process import LABEL, PATIENCE, ROOT, VETHCTL, Agent, entry_of, status, vethctl
from tests.live.applying import value
from tests.mounts import unmount_all
from tests.programs import attended
from tests.witness import poll, seen
from vethlib.agent.process.instance import running
from vethlib.agent.reasons import peer_not_configured

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

Start = Callable[..., "Agent"]


def test_status_tells_that_the_store_of_the_agent_is_down_and_that_all_stays(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    before = json.loads(status(agent, "--json").stdout)
    away = agent.store.rename(agent.store.parent / "away")
    assert poll(agent.is_without_its_store)
    done = status(agent, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (2, before)
    error = json.loads(done.stderr)
    assert (error["code"], error["field"]) == ("store-down", "--store")
    assert str(agent.store) in error["error"]
    away.rename(agent.store)
    assert poll(agent.has_its_store)
    other = status(agent, "--store", "dir:/elsewhere")
    assert other.returncode == 0
    follows = f"the agent of this host with the label {LABEL} follows dir:{agent.store}, not dir:/elsewhere"
    assert other.stderr == f"warning: {follows}\n"
    assert status(agent, "--store", f"dir:{agent.store}/.").stderr == ""
    agent.end()
    assert not agent.is_without_its_store()


def test_status_finds_the_agent_s_directory_where_the_etcd_does_not_answer(start_agent: Start) -> None:
    pytest.importorskip("grpc")
    agent = start_agent()  # with a --status-dir
    agent.wait_until("READY")
    here = json.loads(status(agent, "--json").stdout)
    done = vethctl("status", "--label", LABEL, "--store", "etcd://127.0.0.1:1", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (2, here)
    error = json.loads(done.stderr)
    assert f"(process {agent.process.pid}) are shown instead" in error["error"]
    assert error["hint"].endswith(f"give --status-dir {agent.status} instead of --store")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """The directory of the agent's statuses, on a file system of its own with room for some files."""
    path = tmp_path / "status"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path], check=True)
    yield path
    unmount_all(path)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def test_status_tells_that_the_agent_cannot_write_its_statuses(tiny: Path, start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    command = [*VETHCTL, "status", "--watch", "--json", "--label", LABEL, "--status-dir", str(tiny)]
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        comes_to(map(json.loads, watching.stdout), {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        fill(tiny / "other")
        changed = json.loads((agent.store / "veth1.json").read_text()) | {"mtu": 1400}
        (agent.store / "veth1.json").write_text(json.dumps(changed))
        new = {f"new{number}" for number in range(5)}  # more than a status that was being replaced leaves room for
        (agent.store / "new.json").write_text(json.dumps([value(name, "nobody") for name in sorted(new)]))
        assert json.loads(watching.stderr.readline())["code"] == "statuses-unwritten"
        watching.send_signal(signal.SIGINT)
    unwritten = min(new.difference(each["name"] for each in json.loads(status(agent, "--json").stdout)))
    for names in ((), (unwritten,), ("nobody",)):
        done = status(agent, *names, "--json")
        error = json.loads(done.stderr)
        assert (done.returncode, error["code"]) == (2, "statuses-unwritten")
        assert "No space left on device" in error["error"]
    assert poll(lambda: described(agent, unwritten)["state"] == "PENDING")
    assert poll(lambda: described(agent, "veth1")["mtu"] == 1400 == seen("veth1", "ns1")["mtu"])
    (tiny / "other").unlink()
    assert poll(lambda: status(agent).returncode == 3, PATIENCE)
    done = status(agent, "--json")
    assert done.stderr == ""
    shown = {each["name"]: each.get("mtu") for each in json.loads(done.stdout)}
    assert shown == dict.fromkeys(new) | {"veth1": 1400, "veth2": 1500}


def test_status_tells_that_an_agent_has_never_been_able_to_write_a_status(tiny: Path, start_agent: Start) -> None:
    fill(tiny / "other")
    agent = start_agent()
    agent.wait_until("READY")
    done = status(agent, "--json")
    error = json.loads(done.stderr)
    assert (done.returncode, error["code"]) == (2, "statuses-unwritten")
    assert "No space left on device" in error["error"]
    assert str(tiny) in error["hint"]


def described(agent: Agent, name: str) -> dict[str, Any]:
    """Return what `vethctl describe` shows as the status of an interface."""
    done = said("describe", name, "--label", LABEL, "--status-dir", str(agent.status), "--json")
    entry: dict[str, Any] = done.json["status"] if done.out else {"state": ""}
    return entry


def test_an_agent_that_has_said_nothing_yet_is_waited_for(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    done = vethctl("status", "--label", LABEL, "--status-dir", f"{tmp_path}/elsewhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"(process {agent.process.pid}) " in done.stderr
    assert f"{tmp_path}/elsewhere" in done.stderr
    assert done.stderr.endswith(f"it writes them elsewhere: give --status-dir {agent.status}\n")
    missing = status(agent, "veth", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stderr)["code"] == "no-such-interface"
    assert "veth2?" in json.loads(missing.stderr)["error"]


def test_status_says_what_is(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    done = status(agent, "--json")
    assert done.returncode == 0
    one, other = json.loads(done.stdout)
    assert list(one)[:8] == ["name", "state", "reason", "netns", "host_name", "ifindex", "peer", "since"]
    assert (one["name"], one["state"], one["netns"], one["peer"]) == ("veth1", "CONFIGURED", "netns:ns1", "veth2")
    assert one["ifindex"] == seen("veth1", "ns1")["ifindex"]
    assert one["peer_ifindex"] == seen("veth2", "ns2")["ifindex"] == other["ifindex"]
    table = status(agent).stdout
    *rows, last = table.splitlines()
    assert [line.split()[0] for line in rows] == ["INTERFACE", "veth1", "veth2"]
    assert last == "2 interfaces: 2 CONFIGURED"


def test_status_has_the_operational_state_as_it_becomes(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    assert poll(lambda: entry_of(agent, "veth1")["operstate"] == "up")


def test_status_says_why_something_waits_and_exits_so(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    (agent.store / "veth2.json").unlink()
    assert poll(lambda: "PENDING" in status(agent).stdout)
    done = status(agent)
    assert done.returncode == 3
    assert str(peer_not_configured("veth2")) in done.stdout
    assert "veth2 " not in done.stdout.splitlines()[1].split("peer")[0].split("veth2", 1)[1]


def test_status_of_an_interface_that_is_not_there_is_an_error(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    done = status(agent, "nope", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert json.loads(done.stderr)["code"] == "no-such-interface"


def test_asking_often_does_not_wear_the_answer_out(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    answers = set()
    for _ in range(400):
        time.sleep(0.001)
        answers.add(running(LABEL))
    assert answers - {0} == {agent.process.pid}  # 0: it is running, but was too busy to identify itself
    assert poll(lambda: running(LABEL) == agent.process.pid)


def test_what_is_no_status_in_the_directory_is_passed_over(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", "{}"), ("d.json", "[" * 100_000)):
        (agent.status / name).write_text(text)
    assert [entry["name"] for entry in json.loads(status(agent, "--json").stdout)] == ["veth1", "veth2"]
    agent.end()
    start_agent().wait_until("READY")


def comes_to(lines: Iterator[dict[str, Any]], expected: dict[str, str]) -> None:
    """Read lines until the last one of each interface has the expected state.

    Some have the same state as the one before: an operational state, or an address of the kernel's own, is news, too.
    """
    states: dict[str, str] = {}
    while states != expected:
        line = next(lines)
        states[line["name"]] = line["state"]


def test_status_watch_goes_on_when_its_directory_is_made_anew(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    command = [*VETHCTL, "status", "--watch", "--json", "--label", LABEL, "--status-dir", str(agent.status)]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as watching:
        assert watching.stdout is not None
        lines = map(json.loads, watching.stdout)
        comes_to(lines, {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        shutil.rmtree(agent.status)
        comes_to(lines, {"veth1": "removed", "veth2": "removed"})
        agent.end()
        start_agent().wait_until("READY")
        comes_to(lines, {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        watching.send_signal(signal.SIGINT)


def test_status_tells_when_no_agent_runs(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    agent.end(signal.SIGKILL)
    done = status(agent, "--json")
    assert (done.returncode, json.loads(done.stderr)["code"]) == (2, "not-running")
    assert "veth1" in done.stdout  # what the last one said


def test_status_watch_writes_a_line_for_each_change(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    command = [*VETHCTL, "status", "--watch", "--json", "--label", LABEL, "--status-dir", str(agent.status)]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as watching:
        assert watching.stdout is not None
        lines = map(json.loads, watching.stdout)
        comes_to(lines, {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        (agent.store / "veth2.json").unlink()
        comes_to(lines, {"veth1": "PENDING", "veth2": "removed"})
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_status_watch_tells_that_the_agent_has_ended_but_not_that_interfaces_are_removed(
    start_agent: Start, number: signal.Signals
) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    command = [*VETHCTL, "status", "--watch", "--json", "--label", LABEL, "--status-dir", str(agent.status)]
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        comes_to(map(json.loads, watching.stdout), {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        agent.end(number)
        assert json.loads(watching.stderr.readline())["code"] == "not-running"
        (agent.store / "veth2.json").unlink()
        start_agent().wait_until("READY")
        comes_to(map(json.loads, watching.stdout), {"veth1": "PENDING", "veth2": "removed"})
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate()
    assert errors == ""
    assert "removed" not in rest


def test_status_watch_draws_a_terminal_anew(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    ours, theirs = pty.openpty()
    command = [*VETHCTL, "status", "--watch", "--label", LABEL, "--status-dir", str(agent.status)]
    with attended(subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=os.environ | {"TERM": "xterm"})) as watching:
        os.close(theirs)
        screens = _read_until(ours, b"veth2", 2)
        watching.send_signal(signal.SIGTERM)
    os.close(ours)
    assert b"\x1b[H\x1b[J" in screens
    assert f"agent {agent.process.pid}".encode() in screens


def _read_until(fd: int, text: bytes, times: int) -> bytes:
    """Return what a terminal shows until `text` has been drawn this often."""
    read = b""
    deadline = time.monotonic() + PATIENCE
    while read.count(b"\x1b[H") < times and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            read += os.read(fd, 65536)
    assert text in read
    return read
