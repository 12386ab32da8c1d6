"""Reading and writing the northbound model as JSON.

Reading is generous in spelling (enum numbers and names, snake_case and lowerCamelCase) and strict in meaning:
an unknown key, a key given twice or a value of the wrong type is a problem, told with the path of the key.
One bad field does not hide the others, and a value that cannot be read is still reported with its source.

The keys and their types come from the descriptors of northbound.proto. Writing is the strict form:
snake_case, enums as numbers, what is at its default left out, in the order of that file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from vethlib.errors import InvalidValue

from . import northbound_pb2 as pb
from .jsontext import JsonObject, Undecodable, decode
from .model import FIELD_READ, Interface, InvalidInterface, Namespace, NamespaceType

__all__ = ["Parsed", "read", "read_one", "read_value", "same", "to_dict", "to_json"]

# What clients of older agents wrote for a key of ours.
_FORMER_NAMES = {"linux_namespace": "namespace", "linuxNamespace": "namespace"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one value: an interface, or the problems that keep it from being one.

    `name` is the interface's name as far as it can be told, `source` where the value came from.
    """

    interface: Interface | None
    name: str = ""
    problems: tuple[InvalidValue, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""

    def refused(self, *problems: InvalidValue) -> Parsed:
        """The same value with more problems, and so without an interface."""
        return replace(self, interface=None, problems=self.problems + problems)


def same(one: Parsed | None, other: Parsed | None) -> bool:
    """Whether two values mean the same. Where a valid one stands does not matter; problems compare by their words."""
    if one is None or other is None:
        return one is other
    if (one.interface, one.warnings) != (other.interface, other.warnings):
        return False
    return one.interface is not None or (one.source, _words(one)) == (other.source, _words(other))


def _words(one: Parsed) -> list[str]:
    return [str(problem) for problem in one.problems]


def read(text: str | bytes, source: str = "") -> list[Parsed]:
    """Read a JSON text that holds one interface or a list of them.

    Raises nothing: what is wrong is in each one's ``problems``. `source` says where the text is from, in messages.
    """
    try:
        value = decode(text)
    except Undecodable as error:
        return [Parsed(None, problems=(error,), source=source)]
    if not isinstance(value, list):
        return [read_value(value, source)]
    return [read_value(one, f"{source}[{number}]") for number, one in enumerate(value)]


def read_one(text: str | bytes, source: str = "", *, name: str | None = None) -> Parsed:
    """Read a JSON text that holds one interface, which has to be called `name` where that is given.

    As :func:`read`, it raises nothing.
    """
    try:
        parsed = read_value(decode(text), source)
    except Undecodable as error:
        return Parsed(None, name or "", (error,), source=source)
    if name is None or parsed.name == name:
        return parsed
    cure = f"the key is for {name!r}: name and key have to agree"
    return replace(parsed.refused(InvalidValue("name", parsed.name, cure)), name=name)


def read_value(value: object, source: str = "") -> Parsed:
    """Read one interface from a decoded JSON value. As :func:`read`, it raises nothing."""
    if not isinstance(value, dict):
        problem = InvalidValue("interface", _short(value), f"write an object, not {_kind(value)}")
        return Parsed(None, problems=(problem,), source=source)
    reader = _Reader()
    fields = reader.message(value, pb.Interface.DESCRIPTOR, "")
    name = fields.get("name", "")
    reader.namespace_warnings(fields.get("namespace", {}))
    interface = _from_fields(fields, reader.problems)
    warnings = (*reader.warnings, *(interface.warnings if interface else ()))
    return Parsed(interface, name, tuple(reader.problems), warnings, source)


def to_dict(interface: Interface) -> dict[str, Any]:
    """The interface as a JSON object: snake_case, enums as numbers, one fixed order; defaults are left out unless they
    were written out where it was read from.
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
    found = json_format.MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)
    if not interface.explicit:
        return found
    if "namespace.type" in interface.explicit and namespace.ref:
        found["namespace"] = {"type": 0} | found["namespace"]
    fields = pb.Interface.DESCRIPTOR.fields
    written = {one.name: one.default_value for one in fields if one.name in interface.explicit} | found
    return {one.name: written[one.name] for one in fields if one.name in written}


def to_json(interface: Interface, *, indent: int | None = None) -> str:
    """:func:`to_dict` as text; `indent` as in :func:`json.dumps`."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(to_dict(interface), indent=indent, separators=separators, ensure_ascii=False)


def _from_fields(fields: dict[str, Any], problems: list[InvalidValue]) -> Interface | None:
    """The interface that has these. Adds to `problems`, but nothing on a field that is there already."""
    found: list[InvalidValue] = []
    explicit = {name for name, value in fields.items() if not value and not isinstance(value, dict)}
    if fields.get("namespace", {}).get("type") == 0:
        explicit.add("namespace.type")
    given = {name: value for name, value in fields.items() if name not in ("name", "veth", "namespace")}
    try:
        given["namespace"] = Namespace(**fields.get("namespace", {}))
    except InvalidValue as error:
        found.append(error)
    given["explicit"] = frozenset(explicit)
    interface = None
    try:
        interface = Interface(fields.get("name", ""), fields.get("veth", {}).get("peer_if_name", ""), **given)
    except InvalidInterface as error:
        found.extend(error.problems)
    told = {problem.field for problem in problems}
    problems.extend(problem for problem in found if told.isdisjoint(_prefixes(problem.field)))
    return None if problems else interface


def _prefixes(path: str) -> Iterator[str]:
    """``veth`` and ``veth.peer_if_name`` for the latter."""
    for at, character in enumerate(path):
        if character in ".[":
            yield path[:at]
    yield path


class _Reader:
    """Walks a JSON object along a message descriptor and collects what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[InvalidValue] = []
        self.warnings: list[str] = []

    def message(self, given: dict[str, Any], descriptor: Descriptor, path: str) -> dict[str, Any]:
        """What of `given` is right, under the proper names."""
        fields: dict[str, Any] = {}
        spelt: dict[str, str] = {}
        for key in given.twice if isinstance(given, JsonObject) else ():
            self.wrong(path + _shown(key), given[key], "the key is given twice in one object")
        for key, value in given.items():
            field = _field(descriptor, key)
            if field is None:
                self.wrong(path + _shown(key), value, _unknown(descriptor, key, path))
                continue
            if field.name in spelt:
                cure = f"the same field is given as {path}{spelt[field.name]} too: keep one"
                self.wrong(path + key, value, cure)
                continue
            spelt[field.name] = key
            if key in _FORMER_NAMES and key != field.name:
                self.warnings.append(f"{key} is read as {field.name}: write {field.name}")
            if value is not None:  # null stands for the default (the JSON mapping of protobuf)
                self.field(fields, field, value, path + field.name)
        return fields

    def field(self, fields: dict[str, Any], field: FieldDescriptor, value: Any, path: str) -> None:
        """Put `value` into `fields` if it is of the field's type."""
        if field.default_value != []:
            self.one(fields, field.name, field, value, path)
        elif not isinstance(value, list):
            self.wrong(path, value, f"write a list, not {_kind(value)}")
        else:
            # A bad element leaves an empty one behind, so that those after it keep their number.
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
                self.wrong(path, value, f"write an object, not {_kind(value)}{as_in}")
            return
        accepts, read, cure = _SCALARS[field.type]
        if accepts(field, value):
            into[key] = read(field, value)
        else:
            self.wrong(path, value, cure(field))

    def wrong(self, path: str, value: object, cure: str) -> None:
        self.problems.append(InvalidValue(path, _short(value), cure))

    def namespace_warnings(self, namespace: dict[str, Any]) -> None:
        """Warn of fields that the namespace's type leaves unread."""
        if any(problem.field.startswith("namespace") for problem in self.problems):
            return
        kind = NamespaceType(namespace.get("type", 0))
        for name in FIELD_READ.values():
            if name != FIELD_READ[kind] and namespace.get(name):
                reads = f"{kind.name} ({kind.value}), which reads namespace.{FIELD_READ[kind]}"
                self.warnings.append(f"namespace.{name} is not read: namespace.type is {reads}")


def _field(descriptor: Descriptor, key: str) -> FieldDescriptor | None:
    if not key.isascii():
        return None
    if descriptor is pb.Interface.DESCRIPTOR:
        key = _FORMER_NAMES.get(key, key)
    return descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)


