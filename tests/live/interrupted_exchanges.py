"""A call that is interrupted after some of its exchanges with the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vethlib._nl.batch import Exchange
from vethlib.session.core.namespaces import Namespaces, OpenNetns

__all__ = ["Interruption", "interrupted_after"]


class Interruption:
    """`came` is whether the block made enough exchanges to be interrupted."""

    came = False


@contextmanager
def interrupted_after(exchanges: int) -> Iterator[Interruption]:
    """A block in which a KeyboardInterrupt follows each exchange after that many, also those that undo; it ends it."""
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
