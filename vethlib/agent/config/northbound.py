"""Read and write the northbound model as JSON.

Reading is generous in spelling (see :mod:`.spelling`) and strict in meaning: an unknown key, a key given twice or a
value of the wrong type is a problem, reported with the path of the key.
One bad field does not hide the others, and a value that cannot be read is still reported with its source.
A problem with one value, foreseen or not, never affects another value. The content of unknown keys, which may be
secret, is in no message that everybody can read.

The keys and their types come from the descriptors of northbound.proto. The written form is strict: snake_case, enums
as numbers, defaults left out, in the order of that file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.errors import InvalidValue

from . import northbound_pb2 as pb
from .jsontext import JsonObject, Stray, Undecodable, decode
from .model import (
    FIELD_READ,
    Interface,
    InvalidInterface,
    MoreProblems,
    Namespace,
    NamespaceType,
    Remark,
    check_interface_name,
    detached,
    too_many_addresses,
)
from .spelling import LONGEST as NEAR
from .spelling import enum_number, field_of, is_former_name, is_uint32, values_of

__all__ = [
    "Parsed",
    "name_in",
    "read",
    "read_one",
    "read_value",
    "same",
    "to_dict",
    "to_json",
    "too_long",
    "unforeseen",
]

_log = logging.getLogger("vethlib.agent")


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
    addresses = most.addresses_per_file
    parsed: list[Parsed] = []
    for number, element in enumerate(value):
        place = f"{source}[{number}]"
        count = _addresses(element)
        if not is_small and (size := _size(element)) > most.value_bytes:
            parsed.append(_too_long(element, size, place, most))
        elif count > addresses:
            cure = f"the interfaces of a file may have {most.addresses_per_file} together (limit addresses_per_file)"
            parsed.append(Parsed(None, _name_of(element), (InvalidValue("ip_addresses", count, cure),), source=place))
        else:
            addresses -= count
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
    cure = f"the key is for {name!r}: name and key have to agree"
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
        problem = Stray("interface", f"must be an object, not {_kind(value)}")
        return Parsed(None, problems=(problem,), source=source)
    reader = _Reader(limits, most)
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


def _addresses(value: object) -> int:
    """Return how many addresses a decoded value lists: 20 µs each to check, and 50 µs to give to a link."""
    return sum(len(listed) for listed in values_of(value, "ip_addresses") if isinstance(listed, list))


def _too_long(value: object, size: int, source: str, limits: Limits) -> Parsed:
    cure = f"must have at most {limits.value_bytes} bytes, and has {size} (limit value_bytes)"
    return Parsed(None, _name_of(value), (Stray("interface", cure),), source=source)


def _size(value: object) -> int:
    """Return roughly the number of bytes that a decoded value took: its texts, and two bytes for each part."""
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


def to_dict(interface: Interface) -> dict[str, Any]:
    """Return the interface as a JSON object: snake_case, enums as numbers, in a fixed order.

    Defaults are left out unless they were present in the value that was read.
    """
    namespace = interface.namespace
    message = pb.Interface(
        name=interface.name,
        description=interface.description,
        type=pb.InterfaceType.ValueType(interface.type),
        enabled=interface.enabled,
        phys_address=interface.phys_address,
        mtu=interface.mtu,
        ip_addresses=interface.ip_addresses,
        host_if_name=interface.host_if_name,
        veth=pb.Veth(peer_if_name=interface.peer_if_name),
        num_queues=interface.num_queues,
        link_only=interface.link_only,
    )
    if namespace.ref:
        message.namespace.type = pb.NamespaceType.ValueType(namespace.type)
        for field in FIELD_READ.values():
            setattr(message.namespace, field, getattr(namespace, field))
    values = json_format.MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)
    if not interface.explicit:
        return values
    if "namespace.type" in interface.explicit and namespace.ref:
        values["namespace"] = {"type": 0} | values["namespace"]
    fields = pb.Interface.DESCRIPTOR.fields
    written = {field.name: field.default_value for field in fields if field.name in interface.explicit} | values
    return {field.name: written[field.name] for field in fields if field.name in written}


def to_json(interface: Interface, *, indent: int | None = None) -> str:
    """Return the result of :func:`to_dict` as text; `indent` as in :func:`json.dumps`."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(to_dict(interface), indent=indent, separators=separators, ensure_ascii=False)


