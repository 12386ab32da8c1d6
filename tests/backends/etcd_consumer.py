"""Follow a store in etcd as an agent does, remember all news, and check each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.backends.etcd import Etcd
from tests.live.applying import value
from tests.stores import is_readable, news
from vethlib.agent import Parsed, to_dict
from vethlib.agent.stores.protocol import Back, Change, Outage, Snapshot, Store, StoreEvent
from vethlib.agent.stores.storecode import StoreCode

__all__ = ["LABEL", "PREFIX", "Consumer", "changes", "key", "many", "put", "text", "wanted"]

LABEL = "tested"
PREFIX = f"/vnf-agent/{LABEL}/linux/config/v1/interface/"


def key(name: str) -> str:
    return PREFIX + name


def text(name: str, peer: str = "peer", **fields: Any) -> str:
    """A value as it is written, in the strict form."""
    return json.dumps(value(name, peer, **fields))


def put(name: str, **fields: Any) -> str:
    """The operation for a transaction of etcdctl."""
    return f"put {key(name)} {json.dumps(text(name, **fields))}"


def many(count: int, first: int = 0, **fields: Any) -> dict[str, str]:
    """So many keys, and a value for each."""
    return {key(f"v{number}"): text(f"v{number}", **fields) for number in range(first, first + count)}


def wanted(etcd: Etcd) -> dict[str, Any]:
    """Return the content of etcd by name, as etcdctl reports it. All values must be valid, and in the strict form."""
    return {each.decode().removeprefix(PREFIX): json.loads(raw) for each, raw in etcd.values(PREFIX).items()}


def changes(found: Iterable[StoreEvent]) -> list[str]:
    """Return the names of the changes, in order; deletions with a "-"."""
    return [one.name if one.value else f"-{one.name}" for one in found if isinstance(one, Change)]


class Consumer:
    """Applies the news of a `store`, and checks that each is new, and permitted at that time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.values: dict[str, Parsed] | None = None
        self.outage = ""
        self.told: list[StoreEvent] = []

    def hear(self, timeout: float = 30.0) -> list[StoreEvent]:
        """The next news."""
        return self._take(news(self.store, timeout))

    def wait(self, condition: Callable[[], bool], timeout: float = 30.0) -> list[StoreEvent]:
        """Receive news until `condition` holds, and return them all."""
        found: list[StoreEvent] = []
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not in {timeout:g} s; told: {found or 'nothing'}"[:3000]
            if is_readable(self.store):
                found += self._take(self.store.read())
        return found

    def wait_for_outage(self, timeout: float = 30.0) -> StoreCode:
        """Receive news until there is an outage; return its code."""
        self.wait(lambda: bool(self.outage), timeout)
        return next(one.code for one in reversed(self.told) if isinstance(one, Outage))

    def come_to(self, etcd: Etcd, timeout: float = 30.0) -> list[StoreEvent]:
        """Receive news until the known content equals the real one, and check that these are all; return the news."""
        there = wanted(etcd)
        found = self.wait(lambda: self.known == there and not self.outage, timeout)
        more = self.wait_a_while()
        assert not more, f"at rest, and then: {more}"
        return found

    def wait_a_while(self, seconds: float = 0.15) -> list[StoreEvent]:
        """Return the news within this time."""
        return self._take(self.store.read()) if is_readable(self.store, seconds) else []

    @property
    def known(self) -> dict[str, Any] | None:
        """Return the known values by name, as written; a value that was refused is None."""
        if self.values is None:
            return None
        return {name: parsed.interface and to_dict(parsed.interface) for name, parsed in self.values.items()}

    def _take(self, found: list[StoreEvent]) -> list[StoreEvent]:
        for one in found:
            if isinstance(one, Snapshot):
                assert self.values is None, "another snapshot, though each change was to be told"
                assert one.complete
                self.values, self.outage = dict(one.values), ""
            elif isinstance(one, Change):
                assert self.values is not None, "a change before there was a snapshot"
                assert not self.outage, "a change in an outage"
                assert self.values.get(one.name) != one.value, f"no news: {one}"
                if one.value is None:
                    del self.values[one.name]
                else:
                    self.values[one.name] = one.value
            elif isinstance(one, Outage):
                assert one.reason != self.outage, "the same outage again"
                assert one.reason
                self.outage = one.reason
            else:
                assert isinstance(one, Back)
                assert self.outage, "back, and was never away"
                self.outage = ""
        self.told += found
        return found
