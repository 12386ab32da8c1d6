"""Following a store as an agent does: woken by its descriptor or when it is due, and by nothing else."""

from __future__ import annotations

import json
import select
import time
from pathlib import Path
from typing import Any

from tests.live.applying import value
from vethlib.agent import Parsed
from vethlib.agent.stores.protocol import Change, Snapshot, Store, StoreEvent

__all__ = ["PROMPT", "changed", "interface_text", "is_readable", "news", "nothing", "snapshot", "write"]

PROMPT = 0.05  # seconds in which a store has to know that something happened


def write(path: Path, *values: dict[str, Any]) -> Path:
    """Write a file as a careful program does: it appears whole. One value stands alone, more in a list."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(values[0] if len(values) == 1 else values, indent=2))
    return beside.rename(path)


def interface_text(name: str, peer: str = "peer", **fields: Any) -> str:
    return json.dumps(value(name, peer, **fields))


def is_readable(store: Store, timeout: float = PROMPT) -> bool:
    return bool(select.select([store], [], [], timeout)[0])


def news(store: Store, timeout: float = 30.0) -> list[StoreEvent]:
    """The next news of a store, for which it is read only when it says so."""
    found = _next(store, timeout)
    assert found, f"no news in {timeout} s"
    return found


def nothing(store: Store, seconds: float = 0.3) -> None:
    """Check that a store tells nothing for so long, which is longer than it waits with anything but retries."""
    assert _next(store, seconds, looks=5) == []


def _next(store: Store, timeout: float, looks: int = 1000) -> list[StoreEvent]:
    """The next news; [] after the timeout. A store may ask for so many looks to find that there is nothing."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        due = store.due()
        if is_readable(store, left if due is None else min(left, due)) or due is not None:
            looks -= 1
            assert looks >= 0, "the store keeps asking to be read"
            if found := store.read():
                return found
    return []


def snapshot(store: Store, timeout: float = 30.0) -> dict[str, Parsed]:
    """What the one snapshot that is the news says; it is complete."""
    (found,) = news(store, timeout)
    assert isinstance(found, Snapshot)
    assert found.complete
    return dict(found.values)


def changed(store: Store) -> dict[str, Parsed | None]:
    """What changes are the news, in order."""
    found = news(store)
    assert all(isinstance(one, Change) for one in found), found
    changes = {one.name: one.value for one in found if isinstance(one, Change)}
    assert len(changes) == len(found)
    return changes
