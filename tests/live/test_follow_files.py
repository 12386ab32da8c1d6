"""Named namespaces and other files, followed: every change of where they lead is reported."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.capabilities import dropped
from tests.live.followers import nothing_more, sh, told, watches
from tests.live.threads import in_thread
from tests.mounts import unmount_all
from tests.witness import poll
from vethlib import NetnsNotFound, ns
from vethlib.follow import Follower, paths
from vethlib.ns.syscalls import CLONE_NEWNS, MNT_DETACH, MS_BIND, mount, umount2, unshare

HERE = "/proc/thread-self/ns/net"
DIRECTORY = Path("/run/netns")


@pytest.fixture(autouse=True, params=["which mount has changed", "that one has changed"])
def what_the_kernel_tells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.8, and where it is forbidden to ask, it does not tell which mount has changed."""
    if request.param == "that one has changed":
        monkeypatch.setattr(paths, "mount_ids", lambda: None)


def bind(source: str | Path, target: str | Path, flags: int = 0) -> None:
    mount(os.fsencode(source), os.fsencode(target), b"none", MS_BIND | flags, None)


def unmount(target: str | Path) -> None:
    umount2(os.fsencode(target), MNT_DETACH)


def leads_to(ref: str) -> int | None:
    """The number of the namespace that opening finds; None if it finds none."""
    try:
        with ns.Netns.open(ref) as netns:
            return netns.identity[1]
    except NetnsNotFound:
        return None


@pytest.fixture
def follower(home: ns.Netns) -> Iterator[Follower]:
    with Follower() as follower:
        yield follower


@pytest.fixture
def other(home: ns.Netns) -> Iterator[str]:
    """A file in /proc that is another namespace than home, of a process that lives as long as the test."""
    with ns.Netns.anonymous() as netns, netns.entered():
        process = subprocess.Popen(["sleep", "60"])
    yield f"/proc/{process.pid}/ns/net"
    process.kill()
    process.wait()


@pytest.fixture
def sleepers(home: ns.Netns) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes."""
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def tree(tmp_path: Path, home: ns.Netns) -> Iterator[Path]:
    """A directory of the test's own; what is mounted in it is unmounted in the end."""
    yield tmp_path
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    for place in [line.split()[4] for line in reversed(lines) if line.split()[4].startswith(str(tmp_path))]:
        unmount(place)


# --- named


def test_a_namespace_that_ip_makes_is_told_and_then_opens(follower: Follower) -> None:
    follower.follow(["blue", "netns:blue", "red"])
    sh("ip netns add blue")
    assert told(follower) == {"blue", "netns:blue"}
    assert leads_to("blue") == os.stat("/run/netns/blue").st_ino


def test_whoever_hears_of_the_file_too_early_hears_of_the_namespace_too(follower: Follower) -> None:
    for _ in range(20):
        follower.follow(["blue"])
        process = subprocess.Popen(["ip", "netns", "add", "blue"])
        opened = None
        while opened is None:
            assert told(follower) == {"blue"}
            opened = leads_to("blue")
        assert process.wait() == 0
        sh("ip netns del blue")
        follower.unfollow(["blue"])


def test_a_mount_over_a_file_that_is_there_already_is_told(follower: Follower) -> None:
    sh("ip netns add red")
    (DIRECTORY / "blue").touch()
    follower.follow(["blue"])
    assert told(follower, 0.05) == set()
    bind(HERE, DIRECTORY / "blue")
    assert told(follower) == {"blue"}
    assert leads_to("blue") == os.stat(HERE).st_ino


def test_a_deleted_namespace_is_told_and_so_is_another_of_the_same_name(follower: Follower) -> None:
    sh("ip netns add blue")
    follower.follow(["blue"])
    for _ in range(3):
        sh("ip netns del blue")
        assert told(follower) == {"blue"}
        nothing_more(follower)
        sh("ip netns add blue")
        assert told(follower) == {"blue"}
        nothing_more(follower)


def test_a_namespace_replaced_between_two_calls_is_told(follower: Follower) -> None:
    sh("ip netns add blue")
    follower.follow(["blue"])
    sh("ip netns del blue; ip netns add blue")
    assert told(follower) == {"blue"}


def unshared(function: Callable[[], None]) -> None:
    """Call it in a thread with a mount namespace of its own, and raise here what is raised there."""

    def run() -> None:
        unshare(CLONE_NEWNS)
        function()

    in_thread(run)


