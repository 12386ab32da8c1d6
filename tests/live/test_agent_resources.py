"""An agent keeps working if nobody reads its log, its manager does not listen, or no descriptor or thread is left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, interface, value
from tests.live.descriptors import no_descriptor_left
from tests.live.scraping import get
from tests.live.stalled import full_pipe, full_socket, stopped_terminal
from tests.live.threads import no_thread_left
from tests.programs import attended
from tests.witness import cpu_of, ip, names, poll
from vethlib import Session, ns
from vethlib.agent.process.instance import running
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.run.service import Service
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.files.directory import DirectoryStore

ROOT = Path(__file__).parents[2]
LABEL = "resources"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]


@contextmanager
def agent(
    tmp_path: Path, *options: str, stderr: int | IO[bytes] = subprocess.DEVNULL, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """An agent on the example pair, which has built it; it has to end when it is told to."""
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{EXAMPLES / 'pair'}", "--label", LABEL]
    command += ["--status-dir", str(tmp_path / "status"), "--docker", "off", *options]
    with attended(subprocess.Popen(command, cwd=ROOT, stderr=stderr, env=os.environ | environment)) as process:
        try:
            assert poll(is_built, 30)
            yield process
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - began < 10
        finally:
            process.kill()


def is_built() -> bool:
    try:
        return "ns1" in ns.names() and names("ns1") == {"veth1"}
    except RuntimeError:
        return False  # it is being made


def heals() -> bool:
    ip("link", "del", "veth1", netns="ns1")
    return poll(is_built)


@pytest.mark.parametrize("stalled", [full_pipe, full_socket, stopped_terminal])
def test_a_log_that_nobody_reads_stops_no_work(stalled: Callable[[], tuple[int, int]], tmp_path: Path) -> None:
    read, write = stalled()
    with agent(tmp_path, "--metrics", "127.0.0.1:0", stderr=write):
        assert os.get_blocking(write) is not False  # what others share is as it was
        assert heals()
        assert running(LABEL)
        assert poll(lambda: (tmp_path / "status/veth1.json").exists())
    os.close(read)
    os.close(write)


def test_what_the_log_had_to_say_is_read_later(tmp_path: Path) -> None:
    read, write = full_pipe()
    with agent(tmp_path, stderr=write):
        assert heals()
        os.set_blocking(read, False)
        said = b""

        def all_of_it() -> bool:
            nonlocal said
            try:
                said += os.read(read, 65536)
            except BlockingIOError:
                pass
            return b" started: " in said and said.endswith(b"\n")

        assert poll(all_of_it)
        # Both interfaces, of which an IPv6 address may be tentative still.
        (states,) = re.findall(rb" started: (.*)", said)
        assert sum(map(int, re.findall(rb"(\d+) (?:CONFIGURED|PENDING)", states))) == 2
    os.close(read)
    os.close(write)


def test_a_manager_whose_queue_is_full_stops_no_work(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(f"\0{tmp_path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filling:
        try:
            while True:
                filling.sendto(b"x", f"\0{tmp_path}")
        except BlockingIOError:
            pass
    with manager, agent(tmp_path, NOTIFY_SOCKET=f"@{tmp_path}", WATCHDOG_USEC="100000"):
        assert heals()


def test_without_descriptors_an_agent_neither_ends_nor_spins_and_heals_when_it_has_some_again(tmp_path: Path) -> None:
    ip("link", "set", "lo", "up")
    log = tmp_path / "log"
    with log.open("wb") as stderr, agent(tmp_path, "--metrics", "127.0.0.1:0", stderr=stderr) as process:
        assert poll(lambda: b"started" in log.read_bytes())
        port = int(log.read_text().partition("metrics: http://127.0.0.1:")[2].partition("/")[0])
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
        before, lines = cpu_of(process.pid), log.read_text().count("\n")
        asking = []
        for _ in range(5):
            assert running(LABEL) == process.pid
            asking.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        ip("link", "del", "veth1", netns="ns1")
        time.sleep(1.5)
        assert process.poll() is None
        assert cpu_of(process.pid) - before < 0.8
        assert log.read_text().count("\n") - lines < 20
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert poll(lambda: names("ns1") == {"veth1"}, 30)
        assert get(port, "/healthz")[0] == "200 OK"
        for one in asking:
            one.close()


def test_the_agent_has_all_descriptors_it_may_have_and_its_hooks_as_many_as_it_was_given(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\n{{ ulimit -Sn; ulimit -Hn; }} >> {tmp_path}/limits\n")
    hook.chmod(0o755)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shell = 'ulimit -Sn 300; exec "$@"'
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{EXAMPLES / 'pair'}", "--label", LABEL]
    command += ["--status-dir", str(tmp_path / "status"), "--docker", "off", "--once", "--hook", f"exec:{hook}"]
    done = subprocess.run(["sh", "-c", shell, "sh", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "limits").read_text().split()) == {"300", str(hard)}


@pytest.fixture
def no_threads() -> Iterator[None]:
    with no_thread_left():
        yield


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("option", [("--hook", "exec:/bin/true"), ("--hook", "http://127.0.0.1:1/")])
def test_what_cannot_be_done_without_a_thread_is_said(vethctl: Vethctl, tmp_path: Path, option: tuple[str]) -> None:
    said = vethctl("agent", "--store", f"dir:{tmp_path}", "--once", "--docker", "off", *option, "--json")
    assert said.code == 2
    assert [one["code"] for one in said.errors] == ["thread-refused"]


@pytest.mark.usefixtures("no_threads")
def test_without_threads_everything_else_is_done(vethctl: Vethctl, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    value = {"name": "v1", "enabled": True, "veth": {"peer_if_name": "v2"}}
    of_container = value | {"name": "v2", "veth": {"peer_if_name": "v1"}, "namespace": {"type": 1, "microservice": "x"}}
    pair = [
        value | {"name": "w1", "veth": {"peer_if_name": "w2"}},
        value | {"name": "w2", "veth": {"peer_if_name": "w1"}},
    ]
    (tmp_path / "store/all.json").write_text(json.dumps([value, of_container, *pair]))
    said = vethctl(
        "agent", "--store", f"dir:{tmp_path}/store", "--once", "--status-dir", f"{tmp_path}/status", "--json"
    )
    states = {one["name"]: one["state"] for one in said.json}
    assert states == {"v1": "PENDING", "v2": "PENDING", "w1": "CONFIGURED", "w2": "CONFIGURED"}


def test_statuses_are_written_with_descriptors_that_were_kept_for_them(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", status_dir=tmp_path / "status")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a.json").write_text(json.dumps(value("a", "b")))
    with closing(store), Session() as session, Configurator(session) as configurator:
        service = Service(configurator, store)

        async def run() -> None:
            running = asyncio.ensure_future(service.run())
            while not (tmp_path / "status/a.json").exists():
                await asyncio.sleep(0.01)
            before = (tmp_path / "status/a.json").read_text()
            with no_descriptor_left():
                configurator.put(interface("a", "other"))
                service.reload()
                for _ in range(500):
                    await asyncio.sleep(0.02)
                    if os.stat(tmp_path / "status/a.json").st_size != len(before):
                        break
            assert "other" in (tmp_path / "status/a.json").read_text()
            service.stop()
            await running

        asyncio.run(run())


def test_a_status_that_cannot_be_written_delays_no_other_and_the_agent_is_ready(tmp_path: Path) -> None:
    directory = tmp_path / "status"
    (directory / "a.json").mkdir(parents=True)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a.json").write_text(json.dumps(value("a", "b")))
    store = DirectoryStore(tmp_path / "store", status_dir=directory)
    file = AgentFile(directory, "dir:store")
    with closing(store), Session() as session, Configurator(session) as configurator:
        service = Service(configurator, store, agent_file=file)

        def follows(peer: str) -> bool:
            return (directory / "c.json").exists() and peer in (directory / "c.json").read_text()

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(60):
                while not condition():
                    await asyncio.sleep(0.01)

        async def run() -> None:
            running = asyncio.ensure_future(service.run())
            for number in range(10):
                (tmp_path / "store/c.json").write_text(json.dumps(value("c", f"peer{number}")))
                await until(partial(follows, f"peer{number}"))
            report = read_report(str(directory))
            assert report is not None
            assert report.ready
            assert service.publish_failures == 0
            (directory / "a.json").rmdir()
            await until((directory / "a.json").is_file)
            service.stop()
            await running

        asyncio.run(run())


def test_more_processes_than_descriptors_are_wired_and_their_ends_noticed(tmp_path: Path) -> None:
    processes = [subprocess.Popen(["unshare", "-n", "sleep", "600"]) for _ in range(40)]
    try:
        here = os.stat("/proc/self/ns/net").st_ino
        assert poll(lambda: all(os.stat(f"/proc/{one.pid}/ns/net").st_ino != here for one in processes), 30)
        values = []
        for number, one in enumerate(processes):
            values.append(value(f"a{number}", f"b{number}"))
            values.append(value(f"b{number}", f"a{number}") | {"namespace": {"type": 0, "pid": one.pid}})
        (tmp_path / "store").mkdir()
        (tmp_path / "store/all.json").write_text(json.dumps(values))
        command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{tmp_path}/store", "--label", LABEL]
        command += ["--status-dir", str(tmp_path / "status"), "--docker", "off"]
        limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command]
        with attended(subprocess.Popen(limited, cwd=ROOT, stderr=subprocess.DEVNULL)) as process:
            try:
                wanted = {f"a{number}" for number in range(40)}
                assert poll(lambda: names() == wanted, 60)
                processes[7].kill()
                processes[7].wait()
                assert poll(lambda: names() == wanted - {"a7"}, 30)
                status = tmp_path / "status/b7.json"  # written when the agent has done all that it has found
                assert poll(lambda: status.exists() and "PENDING" in status.read_text(), 30)
            finally:
                process.terminate()
                assert process.wait(30) == 0
    finally:
        for one in processes:
            one.kill()
            one.wait()
