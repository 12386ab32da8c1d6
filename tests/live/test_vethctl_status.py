"""vethctl status of many interfaces: selection by name and state, the summary line, and an unreachable etcd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.programs import attended
from vethlib.agent.process.instance import Instance
from vethlib.agent.reasons import Reason, ReasonCode
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.links import Link

LABEL = "many"
REASONS = {
    7: (Reason(ReasonCode.CHANGED_REPEATEDLY, "x", "mtu"),),
    8: (Reason(ReasonCode.PEER_NOT_CONFIGURED, "x", "b"), Reason(ReasonCode.PROCESS_GONE, "x", "pid:42")),
    9: (Reason(ReasonCode.INVALID_VALUE, "x", "mtu"),),
}


def state_of(number: int) -> State:
    return {7: State.RETRYING, 8: State.PENDING, 9: State.INVALID}.get(number, State.CONFIGURED)


@pytest.fixture
def said(home: object, tmp_path: Path) -> Iterator[str]:
    """The statuses of an agent with 600 interfaces, in the directory where they are looked for."""
    directory = f"/run/vethlib/{LABEL}/status"
    os.makedirs(directory)
    statuses: dict[str, Status | None] = {}
    for number in range(600):
        name = f"veth{number}"
        link = Link(number + 2, name, "", "veth", "02:00:00:00:00:01", 1500, True, "up", (), None, None, "", 0, 1)
        reason = "" if state_of(number) is State.CONFIGURED else "a reason " * 30
        peer, reasons = f"p{number}", REASONS.get(number, ())
        statuses[name] = Status(
            name, state_of(number), reason, 1.0, host_name=name, peer=peer, link=link, reasons=reasons
        )
    StatusFiles(directory).publish(statuses)
    file = AgentFile(directory, "etcd://gone:2379")
    file.write("no etcd answers")
    file.published()
    instance = Instance(LABEL)
    yield directory
    instance.close()


def test_states_and_patterns_choose_and_decide_the_exit_code(vethctl: Vethctl, said: str) -> None:
    AgentFile(said, "dir:/x").published()
    command = ("status", "--label", LABEL)
    names = lambda *argv: [one["name"] for one in vethctl(*command, *argv, "--json").json]  # noqa: E731
    assert names("--state", "retrying,Invalid") == ["veth7", "veth9"]
    assert names("--state", "PENDING", "--state", "RETRYING") == ["veth7", "veth8"]
    assert names("--code", "peer-not-configured,invalid-value") == ["veth8", "veth9"]
    assert names("--code", "peer-failed", "--code", "process-gone") == ["veth8"]
    assert names("--code", "invalid-value", "--state", "PENDING") == []
    assert names("veth1?", "veth59*") == [f"veth{n}" for n in (*range(10, 20), 59, *range(590, 600))]
    assert names("veth[78]", "--state=pending") == ["veth8"]
    assert vethctl(*command, "veth1*").code == 0
    assert vethctl(*command, "veth[18]").code == 3
    assert vethctl(*command, "--state", "configured").code == 0
    assert vethctl(*command, "--state", "failed").code == 0
    assert vethctl(*command).code == 2


def test_a_pattern_that_fits_nothing_and_a_state_that_is_none_are_refused(vethctl: Vethctl, said: str) -> None:
    AgentFile(said, "dir:/x").published()
    nothing = vethctl("status", "--label", LABEL, "nope*", "--json")
    assert (nothing.code, nothing.json, nothing.error["code"]) == (1, [], "no-such-interface")
    wrong = vethctl("status", "--label", LABEL, "--state", "broken", "--json")
    assert (wrong.code, wrong.error["field"]) == (1, "--state")
    wrong = vethctl("status", "--label", LABEL, "--code", "no code", "--json")
    assert (wrong.code, wrong.error["field"]) == (1, "--code")


def test_the_last_line_counts_the_states_below_the_table(vethctl: Vethctl, said: str) -> None:
    AgentFile(said, "dir:/x").published()
    all_ = vethctl("status", "--label", LABEL)
    assert len(all_.out.splitlines()) == 602
    assert all_.out.splitlines()[-1] == "600 interfaces: 1 INVALID, 1 RETRYING, 1 PENDING, 597 CONFIGURED"
    some = vethctl("status", "--label", LABEL, "veth[78]")
    assert some.out.splitlines()[-1] == "2 of 600 interfaces: 1 RETRYING, 1 PENDING"
    assert len(vethctl("status", "--label", LABEL, "veth7").out.splitlines()) == 2
    assert all_.err == vethctl("status", "--label", LABEL, "--json").err == ""


def test_on_a_terminal_a_row_is_a_line(vethctl: Vethctl, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    AgentFile(said, "dir:/x").published()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("vethlib.cli.term.output.Output.is_terminal", True)
    assert max(map(len, vethctl("status", "--label", LABEL, "--color=never").out.splitlines())) == 100


@pytest.mark.parametrize(
    ("chosen", "before", "last"),
    [
        (["--state", "pending"], [("veth8", "PENDING")], ("veth7", "PENDING")),
        (["--state=pending,retrying"], [("veth7", "RETRYING"), ("veth8", "PENDING")], ("veth7", "PENDING")),
        (["--code", "process-gone"], [("veth8", "PENDING")], ("veth7", "PENDING")),
        (["veth8"], [("veth8", "PENDING")], ("veth8", "removed")),
    ],
    ids=["state", "states", "code", "name"],
)
def test_what_leaves_the_selection_is_shown_with_its_state_and_only_what_is_not_configured_as_removed(
    said: str, chosen: list[str], before: list[tuple[str, str]], last: tuple[str, str]
) -> None:
    AgentFile(said, "dir:/x").published()
    command = [sys.executable, "-m", "vethlib", "status", "--watch", "--json", "--label", LABEL, *chosen]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as watching:
        assert watching.stdout is not None
        shown = iter(watching.stdout)
        read = [next(shown) for _ in before]
        publish(said, "veth8", State.CONFIGURED)
        read.append(next(shown))
        publish(said, "veth8", None)
        publish(said, "veth7", State.PENDING, REASONS[8])
        read.append(next(shown))
        watching.send_signal(signal.SIGINT)
        rest, _ = watching.communicate()
    assert [(entry["name"], entry["state"]) for entry in map(json.loads, read)] == [
        *before,
        ("veth8", "CONFIGURED"),
        last,
    ]
    assert rest == ""


def test_watching_ends_on_sigterm_like_that_of_other_commands(said: str) -> None:
    command = [sys.executable, "-m", "vethlib", "status", "veth9", "--watch", "--label", LABEL]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("veth9 ")
        watching.send_signal(signal.SIGTERM)
        assert (watching.wait(30), watching.stdout.read()) == (0, "")


def test_the_namespace_of_an_interface_that_never_had_a_valid_value_is_not_known(vethctl: Vethctl, said: str) -> None:
    status = Status("bad", State.INVALID, "x", 1.0)
    Path(said, "bad.json").write_text(json.dumps(status.as_dict()))
    Path(said, "was.json").write_text(json.dumps(status.as_dict() | {"name": "was", "host_name": "was"}))
    lines = vethctl("status", "bad", "was", "--label", LABEL).out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["bad", "INVALID"], ["was", "home"]]
    assert vethctl("describe", "bad", "--label", LABEL, "--json").json["links"] == []
    (link,) = vethctl("describe", "was", "--label", LABEL, "--json").json["links"]
    of_link = ("index", "up", "operstate", "mtu", "mac", "addresses", "counters", "fields")
    assert link.keys() == {"interface", "netns", "name", "problem", *of_link}
    assert {link[key] for key in of_link} == {None}


def publish(directory: str, name: str, state: State | None, reasons: tuple[Reason, ...] = ()) -> None:
    """Change one status of the directory as its agent does."""
    file = Path(directory, f"{name}.json")
    if state is None:
        file.unlink()
        return
    status = Status(name, state, "", 2.0, host_name=name, peer=f"p{name}", reasons=reasons)
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(status.as_dict()))
    unfinished.rename(file)


@pytest.fixture
def no_etcd() -> Iterator[str]:
    """The URL of an etcd that is not there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        yield f"etcd://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.usefixtures("said")
def test_the_agent_of_this_host_is_asked_where_the_etcd_does_not_answer(vethctl: Vethctl, no_etcd: str) -> None:
    pytest.importorskip("grpc")
    done = vethctl("status", "--label", LABEL, "--store", no_etcd, "veth7", "veth9", "--json")
    assert (done.code, [one["name"] for one in done.json]) == (2, ["veth7", "veth9"])
    assert (done.error["code"], done.error["field"]) == ("store-down", "--store")
    plain = vethctl("status", "--label", LABEL, "--store", no_etcd, "--state", "pending")
    assert [line.split()[0] for line in plain.out.splitlines()] == ["INTERFACE", "veth8"]


def test_where_nothing_is_known_here_either_the_etcd_is_the_error(home: object, no_etcd: str) -> None:
    pytest.importorskip("grpc")
    # In a process of its own: what gRPC opens in one, it keeps.
    command = [sys.executable, "-m", "vethlib", "status", "--label", "unheard-of", "--store", no_etcd, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["code"] == "store-error"
