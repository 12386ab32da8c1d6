"""The dependents of very many links."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.proportion import is_proportional
from vethlib.session.read import dependents


def test_routes_by_the_addresses_of_many_links_are_found_in_proportional_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody: Any = None
    there: list[Any] = []
    monkeypatch.setattr(dependents, "address_messages", lambda *_: there)
    monkeypatch.setattr(dependents, "_dumped", lambda *_: [])

    def work(number: int) -> None:
        there[:] = [SimpleNamespace(ifindex=index, address=index.to_bytes(4)) for index in range(number)]
        assert dependents._sourced(nobody, nobody, list(range(number))) == {}

    assert is_proportional(work, 1500)
