"""An isolated process, seen from inside and from outside."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.capabilities import ORDINARY, dropped
from tests.live.refusals import failing
from tests.live.threads import in_thread
from tests.mounts import READ_ONLY
from tests.refusing import raises
from vethlib import ns
from vethlib.errors import NetlinkError, NotPermitted, NotSupported
from vethlib.ns import isolation
from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount2, unshare


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def _blue() -> Iterator[None]:
    ip("netns", "add", "blue")
    yield
    ip("netns", "del", "blue")


def python(code: str, *prefix: str) -> str:
    """Return what the code prints in a separate process."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [*prefix, sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """
import json, os, subprocess
from vethlib import ns
ns.isolate()
def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout
names = ip("netns", "list").split()
ns.Netns.create("green").close()
ip("link", "add", "one", "type", "veth", "peer", "name", "two", "netns", "green")
lo, = json.loads(ip("-j", "link", "show", "lo"))
print(json.dumps({
    "names": names,
    "then": ip("netns", "list").split()[0],
    "links": [link["ifname"] for link in json.loads(ip("-j", "link"))],
    "sys": sorted(os.listdir("/sys/class/net")),
    "run": sorted(os.listdir("/run")),
    "lo": lo["flags"],
    "net": os.stat("/proc/self/ns/net").st_ino,
    "mnt": os.stat("/proc/self/ns/mnt").st_ino,
    "user": os.stat("/proc/self/ns/user").st_ino,
    "uid": os.getuid(),
}))
"""


WRITES = """
import os
from vethlib import ns
before = os.statvfs("/proc/sys").f_flag
ns.isolate()
after = os.statvfs("/proc/sys").f_flag
try:
    open("/proc/sys/net/ipv4/ip_forward", "w").write("1")
except OSError as error:
    after = error.errno
print(before & os.ST_RDONLY, before ^ os.ST_RDONLY == after, after)
"""


def test_sysctls_can_be_written_in_a_container() -> None:
    seen = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys && "$@" && '
    seen += "if test -w /proc/sys/net/ipv4/ip_forward; then echo writable; else echo read-only; fi"
    told = python(WRITES, "unshare", "-m", "sh", "-c", seen, "sh").split()
    assert told[:2] == ["1", "True"]
    assert told[-1] == "read-only"  # outside, nothing has changed


def test_an_ordinary_user_is_isolated_though_sysctls_stay_read_only() -> None:
    told = python(WRITES, "unshare", "-m", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh", *ORDINARY)
    assert told.split()[-1] == str(errno.EROFS)


@pytest.mark.parametrize("prefix", [[], ORDINARY], ids=["privileged", "ordinary user"])
def test_a_process_gets_a_world_of_its_own(prefix: list[str]) -> None:
    before = ip("-br", "link")
    seen = json.loads(python(LOOK, *prefix))
    assert seen["names"] == []
    assert seen["then"] == "green"
    assert sorted(link for link in seen["links"]) == ["lo", "one"]
    assert seen["sys"] == ["lo", "one"]
    assert "UP" in seen["lo"]
    assert seen["run"] == sorted({*os.listdir("/run"), "netns"})
    assert seen["uid"] == 0
    for kind in ("net", "mnt"):
        assert seen[kind] != os.stat(f"/proc/self/ns/{kind}").st_ino
    assert (seen["user"] != os.stat("/proc/self/ns/user").st_ino) == bool(prefix)
    assert ip("netns", "list").split() == ["blue"]
    assert ip("-br", "link") == before


@pytest.mark.parametrize("prefix", [[], ORDINARY], ids=["privileged", "ordinary user"])
def test_the_state_of_the_hosts_agents_is_neither_seen_nor_added_to(prefix: list[str], agents: Path) -> None:
    code = """
import os
from vethlib import ns
ns.isolate()
from vethlib.agent.process.rundir import open_directory
print(os.listdir("/run/vethlib"))
os.close(open_directory("vpp1", "status"))
print(os.listdir("/run/vethlib/vpp1"))
"""
    before = set(agents.rglob("*"))
    assert python(code, *prefix) == "[]\n['status']\n"
    assert set(agents.rglob("*")) == before


@pytest.fixture
def agents() -> Iterator[Path]:
    """The files of the host's agents in /run/vethlib."""
    directory = Path("/run/vethlib")
    (directory / "theirs").mkdir(parents=True)
    (directory / "theirs/a.json").write_text("{}")
    yield directory
    shutil.rmtree(directory / "theirs")


def test_a_thread_can_have_it_too() -> None:
    def alone() -> None:
        ns.isolate()
        assert ns.names() == []
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        assert os.listdir("/sys/class/net") == ["lo"]

    in_thread(alone)
    assert ns.names() == ["blue"]


