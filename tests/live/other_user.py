"""Processes of another user of this host."""

from __future__ import annotations

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
