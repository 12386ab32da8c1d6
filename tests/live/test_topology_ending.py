"""Processes that the programs of a node have started end with the node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.live.children import in_a_child
from tests.live.interrupting import Interrupting
from tests.programs import DEADLINE, runs, see_end
from tests.witness import poll
from vethlib.topology import Node, Topology
from vethlib.topology.live import node as live_node
from vethlib.topology.live import topology as live_topology
from vethlib.topology.programs import ending, mounts, processes, supervision


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b", mtu=1400) as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


def output(node: Node, *command: str) -> str:
    return node.run(command).stdout


@pytest.mark.parametrize("closes", ["node", "topology"])
def test_closing_ends_what_another_thread_runs(net: Topology, closes: str) -> None:
    node, before = net["a"], set(supervision._reported.processes)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(node.run, ["sleep", "600"])
        deadline = time.monotonic() + DEADLINE
        while not (inside := supervision._reported.processes - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (node if closes == "node" else net).close()
        see_end(*inside)
        with pytest.raises(subprocess.CalledProcessError, match="SIGTERM"):
            running.result(DEADLINE)


def test_a_program_that_has_been_waited_for_is_supervised_no_longer_however_it_ended(node: Node) -> None:
    before = set(supervision._reported.processes)
    for command, timeout in (["true"], None), (["false"], None), (["sleep", "600"], 0.01):
        with suppress(subprocess.SubprocessError):
            node.run(command, timeout=timeout)
        assert supervision._reported.processes == before


def test_run_kills_a_program_that_takes_too_long(node: Node) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sh", "-c", "echo $$ >/run/shell; exec sleep 600"], timeout=2)
    see_end(int(output(node, "cat", "/run/shell")))


@pytest.mark.parametrize("options", [{}, {"start_new_session": True}, {"process_group": 0}])
def test_the_group_of_a_program_ends_with_its_node(options: dict[str, Any]) -> None:
    with Topology.build("node a") as net:
        command = ["sh", "-c", "sleep 600 & echo $!; wait"]
        with net["a"].start(command, stdout=subprocess.PIPE, **options) as shell:
            assert shell.stdout is not None
            child = int(shell.stdout.readline())
            assert os.getpgid(shell.pid) == os.getpgid(child) == shell.pid
            assert (os.getsid(shell.pid) == shell.pid) == ("start_new_session" in options)
            net.close()
    see_end(child)


# Each leaves a process behind, whose id is printed.
DAEMONS = {
    "in the group of a program that has ended": "sleep 600 <&- >&- 2>&- & echo $!",
    "with a session": "setsid sleep 600 <&- >&- 2>&- & echo $!",
    "with another working directory and no environment": "cd /; setsid env -i sleep 600 <&- >&- 2>&- & echo $!",
    "in a network namespace of its own": "setsid unshare --net sleep 600 <&- >&- 2>&- & echo $!",
    "in a mount namespace of its own": "setsid unshare --mount sleep 600 <&- >&- 2>&- & echo $!",
    "in a mount namespace of one of its own": "unshare --mount setsid unshare --mount sleep 600 <&- >&- 2>&- & echo $!",
    "in namespaces of its own": "setsid unshare --user --mount --net --ipc sleep 600 <&- >&- 2>&- & echo $!",
    "in a named namespace": "ip netns add inner; setsid ip netns exec inner sleep 600 <&- >&- 2>&- & echo $!",
    "with another /run": (
        "setsid unshare --mount sh -c 'mount -t tmpfs none /run; exec sleep 600' <&- >&- 2>&- & echo $!"
    ),
    "in a mount namespace of its own, that ignores SIGTERM": (
        "(trap '' TERM; exec setsid unshare --mount sleep 600) <&- >&- 2>&- & echo $!"
    ),
    "that ignores SIGTERM": "(trap '' TERM; exec setsid sleep 600) <&- >&- 2>&- & echo $!",
}


@pytest.mark.parametrize("closes", ["node", "topology"])
@pytest.mark.parametrize("begins", ["start", "run"])
@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemons_in_the_background_end_with_their_node(net: Topology, daemon: str, begins: str, closes: str) -> None:
    node, command = net["a"], ["sh", "-c", DAEMONS[daemon]]
    if begins == "run":
        pid = int(node.run(command).stdout)
    else:
        started = node.start(command, stdout=subprocess.PIPE)
        assert started.stdout is not None
        pid = int(started.stdout.read())
        if closes == "node":
            started.wait()
    assert poll(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    (node if closes == "node" else net).close()
    try:
        assert not runs(pid)
    finally:
        see_end(pid)


@pytest.mark.parametrize("last", [None, 0, 1 << 30], ids=["unknown", "wrapped around", "far away"])
def test_a_daemon_ends_with_its_node_however_many_processes_have_been_started_since(
    node: Node, monkeypatch: pytest.MonkeyPatch, last: int | None
) -> None:
    daemon = int(node.run(["sh", "-c", DAEMONS["with a session"]]).stdout)
    monkeypatch.setattr("vethlib.ns.programs.newer.last_pid", lambda: last)
    node.close()
    see_end(daemon)


@pytest.mark.parametrize("further", [0, 1, 100, 512])
def test_a_daemon_ends_with_its_node_although_the_last_process_id_is_hardly_larger_an_hour_later(
    node: Node, monkeypatch: pytest.MonkeyPatch, further: int
) -> None:
    first, clock = 1 << 23, time.monotonic  # beyond all ids (PID_MAX_LIMIT)
    monkeypatch.setattr("vethlib.ns.programs.newer.last_pid", lambda: first)
    daemon = int(node.run(["sh", "-c", DAEMONS["with a session"]]).stdout)
    monkeypatch.setattr("vethlib.ns.programs.newer.last_pid", lambda: first + further)
    monkeypatch.setattr("vethlib.ns.programs.newer.time", SimpleNamespace(monotonic=lambda: clock() + 3600))
    node.close()
    see_end(daemon)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_the_daemons_of_two_nodes_end_between_whose_first_programs_the_process_ids_have_wrapped_around(
    net: Topology, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    daemons = []
    for name, last in zip(order, (1 << 23, 1 << 22), strict=True):
        monkeypatch.setattr("vethlib.ns.programs.newer.last_pid", lambda last=last: last)
        daemons.append(int(net[name].run(["sh", "-c", DAEMONS["with a session"]]).stdout))
    monkeypatch.setattr("vethlib.ns.programs.newer.last_pid", lambda: (1 << 22) + 10)
    net.close()
    see_end(*daemons)


def test_what_has_entered_another_namespace_ends_with_the_group_of_a_program_that_has_ended(node: Node) -> None:
    node.run(["ip", "netns", "add", "inner"])
    command = "ip netns exec inner sleep 600 <&- >&- 2>&- & echo $!"
    started = node.start(["sh", "-c", command], stdout=subprocess.PIPE)
    assert started.stdout is not None
    pid = int(started.stdout.read())
    node.close()
    see_end(pid)


def test_a_daemon_in_the_background_has_time_to_end(node: Node, tmp_path: Path) -> None:
    shell = (
        f"trap 'sleep 0.2; echo orderly >{tmp_path}/end; exit' TERM; echo >{tmp_path}/up; while :; do sleep 0.1; done"
    )
    node.run(["sh", "-c", 'setsid sh -c "$0" <&- >&- 2>&- &', shell])
    assert poll((tmp_path / "up").exists)
    node.close()
    assert (tmp_path / "end").read_text() == "orderly\n"


def test_processes_of_others_in_the_namespace_of_a_node_do_not_end_with_it(net: Topology) -> None:
    node = net["a"]
    node.run(["true"])
    inode, let_end = node.netns.identity[1], threading.Event()
    by_thread = node.submit(let_end.wait)
    with node:
        in_block = subprocess.Popen(["sleep", "600"])
        with_mounts = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
    entered = subprocess.Popen(["nsenter", f"--net=/proc/{in_block.pid}/ns/net", "sleep", "600"])
    other = net["b"].start(["sleep", "600"])
    elsewhere = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
    spared = [in_block, with_mounts, entered, other, elsewhere]
    try:
        assert poll(lambda: os.stat(f"/proc/{entered.pid}/ns/net").st_ino == inode)
        for process in with_mounts, elsewhere:
            assert poll(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")  # noqa: B023
        node.close()
        assert [process.poll() for process in spared] == [None] * len(spared)
        assert not by_thread.done()
    finally:
        let_end.set()
        for process in spared:
            process.kill()
            process.wait()


# A device number that is free is given to the next file system that anybody mounts.
MANY_MOUNTS = "mount -t tmpfs none /mnt; for i in $(seq 60); do mkdir /mnt/$i; mount -t tmpfs none /mnt/$i; done; "


@pytest.mark.parametrize("unmount", ["umount -l /run", "umount -R /run", "umount -l -R /run"])
def test_processes_with_mounts_of_their_own_do_not_end_with_a_node_that_has_unmounted_its_run(
    net: Topology, unmount: str
) -> None:
    node = net["a"]
    node.run(["true"])
    node.set_file("/run/new/file", "")
    node.run(unmount.split())
    command = ["unshare", "--mount", "sh", "-c", MANY_MOUNTS + "echo up; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreign, Topology.build("c -- d") as another:
        program = another["c"].start(["sleep", "600"])
        try:
            assert foreign.stdout is not None
            assert foreign.stdout.readline() == "up\n"
            node.close()
            assert foreign.poll() is None
            assert program.poll() is None
        finally:
            foreign.kill()


@pytest.mark.parametrize("unmount", ["umount -l /run", "umount -R /run"])
def test_daemons_of_a_node_that_has_unmounted_its_run_end_with_it(node: Node, unmount: str) -> None:
    copy = int(node.run(["sh", "-c", DAEMONS["in a mount namespace of its own"]]).stdout)
    assert poll(lambda: Path(f"/proc/{copy}/comm").read_text() == "sleep\n")
    node.run(unmount.split())
    daemon = int(node.run(["sh", "-c", DAEMONS["with a session"]]).stdout)
    node.close()
    see_end(copy, daemon)


def test_the_mounts_of_processes_that_share_them_are_not_read_for_each_when_a_node_is_closed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run(["true"])
    read, marks_in = list[int](), ending._marks_in

    def noted(pid: int) -> list[bytes] | None:
        read.append(pid)
        return marks_in(pid)

    monkeypatch.setattr(ending, "_marks_in", noted)
    script = "for i in $(seq 50); do sleep 600 & echo $!; done; echo; wait"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as foreign:
        try:
            assert foreign.stdout is not None
            pids = {int(line) for line in iter(foreign.stdout.readline, "\n")}
            node.close()
            assert len(pids.intersection(read)) <= 1
            assert all(map(runs, pids))
        finally:
            os.killpg(foreign.pid, signal.SIGKILL)


@pytest.mark.parametrize("roots", ["/proc -", "- /proc", "/proc /proc/self/task -"])
def test_a_daemon_ends_with_its_node_whatever_root_the_others_in_its_mount_namespace_have(
    node: Node, roots: str
) -> None:
    # Each sees only the mounts below its own.
    script = """
