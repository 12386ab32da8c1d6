"""The private world of a process, seen from inside and from outside."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.capabilities import dropped
from vethlib import ns
from vethlib.errors import NetlinkError, NotPermitted, NotSupported
from vethlib.ns import isolation
from vethlib.ns.syscalls import mount

# Everything but CAP_SYS_ADMIN: for isolate() that is an ordinary user. Had it nothing at all, root's own number could
# not be mapped (CAP_SETFCAP, kernel/user_namespace.c: verify_root_map), as that of other users can.
ORDINARY = ["setpriv", "--bounding-set=-sys_admin"]


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def _blue() -> Iterator[None]:
    ip("netns", "add", "blue")
    yield
    ip("netns", "del", "blue")


def python(code: str, *prefix: str) -> str:
    """What the code prints, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [*prefix, sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_thread(function: Callable[[], object]) -> None:
    """Run in a thread of its own, and raise here what is raised there. Namespaces end with the thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


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
from vethlib.ns.syscalls import mount
ns.isolate()
mount(b"tmpfs", b"/sys/kernel", b"tmpfs", 0, None)
mount(b"tmpfs", b"/sys/class", b"tmpfs", 0, None)
os.execvp("setpriv", ["setpriv", "--bounding-set=-sys_admin", os.sys.executable, "-c",
    "import os; from vethlib import ns; ns.isolate(); print(os.listdir('/sys/class'), ns.names())"])
"""
    assert python(code) == "[] []\n"


def test_a_process_with_threads_is_told_to_do_it_first() -> None:
    def try_it() -> None:
        with dropped(), pytest.raises(NotSupported, match="one thread") as caught:
            ns.isolate()
        assert caught.value.errno == errno.EINVAL

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
    assert "this host forbids them, sysctl user.max_user_namespaces=10000 allows them" in said
    assert "CAP_SYS_ADMIN" in said


def test_a_refusal_for_unknown_reasons_names_all_the_sysctls() -> None:
    error = isolation._failed(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
    assert isinstance(error, NotPermitted)
    for sysctl in ("unprivileged_userns_clone=1", "max_user_namespaces=", "apparmor_restrict_unprivileged_userns=0"):
        assert sysctl in str(error)


def refuse(number: int) -> Callable[..., None]:
    def refused(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def test_any_other_refusal_carries_its_errno(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "unshare", refuse(errno.ENOMEM))
    with pytest.raises(NetlinkError, match="ENOMEM") as caught:
        ns.isolate()
    assert caught.value.errno == errno.ENOMEM


def test_a_user_namespace_without_rights_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AppArmor makes them: unshare succeeds, and then nothing is allowed inside."""
    monkeypatch.setattr(isolation, "unshare", lambda flags: None)
    monkeypatch.setattr(isolation, "mount", refuse(errno.EACCES))
    with pytest.raises(NotPermitted, match="apparmor_restrict_unprivileged_userns"):
        ns.isolate()
