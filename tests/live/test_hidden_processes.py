"""If /proc hides the processes of others (hidepid), a process that it does not show has not necessarily ended."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capabilities import CAP_SYS_PTRACE, dropped
from tests.live.configuring import by_file, by_pid, configured, pair, placed, put, settle, state_of, until
from tests.live.other_user import OTHER
from tests.live.threads import in_thread
from tests.refusing import raises
from tests.witness import names, poll
from vethlib import NetlinkError, NetnsNotFound, NotPermitted, Session, ns
from vethlib.agent import Namespace
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower, ResolverDown, processes
from vethlib.follow.docker.engine import _check_peer
from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

pytestmark = [
    pytest.mark.needs_kernel("5.8"),  # before, the option is that of every procfs of a pid namespace
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount another procfs"),
]


def where_others_are_hidden(function: Callable[[], object], hidepid: str = "2") -> None:
    """Run in a thread that sees only the processes which it may trace, and may not trace those of more rights."""

    def run() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        mount(b"proc", b"/proc", b"proc", 0, f"hidepid={hidepid},gid={OTHER}".encode())
        with dropped(CAP_SYS_PTRACE):
            function()

    in_thread(run)


@pytest.fixture(params=[0, OTHER])
def process(request: pytest.FixtureRequest, home: ns.Netns) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a namespace of its own, which root and another user have."""
    user = ["setpriv", "--reuid", str(request.param), "--clear-groups"] if request.param else []
    with subprocess.Popen(["unshare", "-n", *user, "sleep", "600"]) as process:
        assert poll(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process
        process.kill()


def references(pid: int, directory: Path) -> list[str]:
    (directory / "link").symlink_to(f"/proc/{pid}/ns/net")
    files = [f"/proc/{pid}/ns/net", f"/proc/{pid}/task/{pid}/ns/net", f"/proc/{pid}/root/run/netns/x"]
    return [f"pid:{pid}", *(f"path:{file}" for file in [*files, directory / "link"])]


@pytest.mark.parametrize("hidepid", ["2", "4"])
def test_a_hidden_process_is_not_permitted_and_the_mount_option_is_named(
    process: subprocess.Popen[bytes], tmp_path: Path, hidepid: str
) -> None:
    def look() -> None:
        assert not os.path.exists(f"/proc/{process.pid}")
        for ref in references(process.pid, tmp_path):
            with raises(NotPermitted, capability="CAP_SYS_PTRACE", errno=errno.EPERM, netns=ref) as caught:
                ns.open_fd(ref)
            assert "hidepid" in str(caught.value)

    where_others_are_hidden(look, hidepid)


def test_a_process_that_has_ended_is_gone_there_too(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process.kill()
    process.wait()

    def look() -> None:
        for ref in [*references(process.pid, tmp_path), "pid:2147483647", "path:/proc/99999999999/ns/net"]:
            with raises(NetnsNotFound, netns=ref):
                ns.open_fd(ref)

    where_others_are_hidden(look)


def test_without_a_procfs_no_mount_option_is_blamed(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    def run() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        mount(b"tmpfs", b"/proc", b"tmpfs", 0, None)
        for ref in references(process.pid, tmp_path):
            with raises(NetlinkError, netns=ref, errno=errno.ENOENT) as caught:
                ns.open_fd(ref)
            assert "hidepid" not in str(caught.value)
            assert "/proc is not mounted" in str(caught.value)

    in_thread(run)


def test_in_another_pid_namespace_than_that_of_proc_no_mount_option_is_blamed() -> None:
    script = """
import os, subprocess
from vethlib import NetnsNotFound, ns
while os.path.exists(f"/proc/{(child := subprocess.Popen(['sleep', '60'])).pid}"):
    child.kill()
    child.wait()
try:
    ns.open_fd(f"pid:{child.pid}")
except NetnsNotFound as error:
    print("hidepid" in str(error))
child.kill()
"""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "False\n"


@pytest.mark.parametrize("spelling", [by_pid, lambda pid: by_file(f"/proc/{pid}/ns/net")], ids=["pid", "file"])
def test_an_agent_that_may_not_see_a_process_any_more_keeps_its_pairs(
    process: subprocess.Popen[bytes], spelling: Callable[[int], Namespace]
) -> None:
    interfaces = placed("a", "b", spelling(process.pid)), pair("b", "a")[0]
    with Session() as session, Configurator(session) as configurator:
        put(configurator, *interfaces)
        until(configurator, configured(configurator, "a", "b"))

    def start_again() -> None:
        with Session() as session, Configurator(session) as configurator:
            configurator.resync(interfaces)
            settle(configurator)
            assert state_of(configurator, "a").startswith("RETRYING: not-permitted")

    where_others_are_hidden(start_again)
    assert "b" in names()


def test_without_a_descriptor_a_hidden_process_has_not_ended(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(processes, "pidfd_open", refuse)
    ref = f"pid:{process.pid}"

    def follow() -> None:
        with Follower() as follower:
            with raises(NotPermitted, netns=ref):
                follower.follow([ref])
            assert follower.gone(ref) == ""

    where_others_are_hidden(follow)


def test_an_engine_that_proc_hides_is_not_in_another_pid_namespace(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    script = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print(flush=True)
input()
"""
    command = [sys.executable, "-c", script, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()

        def look() -> None:
            with raises(ResolverDown, code="not-permitted") as caught:
                _check_peer(path)
            assert "hidepid" in str(caught.value)
            assert str(listening.pid) in str(caught.value)

        where_others_are_hidden(look)
        listening.kill()
