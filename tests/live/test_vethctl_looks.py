"""vethctl demo and doctor in the test's own process, which is already in private namespaces; and how main() ends."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.commands import Vethctl, runner
from tests.live.applying import EXAMPLES, value
from tests.programs import attended
from tests.witness import ip, names
from vethlib import ns
from vethlib.agent import Plan
from vethlib.agent.host.execution import execute
from vethlib.cli import main
from vethlib.cli.host.kernel_features import Feature
from vethlib.cli.host.traffic import Traffic
from vethlib.ns.syscalls import MNT_DETACH, mount, umount2

ROOT = Path(__file__).parents[2]


@pytest.fixture
def vethctl(home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Vethctl]:
    monkeypatch.setattr("vethlib.cli.commands.demo.ns.isolate", lambda: None)
    yield runner(capsys, monkeypatch)
    monkeypatch.undo()


def test_the_demo_builds_the_example_pair_and_proves_it(vethctl: Vethctl) -> None:
    said = vethctl("demo")
    assert (said.code, said.err) == (0, "")
    assert "1000 of 1000 " in said.out
    assert (names("ns1"), names("ns2")) == ({"veth1"}, {"veth2"})


def test_the_demo_lists_the_traffic_of_few_pairs(vethctl: Vethctl) -> None:
    assert vethctl("demo", str(EXAMPLES / "chain")).out.count("1000 of 1000") == 2


def test_the_demo_sums_up_the_traffic_of_many_pairs(vethctl: Vethctl) -> None:
    star = vethctl("demo", str(EXAMPLES / "star")).out
    assert star.count(" of ") == 1
    assert "20 pairs: 6000 of 6000" in star


def test_a_demo_whose_traffic_is_lost_names_the_pairs_and_fails(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(pair: Any, rounds: int) -> Traffic:
        lost = pair[0].link.name == "to-leaf3" or pair[2].link.name == "to-leaf3"
        return Traffic("to-leaf3@hub" if lost else "x", "y", rounds, 0 if lost else rounds, 12.0)

    monkeypatch.setattr("vethlib.cli.commands.demo.talk", talk)
    said = vethctl("demo", str(EXAMPLES / "star"))
    assert said.code == 2
    assert "to-leaf3@hub ⇄ y: 0 of 300 " in said.out
    assert "20 pairs: 5700 of 6000" in said.out


def test_datagrams_that_do_not_come_back_are_counted(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.cli.host.traffic._TIMEOUT", 0.01)
    monkeypatch.setattr("vethlib.cli.commands.demo._ROUNDS", 3)
    monkeypatch.setattr("socket.socket.sendto", lambda self, data, to: len(data))
    said = vethctl("demo", "--json")
    assert (said.code, said.json["traffic"][0]["received"], said.json["traffic"][0]["sent"]) == (2, 0, 3)


def test_a_demo_that_is_not_the_same_the_second_time_fails(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    from vethlib.cli.commands import demo

    plans = iter([demo._plan, lambda *_: Plan((object(),), {})])  # type: ignore[arg-type]
    monkeypatch.setattr(demo, "_plan", lambda *args: next(plans)(*args))
    said = vethctl("demo")
    assert said.code == 2
    assert "applied again: 1 operation" in said.out


def test_the_demo_of_what_cannot_be_built_says_why(vethctl: Vethctl) -> None:
    said = vethctl("demo", "-", "--json", stdin=json.dumps(value("a", "b")))
    assert (said.code, said.error["code"]) == (3, "pending")
    assert vethctl("demo", "-", stdin="[").code == 1
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "z")
    said = vethctl("demo", "-", "--json", stdin=json.dumps([value("a", "b"), value("b", "a")]))
    assert (said.code, {one["code"] for one in said.errors}) == (2, {"failed", "pending"})


@pytest.mark.parametrize(
    "namespace",
    [
        {"pid": os.getpid()},
        {"type": "PID_REF_NS", "pid": os.getpid()},
        {"type": "FILE_REF_NS", "filepath": "/proc/1/ns/net"},
        {"type": 3, "filepath": f"/proc/{os.getpid()}/root/proc/self/ns/net"},
        {"type": 3, "filepath": "/run/netns/blue"},
    ],
    ids=["pid", "type and pid", "file of process 1", "file of a process", "named file"],
)
@pytest.mark.parametrize("end", [0, 1])
def test_the_demo_refuses_namespaces_that_it_would_share_with_others(
    vethctl: Vethctl, namespace: dict[str, object], end: int
) -> None:
    values = [value("a", "b"), value("b", "a")]
    values[end]["namespace"] = namespace
    before = ip("link")
    said = vethctl("demo", "-", "--json", stdin=json.dumps(values))
    assert (said.code, said.error["code"], said.error["field"]) == (1, "invalid-value", "namespace")
    assert ip("link") == before


def test_the_demo_stops_at_what_the_kernel_refuses(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs")
        return execute(*args, **kwargs)

    monkeypatch.setattr("vethlib.cli.commands.demo.execute", meanwhile)
    said = vethctl("demo", "-", "--json", stdin=json.dumps([value("a", "b"), value("b", "a")]))
    assert (said.code, said.error["code"]) == (2, "link-exists")


def test_the_demo_takes_ipv6_and_pairs_that_carry_nothing(vethctl: Vethctl) -> None:
    six = [value("a", "b", "n1", ip_addresses=["fd00::1/64"]), value("b", "a", ip_addresses=["fd00::2/64"])]
    assert "1000 of 1000" in vethctl("demo", "-", stdin=json.dumps(six)).out
    vethctl("delete", "b")
    said = vethctl("demo", "-", stdin=json.dumps([value("c", "d"), value("d", "c", enabled=False)]))
    assert said.code == 0
    assert "no traffic: " in said.out


def test_the_demo_without_its_examples_asks_for_a_file(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vethlib.cli.commands.demo.__file__", str(tmp_path / "a" / "b" / "demo.py"))
    said = vethctl("demo", "--json")
    assert (said.code, said.error["field"]) == (1, "PATH")


def test_the_doctor_finds_nothing_missing_here(vethctl: Vethctl) -> None:
    said = vethctl("doctor")
    assert (said.code, said.out.splitlines()[-1]) == (0, "ready: vethctl works on this host")
    assert "is not there yet" in said.out or "0 named namespaces" in said.out
    vethctl("netns", "add", "n1")
    assert "1 named namespace\n" in vethctl("doctor").out
    findings = vethctl("doctor", "--json").json
    assert all(list(one) == ["check", "ok", "needed", "detail", "cure", "code"] for one in findings)
    assert all(one["ok"] for one in findings if one["needed"])
    assert all(one["ok"] == (not one["code"]) for one in findings)


@pytest.mark.parametrize("name", [b"\xff", "\u2028".encode(), b"\x0c", b"\r", b"\x85"])
def test_the_doctor_reads_past_a_mount_point_of_any_name(vethctl: Vethctl, tmp_path: Path, name: bytes) -> None:
    point = os.fsencode(tmp_path) + b"/x" + name + b"x"
    os.mkdir(point)
    mount(b"none", point, b"tmpfs", 0, None)
    try:
        vethctl("netns", "add", "n1")  # which mounts a directory of its own, after the other one
        assert "1 named namespace\n" in vethctl("doctor").out
    finally:
        umount2(point, MNT_DETACH)


def test_the_doctor_names_what_is_missing_and_its_cure(vethctl: Vethctl) -> None:
    with dropped():
        said = vethctl("doctor", "--json")
        text = vethctl("doctor").out
    assert said.code == 2
    bad = {one["check"]: one["code"] for one in said.json if not one["ok"]}
    assert {"NET_ADMIN": "not-permitted", "SYS_ADMIN": "not-permitted", "trial": "refused"}.items() <= bad.items()
    assert text.splitlines()[-1].startswith("not ready: 3 ")


def a_proc(directory: Path, userns: str = "100") -> Path:
    for folder in ("self", "sys/user", "sys/net"):
        (directory / folder).mkdir(parents=True)
    (directory / "self/status").write_text("CapEff:\t000001ffffffffff\n")
    (directory / "self/mountinfo").write_text("1 2 0:1 / /run/netns rw shared:7 - tmpfs tmpfs rw\n")
    (directory / "sys/user/max_user_namespaces").write_text(f"{userns}\n")
    return directory


def test_the_doctor_names_the_sysctl_that_forbids_user_namespaces(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vethlib.cli.commands.doctor._PROC", a_proc(tmp_path, "0"))
    said = vethctl("doctor")
    assert said.code == 0
    assert "→ sysctl -w user.max_user_namespaces=10000" in said.out


def test_the_doctor_copes_without_proc(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vethlib.cli.commands.doctor._PROC", tmp_path / "nothing")
    said = vethctl("doctor")
    assert said.code == 2
    assert "→ mount -t proc proc /proc" in said.out


def test_the_doctor_tells_what_a_missing_feature_of_the_kernel_costs(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*, needed: bool) -> tuple[int, dict[str, object]]:
        feature = Feature("99.0", "use", "cost", lambda: False, needed=needed)
        monkeypatch.setattr("vethlib.cli.host.kernel_features.FEATURES", (feature,))
        said = vethctl("doctor", "--json")
        return said.code, next(one for one in said.json if one["check"] == "kernel ≥ 99.0")

    code, found = check(needed=False)
    assert (code, found["code"], found["needed"], found["detail"]) == (0, "kernel-too-old", False, "cost")
    code, found = check(needed=True)
    assert (code, found["code"], found["needed"], found["detail"]) == (2, "kernel-too-old", True, "cost")


def test_the_doctor_knows_other_systems(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.cli.commands.doctor.sys.platform", "darwin")
    said = vethctl("doctor")
    assert (said.code, "Linux" in said.out) == (2, True)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 0)])
def test_an_interrupt_and_a_reader_that_left_end_quietly(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("vethlib.cli.commands.host.netns.netns", fail)
    said = vethctl("netns", "list")
    assert (said.code, said.out, said.err) == (code, "", "")


def test_arguments_come_from_the_command_line(
    home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["vethctl", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("vethctl 0.")


@pytest.mark.parametrize(
    "line",
    [
        ["top", "--interval", "0.1"],
        ["stats", "--watch", "--interval", "0.1"],
        ["status", "--watch", "--label", "dumb"],
        ["graph", "--watch"],
        ["show"],
    ],
    ids=" ".join,
)
def test_a_dumb_terminal_gets_no_escape_sequence(home: object, line: list[str]) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "vethlib", *line]
    environment = {**os.environ, "TERM": "dumb"}
    with attended(
        subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env=environment)
    ) as process:
        os.close(terminal)
        text = b""
        deadline = time.monotonic() + 60
        while text.count(b"\n") < 2 and select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                text += os.read(reader, 65536)
            except OSError:  # EIO: it has ended
                break
        process.terminate()
        os.close(reader)
    assert text
    assert b"\033" not in text
