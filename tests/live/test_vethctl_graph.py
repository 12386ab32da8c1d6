"""vethctl graph: pictures of this host and of files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.commands import Vethctl
from tests.live.agent_process import LABEL, VETHCTL, Agent
from tests.live.applying import EXAMPLES
from tests.witness import ip, poll, seen
from vethlib._files import write_whole
from vethlib._primitives import posix
from vethlib.agent.reasons import peer_not_configured
from vethlib.cli.commands.host import graph

ROOT = Path(__file__).parents[2]


def test_this_host_is_drawn_as_it_is(vethctl: Vethctl, make_netns: Callable[..., None]) -> None:
    make_netns("blue", "empty")
    ip("link", "add", "v1", "mtu", "1400", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("addr", "add", "10.7.0.1/24", "dev", "v1")
    found = vethctl("graph", "--json").json
    assert [box["name"] for box in found["boxes"]] == ["blue", "empty", "home"]
    [pair] = found["edges"]
    ends = sorted([pair["a"], pair["b"]], key=lambda end: str(end["netns"]))
    shown = ip("link", "show", "v2", netns="blue")[0]
    assert (ends[0]["netns"], ends[0]["name"], ends[0]["mac"]) == ("blue", "v2", shown["address"])
    assert (ends[1]["netns"], ends[1]["addresses"], ends[1]["mtu"]) == ("home", ["10.7.0.1/24"], 1400)
    assert ends[1]["state"] == "down"
    text = vethctl("graph").out
    assert "v1  10.7.0.1/24  mtu 1400  down ├╌╌╌╌" in text or "v2  down ├╌╌╌╌" in text


def test_an_end_whose_peer_cannot_be_seen_is_drawn_alone(vethctl: Vethctl, make_netns: Callable[..., None]) -> None:
    make_netns("blue")
    process = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    try:
        there, here = Path(f"/proc/{process.pid}/ns/net"), Path("/proc/self/ns/net")
        assert poll(lambda: there.stat().st_ino != here.stat().st_ino)
        ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", str(process.pid))
        assert vethctl("graph").out == "home  v1  down: index 2 in an unnamed namespace\n"
    finally:
        process.kill()
        process.wait()


def test_files_are_drawn_with_how_far_this_host_is_from_them(vethctl: Vethctl) -> None:
    pair = str(EXAMPLES / "pair")
    found = vethctl("graph", pair, "--json").json
    assert {box["name"]: box["missing"] for box in found["boxes"]} == {"ns1": True, "ns2": True}
    assert found["edges"][0]["a"]["state"] == "to be created"
    assert vethctl("apply", pair).code == 0
    ip("link", "set", "veth1", "mtu", "1400", netns="ns1")
    assert poll(lambda: seen("veth2", "ns2")["operstate"] != "UNKNOWN")  # linkwatch looks at it later
    [edge] = vethctl("graph", pair, "--json").json["edges"]
    ends = {end["name"]: (end["state"], end["reason"]) for end in (edge["a"], edge["b"])}
    assert ends["veth1"] == ("to be changed", "mtu 1400 → 1500")
    assert ends["veth2"][0] in ("up", "down", "lowerlayerdown")
    [edge] = vethctl("graph", pair, "--offline", "--json").json["edges"]
    assert edge["a"]["state"] == ""


def test_what_waits_says_for_what(vethctl: Vethctl) -> None:
    one = {"name": "v1", "veth": {"peer_if_name": "v2"}}
    found = json.loads(vethctl("graph", "-", "--json", stdin=json.dumps(one)).out)
    [port] = found["boxes"][0]["links"]
    assert (port["state"], port["reason"]) == ("PENDING", str(peer_not_configured("v2")))


@pytest.mark.parametrize("form", ["--svg", "--dot", "--mermaid", "--json", "--color=never"])
def test_a_hyphen_as_the_file_is_stdout(
    vethctl: Vethctl, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vethctl("graph", form, "-o", "-").out == vethctl("graph", form).out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "begins"), [("svg", "<svg "), ("dot", "graph "), ("mmd", "flowchart ")])
def test_the_ending_of_a_file_says_what_is_written(vethctl: Vethctl, tmp_path: Path, ending: str, begins: str) -> None:
    file = tmp_path / f"net.{ending}"
    file.write_text("old")
    assert vethctl("graph", str(EXAMPLES / "star"), "-o", str(file)).code == 0
    assert file.read_text().startswith(begins)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(("form", "ending"), [("--svg", "svg"), ("--dot", "dot"), ("--mermaid", "mmd")])
def test_a_picture_on_stdout_is_utf_8_in_every_locale_as_it_is_in_a_file(
    vethctl: Vethctl, make_netns: Callable[..., None], tmp_path: Path, form: str, ending: str
) -> None:
    make_netns("café")
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "café")
    file = tmp_path / f"net.{ending}"
    assert vethctl("graph", "-o", str(file)).code == 0
    command = [sys.executable, "-m", "vethlib", "graph", form]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    printed = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).stdout
    assert "café" in printed.decode()
    assert printed == file.read_bytes()
    if form == "--svg":
        ElementTree.fromstring(printed)


def test_a_file_is_replaced_by_a_whole_one_and_keeps_its_mode(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "net.svg", tmp_path / "link.svg"
    file.write_text("old")
    file.chmod(0o600)
    link.symlink_to(file)
    sizes = []
    replace = os.replace

    def at_that_moment(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        sizes.append(os.stat(old, dir_fd=src_dir_fd).st_size)
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", at_that_moment)
    assert vethctl("graph", str(EXAMPLES / "pair"), "-o", str(link)).code == 0
    assert sizes == [file.stat().st_size]
    assert file.read_text().endswith("</svg>\n")
    assert (file.stat().st_mode & 0o777, link.is_symlink()) == (0o600, True)


@pytest.mark.parametrize(
    ("moment", "is_after"),
    [(each, False) for each in ("urandom", "open", "write", "replace")] + [("write", True), ("replace", True)],
)
def test_a_watch_that_is_stopped_while_it_writes_succeeds_and_leaves_a_whole_file(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, is_after: bool
) -> None:
    file = tmp_path / "net.svg"
    file.write_text("old")
    module = posix if moment == "write" else os
    call = getattr(module, moment)

    def stopped(*args: object, **how: object) -> object:
        monkeypatch.setattr(module, moment, call)
        if not is_after:
            os.kill(os.getpid(), signal.SIGTERM)
        result = call(*args, **how)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    def write(*args: object, **how: object) -> None:
        monkeypatch.setattr(module, moment, stopped)
        write_whole(*args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "write_whole", write)
    said = vethctl("graph", "--watch", "-o", str(file))
    assert (said.code, said.out, said.err) == (0, "", "")
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    if (moment, is_after) == ("replace", True):
        ElementTree.fromstring(file.read_text())
    else:
        assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("argv", "message", "field"),
    [
        (["-o", "x.png"], "--output 'x.png': unknown format", "--output"),
        (["--offline"], "--offline needs files", "--offline"),
        (["--watch"], "--watch needs a file or a terminal", "--watch"),
        (["--watch", "-o", "x.svg", str(EXAMPLES)], "--watch draws this host, not files", "--watch"),
    ],
)
def test_what_cannot_be_drawn_is_said(vethctl: Vethctl, argv: list[str], message: str, field: str) -> None:
    said = vethctl("graph", *argv, "--json")
    if argv[0] == "-o":
        said = vethctl("graph", *argv)
        assert said.err.splitlines()[0] == f"vethctl: {message}"
        return
    assert (said.code, said.error["error"], said.error["field"]) == (1, message, field)


def test_a_watched_picture_is_written_again_when_something_changes(home: object, tmp_path: Path) -> None:
    file = tmp_path / "net.svg"
    command = [sys.executable, "-m", "vethlib", "graph", "--watch", "-o", str(file)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        assert poll(file.exists)
        ip("netns", "add", "late")
        ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "late")
        assert poll(lambda: ">v2" in file.read_text())
        ElementTree.fromstring(file.read_text())
        ip("netns", "del", "late")
        assert poll(lambda: ">v2" not in file.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_watched_picture_has_states_as_long_as_there_is_an_agent(
    home: object, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "store").mkdir()
    desired = {"name": "v1", "type": 0, "enabled": True, "veth": {"peer_if_name": "not-configured"}}
    (tmp_path / "store" / "v1.json").write_text(json.dumps(desired))
    file = tmp_path / "net.svg"
    command = [*VETHCTL, "graph", "--watch", "--label", LABEL, "--status-dir", str(tmp_path / "status")]
    watching = subprocess.Popen([*command, "-o", str(file)], cwd=ROOT)
    try:
        for _ in range(2):
            agent = Agent(tmp_path)
            try:
                assert poll(lambda: file.exists() and "v1" in file.read_text())
            finally:
                agent.end(number)
            assert poll(lambda: "v1" not in file.read_text())
    finally:
        watching.kill()
        watching.wait()


def test_the_picture_in_the_readme_is_what_its_command_makes(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = vethctl("graph", "examples/chain", "--offline", "--svg").out
    assert made == (ROOT / "docs/pictures/chain.svg").read_text()
    assert "vethctl graph examples/chain --offline -o docs/pictures/chain.svg" in (ROOT / "README.md").read_text()
