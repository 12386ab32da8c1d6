"""The metrics of an agent, as a collector of prometheus_client: all values are read when they are requested.

No label has a value that others choose freely, except the names of interfaces, namespaces and links, which are only
included if the metrics of links are requested.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vethlib import __version__
from vethlib._nl.counts import counts
from vethlib.agent.hooks import Hooks
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.counters import BOUNDS, Durations
from vethlib.agent.state import State
from vethlib.errors import VethError
from vethlib.text import printable

if TYPE_CHECKING:
    from vethlib.agent.run.service import Service

__all__ = ["AgentCollector", "registry_of"]

_COUNTERS: Final = ("packets", "bytes", "errors", "dropped")
_STATES: Final = tuple(state for state in State if state is not State.UNMANAGED)


class AgentCollector(Collector):
    """Prometheus metrics of a `configurator`, of its `service` and `hooks`, if given, and of this process's netlink.

    With `links`, they include the counters of every link that the configurator maintains, which are requested from the
    kernel at each collection (0.1 ms per link). They must be collected by the thread that polls the configurator.
    """

    def __init__(
        self,
        configurator: Configurator,
        service: Service | None = None,
        hooks: Hooks | None = None,
        *,
        links: bool = False,
    ) -> None:
        self._configurator = configurator
        self._service = service
        self._hooks = hooks
        self._links = links

    def collect(self) -> Iterator[Metric]:
        """Yield the current value of every metric."""
        yield _info(self._configurator.label)
        yield from self._interfaces()
        yield from self._work()
        yield from _netlink()
        if self._service is not None:
            yield from _store(self._service)
        if self._hooks is not None:
            yield from _hook_events(self._hooks)
        if self._links:
            yield from self._link_counters()

    def _interfaces(self) -> Iterator[Metric]:
        statuses = self._configurator.status()
        states = Counter(status.state for status in statuses)
        yield _gauges(
            "vethlib_interfaces", "Interfaces by state.", "state", {state: states[state] for state in _STATES}
        )
        codes = Counter(status.code for status in statuses if status.code)
        text = "Interfaces by the code of the reason for their state; only codes that occur."
        yield _gauges("vethlib_interface_reasons", text, "code", {code: codes[code] for code in sorted(codes)})
        load = self._configurator.load()
        yield _gauge("vethlib_dirty_interfaces", "Interfaces waiting for the next reconcile pass.", load.dirty)
        yield _gauge("vethlib_waiting_retries", "Interfaces waiting for their next retry.", load.retries)
        yield _gauge("vethlib_watched_namespaces", "Namespaces whose links are watched.", load.watched)

    def _work(self) -> Iterator[Metric]:
        counters = self._configurator.counters
        text = "Interfaces checked, by what follows: done, wait for an event, retry later, or terminal."
        yield _counters("vethlib_reconcile_outcomes", text, "outcome", counters.outcomes)
        name, text = "vethlib_reconcile_duration_seconds", "Duration of reconcile passes and of their parts."
        passes = HistogramMetricFamily(name, text, labels=["part"])
        for part, durations in counters.durations.items():
            passes.add_metric([part], _buckets(durations), durations.total)
        yield passes
        yield _counters("vethlib_operations_done", "Operations carried out.", "op", counters.done)
        yield _counters("vethlib_operations_failed", "Operations that were refused.", "op", counters.failed)
        yield _counters("vethlib_resyncs", "Resyncs of the whole host, by occasion.", "occasion", counters.resyncs)
        text = "Times that the kernel dropped events of links because they were not read in time."
        yield CounterMetricFamily("vethlib_event_overflows", text, value=counters.overflows)

    def _link_counters(self) -> Iterator[Metric]:
        families = {
            (way, what): CounterMetricFamily(
                f"vethlib_link_{'receive' if way == 'rx' else 'transmit'}_{what}",
                f"Counter {way}_{what} of the link of an interface.",
                labels=["interface", "netns", "link"],
            )
            for way in ("rx", "tx")
            for what in _COUNTERS
        }
        statuses = [status for status in self._configurator.status() if status.link is not None]
        try:
            # With their ifindexes: another link may have such a name by now.
            links = [replace(status.link, netns=status.netns) for status in statuses if status.link is not None]
            samples = self._configurator.session.stats_many(links, missing_ok=True)
        except VethError:
            samples = []  # nothing can be read, and the states report that
        for status, sample in zip(statuses, samples, strict=False):
            if sample is not None:
                for (way, what), family in families.items():
                    value = getattr(sample.stats, f"{way}_{what}")
                    family.add_metric([*map(printable, (status.name, status.netns or "home", status.host_name))], value)
        yield from families.values()


def registry_of(
    configurator: Configurator, service: Service, hooks: Hooks | None = None, *, links: bool
) -> CollectorRegistry:
    """Return a registry with all metrics that an agent serves: its own, and those of its process."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(configurator, service, hooks, links=links))
    ProcessCollector(registry=registry)
    return registry


def _info(label: str) -> Metric:
    text = "The version and the label of this agent."
    info = GaugeMetricFamily("vethlib_agent_info", text, labels=["version", "label"])
    info.add_metric([__version__, label], 1)
    return info


def _netlink() -> Iterator[Metric]:
    yield CounterMetricFamily("vethlib_netlink_requests", "Requests sent to the kernel.", value=counts.requests)
    names = {errno.errorcode.get(number, str(number)): count for number, count in counts.errors.copy().items()}
    yield _counters("vethlib_netlink_errors", "Requests that the kernel refused, by errno.", "errno", names)


def _store(service: Service) -> Iterator[Metric]:
    up = service.heard and not service.outage
    yield _gauge("vethlib_store_up", "1 while the store can be read, 0 before and during an outage.", int(up))
    yield CounterMetricFamily("vethlib_store_outages", "Outages of the store.", value=service.outages)
    if service.changed_at is not None:
        text = "Time when an outage last began or ended, in seconds since 1970."
        yield _gauge("vethlib_store_changed_timestamp_seconds", text, service.changed_at)
    yield _gauge(
        "vethlib_unpublished_statuses", "Statuses that have not been written to the store yet.", service.unpublished
    )
    yield CounterMetricFamily(
        "vethlib_publish_failures", "Attempts to publish statuses that failed.", value=service.publish_failures
    )


def _hook_events(hooks: Hooks) -> Iterator[Metric]:
    # A hook is identified by its place in the command line: two URLs may have one host, and the rest may be secret.
    text = "Events of a hook, by outcome: delivered, failed, dropped, or coalesced with a newer event."
    events = CounterMetricFamily("vethlib_hook_events", text, labels=["number", "hook", "outcome"])
    waiting = GaugeMetricFamily("vethlib_hook_waiting", "Events that wait for a hook.", labels=["number", "hook"])
    for number, hook in enumerate(hooks.counts(), 1):
        for outcome in ("delivered", "failed", "dropped", "coalesced"):
            events.add_metric([str(number), printable(hook.hook), outcome], getattr(hook, outcome))
        waiting.add_metric([str(number), printable(hook.hook)], hook.waiting)
    yield events
    yield waiting


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounds: Iterable[str] = [*map(str, BOUNDS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
