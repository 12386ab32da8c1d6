"""Opening a reference that leads to no namespace, or nowhere, or to a file system that does not answer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.bad_references import BAD, bad, within
from tests.live.silent import nobody_waits, silent_fuse, waited_in_vain
from tests.witness import names, poll
from vethlib import BatchError, End, InvalidValue, NetlinkError, Netns, NetnsNotFound, Session, Veth, VethError, ns
from vethlib.ns.files import answers
from vethlib.ns.files.glance import NoAnswer

pytestmark = pytest.mark.usefixtures("little_patience")

NETNS_DIR = Path("/run/netns")
ROOT = Path(__file__).parents[2]
LONGEST = 10.0  # seconds that a look may take, on a busy machine; one that opens a FIFO takes for ever


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "some").mkdir()
    return tmp_path / "some"


@pytest.mark.parametrize("kind", BAD)
def test_it_is_refused_soon_and_untouched_wherever_it_is(
    kind: str, session: Session, blue: str, red: str, elsewhere: Path
) -> None:
    for path, ref in ((NETNS_DIR / "bad", "bad"), (elsewhere / "bad", f"path:{elsewhere}/bad")):
        with bad(kind, path):
            for ask in (
                partial(session.identity, ref),
                partial(session.links, ref),
                partial(ns.open_fd, ref),
                partial(Netns.open, ref),
                partial(session.lookup, "lo", ref),
                partial(session.create, Veth(End("a"), End("b", ref))),
            ):
                with pytest.raises(VethError):
                    within(LONGEST, ask)
            pairs = [Veth(End("v"), End("w", ref)), Veth(End("x", blue), End("y", red))]
            with pytest.raises(BatchError) as caught:
                session.create_many(pairs, on_error="continue")
            assert [error.item for error in caught.value.exceptions] == pairs[:1]
            survey = session.survey(["", ref, blue, red])
            assert isinstance(survey.places[ref], VethError)
            assert {(one.ref, one.link.name) for one in survey.links if one.peer} == {(blue, "x"), (red, "y")}
            assert {"", "netns:blue", "netns:red"} <= set(ns.everywhere())
            session.delete_many([("x", blue)])
            assert names(blue) == set()


# --- file systems that do not answer


def test_one_that_is_silent_keeps_one_thread_and_is_waited_for_once(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = len(os.listdir("/proc/self/task"))
    with silent_fuse(tmp_path / "silent"), waited_in_vain(monkeypatch) as waits:
        for number in range(50):
            (tmp_path / f"{number}").symlink_to(tmp_path / "silent" / f"{number}")
        refs = [f"path:{tmp_path}/{number}" for number in range(50)]
        refs += [f"path:{tmp_path}/silent/{number}/x" for number in range(50)]
        for _ in range(3):
            assert all(isinstance(place, VethError) for place in session.survey(refs).places.values())
        assert 1 <= len(waits) < 30  # of 300 looks; a thread may be late because the machine is busy
        assert poll(lambda: len(os.listdir("/proc/self/task")) <= threads + 1)
    assert poll(lambda: len(os.listdir("/proc/self/task")) == threads)


def test_many_that_are_silent_are_waited_for_no_longer_than_one(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.5)
    monkeypatch.setattr(answers, "_debt", 0.0)  # earlier tests have waited in vain, too
    with ExitStack() as mounted:
        for number in range(8):
            mounted.enter_context(silent_fuse(tmp_path / f"{number}"))
        began = time.monotonic()
        with waited_in_vain(monkeypatch) as waits:
            session.survey(f"path:{tmp_path}/{number}/x" for number in range(8))
        # Once, then a tenth of the time, and at least so long for each.
        assert waits[0] == 0.5
        assert sum(waits) <= 0.5 + 0.1 * (time.monotonic() - began) + 7 * answers.LEAST_PATIENCE


def test_where_too_many_are_silent_what_is_in_memory_is_found_still(
    session: Session, blue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_STUCK", 2)
    threads = len(os.listdir("/proc/self/task"))
    with ExitStack() as mounted:
        refs = [f"path:{tmp_path}/{number}/x" for number in range(4)]
        for number in range(4):
            mounted.enter_context(silent_fuse(tmp_path / f"{number}"))
        survey = session.survey([*refs, blue, f"path:{NETNS_DIR}/{blue}"])
        assert all(isinstance(survey.places[ref], NetlinkError) for ref in refs)
        assert survey.places[blue] == survey.places[f"path:{NETNS_DIR}/{blue}"]
        assert len(os.listdir("/proc/self/task")) <= threads + 2


def test_one_that_answers_again_is_asked_again(session: Session, tmp_path: Path) -> None:
    with silent_fuse(tmp_path / "silent") as server:
        ref = f"path:{tmp_path}/silent/x"
        with pytest.raises(NetlinkError) as caught:
            session.identity(ref)
        assert caught.value.errno == errno.ETIMEDOUT
        with open(os.devnull) as null:
            os.dup2(null.fileno(), server)
        assert nobody_waits()
        with pytest.raises(NetlinkError) as caught:
            session.identity(ref)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNREFUSED)  # the latter on newer kernels, such as 7.2


def test_where_the_kernel_cannot_say_what_it_has_in_memory_files_are_opened_all_the_same(
    session: Session, blue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESOLVE_CACHED came with Linux 5.12, and old seccomp filters refuse openat2."""
    monkeypatch.setattr("vethlib.ns.files.glance._can_open_cached", False)
    assert session.identity(f"path:{NETNS_DIR}/../netns/{blue}") == session.identity(blue)
    with bad("fifo_with_a_writer", tmp_path / "bad"), pytest.raises(NetnsNotFound):
        session.identity(f"path:{tmp_path}/bad")
    with silent_fuse(tmp_path / "silent"), pytest.raises(NetlinkError):
        session.identity(f"path:{tmp_path}/silent/x")


