"""What goes wrong around a session leaves the host as it was."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.witness import host_state, ip
from vethlib import End, LinkExists, NetlinkError, Session, Veth
from vethlib.session import create
from vethlib.session.places import Places


def pairs(count: int, netns: str = "") -> list[Veth]:
    return [Veth(End(f"a{i}"), End(f"b{i}", netns)) for i in range(count)]


def test_a_namespace_that_is_removed_between_check_and_use_leaves_nothing(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_creates = create._send_creates

    def removed_first(places: Places, jobs: list[create._Job]) -> None:
        ip("netns", "del", "blue")
        send_creates(places, jobs)

    monkeypatch.setattr(create, "_send_creates", removed_first)
    before = host_state()["" if "" in host_state() else next(iter(host_state()))]
    session.create(Veth(End("veth1"), End("veth2", blue)))
    ip("netns", "add", "blue")  # for the fixture to remove
    deadline = time.monotonic() + 3
    while any(link["ifname"] == "veth1" for link in ip("link", "show")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert before is not None


def test_without_descriptors_the_error_says_so_and_nothing_was_created(session: Session, blue: str, red: str) -> None:
    before = host_state()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    for free in range(1, 6):
        highest = max(map(int, os.listdir("/proc/self/fd")))
        filler = [os.open("/dev/null", os.O_RDONLY) for _ in range(max(0, highest + 1 - used))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + free, hard))
        try:
            with pytest.raises(NetlinkError, match="ulimit -n") as caught:
                session.create_many([*pairs(3), Veth(End("x", blue), End("y", red))])
            assert caught.value.errno == errno.EMFILE
        except pytest.fail.Exception:
            session.delete_many([*((f"a{i}", "") for i in range(3)), ("x", blue)])
            assert free > 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        assert host_state() == before


def test_a_small_send_buffer_only_makes_smaller_datagrams(session: Session) -> None:
    before = host_state()
    rtnl = session._home.socket
    assert rtnl is not None
    rtnl._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least: some 4 kB
    rtnl._limits = rtnl._read_limits()
    assert rtnl._limits.send < 10_000
    session.create_many(pairs(100))
    assert len(ip("link", "show", "type", "veth")) == 200
    session.delete_many([(f"a{i}", "") for i in range(100)])
    assert host_state() == before


def test_a_message_the_send_buffer_has_no_room_for_is_refused_whole(session: Session) -> None:
    before = host_state()
    rtnl = session._home.socket
    assert rtnl is not None
    rtnl._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with pytest.raises(NetlinkError, match="talk rtnetlink") as caught:
        session.create_many(pairs(64))  # its limits were read before: one datagram of 12 kB
    assert caught.value.errno in (errno.EMSGSIZE, errno.ENOBUFS)
    assert host_state() == before


def test_a_small_receive_buffer_loses_no_answer(session: Session) -> None:
    before = host_state()
    rtnl = session._home.socket
    assert rtnl is not None
    rtnl._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    rtnl._limits = rtnl._read_limits()
    session.create_many(pairs(64))
    with pytest.raises(LinkExists):
        session.create_many(pairs(64))
    session.delete_many([(f"a{i}", "") for i in range(64)])
    assert host_state() == before


def test_signals_that_are_handled_do_not_disturb_a_call(session: Session, blue: str) -> None:
    before = host_state()
    heard: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        session.create_many(pairs(200, blue))
        session.delete_many([(f"b{i}", blue) for i in range(200)], missing_ok=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(heard) > 10
    assert host_state() == before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_send_that_the_kernel_refuses_leaves_nothing(tmp_path: Path, blue: str, number: int) -> None:
    before = host_state()
    script = tmp_path / "script.py"
    script.write_text(
        "from vethlib import End, NetlinkError, Session, Veth\n"
        "with Session() as session:\n"
        "    try:\n"
        "        session.create(Veth(End('a', addresses=['10.0.0.1/24']), End('b', 'blue')))\n"
        "    except NetlinkError as error:\n"
        "        print(error.errno)\n"
    )
    command = ["strace", "-qq", "-o", str(tmp_path / "trace"), "-e", f"inject=sendto:error=ENOBUFS:when={number}"]
    run = subprocess.run([*command, sys.executable, script], capture_output=True, text=True, check=False)
    if "ptrace" in run.stderr.lower():
        pytest.skip(f"strace may not trace here: {run.stderr.strip()}")
    assert run.stdout == f"{errno.ENOBUFS}\n", run.stderr
    assert host_state() == before


@pytest.mark.parametrize("end", ["a", "b"])
def test_a_link_of_another_kind_in_the_way_is_named(session: Session, blue: str, end: str) -> None:
    ip(*(() if end == "a" else ("-n", "blue")), "link", "add", "name", f"veth-{end}", "type", "bridge")
    before = host_state()
    where = "the home namespace" if end == "a" else "netns:blue"
    with pytest.raises(LinkExists, match=f"'veth-{end}' already exists in {where}") as caught:
        session.create(Veth(End("veth-a"), End("veth-b", blue)))
    assert (caught.value.errno, caught.value.item) == (errno.EEXIST, Veth(End("veth-a"), End("veth-b", blue)))
    assert host_state() == before
    ip(*(() if end == "a" else ("-n", "blue")), "link", "del", "dev", f"veth-{end}")
