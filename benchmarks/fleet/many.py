"""Measure many agents on one etcd: their start, a change on each, a quiet period, and an outage of etcd."""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from vethlib import Session
from vethlib.agent import Interface, Namespace, NamespaceType
from vethlib.agent.stores.etcd.address import parse_url
from vethlib.agent.stores.etcd.connection import Connection, raw_of
from vethlib.agent.stores.keys import status_key
from vethlib.agent.stores.opening import open_editor
from vethlib.agent.stores.protocol import StoreError

from .hosts import Host, Usage, open_hosts
from .server import Server

__all__ = ["many"]

PATIENCE = 300.0  # seconds
CHANGES = 10
AWAY = 2.0  # seconds of the outage of etcd
_ALL = b"/vnf-agent/"


def many(count: int, interfaces: int, quiet: float, say: Callable[[str], object]) -> dict[str, Any]:
    """Measure `count` agents with this number of interfaces each; for an isolated process."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(directory))
        session = stack.enter_context(Session())
        hosts = open_hosts(count, directory, session, stack)
        fleet = _Fleet(server, hosts, interfaces, session)
        say(f"{count} hosts, {interfaces} interfaces each")
        fleet.configure()
        figures: dict[str, Any] = {"agents": count, "interfaces": interfaces}
        for name, phase in (
            ("start", fleet.start),
            ("quiet", lambda: fleet.rest(quiet)),
            ("change_one", fleet.change_one),
            ("change_all", fleet.change_all),
            ("etcd_restart", fleet.restart),
        ):
            figures[name] = phase()
            say(f"{name}: {json.dumps(figures[name])}")
        figures["agent_rss_mib"] = round(statistics.median(host.usage().rss for host in hosts), 1)
        return figures


class _Fleet:
    def __init__(self, server: Server, hosts: Sequence[Host], interfaces: int, session: Session) -> None:
        self._server = server
        self._hosts = hosts
        self._pairs = interfaces // 2
        self._session = session
        self._mtu = 1500
        self._url = f"etcd://127.0.0.1:{server.port}"

    def configure(self) -> None:
        """Write the configuration of all of them."""
        for host in self._hosts:
            ends = (end for number in range(self._pairs) for end in self._pair(number))
            open_editor(self._url, label=host.label).put(*ends)

    def start(self) -> dict[str, float]:
        """Start all at once, and wait until etcd has the status CONFIGURED of every interface."""
        etcd, before = Usage.of(self._server.pid), self._server.metrics()
        begin = time.monotonic()
        for host in self._hosts:
            host.start(self._server.port)
        self._wait(lambda entries: len(entries) == 2 * self._pairs * len(self._hosts))
        took = time.monotonic() - begin
        after, usage = self._server.metrics(), Usage.of(self._server.pid)
        received, sent = self._traffic()
        return {
            "seconds": round(took, 2),
            "cpu_ms_per_agent": self._each(lambda host: host.usage().cpu) * 1e3,
            "kib_to_agent": round(received / 1024, 1),
            "kib_from_agent": round(sent / 1024, 1),
            "etcd_cpu_ms_per_agent": round((usage.cpu - etcd.cpu) / len(self._hosts) * 1e3, 1),
            "etcd_rss_mib": round(usage.rss, 1),
            "etcd_rss_mib_before": round(etcd.rss, 1),
            "etcd_puts_per_agent": round(_grown(before, after, "etcd_mvcc_put_total") / len(self._hosts), 1),
            "watchers": after.get("etcd_debugging_mvcc_watcher_total", 0),
        }

    def rest(self, seconds: float) -> dict[str, float]:
        """Measure a period without changes."""
        cpu = [host.usage().cpu for host in self._hosts]
        etcd, (received, sent) = Usage.of(self._server.pid), self._traffic()
        begin = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        now = self._traffic()
        used = [host.usage().cpu - before for host, before in zip(self._hosts, cpu, strict=True)]
        return {
            "seconds": round(took, 1),
            "cpu_ms_per_agent_and_second": round(statistics.mean(used) / took * 1e3, 2),
            "bytes_per_second_to_agent": round((now[0] - received) / took),
            "bytes_per_second_from_agent": round((now[1] - sent) / took),
            "etcd_cpu_ms_per_agent_and_second": round(
                (Usage.of(self._server.pid).cpu - etcd.cpu) / took / len(self._hosts) * 1e3, 3
            ),
        }

    def change_one(self) -> dict[str, float]:
        """Change one agent at a time: from the put until its status reports it."""
        times = []
        for host in islice(cycle(self._hosts), CHANGES):
            times += self._change([host])
            time.sleep(0.1)
        return _spread(times)

    def change_all(self) -> dict[str, float]:
        """Change one interface of each agent at once."""
        return _spread(self._change(self._hosts))

    def restart(self) -> dict[str, float]:
        """Kill and restart etcd: from its return until each host has made a change that waits there."""
        cpu = [host.usage().cpu for host in self._hosts]
        self._server.kill()
        time.sleep(AWAY)
        self._server.start()
        times = self._change(self._hosts)
        used = [host.usage().cpu - before for host, before in zip(self._hosts, cpu, strict=True)]
        return _spread(times) | {"cpu_ms_per_agent": round(statistics.mean(used) * 1e3, 1)}

    def _pair(self, number: int) -> Iterator[Interface]:
        """Between the host and a namespace on it."""
        near, far = f"p{number}", f"q{number}"
        mtu = self._mtu if number == 0 else 1500
        inside = Namespace(NamespaceType.NAMED_NS, name=f"ns{number}")
        yield Interface(near, far, enabled=True, mtu=mtu, ip_addresses=(f"192.168.{number}.1/24",))
        yield Interface(
            far,
            near,
            enabled=True,
            host_if_name="eth0",
            namespace=inside,
            ip_addresses=(f"192.168.{number}.2/24",),
        )

    def _change(self, hosts: Sequence[Host]) -> list[float]:
        """Change the MTU of the first interface of these hosts; return the seconds until each status reports it."""
        self._mtu -= 1
        value, _ = self._pair(0)
        with self._connection() as connection:
            waiting = {status_key(host.label, value.name).encode(): 0.0 for host in hosts}
            watch = connection.watch(_ALL, connection.read(_ALL, keys_only=True).revision + 1)
            watch.first()
            editors = [(host, open_editor(self._url, label=host.label)) for host in hosts]
            for host, editor in editors:
                waiting[status_key(host.label, value.name).encode()] = time.monotonic()
                editor.put(value)
            times = []
            for answer in watch:
                now = time.monotonic()
                for event in answer.events:
                    key = event.kv.key
                    if key in waiting and json.loads(event.kv.value or b"{}").get("mtu") == self._mtu:
                        times.append(now - waiting.pop(key))
                if not waiting:
                    return times
        raise AssertionError("unreachable")

    def _wait(self, done: Callable[[Mapping[bytes, Any]], bool]) -> None:
        """Wait until a condition holds for the CONFIGURED statuses."""
        with self._connection() as connection:
            while True:
                entries = {
                    key: entry
                    for key, (raw, _) in connection.read(_ALL).values.items()
                    if b"/linux/status/" in key and (entry := json.loads(raw_of(raw)))["state"] == "CONFIGURED"
                }
                if done(entries):
                    return
                time.sleep(0.1)

    def _connection(self) -> _Connection:
        return _Connection(self._url)

    def _traffic(self) -> tuple[float, float]:
        """Bytes to and from an agent so far, on average."""
        counters = [self._session.stats(host.link) for host in self._hosts]
        return statistics.mean(link.tx_bytes for link in counters), statistics.mean(link.rx_bytes for link in counters)

    def _each(self, figure: Callable[[Host], float]) -> float:
        return round(statistics.mean(figure(host) for host in self._hosts), 3)


class _Connection(Connection):
    """A connection that ends after a time limit, so that no wait is endless."""

    def __init__(self, url: str) -> None:
        address = parse_url(url)
        super().__init__(address, address.endpoints[0])
        self._timer = threading.Timer(PATIENCE, self._give_up)
        self._timer.daemon = True  # if an interruption comes before the `with` block, nobody cancels it
        self._timer.start()

    def _give_up(self) -> None:
        reason = f"it took more than {PATIENCE:g} s"
        self.close(StoreError(f"{self.endpoint}: {reason}", path=self.endpoint, reason=reason))

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.close()


def _spread(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"median_ms": round(statistics.median(ordered) * 1e3, 1), "longest_ms": round(ordered[-1] * 1e3, 1)}


def _grown(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)