def test_where_no_thread_can_be_started_what_needs_none_is_opened(
    session: Session, blue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    with silent_fuse(tmp_path / "silent"):
        refs = [blue, f"path:{NETNS_DIR}/{blue}", f"path:{tmp_path}/missing", f"path:{tmp_path}/silent/x"]
        there, by_file, missing, silent = session.survey(refs).places.values()
    assert there == by_file
    assert isinstance(missing, NetnsNotFound)
    assert isinstance(silent, NetlinkError)


def test_a_link_into_proc_is_followed_wherever_it_is_and_a_missing_path_is_missing(
    session: Session, blue: str, elsewhere: Path
) -> None:
    with ns.Netns.open(blue) as netns:
        text = f"/proc/self/fd/{netns.fd}"
        for path, target in {
            elsewhere / "process": f"/proc/{os.getpid()}/ns/net",
            elsewhere / "thread": f"/proc/self/task/{os.getpid()}/ns/net",
            NETNS_DIR / "process": f"/proc/{os.getpid()}/ns/net",
        }.items():
            path.symlink_to(target)
            assert session.identity(f"path:{path}") == (os.stat(target).st_dev, os.stat(target).st_ino)
        (elsewhere / "descriptor").symlink_to(text)
        assert session.identity(f"path:{elsewhere}/descriptor") == session.identity(blue)
    for missing in ("a", "a/b/c", "a//b", "process/x", "../some/./a"):
        with pytest.raises(NetnsNotFound):
            session.identity(f"path:{elsewhere}/{missing}")
    assert ns.opening.identity_at(f"{elsewhere}/nothing") is None
    with pytest.raises(FileNotFoundError):
        ns.opening.entry_at(f"{elsewhere}/nothing")
    assert ns.opening.entry_at(f"{elsewhere}/process").link == f"/proc/{os.getpid()}/ns/net"


def test_a_descriptor_that_is_no_namespace_is_refused_by_number(session: Session, tmp_path: Path) -> None:
    with silent_fuse(tmp_path / "silent") as server, pytest.raises(NetnsNotFound):
        within(LONGEST, lambda: session.identity(f"fd:{server}"))


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), None, "1", [1], 1j])
def test_patience_is_a_positive_number(seconds: Any) -> None:
    with pytest.raises(InvalidValue):
        ns.set_patience(seconds)


def test_patience_may_be_longer_than_what_a_lock_takes() -> None:
    ns.set_patience(1e300)
    assert answers.answered("/", lambda: 1) == 1


def test_patience_can_be_set(session: Session, tmp_path: Path) -> None:
    ns.set_patience(0.3)
    with silent_fuse(tmp_path / "silent"), pytest.raises(NetlinkError):
        began = time.monotonic()
        session.identity(f"path:{tmp_path}/silent/x")
    assert answers.PATIENCE == 0.3
    assert time.monotonic() - began > 0.04


