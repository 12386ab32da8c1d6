"""Interrupt a call after some of its exchanges with the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vethlib._nl.batch import Exchange
from vethlib.session.core.namespaces import Namespaces, OpenNetns

__all__ = ["Interruption", "interrupt_after", "interrupted_after"]


class Interruption:
    """The interruption of a block; `came` is whether the block made enough exchanges for that."""

    came = False


def interrupt_after(patch: pytest.MonkeyPatch, exchanges: int) -> Interruption:
    """Let a KeyboardInterrupt follow each exchange after the first `exchanges`, including those that undo."""
    run = Namespaces.run
    interruption = Interruption()
    left = exchanges

    def interrupted(self: Namespaces, place: OpenNetns, exchange: Exchange) -> None:
        nonlocal left
        run(self, place, exchange)
        left -= 1
        if left < 0:
            interruption.came = True
            raise KeyboardInterrupt

    patch.setattr(Namespaces, "run", interrupted)
    return interruption


@contextmanager
def interrupted_after(exchanges: int) -> Iterator[Interruption]:
    """A block that such an interruption ends."""
    with pytest.MonkeyPatch.context() as patch:
        interruption = interrupt_after(patch, exchanges)
        try:
            yield interruption
        except KeyboardInterrupt:
            assert interruption.came
