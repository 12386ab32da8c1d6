"""Make operations fail as the kernel makes them fail, and buffers overflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from vethlib._nl.batch import Outcome
from vethlib.agent import attempts
from vethlib.ifindex.watching import Watching
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read.dying import holders
from vethlib.session.write import move as moving


def failing(number: int) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


@contextmanager
def refused(
    patch: pytest.MonkeyPatch, number: int, *kinds: int, times: int = 1 << 30, about: bytes = b""
) -> Iterator[list[int]]:
    """Refuse requests of these kinds that contain `about`, in place of the kernel: they are not even sent.

    An agent tries them again later than usual, so that a busy machine has time to look at it meanwhile.
    """
    refusals: list[int] = []
    exchange, ask, dump, begin = Namespaces.exchange, Namespaces.ask, Namespaces.dump, Namespaces.begin

    def is_refused(request: bytes) -> bool:
        kind = int.from_bytes(request[4:6], "little")
        if kind not in kinds or about not in request or len(refusals) >= times:
            return False
        refusals.append(kind)
        return True

    def refusing_exchange(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        refuse = [is_refused(request) for request in requests]
        outcomes = iter(exchange(self, place, [one for one, no in zip(requests, refuse, strict=True) if not no]))
        return [Outcome(number) if no else next(outcomes) for no in refuse]

    def refusing_both(self: Namespaces, place: OpenNetns, change: bytes, question: bytes) -> Sequence[Outcome]:
        return refusing_exchange(self, place, [change, question])

    def refusing_ask(self: Namespaces, place: OpenNetns, request: bytes) -> Outcome:
        return Outcome(number) if is_refused(request) else ask(self, place, request)

    def refusing_dump(
        self: Namespaces, place: OpenNetns, request: bytes, parse: Callable[[bytes], Any], *rest: Any, **more: Any
    ) -> Outcome:
        return Outcome(number) if is_refused(request) else dump(self, place, request, parse, *rest, **more)

    def refusing_begin(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> Any:
        refuse = [is_refused(request) for request in requests]
        if any(refuse):
            begun = begin(self, place, [])
            begun.outcomes.extend([Outcome(number) for _ in requests])
            return begun
        return begin(self, place, requests)

    with patch.context() as inner:
        inner.setattr(Namespaces, "exchange", refusing_exchange)
        inner.setattr(Namespaces, "change", refusing_exchange)
        inner.setattr(Namespaces, "change_and_ask", refusing_both)
        inner.setattr(Namespaces, "ask", refusing_ask)
        inner.setattr(Namespaces, "dump", refusing_dump)
        inner.setattr(Namespaces, "begin", refusing_begin)
        inner.setattr(attempts, "FIRST_DELAY", max(attempts.FIRST_DELAY, 0.4))
        yield refusals


@contextmanager
def tiny_buffers(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the kernel queue next to nothing for the caches created meanwhile; yields a count of their resyncs."""
    made, resync = Watching.__init__, Watching._resync
    resyncs: list[int] = []

    def tiny(self: Watching, open_ref: Any, receive_buffer: int, most_pending: int, **how: Any) -> None:
        made(self, open_ref, 1, most_pending, **how)

    def counted(self: Watching, observatory: Any, **options: Any) -> None:
        resyncs.append(1)
        resync(self, observatory, **options)

    with patch.context() as inner:
        inner.setattr(Watching, "__init__", tiny)
        inner.setattr(Watching, "_resync", counted)
        yield resyncs


def with_names_free_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as if the first name that is looked up before a move were free."""
    free = iter([True])
    monkeypatch.setattr(moving, "holders", lambda *asked: {} if next(free, False) else holders(*asked))
