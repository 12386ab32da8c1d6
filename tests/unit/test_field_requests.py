"""The messages that change routes, neighbours and alternative names: their order, and the time to find them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vethlib import Neighbour, Route
from vethlib.endfields.table import FIELDS


def routes(first: int, count: int) -> tuple[Route, ...]:
    return tuple(Route(f"{first}.{number >> 8}.{number & 255}.0/24", via="10.0.0.1") for number in range(count))


def neighbours(first: int, count: int) -> tuple[Neighbour, ...]:
    return tuple(
        Neighbour(f"{first}.0.{n >> 8}.{n & 255}", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}") for n in range(count)
    )


def altnames(first: int, count: int) -> tuple[str, ...]:
    return tuple(f"name{first}-{number}" for number in range(count))


@pytest.mark.parametrize(("field", "values"), [("routes", routes), ("neighbours", neighbours), ("altnames", altnames)])
def test_thousands_of_values_are_compared_in_a_time_proportional_to_their_number(field: str, values: Any) -> None:
    present, same, other = values(11, 4000), values(11, 4000), values(12, 1000)
    begun = time.process_time()
    assert list(FIELDS[field].steps(7, present, same)) == []
    assert len(list(FIELDS[field].steps(7, present, other))) == 5000
    # Some hundredths of a second; comparing each with each takes seconds.
    assert time.process_time() - begun < 1


def test_routes_with_a_gateway_are_added_after_those_without_and_removed_before_them() -> None:
    check = FIELDS["routes"].check
    before = check([Route("default", via="9.9.9.9"), Route("9.9.9.9"), Route("5.0.0.0/8", via="9.9.9.9")], "routes")
    after = check([Route("default", via="8.8.8.8"), Route("8.8.8.8"), Route("10.0.0.0/8", table=7)], "routes")
    whats = [step.what for step in FIELDS["routes"].steps(7, before, after)]
    assert whats == [
        "no route 5.0.0.0/8 via 9.9.9.9",
        "no route default via 9.9.9.9",
        "no route 9.9.9.9",
        "route 10.0.0.0/8 table 7",
        "route 8.8.8.8",
        "route default via 8.8.8.8",
    ]
    created = [str(what) for what, _ in FIELDS["routes"].creation(7, after)]
    assert [f"route {what}" for what in created] == whats[3:]
