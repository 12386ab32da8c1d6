"""Interrupt a call after some of its exchanges with the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vethlib._nl.batch import Exchange
from vethlib.session.core.namespaces import Namespaces, OpenNetns

__all__ = ["Interruption", "interrupted_after"]


class Interruption:
    """The interruption of a block; `came` is whether the block made enough exchanges for that."""

    came = False


@contextmanager
def interrupted_after(exchanges: int) -> Iterator[Interruption]:
    """A block in which KeyboardInterrupt follows each exchange after the first `number`, including those that undo."""
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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Namespaces, "run", interrupted)
        try:
            yield interruption
        except KeyboardInterrupt:
            assert interruption.came
