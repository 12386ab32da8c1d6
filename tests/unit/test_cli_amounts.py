"""Numbers for people."""

from __future__ import annotations

import pytest

from vethlib.cli.render.amounts import amount, exact


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.5, "0.50"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (999, "999"),
        (999.6, "1.00k"),
        (1000, "1.00k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_234_567, "1.23M"),
        (98_765_432_100, "98.8G"),
        (2**64, "18.4E"),
    ],
)
def test_three_digits_count_and_rounding_never_makes_a_fourth(value: float, text: str) -> None:
    assert amount(value) == text


def test_a_counter_can_be_had_to_its_last_digit() -> None:
    assert exact(2**64 - 1) == "18446744073709551615"