def without_directory() -> None:
    unmount_all(DIRECTORY)
    DIRECTORY.rmdir()


def test_the_directory_may_come_later(home: ns.Netns) -> None:
    def test() -> None:
        without_directory()
        with Follower() as follower:
            follower.follow(["blue"])
            sh("ip netns add blue")
            assert told(follower) == {"blue"}
            assert leads_to("blue") is not None
            nothing_more(follower)
            sh("ip netns add red")
            assert told(follower, 0.05) == set()

    unshared(test)


def test_the_directory_may_go_and_come_again(home: ns.Netns) -> None:
    sh("ip netns add blue")
    ns.remove("blue")

    def test() -> None:
        without_directory()
        with Follower() as follower:
            follower.follow(["blue"])
            for _ in range(3):
                DIRECTORY.mkdir()
                nothing_more(follower)
                (DIRECTORY / "blue").touch()
                assert told(follower) == {"blue"}
                bind(HERE, DIRECTORY / "blue")
                assert told(follower) == {"blue"}
                unmount(DIRECTORY / "blue")
                (DIRECTORY / "blue").unlink()
                assert told(follower) == {"blue"}
                DIRECTORY.rmdir()
                nothing_more(follower)
            DIRECTORY.mkdir()

    unshared(test)


def test_a_file_system_mounted_over_the_directory_hides_and_uncovers_names(home: ns.Netns) -> None:
    sh("ip netns add blue")

    def test() -> None:
        with Follower() as follower:
            follower.follow(["blue", "red"])
            mount(b"none", os.fsencode(DIRECTORY), b"tmpfs", 0, None)
            assert told(follower) == {"blue"}
            (DIRECTORY / "red").touch()
            assert told(follower) == {"red"}
            bind(HERE, DIRECTORY / "red")
            assert told(follower) == {"red"}
            nothing_more(follower)
            unmount(DIRECTORY)
            assert told(follower) == {"blue", "red"}
            nothing_more(follower)
            (DIRECTORY / "red").touch()
            assert told(follower) == {"red"}
            (DIRECTORY / "red").unlink()

    unshared(test)


def test_a_namespace_made_in_another_mount_namespace_arrives_here(follower: Follower) -> None:
    sh("ip netns add red")  # which makes the directory a shared mount
    follower.follow(["blue"])
    sh("unshare --mount --propagation unchanged ip netns add blue")
    assert told(follower) == {"blue"}
    assert leads_to("blue") is not None


# --- files


