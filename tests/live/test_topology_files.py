"""The files that the programs of a node see."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.mounts import unmount_all
from tests.refusing import raises
from tests.witness import ip
from vethlib import InvalidValue, NetlinkError, NotPermitted, VethError, ns
from vethlib.ns.syscalls import MNT_DETACH, MS_BIND, mount, umount2
from vethlib.topology import Node, Topology
from vethlib.topology.programs import mounts, supervision


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


@pytest.fixture
def unlinked(tmp_path: Path) -> Iterator[Path]:
    """A file that was mounted, as into a container, and has been replaced since."""
    mounted, source = tmp_path / "mounted", tmp_path / "source"
    mounted.write_text("beneath\n")
    source.write_text("mounted\n")
    mount(os.fsencode(source), os.fsencode(mounted), None, MS_BIND, None)
    (tmp_path / "later").write_text("later\n")
    os.rename(tmp_path / "later", source)
    assert mounted.stat().st_nlink == 0
    yield mounted
    unmount_all(mounted)


def test_a_mounted_file_that_was_unlinked_since_can_be_replaced_for_one_node(net: Topology, unlinked: Path) -> None:
    for text in "first\n", "second\n":
        net["a"].set_file(unlinked, text)
        assert output(net["a"], "cat", str(unlinked)) == text
        assert unlinked.read_text() == "mounted\n"
    assert output(net["b"], "cat", str(unlinked)) == "mounted\n"
    net.close()
    assert unlinked.read_text() == "mounted\n"


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o644, 0o640, 0o600, 0o444, 0o4755])
@pytest.mark.parametrize("owner", [(0, 0), (1, 2)])
@pytest.mark.parametrize("started", [False, True], ids=["before the first program", "afterwards"])
def test_a_replaced_file_has_the_mode_and_the_owner_of_the_file(
    net: Topology, tmp_path: Path, mode: int, owner: tuple[int, int], started: bool
) -> None:
    file = tmp_path / "file"
    file.write_text("before\n")
    with suppress(OSError):  # in a user namespace without that id
        os.chown(file, *owner)
    file.chmod(mode)
    before = output(net["b"], "stat", "-c", "%a %u:%g", str(file))
    if started:
        net["a"].run(["true"])
    for text in "first\n", "second\n":
        net["a"].set_file(file, text)
        assert output(net["a"], "stat", "-c", "%a %u:%g", str(file)) == before
        assert output(net["a"], "cat", str(file)) == text


def test_a_program_can_be_replaced_by_a_script(node: Node, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    program.chmod(0o755)
    node.set_file(program, "#!/bin/sh\necho replaced\n")
    assert output(node, str(program)) == "replaced\n"


def test_a_new_file_of_run_and_its_directories_can_be_read_by_everybody_whatever_the_umask_is(shared: Path) -> None:
    directories = ["/run/of-the-node", "/run/of-the-node/deeper", f"{shared}/new", "/run/netns"]
    former = os.umask(0o077)
    try:
        with Topology.build("node a") as net:
            for path in "/run/of-the-node/deeper/file", f"{shared}/new/file":
                net["a"].set_file(path, "text\n")
                assert output(net["a"], "stat", "-c", "%a", path) == "644\n"
            assert output(net["a"], "stat", "-c", "%a", *directories).split() == ["755"] * len(directories)
    finally:
        os.umask(former)


def test_a_topology_within_a_node_leaves_the_files_of_that_node_as_they_are() -> None:
    script = """
from vethlib.topology import Topology
with Topology.build("inner -- peer", hosts=True) as net:
    print(net["inner"].run(["cat", "/etc/hosts"]).stdout)
"""
    with Topology.build("outer -- other", hosts=True) as net:
        before = output(net["outer"], "cat", "/etc/hosts", "/etc/resolv.conf")
        assert "inner" in net["outer"].run([sys.executable, "-c", script]).stdout
        assert output(net["outer"], "cat", "/etc/hosts", "/etc/resolv.conf") == before


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of /run with content, which nodes share."""
    directory = Path("/run/of-the-host")
    (directory / "deeper").mkdir(parents=True)
    (directory / "deeper").chmod(0o750)
    (directory / "socket").write_text("of the host\n")
    (directory / "deeper/socket").write_text("of the host, too\n")
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("file", ["file", "new/file", "new/and/newer/file", "deeper/file", "deeper/new/file"])
@pytest.mark.parametrize("started", [False, True], ids=["before the first program", "afterwards"])
def test_a_new_file_in_a_shared_directory_of_run_is_seen_by_one_node_only(
    net: Topology, shared: Path, file: str, started: bool
) -> None:
    before = sorted(shared.rglob("*"))
    if started:
        net["a"].run(["true"])
    for text in "first\n", "second\n":
        net["a"].set_file(shared / file, text)
        assert output(net["a"], "cat", f"{shared}/{file}") == text
    net["a"].set_file(f"{shared}/{file}.2", "another\n")
    assert output(net["a"], "cat", f"{shared}/{file}.2", f"{shared}/socket") == "another\nof the host\n"
    assert output(net["a"], "cat", f"{shared}/deeper/socket") == "of the host, too\n"
    assert output(net["a"], "stat", "-c", "%a", f"{shared}/deeper") == "750\n"
    assert sorted(shared.rglob("*")) == before
    assert output(net["b"], "find", str(shared)).count("\n") == len(before) + 1
    net.close()
    assert sorted(shared.rglob("*")) == before


