"""Processes, followed: their end is reported once, and a process that gets their number is another one."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.descriptors import descriptors_left
from tests.patience import Patience
from tests.programs import attended, runs
from tests.witness import open_fds, poll
from vethlib import NetlinkError, ns
from vethlib.follow import Follower, processes
from vethlib.follow.processes import LOOK, PIDFD_THREAD


def heard(follower: Follower, within: float = 30.0) -> set[str]:
    """What is told when the descriptor says that there is something, or when a look is due; empty if nothing is."""
    patience = Patience(within)
    while not patience.is_over():
        due = follower.due()
        select.select([follower], [], [], patience.left if due is None else min(due, patience.left))
        if changed := follower.changed():
            return changed
    return set()


@pytest.fixture
def follower(home: ns.Netns) -> Iterator[Follower]:
    with Follower() as follower:
        yield follower


def wait_for_zombie(pid: int) -> None:
    while runs(pid):
        time.sleep(0.001)


Sleeper = Callable[[], "subprocess.Popen[bytes]"]


def test_the_end_of_a_process_is_told_once_to_every_spelling(follower: Follower, sleeper: Sleeper) -> None:
    one, another = sleeper(), sleeper()
    refs = {f"pid:{one.pid}", f"path:/proc/{one.pid}/ns/net", f"path:/proc/{one.pid}/task/{one.pid}/ns/net"}
    follower.follow([*refs, f"pid:{another.pid}"])
    assert follower.changed() == set()
    assert {follower.gone(ref) for ref in refs} == {""}
    one.kill()
    assert heard(follower) == refs
    assert all(str(one.pid) in follower.gone(ref) for ref in refs)
    one.wait()
    assert not select.select([follower], [], [], 0.02)[0]
    assert follower.changed() == set()
    assert follower.gone(f"pid:{another.pid}") == follower.gone("pid:1") == ""


def test_a_zombie_is_gone(follower: Follower, sleeper: Sleeper) -> None:
    process = sleeper()
    process.kill()
    wait_for_zombie(process.pid)
    follower.follow([f"pid:{process.pid}"])
    assert str(process.pid) in follower.gone(f"pid:{process.pid}")
    assert not select.select([follower], [], [], 0)[0]


def test_a_process_that_is_not_there_is_gone_at_once(follower: Follower, sleeper: Sleeper) -> None:
    process = sleeper()
    process.kill()
    process.wait()
    ref = f"path:/proc/{process.pid}/ns/net"
    never = "path:/proc/99999999999999999999/ns/net"
    follower.follow([ref, never])
    assert str(process.pid) in follower.gone(ref)
    assert str(99999999999999999999) in follower.gone(never)
    follower.unfollow([ref])
    assert follower.gone(ref) == ""


REUSE = """
import os, select, signal
from vethlib.follow import Follower

def sleeper():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid

with Follower() as follower:
    first = sleeper()
    ref = f"pid:{first}"
    follower.follow([ref])
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(first - 1))
    assert sleeper() == first, "the number was not given out again"
    assert select.select([follower], [], [], 60)[0]
    assert follower.changed() == {ref}
    assert os.path.exists(f"/proc/{first}/ns/net")
    assert str(first) in follower.gone(ref)
    follower.follow([ref])
    assert str(first) in follower.gone(ref)
    follower.unfollow([ref])
    follower.follow([ref])
    assert follower.gone(ref) == ""
    os.kill(first, signal.SIGKILL)
    assert select.select([follower], [], [], 60)[0]
    assert follower.changed() == {ref}
print("done")
"""


@pytest.mark.needs_file("/proc/sys/kernel/ns_last_pid")
def test_a_process_that_gets_the_number_of_another_is_not_meant(home: ns.Netns) -> None:
    # In a pid namespace of its own, where nobody else takes a number in between.
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", REUSE]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.stdout == "done\n", done.stderr


class Thread:
    """A thread that lives until it is told to end."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._end.wait)
        self._thread.start()
        self.number = self._thread.native_id
        self.task = f"/proc/self/task/{self.number}"

    def end(self) -> None:
        self._end.set()
        self._thread.join()
        while os.path.exists(self.task):
            time.sleep(0.001)


def test_the_end_of_a_thread_is_told(follower: Follower) -> None:
    thread = Thread()
    task, pid = f"path:/proc/{os.getpid()}/task/{thread.number}/ns/net", f"pid:{thread.number}"
    follower.follow([task, pid, f"pid:{os.getpid()}"])
    assert follower.changed() == set()
    thread.end()
    assert heard(follower) == {task, pid}
    assert all(str(number) in follower.gone(task) for number in (thread.number, os.getpid()))
    assert str(thread.number) in follower.gone(pid)


