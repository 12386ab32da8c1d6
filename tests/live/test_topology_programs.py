"""The programs of a node: the files they see, where they start, and how they are waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.programs import DEADLINE, wait_until_ended
from tests.refusing import raises
from vethlib import End, InvalidValue, LinkNotFound, NetlinkError, NotPermitted, Session, Veth, WaitTimeout, ns
from vethlib.topology import Node, Topology
from vethlib.topology.programs import supervision


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b", mtu=1400) as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


def output(node: Node, *command: str) -> str:
    return node.run(command).stdout


def test_programs_see_the_links_of_their_node_in_sys(net: Topology) -> None:
    for node in net.values():
        assert output(node, "cat", "/sys/class/net/eth0/mtu") == "1400\n"
    started = net["a"].start(["ls", "/sys/class/net"], stdout=subprocess.PIPE)
    assert started.communicate()[0].split() == ["eth0", "lo"]


def test_each_node_has_named_namespaces_of_its_own(net: Topology) -> None:
    for node in net.values():
        node.run(["ip", "netns", "add", "inner"])
    for node in net.values():
        assert output(node, "ip", "netns", "exec", "inner", "ls", "/sys/class/net") == "lo\n"
    net["a"].run(["ip", "netns", "del", "inner"])
    assert output(net["b"], "ip", "netns", "list").split() == ["inner"]
    assert ns.names() == []


def test_what_a_program_writes_to_run_is_seen_by_its_node_alone(net: Topology) -> None:
    for name, node in net.items():
        node.run(["sh", "-c", f"echo {name} >/run/daemon.pid; mkdir -p /run/daemon; touch /run/daemon/{name}"])
    assert [output(node, "cat", "/var/run/daemon.pid") for node in net.values()] == ["a\n", "b\n"]
    assert [output(node, "ls", "/run/daemon") for node in net.values()] == ["a\n", "b\n"]
    assert not os.path.exists("/run/daemon.pid")


def test_empty_directories_of_run_belong_to_the_node_and_full_ones_are_shared(net: Topology) -> None:
    empty, full = Path("/run/of-a-daemon"), Path("/run/of-the-host")
    empty.mkdir(mode=0o750)
    full.mkdir()
    (full / "socket").touch()
    try:
        for name, node in net.items():
            node.run(["touch", f"/run/of-a-daemon/{name}"])
        assert [output(node, "ls", "/run/of-a-daemon") for node in net.values()] == ["a\n", "b\n"]
        assert output(net["a"], "stat", "-c", "%a", "/run/of-a-daemon") == "750\n"
        assert output(net["a"], "ls", "/run/of-the-host") == "socket\n"
        assert list(empty.iterdir()) == []
    finally:
        (full / "socket").unlink()
        full.rmdir()
        empty.rmdir()


def test_a_program_begins_in_the_working_directory_of_its_caller(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path)
    assert output(node, "pwd") == f"{tmp_path}\n"
    assert node.run(["pwd"], cwd="deeper").stdout == f"{tmp_path}/deeper\n"
    os.rmdir(tmp_path / "deeper")
    (tmp_path / "program").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "program").chmod(0o755)
    assert output(node, "./program") == "hello\n"


def test_a_program_can_be_started_where_the_working_directory_is_gone(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert output(node, "echo", "hello") == "hello\n"


def test_the_calling_thread_stays_where_it_is(node: Node) -> None:
    def where() -> list[str]:
        return [*(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")), os.getcwd()]

    before = where()
    node.run(["true"])
    node.start(["true"])
    with pytest.raises(FileNotFoundError):
        node.run(["/no/such/program"])
    assert where() == before


def test_a_program_is_in_its_node_though_the_caller_is_in_another(net: Topology) -> None:
    with net["b"]:
        assert output(net["a"], "readlink", "/proc/self/ns/net") == f"net:[{net['a'].netns.identity[1]}]\n"


def test_programs_can_be_started_by_many_threads_at_once(node: Node) -> None:
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(output(node, "readlink", "/proc/self/ns/mnt"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


@pytest.mark.parametrize("closes", ["node", "topology"])
def test_closing_ends_what_another_thread_runs(net: Topology, closes: str) -> None:
    node, before = net["a"], set(supervision._reported.processes)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(node.run, ["sleep", "60"])
        deadline = time.monotonic() + DEADLINE
        while not (inside := supervision._reported.processes - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (node if closes == "node" else net).close()
        wait_until_ended(*inside)
        with pytest.raises(subprocess.CalledProcessError, match="SIGTERM"):
            running.result(DEADLINE)


def test_a_program_that_has_been_waited_for_is_supervised_no_longer_however_it_ended(node: Node) -> None:
    before = set(supervision._reported.processes)
    for command, timeout in (["true"], None), (["false"], None), (["sleep", "60"], 0.01):
        with suppress(subprocess.SubprocessError):
            node.run(command, timeout=timeout)
        assert supervision._reported.processes == before


def test_run_kills_a_program_that_takes_too_long(node: Node) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sh", "-c", "echo $$ >/run/shell; exec sleep 60"], timeout=2)
    wait_until_ended(int(output(node, "cat", "/run/shell")))


@pytest.mark.parametrize(
    "wrong", [{"input": "x", "stdin": subprocess.PIPE}, {"capture_output": True, "stdout": subprocess.PIPE}]
)
def test_run_refuses_what_subprocess_refuses(node: Node, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        node.run(["true"], **wrong)


@pytest.mark.parametrize(
    ("options", "stdout", "stderr"),
    [
        ({}, "out\n", "err\n"),
        ({"stdout": subprocess.DEVNULL}, None, "err\n"),
        ({"stderr": subprocess.STDOUT}, "out\nerr\n", None),
        ({"stdout": None, "stderr": subprocess.DEVNULL}, None, None),
        ({"capture_output": True}, "out\n", "err\n"),
    ],
)
def test_output_that_is_not_redirected_is_captured(
    node: Node, options: dict[str, Any], stdout: str | None, stderr: str | None
) -> None:
    done = node.run(["sh", "-c", "echo out; echo err >&2"], **options)
    assert (done.stdout, done.stderr) == (stdout, stderr)


@pytest.mark.parametrize("options", [{}, {"start_new_session": True}, {"process_group": 0}])
def test_the_group_of_a_program_ends_with_its_node(options: dict[str, Any]) -> None:
    with Topology.build("node a") as net:
        command = ["sh", "-c", "sleep 60 & echo $!; wait"]
        with net["a"].start(command, stdout=subprocess.PIPE, **options) as shell:
            assert shell.stdout is not None
            child = int(shell.stdout.readline())
            assert os.getpgid(shell.pid) == os.getpgid(child) == shell.pid
            assert (os.getsid(shell.pid) == shell.pid) == ("start_new_session" in options)
            net.close()
    wait_until_ended(child)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_can_be_replaced_for_the_programs_of_one_node(net: Topology, when: str) -> None:
    before = Path("/etc/resolv.conf").read_text()
    if when == "after":
        net["a"].run(["true"])
    net["a"].set_file("/etc/resolv.conf", "nameserver 10.0.0.7\n")
    assert output(net["a"], "cat", "/etc/resolv.conf") == "nameserver 10.0.0.7\n"
    net["a"].set_file("/etc/resolv.conf", "nameserver 10.0.0.8\n")
    assert output(net["a"], "cat", "/etc/resolv.conf") == "nameserver 10.0.0.8\n"
    assert output(net["b"], "cat", "/etc/resolv.conf") == before
    assert Path("/etc/resolv.conf").read_text() == before
    assert output(net["a"], "ls", "-A", "/run") == output(net["b"], "ls", "-A", "/run")


def test_a_replaced_file_is_seen_by_programs_that_run_already(node: Node) -> None:
    shell = node.start(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    node.set_file("/etc/hosts", "192.0.2.1 later\n")
    assert shell.communicate("cat /etc/hosts\n")[0] == "192.0.2.1 later\n"


def test_a_file_of_run_need_not_exist_to_be_replaced_and_others_must(node: Node) -> None:
    node.set_file("/run/systemd-of-the-node/resolve/stub.conf", "nameserver ::1\n")
    assert output(node, "cat", "/run/systemd-of-the-node/resolve/stub.conf") == "nameserver ::1\n"
    with pytest.raises(NotPermitted):
        node.set_file("/etc/no-such-file", "")
    with pytest.raises(InvalidValue) as caught:
        node.set_file("etc/hosts", "")
    assert caught.value.field == "path"


@pytest.mark.parametrize("path", ["/etc/no-such-file", "/no-such-directory/file", "/etc"])
@pytest.mark.parametrize("started", [False, True], ids=["before the first program", "afterwards"])
def test_a_file_that_cannot_be_replaced_is_refused_at_once_and_programs_run(
    node: Node, path: str, started: bool
) -> None:
    if started:
        node.run(["true"])
    with pytest.raises(NetlinkError):
        node.set_file(path, "x")
    assert output(node, "echo", "runs") == "runs\n"
    node.set_file("/etc/hosts", "192.0.2.1 later\n")
    assert output(node, "cat", "/etc/hosts") == "192.0.2.1 later\n"


@pytest.mark.parametrize(
    ("path", "text", "field"),
    [("/etc/ho\0sts", "", "path"), ("/etc/hosts", "\ud800", "text"), ("/etc/hosts", None, "text")],
)
def test_a_file_that_no_text_can_replace_is_refused(node: Node, path: str, text: Any, field: str) -> None:
    with raises(InvalidValue, field=field):
        node.set_file(path, text)
    assert output(node, "echo", "runs") == "runs\n"


def test_programs_know_the_nodes_by_name_where_that_is_asked_for() -> None:
    with Topology.build("client -- r1 -- server; node lonely", routes=True, hosts=True) as net:
        found = output(net["client"], "getent", "ahosts", "server")
        assert {line.split()[0] for line in found.splitlines()} == {net["server"].ipv4, net["server"].ipv6}
        # r1 has two addresses of each family: the one on the same wire comes first.
        for viewer, first in (("client", "10.0.0.2"), ("server", "10.0.1.1")):
            lines = [line.split() for line in output(net[viewer], "cat", "/etc/hosts").splitlines()]
            assert next(address for address, *names in lines if "r1" in names) == first
        assert "nameserver" not in output(net["lonely"], "cat", "/etc/resolv.conf")


def test_mtu_is_for_wires_that_have_none_of_their_own() -> None:
    with Topology.build("a -- b; b -- c  mtu=1300", mtu=1400) as net:
        links = {link["ifname"]: link["mtu"] for link in json.loads(output(net["b"], "ip", "-j", "link"))}
        assert links == {"lo": 65536, "eth0": 1400, "eth1": 1300}
    with pytest.raises(InvalidValue) as caught:
        Topology.build("a -- b", mtu=1)
    assert caught.value.field == "mtu"


def test_where_mounts_are_forbidden_programs_run_and_only_replaced_files_are_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("vethlib.topology.programs.mounts.mount", forbidden)
    assert [link["ifname"] for link in json.loads(output(node, "ip", "-j", "link"))] == ["lo", "eth0"]
    node.set_file("/etc/hosts", "")
    with pytest.raises(NotPermitted):
        node.run(["true"])


def test_a_node_serves_as_a_reference(net: Topology) -> None:
    with Session() as session:
        created = session.create(Veth(End("x", netns=net["a"]), End("y", netns=net["b"].netns)))
        assert {link.name for link in session.links(net["a"])} == {"lo", "eth0", "x"}
        assert session.lookup("y", net["b"]).index == created.b.index
        with ns.entered(net["a"]):
            assert os.stat("/proc/thread-self/ns/net").st_ino == net["a"].netns.identity[1]


@pytest.mark.parametrize("ask", ["set", "stats", "session", "reference"])
def test_errors_about_a_link_name_the_node(net: Topology, ask: str) -> None:
    node = net["a"]
    with pytest.raises(LinkNotFound, match="node a") as caught, Session() as session:
        if ask == "set":
            node.set("eth9", up=False)
        elif ask == "stats":
            node.stats("eth9")
        elif ask == "session":
            session.delete("eth9", node.netns)
        else:
            session.lookup("eth9", node)
    assert "fd:" not in str(caught.value)


@pytest.mark.parametrize("iterator", [iter, partial(map, str)], ids=["iterator", "map"])
def test_a_command_may_be_an_iterator(net: Topology, iterator: Callable[[Iterable[str]], Any]) -> None:
    a = net["a"]
    assert a.run(iterator(["printf", "%s", "here"])).stdout == "here"
    started = a.start(iterator(["sh", "-c", "exit 3"]))
    assert started.wait() == 3
    assert started.args == ["sh", "-c", "exit 3"]
    with pytest.raises(WaitTimeout) as caught:
        a.wait_listening(9)
    assert "sh ended with exit code 3" in str(caught.value)
    assert ns.run(a, iterator(["printf", "%s", "here"]), capture_output=True, text=True).stdout == "here"


def test_a_file_for_programs_is_utf_8_in_every_locale() -> None:
    script = """
from vethlib.topology import Topology
with Topology.build("a -- b") as net:
    net["a"].set_file("/etc/hosts", "# \\u00e4 \\u2192\\n")
    print(net["a"].run(["od", "-An", "-tx1", "/etc/hosts"], capture_output=True).stdout)
"""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ | locale
    )
    assert done.stderr == ""
    assert bytes.fromhex(done.stdout).decode() == "# ä →\n"
