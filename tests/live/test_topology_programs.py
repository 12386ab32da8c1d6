"""The programs of a node: the files they see, and that they end with whoever started them, however that ends."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.programs import attended
from vethlib import End, InvalidValue, LinkNotFound, NotPermitted, Session, Veth, ns
from vethlib.ns.syscalls import unshare
from vethlib.topology import Node, Topology
from vethlib.topology.programs import supervision, supervisor
from vethlib.topology.programs.supervisor import Supervised

DEADLINE = 60.0  # seconds; two of them are the time that programs have to end by themselves


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b", mtu=1400) as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


def output(node: Node, *command: str) -> str:
    return node.run(command).stdout


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_ended(*pids: int) -> None:
    assert pids, "nothing was started"
    deadline = time.monotonic() + DEADLINE
    while running := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.01)


def see_end(*pids: int) -> None:
    """Wait until these have ended, and leave none of them behind if they do not."""
    try:
        wait_until_ended(*pids)
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


def all_end_with(script: str) -> None:
    """Run a script that prints the pids of what it has started, and is killed; see that they end with it."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    see_end(*map(int, done.stdout.split()))


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


IGNORED = """
import signal
for number in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD:
    signal.signal(number, signal.SIG_IGN)
"""


@pytest.mark.parametrize(
    ("options", "ignores"),
    [
        ("", False),
        (", preexec_fn=lambda: print('first', flush=True)", False),
        (", restore_signals=False", True),
    ],
    ids=["usual", "with a preexec_fn", "as it is"],
)
def test_a_program_does_not_ignore_what_this_process_has_inherited(options: str, ignores: bool) -> None:
    script = f"{IGNORED}{PROLOGUE}a.start(['grep', 'SigIgn', '/proc/self/status']{options}).wait()\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    *first, said = done.stdout.splitlines()
    assert first == (["first"] if "preexec_fn" in options else [])
    mask = int(said.split()[1], 16)
    assert {number for number in (1, 2, 3, 10, 15, 17) if mask & 1 << number - 1} == (
        {1, 2, 3, 10, 15, 17} if ignores else set()
    )


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


