"""vethlib in a zip file, as in a program that zipapp has made: its scripts have no files there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.programs import see_end
from tests.witness import names
from vethlib import ns

PACKAGE = Path(__file__).parents[2] / "vethlib"
PROLOGUE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import vethlib
assert vethlib.__file__.startswith(sys.argv[1]), vethlib.__file__
from vethlib.topology import Topology
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("zipped") / "vethlib.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in PACKAGE.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(PACKAGE.parent))
    return str(path)


def run(archive: str, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROLOGUE + script, archive]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_what_was_started_ends_with_a_process_that_is_killed(archive: str) -> None:
    script = """
net = Topology.build("a -- b")
print(net["a"].start(["sleep", "600"]).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(archive, script)
    assert done.stderr == ""
    see_end(int(done.stdout))


def test_a_relay_relays(archive: str) -> None:
    script = """
with Topology.build("a -- b delay=1ms", impair="userspace") as net:
    assert net["a"].ping(net["b"].ipv4).received
"""
    done = run(archive, script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("home")
def test_nodes_are_kept(archive: str) -> None:
    script = """
from vethlib.topology.keep import keep
with Topology.build("a -- b") as net:
    print(keep([net["a"], net["b"]]).pid)
"""
    done = run(archive, script)
    assert done.stderr == ""
    holder = int(done.stdout)
    try:
        with ns.Netns.open(f"path:/proc/{holder}/root/run/netns/a") as node:
            assert names(node)
    finally:
        subprocess.run(["kill", str(holder)], check=True)
