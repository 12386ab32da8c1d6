"""FUSE file systems that never answer: mounted by hand, their requests never read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.witness import poll
from vethlib.ns.files import answers
from vethlib.ns.files.glance import NoAnswer
from vethlib.ns.syscalls import MNT_DETACH, mount, umount2

__all__ = ["forbidden_fuse", "nobody_waits", "silent_fuse", "waited_in_vain"]

NOBODY = 65534


@contextmanager
def silent_fuse(path: Path, user: int = 0, options: str = "allow_other", *, is_file: bool = False) -> Iterator[int]:
    """Mount one on `path`, which is made; gives its descriptor. Waiting threads are released at the end.

    One that `is_file` has no directory, and is mounted on a file that exists.
    """
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        if not is_file:
            path.mkdir()
        mode = "100644" if is_file else "40000"
        options = ",".join(filter(None, [f"fd={server},rootmode={mode},user_id={user},group_id={user}", options]))
        mount(b"silent", os.fsencode(path), b"fuse", 0, options.encode())
        try:
            yield server
        finally:
            umount2(os.fsencode(path), MNT_DETACH)
    finally:
        os.close(server)  # it has no other descriptor, so every request ends (fuse_dev_release, fs/fuse/dev.c)
        if not is_file:
            path.rmdir()


@contextmanager
def waited_in_vain(patch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Count the seconds that this process waits for answers in vain, however busy the machine is."""
    waits: list[float] = []
    put = answers._Question.put

    def noted(self: answers._Question, seconds: float) -> Any:
        try:
            return put(self, seconds)
        except NoAnswer:
            if self.late:
                waits.append(seconds)
            raise

    with patch.context() as inner:
        inner.setattr(answers._Question, "put", noted)
        yield waits


def nobody_waits() -> bool:
    """Return whether the threads that had to wait end soon afterwards."""
    return poll(lambda: not answers._stuck)


@contextmanager
def forbidden_fuse(path: Path) -> Iterator[int]:
    """Mount one of another user, which nobody else may access, not even root: EACCES (fuse_allow_current_process)."""
    with silent_fuse(path, NOBODY, "") as server:
        yield server
