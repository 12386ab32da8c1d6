"""Walk a JSON object along the descriptors of northbound.proto, and collect its fields and its problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from vethlib.agent.limits import Limits
from vethlib.errors import InvalidValue

from .jsontext import JsonObject, Stray
from .namespace import FIELD_READ, NamespaceType
from .problems import MoreProblems, Remark
from .spelling import LONGEST as NEAR
from .spelling import enum_number, field_of, is_former_name, is_uint32

__all__ = ["FieldReader", "json_type"]


_ALIKE: Final = 0.65  # the least similarity of a key to a known one that is suggested for it
_TELLING: Final = 3  # characters


def _prefixes(path: str) -> Iterator[str]:
    """Yield a path and its parents: ``veth`` and ``veth.peer_if_name`` for the latter."""
    for at, character in enumerate(path):
        if character in ".[":
            yield path[:at]
    yield path


class FieldReader:
    """Walks a JSON object along a message descriptor and collects its problems.

    Up to `most` problems are kept, the rest only counted, so that a million of them take no memory.
    """

    def __init__(self, limits: Limits | None, most: int) -> None:
        self.limits = limits
        self._most = most
        self._problems: list[InvalidValue] = []
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
        return (*self._problems, *([MoreProblems(self._more)] if self._more else []))

    def _list(self, make: Callable[[], InvalidValue]) -> None:
        if len(self._problems) < self._most:
            self._problems.append(make())
        else:
            self._more += 1

    def message(self, given: dict[str, Any], descriptor: Descriptor, path: str) -> dict[str, Any]:
        """Return the valid fields of `given` under their proper names."""
        fields: dict[str, Any] = {}
        spelt: dict[str, str] = {}
        for key in given.twice if isinstance(given, JsonObject) else ():
            self._stray(path, key, given[key], lambda: "the key is given twice in one object")
        for key, value in given.items():
            field = field_of(descriptor, key)
            if field is None:
                self._stray(path, key, value, partial(_unknown, descriptor, key, path))
                continue
            if field.name in spelt:
                cure = f"the same field is also given as {path}{spelt[field.name]}: keep one"
                self._wrong(path + key, value, cure)
                continue
            spelt[field.name] = key
            if key != field.name and is_former_name(key):
                text = f"{key} is a former name of {field.name}: write {field.name}"
                self.remarks.append(Remark("former-key", (field.name,), text))
            if value is not None:  # null means the default (JSON mapping of protobuf)
                self._field(fields, field, value, path + field.name)
        return fields

    def _field(self, fields: dict[str, Any], field: FieldDescriptor, value: Any, path: str) -> None:
        """Put `value` into `fields` if it is of the field's type."""
        if _is_map(field):
            self._map(fields, field, value, path)
        elif field.default_value != []:
            self._one(fields, field.name, field, value, path)
        elif not isinstance(value, list):
            self._wrong(path, value, f"must be a list, not {json_type(value)}")
        else:
            # A bad element is replaced by "", so that the numbers of the elements after it stay right.
            elements = dict.fromkeys(range(len(value)), "")
            for number, element in enumerate(value):
                self._one(elements, number, field, element, f"{path}[{number}]")
            fields[field.name] = list(elements.values())

    def _map(self, fields: dict[str, Any], field: FieldDescriptor, value: Any, path: str) -> None:
        """Put an object whose values are texts, or numbers that stand for them, into `fields`."""
        if not isinstance(value, dict):
            self._wrong(path, value, f"must be an object, not {json_type(value)}, as in {_EXAMPLES[path]}")
            return
        for key in value.twice if isinstance(value, JsonObject) else ():
            self._stray(f"{path}.", key, value[key], lambda: "the key is given twice in one object")
        for key, text in value.items():
            if isinstance(text, bool) or not isinstance(text, str | int):
                self._wrong(f"{path}.{_shown(key)}", text, "must be a string or a whole number")
                self._refused.add(path)
        fields[field.name] = {} if path in self._refused else {key: str(text) for key, text in value.items()}

    def _one(self, into: dict[Any, Any], key: object, field: FieldDescriptor, value: Any, path: str) -> None:
        if field.type == field.TYPE_MESSAGE:
            if isinstance(value, dict):
                assert field.message_type is not None
                into[key] = self.message(value, field.message_type, f"{path}.")
            else:
                example = _EXAMPLES.get(path)
                as_in = f", as in {example}" if example else ""
                self._wrong(path, value, f"must be an object, not {json_type(value)}{as_in}")
            return
        accepts, read, cure = _SCALARS[field.type]
        if accepts(field, value):
            into[key] = read(field, value)
        else:
            self._wrong(path, value, cure(field))

    def _wrong(self, path: str, value: object, cure: str) -> None:
        """Note that a known field, or an element of it, has a value of the wrong type."""
        # A bad element is replaced by "". Among addresses, that raises no further problem; a route cannot be empty.
        where = path[: path.rindex("[")] if path.endswith("]") else path
        if where == path or where != "ip_addresses":
            self._refused.add(where)
        self._list(lambda: InvalidValue(path, _short(value), cure))

    def _stray(self, path: str, key: str, value: object, cure: Callable[[], str]) -> None:
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
    # With a lower cutoff, "altnames" would be suggested for "netns"; the list of the known keys is of more use.
    near = get_close_matches(key[:NEAR], known, n=1, cutoff=_ALIKE)
    # A key that is part of a known name probably means that name: "peer" means veth.peer_if_name.
    near += [name for name in known if len(key) >= _TELLING and key in name]
    if not near:
        return f"unknown key; the known keys are {', '.join(path + name for name in descriptor.fields_by_name)}"
    field = field_of(descriptor, near[0])
    assert field is not None
    return f"unknown key; did you mean {path}{field.name}?"


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


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
_EXAMPLES = {
    "namespace": '{"type": 2, "name": "ns1"}',
    "veth": '{"peer_if_name": "veth2"}',
    "sysctls": '{"rp_filter": "0"}',
}

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


def json_type(value: object) -> str:
    """Return the name of the JSON type of `value`, for messages."""
    names: Iterable[tuple[type, str]] = ((bool, "true or false"), (dict, "an object"), (list, "a list"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "null" if value is None else "a string" if isinstance(value, str) else "a number"


def _short(value: object) -> object:
    """Return `value` for a message: short, and nothing whose repr() could fail or be huge."""
    if isinstance(value, dict | list):
        return json_type(value)
    return value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."


def _shown(key: str) -> str:
    """Return a key for a path: short, and printable on any terminal."""
    key = key if len(key) <= 80 else f"{key[:77]}..."
    return key if key.isprintable() else ascii(key)
