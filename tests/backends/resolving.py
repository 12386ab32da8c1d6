"""Asking a resolver in tests, and waiting for its answers by its descriptor."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from tests.patience import Patience
from vethlib import NetnsNotFound
from vethlib.agent import DockerResolver, ResolverDown

__all__ = ["NOT_RUNNING", "answer", "down", "until"]

NOT_RUNNING = "microservice vnf1 is not running"


def answer(resolver: DockerResolver, label: str = "vnf1") -> str:
    """What it answers, or why it does not."""
    try:
        return resolver(label)
    except (NetnsNotFound, ResolverDown) as error:
        return str(error)


def until(
    resolver: DockerResolver, expected: Callable[[str], object] | str, within: float = 30.0, label: str = "vnf1"
) -> float:
    """Wait by its descriptor for an answer; returns how many seconds that took."""
    began = time.monotonic()
    patience = Patience(within)
    resolver.changed()
    while True:
        said = answer(resolver, label)
        if said == expected if isinstance(expected, str) else expected(said):
            return time.monotonic() - began
        assert not patience.is_over(), f"not within {within} s: {said}"
        select.select([resolver], [], [], min(patience.left, 0.5))
        resolver.changed()


def down(said: str) -> bool:
    return "does not run any more" in said or "no Docker Engine" in said
