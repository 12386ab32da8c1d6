"""apply --try: what others do while a trial waits for its confirmation, and that another process may give it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.commands import Said, Vethctl
from tests.live.applying import LABEL, Write, value
from tests.live.children import staying
from tests.live.other_user import OTHER, become_other
from tests.live.trials import PATIENCE, ends
from tests.witness import ip, names, seen
from vethlib import ns
from vethlib.agent.run.trial import NoTrial, settle
from vethlib.cli.applying.question import Answer, ask

pytestmark = pytest.mark.slow


@pytest.fixture
def during(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """A trial during which something is done before it is confirmed or ended."""

    def run(meddle: Callable[[], None], word: str, *argv: str) -> Said:
        asked = threading.Event()
        failed: list[BaseException] = []

        def asking(*args: Any) -> Answer:
            asked.set()
            return ask(*args)

        def elsewhere() -> None:
            try:
                assert asked.wait(PATIENCE)
                meddle()
                settle(LABEL, word)
            except BaseException as error:
                failed.append(error)

        monkeypatch.setattr("vethlib.cli.applying.trial.ask", asking)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        said = vethctl("apply", *argv, "--try", "60s")
        thread.join()
        assert failed == []
        return said

    return run


# --- its confirmation


def test_another_process_keeps_or_undoes_it(during: Callable[..., Said], write: Write) -> None:
    path = write(*ends())
    undone = during(lambda: None, "undo", path, "--json")
    assert (undone.code, undone.json["outcome"], ns.names()) == (4, "undone", [])
    assert during(lambda: None, "keep", path, "--json").json["outcome"] == "kept"
    assert names("ns1") == {"one"}


def test_there_is_one_trial_of_a_label_at_a_time(during: Callable[..., Said], write: Write) -> None:
    path = write(*ends())
    said: list[int] = []

    def meddle() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "vethlib", "apply", path, "--try", "1s", "--json"],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        said.append(done.returncode)
        assert json.loads(done.stderr.splitlines()[-1])["code"] == "already-trying"

    assert during(meddle, "undo", path).code == 4
    assert said == [2]


def test_confirm_says_what_became_of_the_trial(vethctl: Vethctl, write: Write) -> None:
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", write(*ends()), "--try", "60s", "--json"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    said = vethctl("confirm", "--timeout", "60s")
    assert (said.code, said.out.partition(":")[0]) == (0, "kept")
    out, _ = trial.communicate(timeout=PATIENCE)
    told = json.loads(out)
    assert (trial.returncode, told["outcome"], told["code"], told["undone"], told["left"]) == (0, "kept", "", [], [])
    assert told["reason"] == ""
    assert [one["op"] for one in told["done"]] == ["add-netns", "add-netns", "create", "create"]
    late = vethctl("confirm", "--json")
    assert (late.code, late.error["code"]) == (2, "no-trial")


def test_without_a_trial_there_is_nobody_to_confirm_it_to(home: ns.Netns) -> None:
    with pytest.raises(NoTrial, match=LABEL):
        settle(LABEL, "keep")


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed")
def test_whoever_else_holds_the_name_of_a_trial_is_not_believed(home: ns.Netns) -> None:
    def squat() -> object:
        become_other()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind("\0vethlib/try/vpp1")
        listening.listen()
        return listening

    with staying(squat), pytest.raises(NoTrial, match=f" {OTHER}"):
        settle("vpp1", "keep")


# --- what others change meanwhile


def test_a_pair_that_is_not_found_any_more_is_reported(
    during: Callable[..., Said], write: Write, home: ns.Netns
) -> None:
    def meddle() -> None:
        ip("link", "delete", "one")

    said = during(meddle, "undo", write(value("one", "two"), value("two", "one")))
    assert said.code == 4
    assert "'one'" in said.err


def test_what_others_change_meanwhile_stays_and_is_told(
    vethctl: Vethctl, during: Callable[..., Said], write: Write
) -> None:
    vethctl("apply", write(*ends()))

    def meddle() -> None:
        ip("link", "set", "one", "mtu", "1350", netns="ns1")
        ip("address", "add", "10.0.7.1/24", "dev", "one", netns="ns1")

    path = write(*ends(mtu=1300, ip_addresses=["10.0.0.3/24"]))
    said = during(meddle, "undo", path)
    assert said.code == 4
    assert "mtu stays 1350" in said.err
    link = seen("one", "ns1")
    assert link["mtu"] == 1350
    there = [one["local"] for one in link["addr_info"] if not one["local"].startswith("fe80")]
    assert there == ["10.0.0.1", "10.0.7.1", "10.0.0.2", "2001:db8::1"]


def test_a_namespace_that_somebody_uses_meanwhile_stays_and_is_told(
    during: Callable[..., Said], write: Write, spawn: Callable[[str], int]
) -> None:
    def meddle() -> None:
        spawn("ns1")
        ip("link", "add", "name", "theirs", "type", "bridge", netns="ns2")

    said = during(meddle, "undo", write(*ends()))
    assert said.code == 4
    assert "'theirs'" in said.err
    assert "netns:ns1" in said.err
    assert (names("ns1"), names("ns2")) == (set(), {"theirs"})


@pytest.mark.parametrize("up", [False, True])
def test_a_tunnel_that_the_kernel_creates_everywhere_keeps_a_namespace_only_if_it_is_used(
    during: Callable[..., Said], write: Write, up: bool
) -> None:
    def begin() -> None:
        for tunnel in ("tunl0", "ip6tnl0"):
            ip("link", "add", "name", tunnel, *(["up"] if up else []), "type", "bridge", netns="ns1")

    during(begin, "undo", write(*ends()))
    assert ns.names() == (["ns1"] if up else [])
