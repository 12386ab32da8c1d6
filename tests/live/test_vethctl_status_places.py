"""Which link a published status concerns, whatever agent and reader call its namespace, and wherever they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl, runner
from tests.programs import attended, freeze, runs
from tests.witness import ip, poll, seen
from vethlib import ns

ROOT = Path(__file__).parents[2]
LABEL = "places"


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: object) -> Vethctl:
    run = runner(capsys, monkeypatch)
    return lambda *argv, **how: run(*argv, "--label", LABEL, **how)


@dataclass
class Scene:
    """An agent whose interfaces are in its home, in a process, and in a namespace with two names."""

    agent: int
    process: int  # another process of the namespace than the one in the configuration


@pytest.fixture
def scene(vethctl: Vethctl, tmp_path: Path, make_netns: Callable[..., None]) -> Iterator[Scene]:
    make_netns("ns1", "blue")
    Path("/run/netns/also").touch()
    subprocess.run(["mount", "--bind", "/run/netns/ns1", "/run/netns/also"], check=True)
    with ExitStack() as stack:
        first = _started(stack, ["unshare", "-n", "sleep", "300"])
        there, here = Path(f"/proc/{first}/ns/net"), Path("/proc/self/ns/net")
        assert poll(lambda: there.stat().st_ino != here.stat().st_ino)
        second = _started(stack, ["nsenter", "-t", str(first), "-n", "sleep", "300"])
        assert poll(lambda: Path(f"/proc/{second}/ns/net").stat().st_ino == there.stat().st_ino)
        last = max(first, second)
        values: list[dict[str, Any]] = [
            {"name": "uplink", "veth": {"peer_if_name": "down"}},
            {"name": "down", "namespace": {"type": "NAMED_NS", "name": "also"}, "veth": {"peer_if_name": "uplink"}},
            {
                "name": "a",
                "namespace": {"type": "PID_REF_NS", "pid": last},
                "host_if_name": "eth0",
                "veth": {"peer_if_name": "b"},
            },
            {"name": "b", "namespace": {"type": "NAMED_NS", "name": "ns1"}, "veth": {"peer_if_name": "a"}},
            {"name": "w1", "namespace": {"type": "NAMED_NS", "name": "ns1"}, "veth": {"peer_if_name": "w2"}},
            {"name": "h1", "veth": {"peer_if_name": "h2"}},
        ]
        store = tmp_path / "store"
        store.mkdir()
        (store / "all.json").write_text(json.dumps([{"enabled": True} | value for value in values]))
        command = [
            sys.executable,
            "-m",
            "vethlib",
            "agent",
            "--store",
            f"dir:{store}",
            "--label",
            LABEL,
            "--docker=off",
        ]
        agent = _started(stack, command)
        assert poll(lambda: len(vethctl("status", "--state", "configured", "--json").json) == 4, 30)
        yield Scene(agent, min(first, second))
    subprocess.run(["umount", "/run/netns/also"], check=True)
    os.unlink("/run/netns/also")


def _started(stack: ExitStack, command: list[str]) -> int:
    process = stack.enter_context(attended(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)))
    stack.callback(process.send_signal, signal.SIGKILL)
    return process.pid


def states(vethctl: Vethctl) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Ifindex and state of each link that top shows, by namespace and name; it shows those of other tests, too."""
    entries = vethctl("top", "--once", "--json").json
    return {(entry["netns"], entry["name"]): (entry["index"], entry["state"]) for entry in entries}


def test_a_link_has_its_state_whatever_its_namespace_is_called(vethctl: Vethctl, scene: Scene) -> None:
    found = states(vethctl)
    (named,) = {ref for ref, _ in found} & {"netns:ns1", "netns:also"}
    for name, ref in (("uplink", ""), ("down", named), ("eth0", f"pid:{scene.process}"), ("b", named)):
        assert found[ref, name] == (seen(name, ref)["ifindex"], "CONFIGURED"), name


def test_the_table_of_top_has_the_states_as_the_screen_has(vethctl: Vethctl, scene: Scene) -> None:
    clock, titles, *rows = vethctl("top", "--once", "--filter", "@home").out.splitlines()
    assert titles.split()[-1] == "state"
    assert {(row.split()[0], row.split()[-1]) for row in rows[:-1]} >= {("uplink", "CONFIGURED"), ("lo", "DOWN")}
    assert rows[-1].split()[0] == "total"
    assert rows[-1].split()[-1] == "0"
    assert clock.endswith("links")