def test_where_the_c_library_has_no_statx_files_are_looked_at_all_the_same(
    session: Session, blue: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.ns.files.glance._has_statx", False)
    assert session.identity(blue) == session.identity(f"path:{NETNS_DIR}/{blue}")
    with bad("fifo_with_a_writer", NETNS_DIR / "bad"), pytest.raises(NetnsNotFound):
        session.identity("bad")
    with bad("loop", NETNS_DIR / "bad"), pytest.raises(NetlinkError):
        session.identity("bad")
    with pytest.raises(NetnsNotFound):
        session.identity(f"path:{elsewhere}/missing")


WITHOUT_STATX = """
import sys
from vethlib import End, Netns, Session, Veth, VethError, ns
with Netns.create("made"), Session() as session:
    session.create(Veth(End("a", "made"), End("b", "blue")))
    links = sorted((ref, each.name) for ref in ("made", "blue") for each in session.links(ref))
    print(links, sorted(ns.names()), session.identity("made") == session.identity("path:/run/netns/made"))
    try:
        session.identity("missing")
    except VethError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_where_a_sandbox_refuses_statx_files_are_looked_at_all_the_same(blue: str, error: str) -> None:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=statx", "-e", f"inject=statx:error={error}"]
    done = subprocess.run([*strace, sys.executable, "-c", WITHOUT_STATX], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "[('blue', 'b'), ('blue', 'lo'), ('made', 'a'), ('made', 'lo')] ['blue', 'made'] True",
        "NetnsNotFound",
    ]


def test_a_thread_says_of_each_file_system_on_the_way_that_it_is_about_to_ask_it(
    home: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "way").symlink_to("./directory/../self")
    (tmp_path / "self").symlink_to(f"/proc/self/root/{tmp_path}/directory")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    root, proc, own = (os.stat(path).st_dev for path in ("/", "/proc", tmp_path))
    for path, devices in {
        f"{tmp_path}/way/missing/x": {root, proc, own},
        f"{tmp_path}/loop/x": {root, own},
        f"/{tmp_path}//./directory": {root, own},
    }.items():
        asked: list[int] = []
        question = answers._Question(path, lambda: "answer")
        monkeypatch.setattr(question, "about_to_ask", asked.append)
        question._run()  # which is what the thread does
        assert question._answer == "answer"
        assert question.asking is None
        assert set(asked) == devices


def test_nobody_asks_a_file_system_that_keeps_another_thread(home: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, late = (answers._Question(path, lambda: None) for path in ("/a", "/b"))
    stuck.asking = os.stat("/").st_dev
    with monkeypatch.context() as patch:
        patch.setattr(answers, "_stuck", {stuck})
        late._run()
        assert isinstance(late._error, TimeoutError)
        assert stuck.paths == {"/a", "/b"}
        with pytest.raises(TimeoutError):
            answers.answered("/b", lambda: None)
    again = answers._Question("/c", lambda: "answer")
    again.late = True
    again._run()
    assert again._answer is None


def test_a_directory_is_accessed_wherever_it_is_and_a_silent_one_takes_one_thread(home: Netns, elsewhere: Path) -> None:
    (elsewhere / "file").touch()
    for path in ("/", "/run", str(elsewhere), "/proc/sys/net"):
        assert ns.opening.unhurried(path, os.listdir) == os.listdir(path)
    with pytest.raises(FileNotFoundError):
        ns.opening.unhurried(f"{elsewhere}/missing", os.listdir)
    with silent_fuse(elsewhere / "silent"):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                ns.opening.unhurried(f"{elsewhere}/silent", os.listdir)
        assert len(answers._stuck) == 1
    nobody_waits()


def test_entries_are_told_for_what_they_are(home: Netns, elsewhere: Path, make_netns: Callable[..., None]) -> None:
    make_netns("blue")
    (elsewhere / "file").touch()
    (elsewhere / "link").symlink_to("file")
    for path in ("/", "/proc/self", "/run/netns", "/run/netns/blue", f"{elsewhere}/file", f"{elsewhere}/link"):
        entry, told = ns.opening.entry_at(path), os.lstat(path)
        assert (entry.mode, entry.ino, entry.ctime_ns, entry.dev) == (
            told.st_mode,
            told.st_ino,
            told.st_ctime_ns,
            told.st_dev,
        )
        assert entry.link == (os.readlink(path) if os.path.islink(path) else "")
    with silent_fuse(elsewhere / "silent"), pytest.raises(TimeoutError):
        ns.opening.entry_at(f"{elsewhere}/silent/x")
    assert ns.opening.is_leftover(ns.opening.entry_at("/run")) is False


# --- a machine that is busy


@pytest.fixture
def contended() -> Iterator[None]:
    """This process shares one processor with another one, which never rests."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, before)


def give_way() -> None:
    """Give this thread little processor time, as on an overloaded machine."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)


@pytest.mark.parametrize("device", [None, 1])
def test_a_thread_that_gets_no_processor_is_no_file_system_without_an_answer(
    contended: None, monkeypatch: pytest.MonkeyPatch, device: int | None
) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.03)  # some ticks of a kernel that counts in hundredths of a second
    monkeypatch.setattr(answers, "_LONGEST_STARVED", 200.0)  # the machine may be busy with other work, too

    def ask() -> int:
        give_way()
        until = time.thread_time() + 0.004
        while time.thread_time() < until:
            pass
        return 7

    for _ in range(5):
        assert answers.answered("/run", ask, device) == 7
    assert nobody_waits()


def test_a_thread_that_has_had_its_time_is_given_up(home: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.05)
    end: list[int] = []

    def ask() -> None:
        while not end:
            pass

    try:
        with pytest.raises(TimeoutError):
            answers.answered("/run", ask)
    finally:
        end.append(1)
    assert poll(nobody_waits)


class Slow(set[Any]):
    """A set from which removing something takes time, most of all for the thread of the test."""

    def discard(self, each: object) -> None:
        time.sleep(0.1 if threading.current_thread() is threading.main_thread() else 0.03)
        super().discard(each)


def test_an_answer_at_the_last_moment_is_whole(home: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_answered(self: Any, seconds: float) -> bool:
        """Give up at the very moment at which the answer arrives."""
        while self._done.locked():
            time.sleep(0.001)
        return False

    monkeypatch.setattr(answers, "_stuck", Slow())
    monkeypatch.setattr(answers._Question, "_is_answered", is_answered)
    for _ in range(5):
        with suppress(NoAnswer):
            assert answers.answered("/run", lambda: 7, 1) == 7
    assert poll(lambda: not answers._stuck)
