"""Processes that move to another network namespace while a reference leads to them."""

from __future__ import annotations

import errno
import itertools
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.confined import confined
from tests.live.applying import interface, planned
from tests.live.interrupting import Interrupting
from tests.refusing import raises
from tests.witness import ip, names, poll
from vethlib import End, InvalidValue, NetlinkError, Netns, NetnsNotFound, Session, Veth, WaitTimeout, ns
from vethlib.agent import Configurator, Interface, Namespace, NamespaceType
from vethlib.follow import Follower, MemoryResolver
from vethlib.follow import whereabouts as timing
from vethlib.monitor import Monitor
from vethlib.ns import Descriptor, open_owned
from vethlib.ns.opening import shown_identity
from vethlib.ns.programs import elsewhere

SOON = 20.0  # seconds; what is waited for here comes within two, on a machine that has time

# Each line it reads is a namespace to go to: "new" or a path.
MOVER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for line in sys.stdin:
    word = line.strip()
    done = libc.unshare(0x40000000) if word == "new" else libc.setns(os.open(word, os.O_RDONLY), 0x40000000)
    print(done, flush=True)
"""


class Mover:
    """A process in home that moves elsewhere when it is told to."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", MOVER], stdin=pipe, stdout=pipe, text=True)
        self.pid = self.process.pid

    def go(self, where: str = "new") -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(where + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "0\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def mover(home: Netns) -> Iterator[Mover]:
    mover = Mover()
    yield mover
    mover.end()


Spell = Callable[[int], Namespace]


def by_pid(pid: int) -> Namespace:
    return Namespace(NamespaceType.PID_REF_NS, pid=pid)


def by_path(pid: int) -> Namespace:
    return Namespace(NamespaceType.FILE_REF_NS, filepath=f"/proc/{pid}/ns/net")


def by_thread(pid: int) -> Namespace:
    return Namespace(NamespaceType.FILE_REF_NS, filepath=f"/proc/{pid}/task/{pid}/ns/net")


def by_double_slash(pid: int) -> Namespace:
    return Namespace(NamespaceType.FILE_REF_NS, filepath=f"//proc//{pid}/ns/net")


def by_dots(pid: int) -> Namespace:
    return Namespace(NamespaceType.FILE_REF_NS, filepath=f"/proc/./{pid}/./ns/net")


def by_linked_directory(pid: int) -> Namespace:
    lend(f"/proc/{pid}/ns")
    return Namespace(NamespaceType.FILE_REF_NS, filepath="/run/netns/lent/net")


def by_name(pid: int) -> Namespace:
    lend(f"/proc/{pid}/ns/net")
    return Namespace(NamespaceType.NAMED_NS, name="lent")


def by_relative_link(pid: int) -> Namespace:
    lend(f"../../proc/{pid}/ns/net")
    return Namespace(NamespaceType.NAMED_NS, name="lent")


def lend(target: str) -> None:
    os.makedirs("/run/netns", exist_ok=True)
    os.symlink(target, "/run/netns/lent")


def by_label(_pid: int) -> Namespace:
    return Namespace(NamespaceType.MICROSERVICE_REF_NS, microservice="vnf1")


SPELLINGS = [
    by_pid,
    by_path,
    by_thread,
    by_double_slash,
    by_dots,
    by_linked_directory,
    by_name,
    by_relative_link,
    by_label,
]


def pair(netns: Namespace) -> list[Interface]:
    return [Interface("a", "b", enabled=True), Interface("b", "a", enabled=True, namespace=netns)]


def states(configurator: Configurator) -> dict[str, str]:
    return {status.name: str(status.state) for status in configurator.status()}


def until(configurator: Configurator, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, configurator.status()
        configurator.poll(0.05)


@pytest.fixture
def resolver(mover: Mover) -> Iterator[MemoryResolver]:
    resolver = MemoryResolver()
    resolver.set("vnf1", f"pid:{mover.pid}")
    yield resolver
    resolver.close()


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_process_that_has_not_unshared_yet_gets_no_link_at_home(
    mover: Mover, resolver: MemoryResolver, spell: Spell
) -> None:
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        configurator.resync(pair(spell(mover.pid)))
        until(configurator, lambda: states(configurator) == {"a": "PENDING", "b": "PENDING"})
        assert all(str(mover.pid) in status.reason for status in configurator.status())
        assert names() == set()
        mover.go()
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert names() == {"a"}
        assert names(f"pid:{mover.pid}") == {"b"}


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_link_follows_its_process_to_wherever_it_goes(
    mover: Mover, resolver: MemoryResolver, blue: str, red: str, spell: Spell
) -> None:
    mover.go("/run/netns/blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        configurator.resync(pair(spell(mover.pid)))
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert (names(), names(blue)) == ({"a"}, {"b"})
        mover.go("/run/netns/red")
        until(configurator, lambda: names(red) == {"b"})
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert (names(), names(blue)) == ({"a"}, set())
        mover.go(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        until(configurator, lambda: states(configurator) == {"a": "PENDING", "b": "PENDING"})
        assert (names(), names(red)) == (set(), set())


def test_a_pair_between_two_processes_follows_them_too(session: Session, mover: Mover, blue: str, red: str) -> None:
    mover.go("/run/netns/blue")
    other = interface("b", "a", "red")
    with Configurator(session) as configurator:
        configurator.resync([Interface("a", "b", enabled=True, namespace=by_pid(mover.pid)), other])
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        mover.go()
        until(configurator, lambda: names(blue) == set())
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert names(f"pid:{mover.pid}") == {"a"}
        assert names(red) == {"b"}


MEANT: dict[str, Callable[[], Namespace]] = {
    "no reference": Namespace,
    "the agent's own process": lambda: by_pid(os.getpid()),
    "itself, with more slashes": lambda: Namespace(NamespaceType.FILE_REF_NS, filepath="//proc/thread-self//ns/net"),
    "itself": lambda: Namespace(NamespaceType.FILE_REF_NS, filepath="/proc/thread-self/ns/net"),
    "a resolver that says home": lambda: by_label(0),
}


@pytest.mark.parametrize("meant", MEANT)
def test_a_reference_that_means_home_gets_its_link_there(meant: str, home: Netns) -> None:
    resolver = MemoryResolver()
    resolver.set("vnf1", "path:/proc/thread-self/ns/net")
    if os.stat("/proc/self/ns/net").st_ino != home.identity[1] and "process" in meant:
        return  # a test in a namespace of its own: the process is elsewhere
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        configurator.resync(pair(MEANT[meant]()))
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert names() == {"a", "b"}
        configurator.resync([])
        until(configurator, lambda: names() == set())
    resolver.close()


class SharingResolver(MemoryResolver):
    """As an engine's, of a container on the host's network."""

    def shares_home(self, label: str) -> bool:
        return label == "vnf1"


def test_a_container_on_the_network_of_the_host_gets_its_link_there(mover: Mover) -> None:
    resolver = SharingResolver()
    resolver.set("vnf1", f"pid:{mover.pid}")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        configurator.resync(pair(by_label(mover.pid)))
        until(configurator, lambda: states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"})
        assert names() == {"a", "b"}
        mover.end()
        until(configurator, lambda: names() == set())
    resolver.close()


def test_apply_waits_for_it_as_well(session: Session, mover: Mover) -> None:
    made = planned(session, *pair(by_pid(mover.pid)))
    assert made.operations == ()
    assert {str(verdict.state) for verdict in made.verdicts.values()} == {"PENDING"}
    mover.go()
    assert [operation.op for operation in planned(session, *pair(by_pid(mover.pid))).operations] == ["create"]


def test_a_monitor_goes_along_with_a_process(session: Session, mover: Mover) -> None:
    ref = f"pid:{mover.pid}"

    def heard(monitor: Monitor, what: tuple[str, str, str, str]) -> bool:
        told = [(one.what, one.action, one.netns, one.name) for one in monitor.poll(0.1)]
        return what in told

    with Monitor(session, [ref]) as monitor:
        mover.go()
        assert poll(lambda: heard(monitor, ("link", "new", ref, "lo")), SOON)
        session.create(Veth(End("x", ref), End("y", ref)))
        assert poll(lambda: heard(monitor, ("link", "new", ref, "x")), SOON)
        session.create(Veth(End("a"), End("b")))
        assert poll(lambda: heard(monitor, ("link", "new", "", "a")), SOON)
        mover.go()
        assert poll(lambda: heard(monitor, ("netns", "new", ref, "")), SOON)
        assert {link.name for link in monitor.links(ref)} == {"lo"}
        assert {link.name for link in monitor.links("")} == {"lo", "a", "b"}


def is_told(monitor: Monitor, what: str, action: str, netns: str) -> bool:
    return poll(lambda: (what, action, netns) in told_by(monitor), SOON)


def told_by(monitor: Monitor) -> list[tuple[str, str, str]]:
    return [(one.what, one.action, one.netns) for one in monitor.poll(0.1)]


def test_a_monitor_watches_what_a_process_has_left_while_another_has_ended(
    session: Session, mover: Mover, blue: str, red: str
) -> None:
    other = Mover()
    mover.go(f"/run/netns/{blue}")
    other.go(f"/run/netns/{red}")
    here, there = f"pid:{mover.pid}", f"pid:{other.pid}"
    with Monitor(session, [here, there]) as monitor:
        other.end()
        mover.go()
        assert is_told(monitor, "netns", "new", here)
        for name in (blue, red):
            ip("link", "set", "lo", "up", netns=name)
            assert is_told(monitor, "link", "changed", f"netns:{name}")
        assert set(monitor.netns) == {"", here, f"netns:{blue}", f"netns:{red}"}


def test_a_monitor_watches_where_a_process_is_when_that_loses_its_name(
    session: Session, mover: Mover, blue: str
) -> None:
    ref = f"pid:{mover.pid}"
    with Monitor(session, [ref]) as monitor:
        mover.go(f"/run/netns/{blue}")
        assert is_told(monitor, "netns", "new", ref)
        ns.remove(blue)
        assert is_told(monitor, "netns", "deleted", f"netns:{blue}")
        with Session() as other:
            other.set("lo", ref, up=True)
        assert is_told(monitor, "link", "changed", ref)


def test_a_monitor_watches_a_namespace_with_the_identity_of_one_that_ended_with_a_process(
    session: Session, mover: Mover, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mover.go(f"/run/netns/{blue}")
    with Monitor(session, [f"pid:{mover.pid}"]) as monitor:
        before = session.identity(blue)
        # As if the kernel gave the next one the same inode number, which it does if no other program is quicker.
        monkeypatch.setattr("vethlib.monitor.monitor.identity_at", lambda _path: before)
        mover.end()
        ns.remove(blue)
        Netns.create(blue).close()
        assert is_told(monitor, "netns", "new", f"netns:{blue}")
        ip("link", "set", "lo", "up", netns=blue)
        assert is_told(monitor, "link", "changed", f"netns:{blue}")


# --- a check that is interrupted


def is_readable(fd: int, timeout: float = 0.0) -> bool:
    watched = select.poll()
    watched.register(fd, select.POLLIN)
    return bool(watched.poll(1000 * timeout))


def test_a_move_after_an_interrupted_check_is_reported(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_path: str) -> None:
        raise KeyboardInterrupt

    with Follower() as follower:
        follower.follow([f"pid:{mover.pid}"])
        assert is_readable(follower.moves_fileno(), SOON)
        with monkeypatch.context() as patch:
            patch.setattr("vethlib.follow.whereabouts.shown_identity", interrupted)
            with pytest.raises(KeyboardInterrupt):
                follower.moved()
        mover.go()
        assert is_readable(follower.moves_fileno(), SOON)
        assert follower.moved() == {f"pid:{mover.pid}"}
        # Soon, because on a busy machine the next check may already be due.
        assert poll(lambda: follower.moved() == set() and not is_readable(follower.moves_fileno()), SOON)
        mover.go()
        assert poll(lambda: follower.moved() == {f"pid:{mover.pid}"}, SOON)


def is_interrupted(follower: Follower, at: int, moved: str) -> bool:
    """Interrupt a check at its n-th place, if it has one; the move is reported by then or by a later check."""
    reported: set[str] = set()
    interrupting = Interrupting(at, (timing.__file__,))
    interrupting.run(lambda: reported.update(follower.moved()))
    assert reported or poll(lambda: follower.moved() == {moved}, SOON), at
    return interrupting.fired


def test_a_check_that_is_interrupted_anywhere_loses_no_move(mover: Mover) -> None:
    ref = f"pid:{mover.pid}"
    for at in itertools.count(1):
        with Follower() as follower:
            follower.follow([ref])
            mover.go()
            assert is_readable(follower.moves_fileno(), SOON)
            if not is_interrupted(follower, at, ref):
                break
    assert at > 5


# --- what it costs


def test_looks_become_rarer_and_never_end(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LATER_LOOKS", 0.2)
    looks: list[float] = []

    def noted(path: str) -> tuple[int, int] | None:
        looks.append(time.monotonic())
        return shown_identity(path)

    monkeypatch.setattr("vethlib.follow.whereabouts.shown_identity", noted)
    with Follower() as follower:
        follower.follow([f"pid:{mover.pid}"])
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert follower.moved() == set()
            assert follower.changed() == set()
            assert follower.due() is None
            time.sleep(0.002)
        assert 3 <= len(looks) <= 9
        mover.go()
        assert poll(lambda: follower.moved() == {f"pid:{mover.pid}"})
        follower.unfollow([f"pid:{mover.pid}"])
        looks.clear()
        time.sleep(0.3)
        assert follower.moved() == set()
        assert looks == []


def test_thousands_of_processes_are_looked_at_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LATER_LOOKS", 0.05)
    looks: list[str] = []

    def noted(path: str) -> tuple[int, int] | None:
        looks.append(path)
        return None

    monkeypatch.setattr("vethlib.follow.whereabouts.shown_identity", noted)
    whereabouts = timing.Whereabouts()
    for pid in range(1, 3001):
        whereabouts.follow(f"pid:{pid}", f"/proc/{pid}/ns/net")
    counts = []
    deadline = time.monotonic() + SOON
    looks.clear()
    while len(set(looks)) < 3000:
        assert time.monotonic() < deadline
        before = len(looks)
        whereabouts.moved()
        counts.append(len(looks) - before)
        time.sleep(0.01)
    assert max(counts) <= 1300  # those in turn, and the new ones
    whereabouts.close()


# --- Netns.of_process


def test_a_namespace_is_opened_when_the_process_has_gone_there(mover: Mover) -> None:
    threading.Timer(0.2, mover.go).start()
    with Netns.of_process(mover.pid, timeout=SOON) as netns:
        assert netns.identity[1] == os.stat(f"/proc/{mover.pid}/ns/net").st_ino
        assert netns.ref == f"pid:{mover.pid}"
        assert netns.identity[1] != os.stat("/proc/thread-self/ns/net").st_ino
    with Netns.of_process(mover.pid, timeout=0) as netns:
        assert names(netns) == set()


def test_a_process_that_stays_is_waited_for_until_the_time_is_over(mover: Mover) -> None:
    began = time.monotonic()
    for timeout in (0, 0.1):
        with raises(WaitTimeout, awaited="move", netns=f"pid:{mover.pid}", seconds=timeout):
            Netns.of_process(mover.pid, timeout=timeout)
    assert 0.1 <= time.monotonic() - began < SOON


def test_a_process_that_ends_is_not_waited_for(mover: Mover) -> None:
    began = time.monotonic()
    threading.Timer(0.2, mover.process.kill).start()
    with pytest.raises(NetnsNotFound) as raised:
        Netns.of_process(mover.pid, timeout=600)
    assert raised.value.netns == f"pid:{mover.pid}"
    assert time.monotonic() - began < SOON
    mover.process.wait()
    for pid in (mover.pid, 4194303):
        with pytest.raises(NetnsNotFound):
            Netns.of_process(pid, timeout=600)


@pytest.mark.parametrize(
    ("pid", "timeout", "field"),
    [
        *((0, 1, "pid"), (-1, 1, "pid"), (True, 1, "pid"), ("1", 1, "pid"), (2**31, 1, "netns"), (1, -1, "timeout")),
        *((1, float("nan"), "timeout"), (1, "1", "timeout"), (1, None, "timeout"), (1, True, "timeout")),
    ],
)
def test_what_can_be_no_process_or_no_time_is_refused(pid: object, timeout: object, field: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        Netns.of_process(pid, timeout=timeout)  # type: ignore[arg-type]
    assert raised.value.field == field


def test_a_number_of_any_length_can_be_no_process() -> None:
    with raises(InvalidValue, field="pid"):
        Netns.of_process(10**5000)


def test_a_process_that_may_not_be_looked_at_is_named(mover: Mover) -> None:
    assert confined([], f"ns.Netns.of_process({mover.pid}, timeout=0)", []) == "sys_ptrace"


def test_a_process_that_ends_while_its_namespace_is_opened_is_gone(
    mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    mover.go()

    def open_and_end(ref: str) -> Descriptor:
        opened = open_owned(ref)
        mover.process.kill()
        mover.process.wait()
        return opened

    monkeypatch.setattr(elsewhere, "open_owned", open_and_end)
    with pytest.raises(NetnsNotFound) as raised:
        Netns.of_process(mover.pid, timeout=SOON)
    assert raised.value.netns == f"pid:{mover.pid}"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOENT])
def test_a_process_that_cannot_be_followed_is_an_error(
    mover: Mover, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_pid: int, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(elsewhere, "pidfd_open", fail)
    with pytest.raises(NetnsNotFound if number == errno.ENOENT else NetlinkError) as raised:
        Netns.of_process(mover.pid)
    assert str(mover.pid) in str(raised.value)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_pidfds_a_process_is_known_by_its_start_time(
    mover: Mover, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_pid: int, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(elsewhere, "pidfd_open", refuse)
    with raises(WaitTimeout, awaited="move", netns=f"pid:{mover.pid}", seconds=0):
        Netns.of_process(mover.pid, timeout=0)
    threading.Timer(0.2, mover.go).start()
    with Netns.of_process(mover.pid, timeout=SOON) as netns:
        assert netns.identity[1] == os.stat(f"/proc/{mover.pid}/ns/net").st_ino
    mover.process.kill()
    mover.process.wait()
    with raises(NetnsNotFound, netns=f"pid:{mover.pid}"):
        Netns.of_process(mover.pid, timeout=SOON)


def test_without_pidfds_the_end_of_a_process_ends_the_wait(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _flags: int) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(elsewhere, "pidfd_open", refuse)
    threading.Timer(0.2, mover.process.kill).start()
    began = time.monotonic()
    with raises(NetnsNotFound, netns=f"pid:{mover.pid}"):
        Netns.of_process(mover.pid, timeout=600)
    assert time.monotonic() - began < SOON
