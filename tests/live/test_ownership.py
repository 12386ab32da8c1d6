"""Ownership of pairs: what a tenant writes on its own links decides nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.agents import run_agent, started
from tests.live.applying import LABEL, value
from tests.live.configuring import by_pid, configured, foreign, pair, placed, quickly, settle, until
from tests.live.rewriting import REWRITES, rewrite
from tests.witness import host_state, ip, names, seen
from vethlib import Session, ns
from vethlib.agent import Interface, State, group_of
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.cli import main

GROUP = str(group_of(LABEL))


@pytest.fixture
def green(make_netns: Callable[..., None]) -> str:
    make_netns("green")
    return "green"


@pytest.fixture
def tenants(home: ns.Netns) -> Iterator[Callable[[], int]]:
    """Start a process in its own unnamed network namespace; return its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        here = os.stat("/proc/self/ns/net").st_ino
        started.append(subprocess.Popen(["unshare", "-n", "sleep", "60"]))
        deadline = time.monotonic() + 10
        while os.stat(f"/proc/{started[-1].pid}/ns/net").st_ino in (here, os.stat("/proc/thread-self/ns/net").st_ino):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def between(a: int, b: int) -> list[Interface]:
    """Two interfaces in the namespaces of two processes."""
    return [placed("a", "b", by_pid(a)), placed("b", "a", by_pid(b))]


rewrites = pytest.mark.parametrize("how", REWRITES)


@pytest.mark.parametrize("running", [True, False], ids=["running", "restarted"])
@rewrites
def test_a_pair_that_is_given_up_goes_whatever_its_tenant_has_written_on_it(
    session: Session, blue: str, how: str, running: bool
) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue"))
        settle(first)
        if running:
            rewrite(how)
            first.delete("a")
            first.delete("b")
            settle(first)
            assert (names(), names("blue")) == (set(), set())
            return
    rewrite(how)
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert (names(), names("blue")) == (set(), set())


@rewrites
def test_a_pair_between_two_other_namespaces_goes_too(session: Session, blue: str, red: str, how: str) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
    rewrite(how)
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert (names("blue"), names("red")) == (set(), set())