@pytest.mark.parametrize("path", ["deeper", "socket/file"])
def test_what_cannot_be_a_file_in_run_is_refused_at_once(node: Node, shared: Path, path: str) -> None:
    with raises(NetlinkError):
        node.set_file(shared / path, "text\n")
    assert output(node, "cat", f"{shared}/socket") == "of the host\n"


def test_programs_know_the_nodes_by_name_where_that_is_asked_for() -> None:
    with Topology.build("client -- r1 -- server; node lonely", routes=True, hosts=True) as net:
        found = output(net["client"], "getent", "ahosts", "server")
        assert {line.split()[0] for line in found.splitlines()} == {net["server"].ipv4, net["server"].ipv6}
        # r1 has two addresses of each family: the one on the same wire comes first.
        for viewer, first in (("client", "10.0.0.2"), ("server", "10.0.1.1")):
            lines = [line.split() for line in output(net[viewer], "cat", "/etc/hosts").splitlines()]
            assert next(address for address, *names in lines if "r1" in names) == first
        assert "nameserver" not in output(net["lonely"], "cat", "/etc/resolv.conf")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A -- b; b -- a", "a"),
        ("router r1; r1 -- b; node R1", "R1"),
        ("b. -- a -- b", "b"),
        ("a -- localhost", "localhost"),
        ("a -- LocalHost.", "LocalHost."),
        ("a -- db.localhost", "db.localhost"),
        ("a -- ip6-loopback", "ip6-loopback"),
        ("a -- 7", "7"),
        ("a -- 0x7F", "0x7F"),
        ("a -- 10.1", "10.1"),
        ("a -- 10.0.0.1.", "10.0.0.1."),
    ],
)
def test_names_that_lead_programs_elsewhere_are_refused_before_anything_is_created(text: str, name: str) -> None:
    def prepare(_: object) -> None:
        raise AssertionError("the nodes exist already")

    with raises(InvalidValue, field="topology", value=name):
        Topology.build(text, hosts=True, prepare=prepare)
    with Topology.build(text) as net:  # as names of nodes, they are right
        assert name in net


def test_names_that_begin_with_digits_are_found() -> None:
    text = "7a -- 10.x -- 1.2.3.4.5 -- localhost2 -- a_b -- c."
    with Topology.build(text, ipv6=False, routes=True, hosts=True) as net:
        for name, node in net.items():
            found = output(net["c."], "getent", "ahostsv4", name).split()[0]
            links = ip("-4", "addr", netns=node.netns)
            assert found in {address["local"] for link in links for address in link["addr_info"]}


def test_switches_are_no_hosts_so_they_may_have_any_name() -> None:
    with Topology.build("switch S 7; s -- S -- 7 -- localhost1", hosts=True, ipv6=False) as net:
        assert output(net["localhost1"], "getent", "ahostsv4", "s").split()[0] == net["s"].ipv4


@pytest.fixture
def etc(tmp_path: Path) -> Iterator[Path]:
    """A /etc without resolv.conf."""
    for name in "hosts", "nsswitch.conf", "host.conf", "passwd", "group", "ld.so.cache":
        if os.path.exists(f"/etc/{name}"):
            shutil.copy(f"/etc/{name}", tmp_path)
    mount(os.fsencode(tmp_path), b"/etc", None, MS_BIND, None)
    yield Path("/etc")
    umount2(b"/etc", MNT_DETACH)


@pytest.mark.parametrize("target", ["", "/etc/no-such-directory/resolv.conf", "/no-such-directory/resolv.conf"])
def test_programs_know_the_nodes_by_name_also_where_there_is_no_resolv_conf(etc: Path, target: str) -> None:
    if target:
        (etc / "resolv.conf").symlink_to(target)
    with Topology.build("a -- b", hosts=True) as net:
        assert output(net["a"], "getent", "hosts", "b").split() == [net["b"].ipv6, "b"]
    with Topology.build("a -- b", hosts=True, resolv_conf="nameserver 10.0.0.2\n") as net, pytest.raises(NotPermitted):
        net["a"].run(["true"])


