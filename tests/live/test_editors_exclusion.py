"""Two editors never work at the same time, whatever other locks are held on what they edit."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.children import staying
from tests.live.other_user import OTHER, As, lock, readable_store
from vethlib import _locks
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.protocol import StoreError
from vethlib.errors import NetlinkError
from vethlib.ns import named, syscalls
from vethlib.ns.syscalls import MNT_DETACH, MS_BIND, umount2

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed"),
]


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    return readable_store(tmp_path)


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
@pytest.mark.parametrize("owner", [0, OTHER + 1])
def test_a_lock_of_one_who_may_only_read_the_store_lets_no_two_editors_in(
    as_other: As, readable: Path, how: int, owner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.editing._PATIENCE", 0.3)
    os.chown(readable, owner, -1)
    as_other(lock(readable, how))
    editor = DirectoryEditor(readable)
    with editor._locked():
        with pytest.raises(StoreError) as caught, DirectoryEditor(readable)._locked():
            pass
        assert caught.value.errno == errno.ETIMEDOUT
        assert str(os.getpid()) in str(caught.value)
    with editor._locked():
        pass
    assert list(readable.iterdir()) == []


def test_the_owner_of_a_store_and_root_exclude_each_other_though_a_stranger_locks_it(
    as_other: As, readable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.editing._PATIENCE", 0.3)
    owner = OTHER - 1
    os.chown(readable, owner, -1)
    as_other(lock(readable, fcntl.LOCK_SH))

    def edit() -> object:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        inside = DirectoryEditor(readable)._locked()
        inside.__enter__()
        return inside

    with staying(edit) as pid:
        with pytest.raises(StoreError) as caught, DirectoryEditor(readable)._locked():
            pass
        assert str(pid) in str(caught.value)
    with DirectoryEditor(readable)._locked():
        pass
    assert list(readable.iterdir()) == []


def test_a_planted_lock_file_keeps_no_editor_out(as_other: As, readable: Path) -> None:
    planted = readable / ".vethlib.lock"
    for plant in (planted.touch, planted.mkdir, lambda: planted.symlink_to("/etc/passwd"), lambda: os.mkfifo(planted)):
        plant()
        if planted.is_file() and not planted.is_symlink():
            os.chown(planted, OTHER, OTHER)
            as_other(lock(planted))
        began = time.monotonic()
        DirectoryEditor(readable).delete("a")
        assert time.monotonic() - began < 5
        assert not os.path.lexists(planted)


def test_editors_exclude_each_other_though_no_holder_is_visible(
    readable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.editing._PATIENCE", 0.3)
    monkeypatch.setattr(_locks, "holders", lambda descriptor: [])
    monkeypatch.setattr(_locks, "_UNKNOWN", 0.0)
    with DirectoryEditor(readable)._locked(), pytest.raises(StoreError), DirectoryEditor(readable)._locked():
        pass


def test_the_holder_of_a_lock_is_known_whatever_the_names_of_mount_points(tmp_path: Path) -> None:
    with ExitStack() as mounted:
        for name in ("a\r\rb", "a\u2028b", "store"):
            (tmp_path / name).mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / name], check=True)
            mounted.callback(umount2, os.fsencode(tmp_path / name), MNT_DETACH)
        store = tmp_path / "store"
        descriptor = os.open(store, os.O_RDONLY)
        mounted.callback(os.close, descriptor)
        with staying(lock(store)) as pid:
            assert _locks.holders(descriptor) == [(pid, 0)]


def test_the_same_inode_of_another_file_system_is_another_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    try:
        assert first.stat().st_ino == second.stat().st_ino
        descriptors = [os.open(path, os.O_RDONLY) for path in (first, second)]
        with staying(lock(first)) as pid:
            assert [_locks.holders(descriptor) for descriptor in descriptors] == [[(pid, 0)], []]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        for path in (first, second):
            subprocess.run(["umount", "-l", path], check=True)


def mounts(path: Path) -> int:
    with open("/proc/self/mountinfo") as lines:
        return sum(line.split()[4] == str(path) for line in lines)


def names_directory(path: Path) -> Path:
    (path / "netns").mkdir()
    for directory in (path, *path.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    return path / "netns"


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_the_directory_of_namespaces_is_mounted_once_whoever_locks_it(
    as_other: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int
) -> None:
    directory = names_directory(tmp_path)
    as_other(lock(directory, how))
    meeting = threading.Barrier(2)
    real = syscalls.mount

    def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes | None) -> None:
        if flags & MS_BIND:
            try:
                meeting.wait(1.0)  # both are about to mount, unless one waits for the other
            except threading.BrokenBarrierError:
                pass
        real(source, target, kind, flags, data)

    monkeypatch.setattr(named, "mount", mount)
    threads = [threading.Thread(target=named._prepare, args=(str(directory),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert mounts(directory) == 1
        assert list(tmp_path.iterdir()) == [directory]
    finally:
        while mounts(directory):
            umount2(os.fsencode(directory), MNT_DETACH)


def test_while_root_keeps_the_directory_of_namespaces_locked_nothing_is_mounted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named, "_LOCKED", 0.3)
    directory = names_directory(tmp_path)
    with staying(lock(directory)) as pid:
        with pytest.raises(NetlinkError) as caught:
            named.create("blue", directory=str(directory))
        assert caught.value.errno == errno.ETIMEDOUT
        assert str(pid) in str(caught.value)
    assert mounts(directory) == 0
    assert list(directory.iterdir()) == []
