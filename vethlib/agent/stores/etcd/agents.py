"""The keys by which the running agents of a label are known in an etcd; anybody can write them, any number of times."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vethlib.agent.stores.keys import presence_key

from .connection import Connection, Raw, raw_of
from .mirror import shortened
from .refusal import Denied

__all__ = ["MOST_AGENTS", "entry_of", "read_agents"]

MOST_AGENTS: Final = 64
"""The agents of one label that are read."""

T = TypeVar("T")


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