def test_a_resolv_conf_that_is_missing_in_run_belongs_to_the_node(etc: Path) -> None:
    (etc / "resolv.conf").symlink_to("../run/of-a-resolver/stub.conf")
    with Topology.build("a -- b", hosts=True) as net:
        assert "nameserver" not in output(net["a"], "cat", "/etc/resolv.conf")


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


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "call",
    [
        "ns.programs.view.unshare",
        "topology.programs.mounts.mount",
        "ns.isolation.mount",
        "topology.programs.mounts.opened",
    ],
    ids=["namespace", "run", "sys", "descriptor"],
)
def test_if_there_is_no_room_for_the_files_of_a_node_the_program_is_refused_and_the_next_one_sees_them(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    node.set_file("/etc/hosts", "192.0.2.1 own\n")
    with monkeypatch.context() as patched:
        patched.setattr(f"vethlib.{call}", no_room)
        for _ in range(2):
            with raises(NetlinkError, errno=number):
                node.run(["true"])
    assert output(node, "cat", "/sys/class/net/eth0/mtu", "/etc/hosts") == "1400\n192.0.2.1 own\n"


def test_a_part_of_run_for_which_there_is_no_room_is_not_missing_silently(
    node: Node, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("vethlib.topology.programs.mounts.os.mknod", no_room)
        patched.setattr("vethlib.topology.programs.mounts.os.mkdir", no_room)
        with raises(NetlinkError, errno=errno.ENOSPC):
            node.run(["true"])
    assert output(node, "cat", f"{shared}/socket") == "of the host\n"


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


def test_the_text_of_a_file_cannot_use_a_program_that_is_to_see_it(node: Node) -> None:
    for text in (lambda: node.run(["true"]).stdout, lambda: str(node.start(["true"]))):
        node.set_file("/etc/hosts", text)
        with pytest.raises(VethError):
            node.run(["true"])
    node.set_file("/etc/hosts", "192.0.2.1 text\n")
    assert output(node, "cat", "/etc/hosts") == "192.0.2.1 text\n"


@pytest.mark.parametrize("text", [b"hello", None, 1, "\ud800"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_text_of_a_file_has_to_be_text(node: Node, text: Any, is_first: bool) -> None:
    if not is_first:
        node.run(["true"])
    with raises(InvalidValue, field="text", value=text):
        node.set_file("/run/hello", lambda: text)
        node.run(["true"])
    node.set_file("/run/hello", "hello")
    assert output(node, "cat", "/run/hello") == "hello"


def test_the_text_of_a_file_can_use_programs_that_see_the_former_file(node: Node) -> None:
    node.set_file("/etc/hosts", "192.0.2.1 former\n")
    node.run(["true"])
    node.set_file("/etc/hosts", lambda: output(node, "cat", "/etc/hosts") + "192.0.2.2 text\n")
    assert output(node, "cat", "/etc/hosts") == "192.0.2.1 former\n192.0.2.2 text\n"


def test_the_text_of_a_file_can_replace_another_file(node: Node) -> None:
    def text() -> str:
        node.set_file("/etc/resolv.conf", "nameserver 192.0.2.1\n")
        return "192.0.2.1 text\n"

    node.set_file("/etc/hosts", text)
    assert output(node, "cat", "/etc/hosts", "/etc/resolv.conf") == "192.0.2.1 text\nnameserver 192.0.2.1\n"


HANDLERS: dict[str, Callable[[Node], object]] = {
    "run": lambda node: output(node, "readlink", "/proc/self/ns/mnt"),
    "set_file": lambda node: node.set_file("/etc/resolv.conf", "nameserver 192.0.2.1\n"),
}


@pytest.mark.parametrize("handler", ["run", "set_file"])
@pytest.mark.parametrize(
    ("place", "during"),
    [(mounts, "make"), (mounts.View, "put"), (supervision, "_report")],
    ids=["make", "put", "watch"],
)
def test_a_signal_handler_can_use_a_node_whose_first_program_is_being_started(
    node: Node, monkeypatch: pytest.MonkeyPatch, place: Any, during: str, handler: str
) -> None:
    handled = threading.Event()
    results: list[object] = []

    def handle(*_: object) -> None:
        results.append(HANDLERS[handler](node))
        handled.set()

    usual = getattr(place, during)

    def signalled(*arguments: Any) -> Any:
        monkeypatch.setattr(place, during, usual)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert handled.wait(60)
        return usual(*arguments)

    monkeypatch.setattr(place, during, signalled)
    node.set_file("/etc/hosts", "192.0.2.1 text\n")
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        mount_namespace = output(node, "readlink", "/proc/self/ns/mnt")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled.is_set()
    assert output(node, "cat", "/etc/hosts") == "192.0.2.1 text\n"
    if handler == "run":
        assert results == [mount_namespace]
    else:
        assert output(node, "cat", "/etc/resolv.conf") == "nameserver 192.0.2.1\n"
