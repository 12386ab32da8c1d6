"""The programs of a node: where they start, and how they are waited for."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.descriptors import descriptors_left
from tests.programs import killed_with_its_parent
from vethlib import End, InvalidValue, LinkNotFound, Session, Veth, WaitTimeout, ns
from vethlib.topology import Node, Topology, line


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b", mtu=1400) as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


def output(node: Node, *command: str) -> str:
    return node.run(command).stdout


def test_a_program_that_is_to_be_killed_with_its_parent_runs_to_its_end(node: Node) -> None:
    command = ["sh", "-c", "sleep 0.3; echo done"]
    assert node.run(command, preexec_fn=killed_with_its_parent).stdout == "done\n"
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sleep", "60"], preexec_fn=killed_with_its_parent, timeout=0.1)


@pytest.mark.parametrize("options", [{}, {"start_new_session": True}])
@pytest.mark.parametrize("function", [os.setsid, lambda: os.setsid()])
def test_a_program_that_cannot_make_a_session_of_its_own_has_the_cure_in_its_error(
    node: Node, function: Callable[[], None], options: dict[str, Any]
) -> None:
    with pytest.raises(subprocess.SubprocessError) as refused:
        node.start(["sleep", "60"], preexec_fn=function, **options)
    assert any("start_new_session=True" in note for note in refused.value.__notes__)
    started = node.start(["sleep", "60"], start_new_session=True)
    assert os.getsid(started.pid) == started.pid


@pytest.mark.parametrize("start", [Node.run, Node.start])
def test_a_command_that_is_a_text_has_the_cure_in_its_error(node: Node, start: Callable[..., object]) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        start(node, "ip addr")
    assert any("list of words" in note for note in refused.value.__notes__)


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


@pytest.mark.parametrize("others", [0, 300])
def test_programs_run_in_more_nodes_than_the_limit_of_open_files_has_room_for(others: int) -> None:
    with ExitStack() as closing:
        net = closing.enter_context(Topology.build(line(30), ipv6=False))
        for _ in range(others):
            closing.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        closing.enter_context(descriptors_left(24))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        programs = [node.start(["cat", "-", "/sys/class/net/lo/ifindex"], **pipes) for node in net.values()]
        assert [program.communicate("read\n")[0] for program in programs] == ["read\n1\n"] * 30


@pytest.mark.parametrize("count", [40, 300])
def test_a_program_leaves_the_limit_of_open_files_alone_where_there_is_room(node: Node, count: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptors_left(count):
        left = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert output(node, "sh", "-c", "ulimit -n") == f"{left[0]}\n"
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == left
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


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


def test_mtu_is_for_wires_that_have_none_of_their_own() -> None:
    with Topology.build("a -- b; b -- c  mtu=1300", mtu=1400) as net:
        links = {link["ifname"]: link["mtu"] for link in json.loads(output(net["b"], "ip", "-j", "link"))}
        assert links == {"lo": 65536, "eth0": 1400, "eth1": 1300}
    with pytest.raises(InvalidValue) as caught:
        Topology.build("a -- b", mtu=1)
    assert caught.value.field == "mtu"


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
