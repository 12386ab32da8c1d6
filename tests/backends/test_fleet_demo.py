"""``make fleet-demo``, as its users see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.backends.engine import ROOT
from tests.backends.engine import missing as no_engine
from tests.backends.etcd import missing as no_etcd
from tests.witness import names, poll

pytestmark = pytest.mark.slow

DEMO = ROOT / "examples" / "fleet" / "demo.py"
NOTHING_LEFT = "nothing is left behind"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose path is short, for the sockets in it."""
    with TemporaryDirectory(prefix="demo-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts the demo in a process group of its own, as a shell does, and reads until a line has these words."""
    if why := no_etcd() or no_engine():
        pytest.skip(why)
    started: list[subprocess.Popen[str]] = []

    def begin(words: str, **environment: str) -> subprocess.Popen[str]:
        env = os.environ | {"TMPDIR": str(directory)} | environment
        command = [sys.executable, str(DEMO)]
        started.append(
            subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
            )
        )
        out = started[-1].stdout
        assert out is not None
        assert any(words in line for line in iter(out.readline, ""))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.terminate()
        one.communicate()


@pytest.fixture
def programs(directory: Path) -> Iterator[Callable[[str, str], str]]:
    """Has a shell script stand for a program; returns the PATH with it."""
    with TemporaryDirectory() as place:

        def stand_in(name: str, text: str) -> str:
            script = Path(place) / name
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)
            return f"{place}:{os.environ['PATH']}"

        yield stand_in


def is_clean(directory: Path) -> bool:
    """Whether the demo has left neither a file nor a mount nor a process."""
    return (
        list(directory.iterdir()) == []
        and str(directory) not in Path("/proc/self/mountinfo").read_text()
        and not [pid for pid in os.listdir("/proc") if pid.isdecimal() and _mentions(pid, str(directory))]
    )


def test_the_fleet_demo_wires_containers_restarts_one_and_leaves_nothing(directory: Path) -> None:
    if why := no_etcd() or no_engine():
        pytest.skip(why)
    before = names()
    done = subprocess.run(
        [sys.executable, DEMO], env=os.environ | {"TMPDIR": str(directory)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("3 packets transmitted, 3 packets received") == 6
    assert done.stdout.count("CONFIGURED") == 14  # 6 interfaces and the line that counts them, twice
    old, new = re.findall(r"another process \((\d+) → (\d+)\)", done.stdout)[0]
    assert old != new
    assert done.stderr == ""
    assert NOTHING_LEFT in done.stdout
    assert is_clean(directory)
    assert names() <= before  # what other tests have left to the kernel to remove may be gone by now


@pytest.mark.parametrize(
    ("number", "words", "file"),
    [
        (signal.SIGTERM, "starts, on its own socket", "engine/containerd/pid"),
        (signal.SIGTERM, "starts, on its own socket", "engine/dockerd.pid"),
        (signal.SIGHUP, "agent  starts", "agent.log"),
        (signal.SIGINT, "api is restarted", "agent.log"),
    ],
)
def test_a_signal_ends_the_fleet_demo_and_another_one_does_not_end_its_cleaning_up(
    start: Start, directory: Path, number: signal.Signals, words: str, file: str
) -> None:
    demo = start(words)
    assert poll(lambda: bool(list(directory.glob(f"*/{file}"))))
    if number == signal.SIGTERM:
        demo.send_signal(number)
    else:
        os.killpg(demo.pid, number)  # to all that the demo has started and left in its group, as the terminal does
    deadline = time.monotonic() + 120
    while demo.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if not Path(f"/proc/{demo.pid}/root").exists():
            break
        for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.killpg(demo.pid, other)
    out, err = demo.communicate()
    assert (demo.returncode, err) == (128 + number, "")
    assert NOTHING_LEFT in out
    assert is_clean(directory)


def test_the_fleet_demo_shows_the_log_of_what_does_not_start(
    directory: Path, programs: Callable[[str, str], str]
) -> None:
    if why := no_etcd() or no_engine():
        pytest.skip(why)
    path = programs("etcd", "echo the disk is full >&2; exit 3")
    done = subprocess.run(
        [sys.executable, DEMO],
        env=os.environ | {"TMPDIR": str(directory), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    said, *log = done.stderr.splitlines()
    assert said == "fleet-demo: etcd has ended with code 3, before this was true: etcd serves"
    assert log == ["the end of etcd.log:", "  the disk is full"]
    assert is_clean(directory)


def test_the_fleet_demo_does_not_wait_for_an_agent_that_has_ended(start: Start, directory: Path) -> None:
    demo = start("agent  starts")
    agents: list[int] = []

    def has_agent() -> bool:
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        agents[:] = [int(pid) for pid in children if _mentions(pid, "--status-dir")]
        return bool(agents)

    assert poll(has_agent)
    os.kill(agents[0], signal.SIGKILL)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert err.startswith("fleet-demo: agent has ended with code -9, before this was true: all is configured\n")
    assert "the end of agent.log:" in err
    assert "Traceback" not in err
    assert is_clean(directory)


def test_the_fleet_demo_says_what_it_leaves(start: Start, directory: Path, programs: Callable[[str, str], str]) -> None:
    path = programs("rm", 'case "$*" in *--one-file-system*) exit 1;; esac; exec /bin/rm "$@"')
    demo = start("MICROSERVICE_LABEL=web", PATH=path)
    demo.terminate()
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert NOTHING_LEFT not in out
    assert "Traceback" not in err
    (again,) = [line.removeprefix("to try again: ") for line in err.splitlines() if "to try again: " in line]
    assert subprocess.run(again, shell=True, check=False).returncode == 0
    (left,) = directory.iterdir()
    assert not (left / "engine").exists()


def _mentions(pid: str, text: str) -> bool:
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False


def test_the_fleet_demo_says_what_it_lacks() -> None:
    done = subprocess.run(
        [sys.executable, DEMO], env=os.environ | {"PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "dockerd" in line or "root" in line
