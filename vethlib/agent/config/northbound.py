"""Read the northbound model as JSON.

Reading is generous in spelling (see :mod:`.spelling`) and strict in meaning: an unknown key, a key given twice or a
value of the wrong type is a problem, reported with the path of the key (see :mod:`.fieldreader`). One bad field does
not hide the others, and a value that cannot be read is still reported with its source. A problem with one value,
foreseen or not, never affects another value. The content of unknown keys, which may be secret, never appears in a
message that everybody can read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.errors import InvalidValue

from . import northbound_pb2 as pb
from .fieldreader import FieldReader, json_type
from .jsontext import Stray, Undecodable, decode
from .model import Interface
from .namespace import Namespace
from .problems import LISTS, InvalidInterface, Remark, detached, too_many
from .spelling import lists_of, values_of
from .textchecks import check_interface_name

__all__ = [
    "Parsed",
    "name_in",
    "read",
    "read_one",
    "read_value",
    "same",
    "too_long",
    "unforeseen",
]

_log = logging.getLogger("vethlib.agent")


_LONGEST_NAME = 255
_ELEMENTS_IN_FULL = 50  # elements whose problems are all listed: a problem takes 1 KB, and a list may have a million


@dataclass(frozen=True, slots=True)
class Parsed:
    """The result of reading one value: an interface, or the problems with the value.

    `name` is the name of the interface, if it can be determined, and `source` the place of the value.
    """

    interface: Interface | None
    name: str = ""
    problems: tuple[InvalidValue, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""

    def refused(self, *problems: InvalidValue) -> Parsed:
        """Return the same value with additional problems, and therefore without an interface."""
        return replace(self, interface=None, problems=self.problems + problems)

    def remarked(self, remark: Remark) -> Parsed:
        """Return the same value with an additional warning."""
        interface = self.interface and replace(self.interface, spelling=(*self.interface.spelling, remark))
        return replace(self, interface=interface, warnings=(*self.warnings, remark.text))


def same(one: Parsed | None, other: Parsed | None) -> bool:
    """Return whether two values have the same meaning.

    The source matters for invalid values only; problems are compared by their text.
    """
    if one is None or other is None:
        return one is other
    if (one.interface, one.warnings) != (other.interface, other.warnings):
        return False
    return one.interface is not None or (one.source, _texts(one)) == (other.source, _texts(other))


def _texts(value: Parsed) -> list[str]:
    return [str(problem) for problem in value.problems]


def read(text: str | bytes, source: str = "", *, limits: Limits | None = None) -> list[Parsed]:
    """Parse a JSON text with one interface or a list of interfaces.

    It never raises: each result has its ``problems``. `source` is the place of the text, for messages. Without
    `limits`, the default limits of sizes apply, and an interface is limited only by what the kernel accepts.
    """
    most = limits or DEFAULT
    try:
        value = decode(text, most)
    except Undecodable as error:
        return [Parsed(None, problems=(detached(error),), source=source)]
    except Exception as error:
        return [unforeseen(error, source)]
    is_small = len(text) <= most.value_bytes
    if not isinstance(value, list):
        return [read_value(value, source, limits=limits) if is_small else _too_long(value, len(text), source, most)]
    if len(value) > most.interfaces_per_file:
        count = most.interfaces_per_file
        cure = f"must have at most {count} interfaces, and has {len(value)} (limit interfaces_per_file)"
        return [Parsed(None, problems=(Stray("file", cure),), source=source)]
    left = _ELEMENTS_IN_FULL * most.problems
    room = most.addresses_per_file
    parsed: list[Parsed] = []
    for number, element in enumerate(value):
        place = f"{source}[{number}]"
        counts = _counts(element)
        if not is_small and (size := _size(element)) > most.value_bytes:
            parsed.append(_too_long(element, size, place, most))
        elif (count := sum(counts.values())) > room:
            cure = f"the interfaces of a file may have {most.addresses_per_file} together (limit addresses_per_file)"
            field = max(counts, key=lambda name: counts[name])
            parsed.append(Parsed(None, _name_of(element), (InvalidValue(field, count, cure),), source=place))
        else:
            room -= count
            parsed.append(_confined(element, place, limits, most.problems if left > 0 else 1))
        left -= len(parsed[-1].problems)
    return parsed


def read_one(text: str | bytes, source: str = "", *, name: str | None = None, limits: Limits | None = None) -> Parsed:
    """Parse a JSON text with one interface, which must be called `name` if that is given.

    Like :func:`read`, it never raises.
    """
    most = limits or DEFAULT
    if len(text) > most.value_bytes:
        return too_long(len(text), source, name or "", most)
    try:
        parsed = read_value(decode(text, most), source, limits=limits)
    except Undecodable as error:
        return Parsed(None, name or "", (detached(error),), source=source)
    except Exception as error:
        return unforeseen(error, source, name or "")
    if name is None or parsed.name == name:
        return parsed
    cure = f"must be {name!r}, the name in the key"
    return replace(parsed.refused(InvalidValue("name", parsed.name, cure)), name=name)


def too_long(size: int, source: str, name: str, limits: Limits) -> Parsed:
    """Return the result for a value of `size` bytes that is too long to be read."""
    return replace(_too_long(None, size, source, limits), name=name)


def read_value(value: object, source: str = "", *, limits: Limits | None = None) -> Parsed:
    """Parse one interface from a decoded JSON value. Like :func:`read`, it never raises."""
    return _confined(value, source, limits, (limits or DEFAULT).problems)


def _confined(value: object, source: str, limits: Limits | None, most: int) -> Parsed:
    """Read one value; an unforeseen exception makes only this value INVALID. Every value is read here."""
    try:
        return _read_value(value, source, limits, most)
    except Exception as error:
        return unforeseen(error, source, _name_of(value))


def unforeseen(error: Exception, source: str, name: str = "") -> Parsed:
    """Return the result for a value that raised an unforeseen exception. The debug log has the traceback."""
    _log.debug("%s cannot be read", source or name, exc_info=error)
    cure = f"cannot be read ({type(error).__name__}; the debug log has details)"
    return Parsed(None, name, (Stray("value", cure),), source=source)


def _read_value(value: object, source: str, limits: Limits | None, most: int) -> Parsed:
    if not isinstance(value, dict):
        problem = Stray("interface", f"must be an object, not {json_type(value)}")
        return Parsed(None, problems=(problem,), source=source)
    reader = FieldReader(limits, most)
    fields = reader.message(value, pb.Interface.DESCRIPTOR, "")
    name = fields.get("name", "")
    reader.namespace_warnings(fields.get("namespace", {}))
    interface, problems = _from_fields(fields, reader)
    warnings = tuple(remark.text for remark in reader.remarks) if interface is None else interface.warnings
    return Parsed(interface, name if len(name) <= _LONGEST_NAME else f"{name[:77]}...", problems, warnings, source)


def _name_of(value: object) -> str:
    """Return the name of a value if it is valid; otherwise ""."""
    try:
        return check_interface_name(name_in(value))
    except InvalidValue:
        return ""


def name_in(value: object) -> str:
    """Return the name that a decoded value has, unchecked; "" if it has none, or more than one."""
    names = values_of(value, "name")
    return names[0] if len(names) == 1 and isinstance(names[0], str) else ""


def _counts(value: object) -> dict[str, int]:
    """Return the lengths of the lists in a decoded value: each element takes 20 µs to check and 50 µs to set."""
    counts = dict.fromkeys(LISTS, 0)
    for field, listed in lists_of(value):
        if field in counts:
            counts[field] += len(listed)
    return counts


def _too_long(value: object, size: int, source: str, limits: Limits) -> Parsed:
    cure = f"must have at most {limits.value_bytes} bytes, and has {size} (limit value_bytes)"
    return Parsed(None, _name_of(value), (Stray("interface", cure),), source=source)


def _size(value: object) -> int:
    """Return the approximate number of bytes of a decoded value as text: its strings, and two bytes for each part."""
    size, rest = 0, [value]
    while rest:
        part = rest.pop()
        size += 2
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, dict):
            rest += part.values()
            size += sum(map(len, part))
        elif isinstance(part, list):
            rest += part
    return size


def _from_fields(fields: dict[str, Any], reader: FieldReader) -> tuple[Interface | None, tuple[InvalidValue, ...]]:
    """Return the interface with these fields, or all problems, at most one per field that the reader has refused."""
    raised: list[InvalidValue] = []
    explicit = {name for name, value in fields.items() if not value and not isinstance(value, dict)}
    if fields.get("namespace", {}).get("type") == 0:
        explicit.add("namespace.type")
    given = {name: value for name, value in fields.items() if name not in ("name", "veth", "namespace")}
    limits = reader.limits
    if limits is not None:
        raised += too_many(given, limits)
        for problem in raised:
            del given[problem.field]
    try:
        given["namespace"] = Namespace(**reader.readable(fields.get("namespace", {})))
    except InvalidValue as error:
        raised.append(detached(error))
    given |= {"explicit": frozenset(explicit), "spelling": tuple(reader.remarks)}
    interface = None
    try:
        interface = Interface(fields.get("name", ""), fields.get("veth", {}).get("peer_if_name", ""), **given)
        raised += interface.beyond(limits) if limits is not None else []
    except InvalidInterface as error:
        raised.extend(error.problems)
    for problem in raised:
        reader.add(problem)
    problems = reader.listed()
    return None if problems else interface, problems
