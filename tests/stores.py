"""Follow a store as an agent does: woken only by its descriptor, or when it is due."""

from __future__ import annotations

import json
import select
import time
from pathlib import Path
from typing import Any

from tests.live.applying import value
from vethlib.agent import Parsed
from vethlib.agent.stores.protocol import Change, Outage, Snapshot, Store, StoreEvent
from vethlib.agent.stores.storecode import StoreCode

__all__ = ["PROMPT", "changed", "interface_text", "is_readable", "news", "nothing", "outage", "snapshot", "write"]

PROMPT = 0.05  # seconds within which a store has to notice that something happened


def write(path: Path, *values: dict[str, Any]) -> Path:
    """Write a file as a careful program does, so that it appears whole. A single value is not put in a list."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(values[0] if len(values) == 1 else values, indent=2))
    return beside.rename(path)


def interface_text(name: str, peer: str = "peer", **fields: Any) -> str:
    return json.dumps(value(name, peer, **fields))


def is_readable(store: Store, timeout: float = PROMPT) -> bool:
    return bool(select.select([store], [], [], timeout)[0])


def news(store: Store, timeout: float = 30.0) -> list[StoreEvent]:
    """Return the next news of a store, which is read only when it asks for that."""
    found = _next(store, timeout)
    assert found, f"no news in {timeout} s"
    return found


def nothing(store: Store, seconds: float = 0.3) -> None:
    """Check that a store has no news for this long, which is longer than any of its pauses except between retries."""
    assert _next(store, seconds, looks=5) == []


def _next(store: Store, timeout: float, looks: int = 1000) -> list[StoreEvent]:
    """Return the next news; [] after the timeout. A store may ask for this many reads without having any news."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        due = store.due()
        if is_readable(store, left if due is None else min(left, due)) or due is not None:
            looks -= 1
            assert looks >= 0, "the store keeps asking to be read"
            if found := store.read():
                return found
    return []


def outage(store: Store) -> StoreCode:
    """Return why a store cannot be read; the sentences are in test_config_sentences.py."""
    (found,) = news(store)
    assert isinstance(found, Outage), found
    return found.code


def snapshot(store: Store, timeout: float = 30.0) -> dict[str, Parsed]:
    """Return the content of the only news, which is a complete snapshot."""
    (found,) = news(store, timeout)
    assert isinstance(found, Snapshot)
    assert found.complete
    return dict(found.values)


def changed(store: Store) -> dict[str, Parsed | None]:
    """Return the changes that are the news, in order."""
    found = news(store)
    assert all(isinstance(one, Change) for one in found), found
    changes = {one.name: one.value for one in found if isinstance(one, Change)}
    assert len(changes) == len(found)
    return changes