import os, sys, time
for root in sys.argv[1:]:
    if os.fork() == 0:
        os.setsid()
        if root != "-":
            os.chroot(root)
        os.write(1, f"{os.getpid()} {root}\\n".encode())
        os.closerange(0, 3)
        time.sleep(600)
os._exit(0)
"""
    command = ["unshare", "--mount", sys.executable, "-c", script, *roots.split()]
    lines = [line.split() for line in node.run(command).stdout.splitlines()]
    daemons = {root: int(pid) for pid, root in lines}
    try:
        node.close()
        see_end(daemons["-"])
    finally:
        for pid in daemons.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_forked_child_that_closes_a_topology_ends_nothing_of_its_parent(net: Topology) -> None:
    node = net["a"]
    daemon = int(node.run(["sh", "-c", DAEMONS["with a session"]]).stdout)
    program = node.start(["sleep", "600"])
    assert in_a_child(net.close) == 0
    assert runs(daemon)
    assert program.poll() is None
    node.close()
    see_end(daemon, program.pid)


def test_daemons_of_a_topology_that_is_let_go_live_on(net: Topology) -> None:
    daemon = int(net["a"].run(["sh", "-c", DAEMONS["with a session"]]).stdout)
    net.let_go()
    try:
        assert runs(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("closes", ["close", "let_go"])
def test_wherever_closing_is_interrupted_it_releases_every_node_and_can_be_called_again(closes: str) -> None:
    files = {str(module.__file__) for module in (live_node, live_topology, mounts, processes)}
    for at in range(2, 10_000):  # the first place is before it has begun
        with Topology.build("a -- b") as net:
            program = net["a"].start(["sleep", "600"])
            interrupting = Interrupting(at, files)
            interrupting.run(getattr(net, closes))
            assert [node.closed for node in net.values()] == [True, True], at
            if closes == "let_go":
                assert runs(program.pid)
                net.close()
            see_end(program.pid)
            net.close()
            if not interrupting.fired:
                break
    assert at > 10


@pytest.mark.slow
def test_however_closing_is_interrupted_everything_ends_at_the_latest_with_python() -> None:
    script = """
import os, subprocess, sys
from vethlib.topology import Topology
from vethlib.topology.live import node, topology
from vethlib.topology.programs import ending, processes

OURS = {module.__file__ for module in (node, topology, ending, processes)}

def interrupt_at(step):
    def trace(frame, event, argument):
        nonlocal step
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            step -= 1
            if step == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    return trace

pids, nets = [], []
command = ["sh", "-c", "setsid sleep 600 <&- >&- 2>&- & echo $!; exec sleep 600"]
for step in range(1, 10_000, 1 if os.cpu_count() > 1 else 7):  # on one, which may be a slow guest's, there are too many
    nets.append(net := Topology.build("node a"))
    shell = net["a"].start(command, stdout=subprocess.PIPE)
    pids += [shell.pid, int(shell.stdout.readline())]
    sys.settrace(interrupt_at(step))
    try:
        net.close()
    except KeyboardInterrupt:
        pass
    else:
        break
    finally:
        sys.settrace(None)
print(*pids)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    limit = 300 if (os.cpu_count() or 1) > 1 else 1500
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    assert done.stderr == ""
    pids = list(map(int, done.stdout.split()))
    assert len(pids) > 50
    see_end(*pids)
