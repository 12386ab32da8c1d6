"""Nodes that stay up when the process that created them ends."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.descriptors import descriptors_left
from tests.refusing import raises
from tests.witness import poll
from vethlib import NetlinkError, Session
from vethlib.topology import Node, Topology
from vethlib.topology.keep import Kept, keep


@pytest.fixture
def ended() -> Iterator[list[Kept]]:
    """Nodes that a test keeps; they are ended with the test."""
    kept: list[Kept] = []
    yield kept
    for one in kept:
        end(one)


def end(kept: Kept) -> None:
    """Send SIGTERM to the holder and wait until it is gone."""
    try:
        fd = os.pidfd_open(kept.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        assert select.select([fd], [], [], 60)[0], "the holder does not end"
    finally:
        os.close(fd)


def inside(kept: Kept, *command: str) -> str:
    return subprocess.run([*kept.enter.split(), *command], check=True, capture_output=True, text=True).stdout


def namespaces() -> set[int]:
    """The network namespaces that a process is in or has mounted or open, as far as we may look."""
    found = set()
    for one in Path("/proc").glob("[0-9]*"):
        for path in (one / "ns" / "net", *_listed(one / "fd")):
            try:
                link = os.readlink(path)
            except OSError:
                continue
            if link.startswith("net:["):
                found.add(int(link[5:-1]))
    return found


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def test_nodes_outlive_their_topology_with_their_wires(ended: list[Kept]) -> None:
    net = Topology.build("a -- b")
    identities = {name: node.netns.identity[1] for name, node in net.items()}
    address = net["b"].ipv4
    ended.append(kept := keep(net.values()))
    net.close()
    assert kept.nodes == ("a", "b")
    for name, inode in identities.items():
        assert int(inside(kept, "stat", "-c", "%i", f"/run/netns/{name}")) == inode
        assert inside(kept, "ip", "netns", "exec", name, "readlink", "/proc/self/ns/net") == f"net:[{inode}]\n"
    assert address in inside(kept, "ip", "-n", "b", "-br", "addr")
    assert "bytes from" in inside(kept, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", address)


def test_vethctl_knows_them_by_name(ended: list[Kept]) -> None:
    with Topology.build("left -- right") as net:
        ended.append(kept := keep(net.values()))
    told = inside(kept, sys.executable, "-m", "vethlib", "show")
    assert "left" in told
    assert "right" in told


def test_ending_the_holder_ends_the_namespaces_and_what_runs_in_them(ended: list[Kept]) -> None:
    net = Topology.build("a -- b")
    process = net["a"].start(["sleep", "1000"])
    inodes = {node.netns.identity[1] for node in net.values()}
    ended.append(kept := keep(net.values()))
    net.let_go()
    assert inodes <= namespaces()
    assert process.poll() is None
    end(kept)
    assert process.wait(60) == -signal.SIGKILL
    assert poll(lambda: not inodes & namespaces())


def test_ending_the_holder_ends_more_processes_than_it_may_have_descriptors(ended: list[Kept]) -> None:
    net = Topology.build("a -- b")
    others = [subprocess.Popen(["sleep", "1000"]) for _ in range(40)]
    programs = [net["a"].start(["sleep", "1000"]) for _ in range(60)]
    with descriptors_left(16):  # the holder inherits this limit
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] < len(programs)
        ended.append(kept := keep(net.values()))
    net.let_go()
    end(kept)
    assert {program.wait(60) for program in programs} == {-signal.SIGKILL}
    assert {other.poll() for other in others} == {None}
    for other in others:
        other.kill()
        other.wait()


def test_processes_elsewhere_live_on_when_the_holder_ends(ended: list[Kept]) -> None:
    with Topology.build("a -- b") as other, Topology.build("a -- b") as net:
        spared = [other["a"].start(["sleep", "1000"]), subprocess.Popen(["sleep", "1000"])]
        ended.append(kept := keep(net.values()))
        end(kept)
        assert [process.poll() for process in spared] == [None, None]
        spared[1].kill()
        spared[1].wait()


def test_the_holder_has_nothing_of_the_callers_open(ended: list[Kept]) -> None:
    # A program that waits for the end of a pipe, as CI does, would wait for the holder.
    with (
        Topology.build("node a") as net,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat,
    ):
        ended.append(kept := keep(net.values()))
        assert cat.stdin
        cat.stdin.close()
        assert cat.wait(60) == 0
        own = {"/dev/null", f"net:[{net['a'].netns.identity[1]}]"}
    assert {os.readlink(path) for path in _listed(Path(f"/proc/{kept.pid}/fd"))} == own
    assert os.readlink(f"/proc/{kept.pid}/cwd") == "/"
    assert os.getsid(kept.pid) != os.getsid(0)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{kept.pid}/status").read_text().splitlines())
    assert int(status["PPid"]) != os.getpid()


def test_the_names_are_in_no_other_mount_namespace(ended: list[Kept]) -> None:
    before = os.listdir("/run/netns")
    with Topology.build("a -- b") as net:
        ended.append(keep(net.values()))
        assert os.listdir("/run/netns") == before


def test_what_is_named_on_the_host_is_not_among_what_is_kept(ended: list[Kept]) -> None:
    subprocess.run(["ip", "netns", "add", "hosts-own"], check=True)
    try:
        with Topology.build("a -- b") as net:
            ended.append(kept := keep(net.values()))
        assert inside(kept, "ls", "/run/netns").split() == ["a", "b"]
    finally:
        subprocess.run(["ip", "netns", "del", "hosts-own"], check=True)


def test_a_name_that_comes_twice_is_numbered(ended: list[Kept]) -> None:
    with Topology.build("a -- b") as one, Topology.build("a -- c") as other:
        ended.append(kept := keep([*one.values(), *other.values()]))
        assert kept.nodes == ("a", "b", "a.2", "c")
        for name, node in zip(kept.nodes, (one["a"], one["b"], other["a"], other["c"]), strict=True):
            assert int(inside(kept, "stat", "-c", "%i", f"/run/netns/{name}")) == node.netns.identity[1]


def test_what_cannot_be_kept_leaves_no_process() -> None:
    with Topology.build("a -- b") as net, Session() as session:
        node = Node("no/such", net["a"].netns, session)  # a name that no file can have
        with raises(NetlinkError):
            keep([net["b"], node])
    assert not [one for one in Path("/proc").glob("[0-9]*") if b":no/such" in _read(one / "cmdline")]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_relay_of_kept_nodes_runs_as_long_as_they_do(ended: list[Kept]) -> None:
    net = Topology.build("a -- b delay=20ms/0", impair="userspace")
    assert net._relay is not None
    relay = os.pidfd_open(net._relay._process.pid)
    try:
        ended.append(keep(net.values()))
        net.let_go()
        said = inside(ended[0], "ip", "netns", "exec", "a", "ping", "-c1", "-W5", "10.0.0.2")
        assert float(said.partition("time=")[2].split()[0]) >= 19.5
        end(ended[0])
        assert select.select([relay], [], [], 20)[0], "the relay does not end"
    finally:
        os.close(relay)


_KEEPS = """
import sys
from vethlib.topology import Topology
from vethlib.topology.keep import keep
net = Topology.build("a -- b delay=1ms", impair="userspace")
kept = keep(net.values())
print(kept.pid, net._relay._process.pid, flush=True)
net.let_go()
"""


def test_the_relay_of_kept_nodes_does_not_hold_the_output_of_its_owner() -> None:
    command = [sys.executable, "-c", _KEEPS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        holder, relay = map(int, owner.stdout.readline().split())
        try:
            out, err = owner.communicate(timeout=20)
            assert (out, err, owner.returncode) == ("", "", 0)
            assert os.path.exists(f"/proc/{relay}/fd/0")
        finally:
            os.kill(holder, signal.SIGTERM)
    assert poll(lambda: not os.path.exists(f"/proc/{relay}/fd/0"))


@pytest.mark.parametrize("name", ["ipaddress.py", "signal.py", "vethlib.py"])
def test_modules_of_a_project_do_not_replace_those_of_the_holder(
    ended: list[Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("raise SystemExit('a module of the project')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with Topology.build("node a") as net:
        ended.append(keep(net.values()))
        assert inside(ended[0], "ip", "netns").split() == ["a"]


def test_the_search_path_for_modules_may_have_paths_that_are_no_text(
    ended: list[Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path, None])
    with Topology.build("node a") as net:
        ended.append(keep(net.values()))
        assert inside(ended[0], "ip", "netns").split() == ["a"]
