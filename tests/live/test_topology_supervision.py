"""Programs of a node end with the process that started them, however that ends: supervision and its supervisor."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import DEADLINE, all_end_with, attended, see_end, stat_fields
from vethlib import Session, ns
from vethlib.ns.syscalls import unshare
from vethlib.topology import Node, Topology
from vethlib.topology.programs import supervision, supervisor
from vethlib.topology.programs.supervisor import Supervised


@pytest.fixture
def node() -> Iterator[Node]:
    with Topology.build("a -- b") as net:
        yield net["a"]


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
    "a program": "tell(a.start(['sleep', '600']).pid)",
    "one that ignores SIGTERM": """
shell = a.start(['sh', '-c', 'trap "" TERM; echo; while :; do sleep 0.1; done'], stdout=subprocess.PIPE)
shell.stdout.readline()
tell(shell.pid)""",
    "what a program has started": """
shell = a.start(['sh', '-c', 'sleep 600 & echo $!; wait'], stdout=subprocess.PIPE)
tell(shell.pid, int(shell.stdout.readline()))""",
    "a daemon in the background": """
shell = a.start(['sh', '-c', 'setsid sleep 600 & echo $!'], stdout=subprocess.PIPE)
tell(int(shell.stdout.readline()))
shell.wait()""",
    "one that has left the node": """
a.run(['ip', 'netns', 'add', 'inner'])
shell = a.start(['sh', '-c', 'ip netns exec inner sleep 600 & echo $!; wait'], stdout=subprocess.PIPE)
tell(int(shell.stdout.readline()))""",
    "one that run is waiting for": """
import threading
def run(): a.run(['sh', '-c', 'echo $$ >&7; exec sleep 600'], pass_fds=[7])
reading, writing = os.pipe()
os.dup2(writing, 7)
threading.Thread(target=run, daemon=True).start()
tell(int(os.read(reading, 32)))""",
    "one that run is waiting for, in a namespace of its own": """
import threading
from vethlib.topology.programs.supervision import _reported
def run(): a.run(['unshare', '--net', 'sh', '-c', 'echo $$ >&7; exec sleep 600'], pass_fds=[7])
reading, writing = os.pipe()
os.dup2(writing, 7)
threading.Thread(target=run, daemon=True).start()
pid = int(os.read(reading, 32))
while not _reported.processes:
    time.sleep(0.001)
tell(pid)""",
    "one without a group, in a namespace of its own": """
command = ['unshare', '--net', 'sh', '-c', 'echo $$; exec sleep 600']
tell(int(a.start(command, process_group=None, stdout=subprocess.PIPE).stdout.readline()))""",
    "one of a forked child that os._exit ends": """
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b'%d' % a.start(['sleep', '600']).pid)
    os._exit(0)
tell(int(os.read(reading, 32)))""",
    "one though a forked child lives on": """
pid = a.start(['sleep', '600']).pid
if (child := os.fork()) == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, file=sys.stderr, flush=True)
tell(pid)""",
}


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
    # As a shell starts a program, even if the process that runs the tests ignores signals (nohup: SIGHUP).
    usual = "for ignored in signal.SIGHUP, signal.SIGTERM: signal.signal(ignored, signal.SIG_DFL)\n"
    usual += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    last = usual + (end if end.startswith("os.") else f"os.kill(os.getpid(), signal.{end})")
    script = f"{PROLOGUE}tell(a.start(['sleep', '600']).pid, b.start(['sleep', '600']).pid)\n{last}\ntime.sleep(60)\n"
    command = ["sh", "-c", 'ulimit -c 0; exec "$@"', "sh", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    see_end(*map(int, done.stdout.split()))


def test_what_was_started_ends_with_the_whole_process_group_of_its_maker() -> None:
    script = f"{PROLOGUE}tell(a.start(['sleep', '600']).pid)\ntime.sleep(60)\n"
    command = [sys.executable, "-c", script]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGKILL)
    see_end(pid)


def test_what_a_parent_has_started_does_not_end_with_its_forked_child() -> None:
    script = f"""{PROLOGUE}
mine = a.start(['sleep', '600'])
if os.fork() == 0:
    print(a.start(['sleep', '600']).pid, flush=True)
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
        see_end(child_s)
        time.sleep(0.1)  # nothing is to happen
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "None\n"
    see_end(mine)


def test_who_waits_for_all_children_does_not_wait_for_the_supervisor() -> None:
    script = f"{PROLOGUE}a.run(['true'])\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "none\n"


