"""The impairment of one direction of a wire: delay, loss, rate and so on. Pure values.

Times are "20ms", "150us", "1.5s", or a number of seconds; probabilities "1%", or a number from 0 to 1; rates "10mbit",
"1gbit", or a number of bits per second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict

from vethlib.errors import InvalidValue

__all__ = ["IMPAIRMENTS", "Impairment", "Impairments", "parse_directions"]

_LIMIT: Final = 1000

_NUMBER: Final = r"(\d{1,12}(?:\.\d{1,9})?|\.\d{1,9})"
_QUANTITY: Final = re.compile(_NUMBER + r"([a-z%]*)", re.ASCII)
_TIMES: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATES: Final = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_LONGEST: Final = 3600.0  # seconds
_FASTEST: Final = 10**13  # bits per second
_MOST: Final = 10**7  # packets


class Impairments(TypedDict, total=False):
    """The arguments of :meth:`Impairment.of`, all optional."""

    delay: str | float
    jitter: str | float
    loss: str | float
    duplicate: str | float
    reorder: str | float
    rate: str | float
    limit: str | int


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to packets in one direction of a wire; :meth:`of` accepts values as text.

    Each packet is delayed by `delay` seconds, and by up to `jitter` seconds more or less, which may change the order.
    `loss` is the probability that it is dropped, `duplicate` that it is sent twice, and `reorder` that it is sent at
    once, before packets that are delayed. `rate` is in bits per second, 0 for unlimited. Up to `limit` packets wait;
    any more are dropped.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    rate: int = 0
    limit: int = _LIMIT

    @classmethod
    def of(cls, **given: Any) -> Impairment:
        """Return the impairment with the given values, as text or numbers: ``Impairment.of(delay="20ms", loss="1%")``.

        Raises InvalidValue.
        """
        return cls().changed(given)

    def changed(self, given: Mapping[str, Any]) -> Impairment:
        """Return a copy in which the `given` values replace the present ones. Raises InvalidValue."""
        for name in given:
            if name not in _READERS:
                raise InvalidValue(name, given[name], f"a wire can have {', '.join(IMPAIRMENTS)}")
        values: dict[str, Any] = {name: _READERS[name](name, value) for name, value in given.items()}
        changed = replace(self, **values)
        if changed.jitter and not changed.delay:
            hint = "needs a delay that it can vary, as in delay=20ms jitter=3ms"
            raise InvalidValue("jitter", _seconds(changed.jitter), hint)
        if changed.reorder and not changed.delay:
            hint = "needs a delay, so that packets can overtake others, as in delay=20ms reorder=25%"
            raise InvalidValue("reorder", _percent(changed.reorder), hint)
        return changed

    def __str__(self) -> str:
        texts = {
            "delay": _seconds(self.delay),
            "jitter": _seconds(self.jitter),
            "loss": _percent(self.loss),
            "duplicate": _percent(self.duplicate),
            "reorder": _percent(self.reorder),
            "rate": _bits(self.rate),
            "limit": str(self.limit),
        }
        plain = Impairment()
        return " ".join(f"{name}={text}" for name, text in texts.items() if getattr(self, name) != getattr(plain, name))


def parse_directions(name: str, text: str) -> tuple[str, str]:
    """Split the text of an attribute: one value for both directions, or two separated by "/". Raises InvalidValue."""
    first, slash, second = text.partition("/")
    if not first or (slash and not second):
        raise InvalidValue(name, text, f"must be one value, or one for each direction as in {name}=1/0")
    return first, second if slash else first


def _read(name: str, value: object, units: dict[str, float] | dict[str, int], example: str, hint: str) -> float:
    """Return a number, or that of a text with a unit. Raises InvalidValue."""
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is not None:
            number, unit = match.groups()
            if unit in units:
                return float(number) * units[unit]
            if not unit and not float(number):
                return 0.0
            if not unit:
                raise InvalidValue(name, value, f"as text, needs a unit, as in {name}={example}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and -_FASTEST <= value <= _FASTEST:
        return float(value)  # larger numbers, which may not fit into a float, are out of every range
    raise InvalidValue(name, value, hint)


def _time(name: str, value: object) -> float:
    hint = f"must be a time up to an hour, as in {name}=20ms (us, ms, s), or a number of seconds"
    seconds = _read(name, value, _TIMES, "20ms", hint)
    if not 0 <= seconds <= _LONGEST:
        raise InvalidValue(name, value, hint)
    return round(seconds, 9)


def _probability(name: str, value: object) -> float:
    hint = f"must be a probability, as in {name}=1%, or a number from 0 to 1"
    probability = _read(name, value, {"%": 0.01}, "1%", hint)
    if not 0 <= probability <= 1:
        raise InvalidValue(name, value, hint)
    return probability


def _rate(name: str, value: object) -> int:
    hint = f"must be a rate of at least 8bit, as in {name}=10mbit (bit, kbit, mbit, gbit), or 0 for unlimited"
    rate = _read(name, value, _RATES, "10mbit", hint)
    if rate and not 8 <= rate <= _FASTEST:
        raise InvalidValue(name, value, hint)
    return int(rate)


def _limit(name: str, value: object) -> int:
    count = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,8}", value) else value
    if type(count) is not int or not 1 <= count <= _MOST:
        raise InvalidValue(name, value, f"must be a number of packets, as in {name}=1000")
    return count


_READERS: Final = {
    "delay": _time,
    "jitter": _time,
    "loss": _probability,
    "duplicate": _probability,
    "reorder": _probability,
    "rate": _rate,
    "limit": _limit,
}

IMPAIRMENTS: Final = tuple(_READERS)
"""The names of all values."""


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size or not seconds:
            return f"{seconds / size:.9g}{unit}"
    return f"{seconds * 1e6:.9g}us"


def _percent(probability: float) -> str:
    return f"{probability * 100:.7g}%"


def _bits(rate: int) -> str:
    for unit in ("gbit", "mbit", "kbit"):
        if rate and rate % _RATES[unit] == 0:
            return f"{rate // _RATES[unit]}{unit}"
    return f"{rate}bit"