def _unknown(descriptor: Descriptor, key: str, path: str) -> str:
    known = [*descriptor.fields_by_name, *descriptor.fields_by_camelcase_name]
    near = get_close_matches(key[:NEAR], known, n=1, cutoff=0.4)
    # What is a part of one that holds a name is meant by it: "peer", "veth.peer".
    near += [name for name in known if key and key in name]
    if not near:
        return f"no such key; there are {', '.join(path + name for name in descriptor.fields_by_name)}"
    field = _field(descriptor, near[0])
    assert field is not None
    return f"no such key; the nearest one is {path}{field.name}"


NEAR = 64  # difflib takes quadratic time, and no key of ours is longer


def _is_text(_field: FieldDescriptor, value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _is_flag(_field: FieldDescriptor, value: object) -> bool:
    return isinstance(value, bool)


def _is_uint32(_field: FieldDescriptor, value: object) -> bool:
    """A number, or one in quotes, as protobuf's JSON mapping has it."""
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= 10 and int(value) < 1 << 32
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == value // 1 and 0 <= value < 1 << 32


def _is_enum(field: FieldDescriptor, value: object) -> bool:
    assert field.enum_type is not None
    if isinstance(value, str):
        return value in field.enum_type.values_by_name
    return type(value) is int and value in field.enum_type.values_by_number


def _enum_cure(field: FieldDescriptor) -> str:
    assert field.enum_type is not None
    values = [f"{value.name} ({value.number})" for value in field.enum_type.values]
    return f"give one of {', '.join(values)}" if len(values) > 1 else f"the only one is {values[0]}"


def _as_given(_field: FieldDescriptor, value: Any) -> Any:
    return value


def _as_number(_field: FieldDescriptor, value: Any) -> int:
    return int(value)


def _enum_number(field: FieldDescriptor, value: Any) -> int:
    assert field.enum_type is not None
    return field.enum_type.values_by_name[value].number if isinstance(value, str) else int(value)


# By type: whether a value is of it, the value as the model has it, and what to write instead of one that is not.
_EXAMPLES = {"namespace": '{"type": 2, "name": "ns1"}', "veth": '{"peer_if_name": "veth2"}'}

_SCALARS: dict[
    int,
    tuple[
        Callable[[FieldDescriptor, Any], bool],
        Callable[[FieldDescriptor, Any], Any],
        Callable[[FieldDescriptor], str],
    ],
] = {
    FieldDescriptor.TYPE_STRING: (_is_text, _as_given, lambda _: "write text in quotes"),
    FieldDescriptor.TYPE_BOOL: (_is_flag, _as_given, lambda _: "write true or false"),
    FieldDescriptor.TYPE_UINT32: (_is_uint32, _as_number, lambda _: "write a whole number from 0 to 4294967295"),
    FieldDescriptor.TYPE_ENUM: (_is_enum, _enum_number, _enum_cure),
}


def _kind(value: object) -> str:
    """What JSON calls `value`."""
    names: Iterable[tuple[type, str]] = ((bool, "a truth value"), (dict, "an object"), (list, "a list"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "null" if value is None else "text" if isinstance(value, str) else "a number"


def _short(value: object) -> object:
    """`value` for a message: small, and never the kind of thing whose repr() is a problem of its own."""
    if isinstance(value, dict | list):
        return _kind(value)
    return value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."


def _shown(key: str) -> str:
    """A key for a path: short, and printable on any terminal."""
    key = key if len(key) <= 80 else f"{key[:77]}..."
    return key if key.isprintable() else ascii(key)
