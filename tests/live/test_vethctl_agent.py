"""vethctl agent as its operators and its service manager meet it, and vethctl status beside it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.commands import said
from tests.live.agent_process import LABEL, PATIENCE, ROOT, VETHCTL, Agent
from tests.live.applying import EXAMPLES, value
from tests.live.convergence import assert_converges
from tests.programs import attended
from tests.reasons import of_entry
from tests.witness import ip, names, poll, seen
from vethlib import ns
from vethlib.agent.process.instance import running
from vethlib.agent.reasons import peer_not_configured
from vethlib.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

Start = Callable[..., "Agent"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts agents on the example pair, or on what is in the store already; ends those that run at the end.

    Without `ipv6`, the pair has no IPv6 addresses, which would have to be checked for duplicates first.
    """
    started: list[Agent] = []
    (tmp_path / "store").mkdir()

    def begin(*options: str, wanted: bool = True, ipv6: bool = False, **environment: str) -> Agent:
        if wanted and not list((tmp_path / "store").iterdir()):
            for file in (EXAMPLES / "pair").iterdir():
                shutil.copy(file, tmp_path / "store")
                if not ipv6:
                    text = json.loads(file.read_text())
                    text["ip_addresses"] = [one for one in text["ip_addresses"] if ":" not in one]
                    (tmp_path / "store" / file.name).write_text(json.dumps(text))
        started.append(Agent(tmp_path, *options, **environment))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
        one._manager.close()


def values_of(agent: Agent) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in agent.store.glob("*.json")]


def vethctl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VETHCTL, *argv], capture_output=True, text=True, check=False, cwd=ROOT)


