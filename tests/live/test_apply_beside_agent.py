"""Commands that change the pairs of a label are refused while an agent of that label runs, which would undo them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.applying import value
from tests.live.children import staying
from tests.live.other_user import become_other
from tests.witness import host_state, names, poll
from vethlib import ns
from vethlib.agent.process.instance import Instance
from vethlib.agent.process.rundir import RUN
from vethlib.agent.run.trial import settle
from vethlib.agent.stores.agentfile import AgentFile

LABEL = "kept"
PAIR = json.dumps([value("a", "b"), value("b", "a")])


@pytest.fixture
def vethctl(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    monkeypatch.setenv("VETHLIB_LABEL", LABEL)
    return vethctl


@pytest.fixture
def instance(home: ns.Netns) -> Iterator[Instance]:
    """The name of an agent, held by this process."""
    instance = Instance(LABEL)
    yield instance
    instance.close()


@pytest.mark.parametrize("options", [[], ["--prune"], ["--timeout", "1s"], ["--try", "1s"]])
def test_apply_is_refused_and_changes_nothing(vethctl: Vethctl, instance: Instance, options: list[str]) -> None:
    before = host_state()
    said = vethctl("apply", "-", "--json", *options, stdin=PAIR)
    assert said.code == 2
    assert (said.error["code"], said.error["field"]) == ("agent-running", "--label")
    assert str(os.getpid()) in said.error["error"]
    assert LABEL in said.error["error"]
    assert "--force" in said.error["hint"]
    assert host_state() == before


def test_the_cure_names_the_store_of_the_agent(vethctl: Vethctl, instance: Instance, tmp_path: Path) -> None:
    AgentFile(f"{RUN}/{LABEL}/status", f"dir:{tmp_path}").write()
    assert f"dir:{tmp_path}" in vethctl("apply", "-", "--json", stdin=PAIR).error["hint"]


def test_force_applies_it_all_the_same(vethctl: Vethctl, instance: Instance) -> None:
    assert vethctl("apply", "-", "--force", stdin=PAIR).code == 0
    assert names() == {"a", "b"}


def test_another_label_and_what_changes_nothing_are_as_ever(vethctl: Vethctl, instance: Instance) -> None:
    assert vethctl("diff", "-", stdin=PAIR).code == 1
    foretold = vethctl("apply", "-", "--dry-run", "--json", stdin=PAIR)
    assert (foretold.code, foretold.error["code"]) == (0, "agent-running")  # a warning
    assert names() == set()
    assert vethctl("apply", "-", "--label", "other", stdin=PAIR).code == 0


def test_a_bad_configuration_is_reported_first(vethctl: Vethctl, instance: Instance) -> None:
    assert vethctl("apply", "-", "--json", stdin="{").code == 1


def test_whoever_only_holds_the_abstract_name_is_no_agent(vethctl: Vethctl) -> None:
    def squat() -> object:  # as an ordinary user may
        become_other()
        squatter = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        squatter.bind(f"\0vethlib/agent/{LABEL}")
        squatter.listen()
        return squatter

    with staying(squat):
        assert vethctl("apply", "-", stdin=PAIR).code == 0


def test_the_socket_of_an_agent_that_was_killed_is_no_agent(vethctl: Vethctl) -> None:
    pid = os.fork()
    if pid == 0:
        Instance(LABEL)
        os._exit(0)  # and leaves its files behind
    os.waitpid(pid, 0)
    assert any(LABEL in name for name in os.listdir(RUN))
    assert vethctl("apply", "-", stdin=PAIR).code == 0


def test_an_agent_that_starts_while_apply_waits_ends_the_wait(vethctl: Vethctl) -> None:
    values = json.dumps([value("a", "b", "late"), value("b", "a")])
    started: list[Instance] = []
    timer = threading.Timer(0.5, lambda: started.append(Instance(LABEL)))
    timer.start()
    try:
        said = vethctl("apply", "-", "--json", "--missing-netns", "wait", "--timeout", "60s", stdin=values)
    finally:
        timer.join()
        for one in started:
            one.close()
    assert said.code == 2
    assert "agent-running" in said.err


def test_confirm_keeps_a_trial_though_an_agent_has_started(vethctl: Vethctl) -> None:
    kept: list[str] = []

    def keep() -> None:
        instance = Instance(LABEL)
        try:
            kept.append(settle(LABEL, "keep", timeout=20))
        finally:
            instance.close()

    def later() -> None:
        assert poll(lambda: names() == {"a", "b"})
        keep()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        said = vethctl("apply", "-", "--try", "30s", stdin=PAIR)
    finally:
        thread.join()
    assert (said.code, kept) == (0, ["kept"])