def test_a_foreign_link_of_the_same_name_has_no_state_of_another_home(vethctl: Vethctl, scene: Scene) -> None:
    ip("link", "add", "spare", "type", "veth", "peer", "name", "spare2", netns="blue")
    ip("link", "add", "uplink", "mtu", "1234", "type", "veth", "peer", "name", "zz", netns="blue")
    foreign, own = seen("uplink", "blue")["ifindex"], seen("uplink")["ifindex"]
    assert foreign != own
    with ns.entered("blue"):
        found = states(vethctl)
        links = vethctl("describe", "uplink", "--json").json["links"]
    assert found["", "uplink"] == (foreign, None)
    assert (own, "CONFIGURED") in [entry for (_, name), entry in found.items() if name == "uplink"]
    assert (links[0]["netns"], links[0]["index"], links[0]["mtu"]) == ("", own, 1500)
    assert (links[1]["netns"], links[1]["index"]) == ("netns:also", seen("down", "ns1")["ifindex"])


def test_a_link_that_replaced_the_one_of_a_status_is_a_problem(vethctl: Vethctl, scene: Scene) -> None:
    freeze(scene.agent)
    try:
        ip("link", "delete", "dev", "uplink")
        ip("link", "add", "uplink", "type", "veth", "peer", "name", "zz")
        links = vethctl("describe", "uplink", "--json").json["links"]
        assert links[0]["index"] is None
        assert f"its index is {seen('uplink')['ifindex']}" in links[0]["problem"]
        assert states(vethctl)["", "uplink"] == (seen("uplink")["ifindex"], None)
    finally:
        os.kill(scene.agent, signal.SIGCONT)


def test_a_namespace_with_two_names_is_one_box_with_what_waits_in_it(vethctl: Vethctl, scene: Scene) -> None:
    drawing = vethctl("graph", "--json").json
    boxes = {box["name"]: [link["name"] for link in box["links"]] for box in drawing["boxes"]}
    (both,) = boxes.keys() & {"ns1", "also"}
    assert {"w1", "b"} <= set(boxes[both])  # the other end of b is in a namespace without a name
    assert (boxes["blue"], boxes["home"]) == ([], ["h1"])
    assert {edge[end]["netns"] for edge in drawing["edges"] for end in "ab"} == {both, "home"}


def ends(scene: Scene) -> None:
    os.kill(scene.agent, signal.SIGKILL)
    assert poll(lambda: not runs(scene.agent))


def has_just_started(scene: Scene) -> None:
    """It has not published all statuses yet: those that exist may be of the agent before."""
    (report,) = Path("/run/vethlib", LABEL).glob("status*/.agent")
    report.write_text(json.dumps(json.loads(report.read_text()) | {"ready": False}))


@pytest.mark.parametrize("happens", [ends, has_just_started])
@pytest.mark.parametrize("where", ["", "blue"], ids=["here", "elsewhere"])
def test_no_link_has_a_state_that_no_running_agent_has_published(
    vethctl: Vethctl, scene: Scene, happens: Callable[[Scene], None], where: str
) -> None:
    with ns.entered(where):
        before = vethctl("top", "--once", "--json")
        assert "CONFIGURED" in {entry["state"] for entry in before.json}
        happens(scene)
        shown = vethctl("top", "--once", "--json")
        drawing = vethctl("graph", "--json").json
    assert {entry["state"] for entry in shown.json} == {None}
    assert (before.err, shown.err != "") == ("", True)  # the reason
    assert "h1" not in [link["name"] for box in drawing["boxes"] for link in box["links"]]


@pytest.mark.slow
def test_a_watched_picture_has_the_states_of_an_agent_once_all_are_its_own(
    vethctl: Vethctl, scene: Scene, tmp_path: Path
) -> None:
    file = tmp_path / "net.svg"
    command = [sys.executable, "-m", "vethlib", "graph", "--watch", "--label", LABEL, "-o", str(file)]
    with ExitStack() as stack:
        _started(stack, command)
        assert poll(lambda: file.exists() and ">h1" in file.read_text())
        (report,) = Path("/run/vethlib", LABEL).glob("status*/.agent")
        ready = report.read_text()
        has_just_started(scene)
        assert poll(lambda: ">h1" not in file.read_text())
        report.write_text(ready)
        assert poll(lambda: ">h1" in file.read_text())


@pytest.mark.parametrize("mac", [True, False], ids=["another MAC", "the MAC, another peer"])
def test_a_link_with_the_ifindex_of_the_one_of_a_status_is_a_problem_unless_mac_or_peer_agree(
    vethctl: Vethctl, scene: Scene, mac: bool
) -> None:
    freeze(scene.agent)
    try:
        own = seen("uplink")
        index = str(own["ifindex"])
        if mac:
            ip("link", "set", "dev", "uplink", "address", "02:00:00:00:00:77")
            assert vethctl("describe", "uplink", "--json").json["links"][0]["index"] == own["ifindex"]
        ip("link", "delete", "dev", "uplink")
        address = "02:00:00:00:00:78" if mac else own["address"]
        ip(
            *("link", "add", "uplink", "index", index, "address", address),
            *("type", "veth", "peer", "name", "zz", "index", "777"),
        )
        (link, *_) = vethctl("describe", "uplink", "--json").json["links"]
        assert link["index"] == (None if mac else own["ifindex"])
    finally:
        os.kill(scene.agent, signal.SIGCONT)
