"""``python -m benchmarks.fleet``: however it ends, it leaves no etcd and no agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fleet import many, server
from tests.backends.engine import ROOT
from tests.backends.etcd import missing
from tests.backends.ports import free_port
from tests.programs import attended, runs
from tests.witness import poll
from vethlib import VethError
from vethlib.agent.stores.protocol import StoreError


def children(pid: int) -> list[int]:
    """Of its main thread."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", ["2 hosts, 4 interfaces each", "start: "])
def test_a_signal_ends_etcd_and_the_agents_and_another_one_changes_nothing(number: signal.Signals, words: str) -> None:
    if why := missing():
        pytest.skip(why)
    command = [sys.executable, "-m", "benchmarks.fleet", "many", "--agents=2", "--interfaces=4", "--quiet=60"]
    started: list[int] = []
    with attended(
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as bench:
        try:
            assert bench.stderr is not None
            assert any(words in line for line in iter(bench.stderr.readline, ""))
            started = children(bench.pid)
            assert len(started) == 3
            bench.send_signal(number)
            assert poll(lambda: not all(map(runs, started)))
            bench.terminate()
            out, err = bench.communicate(timeout=60)
            assert (bench.returncode, out, err) == (128 + number, "", "interrupted\n")
            assert not any(map(runs, started))
        finally:
            bench.kill()
            for pid in started:
                if runs(pid):
                    os.kill(pid, signal.SIGKILL)


def test_an_etcd_that_does_not_serve_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "etcd"
    program.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\necho the disk is full\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(server, "_UP", 4.0)
    one = server.Server(tmp_path)
    one.port = free_port()
    with pytest.raises(VethError, match=r"^etcd does not start: the disk is full$"), one:
        pytest.fail("it serves")
    assert not runs(int((tmp_path / "pid").read_text()))


def test_a_connection_that_lasts_too_long_ends_as_one_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PATIENCE", 0.05)
    with many._Connection(f"etcd://127.0.0.1:{free_port()}") as connection:
        assert poll(lambda: "it took more than 0.05 s" in str(connection.refusal(ValueError("it is closed"))))
        with pytest.raises(StoreError, match=r"it took more than 0\.05 s$"):
            connection.get(b"key")
