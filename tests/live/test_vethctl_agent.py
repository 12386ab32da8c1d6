"""vethctl agent, as its operators and its service manager see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.live.agent_process import LABEL, PATIENCE, ROOT, VETHCTL, Agent, entry_of, vethctl
from tests.live.applying import value
from tests.live.convergence import assert_converges
from tests.reasons import of_entry
from tests.witness import ip, names, poll, seen
from vethlib import ns
from vethlib.agent.reasons import peer_not_configured
from vethlib.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

Start = Callable[..., "Agent"]


def values_of(agent: Agent) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in agent.store.glob("*.json")]


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


def test_the_service_manager_is_told_that_it_is_ready_once_the_host_is_as_configured(start_agent: Start) -> None:
    agent = start_agent(ipv6=True)
    assert agent.wait_until("READY")["STATUS"] == "2 CONFIGURED"
    assert not any(one.get("tentative") for one in seen("veth1", "ns1")["addr_info"] if one["local"][:5] == "2001:")
    assert names("ns1") == {"veth1"}
    assert_converges(values_of(agent), timeout=0)


def test_the_watchdog_is_fed_in_time(start_agent: Start) -> None:
    agent = start_agent(WATCHDOG_USEC="4000000")
    agent.wait_until("READY")
    fed = []
    for _ in range(3):
        agent.wait_until("WATCHDOG")
        fed.append(time.monotonic())
    assert all(after - before < 4 for before, after in pairwise(fed))


def test_a_watchdog_of_another_process_is_not_fed(start_agent: Start) -> None:
    agent = start_agent(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    agent.wait_until("READY")
    agent._manager.settimeout(0.3)
    with pytest.raises(TimeoutError):
        agent.wait_until("WATCHDOG")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_leaves_the_host_as_it_is(start_agent: Start, number: int) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    before = seen("veth1", "ns1")["ifindex"]
    agent.process.send_signal(number)
    agent.wait_until("STOPPING")
    assert agent.process.wait(PATIENCE) == 0
    assert seen("veth1", "ns1")["ifindex"] == before
    assert_converges(values_of(agent), timeout=0)


def test_links_and_open_connections_live_through_a_restart(start_agent: Start) -> None:
    agent = start_agent()
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
            start_agent().wait_until("READY")
            client.send(b"still there")
            server.settimeout(5)
            assert server.recv(100) == b"still there"
    assert [seen(name, netns)["ifindex"] for name, netns in (("veth1", "ns1"), ("veth2", "ns2"))] == before
    assert agent.log.count("created") == 2  # by the first one


def test_a_hangup_has_everything_looked_at_and_the_manager_told(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    agent.process.send_signal(signal.SIGHUP)
    assert int(agent.wait_until("RELOADING")["MONOTONIC_USEC"]) > 0
    assert agent.wait_until("READY")["STATUS"] == "2 CONFIGURED"


def test_hangups_do_not_cut_short_an_agent_that_is_ending(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    agent.process.terminate()

    def hung_up() -> bool:
        agent.process.send_signal(signal.SIGHUP)
        return agent.process.poll() is not None

    assert poll(hung_up)
    assert agent.end() == 0


def test_a_hangup_tries_at_once_what_was_put_off(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    for _ in range(30):
        ip("link", "set", "veth1", "mtu", "1400", netns="ns1")
        time.sleep(0.01)
    assert poll(lambda: "repaired" in agent.log)
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_until("RELOADING")
    agent.wait_until("READY")
    assert seen("veth1", "ns1")["mtu"] == 1500


def test_a_second_agent_of_the_label_is_refused(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    done = vethctl("agent", "--store", f"dir:{agent.store}", "--label", LABEL)
    assert done.returncode == 2
    assert str(agent.process.pid) in done.stderr
    assert vethctl("agent", "--store", f"dir:{agent.store}", "--label", "other", "--once").returncode != 0
    assert agent.process.poll() is None
    agent.end(signal.SIGKILL)
    start_agent().wait_until("READY")  # a killed one holds nothing


def test_two_labels_on_one_host_leave_each_other_alone(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    other = tmp_path / "other"
    other.mkdir()
    for name, peer in ("x1", "x2"), ("x2", "x1"):
        (other / f"{name}.json").write_text(json.dumps(value(name, peer)))
    done = vethctl("agent", "--store", f"dir:{other}", "--label", "other", "--once", "--status-dir", f"{tmp_path}/so")
    assert (done.returncode, done.stdout) == (0, "2 CONFIGURED\n")
    assert names() == {"x1", "x2"}
    assert_converges([*values_of(agent), *(value(*ends) for ends in (("x1", "x2"), ("x2", "x1")))], timeout=0)


def test_every_change_is_a_line_with_its_key_and_its_cause(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    for mtu in ("1400", "1401"):  # news of the namespace it has created may come late, and be the first one's cause
        ip("link", "set", "veth1", "mtu", mtu, netns="ns1")
        line = f"mtu {mtu} → 1500"
        assert poll(lambda line=line: line in agent.log)  # type: ignore[misc]
    created, _, started, _, changed = agent.log.splitlines()
    assert started.endswith(" started: 2 CONFIGURED")
    assert created.split(" ", 1)[1].startswith("veth")
    assert created.endswith("cause: configuration")
    assert changed.split(" ", 1)[1] == "veth1: CONFIGURED, mtu 1401 → 1500, cause: its link was changed"


def test_the_log_may_be_json(start_agent: Start) -> None:
    agent = start_agent("--log", "json")
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
def test_the_last_line_tells_which_signal_has_ended_it_and_what_stays(
    start_agent: Start, number: signal.Signals
) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    assert agent.end(number) == 0
    last = agent.log.splitlines()[-1].split(" ", 1)[1]
    assert number.name in last
    assert names("ns1") == {"veth1"}


def test_a_reason_is_told_once(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    (agent.store / "veth2.json").unlink()
    reason = peer_not_configured("veth2").text
    assert poll(lambda: reason in agent.log)
    (line,) = [line for line in agent.log.splitlines() if "veth1: PENDING" in line]
    assert line.count(reason) == 1  # not again in what was done


@pytest.mark.usefixtures("home")
def test_a_program_that_runs_an_agent_once_has_its_own_handler_of_hangups_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    (tmp_path / "store").mkdir()
    assert main(["agent", "--store", f"dir:{tmp_path}/store", "--label", LABEL, "--once", "--docker", "off"]) == 0
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_journal_has_times_and_priorities_of_its_own(start_agent: Start, tmp_path: Path) -> None:
    (tmp_path / "errors").touch()
    errors = (tmp_path / "errors").stat()
    agent = start_agent(JOURNAL_STREAM=f"{errors.st_dev}:{errors.st_ino}")
    agent.wait_until("READY")
    assert agent.log.startswith("<6>veth")
    (agent.store / "broken.json").write_text("{")
    assert poll(lambda: "broken" in agent.log)
    agent.end()
    assert {line[:3] for line in agent.log.splitlines()} <= {"<4>", "<6>"}


def test_a_log_elsewhere_has_times_even_if_a_journal_reads_the_shell(start_agent: Start) -> None:
    agent = start_agent(JOURNAL_STREAM="1:2")
    agent.wait_until("READY")
    assert agent.log.startswith(str(time.gmtime().tm_year))


def test_once_says_what_came_of_it(start_agent: Start) -> None:
    agent = start_agent("--once")
    assert agent.process.wait(PATIENCE) == 0
    assert_converges(values_of(agent), timeout=0)
    (agent.store / "lonely.json").write_text(json.dumps(value("lonely", "nobody")))
    again = start_agent("--once")
    assert again.process.wait(PATIENCE) == 3
    (agent.store / "lonely.json").write_text("{")
    assert start_agent("--once").process.wait(PATIENCE) == 2


def test_the_store_may_come_from_the_environment(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    agent.end()
    command = [*VETHCTL, "agent", "--once", "--label", LABEL, "--status-dir", str(agent.status)]
    environment = os.environ | {"VETHLIB_STORE": f"dir:{agent.store}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "2 CONFIGURED\n")


def test_once_without_a_store_is_refused(start_agent: Start, tmp_path: Path) -> None:
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


def test_what_is_put_and_deleted_is_done(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    (veth1,) = (one for one in values_of(agent) if one["name"] == "veth1")
    write(agent, **veth1 | {"mtu": 1400})
    assert poll(lambda: seen("veth1", "ns1")["mtu"] == 1400)
    done = vethctl("del", "veth1", "--store", f"dir:{agent.store}", "--label", LABEL)
    assert done.returncode == 0
    assert poll(lambda: not names("ns1") and not names("ns2"))


def test_a_store_that_goes_away_changes_nothing(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until("READY")
    before = seen("veth1", "ns1")["ifindex"]
    agent.store.rename(agent.store.parent / "away")
    assert poll(agent.is_without_its_store)
    (agent.store.parent / "away").rename(agent.store)
    assert poll(agent.has_its_store)
    assert seen("veth1", "ns1")["ifindex"] == before
    assert "deleted" not in agent.log


def test_an_agent_starts_without_its_store_and_with_it_when_it_comes(start_agent: Start) -> None:
    agent = start_agent()
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


def test_a_bad_value_is_invalid_and_the_last_good_one_stays_in_force(start_agent: Start) -> None:
    agent = start_agent()
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
    agent = start_agent()  # which does not know what was valid
    agent.wait_until("READY")
    assert seen("veth1", "ns1")["ifindex"] == before
    (agent.store / "veth1.json").write_text(good)
    assert poll(lambda: entry_of(agent, "veth1")["state"] == "CONFIGURED")
    assert seen("veth1", "ns1")["ifindex"] == before


def test_a_hangup_before_the_store_was_read_does_not_say_that_it_is_ready(start_agent: Start) -> None:
    agent = start_agent()
    agent.end(signal.SIGKILL)
    agent.store.rename(agent.store.parent / "away")
    agent = start_agent("--missing-netns", "wait", wanted=False)
    assert poll(agent.is_without_its_store)
    agent.process.send_signal(signal.SIGHUP)
    agent._manager.settimeout(0.5)
    with pytest.raises(TimeoutError):
        agent.wait_until("READY")


def test_put_does_not_make_the_directory_anew_that_an_agent_waits_for(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent("--status-dir", f"/run/vethlib/{LABEL}/status")  # where others look for it
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


def test_what_is_hardly_meant_is_in_the_log(start_agent: Start) -> None:
    agent = start_agent(wanted=False)
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


def test_the_sentences_of_a_log(start_agent: Start) -> None:
    """All of them here: other tests ask for the keys of the log in JSON, and for what the agent reports."""
    agent = start_agent()
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
        "veth1: PENDING (peer veth2 is not configured), deleted 'veth1' in netns:ns1, cause: configuration",
        "veth2: removed, cause: configuration",
    ]
    assert lines[2:] == [
        "started: 2 CONFIGURED",
        "warning: the store is down, so changes in it take no effect yet: "
        f"{agent.store} does not exist: create the directory",
        "the store is available again",
        *lines[5:7],
        "stopped by SIGTERM, and the host stays as it is: 1 PENDING",
    ]
