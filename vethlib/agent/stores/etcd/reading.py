"""Read keys and values: keys are bytes, and anybody can write anything there."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, TypeVar

from vethlib.agent.config.northbound import Parsed, read_one, too_long
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.keys import PLACE, key_of, name_for, presence_key
from vethlib.errors import InvalidValue

from .connection import Connection, Raw, TooLong, raw_of
from .refusal import Denied

__all__ = ["MOST_AGENTS", "entry_of", "name_at", "prefix_of", "read_agents", "read_key", "shortened"]

MOST_AGENTS: Final = 64
"""The agents of one label that are read."""

_LONG_KEY: Final = 1024  # bytes

T = TypeVar("T")


def prefix_of(label: str) -> bytes:
    """Return the prefix of the keys of a label's interfaces."""
    return key_of(label, "").encode()


def name_at(key: bytes, prefix: bytes) -> str:
    """Return the name for a key; ``key:…`` if it is not the key of an interface."""
    name, _ = name_for(key[len(prefix) :])
    return name


def shortened(key: bytes) -> bytes:
    """Return a key of bounded length that identifies `key`: anybody may have written a key of a megabyte."""
    return key if len(key) <= _LONG_KEY else key[:_LONG_KEY] + blake2b(key, digest_size=16).digest()


def read_key(key: bytes, raw: Raw, prefix: bytes, limits: Limits = DEFAULT) -> tuple[str, Parsed]:
    """Return the name for the value of a key, and the value, whose source is the key. Raises nothing."""
    name, problem = name_for(key[len(prefix) :])
    if problem:
        source = f"{prefix.decode(errors='backslashreplace')}{name.removeprefix(PLACE)}"
        return name, Parsed(None, name, (InvalidValue("key", source, problem),), source=source)
    if isinstance(raw, TooLong):
        return name, too_long(raw.size, key.decode(errors="backslashreplace"), name, limits)
    return name, read_one(raw, key.decode(errors="backslashreplace"), name=name, limits=limits)


def read_agents(
    connection: Connection, label: str, parse: Callable[[bytes], T], after_page: Callable[[], object] | None = None
) -> tuple[dict[bytes, T], Denied | None]:
    """Return the agents of a label, by their shortened keys, and why this is not all of them, if so."""
    agents: dict[bytes, T] = {}

    def keep(key: bytes, raw: Raw) -> None:
        agents[shortened(key)] = parse(raw_of(raw))

    prefix = presence_key(label, "").encode()
    try:
        connection.read(prefix, keep=keep, known_as=lambda _: b"", most=MOST_AGENTS, after_page=after_page)
    except Denied as error:
        return agents, error
    return agents, None


def entry_of(raw: bytes) -> dict[str, Any]:
    """Parse what an agent has written about itself; anything but a JSON object yields an empty one."""
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