def _from_fields(fields: dict[str, Any], reader: _Reader) -> tuple[Interface | None, tuple[InvalidValue, ...]]:
    """Return the interface with these fields, or all problems, at most one per field that the reader has refused."""
    raised: list[InvalidValue] = []
    explicit = {name for name, value in fields.items() if not value and not isinstance(value, dict)}
    if fields.get("namespace", {}).get("type") == 0:
        explicit.add("namespace.type")
    given = {name: value for name, value in fields.items() if name not in ("name", "veth", "namespace")}
    limits = reader.limits
    if limits is not None and (count := len(given.get("ip_addresses", ()))) > limits.addresses:
        raised.append(too_many_addresses(count, limits))
        del given["ip_addresses"]
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


def _prefixes(path: str) -> Iterator[str]:
    """Yield a path and its parents: ``veth`` and ``veth.peer_if_name`` for the latter."""
    for at, character in enumerate(path):
        if character in ".[":
            yield path[:at]
    yield path


class _Reader:
    """Walk a JSON object along a message descriptor and collect its problems.

    Up to `most` problems are kept, the rest only counted, so that a million of them take no memory.
    """

    def __init__(self, limits: Limits | None, most: int) -> None:
        self.limits = limits
        self._most = most
        self.problems: list[InvalidValue] = []
        self.remarks: list[Remark] = []
        self._more = 0
        self._refused: set[str] = set()  # known fields that have a problem, listed or not

    def add(self, problem: InvalidValue) -> None:
        """Add a problem that was found elsewhere, unless its field already has one."""
        if isinstance(problem, MoreProblems):
            self._more += problem.count
        elif self._refused.isdisjoint(_prefixes(problem.field)):
            self._list(lambda: problem)

    def listed(self) -> tuple[InvalidValue, ...]:
        """Return the problems, with a last one for the number of unlisted ones."""
        return (*self.problems, *([MoreProblems(self._more)] if self._more else []))

    def _list(self, make: Callable[[], InvalidValue]) -> None:
        if len(self.problems) < self._most:
            self.problems.append(make())
        else:
            self._more += 1

    def message(self, given: dict[str, Any], descriptor: Descriptor, path: str) -> dict[str, Any]:
        """Return the valid fields of `given` under their proper names."""
        fields: dict[str, Any] = {}
        spelt: dict[str, str] = {}
        for key in given.twice if isinstance(given, JsonObject) else ():
            self.stray(path, key, given[key], lambda: "the key is given twice in one object")
        for key, value in given.items():
            field = field_of(descriptor, key)
            if field is None:
                self.stray(path, key, value, partial(_unknown, descriptor, key, path))
                continue
            if field.name in spelt:
                cure = f"the same field is also given as {path}{spelt[field.name]}: keep one"
                self.wrong(path + key, value, cure)
                continue
            spelt[field.name] = key
            if is_former_name(key):
                text = f"{key} is a former name of {field.name}: write {field.name}"
                self.remarks.append(Remark("former-key", (field.name,), text))
            if value is not None:  # null means the default (JSON mapping of protobuf)
                self.field(fields, field, value, path + field.name)
        return fields

    def field(self, fields: dict[str, Any], field: FieldDescriptor, value: Any, path: str) -> None:
        """Put `value` into `fields` if it is of the field's type."""
        if field.default_value != []:
            self.one(fields, field.name, field, value, path)
        elif not isinstance(value, list):
            self.wrong(path, value, f"must be a list, not {_kind(value)}")
        else:
            # A bad element is replaced by "", so that the numbers of the elements after it stay right.
            elements = dict.fromkeys(range(len(value)), "")
            for number, element in enumerate(value):
                self.one(elements, number, field, element, f"{path}[{number}]")
            fields[field.name] = list(elements.values())

    def one(self, into: dict[Any, Any], key: object, field: FieldDescriptor, value: Any, path: str) -> None:
        if field.type == field.TYPE_MESSAGE:
            if isinstance(value, dict):
                assert field.message_type is not None
                into[key] = self.message(value, field.message_type, f"{path}.")
            else:
                example = _EXAMPLES.get(path)
                as_in = f", as in {example}" if example else ""
                self.wrong(path, value, f"must be an object, not {_kind(value)}{as_in}")
            return
        accepts, read, cure = _SCALARS[field.type]
        if accepts(field, value):
            into[key] = read(field, value)
        else:
            self.wrong(path, value, cure(field))

    def wrong(self, path: str, value: object, cure: str) -> None:
        """Note that a known field, or an element of it, has a value of the wrong type."""
        if not path.endswith("]"):  # a bad element is replaced by "", which raises no further problem
            self._refused.add(path)
        self._list(lambda: InvalidValue(path, _short(value), cure))

    def stray(self, path: str, key: str, value: object, cure: Callable[[], str]) -> None:
        """Note a key that does not belong there."""
        self._refused.add(path + key if len(key) < NEAR else path)
        self._list(lambda: Stray(path + _shown(key), cure(), _short(value)))

    def readable(self, namespace: dict[str, Any]) -> dict[str, Any]:
        """Return the fields to check: all, or only those that its type reads if the namespace already has problems."""
        if not self._is_namespace_refused():
            return namespace
        kind = namespace.get("type", 0)
        return {name: value for name, value in namespace.items() if name in ("type", FIELD_READ[kind])}

    def _is_namespace_refused(self) -> bool:
        return any(path.startswith("namespace") for path in self._refused)

    def namespace_warnings(self, namespace: dict[str, Any]) -> None:
        """Warn of fields that the namespace's type leaves unread."""
        if self._is_namespace_refused() or not namespace.get(FIELD_READ[NamespaceType(namespace.get("type", 0))]):
            return
        kind = NamespaceType(namespace.get("type", 0))
        for name in FIELD_READ.values():
            if name != FIELD_READ[kind] and namespace.get(name):
                reads = f"{kind.name} ({kind.value}), which reads namespace.{FIELD_READ[kind]}"
                text = f"namespace.{name} is not read: namespace.type is {reads}"
                self.remarks.append(Remark("unread-field", (f"namespace.{name}",), text))


