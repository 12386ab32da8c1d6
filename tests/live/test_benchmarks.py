"""The benchmarks run from end to end, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.contestants.ring import prove
from tests.programs import attended
from tests.witness import names, poll
from vethlib import ns
from vethlib.topology import Topology
from vethlib.topology import ring as ring_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks", "--wait", "0"]


def test_a_small_lifecycle_is_measured_and_nothing_is_left(home: ns.Netns, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "figures.json"), "--svg", str(tmp_path / "chart.svg")]
    arguments = ["lifecycle", "-n", "4", "--repeat", "1", "--peers", "vethlib,ip", *files]
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lifecycle, 4 pairs: ip ÷ vethlib" in done.stdout
    (job,) = json.loads((tmp_path / "figures.json").read_text())["jobs"]
    assert job["failures"] == {}
    assert [run["contestant"] for run in job["runs"]] == ["vethlib", "ip"]
    assert [phase["name"] for phase in job["runs"][0]["phases"]] == ["create", "lookup", "delete"]
    ElementTree.parse(tmp_path / "chart.svg")
    assert names() == set()
    assert ns.names() == []


def test_a_small_ring_is_measured_until_the_kernel_is_done_and_nothing_is_left(home: ns.Netns, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["ring", "-n", "4", "--repeat", "1", "--peers", "limit,vethlib", "--json", str(file)]
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads(file.read_text())
    (job,) = whole["jobs"]
    assert job["failures"] == {}
    assert {run["contestant"] for run in job["runs"]} == {"limit", "vethlib"} - set(whole["missing"])
    for run in job["runs"]:
        assert [phase["name"] for phase in run["phases"]] == ["build", "teardown", "gone"]
    assert names() == set()
    assert ns.names() == []


def test_what_is_measured_is_compiled_before_also_where_python_is_told_not_to(home: ns.Netns) -> None:
    compiled = [Path(cache_from_source(str(ROOT / path))) for path in ("vethlib/rates.py", "benchmarks/fleet/many.py")]
    for path in compiled:
        path.unlink(missing_ok=True)
    arguments = ["lookup", "-n", "1", "--repeat", "1", "--peers", "vethlib"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    assert all(path.exists() for path in compiled)


@pytest.mark.parametrize("wire", [("n0", "n1"), ("n3", "n0")])
def test_a_ring_with_a_wire_that_is_down_is_not_proved(home: ns.Netns, wire: tuple[str, str]) -> None:
    with Topology.build(ring_of(4)) as net:
        descriptors = [node.netns.fd for node in net.values()]
        prove(descriptors)
        net.down(*wire)
        with pytest.raises(OSError, match="unreachable"):
            prove(descriptors)


def test_interrupted_it_ends_the_contestant_at_work_and_shows_what_it_has(home: ns.Netns, tmp_path: Path) -> None:
    file, pipe = tmp_path / "figures.json", subprocess.PIPE
    arguments = ["lifecycle", "-n", "40", "--repeat", "1000", "--peers", "vethlib", "--json", str(file)]
    with attended(subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=pipe, stderr=pipe)) as benchmarks:
        assert poll(lambda: bool(children(benchmarks.pid)))
        (contestant,) = children(benchmarks.pid)
        benchmarks.send_signal(signal.SIGTERM)
        output, errors = benchmarks.communicate(timeout=4.0)
    assert benchmarks.returncode == 128 + signal.SIGTERM
    assert b"lifecycle, 40 pairs" in output
    assert b"interrupted" in errors
    assert not file.exists()
    assert not os.path.exists(f"/proc/{contestant}")
    assert names() == set()


def test_a_resumed_run_does_not_repeat_what_the_interrupted_one_has_finished(home: ns.Netns, tmp_path: Path) -> None:
    file, pipe = tmp_path / "figures.json", subprocess.PIPE
    part = tmp_path / "figures.json.part"
    arguments = ["import", "lifecycle", "-n", "2", "--repeat", "8", "--peers", "vethlib", "--json", str(file)]
    with attended(subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=pipe, stderr=pipe)) as benchmarks:
        assert poll(part.exists, 300)
        benchmarks.send_signal(signal.SIGTERM)
        benchmarks.communicate()
    assert benchmarks.returncode == 128 + signal.SIGTERM
    assert not file.exists()
    (finished,) = json.loads(part.read_text())["jobs"]
    done = subprocess.run([*COMMAND, *arguments, "--resume"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    imports, lifecycle = json.loads(file.read_text())["jobs"]
    assert imports == finished
    assert (lifecycle["workload"], len(lifecycle["runs"])) == ("lifecycle", 8)
    assert not part.exists()


def children(pid: int) -> list[int]:
    """The processes that a process of one thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
