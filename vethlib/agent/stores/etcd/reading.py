"""Parse keys and values: keys are bytes, and anybody can write anything there."""

from __future__ import annotations

from vethlib.agent.config.northbound import Parsed, read_one, too_long
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.keys import PLACE, key_of, name_for
from vethlib.errors import InvalidValue

from .connection import Raw, TooLong

__all__ = ["name_at", "prefix_of", "read_key"]


def prefix_of(label: str) -> bytes:
    """Return the prefix of the keys of a label's interfaces."""
    return key_of(label, "").encode()


def name_at(key: bytes, prefix: bytes) -> str:
    """Return the name for a key; ``key:…`` if it is not the key of an interface."""
    name, _ = name_for(key[len(prefix) :])
    return name


def read_key(key: bytes, raw: Raw, prefix: bytes, limits: Limits = DEFAULT) -> tuple[str, Parsed]:
    """Return the name for the value of a key, and the value, whose source is the key. Raises nothing."""
    name, problem = name_for(key[len(prefix) :])
    if problem:
        source = f"{prefix.decode(errors='backslashreplace')}{name.removeprefix(PLACE)}"
        return name, Parsed(None, name, (InvalidValue("key", source, problem),), source=source)
    if isinstance(raw, TooLong):
        return name, too_long(raw.size, key.decode(errors="backslashreplace"), name, limits)
    return name, read_one(raw, key.decode(errors="backslashreplace"), name=name, limits=limits)
