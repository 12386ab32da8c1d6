"""A follower as a whole: waiting for it, its price, storms, interruptions and its end."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.descriptors import descriptors_left
from tests.live.followers import heard, settle
from tests.live.interrupting import Interrupting as Interrupted
from tests.programs import attended
from tests.witness import names, open_fds, poll
from vethlib import (
    End,
    InvalidValue,
    NetlinkError,
    Session,
    SessionClosed,
    Veth,
    ns,
)
from vethlib.follow import Follower, MemoryResolver, paths
from vethlib.ns.opening import entry_at
from vethlib.ns.syscalls import MNT_DETACH, MS_BIND, mount, umount2

DIRECTORY = "/run/netns"
VNF1 = "microservice:vnf1"


@pytest.fixture
def follower(home: ns.Netns, resolver: MemoryResolver) -> Iterator[Follower]:
    with Follower(resolver) as follower:
        yield follower


Sleeper = Callable[[], "subprocess.Popen[bytes]"]

# --- what is followed


def test_what_is_no_reference_is_refused_and_nothing_of_that_call_is_followed(follower: Follower) -> None:
    with pytest.raises(InvalidValue):
        follower.follow(["blue", "path:relative"])
    subprocess.run(["ip", "netns", "add", "blue"], check=True)
    assert heard(follower, 0.02) == set()


def test_home_and_descriptors_never_change(follower: Follower) -> None:
    before = open_fds()
    follower.follow(["", "fd:0"])
    assert open_fds() == before
    assert follower.changed() == set()
    follower.unfollow(["", "fd:0"])


def test_following_twice_and_unfollowing_once_is_not_following(follower: Follower) -> None:
    follower.follow(["blue", "blue"])
    follower.follow(["blue", "netns:blue"])
    follower.unfollow(["blue"])
    subprocess.run(["ip", "netns", "add", "blue"], check=True)
    assert heard(follower) == {"netns:blue"}


# --- waiting


def mounted_over(path: str) -> None:
    mount(b"/proc/thread-self/ns/net", path.encode(), b"none", MS_BIND, None)


@pytest.fixture
def file(home: ns.Netns) -> str:
    """A file in /run/netns with nothing mounted over it yet."""
    ns.Netns.create("red").close()
    Path(f"{DIRECTORY}/blue").touch()
    return f"{DIRECTORY}/blue"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_asking_whether_there_is_something_does_not_take_a_mount_away(
    follower: Follower, file: str, depth: int, request: pytest.FixtureRequest
) -> None:
    follower.follow(["blue"])
    settle(follower)
    outer: list[select.epoll] = []
    inner: Follower | select.epoll = follower
    for _ in range(depth):
        outer.append(select.epoll())
        request.addfinalizer(outer[-1].close)
        outer[-1].register(inner, select.EPOLLIN)
        inner = outer[-1]
    mounted_over(file)
    for _ in range(3):
        assert select.select([inner], [], [], 0)[0]
        poll = select.poll()
        poll.register(inner, select.POLLIN)
        assert poll.poll(0)
        assert all(one.poll(0) for one in reversed(outer))
    assert heard(follower) == {"blue"}  # after a look that took long, the next one waits for its turn
    settle(follower)
    assert not select.select([inner], [], [], 0)[0]


def test_an_event_loop_is_woken_by_a_mount(follower: Follower, file: str) -> None:
    follower.follow(["blue"])
    settle(follower)

    async def waiting() -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(follower.fileno(), woken.set)
        try:
            loop.call_later(0.02, mounted_over, file)
            await asyncio.wait_for(woken.wait(), 30)
        finally:
            loop.remove_reader(follower.fileno())
        assert follower.changed() == {"blue"}

    asyncio.run(waiting())


class Interrupting(MemoryResolver):
    """Is interrupted, once, right after it has told what has changed."""

    interrupt = True

    def __call__(self, label: str) -> str:
        if self.interrupt and "vnf1" in self._answers:
            self.interrupt = False
            raise KeyboardInterrupt
        return super().__call__(label)


def test_an_interrupted_call_is_made_up_for_by_the_next(home: ns.Netns, file: str, sleeper: Sleeper) -> None:
    process, resolver = sleeper(), Interrupting()
    with Follower(resolver) as follower:
        follower.follow(["blue", "red", "pid:1", VNF1])
        mounted_over(file)
        resolver.set("vnf1", f"pid:{process.pid}")
        with pytest.raises(KeyboardInterrupt):
            follower.changed()
        assert follower.due() == 0
        assert follower.changed() == {"blue", "red", "pid:1", VNF1}
        settle(follower)
        assert follower.changed() == set()
        process.kill()
        assert heard(follower) == {VNF1}
        assert "vnf1" in follower.gone(VNF1)
    resolver.close()


OWN = tuple(str(Path(paths.__file__).parent / f"{name}.py") for name in ("follower", "processes", "paths"))


def is_interrupted(follower: Follower, at: int, expected: set[str]) -> bool:
    """Interrupt a call at its n-th place, if it has one; all is reported by then or by the next calls."""
    reported: set[str] = set()
    interrupting = Interrupted(at, OWN)
    interrupting.run(lambda: reported.update(follower.changed()))
    while not expected <= reported:
        changed = heard(follower)
        assert changed, (at, expected - reported)
        reported |= changed
    return interrupting.fired


def test_a_call_that_is_interrupted_anywhere_loses_nothing(
    home: ns.Netns, resolver: MemoryResolver, sleeper: Sleeper, tmp_path: Path
) -> None:
    """A copy of each pidfd is open, as in a forked child: closing one does not remove it from an epoll."""
    (tmp_path / "a").touch()
    for at in itertools.count(1, 3):
        first, second = sleeper(), sleeper()
        refs = {f"pid:{first.pid}", f"path:{tmp_path}/ns", VNF1}
        resolver.set("vnf1", f"pid:{second.pid}")
        with Follower(resolver) as follower:
            follower.follow(refs)
            settle(follower)
            copies = [os.dup(one.fd.fileno()) for one in follower._processes._of_ref.values() if one.fd is not None]
            first.kill()
            first.wait()
            (tmp_path / "new").symlink_to(f"a{at}")
            (tmp_path / "new").rename(tmp_path / "ns")
            resolver.set("vnf1", f"path:{tmp_path}/a")
            fired = is_interrupted(follower, at, refs)
            assert follower.gone(f"pid:{first.pid}"), at
            second.kill()
            second.wait()
            settle(follower)
            assert follower.changed() == set(), at
            for copy in copies:
                os.close(copy)
        if not fired:
            break
    assert at > 50


# --- much


def identity(name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(f"{DIRECTORY}/{name}")
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def test_in_a_storm_of_creations_and_deletions_nothing_is_lost(follower: Follower) -> None:
    wanted = [f"n{n}" for n in range(300)]
    follower.follow(wanted)
    storm = subprocess.Popen(
        ["ip", "-batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    with attended(storm):
        assert storm.stdin is not None
        for name in wanted:
            storm.stdin.write(f"netns add {name}\n")
        for name in wanted[::3]:
            storm.stdin.write(f"netns del {name}\n")
        for name in wanted[::6]:
            storm.stdin.write(f"netns add {name}\n")
        storm.stdin.close()
        known: dict[str, tuple[int, int] | None] = dict.fromkeys(wanted)
        while storm.poll() is None:
            for name in heard(follower, min(0.05, 0.05 if (due := follower.due()) is None else due)):
                known[name] = identity(name)
    while follower.due() is not None or select.select([follower], [], [], 0)[0]:
        time.sleep(follower.due() or 0)
        for name in follower.changed():
            known[name] = identity(name)
    assert known == {name: identity(name) for name in wanted}
    assert sum(one is not None for one in known.values()) == 250


def test_after_more_events_than_the_kernel_queues_changes_are_found_by_looking(follower: Follower, file: str) -> None:
    follower.follow(["blue", "red", "pid:1"])
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 1):
        os.mknod(f"{DIRECTORY}/x{number}")
    for number in range(limit // 2 + 1):
        os.unlink(f"{DIRECTORY}/x{number}")
    os.unlink(file)  # the event that does not fit
    assert follower.changed() == {"blue"}
    Path(file).touch()
    assert heard(follower) == {"blue"}
    mounted_over(file)
    assert heard(follower) == {"blue"}


def watches() -> int:
    """How many inotify watches this process has, as the kernel says."""
    inotify = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and "inotify" in os.readlink(fd)]
    return sum(Path(f"/proc/self/fdinfo/{fd.name}").read_text().count("inotify wd:") for fd in inotify)


def test_thousands_of_names_cost_one_watch_and_little_time(follower: Follower) -> None:
    ns.Netns.create("red").close()
    for number in range(4000):
        os.mknod(f"{DIRECTORY}/n{number}")
    bare = best(lambda: [os.lstat(f"{DIRECTORY}/n{number}") for number in range(4000)])
    refs = [f"netns:n{number}" for number in range(4000)]

    def follow() -> None:
        follower.unfollow(refs)
        follower.follow(refs)

    assert best(follow) < 20 * bare, "beside looking once at each, which is 6 ms where following them is 20"
    assert watches() == 3, "/, /run and /run/netns"
    event = best(lambda: hundred_events(follower)) / 100
    assert event < 30 * bare / 4000, "about 7 µs, and what makes it"


def best(function: Callable[[], object]) -> float:
    """CPU seconds, the best of five."""
    times: list[float] = []
    for _ in range(5):
        begun = time.thread_time()
        function()
        times.append(time.thread_time() - begun)
    return min(times)


def hundred_events(follower: Follower) -> None:
    for _ in range(50):
        os.unlink(f"{DIRECTORY}/n7")
        assert follower.changed() == {"netns:n7"}
        os.mknod(f"{DIRECTORY}/n7")
        assert follower.changed() == {"netns:n7"}


@pytest.mark.needs_kernel("6.8")  # listmount(2)
def test_mounts_elsewhere_make_no_name_be_looked_at(home: ns.Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    ns.Netns.create("red").close()
    wanted = [f"n{n}" for n in range(20)]
    for name in wanted:
        os.mknod(f"{DIRECTORY}/{name}")
        mounted_over(f"{DIRECTORY}/{name}")
    other = f"{DIRECTORY}/other"
    Path(other).touch()
    looked: list[str] = []
    known = entry_at
    with Follower() as follower:
        follower.follow(wanted)
        settle(follower)
        monkeypatch.setattr(paths, "entry_at", lambda path: looked.append(path) or known(path))  # type: ignore[func-returns-value]
        for _ in range(10):
            mounted_over(other)
            umount2(other.encode(), MNT_DETACH)
            assert follower.changed() == set()
        assert [path for path in looked if path.rpartition("/")[2] in wanted] == []
        umount2(f"{DIRECTORY}/n7".encode(), MNT_DETACH)
        assert heard(follower) == {"n7"}
        assert {path for path in looked if path.rpartition("/")[2] in wanted} == {f"{DIRECTORY}/n7"}


def test_mounts_elsewhere_make_all_names_be_looked_at_for_a_tenth_of_the_time_on_older_kernels(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "mount_ids", lambda: None)
    wanted = [f"n{n}" for n in range(1000)]
    ns.Netns.create("red").close()
    for name in wanted:
        os.mknod(f"{DIRECTORY}/{name}")
        mounted_over(f"{DIRECTORY}/{name}")
    follower.follow(wanted)
    settle(follower)
    other = f"{DIRECTORY}/other"
    Path(other).touch()
    times: list[float] = []
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < max(0.5, 6 * max(times, default=0.0)) or len(times) < 30:
        mounted_over(other)
        umount2(other.encode(), MNT_DETACH)
        begun = time.thread_time()
        assert follower.changed() == set()
        times.append(time.thread_time() - begun)
    looks = [one for one in times if one > max(times) / 4]
    assert len(looks) < len(times)
    assert sum(looks) < 0.2 * elapsed
    umount2(f"{DIRECTORY}/n7".encode(), MNT_DETACH)
    assert heard(follower) == {"n7"}
    settle(follower)
    assert follower.due() is None


# --- the end


def inheritable() -> set[str]:
    fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    return {fd for fd in fds if os.get_inheritable(int(fd))}


def test_closing_gives_everything_back_and_ends_all(home: ns.Netns, resolver: MemoryResolver, sleeper: Sleeper) -> None:
    process = sleeper()
    before = open_fds()
    passed_on = inheritable()
    for _ in range(3):
        follower = Follower(resolver)
        follower.follow(["blue", f"pid:{process.pid}", f"path:/proc/{process.pid}/ns/net", "path:/a/b", VNF1])
        assert open_fds() > before
        assert inheritable() == passed_on
        follower.close()
        follower.close()
        assert open_fds() == before
    for call in (
        follower.changed,
        follower.due,
        follower.fileno,
        lambda: follower.follow([]),
        lambda: follower.unfollow([]),
    ):
        with pytest.raises(SessionClosed):
            call()
    resolver.set("vnf1", "pid:1")
    assert list(resolver.changed() or ()) == ["vnf1"], "the resolver is the caller's"


@pytest.mark.parametrize("left", range(8))
def test_without_descriptors_there_is_no_follower(home: ns.Netns, left: int) -> None:
    Follower().close()
    before = open_fds()
    failure = None
    with descriptors_left(left):
        try:
            Follower().close()
        except NetlinkError as error:
            failure = error
    assert left not in (0, 1) or failure is not None
    assert left != 7 or failure is None
    assert failure is None or failure.errno == errno.EMFILE
    assert open_fds() == before


def test_a_follower_keeps_no_namespace_alive(follower: Follower, resolver: MemoryResolver) -> None:
    with Session() as session, ns.Netns.create("blue") as blue:
        with blue.entered():
            process = subprocess.Popen(["sleep", "60"])
        session.create(Veth(End("va"), End("vb", netns=blue)))
    resolver.set("vnf1", f"pid:{process.pid}")
    follower.follow(["blue", f"pid:{process.pid}", f"path:/proc/{process.pid}/ns/net", VNF1])
    process.kill()
    process.wait()
    assert names() == {"va"}
    subprocess.run(["ip", "netns", "del", "blue"], check=True)
    assert poll(lambda: names() == set()), "the namespace is still there"
