"""What a key and its value mean: keys are bytes, and anybody can write anything there."""

from __future__ import annotations

from vethlib.agent.northbound import Parsed, read_one
from vethlib.agent.stores.keys import key_of, told_as
from vethlib.errors import InvalidValue

__all__ = ["name_at", "prefix_of", "read_key"]


def prefix_of(label: str) -> bytes:
    """With what the keys of a label's interfaces begin."""
    return key_of(label, "").encode()


def name_at(key: bytes, prefix: bytes) -> str:
    """The name under which the value of a key is told; ``key:…`` where it can be no interface's."""
    name, _ = told_as(key[len(prefix) :])
    return name


def read_key(key: bytes, raw: bytes, prefix: bytes) -> tuple[str, Parsed]:
    """The name under which the value of a key is told, and the value. Its source is the key."""
    source = key.decode(errors="backslashreplace")
    name, problem = told_as(key[len(prefix) :])
    if problem:
        return name, Parsed(None, name, (InvalidValue("key", source, problem),), source=source)
    return name, read_one(raw, source, name=name)
