"""If /proc shows only processes (mount option subset=pid), or is not mounted, nothing is taken for absent."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import interface, value
from tests.live.configuring import by_file, by_pid, configured, pair, placed, settle, until
from tests.live.threads import in_thread
from tests.mounts import READ_ONLY
from tests.programs import attended
from tests.refusing import raises
from tests.stores import nothing, snapshot, write
from tests.witness import names, poll
from vethlib import End, LinkExists, NetlinkError, Netns, Session, Veth
from vethlib.agent import Namespace, NamespaceType
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.ns.syscalls import CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC, mount, umount2, unshare
from vethlib.session.core.ipv6 import lacks_ipv6

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.needs_kernel("5.8"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount another procfs"),
]


def with_proc(function: Callable[[], None], *, options: bytes = b"", covered: str = "") -> None:
    """Run in a thread that has another /proc, in which nothing is in the directory `covered`."""

    def run() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        mount(b"proc", b"/proc", b"proc", 0, options)
        if covered:
            mount(b"tmpfs", covered.encode(), b"tmpfs", 0, None)
        function()

    in_thread(run)


def test_ipv6_that_cannot_be_disabled_there_is_an_error_with_the_reason(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", blue)))

    def change() -> None:
        assert not lacks_ipv6()
        for attempt in (
            lambda: session.set("a", ipv6=False),
            lambda: session.set("b", blue, ipv6=False),
            lambda: session.create(Veth(End("c", ipv6=False), End("d"))),
        ):
            with raises(NetlinkError, errno=errno.ENOENT) as caught:
                attempt()
            assert "subset=pid" in str(caught.value)

    with_proc(change, options=b"subset=pid")
    assert names() == {"a"}


@pytest.mark.parametrize("asked", [{"mtu": 1000}, {"up": False, "mtu": 68}], ids=str)
def test_a_refused_change_that_has_cost_nothing_has_no_note_there(
    session: Session, blue: str, asked: dict[str, Any]
) -> None:
    session.create(Veth(End("a", blue), End("taken", blue)))

    def change() -> None:
        with pytest.raises(LinkExists) as caught:
            session.set("a", blue, **asked, new_name="taken")
        assert getattr(caught.value, "__notes__", []) == []

    with_proc(change, options=b"subset=pid")


def test_a_kernel_without_ipv6_is_told_from_one_whose_settings_are_not_visible() -> None:
    def look() -> None:  # as /proc is with CONFIG_IPV6=n
        os.mkdir("/proc/sys/net/ipv4")
        assert lacks_ipv6()

    assert not lacks_ipv6()
    with_proc(look, covered="/proc/sys/net")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("policy", ["off", "auto"])
@pytest.mark.parametrize(("kernel", "warns"), [("without IPv6", False), ("with IPv6, read-only", True)])
def test_an_agent_warns_only_if_ipv6_may_be_on(tmp_path: Path, policy: str, kernel: str, warns: bool) -> None:
    cover = "mount -t tmpfs none /proc/sys/net && mkdir /proc/sys/net/ipv4"
    if warns:
        cover = READ_ONLY
    (tmp_path / "store").mkdir()
    agent = ["agent", "--once", "--label", "reduced", "--store", f"dir:{tmp_path}/store", "--ipv6", policy]
    command = ["unshare", "-m", "sh", "-c", f'{cover} && exec "$@"', "sh", sys.executable, "-m", "vethlib", *agent]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("is ignored" in done.stderr) == warns


def _without_proc(*command: str) -> subprocess.CompletedProcess[str]:
    cover = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    return subprocess.run([*cover, sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        *("show", "create a1 a2", "netns list", "status", "stats", "graph", "demo"),
        *("apply FILES", "diff FILES", "validate FILES", "list --store dir:FILES", "agent --once --store dir:FILES"),
    ],
)
def test_without_proc_every_command_names_the_cause(home: Netns, tmp_path: Path, command: str) -> None:
    (tmp_path / "veth1.json").write_text(json.dumps(value("veth1", "veth2")))
    done = _without_proc("-m", "vethlib", *command.replace("FILES", str(tmp_path)).split(), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)
    assert (error["code"], error["hint"]) == ("not-mounted", "mount -t proc proc /proc")


@pytest.mark.parametrize("command", ["--version", "show --help", "completion bash", "complete show"])
def test_without_proc_texts_are_printed(home: Netns, command: str) -> None:
    assert _without_proc("-m", "vethlib", *command.split()).returncode == 0


def test_without_proc_doctor_finds_that(home: Netns) -> None:
    done = _without_proc("-m", "vethlib", "doctor", "--json")
    assert {each["check"]: each["code"] for each in json.loads(done.stdout) if not each["ok"]} == {
        "/proc": "not-mounted"
    }


@pytest.mark.parametrize("call", ["Session()", "ns.current()"])
def test_without_proc_errors_name_it(home: Netns, call: str) -> None:
    program = f"""if True:
        from vethlib import Session, VethError, ns
        try:
            {call}
        except (VethError, OSError) as error:
            print(error.errno, "/proc" in str(error))
    """
    done = _without_proc("-c", program)
    assert (done.stdout.split(), done.stderr) == ([str(errno.ENOENT), "True"], "")


@contextmanager
def covered_proc() -> Iterator[None]:
    """A block in which /proc is not mounted, in a thread that has mounts of its own."""
    mount(b"tmpfs", b"/proc", b"tmpfs", 0, None)
    try:
        yield
    finally:
        umount2(b"/proc", MNT_DETACH)


@pytest.mark.parametrize("kind", ["named", "process", "file of a process", "bound file"])
def test_pairs_stay_while_proc_is_away(home: Netns, blue: str, tmp_path: Path, kind: str) -> None:
    bound = tmp_path / "bound"
    bound.touch()
    sleeping = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    assert poll(lambda: os.stat(f"/proc/{sleeping.pid}/ns/net").st_ino != home.identity[1])
    at = {
        "named": Namespace(NamespaceType.NAMED_NS, name=blue),
        "process": by_pid(sleeping.pid),
        "file of a process": by_file(f"/proc/{sleeping.pid}/ns/net"),
        "bound file": by_file(bound),
    }[kind]

    def work() -> None:
        mount(f"/run/netns/{blue}".encode(), bytes(bound), b"none", MS_BIND, None)
        with Session() as session, Configurator(session) as configurator:
            configurator.resync([interface("a", "b"), placed("b", "a", at)])
            settle(configurator)
            assert configured(configurator, "a", "b")()
            before = socket.if_nametoindex("a")
            with covered_proc():
                configurator.resync()
                configurator.put(interface("a", "b", mtu=1400))
                for _ in range(10):
                    configurator.poll(0.05)
                assert socket.if_nametoindex("a") == before
            configurator.resync()
            until(configurator, configured(configurator, "a", "b"))
            assert socket.if_nametoindex("a") == before

    with attended(sleeping):
        with_proc(work)
        sleeping.kill()


def test_a_pair_that_is_deleted_meanwhile_comes_back_with_proc(home: Netns, blue: str) -> None:
    def work() -> None:
        with Session() as session, Configurator(session) as configurator:
            configurator.resync(pair("a", "b", "", blue))
            settle(configurator)
            session.delete("a")
            with covered_proc():
                for _ in range(5):
                    configurator.poll(0.05)
            until(configurator, configured(configurator, "a", "b"))
            assert "a" in names()

    with_proc(work)


def test_files_of_a_store_keep_their_values_while_proc_is_away(tmp_path: Path) -> None:
    write(tmp_path / "two.json", value("a", "b"), value("b", "a"))

    def work() -> None:
        store = DirectoryStore(tmp_path)
        try:
            assert snapshot(store).keys() == {"a", "b"}
            with covered_proc():
                store.reread()
                assert snapshot(store).keys() == {"a", "b"}
                nothing(store)
            store.reread()
            assert all(parsed.interface for parsed in snapshot(store).values())
        finally:
            store.close()

    with_proc(work)
