"""Answers of the kernel that are other than they were, whichever way a session asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vethlib._nl.batch import Outcome
from vethlib.session.places import Place, Places

Edit = Callable[[Place, Sequence[bytes], list[Outcome]], list[Outcome]]


def edit_answers(patch: pytest.MonkeyPatch, edit: Edit) -> None:
    """Let `edit` say what the outcomes of some requests in a place are, given what they were."""
    exchange, ask, dump = Places.exchange, Places.ask, Places.dump

    def edited_exchange(self: Places, place: Place, requests: Sequence[bytes]) -> list[Outcome]:
        return edit(place, requests, exchange(self, place, requests))

    def edited_ask(self: Places, place: Place, request: bytes) -> Outcome:
        return edit(place, [request], [ask(self, place, request)])[0]

    def edited_dump(
        self: Places, place: Place, request: bytes, parse: Callable[[bytes], Any], *attempts: int
    ) -> Outcome:
        return edit(place, [request], [dump(self, place, request, parse, *attempts)])[0]

    patch.setattr(Places, "exchange", edited_exchange)
    patch.setattr(Places, "ask", edited_ask)
    patch.setattr(Places, "dump", edited_dump)


def refuse_all(patch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """Let every request have this outcome."""
    edit_answers(patch, lambda _place, requests, _outcomes: [outcome for _ in requests])