def test_whoever_reads_the_output_of_a_killed_process_sees_its_end() -> None:
    script = f"{PROLOGUE}a.start(['sh', '-c', 'trap \"\" TERM; sleep 900'], stdout=subprocess.DEVNULL, "
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
tell(a.start(['sleep', '600']).pid, b.start(['sleep', '600']).pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"MARKED_BY_A_TEST": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stderr == ""
    see_end(*map(int, done.stdout.split()))


# What refuses for once to start the supervisor, as code that a script executes before it starts a program.
REFUSALS = {
    "no descriptor for the pipe": "supervision.os = Os()",
    "no descriptor for the process": "scripts.pidfd_open = partial(refuse, errno.EMFILE)",
    "a sandbox without pidfds": "scripts.pidfd_open = partial(refuse, errno.EPERM)",
    "no memory for a pidfd": "scripts.pidfd_open = partial(refuse, errno.ENOMEM)",
    "no interpreter": "sys.executable = ''",
    "another program as the interpreter": "sys.executable = '/bin/true'",
    "an interpreter that does not start": "sys.executable = '/no/such/python'",
    "a frozen program": "sys.frozen = True",
    "no shell": "supervision._DETACHED = ['/no/such/shell']",
    "a shell that can start no process": "supervision._DETACHED = ['/bin/sh', '-c', 'exit 2']",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_supervisor_that_cannot_be_started_is_an_error_and_the_next_program_starts_one(refusal: str) -> None:
    script = f"""{PROLOGUE}
import errno
from functools import partial
from vethlib import VethError
from vethlib.topology.programs import scripts, supervision
usual = [(module, dict(vars(module))) for module in (scripts, supervision, sys)]
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
for module, names in usual:
    vars(module).update(names)
vars(sys).pop('frozen', None)
tell(a.start(['sleep', '600']).pid, b.start(['sleep', '600']).pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    all_end_with(script)


NOISE = {
    "a library that cannot be preloaded": "os.environ['LD_PRELOAD'] = '/no/such/library.so'",
    "a shell that warns": "echo warning >&2",
    "a shell that prints": "echo hello",
    "a shell that prints no whole line": "printf hello; printf warning >&2",
}


def shell_that_prints(path: Path, noise: str) -> str:
    """Create a shell that executes `noise` first, and return the code by which a script uses it for its supervisor."""
    path.write_text(f'#!/bin/sh\n{noise}\nexec /bin/sh "$@"\n')
    path.chmod(0o755)
    return f"supervision._DETACHED = [{str(path)!r}, *supervision._DETACHED[1:]]"


@pytest.mark.parametrize("noise", NOISE)
def test_what_else_is_printed_at_the_start_prevents_no_supervision(noise: str, tmp_path: Path) -> None:
    code = NOISE[noise] if "os.environ" in NOISE[noise] else shell_that_prints(tmp_path / "sh", NOISE[noise])
    all_end_with(f"""{PROLOGUE}
from vethlib.topology.programs import supervision
{code}
a.run(['true'])
os.environ.pop('LD_PRELOAD', None)
tell(a.start(['sleep', '600']).pid, b.start(['sleep', '600']).pid)
os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.mark.parametrize("noise", ["exec >/dev/null", "exec 2>&1 >/dev/null; echo warning"])
def test_a_supervisor_of_which_its_process_knows_nothing_ends_at_once(noise: str, tmp_path: Path) -> None:
    script = f"""{PROLOGUE}
from pathlib import Path
from vethlib import VethError
from vethlib.topology.programs import supervision
{shell_that_prints(tmp_path / "sh", noise)}
try:
    a.run(['true'])
except VethError:
    print('refused')
def is_marked(pid):
    try:
        return b'MARKED_BY_A_TEST' in Path('/proc', pid, 'environ').read_bytes()
    except OSError:
        return False
def left():
    return [pid for pid in os.listdir('/proc') if pid.isdecimal() and int(pid) != os.getpid() and is_marked(pid)]
deadline = time.monotonic() + 30
while left() and time.monotonic() < deadline:
    time.sleep(0.01)
print(left())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"MARKED_BY_A_TEST": "1"},
    )
    assert (done.stdout, done.stderr) == ("refused\n[]\n", "")


# What an error says, so that the cause can be found.
CAUSES = {
    "a sandbox without pidfds": "pidfd_open",
    "no interpreter": "sys.executable is empty",
    "a frozen program": "this program is frozen",
    "an interpreter that does not start": "/no/such/python",
}


@pytest.mark.parametrize("refusal", CAUSES)
@pytest.mark.parametrize("call", ["a.start(['true'])", "Topology.build('a -- b delay=1ms', impair='userspace')"])
def test_the_cause_is_named_if_no_script_can_be_started(refusal: str, call: str) -> None:
    script = f"""{PROLOGUE}
import errno
from functools import partial
from vethlib import VethError
from vethlib.topology.programs import scripts, supervision
def refuse(number, *_):
    raise OSError(number, os.strerror(number))
{REFUSALS[refusal]}
try:
    {call}
except VethError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert CAUSES[refusal] in done.stdout


@pytest.mark.parametrize("hard", ["resource.getrlimit(resource.RLIMIT_NOFILE)[1]", "32"])
def test_more_programs_than_a_process_may_have_descriptors_end_with_their_process(hard: str) -> None:
    script = f"""{PROLOGUE}
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, {hard}))
pids = [a.start(['sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid for _ in range(40)]
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
                    node.start(["sleep", "600"])
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


def assert_only_that_is_ended(stranger: subprocess.Popen[bytes], cookie: int) -> None:
    """Its namespace is supervised under another cookie, and then under its own."""
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    supervised = Supervised()
    supervised.take(f"+netns {inode} {cookie + 1}")
    supervised.end()
    assert stranger.poll() is None
    supervised.take(f"+netns {inode} {cookie}")
    supervised.end()
    assert stranger.wait() == -signal.SIGTERM


def test_a_namespace_that_has_the_number_of_one_that_has_ended_is_not_taken_for_it(
    stranger: subprocess.Popen[bytes],
) -> None:
    with Session() as session:
        cookie = session.cookie(f"pid:{stranger.pid}")
    assert_only_that_is_ended(stranger, cookie)


def test_a_process_that_is_older_than_what_is_supervised_is_none_of_its_programs(
    stranger: subprocess.Popen[bytes],
) -> None:
    inode = os.stat(f"/proc/{stranger.pid}/ns/net").st_ino
    started = int(stat_fields(stranger.pid)[19])
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
    assert_only_that_is_ended(stranger, tag)


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
    started = int(stat_fields(stranger.pid)[19])
    for seen in (started - 1, started):
        assert stranger.poll() is None
        supervised = Supervised()
        supervised.take(f"+netns {inode} 0")
        supervised.end(seen)
    assert stranger.wait() == -signal.SIGTERM
