"""Things at a path (or nothing there) that are not network namespaces that can be opened."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from tests.programs import stat_fields
from tests.witness import poll

from .silent import forbidden_fuse, silent_fuse

__all__ = ["BAD", "bad", "fifo_with_a_writer", "within"]

Made = AbstractContextManager[object]


def loop(path: Path) -> Made:
    path.symlink_to(path)
    return nullcontext()


def dangling(path: Path) -> Made:
    path.symlink_to("/nowhere/at/all")
    return nullcontext()


def directory(path: Path) -> Made:
    path.mkdir()
    return nullcontext()


def regular_file(path: Path) -> Made:
    path.write_text("text")
    return nullcontext()


def device(path: Path) -> Made:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 229))  # /dev/fuse
    return nullcontext()


def dead_device(path: Path) -> Made:
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(250, 250))  # of no driver
    return nullcontext()


def listening(path: Path) -> Made:
    server = socket.socket(socket.AF_UNIX)
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.bind(
            f"/proc/self/fd/{parent}/{path.name}"
        )  # an address has 107 bytes; a temporary directory may have more
    finally:
        os.close(parent)
    server.listen()
    return closing(server)


def _is_in_openat(task: str) -> bool:
    """Whether a thread waits in openat, and not for the interpreter lock."""
    try:
        return f"{os.O_WRONLY | os.O_CLOEXEC:#x}" in Path(task, "syscall").read_text().split()
    except FileNotFoundError:  # a kernel without CONFIG_HAVE_ARCH_TRACEHOOK
        for _ in range(20):
            time.sleep(0.005)  # in which the thread gets the lock, if that is what it needs
            if stat_fields(Path(task))[0] != "S":
                return False
        return True


@contextmanager
def fifo_with_a_writer(path: Path) -> Iterator[Callable[[], bool]]:
    """A FIFO with a writer that waits for a reader; yields a check, and asserts at the end, that it still waits."""
    os.mkfifo(path)
    opened: list[int] = []
    writer = threading.Thread(target=lambda: opened.append(os.open(path, os.O_WRONLY)), daemon=True)
    writer.start()
    try:
        assert poll(lambda: _is_in_openat(f"/proc/self/task/{writer.native_id}"))
        yield writer.is_alive
        assert writer.is_alive(), "its writer was let go"
    finally:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)
        os.close(*opened)


def uts_namespace(path: Path) -> Made:
    path.symlink_to("/proc/self/ns/uts")
    return nullcontext()


def too_long(path: Path) -> Made:
    path.symlink_to("/" + "x" * 300)
    return nullcontext()


@contextmanager
def zombie(path: Path) -> Iterator[None]:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    path.symlink_to(f"/proc/{pid}/ns/net")
    try:
        yield
    finally:
        os.waitpid(pid, 0)


@contextmanager
def into_a_dead_mount(path: Path) -> Iterator[None]:
    dead = path.parent.parent / "dead"
    with silent_fuse(dead):
        path.symlink_to(dead / "netns" / "x")
        yield


@contextmanager
def a_dead_mount(path: Path) -> Iterator[None]:
    with silent_fuse(path):
        yield


@contextmanager
def into_a_mount_that_was_given_up(path: Path) -> Iterator[None]:
    gone = path.parent.parent / "gone"
    with silent_fuse(gone) as server:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, server)  # ENOTCONN from now on
        os.close(null)
        path.symlink_to(gone / "x")
        yield


@contextmanager
def into_what_is_another_user_s(path: Path) -> Iterator[None]:
    theirs = path.parent.parent / "theirs"
    with forbidden_fuse(theirs):
        path.symlink_to(theirs / "x")
        yield


BAD: dict[str, Callable[[Path], Made]] = {
    made.__name__: made
    for made in (
        loop,
        dangling,
        directory,
        regular_file,
        device,
        dead_device,
        listening,
        fifo_with_a_writer,
        uts_namespace,
        too_long,
        zombie,
        into_a_dead_mount,
        a_dead_mount,
        into_a_mount_that_was_given_up,
        into_what_is_another_user_s,
    )
}


@contextmanager
def bad(kind: str, path: Path) -> Iterator[None]:
    """Put one of them at `path`, and remove it afterwards."""
    with BAD[kind](path):
        yield
    if os.path.lexists(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            path.rmdir()


def within(seconds: float, work: Callable[[], object]) -> None:
    """Call it, and fail if it takes longer than this."""
    began = time.monotonic()
    work()
    assert time.monotonic() - began < seconds