def _unknown(descriptor: Descriptor, key: str, path: str) -> str:
    known = [*descriptor.fields_by_name, *descriptor.fields_by_camelcase_name]
    near = get_close_matches(key[:NEAR], known, n=1, cutoff=0.4)
    # A key that is part of a known name probably means that name: "peer" means veth.peer_if_name.
    near += [name for name in known if key and key in name]
    if not near:
        return f"unknown key; the known keys are {', '.join(path + name for name in descriptor.fields_by_name)}"
    field = field_of(descriptor, near[0])
    assert field is not None
    return f"unknown key; did you mean {path}{field.name}?"


_LONGEST_NAME = 255
_ELEMENTS_IN_FULL = 50  # elements whose problems are all listed: a problem takes 1 KB, and a list may have a million


def _is_text(_field: FieldDescriptor, value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _is_flag(_field: FieldDescriptor, value: object) -> bool:
    return isinstance(value, bool)


def _is_uint32(_field: FieldDescriptor, value: object) -> bool:
    return is_uint32(value)


def _is_enum(field: FieldDescriptor, value: object) -> bool:
    return enum_number(field, value) is not None


def _enum_cure(field: FieldDescriptor) -> str:
    assert field.enum_type is not None
    values = [f"{value.name} ({value.number})" for value in field.enum_type.values]
    return f"must be one of {', '.join(values)}" if len(values) > 1 else f"must be {values[0]}"


def _as_given(_field: FieldDescriptor, value: Any) -> Any:
    return value


def _as_number(_field: FieldDescriptor, value: Any) -> int:
    return int(value)


# By field type: a check of the type, the conversion to the model, and the cure for a value of another type.
_EXAMPLES = {"namespace": '{"type": 2, "name": "ns1"}', "veth": '{"peer_if_name": "veth2"}'}

_SCALARS: dict[
    int,
    tuple[
        Callable[[FieldDescriptor, Any], bool],
        Callable[[FieldDescriptor, Any], Any],
        Callable[[FieldDescriptor], str],
    ],
] = {
    FieldDescriptor.TYPE_STRING: (_is_text, _as_given, lambda _: "must be a string"),
    FieldDescriptor.TYPE_BOOL: (_is_flag, _as_given, lambda _: "must be true or false"),
    FieldDescriptor.TYPE_UINT32: (_is_uint32, _as_number, lambda _: "must be a whole number from 0 to 4294967295"),
    FieldDescriptor.TYPE_ENUM: (_is_enum, enum_number, _enum_cure),
}


def _kind(value: object) -> str:
    """Return the name of the JSON type of `value`, for messages."""
    names: Iterable[tuple[type, str]] = ((bool, "true or false"), (dict, "an object"), (list, "a list"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "null" if value is None else "a string" if isinstance(value, str) else "a number"


def _short(value: object) -> object:
    """Return `value` for a message: short, and nothing whose repr() could fail or be huge."""
    if isinstance(value, dict | list):
        return _kind(value)
    return value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."


def _shown(key: str) -> str:
    """Return a key for a path: short, and printable on any terminal."""
    key = key if len(key) <= 80 else f"{key[:77]}..."
    return key if key.isprintable() else ascii(key)
