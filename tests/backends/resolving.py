"""Ask a resolver in tests, and wait for its answers by its descriptor."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from tests.patience import Patience
from vethlib import NetnsNotFound
from vethlib.agent import DockerResolver, ResolverDown

__all__ = ["NOT_RUNNING", "answer", "down", "until"]

NOT_RUNNING = "microservice vnf1 is not running"


class Said(str):
    """The answer of a resolver, or why there is none, also as a code."""

    code = ""


def answer(resolver: DockerResolver, label: str = "vnf1") -> Said:
    """Return its answer, or why there is none."""
    try:
        return Said(resolver(label))
    except NetnsNotFound as error:
        return Said(error)
    except ResolverDown as error:
        said = Said(error)
        said.code = error.code
        return said


def until(
    resolver: DockerResolver, expected: Callable[[Said], object] | str, within: float = 90.0, label: str = "vnf1"
) -> float:
    """Wait for an answer by its descriptor; return how many seconds that took."""
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


def down(said: Said) -> bool:
    return said.code in ("absent", "gone")