@pytest.fixture
def _no_descriptors_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 6.9."""
    pidfd_open = os.pidfd_open

    def before_linux_6_9(pid: int, flags: int = 0) -> int:
        if flags & PIDFD_THREAD or f"\nTgid:\t{pid}\n".encode() not in Path(f"/proc/{pid}/status").read_bytes():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return pidfd_open(pid, flags)

    monkeypatch.setattr(processes, "pidfd_open", before_linux_6_9)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_processes_have_no_descriptors_their_end_is_told_a_second_later(
    follower: Follower, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(processes, "pidfd_open", refuse)
    process = sleeper()
    ref = f"pid:{process.pid}"
    follower.follow([ref])
    assert follower.gone(ref) == ""
    process.kill()
    process.wait()
    assert heard(follower) == {ref}
    assert str(process.pid) in follower.gone(ref)


@pytest.mark.usefixtures("_no_descriptors_of_threads")
def test_where_threads_have_no_descriptors_their_end_is_told_a_second_later(follower: Follower) -> None:
    thread = Thread()
    task, pid = f"path:/proc/{os.getpid()}/task/{thread.number}/ns/net", f"pid:{thread.number}"
    follower.follow([task, pid, f"pid:{os.getpid()}"])
    due = follower.due()
    assert due is not None
    assert due <= LOOK
    assert follower.changed() == set()
    thread.end()
    assert heard(follower) == {task, pid}
    assert all(str(number) in follower.gone(task) for number in (thread.number, os.getpid()))
    assert str(thread.number) in follower.gone(pid)


@pytest.mark.usefixtures("_no_descriptors_of_threads")
def test_where_threads_have_no_descriptors_the_end_of_their_process_is_told(follower: Follower) -> None:
    code = """if True:
        import threading, time
        t = threading.Thread(target=time.sleep, args=[60])
        t.start()
        open(f"/proc/self/task/{t.native_id}/comm", "wb").write(b"\\xff")
        print(t.native_id)
    """
    process = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE)
    with attended(process):
        assert process.stdout is not None
        number = int(process.stdout.readline())
        ref = f"path:/proc/{process.pid}/task/{number}/ns/net"
        follower.follow([ref])
        assert follower.gone(ref) == ""
        process.kill()
    assert heard(follower) == {ref}
    assert follower.gone(ref)


@pytest.mark.parametrize("left", [0, 1, 2, 5])
def test_out_of_descriptors_is_said_and_nothing_of_that_call_is_followed(
    follower: Follower, sleeper: Sleeper, left: int
) -> None:
    first, *others = [sleeper() for _ in range(9)]
    follower.follow([f"pid:{first.pid}"])
    before = open_fds()
    with descriptors_left(left), pytest.raises(NetlinkError, match="ulimit -n") as caught:
        follower.follow(["blue", *(f"pid:{one.pid}" for one in others)])
    assert caught.value.errno == errno.EMFILE
    assert caught.value.netns in {f"pid:{one.pid}" for one in others}
    assert open_fds() == before
    for process in others:
        process.kill()
        process.wait()
    subprocess.run(["ip", "netns", "add", "blue"], check=True)
    assert follower.changed() == set()
    first.kill()
    assert heard(follower) == {f"pid:{first.pid}"}
    follower.follow(["blue", f"pid:{others[0].pid}"])
    assert follower.gone(f"pid:{others[0].pid}")


def test_a_link_that_comes_to_a_process_while_descriptors_are_out_is_followed_later(
    follower: Follower, sleeper: Sleeper
) -> None:
    process = sleeper()
    follower.follow(["blue"])
    os.symlink(f"/proc/{process.pid}/ns/net", "/run/netns/blue")
    with descriptors_left(0):
        assert heard(follower) == {"blue"}
    due = follower.due()
    assert due is not None
    assert 0 < due <= 1
    time.sleep(due)
    follower.changed()
    assert follower.due() is None
    process.kill()
    assert heard(follower) == {"blue"}
    assert str(process.pid) in follower.gone("blue")


def test_what_is_not_followed_any_more_is_not_told(follower: Follower, sleeper: Sleeper) -> None:
    process = sleeper()
    ref = f"pid:{process.pid}"
    before = open_fds()
    follower.follow([ref, ref])
    assert open_fds() == before + 1
    follower.unfollow([ref, ref, "pid:1"])
    assert open_fds() == before
    process.kill()
    assert not select.select([follower], [], [], 0.02)[0]
    assert follower.changed() == set()


def test_a_forked_child_s_copies_do_not_keep_an_end_from_being_told_once(follower: Follower, sleeper: Sleeper) -> None:
    process = sleeper()
    ref = f"pid:{process.pid}"
    follower.follow([ref])
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        process.kill()
        assert heard(follower) == {ref}
        assert not select.select([follower], [], [], 0.02)[0]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_hundreds_of_processes_that_end_at_once_are_all_told(home: ns.Netns) -> None:
    code = "import os, signal\npids = []\nfor n in range(600):\n    pid = os.fork()\n    if not pid: signal.pause()\n"
    code += "    pids.append(pid)\nprint(*pids, flush=True)\ninput()\nfor pid in pids: os.kill(pid, 9)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with attended(process), Follower() as follower:
        assert process.stdin is not None
        assert process.stdout is not None
        refs = {f"pid:{pid}" for pid in process.stdout.readline().split()}
        assert len(refs) == 600
        follower.follow(refs)
        process.stdin.write("\n")
        process.stdin.flush()
        missing = set(refs)
        while missing:
            new = heard(follower)
            assert new
            missing -= new
        assert all(map(follower.gone, refs))
        process.stdin.write("\n")


def test_processes_beyond_half_of_the_descriptors_are_looked_at(
    follower: Follower, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vethlib.follow.processes.LOOK", 0.1)
    monkeypatch.setattr(follower._processes, "_most", 2)
    processes = [sleeper() for _ in range(6)]
    refs = [f"pid:{one.pid}" for one in processes]
    before = open_fds()
    assert follower.due() is None
    follower.follow(refs)
    assert open_fds() == before + 2
    assert len(caplog.records) == 1
    due = follower.due()
    assert due is not None
    assert due <= 0.1
    time.sleep(0.15)
    assert follower.changed() == set()
    assert not any(map(follower.gone, refs))
    for number in (1, 4):
        processes[number].kill()
        wait_for_zombie(processes[number].pid)
    time.sleep(0.15)
    assert follower.changed() == {refs[1], refs[4]}
    assert [bool(follower.gone(ref)) for ref in refs] == [False, True, False, False, True, False]
    follower.unfollow(refs)
    assert follower.due() is None
    assert open_fds() == before


def by_root(pid: int, path: Path) -> str:
    return f"path:/proc/{pid}/root{path}"


def by_directory(pid: int, path: Path) -> str:
    return f"path:/proc/{pid}/cwd/{path.name}"


def by_thread(pid: int, path: Path) -> str:
    return f"path:/proc/{pid}/task/{pid}/root{path}"


def by_link(pid: int, path: Path) -> str:
    link = path.with_name("link")
    link.symlink_to(f"/proc/{pid}/cwd/{path.name}")
    return f"path:{link}"


@pytest.mark.parametrize("spell", [by_root, by_directory, by_thread, by_link])
def test_what_is_mounted_and_removed_behind_a_process_is_noticed(
    tmp_path: Path, spell: Callable[[int, Path], str], home: ns.Netns
) -> None:
    """Also in a mount namespace of its own, whose mounts do not propagate."""
    path = tmp_path / "netns"
    private = ["unshare", "-m", "--propagation", "private", "sh", "-c"]
    mount = 'touch "$0"; mount --bind /proc/self/ns/net "$0"'
    script = f'echo; read _; {mount}; echo; read _; umount "$0"; rm "$0"; echo; read _'
    pipe = subprocess.PIPE
    command = [*private, script, str(path)]
    with attended(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=tmp_path)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        ref = spell(process.pid, path)
        with Follower() as follower:
            follower.follow([ref])
            follower.changed()
            for _ in range(2):
                assert follower.moved() == set()
                process.stdin.write("\n")
                process.stdin.flush()
                process.stdout.readline()
                assert poll(lambda: ref in follower.moved() | follower.changed(), timeout=20)
                poll(lambda: not follower.moved() and not follower.changed(), timeout=0.1)
            assert not follower.gone(ref)
        process.kill()


def test_a_process_beyond_the_directory_of_another_is_noticed_to_end(follower: Follower, sleeper: Sleeper) -> None:
    one, another = sleeper(), sleeper()
    ref = f"path:/proc/{one.pid}/../{another.pid}/ns/net"
    follower.follow([ref])
    assert follower.moved() | follower.changed() == set()
    another.kill()
    another.wait()
    assert poll(lambda: ref in follower.moved() | follower.changed(), timeout=20)


@pytest.mark.parametrize(
    "spelling", ["/proc/{0}/root/proc/{1}/ns/net", "/proc/{0}/../{1}/ns/net", "/proc/{0}/cwd/link"]
)
def test_only_moves_of_a_process_beyond_the_directory_of_another_are_reported(
    follower: Follower, tmp_path: Path, spelling: str
) -> None:
    script = ["unshare", "-n", "sh", "-c", "echo; read _; exec unshare -n sh -c 'echo; read _'"]
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(script, stdin=pipe, stdout=pipe, text=True, cwd=tmp_path)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "link").symlink_to(f"/proc/{process.pid}/ns/net")
        ref = f"path:{spelling.format(process.pid, process.pid)}"
        follower.follow([ref])
        follower.changed()
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert follower.moved() | follower.changed() == set()
            time.sleep(0.02)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert poll(lambda: ref in follower.moved() | follower.changed(), timeout=20)
        process.kill()


def test_another_file_with_the_same_descriptor_of_a_process_is_noticed(follower: Follower, blue: str) -> None:
    script = "exec 7</proc/self/ns/net; echo; read _; exec 7<&-; exec 7</run/netns/" + blue + "; echo; read _"
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(["bash", "-c", script], stdin=pipe, stdout=pipe, text=True)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        ref = f"path:/proc/{process.pid}/fd/7"
        follower.follow([ref])
        assert follower.moved() | follower.changed() == set()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert poll(lambda: ref in follower.moved() | follower.changed(), timeout=20)
        process.kill()
