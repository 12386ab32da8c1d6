"""The accepted spellings of northbound keys and values. Pure.

1. A key is read as the JSON decoders of Go and protobuf read it: its name in snake_case or lowerCamelCase, in any
   letter case. So ``phys_address``, ``physAddress``, ``PhysAddress`` and ``PHYS_ADDRESS`` are one key; two of them in
   one object are a problem, whatever their values.
2. A value of an enumeration is a number, or a name in any letter case.
3. A number may have a fraction of zero (1500.0) and may be in quotes, as protobuf writes 64-bit numbers.

Only ASCII is folded: the model has no other letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from . import northbound_pb2 as pb

__all__ = ["LONGEST", "enum_number", "field_of", "is_former_name", "is_uint32", "lists_of", "values_of"]

LONGEST: Final = 64
"""Number of characters of a key that are compared; no key of the model is longer."""

# Names that clients of older agents wrote for a key of the model.
_FORMER: Final = {"linux_namespace": "namespace", "linuxnamespace": "namespace"}

_UINT32: Final = 1 << 32


def field_of(descriptor: Descriptor, key: str) -> FieldDescriptor | None:
    """Return the field that a key of a JSON object means, or None."""
    fields = _folded_fields(descriptor)
    return fields.get(key) or fields.get(_folded(key))


def is_former_name(key: str) -> bool:
    """Return whether only clients of older agents write this key of an interface."""
    return _folded(key) in _FORMER


def values_of(value: object, name: str) -> list[Any]:
    """Return the values that a decoded interface has under this key, one for each spelling that it uses."""
    if not isinstance(value, dict):
        return []
    fields = ((field_of(pb.Interface.DESCRIPTOR, key), item) for key, item in value.items())
    return [item for field, item in fields if field is not None and field.name == name]


def lists_of(value: object) -> Iterator[tuple[str, list[Any] | dict[str, Any]]]:
    """Yield the lists and objects of a decoded interface, each with the name of its field."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, list | dict) and (field := field_of(pb.Interface.DESCRIPTOR, key)) is not None:
            yield field.name, item


def is_uint32(value: object) -> bool:
    """Return whether a value is an unsigned number of 32 bits, possibly in quotes."""
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= 10 and int(value) < _UINT32
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == value // 1 and 0 <= value < _UINT32


def enum_number(field: FieldDescriptor, value: object) -> int | None:
    """Return the number of an enumeration's value, or None if it has no such value."""
    assert field.enum_type is not None
    if isinstance(value, str) and not value.isdigit():
        return _folded_values(field).get(_folded(value))
    if not is_uint32(value):
        return None
    number = int(value)  # type: ignore[call-overload]
    # Not values_by_number, which looks a number up modulo 2^32.
    return number if any(number == value.number for value in field.enum_type.values) else None


def _folded(key: str) -> str:
    """Return a short ASCII key in lower case; "" for any other, which cannot be a key of the model."""
    return key.lower() if len(key) <= LONGEST and key.isascii() else ""


@cache
def _folded_fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    fields = {}
    for field in descriptor.fields:
        fields[field.name.lower()] = fields[field.camelcase_name.lower()] = field
    if descriptor is pb.Interface.DESCRIPTOR:
        fields |= {former: descriptor.fields_by_name[name] for former, name in _FORMER.items()}
    return fields


@cache
def _folded_values(field: FieldDescriptor) -> dict[str, int]:
    assert field.enum_type is not None
    return {value.name.lower(): value.number for value in field.enum_type.values}