def test_sockets_in_run_keep_answering() -> None:
    path = "/run/answering.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def connect() -> None:
            ns.isolate()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

        try:
            in_thread(connect)
        finally:
            os.unlink(path)


def test_links_and_directories_in_run_stay_what_they_were() -> None:
    os.makedirs("/run/some/where")
    os.symlink("some/where", "/run/short")

    def look() -> None:
        ns.isolate()
        assert os.readlink("/run/short") == "some/where"
        assert os.path.isdir("/run/short")

    try:
        in_thread(look)
    finally:
        os.unlink("/run/short")
        os.removedirs("/run/some/where")


def test_what_vanishes_from_run_meanwhile_is_left_out() -> None:
    isolation._take_over("/run/no such entry", "/run/copied")
    assert not os.path.exists("/run/copied")


def test_a_var_run_that_is_no_link_shows_the_new_run() -> None:
    def look() -> None:
        ns.isolate()
        mount(b"tmpfs", b"/var", b"tmpfs", 0, None)
        os.mkdir("/var/run")
        ns.isolate()
        assert os.path.samefile("/var/run/netns", "/run/netns")

    in_thread(look)


def test_a_sys_that_is_partly_hidden_is_left_alone() -> None:
    code = """
import os
from vethlib import ns
from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount2, unshare
ns.isolate()
mount(b"tmpfs", b"/sys/kernel", b"tmpfs", 0, None)
mount(b"tmpfs", b"/sys/class", b"tmpfs", 0, None)
os.execvp("setpriv", ["setpriv", "--bounding-set=-sys_admin", os.sys.executable, "-c",
    "import os; from vethlib import ns; ns.isolate(); print(os.listdir('/sys/class'), ns.names())"])
"""
    assert python(code) == "[] []\n"


def test_a_process_with_threads_is_told_to_do_it_first() -> None:
    def try_it() -> None:
        with dropped(), raises(NotSupported, errno=errno.EINVAL):
            ns.isolate()

    in_thread(try_it)


def test_a_host_without_user_namespaces_names_the_sysctl() -> None:
    code = """
from vethlib import ns
from vethlib.errors import NotPermitted
try:
    ns.isolate()
except NotPermitted as error:
    print(error)
"""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"'
    said = python(code, "unshare", "--user", "--map-root-user", "sh", "-c", forbid, *ORDINARY)
    assert "this host forbids them; the sysctl user.max_user_namespaces=10000 allows them" in said
    assert "CAP_SYS_ADMIN" in said


def test_a_refusal_for_unknown_reasons_names_all_the_sysctls() -> None:
    error = isolation._failed(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
    assert isinstance(error, NotPermitted)
    for sysctl in ("unprivileged_userns_clone=1", "max_user_namespaces=", "apparmor_restrict_unprivileged_userns=0"):
        assert sysctl in str(error)


def test_any_other_refusal_carries_its_errno(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "unshare", failing(errno.ENOMEM))
    with pytest.raises(NetlinkError, match="ENOMEM") as caught:
        ns.isolate()
    assert caught.value.errno == errno.ENOMEM


def test_a_user_namespace_without_rights_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AppArmor makes them: unshare succeeds, and then nothing is allowed inside."""
    monkeypatch.setattr(isolation, "unshare", lambda flags: None)
    monkeypatch.setattr(isolation, "mount", failing(errno.EACCES))
    with pytest.raises(NotPermitted, match="apparmor_restrict_unprivileged_userns"):
        ns.isolate()


def place() -> dict[str, object]:
    """Where the calling thread is."""
    kinds = {kind: os.stat(f"/proc/thread-self/ns/{kind}").st_ino for kind in ("net", "mnt", "user")}
    return {**kinds, "root": os.stat("/").st_ino, "directory": os.getcwd(), "names": ns.names()}


@pytest.mark.parametrize("isolate", [ns.isolate, ns.isolate_names])
@pytest.mark.parametrize("allowed", [0, 1])
def test_whoever_may_not_mount_stays_where_it_was(
    monkeypatch: pytest.MonkeyPatch, isolate: Callable[[], None], allowed: int
) -> None:
    """Behave as AppArmor does in containers that have the capabilities."""
    calls = iter(range(100))
    monkeypatch.setattr(
        isolation, "mount", lambda *args: mount(*args) if next(calls) < allowed else failing(errno.EACCES)()
    )

    def try_it() -> None:
        before = place()
        with pytest.raises(NotPermitted):
            isolate()
        assert place() == before

    in_thread(try_it)


@pytest.mark.parametrize("isolate", [ns.isolate, ns.isolate_names])
def test_an_interruption_leaves_the_process_where_it_was(
    monkeypatch: pytest.MonkeyPatch, isolate: Callable[[], None]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isolation, "_mount_run", interrupted)

    def try_it() -> None:
        before = place()
        with pytest.raises(KeyboardInterrupt):
            isolate()
        assert place() == before

    in_thread(try_it)


@pytest.mark.parametrize("where", ["/mnt", "/run/media/disk"])
@pytest.mark.parametrize(
    ("isolate", "prefix"),
    [("isolate", []), ("isolate", ORDINARY), ("isolate_names", [])],
    ids=["privileged", "ordinary user", "names"],
)
def test_what_is_unmounted_outside_is_not_kept_inside(where: str, isolate: str, prefix: list[str]) -> None:
    code = f"from vethlib import ns; ns.{isolate}(); print('isolated', flush=True); input()"

    def outside() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        mount(b"none", b"/run", b"tmpfs", 0, None)
        os.makedirs(where, exist_ok=True)
        mount(b"none", where.encode(), b"tmpfs", 0, None)
        mount(b"none", b"/", None, MS_REC | MS_SHARED, None)
        child = subprocess.Popen(
            [*prefix, sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == "isolated\n"
            assert where in mounted(child.pid)
            umount2(where.encode(), 0)
            assert where not in mounted(child.pid)

    in_thread(outside)


def mounted(pid: int) -> list[str]:
    return [line.split()[1] for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]


def test_names_can_be_private_without_a_network_of_ones_own() -> None:
    def try_it() -> None:
        before = place()
        ns.isolate_names()
        assert ns.names() == []
        ns.Netns.create("green").close()
        after = place()
        assert after["net"] == before["net"]
        assert after["mnt"] != before["mnt"]

    in_thread(try_it)
    assert "green" not in ns.names()


@pytest.mark.parametrize("children", ["SIG_DFL", "SIG_IGN"])
def test_an_ordinary_user_who_may_do_nothing_in_a_user_namespace_stays_where_it_was(children: str) -> None:
    """As AppArmor makes them: unshare succeeds, and then nothing is allowed inside, and there is no way back."""
    code = (
        f"import signal; signal.signal(signal.SIGCHLD, signal.{children})"
        + """
import errno, os
from vethlib import ns
from vethlib.errors import NotPermitted
from vethlib.ns import isolation
def refuse(*args):
    raise PermissionError(errno.EACCES, "")
isolation.mount = refuse
def place():
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "user")] + [os.getuid()]
before = place()
try:
    ns.isolate()
