"""Numbers for people: 1234567 as 1.23M, with powers of 1000 and three significant digits, like `ip -h`."""

from __future__ import annotations

from typing import Final

__all__ = ["amount", "exact"]

_UNITS: Final = ("", "k", "M", "G", "T", "P", "E")


def exact(value: float) -> str:
    """Return a counter with all digits."""
    return str(round(value))


def amount(value: float) -> str:
    """Return up to four characters and a unit: 0, 7, 0.50, 12.3, 999, 1.00k, 98.8M."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    for unit in _UNITS:
        # Numbers that would be rounded to 1000 are 1.00 in the next unit.
        for digits, below in ((2, 9.995), (1, 99.95), (0, 999.5)):
            if abs(value) < below:
                return f"{value:.{digits}f}{unit}"
        value /= 1000
    return f"{value:.3g}Z"
