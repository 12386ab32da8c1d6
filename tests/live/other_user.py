"""Processes of another user of this host."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.children import staying

LABEL, OTHER = "shared", 12345
RUN = Path("/run/vethlib")
As = Callable[[Callable[[], object]], int]


def become_other() -> None:
    os.setgroups([])
    os.setgid(OTHER)
    os.setuid(OTHER)


def readable_store(tmp_path: Path) -> Path:
    """Make the directory of a store that the other user may only read."""
    store = tmp_path / "store"
    store.mkdir()
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    return store


def lock(path: Path, how: int = fcntl.LOCK_EX) -> Callable[[], object]:
    """A function that locks a file, and returns what holds the lock."""

    def hold() -> object:
        held = os.open(path, os.O_RDONLY)
        fcntl.flock(held, how)
        return held

    return hold


@pytest.fixture
def as_other() -> Iterator[As]:
    """Run a function as another user, in a process that stays; return its pid once the function has returned."""
    with ExitStack() as started:

        def run(function: Callable[[], object]) -> int:
            def other() -> object:
                become_other()
                return function()

            return started.enter_context(staying(other))

        yield run
    for left in RUN.glob(f"{LABEL}@*"):  # left by agents that were killed
        left.unlink()
