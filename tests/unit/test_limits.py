"""The limits of an agent as settings."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from vethlib.agent.limits import DEFAULT, Limits, describe_limits, parse_limits
from vethlib.errors import InvalidValue


def test_limits_are_read_by_name_and_the_last_one_wins() -> None:
    assert parse_limits([]) == Limits() == DEFAULT
    assert parse_limits(["queues=8", "netns-made=0, queues = 16,"]) == Limits(queues=16, netns_made=0)


@pytest.mark.parametrize(("text", "number"), [("4096", 4096), ("64K", 65536), ("4m", 4 << 20), ("1GiB", 1 << 30)])
def test_bytes_may_be_written_with_a_unit(text: str, number: int) -> None:
    assert parse_limits([f"file_bytes={text}"]).file_bytes == number


@pytest.mark.parametrize(
    "text",
    ["queues", "queues=", "queues=-1", "queues=0", "queues=1e3", "queues=٣", "=1", "many=1", "queues=" + "9" * 5000],
)
def test_what_is_no_limit_is_refused_by_the_name_of_the_flag(text: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        parse_limits([text], "--limit")
    assert refused.value.field == "--limit"


@pytest.mark.parametrize("value", [0, -1, True, 1.5, math.nan, math.inf, "8", None, pytest.param(10**5000, id="huge")])
def test_a_limit_that_is_no_sensible_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue) as refused:
        replace(DEFAULT, queues=value)  # type: ignore[arg-type]
    assert refused.value.field == "queues"


def test_every_limit_is_described_with_a_default_that_can_be_written_so() -> None:
    described = describe_limits()
    assert [name for name, _, _ in described] == [one.name for one in fields(Limits)]
    assert parse_limits(f"{name}={default}" for name, default, _ in described) == DEFAULT
    assert all(text for _, _, text in described)