def test_a_pair_whose_other_end_was_moved_away_and_rewritten_goes_too(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("blue", "red", "hidden")
    with Configurator(session) as first:
        first.resync([*pair("a", "b", "blue"), *pair("c", "d", "blue", "red")])
        settle(first)
    for name in ("a", "c"):
        ip("link", "set", "dev", name, "netns", "hidden", netns="blue")
        ip("link", "set", "dev", name, "address", "02:00:00:00:00:77", "alias", "mine", netns="hidden")
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert [names(where) for where in ("", "blue", "red", "hidden")] == [set()] * 4


@pytest.mark.parametrize("running", [True, False], ids=["running", "restarted"])
def test_a_pair_of_which_both_ends_were_moved_and_rewritten_goes_too(
    session: Session, blue: str, red: str, running: bool
) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        for name, at, to in (("a", "blue", "red"), ("b", "red", "blue")):
            ip("link", "set", "dev", name, "name", f"x{name}", "netns", to, netns=at)
            ip("link", "set", "dev", f"x{name}", "alias", "mine", "group", "0", netns=to)
        if running:
            first.resync([])
            settle(first)
    if not running:
        with Configurator(session) as second:
            second.resync([])
            settle(second)
    assert (names("blue"), names("red")) == (set(), set())


def test_what_a_tenant_writes_on_its_end_is_no_drift(configurator: Configurator, blue: str, red: str) -> None:
    configurator.resync([*pair("a", "b", "blue"), *pair("c", "d", "blue", "red")])
    settle(configurator)
    done = configurator.tally.done.total()
    for name in ("a", "c"):
        ip("link", "set", "dev", name, "alias", "mine", netns="blue")
    settle(configurator)
    configurator.resync()
    settle(configurator)
    assert configured(configurator, "a", "b", "c", "d")()
    assert configurator.tally.done.total() == done
    assert seen("a", "blue")["ifalias"] == seen("c", "blue")["ifalias"] == "mine"
    ip("link", "set", "dev", "c", "mtu", "1300", netns="blue")  # what is configured is kept so all the same
    until(configurator, lambda: seen("c", "blue")["mtu"] == 1500)
    assert configured(configurator, "c")()


def forging(netns: str, stop: threading.Event) -> None:
    """Mark the tenant's own links as those of others, again and again."""
    lines = []
    for name in ("qa", "qb"):
        for link in ("f1", "f2"):
            lines += [f"link set dev {link} alias 'vethlib label={LABEL} name={name}'", f"link set dev {link} up"]
            lines += [f"link set dev {link} group {GROUP}", f"link set dev {link} down"]
    batch = "\n".join(lines * 20).encode()
    while not stop.is_set():
        subprocess.run(["ip", "-n", netns, "-batch", "-"], input=batch, check=False, capture_output=True)


def test_forged_marks_concern_nobody(configurator: Configurator, blue: str, red: str) -> None:
    foreign("f1", "red", "f2")
    configurator.resync([*pair("qa", "qb", "blue"), *pair("t", "u", "red")])
    settle(configurator)
    done = configurator.tally.done.total()
    stop = threading.Event()
    thread = threading.Thread(target=forging, args=("red", stop))
    thread.start()
    try:
        for _ in range(3):  # more frequent repairs wait, whatever their cause
            until(configurator, lambda: "ifalias" in seen("f2", "red"))
            ip("link", "set", "dev", "qa", "mtu", "1300", netns="blue")
            until(configurator, lambda: seen("qa", "blue")["mtu"] == 1500)
            settled_states = [one.state for one in configurator.status()]
            assert State.RETRYING not in settled_states
    finally:
        stop.set()
        thread.join()
    settle(configurator)
    configurator.resync()
    settle(configurator)
    assert configured(configurator, "qa", "qb", "t", "u")()
    assert {"f1", "f2"} <= names("red")
    assert configurator.tally.done.total() == done + 3


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize("where", ["", "red", "blue"])
def test_a_link_of_others_with_forged_marks_is_in_the_way_and_stays(
    session: Session, blue: str, red: str, where: str, at_start: bool
) -> None:
    """Its other end may be anywhere: for example in home, where it belongs to the container engine."""
    with Configurator(session) as earlier:
        earlier.resync([])
        settle(earlier)  # a record is there
    there = ["netns", where] if where else []
    ip("link", "add", "name", "theirs", *there, "type", "veth", "peer", "name", "a", "netns", "blue")
    ip("link", "set", "dev", "a", "alias", f"vethlib label={LABEL} name=a", "group", GROUP, netns="blue")
    before = host_state()
    with Configurator(session) as configurator:
        if not at_start:
            configurator.resync([])
            settle(configurator)
        configurator.resync(pair("a", "b", "blue"))
        settle(configurator)
        assert host_state() == before
        assert [one.state for one in configurator.status()] == [State.FAILED, State.PENDING]
        ip("link", "del", "dev", "a", netns="blue")
        until(configurator, configured(configurator, "a", "b"))


# --- namespaces without names


def test_a_pair_between_namespaces_without_names_is_found_again_and_removed(
    session: Session, tenants: Callable[[], int]
) -> None:
    one, two = tenants(), tenants()
    with Configurator(session) as first:
        first.resync(between(one, two))
        settle(first)
        assert (names(f"pid:{one}"), names(f"pid:{two}")) == ({"a"}, {"b"})
    quickly(*REWRITES["both"], netns=f"pid:{one}")
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert names(f"pid:{one}") == names(f"pid:{two}") == set()


def test_it_is_found_by_another_process_that_is_in_there(session: Session, tenants: Callable[[], int]) -> None:
    one, two = tenants(), tenants()
    with Configurator(session) as first:
        first.resync(between(one, two))
        settle(first)
    others = [subprocess.Popen(["nsenter", f"--net=/proc/{pid}/ns/net", "sleep", "60"]) for pid in (one, two)]
    try:
        inodes = [os.stat(f"/proc/{pid}/ns/net").st_ino for pid in (one, two)]
        deadline = time.monotonic() + 10
        while [os.stat(f"/proc/{other.pid}/ns/net").st_ino for other in others] != inodes:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for pid in (one, two):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        with Configurator(session) as second:
            second.resync([])
            settle(second)
            assert [names(f"pid:{other.pid}") for other in others] == [set(), set()]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_no_namespace_is_entered_in_which_nothing_was_built(
    session: Session, tenants: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, stranger = tenants(), tenants(), tenants()
    with Configurator(session) as first:
        first.resync(between(one, two))
        settle(first)
    entered: list[int] = []

    def noting(function: Callable[..., object]) -> Callable[..., object]:
        def noted(fds: object, *rest: object) -> object:
            numbers = [fds] if isinstance(fds, int) else list(fds)  # type: ignore[call-overload]
            entered.extend(os.fstat(fd).st_ino for fd in numbers)
            return function(fds if isinstance(fds, int) else numbers, *rest)

        return noted

    for name in ("call_in", "map_in"):
        monkeypatch.setattr(ns, name, noting(getattr(ns, name)))
    with Configurator(session) as second:
        second.resync([])
        settle(second)
    assert {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in (one, two)} <= set(entered)
    assert os.stat(f"/proc/{stranger}/ns/net").st_ino not in entered


def test_pairs_of_a_tenant_that_bears_our_marks_are_left_alone_once_there_is_a_record(
    session: Session, tenants: Callable[[], int]
) -> None:
    one = tenants()
    with Configurator(session) as first:
        first.resync([])
        settle(first)
    foreign("x", f"pid:{one}", "y")
    for name in ("x", "y"):
        alias = f"vethlib label={LABEL} name={name}"
        ip("link", "set", "dev", name, "alias", alias, "group", GROUP, netns=f"pid:{one}")
    with Configurator(session) as second:
        second.resync([placed("a", "b", by_pid(one)), placed("b", "a", by_pid(one))])
        settle(second)
        assert names(f"pid:{one}") == {"a", "b", "x", "y"}
        second.resync([])
        settle(second)
        assert names(f"pid:{one}") == {"x", "y"}


@pytest.mark.needs_kernel("5.14")
def test_a_record_of_a_namespace_that_was_replaced_is_void(session: Session, blue: str, red: str) -> None:
    """Its inode number is given to another namespace at once, which the cookie shows."""
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
    with RecordFile(session, LABEL) as records:
        (known,) = records.record
        assert all(end.cookie for end in known.ends)
        path = records.path
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for line in lines:
        if line[0] == "pair":
            for end in line[1:3]:
                end[1][2] += 1000
    Path(path).write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    before = host_state()
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert host_state() == before


# --- vethctl


@pytest.fixture
def values(tmp_path: Path) -> Callable[..., str]:
    """Write interfaces in the namespaces of two processes; return the path of the file."""

    def write(*pids: int) -> str:
        ends = zip(("a", "b"), ("b", "a"), pids, strict=False)
        made = [{"name": n, "enabled": True, "namespace": {"pid": p}, "veth": {"peer_if_name": o}} for n, o, p in ends]
        path = tmp_path / f"{len(pids)}.json"
        path.write_text(json.dumps(made))
        return str(path)

    return write


def vethctl(*args: str) -> tuple[int, list[dict[str, object]]]:
    """The exit code and what was done."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*args, "--json"])
    done = json.loads(out.getvalue() or "[]")
    assert isinstance(done, list)
    return code, done


def test_what_apply_made_between_namespaces_without_names_its_prune_finds(
    session: Session, tenants: Callable[[], int], values: Callable[..., str]
) -> None:
    one, two = tenants(), tenants()
    assert vethctl("apply", values(one, two))[0] == 0
    quickly(*REWRITES["both"], netns=f"pid:{one}")
    code, done = vethctl("diff", "--prune", values())
    assert (code, [entry["op"] for entry in done]) == (1, ["delete"])
    assert names(f"pid:{one}") == {"a"}
    code, done = vethctl("apply", "--prune", values())
    assert (code, [entry["op"] for entry in done]) == (0, ["delete"])
    assert names(f"pid:{one}") == names(f"pid:{two}") == set()


def test_a_dry_run_writes_no_record(session: Session, blue: str, values: Callable[..., str]) -> None:
    with RecordFile(session, LABEL, read_only=True) as records:
        path = records.path
    for args in (["diff"], ["apply", "--dry-run"]):
        vethctl(*args, values(os.getpid(), os.getpid()))
    assert not os.path.exists(path)


def test_an_agent_knows_what_apply_has_made(
    session: Session, tenants: Callable[[], int], values: Callable[..., str]
) -> None:
    one, two = tenants(), tenants()
    assert vethctl("apply", values(one, two))[0] == 0
    quickly(*REWRITES["all"], netns=f"pid:{one}")
    with Configurator(session) as configurator:
        configurator.resync([])
        settle(configurator)
        assert names(f"pid:{one}") == names(f"pid:{two}") == set()


# --- killed at any moment


def test_what_is_killed_at_any_moment_leaves_no_pair_behind_whatever_tenants_do(
    session: Session, make_netns: Callable[..., None], tmp_path: Path
) -> None:
    """Pairs without an end at home; each tenant rewrites its end as soon as it can."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    spaces = [f"n{number}" for number in range(4)]
    make_netns(*spaces)
    for number in range(3):  # of others
        ip(
            "link",
            "add",
            "name",
            f"o{number}",
            "netns",
            "n0",
            "type",
            "veth",
            "peer",
            "name",
            f"p{number}",
            "netns",
            "n1",
        )
    before = host_state()
    store = tmp_path / "store"
    store.mkdir()
    for _ in range(25):
        for path in store.glob("*.json"):
            if choose.random() < 0.5:
                path.unlink()
        for number in choose.sample(range(30), 15):
            ends = choose.sample(spaces, 2)
            for name, peer, netns in ((f"a{number}", f"b{number}", ends[0]), (f"b{number}", f"a{number}", ends[1])):
                (store / f"{name}.json").write_text(json.dumps(value(name, peer, netns)))
        pid = started(store)
        ends_at = time.monotonic() + choose.random() * 0.08
        while time.monotonic() < ends_at:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        # One tenant for each pair: a tenant that has both ends may keep what a crash left.
        lines = [f"link set dev a{number} alias mine group 7" for number in range(30)]
        for netns in spaces:
            with ns.entered(netns):
                subprocess.run(["ip", "-force", "-batch", "-"], input="\n".join(lines).encode(), capture_output=True)
    for path in store.glob("*.json"):
        path.unlink()
    run_agent(store, once=True)
    assert host_state() == before


def test_a_tenant_that_renames_its_end_as_fast_as_it_can_does_not_keep_it(
    session: Session, blue: str, red: str
) -> None:
    with Configurator(session) as configurator:
        configurator.resync(pair("a", "b", "blue", "red"))
        settle(configurator)
        stop = threading.Event()

        def renaming() -> None:
            swap = "\n".join(["link set dev a name z", "link set dev z name a"] * 50)
            while not stop.is_set():
                command = ["ip", "-n", "blue", "-force", "-batch", "-"]
                subprocess.run(command, input=swap.encode(), check=False, capture_output=True)

        thread = threading.Thread(target=renaming)
        thread.start()
        try:
            configurator.resync([])
            until(configurator, lambda: names("blue") == names("red") == set())
        finally:
            stop.set()
            thread.join()


def test_what_a_tenant_fights_for_makes_no_other_interface_wait(session: Session, blue: str, red: str) -> None:
    """A tenant sets its end down whenever it is up; another tenant's pair is repaired as usual."""
    with Configurator(session) as configurator:
        configurator.resync([*pair("a", "b", "blue"), *pair("qa", "qb", "red")])
        settle(configurator)
        stop = threading.Event()

        def fighting() -> None:
            down = "\n".join([f"link set dev a down alias 'vethlib label={LABEL} name=qa'"] * 50)
            while not stop.is_set():
                subprocess.run(
                    ["ip", "-n", "blue", "-batch", "-"], input=down.encode(), capture_output=True, check=False
                )

        thread = threading.Thread(target=fighting)
        thread.start()
        try:
            until(configurator, lambda: [one.state for one in configurator.status("a")] == [State.RETRYING])
            with configurator.subscribe() as told:
                for _ in range(3):
                    ip("link", "set", "dev", "qb", "mtu", "1300")
                    until(configurator, lambda: seen("qb")["mtu"] == 1500)
                states = {one.status.state for one in told.take() if one.name in ("qa", "qb") and one.status}
            assert states == {State.CONFIGURED}
            assert configured(configurator, "qa", "qb")()
        finally:
            stop.set()
            thread.join()
        until(configurator, configured(configurator, "a", "b", "qa", "qb"))