@pytest.mark.parametrize("wrong", [{"input": "x", "stdin": subprocess.PIPE}, {"stdout": subprocess.PIPE}])
def test_run_refuses_what_subprocess_refuses(node: Node, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        node.run(["true"], **wrong)


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


# Each prints the ids of the processes that have to end with it, and then the end of the line that a test waits for.
PROLOGUE = """
import os, signal, subprocess, sys, time
from vethlib.topology import Topology
net = Topology.build("a -- b")
a, b = net["a"], net["b"]
def tell(*pids):
    print(*pids, flush=True)
"""
STARTS = {
    "a program": "tell(a.start(['sleep', '60']).pid)",
    "one that ignores SIGTERM": """
shell = a.start(['sh', '-c', 'trap "" TERM; echo; while :; do sleep 0.1; done'], stdout=subprocess.PIPE)
shell.stdout.readline()
tell(shell.pid)""",
    "what a program has started": """
shell = a.start(['sh', '-c', 'sleep 60 & echo $!; wait'], stdout=subprocess.PIPE)
tell(shell.pid, int(shell.stdout.readline()))""",
    "a daemon in the background": """
shell = a.start(['sh', '-c', 'setsid sleep 60 & echo $!'], stdout=subprocess.PIPE)
tell(int(shell.stdout.readline()))
shell.wait()""",
    "one that has left the node": """
a.run(['ip', 'netns', 'add', 'inner'])
shell = a.start(['sh', '-c', 'ip netns exec inner sleep 60 & echo $!; wait'], stdout=subprocess.PIPE)
tell(int(shell.stdout.readline()))""",
    "one that run is waiting for": """
import threading
def run(): a.run(['sh', '-c', 'echo $$ >&7; exec sleep 60'], pass_fds=[7])
reading, writing = os.pipe()
os.dup2(writing, 7)
threading.Thread(target=run, daemon=True).start()
tell(int(os.read(reading, 32)))""",
    "one of a forked child that os._exit ends": """
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b'%d' % a.start(['sleep', '60']).pid)
    os._exit(0)
tell(int(os.read(reading, 32)))""",
    "one though a forked child lives on": """
pid = a.start(['sleep', '60']).pid
if (child := os.fork()) == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, file=sys.stderr, flush=True)
tell(pid)""",
}


@pytest.mark.parametrize("start", STARTS)
def test_what_was_started_ends_with_a_process_that_is_killed(start: str) -> None:
    script = f"{PROLOGUE}{STARTS[start]}\ntime.sleep(60)\n"
    command = [sys.executable, "-c", script]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert pids
        process.kill()
        process.wait()
        try:
            see_end(*pids)
        finally:
            if "lives on" in start:
                os.kill(int(process.stderr.readline()), signal.SIGKILL)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL", "SIGSEGV", "os._exit(1)", "os.abort()"])
def test_what_was_started_ends_however_the_process_ends(end: str) -> None:
    # As a shell starts a program, whatever signals whoever runs the tests ignores (nohup: SIGHUP).
    usual = "for ignored in signal.SIGHUP, signal.SIGTERM: signal.signal(ignored, signal.SIG_DFL)\n"
    usual += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    last = usual + (end if end.startswith("os.") else f"os.kill(os.getpid(), signal.{end})")
    script = f"{PROLOGUE}tell(a.start(['sleep', '60']).pid, b.start(['sleep', '60']).pid)\n{last}\ntime.sleep(60)\n"
    command = ["sh", "-c", 'ulimit -c 0; exec "$@"', "sh", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    wait_until_ended(*map(int, done.stdout.split()))


def test_what_was_started_ends_with_the_whole_process_group_of_its_maker() -> None:
    script = f"{PROLOGUE}tell(a.start(['sleep', '60']).pid)\ntime.sleep(60)\n"
    command = [sys.executable, "-c", script]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGKILL)
    wait_until_ended(pid)


def test_what_a_parent_has_started_does_not_end_with_its_forked_child() -> None:
    script = f"""{PROLOGUE}
mine = a.start(['sleep', '60'])
if os.fork() == 0:
    print(a.start(['sleep', '60']).pid, flush=True)
    os._exit(0)
os.wait()
print(mine.pid, flush=True)
sys.stdin.readline()
print(mine.poll(), flush=True)
"""
    command = [sys.executable, "-c", script]
    with attended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        child_s = int(process.stdout.readline())
        mine = int(process.stdout.readline())
        wait_until_ended(child_s)
        time.sleep(0.1)  # nothing is to happen
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "None\n"
    wait_until_ended(mine)


def test_who_waits_for_all_children_does_not_wait_for_the_supervisor() -> None:
    script = f"{PROLOGUE}a.run(['true'])\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "none\n"


def test_whoever_reads_the_output_of_a_killed_process_sees_its_end() -> None:
    script = f"{PROLOGUE}a.start(['sh', '-c', 'trap \"\" TERM; sleep 90'], stdout=subprocess.DEVNULL, "
    script += "stderr=subprocess.DEVNULL)\nprint('up', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "up\n"
    assert time.monotonic() - began < DEADLINE


def test_what_was_started_ends_though_somebody_has_killed_the_supervisor() -> None:
    script = f"""{PROLOGUE}
a.run(['true'])
import select
from pathlib import Path
def supervisors():
    found = []
    for one in Path('/proc').glob('[0-9]*'):
        try:
            if b'MARKED_BY_A_TEST' in (one / 'environ').read_bytes():
                if b'supervisor.py' in (one / 'cmdline').read_bytes().split(b'\\0')[3]:
                    found.append(int(one.name))
        except (OSError, IndexError):
            pass
    return found
while not (found := supervisors()):
    time.sleep(0.01)
ended = os.pidfd_open(found[0])
os.kill(found[0], signal.SIGKILL)
select.select([ended], [], [])  # its memory goes first, and only then its end of the pipe
b.run(['true'])
tell(a.start(['sleep', '60']).pid, b.start(['sleep', '60']).pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"MARKED_BY_A_TEST": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stderr == ""
    wait_until_ended(*map(int, done.stdout.split()))


# What refuses for once to start the supervisor, as code that a script executes before it starts a program.
REFUSALS = {
    "no descriptor for the pipe": "supervision.os = Os()",
    "no descriptor for the process": "supervision.pidfd_open = partial(refuse, errno.EMFILE)",
    "a sandbox without pidfds": "supervision.pidfd_open = partial(refuse, errno.EPERM)",
    "no memory for a pidfd": "supervision.pidfd_open = partial(refuse, errno.ENOMEM)",
    "no shell": "supervision._DETACHED = ['/no/such/shell']",
    "a shell that can start no process": "supervision._DETACHED = ['/bin/sh', '-c', 'exit 2']",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_supervisor_that_cannot_be_started_is_an_error_and_the_next_program_starts_one(refusal: str) -> None:
    script = f"""{PROLOGUE}
import errno
from functools import partial
from vethlib import VethError
from vethlib.topology.programs import supervision
usual = dict(vars(supervision))
def refuse(number, *_):
    raise OSError(number, os.strerror(number))
class Os:
    pipe2 = staticmethod(partial(refuse, errno.EMFILE))
    def __getattr__(self, name):
        return getattr(os, name)
{REFUSALS[refusal]}
a.ping(a.ipv4)
before = os.listdir('/proc/self/fd')
try:
    a.run(['true'])
except VethError:
    assert os.listdir('/proc/self/fd') == before
else:
    raise AssertionError('not refused')
vars(supervision).update(usual)
tell(a.start(['sleep', '60']).pid, b.start(['sleep', '60']).pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    all_end_with(script)


@pytest.mark.parametrize("hard", ["resource.getrlimit(resource.RLIMIT_NOFILE)[1]", "32"])
def test_more_programs_than_a_process_may_have_descriptors_end_with_their_process(hard: str) -> None:
    script = f"""{PROLOGUE}
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, {hard}))
pids = [a.start(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid for _ in range(40)]
tell(*pids)
os.kill(os.getpid(), signal.SIGKILL)
"""
    all_end_with(script)


def test_the_garbage_collector_may_drop_a_node_while_a_supervisor_is_started(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.run(["true"])
    dropped = Topology.build("c -- d")
    dropped["c"].run(["true"])
    inode = dropped["c"].netns.identity[1]
    vars(dropped)["cycle"] = dropped  # which only the garbage collector takes apart

    def collect_first(flags: int) -> None:
        gc.collect()
        unshare(flags)

    monkeypatch.setattr(supervision, "_is_lost", lambda _told: True)
    monkeypatch.setattr(supervision, "unshare", collect_first)
    assert inode in supervision._reported.namespaces
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del dropped
            starting = threading.Thread(target=supervision.begin, daemon=True)
            starting.start()
            starting.join(DEADLINE)
    finally:
        gc.enable()
    assert not starting.is_alive()
    assert inode not in supervision._reported.namespaces


# Python drops what is raised in the callback of a weak reference: that interruption has not happened.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_while_a_program_is_started_leaves_none(node: Node) -> None:
    node.run(["true"])
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    try:
        for step in range(60):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 * step + 0.00001)
                    node.start(["sleep", "60"])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    known = {process.pid for process in node.started}
    deadline = time.monotonic() + DEADLINE
    while left := processes_in(node) - known:
        assert time.monotonic() < deadline, f"left: {left}"
        time.sleep(0.01)


def processes_in(node: Node) -> set[int]:
    found = set()
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(one / "ns" / "net").st_ino == node.netns.identity[1]:
                found.add(int(one.name))
        except OSError:
            continue
    return found - {os.getpid()}


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network namespace that is none of a topology."""
    with attended(subprocess.Popen(["unshare", "--net", "sleep", "60"])) as process:
        mine, deadline = os.stat("/proc/self/ns/net").st_ino, time.monotonic() + DEADLINE
        while os.stat(f"/proc/{process.pid}/ns/net").st_ino == mine:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield process
        process.kill()


def test_a_namespace_that_has_the_number_of_one_that_has_ended_is_not_taken_for_it(
    stranger: subprocess.Popen[bytes],
) -> None:
    with Session() as session:
        cookie = session.cookie(f"pid:{stranger.pid}")
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    supervised = Supervised()
    supervised.take(f"+netns {inode} {cookie + 1}")
    supervised.end()
    assert stranger.poll() is None
    supervised.take(f"+netns {inode} {cookie}")
    supervised.end()
    assert stranger.wait() == -signal.SIGTERM


def test_a_process_that_is_older_than_what_is_supervised_is_none_of_its_programs(
    stranger: subprocess.Popen[bytes],
) -> None:
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    started = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
    for since in (started + 1, started):
        assert stranger.poll() is None
        supervised = Supervised(since)
        supervised.take(f"+netns {inode} 0")
        supervised.end()
    assert stranger.wait() == -signal.SIGTERM


@pytest.fixture
def _no_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 5.14."""

    def refuse(inside: object) -> int:
        raise OSError(errno.ENOPROTOOPT, "")

    monkeypatch.setattr(supervisor, "cookie_of", refuse)


@pytest.mark.usefixtures("_no_cookies")
def test_without_cookies_a_namespace_is_told_from_others_by_a_tag(stranger: subprocess.Popen[bytes]) -> None:
    with ns.entered(f"pid:{stranger.pid}"):
        tag = supervisor.tag()
        assert supervisor.tag() == tag > 0
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    supervised = Supervised()
    supervised.take(f"+netns {inode} {tag + 1}")
    supervised.end()
    assert stranger.poll() is None
    supervised.take(f"+netns {inode} {tag}")
    supervised.end()
    assert stranger.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("_no_cookies")
def test_without_cookies_the_namespace_of_a_node_is_tagged_when_its_first_program_starts(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[int] = []
    monkeypatch.setattr(supervision, "watch_netns", lambda inode, cookie: reported.append(cookie))
    monkeypatch.setattr(supervision, "is_lost", lambda: True)
    assert node.sysctl("net.ipv4.conf.lo.tag") == "0"
    node.run(["true"])
    assert [str(number) for number in reported] == [node.sysctl("net.ipv4.conf.lo.tag")]


def test_without_cookies_a_namespace_of_processes_that_came_later_is_not_taken_for_one_that_has_ended(
    stranger: subprocess.Popen[bytes],
) -> None:
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    started = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
    for seen in (started - 1, started):
        assert stranger.poll() is None
        supervised = Supervised()
        supervised.take(f"+netns {inode} 0")
        supervised.end(seen)
    assert stranger.wait() == -signal.SIGTERM