def status(agent: Agent, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run vethctl status, which needs no process of its own: to start one takes longer than what it does."""
    command = ["status", "--label", LABEL, "--status-dir", str(agent.status), *argv]
    done = said(*command)
    return subprocess.CompletedProcess(command, done.code, done.out, done.err)


def entry_of(agent: Agent, name: str) -> dict[str, Any]:
    """Return what `vethctl status --json` says of one interface."""
    (entry,) = json.loads(status(agent, name, "--json").stdout)
    found: dict[str, Any] = entry
    return found


def write(agent: Agent, **fields: Any) -> None:
    """Put a value as `vethctl put` does."""
    done = subprocess.run(
        [*VETHCTL, "put", "-", "--store", f"dir:{agent.store}", "--label", LABEL],
        input=json.dumps(fields),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_the_service_manager_is_told_that_it_is_ready_once_the_host_is_as_configured(start: Start) -> None:
    agent = start(ipv6=True)
    assert agent.wait_until("READY")["STATUS"] == "2 CONFIGURED"
    assert not any(one.get("tentative") for one in seen("veth1", "ns1")["addr_info"] if one["local"][:5] == "2001:")
    assert names("ns1") == {"veth1"}
    assert_converges(values_of(agent), timeout=0)


def test_the_watchdog_is_fed_in_time(start: Start) -> None:
    agent = start(WATCHDOG_USEC="4000000")
    agent.wait_until("READY")
    fed = []
    for _ in range(3):
        agent.wait_until("WATCHDOG")
        fed.append(time.monotonic())
    assert all(after - before < 4 for before, after in pairwise(fed))


def test_a_watchdog_of_another_process_is_not_fed(start: Start) -> None:
    agent = start(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    agent.wait_until("READY")
    agent._manager.settimeout(0.3)
    with pytest.raises(TimeoutError):
        agent.wait_until("WATCHDOG")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_leaves_the_host_as_it_is(start: Start, number: int) -> None:
    agent = start()
    agent.wait_until("READY")
    before = seen("veth1", "ns1")["ifindex"]
    agent.process.send_signal(number)
    agent.wait_until("STOPPING")
    assert agent.process.wait(PATIENCE) == 0
    assert seen("veth1", "ns1")["ifindex"] == before
    assert_converges(values_of(agent), timeout=0)


def test_links_and_open_connections_live_through_a_restart(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    before = [seen(name, netns)["ifindex"] for name, netns in (("veth1", "ns1"), ("veth2", "ns2"))]
    with ns.entered("ns2"):
        listener = socket.create_server(("192.168.22.2", 0))
    with ns.entered("ns1"):
        client = socket.create_connection(listener.getsockname(), timeout=5)
    with listener, client:
        server, _ = listener.accept()
        with server:
            agent.end()
            start().wait_until("READY")
            client.send(b"still there")
            server.settimeout(5)
            assert server.recv(100) == b"still there"
    assert [seen(name, netns)["ifindex"] for name, netns in (("veth1", "ns1"), ("veth2", "ns2"))] == before
    assert agent.log.count("created") == 2  # by the first one


def test_a_hangup_has_everything_looked_at_and_the_manager_told(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    agent.process.send_signal(signal.SIGHUP)
    assert int(agent.wait_until("RELOADING")["MONOTONIC_USEC"]) > 0
    assert agent.wait_until("READY")["STATUS"] == "2 CONFIGURED"


def test_hangups_do_not_cut_short_an_agent_that_is_ending(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    agent.process.terminate()

    def hung_up() -> bool:
        agent.process.send_signal(signal.SIGHUP)
        return agent.process.poll() is not None

    assert poll(hung_up)
    assert agent.end() == 0


def test_a_hangup_tries_at_once_what_was_put_off(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    for _ in range(30):
        ip("link", "set", "veth1", "mtu", "1400", netns="ns1")
        time.sleep(0.01)
    assert poll(lambda: "repaired" in agent.log)
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_until("RELOADING")
    agent.wait_until("READY")
    assert seen("veth1", "ns1")["mtu"] == 1500


def test_a_second_agent_of_the_label_is_refused(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    done = vethctl("agent", "--store", f"dir:{agent.store}", "--label", LABEL)
    assert done.returncode == 2
    assert str(agent.process.pid) in done.stderr
    assert vethctl("agent", "--store", f"dir:{agent.store}", "--label", "other", "--once").returncode != 0
    assert agent.process.poll() is None
    agent.end(signal.SIGKILL)
    start().wait_until("READY")  # a killed one holds nothing


def test_two_labels_on_one_host_leave_each_other_alone(start: Start, tmp_path: Path) -> None:
    agent = start()
    agent.wait_until("READY")
    other = tmp_path / "other"
    other.mkdir()
    for name, peer in ("x1", "x2"), ("x2", "x1"):
        (other / f"{name}.json").write_text(json.dumps(value(name, peer)))
    done = vethctl("agent", "--store", f"dir:{other}", "--label", "other", "--once", "--status-dir", f"{tmp_path}/so")
    assert (done.returncode, done.stdout) == (0, "2 CONFIGURED\n")
    assert names() == {"x1", "x2"}
    assert_converges([*values_of(agent), *(value(*ends) for ends in (("x1", "x2"), ("x2", "x1")))], timeout=0)


def test_every_change_is_a_line_with_its_key_and_its_cause(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    for mtu in ("1400", "1401"):  # news of the namespace it has created may come late, and be the first one's cause
        ip("link", "set", "veth1", "mtu", mtu, netns="ns1")
        line = f"mtu {mtu} → 1500"
        assert poll(lambda line=line: line in agent.log)  # type: ignore[misc]
    created, _, started, _, changed = agent.log.splitlines()
    assert started.endswith(" started: 2 CONFIGURED")
    assert created.split(" ", 1)[1].startswith("veth")
    assert created.endswith("for: configuration")
    assert changed.split(" ", 1)[1] == "veth1: CONFIGURED, mtu 1401 → 1500, for: its link was changed"


def test_the_log_may_be_json(start: Start) -> None:
    agent = start("--log", "json")
    agent.wait_until("READY")
    *lines, started = [json.loads(line) for line in agent.log.splitlines()]
    assert started["message"] == "started: 2 CONFIGURED"
    assert {line["interface"] for line in lines} == {"veth1", "veth2"}
    for line in lines:
        assert line["level"] == "info"
        assert (line["state"], line["reason"]) == ("CONFIGURED", "")
        assert line["netns"] == f"netns:{line['interface'].replace('veth', 'ns')}"
        assert line["ifindex"] == seen(line["host_name"], line["netns"].removeprefix("netns:"))["ifindex"]
        assert line["cause"] == "configuration"
        assert line["done"].startswith("created")
        assert line["time"].endswith("Z")
    (agent.store / "veth2.json").write_text("{")
    (agent.store / "veth1.json").unlink()
    assert poll(lambda: agent.log.count("\n") >= 5)
    refused, waits = sorted(map(json.loads, agent.log.splitlines()[3:5]), key=lambda line: line["state"])
    place = f"{agent.store}/veth2.json: line 1, column 2: not JSON: "
    assert (refused["interface"], refused["state"], refused["level"]) == ("veth2", "INVALID", "warning")
    assert (refused["reason_code"], refused["reason"].startswith(place)) == ("invalid-value", True)
    assert (waits["interface"], waits["state"], waits["reason_code"]) == ("veth1", "removed", "")
    assert "veth1" in waits["done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_last_line_tells_which_signal_has_ended_it_and_what_stays(start: Start, number: signal.Signals) -> None:
    agent = start()
    agent.wait_until("READY")
    assert agent.end(number) == 0
    last = agent.log.splitlines()[-1].split(" ", 1)[1]
    assert number.name in last
    assert names("ns1") == {"veth1"}


def test_a_reason_is_told_once(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    (agent.store / "veth2.json").unlink()
    reason = peer_not_configured("veth2").text
    assert poll(lambda: reason in agent.log)
    (line,) = [line for line in agent.log.splitlines() if "veth1: PENDING" in line]
    assert line.count(reason) == 1  # not again in what was done


def test_status_tells_that_the_store_of_the_agent_is_down_and_that_all_stays(start: Start) -> None:
    agent = start()
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


@pytest.mark.usefixtures("home")
def test_a_program_that_runs_an_agent_once_has_its_own_handler_of_hangups_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    (tmp_path / "store").mkdir()
    assert main(["agent", "--store", f"dir:{tmp_path}/store", "--label", LABEL, "--once", "--docker", "off"]) == 0
    assert signal.getsignal(signal.SIGHUP) is before


def test_an_agent_that_has_said_nothing_yet_is_waited_for(start: Start, tmp_path: Path) -> None:
    agent = start()
    agent.wait_until("READY")
    done = vethctl("status", "--label", LABEL, "--status-dir", f"{tmp_path}/elsewhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"(process {agent.process.pid}) " in done.stderr
    assert f"{tmp_path}/elsewhere" in done.stderr
    missing = status(agent, "veth", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stderr)["code"] == "no-such-interface"
    assert "veth2?" in json.loads(missing.stderr)["error"]


def test_a_journal_has_times_and_priorities_of_its_own(start: Start, tmp_path: Path) -> None:
    (tmp_path / "errors").touch()
    errors = (tmp_path / "errors").stat()
    agent = start(JOURNAL_STREAM=f"{errors.st_dev}:{errors.st_ino}")
    agent.wait_until("READY")
    assert agent.log.startswith("<6>veth")
    (agent.store / "broken.json").write_text("{")
    assert poll(lambda: "broken" in agent.log)
    agent.end()
    assert {line[:3] for line in agent.log.splitlines()} <= {"<4>", "<6>"}


def test_a_log_elsewhere_has_times_even_if_a_journal_reads_the_shell(start: Start) -> None:
    agent = start(JOURNAL_STREAM="1:2")
    agent.wait_until("READY")
    assert agent.log.startswith(str(time.gmtime().tm_year))


def test_once_says_what_came_of_it(start: Start) -> None:
    agent = start("--once")
    assert agent.process.wait(PATIENCE) == 0
    assert_converges(values_of(agent), timeout=0)
    (agent.store / "lonely.json").write_text(json.dumps(value("lonely", "nobody")))
    again = start("--once")
    assert again.process.wait(PATIENCE) == 3
    (agent.store / "lonely.json").write_text("{")
    assert start("--once").process.wait(PATIENCE) == 2


def test_the_store_may_come_from_the_environment(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    agent.end()
    command = [*VETHCTL, "agent", "--once", "--label", LABEL, "--status-dir", str(agent.status)]
    environment = os.environ | {"VETHLIB_STORE": f"dir:{agent.store}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "2 CONFIGURED\n")


def test_once_without_a_store_is_refused(start: Start, tmp_path: Path) -> None:
    done = vethctl("agent", "--store", f"dir:{tmp_path}/nowhere", "--label", LABEL, "--once", "--json")
    assert done.returncode == 2
    assert f"{tmp_path}/nowhere" in done.stderr


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ((), "--store"),
        (("--store", "ftp:x"), "--store"),
        (("--store", "dir:/tmp", "--label", "a b"), "--label"),
        (("--store", "dir:/tmp", "--missing-netns", "maybe"), "--missing-netns"),
    ],
)
def test_bad_arguments_name_the_flag(argv: tuple[str, ...], field: str) -> None:
    done = vethctl("agent", *argv, "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["field"] == field


def test_what_is_put_and_deleted_is_done(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    (veth1,) = (one for one in values_of(agent) if one["name"] == "veth1")
    write(agent, **veth1 | {"mtu": 1400})
    assert poll(lambda: seen("veth1", "ns1")["mtu"] == 1400)
    done = vethctl("del", "veth1", "--store", f"dir:{agent.store}", "--label", LABEL)
    assert done.returncode == 0
    assert poll(lambda: not names("ns1") and not names("ns2"))


def test_a_store_that_goes_away_changes_nothing(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    before = seen("veth1", "ns1")["ifindex"]
    agent.store.rename(agent.store.parent / "away")
    assert poll(agent.is_without_its_store)
    (agent.store.parent / "away").rename(agent.store)
    assert poll(agent.has_its_store)
    assert seen("veth1", "ns1")["ifindex"] == before
    assert "deleted" not in agent.log


def test_an_agent_starts_without_its_store_and_with_it_when_it_comes(start: Start) -> None:
    agent = start()
    agent.end(signal.SIGKILL)
    agent.store.rename(agent.store.parent / "away")
    agent = Agent(agent.store.parent)
    try:
        assert poll(agent.is_without_its_store)
        (agent.store.parent / "away").rename(agent.store)
        agent.wait_until("READY")
        assert_converges(values_of(agent), timeout=0)
    finally:
        agent.end()


def test_a_bad_value_is_invalid_and_the_last_good_one_stays_in_force(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    before = seen("veth1", "ns1")["ifindex"]
    good = (agent.store / "veth1.json").read_text()
    (agent.store / "veth1.json").write_text(good[: len(good) // 2])
    assert poll(lambda: entry_of(agent, "veth1")["state"] == "INVALID")  # it is published after it is logged
    entry = entry_of(agent, "veth1")
    assert of_entry(entry).startswith("INVALID: invalid-value(")
    assert entry["host_name"] == "veth1"  # the last valid value stays in force
    assert seen("veth1", "ns1")["ifindex"] == before
    agent.end()
    agent = start()  # which does not know what was valid
    agent.wait_until("READY")
    assert seen("veth1", "ns1")["ifindex"] == before
    (agent.store / "veth1.json").write_text(good)
    assert poll(lambda: entry_of(agent, "veth1")["state"] == "CONFIGURED")
    assert seen("veth1", "ns1")["ifindex"] == before


def test_status_says_what_is(start: Start) -> None:
    agent = start()
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


def test_status_has_the_operational_state_as_it_becomes(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    assert poll(lambda: entry_of(agent, "veth1")["operstate"] == "up")


def test_status_says_why_something_waits_and_exits_so(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    (agent.store / "veth2.json").unlink()
    assert poll(lambda: "PENDING" in status(agent).stdout)
    done = status(agent)
    assert done.returncode == 3
    assert str(peer_not_configured("veth2")) in done.stdout
    assert "veth2 " not in done.stdout.splitlines()[1].split("peer")[0].split("veth2", 1)[1]


def test_status_of_an_interface_that_is_not_there_is_an_error(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    done = status(agent, "nope", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert json.loads(done.stderr)["code"] == "no-such-interface"


def test_asking_often_does_not_wear_the_answer_out(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    answers = set()
    for _ in range(400):
        time.sleep(0.001)
        answers.add(running(LABEL))
    assert answers - {0} == {agent.process.pid}  # 0: it runs, and had too much to do to say who it is
    assert poll(lambda: running(LABEL) == agent.process.pid)


def test_what_is_no_status_in_the_directory_is_passed_over(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", "{}"), ("d.json", "[" * 100_000)):
        (agent.status / name).write_text(text)
    assert [entry["name"] for entry in json.loads(status(agent, "--json").stdout)] == ["veth1", "veth2"]
    agent.end()
    start().wait_until("READY")


def test_a_hangup_before_the_store_was_read_does_not_say_that_it_is_ready(start: Start) -> None:
    agent = start()
    agent.end(signal.SIGKILL)
    agent.store.rename(agent.store.parent / "away")
    agent = start("--missing-netns", "wait", wanted=False)
    assert poll(agent.is_without_its_store)
    agent.process.send_signal(signal.SIGHUP)
    agent._manager.settimeout(0.5)
    with pytest.raises(TimeoutError):
        agent.wait_until("READY")


def comes_to(lines: Iterator[dict[str, Any]], expected: dict[str, str]) -> None:
    """Read lines until the last one of each interface has the expected state.

    Some have the same state as the one before: an operational state, or an address of the kernel's own, is news, too.
    """
    states: dict[str, str] = {}
    while states != expected:
        line = next(lines)
        states[line["name"]] = line["state"]


def test_status_watch_goes_on_when_its_directory_is_made_anew(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    command = [*VETHCTL, "status", "--watch", "--json", "--label", LABEL, "--status-dir", str(agent.status)]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as watching:
        assert watching.stdout is not None
        lines = map(json.loads, watching.stdout)
        comes_to(lines, {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        shutil.rmtree(agent.status)
        comes_to(lines, {"veth1": "removed", "veth2": "removed"})
        agent.end()
        start().wait_until("READY")
        comes_to(lines, {"veth1": "CONFIGURED", "veth2": "CONFIGURED"})
        watching.send_signal(signal.SIGINT)


def test_status_tells_when_no_agent_runs(start: Start) -> None:
    agent = start()
    agent.wait_until("READY")
    agent.end(signal.SIGKILL)
    done = status(agent, "--json")
    assert (done.returncode, json.loads(done.stderr)["code"]) == (2, "not-running")
    assert "veth1" in done.stdout  # what the last one said


def test_status_watch_writes_a_line_for_each_change(start: Start) -> None:
    agent = start()
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
    start: Start, number: signal.Signals
) -> None:
    agent = start()
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
        start().wait_until("READY")
        comes_to(map(json.loads, watching.stdout), {"veth1": "PENDING", "veth2": "removed"})
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate()
    assert errors == ""
    assert "removed" not in rest


def test_status_watch_draws_a_terminal_anew(start: Start) -> None:
    agent = start()
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
    """What a terminal shows until `text` was drawn so often."""
    read = b""
    deadline = time.monotonic() + PATIENCE
    while read.count(b"\x1b[H") < times and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            read += os.read(fd, 65536)
    assert text in read
    return read


def test_put_does_not_make_the_directory_anew_that_an_agent_waits_for(start: Start, tmp_path: Path) -> None:
    agent = start("--status-dir", f"/run/vethlib/{LABEL}/status")  # where others look for it
    agent.wait_until("READY")
    pair = values_of(agent)
    agent.store.rename(tmp_path / "away")
    assert poll(lambda: str(agent.store) in agent.log.splitlines()[-1])
    (tmp_path / "more.json").write_text(json.dumps(pair[0]))
    put = [*VETHCTL, "put", str(tmp_path / "more.json"), "--store", f"dir:{agent.store}", "--json"]
    done = subprocess.run(put, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert LABEL in json.loads(done.stderr)["error"]
    assert not agent.store.exists()
    assert names("ns1") == {"veth1"}


def test_what_is_hardly_meant_is_in_the_log(start: Start) -> None:
    agent = start(wanted=False)
    agent.wait_until("READY")
    hardly_meant = {"name": "x", "veth": {"peer_if_name": "y"}, "namespace": {"name": "red", "pid": 1}}
    (agent.store / "x.json").write_text(json.dumps(hardly_meant))
    assert poll(lambda: "x: namespace.name " in agent.log)


@pytest.mark.parametrize("possible", [True, False])
def test_a_policy_for_ipv6_is_applied_or_reported_to_be_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], possible: bool
) -> None:
    for name, peer in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.json").write_text(json.dumps(value(name, peer)))
    if not possible:
        monkeypatch.setattr("vethlib.agent.reconcile.configurator.can_switch_ipv6", lambda: False)
    arguments = ["--store", f"dir:{tmp_path}", "--status-dir", f"{tmp_path}-status", "--ipv6", "auto"]
    assert main(["agent", "--once", "--label", LABEL, *arguments]) == 0
    addresses = [one["family"] for name in "ab" for one in seen(name)["addr_info"]]
    assert ("inet6" in addresses) is not possible
    assert ("--ipv6 auto" in capfd.readouterr().err) is not possible


def test_the_sentences_of_a_log(start: Start) -> None:
    """All of them here: other tests ask for the keys of the log in JSON, and for what the agent reports."""
    agent = start()
    agent.wait_until("READY")
    away = agent.store.rename(agent.store.parent / "away")
    assert poll(agent.is_without_its_store)
    away.rename(agent.store)
    assert poll(agent.has_its_store)
    (agent.store / "veth2.json").unlink()
    assert poll(lambda: "veth1: PENDING" in agent.log)
    assert agent.end() == 0
    lines = [line.split(" ", 1)[1] for line in agent.log.splitlines()]
    assert sorted(lines[5:7]) == [
        "veth1: PENDING (peer veth2 is not configured), deleted 'veth1' in netns:ns1, for: configuration",
        "veth2: removed, for: configuration",
    ]
    assert lines[2:] == [
        "started: 2 CONFIGURED",
        f"warning: the store is down, and the host stays as it is: {agent.store} does not exist: create the directory",
        "the store is back",
        *lines[5:7],
        "stopped by SIGTERM, and the host stays as it is: 1 PENDING",
    ]
