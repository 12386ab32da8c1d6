"""vethctl watch: every change as a line, for people and for programs."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl, runner
from tests.witness import ip, poll, seen
from vethlib import ns
from vethlib.links import Link
from vethlib.monitor import HostEvent

COMMAND = [sys.executable, "-m", "vethlib", "watch"]


class Watching:
    def __init__(self, *argv: str) -> None:
        # What is there is told first, so that its first line says that it listens.
        command = [*COMMAND, "--initial", *argv]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self._rest = b""
        self._lines: list[str] = []

    def until(self, text: str, seconds: float = 60.0) -> list[str]:
        """The lines up to the first that has this text."""
        assert self.process.stdout
        deadline = time.monotonic() + seconds
        while (at := next((n for n, line in enumerate(self._lines) if text in line), None)) is None:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = self.process.stdout.read(65536) if ready else b""
            assert more, f"{text!r} was not told: {self._lines}"
            *whole, self._rest = (self._rest + more).split(b"\n")
            self._lines += [line.decode() for line in whole]
        told, self._lines = self._lines[: at + 1], self._lines[at + 1 :]
        return told


@pytest.fixture
def watching(blue: str) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*argv: str) -> Watching:
        started.append(Watching(*argv))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.fixture
def vethctl(blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    return runner(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("@home", {"netns:home"}),
        ("@netns:home", {"netns:home"}),
        ("@h*", {"netns:home"}),
        ("*@home", {"netns:home"}),
        ("@", {""}),
        ("*@", {""}),
        ("lo", {"", "netns:home", "netns:blue"}),
    ],
)
def test_a_namespace_called_home_is_not_taken_for_this_one(vethctl: Vethctl, target: str, expected: set[str]) -> None:
    ip("netns", "add", "home")
    said = vethctl("watch", target, "--initial", "--only", "link", "--timeout", "0.1", "--json")
    assert {json.loads(line)["netns"] for line in said.out.splitlines()} == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [("@home", {""}), ("lo@home", {""}), ("@h?me", {""}), ("@home*", {""}), ("@netns:home", set()), ("x@home", set())],
)
def test_this_namespace_is_called_home_while_no_other_is(vethctl: Vethctl, target: str, expected: set[str]) -> None:
    said = vethctl("watch", target, "--initial", "--only", "link", "--timeout", "0.1", "--json")
    assert {json.loads(line)["netns"] for line in said.out.splitlines()} == expected


def test_what_is_there_is_told_first_and_then_what_happens(watching: Callable[..., Watching]) -> None:
    watch = watching()
    assert [line.split(maxsplit=1)[1] for line in watch.until("blue  lo")] == [
        "= home  namespace",
        "= home  lo  DOWN  mtu 65536  00:00:00:00:00:00",
        "= blue  namespace",
        "= blue  lo  DOWN  mtu 65536  00:00:00:00:00:00",
    ]
    ip("link", "set", "lo", "mtu", "1500", netns="blue")
    assert watch.until("mtu")[-1].endswith("~ blue  lo  mtu 65536 → 1500")
    ip("link", "set", "lo", "up", netns="blue")
    assert watch.until("127.0.0.1")[-1].endswith("+ blue  lo  127.0.0.1/8 scope host")
    ip("netns", "add", "green")
    assert watch.until("namespace")[-1].endswith("+ green  namespace")
    ip("netns", "del", "green")
    assert watch.until("namespace")[-1].endswith("- green  namespace")


def test_each_line_is_an_object_for_programs(watching: Callable[..., Watching]) -> None:
    watch = watching("--json", "--only", "link", "@blue")
    first = json.loads(watch.until("{")[0])
    assert list(first) == [
        *("time", "what", "action", "netns", "name", "index", "link", "peer", "address", "address_state", "state"),
        "changes",
    ]
    assert (first["what"], first["action"], first["netns"], first["name"]) == ("link", "is", "netns:blue", "lo")
    ip("link", "add", "v1", "mtu", "1400", "type", "veth", "peer", "name", "v2", "netns", "blue")
    told: dict[str, Any] = json.loads(watch.until("v2")[-1])
    shown = ip("link", "show", "v2", netns="blue")[0]
    assert (told["action"], told["index"], told["link"]["mac"]) == ("new", shown["ifindex"], shown["address"])


def test_any_reference_of_a_namespace_selects_its_events(watching: Callable[..., Watching]) -> None:
    Path("/run/netns/another").touch()
    subprocess.run(["mount", "--bind", "/run/netns/blue", "/run/netns/another"], check=True)
    for number, ref in enumerate(["blue", "another", "ano*"]):
        watch = watching("--only", "link", f"@{ref}")
        watch.until("  lo  ")
        ip("link", "set", "lo", "mtu", str(1500 + number), netns="blue")
        watch.until(f"→ {1500 + number}")
    watch = watching("--only", "link", f"lo@pid:{os.getpid()}")
    watch.until("home  lo  ")
    ip("link", "set", "lo", "mtu", "1600")
    watch.until("→ 1600")


def test_an_end_that_loses_its_carrier_is_not_said_to_be_down(watching: Callable[..., Watching]) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("link", "set", "v1", "up")
    ip("link", "set", "v2", "up", netns="blue")
    assert poll(lambda: seen("v1")["operstate"] == "UP")  # which the kernel settles a little later
    text, objects = watching("v1", "--only", "link"), watching("v1", "--only", "link", "--json")
    text.until("home  v1")
    objects.until('"is"')
    ip("link", "set", "v2", "down", netns="blue")
    assert text.until("no-carrier")[-1].split("operstate ")[1] == "up → no-carrier"
    told = json.loads(objects.until('"operstate"')[-1])
    assert (told["link"]["up"], told["link"]["carrier"]) == (True, False)
    assert told["changes"] == {"operstate": ["up", "down"]}
    ip("link", "set", "v1", "down")
    assert text.until("up → down")[-1].endswith("home  v1  up → down")


def test_only_what_is_asked_for_is_told(watching: Callable[..., Watching]) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v9", "netns", "blue")
    watch = watching("v*@blue", "--type", "veth", "--only", "link,address")
    watch.until("blue  v9")
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("link", "add", "x1", "type", "veth", "peer", "name", "x2", "netns", "blue")
    ip("link", "del", "v1")
    lines = watch.until("- blue  v2")
    assert all(" blue  v2" in line for line in lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it(watching: Callable[..., Watching], number: int, code: int) -> None:
    watch = watching()
    watch.until("home")
    watch.process.send_signal(number)
    assert watch.process.wait(60) == code
    assert watch.process.stderr
    assert watch.process.stderr.read() == b""


def test_a_reader_that_leaves_ends_it(watching: Callable[..., Watching]) -> None:
    watch = watching("--timeout", "60s")
    watch.until("home")
    assert watch.process.stdout
    watch.process.stdout.close()
    ip("link", "set", "lo", "up", netns="blue")
    assert watch.process.wait(60) == 0


def test_it_ends_after_so_many_events(watching: Callable[..., Watching]) -> None:
    watch = watching("--count", "1", "--only", "link")  # what is there already does not count
    watch.until("blue  lo")
    ip("link", "set", "lo", "mtu", "1500", netns="blue")
    assert watch.process.wait(60) == 0
    assert len(watch.until("mtu 65536 → 1500")) == 1


def test_it_ends_after_so_long(vethctl: Vethctl) -> None:
    assert vethctl("watch", "--timeout", "10ms").code == 0
    assert vethctl("watch", "--timeout", "10ms", "--count", "1").code == 3  # what was waited for has not come


@pytest.mark.parametrize(
    ("argv", "message", "field"),
    [
        ([""], "LINK@NETNS '': must be NAME, @NETNS or NAME@NETNS, such as 'veth*@ns1'", "LINK@NETNS"),
        (["@pid:x"], "LINK@NETNS 'pid:x': ", "LINK@NETNS"),
        (["--only", "links"], "--only 'links': must be one or more of netns, link, address, state", "--only"),
        (["--count", "0"], "--count '0': must be a positive integer", "--count"),
        (["@pid:4194304"], "process 4194304 is gone", ""),
    ],
)
def test_what_cannot_be_watched_is_said(vethctl: Vethctl, argv: list[str], message: str, field: str) -> None:
    said = vethctl("watch", *argv, "--json", "--timeout", "2s")
    assert said.code in (1, 2)
    assert message in said.error["error"]
    assert said.error["field"] == field


class Scripted:
    """A monitor with these events, in one batch each."""

    def __init__(self, *events: HostEvent) -> None:
        self._events = list(events)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def poll(self, timeout: float | None) -> list[HostEvent]:
        if self._events:
            return [self._events.pop(0)]
        time.sleep(timeout or 0.0)
        return []

    @property
    def netns(self) -> list[str]:
        return ["", *(f"netns:{name}" for name in ns.names())]

    def references(self, ref: str) -> list[str]:
        return [ref]


def lost(netns: str = "") -> HostEvent:
    return HostEvent("resync", "changed", 1.0, netns)


def created(name: str, netns: str) -> HostEvent:
    link = Link(2, name, "", "veth", "02:00:00:00:00:01", 1500, True, "up", (), None, None, "", 0, 1)
    return HostEvent("link", "new", 1.0, netns, name, link)


VETH1 = created("veth1", "netns:ns1")


@pytest.mark.parametrize(
    ("argv", "events", "code", "printed"),
    [
        (["--count", "1"], [lost()], 3, ["resync"]),
        (["veth1", "--only", "state", "--count", "1"], [lost("netns:ns1"), lost()], 3, ["resync", "resync"]),
        (["--count", "1"], [lost(), VETH1, VETH1], 0, ["resync", "link"]),
        (["--type", "veth", "--count", "2"], [VETH1, lost(), VETH1, VETH1], 0, ["link", "resync", "link"]),
        (["veth1@ns1", "--count", "1"], [lost("netns:tenant"), lost("netns:ns1"), VETH1], 0, ["resync", "link"]),
        (["@ns*", "@blue", "--count", "1"], [lost("netns:tenant"), lost(), VETH1], 0, ["resync", "link"]),
    ],
    ids=["alone", "filtered", "before", "between", "of a link", "of a namespace"],
)
def test_lost_events_are_told_where_they_matter_and_never_counted(
    vethctl: Vethctl,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    events: list[HostEvent],
    code: int,
    printed: list[str],
) -> None:
    monkeypatch.setattr("vethlib.cli.commands.host.watch.Monitor", lambda *_, **__: Scripted(*events))
    done = vethctl("watch", *argv, "--timeout", "3", "--json")
    assert (done.code, [json.loads(line)["what"] for line in done.out.splitlines()]) == (code, printed)


def test_a_link_that_loses_the_name_is_printed_to_those_who_watch_it(watching: Callable[..., Watching]) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    by_name, elsewhere = watching("a", "--json"), watching("a@blue", "lo@", "--json")
    by_name.until('"name": "a"')
    elsewhere.until('"name": "lo"')
    ip("link", "set", "dev", "a", "name", "c")
    (line,) = by_name.until('"changes": {"name": ["a", "c"]}')
    assert json.loads(line)["name"] == "c"
    ip("link", "set", "dev", "c", "mtu", "1400")
    ip("link", "set", "dev", "c", "name", "a")
    (line,) = by_name.until('["c", "a"]')
    ip("link", "set", "dev", "lo", "up")
    assert len(elsewhere.until('"lo"')) == 1


def test_it_is_said_that_no_agent_publishes_the_states_that_are_asked_for(vethctl: Vethctl) -> None:
    for argv in (["--only", "state,link"], ["--label", "absent"]):
        label = argv[1] if "--label" in argv else "vpp1"
        said = vethctl("watch", *argv, "--timeout", "0.1", "--json")
        assert (said.code, said.error["error"]) == (0, f"no agent with the label {label} runs")
    assert vethctl("watch", "--only", "link", "--timeout", "0.1").err == ""
    assert vethctl("watch", "--timeout", "0.1").err == ""