@pytest.mark.parametrize("lack", ["", "vethlib.ns.files.glance._can_open_cached", "vethlib.ns.files.glance._has_statx"])
def test_a_bind_mounted_file_is_told_and_so_are_another_mount_and_the_unmounting(
    follower: Follower, tree: Path, other: str, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    # A root such as NFS or virtiofs cannot be walked in memory, and old C libraries have no statx.
    if lack:
        monkeypatch.setattr(lack, False)
    file, ref = tree / "file", f"path:{tree}/file"
    follower.follow([ref])
    file.touch()
    assert told(follower) == {ref}
    bind(HERE, file)
    assert told(follower) == {ref}
    nothing_more(follower)
    bind(other, file)
    assert told(follower) == {ref}
    assert leads_to(ref) == os.stat(other).st_ino
    nothing_more(follower)
    unmount(file)
    assert told(follower) == {ref}
    assert leads_to(ref) == os.stat(HERE).st_ino
    nothing_more(follower)
    unmount(file)
    assert told(follower) == {ref}
    assert leads_to(ref) is None


def reused(files: list[Path]) -> Path | None:
    """Mount a namespace over one of these, with the number that the one mounted there has had; None if it is not had.

    The kernel gives out the lowest number that is free, so it is the turn of theirs, unless others on the host have
    just freed lower ones.
    """
    file_of = {os.stat(file).st_ino: file for file in files}
    for file in files:
        unmount(file)
    with ExitStack() as kept:
        for _ in range(50):
            time.sleep(0.02)
            netns = kept.enter_context(ns.Netns.anonymous())
            if netns.identity[1] in file_of:
                file = file_of[netns.identity[1]]
                bind(f"/proc/self/fd/{netns.fileno()}", file)
                assert os.stat(file).st_ino == netns.identity[1]
                return file
    return None


def test_one_namespace_in_the_place_of_another_is_told_though_it_has_got_its_number(
    follower: Follower, tree: Path
) -> None:
    files = [tree / str(number) for number in range(20)]
    for file in files:
        file.touch()
    follower.follow(f"path:{file}" for file in files)
    for _ in range(20):
        for file in files:
            with ns.Netns.anonymous() as netns:
                bind(f"/proc/self/fd/{netns.fileno()}", file)
        nothing_more(follower)
        again = reused(files)
        if again is not None:
            assert f"path:{again}" in told(follower)
            return
    raise AssertionError("no number was given out again")


def test_a_file_renamed_over_another_is_told(follower: Follower, tree: Path, other: str) -> None:
    file, ref = tree / "file", f"path:{tree}/file"
    file.symlink_to(HERE)
    follower.follow([ref])
    (tree / "new").symlink_to(other)
    assert told(follower, 0.02) == set()
    (tree / "new").rename(file)
    assert told(follower) == {ref}
    assert leads_to(ref) == os.stat(other).st_ino


def test_a_tree_that_does_not_exist_yet_is_waited_for(follower: Follower, tree: Path) -> None:
    ref = f"path:{tree}//a/./b/c/d/file"
    follower.follow([ref])
    sh(f"mkdir -p {tree}/a/b/c/d; touch {tree}/a/b/c/d/file")
    assert told(follower) == {ref}
    bind(HERE, tree / "a/b/c/d/file")
    assert told(follower) == {ref}
    assert leads_to(ref) is not None
    unmount(tree / "a/b/c/d/file")
    nothing_more(follower)
    sh(f"rm -r {tree}/a")
    assert told(follower) == {ref}
    nothing_more(follower)
    sh(f"mkdir -p {tree}/a/b/c/d")
    assert told(follower, 0.02) == set()
    (tree / "a/b/c/d/file").touch()
    assert told(follower) == {ref}


def test_a_tree_made_while_it_is_looked_for_is_found(follower: Follower, tree: Path) -> None:
    refs = [f"path:{tree}/{n}/a/b/c/file" for n in range(100)]
    follower.follow(refs)
    making = f"for n in $(seq 0 99); do mkdir -p {tree}/$n/a/b/c; : > {tree}/$n/a/b/c/file; done"
    process = subprocess.Popen(["sh", "-c", making])
    missing = set(refs)
    while missing:
        new = told(follower)
        assert new, f"never told: {missing}"
        missing -= {ref for ref in new if os.path.exists(ref.removeprefix("path:"))}
    assert process.wait() == 0


def test_a_directory_above_that_is_renamed_is_told(follower: Follower, tree: Path) -> None:
    ref = f"path:{tree}/a/b/file"
    sh(f"mkdir -p {tree}/a/b; touch {tree}/a/b/file")
    follower.follow([ref])
    (tree / "a").rename(tree / "z")
    assert told(follower) == {ref}
    (tree / "z").rename(tree / "a")
    assert told(follower) == {ref}


def test_a_symbolic_link_is_followed_wherever_it_leads(follower: Follower, tree: Path) -> None:
    sh(f"cd {tree}; mkdir -p real/deep; ln -s deep real/link; ln -s ../{tree.name}/./real/link link; ln -s link/x file")
    ref, inside = f"path:{tree}/file", f"path:{tree}/link/x"
    follower.follow([ref, inside])
    file = tree / "real/deep/x"
    file.touch()
    assert told(follower) == {ref, inside}
    bind(HERE, file)
    assert told(follower) == {ref, inside}
    assert leads_to(ref) == leads_to(inside) == os.stat(HERE).st_ino
    nothing_more(follower)
    sh(f"cd {tree}; mkdir other; ln -sfn ../other real/link")
    assert told(follower) == {ref, inside}
    assert leads_to(ref) is None
    nothing_more(follower)
    (tree / "other/x").touch()
    assert told(follower) == {ref, inside}
    unmount(file)
    nothing_more(follower)
    file.unlink()
    assert told(follower, 0.02) == set(), "nothing leads there any more"


def test_a_symbolic_link_to_nowhere_leads_somewhere_later(follower: Follower, tree: Path) -> None:
    (tree / "link").symlink_to(tree / "a/b")
    ref = f"path:{tree}/link/file"
    follower.follow([ref])
    sh(f"mkdir -p {tree}/a/b; touch {tree}/a/b/file")
    assert told(follower) == {ref}


def test_symbolic_links_that_go_round_are_waited_for_like_nothing(follower: Follower, tree: Path) -> None:
    sh(f"cd {tree}; ln -s b a; ln -s a b; ln -s c/x c; ln -s ../{tree.name}/d/x d; ln -s e e")
    refs = [f"path:{tree}/{name}/file" for name in "abcde"] + [f"path:{tree}/{name}" for name in "abcde"]
    follower.follow(refs)
    sh(f"cd {tree}; ln -sfn real b; mkdir real")
    assert told(follower) >= {f"path:{tree}/a", f"path:{tree}/b"}
    nothing_more(follower)
    (tree / "real/file").touch()
    assert told(follower) == {f"path:{tree}/a/file", f"path:{tree}/b/file"}
    assert watches() > 0
    follower.unfollow(refs)
    assert watches() == 0


def test_a_container_s_namespace_lent_a_name_is_told_when_its_process_ends(
    follower: Follower, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    sh("ip netns add red")
    process = sleepers[0]
    (DIRECTORY / "blue").symlink_to(f"/proc/{process.pid}/ns/net")
    follower.follow(["blue"])
    assert told(follower, 0.02) == set()
    process.kill()
    assert told(follower) == {"blue"}
    assert follower.gone("blue") == f"process {process.pid} is gone"
    sh(f"ln -sfn {HERE} {DIRECTORY}/blue")
    assert told(follower) == {"blue"}
    assert follower.gone("blue") == ""


def test_a_link_to_a_process_on_the_way_is_told_when_the_process_ends(
    follower: Follower, tree: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    first, second = sleepers
    ref, own = f"path:{tree}/process/ns/net", "path:/proc/self/ns/net"
    (tree / "process").symlink_to(f"/proc/{first.pid}")
    follower.follow([ref, own])
    assert told(follower, 0.02) == set()
    first.kill()
    assert told(follower) == {ref}
    assert follower.gone(ref) == f"process {first.pid} is gone"
    up = "../" * len(tree.parts)
    sh(f"ln -sfn {up}/proc/./{second.pid} {tree}/process")
    assert told(follower) == {ref}
    assert follower.gone(ref) == follower.gone(own) == ""
    second.kill()
    assert told(follower) == {ref}
    assert follower.gone(ref) == f"process {second.pid} is gone"
    sh(f"ln -sfn {tree} {tree}/process; mkdir {tree}/ns; touch {tree}/ns/net")
    assert told(follower) == {ref}
    assert follower.gone(ref) == ""
    (tree / "ns/net").unlink()
    assert told(follower) == {ref}
    sh(f"ln -sfn /proc/{first.pid} {tree}/process")
    assert told(follower) == {ref}
    assert follower.gone(ref) == f"process {first.pid} is gone"
    (tree / "process").unlink()
    assert told(follower) == {ref}
    assert follower.gone(ref) == ""


def test_a_directory_that_may_not_be_read_is_looked_at_all_the_same(follower: Follower, tree: Path) -> None:
    locked, ref = tree / "locked", f"path:{tree}/locked/file"
    locked.mkdir()
    locked.chmod(0o100)
    with dropped():
        follower.follow([ref])
        assert told(follower, 0.02) == set()
        assert follower.due() is not None
    (locked / "file").touch()
    with dropped():
        assert told(follower) == {ref}
    locked.chmod(0o700)
    assert poll(lambda: follower.changed() == set() and follower.due() is None), "now there is a watch"
    (locked / "file").unlink()
    assert told(follower) == {ref}
    locked.chmod(0o100)
    with dropped():
        assert poll(lambda: follower.changed() == set() and follower.due() is not None), "now there is none"
    (locked / "file").touch()
    with dropped():
        assert told(follower) == {ref}


def test_files_that_are_made_faster_than_they_are_heard_of_change_nothing_else_and_hide_nothing(
    follower: Follower, make_netns: Callable[..., None]
) -> None:
    names = [f"n{number}" for number in range(20)]
    make_netns(*names)
    follower.follow([*names, "late"])
    nothing_more(follower)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 10):
        file = DIRECTORY / f"storm{number % 2}"
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
        os.unlink(file)
    ns.remove("n7")  # of which no event is queued any more
    make_netns("late")
    heard = told(follower)
    while more := told(follower, 0.2):
        heard |= more
    assert heard == {"n7", "late"}
