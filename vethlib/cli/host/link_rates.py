"""Counters and rates of links, sampled repeatedly over any number of namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from vethlib.cli.render.values import MeasuredLink
from vethlib.errors import VethError
from vethlib.links import Link
from vethlib.rates import Meter, Sample
from vethlib.session import Session
from vethlib.session.core.namespaces import Birth

__all__ = ["LinkRates"]

# Links are rarely renamed, and reading their names costs four times as much as reading their counters.
_NAMES_KEPT: Final = 5.0  # seconds


class LinkRates:
    """Samples the counters of links through a session, and computes rates from consecutive samples.

    `failed` has the namespaces that could not be read for the last sample, each with the error.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._meter = Meter()
        self._links: dict[Birth, tuple[float, dict[int, Link]]] = {}
        self.failed: dict[str, VethError] = {}
        self.has_sampled = False

    def sample(
        self, named: Sequence[tuple[str, str]] = (), whole: Iterable[str] = (), *, missing_ok: bool = True
    ) -> list[MeasuredLink]:
        """Sample the `named` links, then all links of the `whole` namespaces; return each link once.

        Raises LinkNotFound and NetnsNotFound without `missing_ok`.
        """
        samples_by_link: dict[object, tuple[str, str, Link | None, Sample]] = {}
        for (name, ref), sample in zip(named, self._session.stats_many(named, missing_ok=missing_ok), strict=True):
            if sample is not None:
                samples_by_link.setdefault(sample.identity, (ref, name, None, sample))
        self.failed, self.has_sampled = {}, True
        for ref, samples in self._session.stats_in(whole).items():
            if isinstance(samples, VethError):
                if not missing_ok:
                    raise samples
                self.failed[ref] = samples
                continue
            links = self._links_of(ref, samples)
            for sample in samples:
                if (link := links.get(sample.index)) is not None:
                    samples_by_link.setdefault(sample.identity, (ref, link.name, link, sample))
        births = {_birth(sample) for _, _, _, sample in samples_by_link.values()}
        self._links = {birth: links for birth, links in self._links.items() if birth in births}
        rates = self._meter.read(sample for _, _, _, sample in samples_by_link.values())
        return [
            MeasuredLink(ref, name, sample, rate, link)
            for (ref, name, link, sample), rate in zip(samples_by_link.values(), rates, strict=True)
        ]

    def _links_of(self, ref: str, samples: Sequence[Sample]) -> dict[int, Link]:
        """Return the links of a namespace by ifindex, from a cache if it is recent enough."""
        if not samples:
            return {}
        now, birth = time.monotonic(), _birth(samples[0])
        read_at, links = self._links.get(birth, (0.0, {}))
        if now - read_at >= _NAMES_KEPT or links.keys() != {sample.index for sample in samples}:
            try:
                links = {link.index: link for link in self._session.links(ref)}
            except VethError as error:
                self.failed[ref] = error
                return {}
            self._links[birth] = now, links
        return links


def _birth(sample: Sample) -> Birth:
    return sample.place, sample.cookie
