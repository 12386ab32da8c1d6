"""The limits of an agent: how much of each input from outside it accepts before it refuses that one input.

A size, a count or a time from outside is checked against a number here before anything grows with it. Only what exceeds
a limit is refused, with a reason that names the limit; everything else is unaffected.

To add a limit, add a field with its default, its unit and what it limits. It can then be set by ``vethctl agent --limit
NAME=VALUE``, by ``VETHLIB_LIMIT``, and by ``Limits(NAME=…)``, and the documentation lists it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final

from vethlib.errors import InvalidValue

__all__ = ["DEFAULT", "Limits", "describe_limits", "parse_limits"]

_NUMBER = re.compile(r"([0-9]{1,15})(?:(KiB|K)|(MiB|M)|(GiB|G))?", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


def _limit(default: int | float, unit: str, text: str, *, least: int | float = 1) -> Any:
    return field(default=default, metadata={"unit": unit, "text": text, "least": least})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of each input an agent accepts; every field is a number of its unit.

    Raises InvalidValue for a value that is not a number of the field's unit, or is too small to make sense.
    """

    value_bytes: int = _limit(1 << 20, "bytes", "the JSON of one interface", least=64)
    file_bytes: int = _limit(16 << 20, "bytes", "one configuration file", least=64)
    json_values: int = _limit(1_000_000, "count", "values of any kind in one JSON text")
    interfaces_per_file: int = _limit(20_000, "count", "interfaces in one file")
    addresses_per_file: int = _limit(
        100_000, "count", "addresses, routes, neighbours, altnames and sysctls of all interfaces in one file", least=0
    )
    store_keys: int = _limit(100_000, "count", "keys of a label in etcd")
    addresses: int = _limit(4096, "count", "addresses of one interface", least=0)
    routes: int = _limit(4096, "count", "routes of one interface", least=0)
    neighbours: int = _limit(4096, "count", "neighbours of one interface", least=0)
    altnames: int = _limit(256, "count", "alternative names of one interface", least=0)
    sysctls: int = _limit(256, "count", "sysctls of one interface, each of which is read from its own file", least=0)
    queues: int = _limit(256, "count", "queues of one interface; each takes 7 KiB of kernel memory per pair")
    netns_made: int = _limit(4096, "count", "named network namespaces that an agent creates", least=0)
    reason_chars: int = _limit(2000, "characters", "a reason or a warning in a status", least=80)
    problems: int = _limit(20, "count", "problems listed for one value")
    status_addresses: int = _limit(256, "count", "addresses listed in one status", least=0)
    file_system_seconds: float = _limit(
        1.0, "seconds", "time for the file system of a namespace reference or of a store to answer", least=0.01
    )
    metrics_clients: int = _limit(
        64, "count", "connections to --metrics; beyond that, the connection that has been idle longest is closed"
    )
    metrics_seconds: float = _limit(
        5.0, "seconds", "time to receive a request to --metrics, and again to send the response", least=0.1
    )
    metrics_head_bytes: int = _limit(8192, "bytes", "a request to --metrics", least=256)
    log_bytes: int = _limit(4 << 20, "bytes", "log lines queued for a reader of stderr", least=4096)

    def __post_init__(self) -> None:
        for limit in fields(self):
            _check(limit, getattr(self, limit.name))


def _check(limit: Field[Any], value: object) -> None:
    kinds = (int, float) if _is_time(limit) else (int,)
    least = limit.metadata["least"]
    # type(), not isinstance(), because bool is an int; the comparison also refuses NaN.
    if type(value) not in kinds or not least <= value <= 1e15:  # type: ignore[operator]
        number = "a number of seconds" if _is_time(limit) else "a whole number"
        raise InvalidValue(limit.name, value, f"must be {number} from {least:g} ({limit.metadata['text']})")


def _is_time(limit: Field[Any]) -> bool:
    return bool(limit.metadata["unit"] == "seconds")


def parse_limits(texts: Iterable[str], where: str = "--limit") -> Limits:
    """Parse limits from texts such as ``queues=8`` or ``file_bytes=4M``; later texts win, the rest are defaults.

    The suffixes K, M and G mean units of 1024, 1024² and 1024³. A text may contain several limits, separated by commas.

    Raises InvalidValue (field `where`) for an unknown name or a bad number.
    """
    known = {limit.name: limit for limit in fields(Limits)}
    values: dict[str, int | float] = {}
    for part in [part for text in texts for part in text.split(",") if part.strip()]:
        name, _, value = part.partition("=")
        limit = known.get(name.strip().replace("-", "_"))
        if limit is None:
            raise InvalidValue(where, part.strip(), f"must be NAME=VALUE, where NAME is one of {', '.join(known)}")
        number = _read_number(value.strip(), limit)
        if number is None:
            example = "2.5" if _is_time(limit) else "4M" if limit.metadata["unit"] == "bytes" else "100"
            raise InvalidValue(where, part.strip(), f"must be a number, such as {limit.name}={example}")
        values[limit.name] = number
    try:
        return Limits(**values)  # type: ignore[arg-type]
    except InvalidValue as error:
        raise InvalidValue(where, f"{error.field}={error.value}", error.hint) from None


def _read_number(text: str, limit: Field[Any]) -> int | float | None:
    if _is_time(limit):
        return float(text) if _SECONDS.fullmatch(text) else None
    number = _NUMBER.fullmatch(text)
    if number is None:
        return None
    power = next((at for at, unit in enumerate(number.groups()[1:], 1) if unit), 0)
    return int(number[1]) << (10 * power)


def describe_limits() -> list[tuple[str, str, str]]:
    """Return every limit for the documentation: its name, its default as text, and what it limits."""
    return [(limit.name, _default(limit), f"{limit.metadata['text']}{_unit(limit)}") for limit in fields(Limits)]


def _default(limit: Field[Any]) -> str:
    default: Any = limit.default
    if limit.metadata["unit"] == "bytes":
        for power, unit in ((2, "M"), (1, "K")):
            if default % (1 << (10 * power)) == 0:
                return f"{default >> (10 * power)}{unit}"
    return f"{default:g}" if _is_time(limit) else str(default)


def _unit(limit: Field[Any]) -> str:
    unit = limit.metadata["unit"]
    return "" if unit == "count" else f", in {unit}"


DEFAULT: Final = Limits()