except NotPermitted as error:
    print("apparmor" in str(error), place() == before, signal.getsignal(signal.SIGCHLD).name)
"""
    )
    assert python(code, *ORDINARY) == f"True True {children}\n"


def test_an_ordinary_user_who_ignores_its_children_is_isolated() -> None:
    code = """
import os, signal
from vethlib import ns
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ns.isolate()
print(os.listdir("/sys/class/net"))
"""
    assert python(code, *ORDINARY) == "['lo']\n"


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] if path == "/proc/self/task" else listdir(path))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("status", "number"), [(0, 0), (errno.EACCES << 8, errno.EACCES), (signal.SIGKILL, errno.EIO), (None, 0)]
)
def test_what_a_child_may_not_do_is_not_tried(monkeypatch: pytest.MonkeyPatch, status: int | None, number: int) -> None:
    def waited(*_: int) -> tuple[int, int]:
        if status is None:
            raise ChildProcessError(errno.ECHILD, "")
        return 1, status

    monkeypatch.setattr(isolation, "posix", SimpleNamespace(fork=lambda: 1, waitpid=waited))
    with nullcontext() if not number else pytest.raises(OSError) as caught:
        isolation._try_in_a_child(0, 0)
    assert caught is None or caught.value.errno == number


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("refused", "number"), [("", 0), ("unshare", errno.ENOSPC), ("mount", errno.EACCES)])
def test_a_child_that_tries_it_ends_with_the_errno(monkeypatch: pytest.MonkeyPatch, refused: str, number: int) -> None:
    def end(status: int) -> None:
        raise SystemExit(status)

    for name in ("unshare", "mount", "_map_own_ids"):
        monkeypatch.setattr(isolation, name, failing(number) if name == refused else lambda *_: None)
    monkeypatch.setattr(isolation, "posix", SimpleNamespace(fork=lambda: 0))
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        isolation._try_in_a_child(0, 0)
    assert ended.value.code == number


def test_ids_are_mapped_and_setgroups_is_given_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as if newuidmap had worked, but newgidmap had not."""
    written: list[tuple[str, str]] = []

    class Map:
        def __init__(self, path: str, mode: str, encoding: str) -> None:
            assert mode == "r+"
            self.name = os.path.basename(path)

        def __enter__(self) -> Map:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> str:
            return "0 1000 1" if self.name == "uid_map" else ""

        def write(self, line: str) -> None:
            written.append((self.name, line))

    monkeypatch.setattr(isolation, "open", Map, raising=False)
    isolation._map_own_ids(1000, 100)
    assert written == [("setgroups", "deny"), ("gid_map", "0 100 1")]
