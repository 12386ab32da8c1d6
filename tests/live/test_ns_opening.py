"""Opening namespaces by reference, judged by stat(2) on /proc and by the ip program."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.threads import in_thread
from tests.programs import attended
from tests.refusing import raises
from vethlib import ns
from vethlib.errors import NetlinkError, NetnsNotFound, NotPermitted
from vethlib.ns import reference, syscalls
from vethlib.ns.files.glance import open_cached
from vethlib.ns.files.walk import Walked, walk

HERE = "/proc/thread-self/ns/net"


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def inode(path: str) -> int:
    return os.stat(path).st_ino


def inode_of(ref: str | ns.Netns | None, resolver: ns.Resolver | None = None) -> int:
    fd = ns.open_fd(ref, resolver)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def is_missing(ref: str, *, taken: bool = False, named: str = "") -> bool:
    """Whether nothing is there, or something else (`taken`); and the message has the path, or what is `named`."""
    with raises(NetnsNotFound, netns=ref, taken=taken) as caught:
        ns.open_fd(ref)
    return (named or ref.partition(":")[2]) in str(caught.value)


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def blue() -> Iterator[str]:
    ip("netns", "add", "blue")
    yield "blue"
    ip("netns", "del", "blue")


@pytest.fixture
def process_in_blue(blue: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the namespace blue."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = ["ip", "netns", "exec", blue, sys.executable, "-I", "-c", code]
    with attended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_nothing_and_the_empty_text_are_the_callers_own_namespace() -> None:
    assert inode_of("") == inode_of(None) == inode(HERE)


def test_home_is_the_threads_not_the_processs(blue: str) -> None:
    def check() -> None:
        with ns.entered(blue):
            assert inode_of("") == inode(f"/run/netns/{blue}") != inode("/proc/self/ns/net")

    in_thread(check)


def test_a_name_is_what_ip_netns_calls_so(blue: str) -> None:
    assert inode_of("blue") == inode_of("netns:blue") == inode("/run/netns/blue") != inode(HERE)


def test_a_process_and_its_files_lead_to_one_namespace(process_in_blue: subprocess.Popen[str]) -> None:
    pid = process_in_blue.pid
    assert ip("netns", "identify", str(pid)).strip() == "blue"
    assert inode_of(f"pid:{pid}") == inode_of(f"path:/proc/{pid}/task/{pid}/ns/net") == inode_of("blue")


def is_in_memory(path: str) -> bool:
    """Whether the kernel opens this without asking a file system, which not every one can do for a mount."""
    opened: list[int] = []
    try:
        open_cached(path, opened)
    except BlockingIOError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


@pytest.mark.skipif(not os.path.islink("/var/run"), reason="/var/run is a directory here")
def test_var_run_is_run_without_a_walk_name_by_name(
    blue: str, process_in_blue: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/run/vethlib-other")  # as Docker's are
    other.touch()
    os.symlink(f"/proc/{process_in_blue.pid}/ns/net", "/run/netns/lent")
    subprocess.run(["mount", "--bind", f"/run/netns/{blue}", other], check=True)
    try:
        walks: list[str] = []

        def walking(path: str, *rest: Any) -> Walked:
            walks.append(path)
            return walk(path, *rest)

        monkeypatch.setattr("vethlib.ns.files.walk.walk", walking)
        for name in (f"netns/{blue}", "netns/lent", other.name):
            for _ in range(20):  # mounting elsewhere at this very moment makes the kernel give up walking in memory
                walks.clear()
                assert inode_of(f"path:/var/run/{name}") == inode_of(blue)
                if not walks:
                    break
            assert not walks or not is_in_memory(f"/run/{name}")
        assert is_missing("path:/var/run/netns/missing")
    finally:
        os.unlink("/run/netns/lent")
        subprocess.run(["umount", other], check=True)
        other.unlink()


def test_a_symbolic_link_lends_a_name(process_in_blue: subprocess.Popen[str]) -> None:
    os.symlink(f"/proc/{process_in_blue.pid}/ns/net", "/run/netns/lent")
    try:
        assert inode_of("lent") == inode_of("blue")
    finally:
        ns.remove("lent")
    assert inode_of("blue") == inode_of(f"pid:{process_in_blue.pid}")


def test_an_fd_reference_is_duplicated(blue: str) -> None:
    fd = ns.open_fd(blue)
    try:
        second = ns.open_fd(f"fd:{fd}")
        assert second != fd
        assert os.fstat(second).st_ino == inode("/run/netns/blue")
        os.close(second)
    finally:
        os.close(fd)


def test_an_open_netns_is_a_reference(blue: str) -> None:
    with ns.Netns.open(blue) as netns:
        fd = ns.open_fd(netns)
        assert fd != netns.fd
        assert ns.identity(fd) == netns.identity
        os.close(fd)


def test_a_label_is_what_the_resolver_says(blue: str) -> None:
    labels = {"vnf1": "netns:blue"}
    assert inode_of("microservice:vnf1", labels.__getitem__) == inode_of("blue")


def test_what_is_opened_is_not_inherited_by_programs(blue: str) -> None:
    fd = ns.open_fd(blue)
    with ns.open_owned(blue) as owned:
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert fcntl.fcntl(owned.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    os.close(fd)


def test_what_is_owned_closes_with_its_last_reference() -> None:
    owned = ns.open_owned("")
    fd = owned.fileno()
    del owned
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_missing_name_is_reported_with_its_path() -> None:
    assert is_missing("netns:ns1", named="/run/netns/ns1")


def test_a_missing_file_is_reported_with_its_path() -> None:
    assert is_missing("path:/no/such/file")
    assert is_missing("path:/proc/version/net")


def test_a_dead_pid_is_reported_as_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert is_missing(f"pid:{process.pid}")
    assert is_missing("pid:2147483647")


def test_a_zombie_is_reported_as_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "Z (zombie)" in Path(f"/proc/{process.pid}/status").read_text()
        assert is_missing(f"pid:{process.pid}")


def leftover(name: str) -> None:
    os.makedirs("/run/netns", exist_ok=True)
    os.mknod(f"/run/netns/{name}")
    os.chmod(f"/run/netns/{name}", 0)


def test_a_leftover_file_is_told_from_a_namespace() -> None:
    leftover("x")
    try:
        assert is_missing("netns:x", taken=True, named="/run/netns/x")
        with dropped():  # to whom the kernel says no more than EACCES
            assert is_missing("netns:x", taken=True, named="/run/netns/x")
    finally:
        subprocess.run(["ip", "netns", "del", "x"], check=False, capture_output=True)
    assert "x" not in ns.names()


@pytest.mark.parametrize("path", ["/dev/null", "/proc/version", "/run"])
def test_a_file_that_is_no_namespace_is_told_so(path: str) -> None:
    assert is_missing(f"path:{path}", taken=True)


def test_a_fifo_does_not_hang_the_caller(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert is_missing(f"path:{fifo}", taken=True)


def test_a_socket_file_is_no_namespace(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert is_missing(f"path:{tmp_path}/s", taken=True)


def test_a_namespace_of_another_kind_is_told_so() -> None:
    path = "/proc/self/ns/mnt"
    assert is_missing(f"path:{path}", taken=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert is_missing(f"fd:{fd}", taken=True)
    finally:
        os.close(fd)


def test_a_closed_fd_is_told_so() -> None:
    assert is_missing("fd:2147483647")
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        assert is_missing(f"fd:{fd}", taken=True)
    finally:
        os.close(fd)


def test_a_closed_netns_is_told_so() -> None:
    netns = ns.Netns.open("")
    netns.close()
    with pytest.raises(NetnsNotFound, match="closed"):
        ns.open_fd(netns)


def test_a_process_of_more_rights_names_the_capability(process_in_blue: subprocess.Popen[str]) -> None:
    with dropped(), raises(NotPermitted, capability="CAP_SYS_PTRACE") as caught:
        ns.open_fd(f"pid:{process_in_blue.pid}")
    assert caught.value.errno in (errno.EACCES, errno.EPERM)
    assert caught.value.netns == f"pid:{process_in_blue.pid}"
    with dropped(), raises(PermissionError, capability="CAP_SYS_PTRACE"):
        ns.open_fd(f"path:/proc/{process_in_blue.pid}/ns/net")


def test_a_namespace_of_unknown_kind_is_an_error_and_no_leftover_file(
    blue: str, process_in_blue: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "NS_GET_NSTYPE", 0xB7FF)  # as on a machine where it has another number
    for ref in (blue, f"pid:{process_in_blue.pid}", f"path:/run/netns/{blue}", ""):
        with raises(NetlinkError, errno=errno.ENOTTY) as caught:
            ns.open_fd(ref)
        assert not isinstance(caught.value, NetnsNotFound)
        assert "ip netns del" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_not_permitted(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    (locked / "net").touch()
    locked.chmod(0)
    with dropped(), raises(NotPermitted, capability="CAP_DAC_READ_SEARCH"):
        ns.open_fd(f"path:{locked}/net")


def test_a_descriptor_that_may_not_be_looked_at_is_not_permitted(blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with ns.open_owned(blue) as opened:
        monkeypatch.setattr(reference, "glance_of", refuse)  # as a seccomp filter refuses statx
        with raises(NotPermitted, errno=errno.EPERM) as caught:
            ns.open_fd(f"fd:{opened.fileno()}")
    assert "fd " in str(caught.value)


def test_a_loop_of_links_is_reported_with_the_errno(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NetlinkError, match="ELOOP") as caught:
        ns.open_fd(f"path:{tmp_path}/loop")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("spare", [0, 1])
def test_running_out_of_descriptors_says_what_to_raise(spare: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)  # the lowest free number
    os.close(probe)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + spare, hard))
        with pytest.raises(NetlinkError, match="ulimit -n") as caught:
            ns.open_fd("")
        if not spare:
            with pytest.raises(NetlinkError, match="ulimit -n"):
                ns.call_in(0, bool)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert isinstance(caught.value, OSError)


def test_a_host_out_of_descriptors_says_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr("vethlib.ns.reference.opened", full)
    with pytest.raises(NetlinkError, match=r"fs\.file-max") as caught:
        ns.open_fd("blue")
    assert caught.value.errno == errno.ENFILE
