"""Links with their counters and rates, one look after the other, over any number of namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from vethlib.errors import VethError
from vethlib.links import Link
from vethlib.rates import Meter, Rates, Sample
from vethlib.session import Session

__all__ = ["Counted", "Tally", "as_dict"]

_NAMES_KEPT: Final = 5.0  # seconds: a link is seldom renamed, and to read its name costs four times its counters


@dataclass(frozen=True, slots=True)
class Counted:
    """A link at one look. `link` is None where only its name was asked for, `rates` at its first look."""

    ref: str
    name: str
    sample: Sample
    rates: Rates | None
    link: Link | None = None


def as_dict(one: Counted) -> dict[str, Any]:
    """A link for JSON: where it is, its counters, and what they have grown by per second, null if that is not known."""
    entry: dict[str, Any] = {"netns": one.ref, "name": one.name, "index": one.sample.index} | asdict(one.sample.stats)
    rates = None if one.rates is None else asdict(one.rates)
    return entry | {"interval": rates and rates.pop("interval"), "rates": rates}


class Tally:
    """Looks at links through a session, and remembers enough of the last look to tell rates.

    `failed` has the namespaces that the last look at whole ones could not read, and why.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._meter = Meter()
        self._links: dict[tuple[int, int], tuple[float, dict[int, Link]]] = {}
        self.failed: dict[str, VethError] = {}
        self.has_looked = False

    def look(
        self, named: Sequence[tuple[str, str]] = (), whole: Iterable[str] = (), *, missing_ok: bool = True
    ) -> list[Counted]:
        """The links of these names, then all of the `whole` namespaces, nothing twice.

        Raises LinkNotFound and NetnsNotFound without `missing_ok`.
        """
        found: dict[object, tuple[str, str, Link | None, Sample]] = {}
        for (name, ref), sample in zip(named, self._session.stats_many(named, missing_ok=missing_ok), strict=True):
            if sample is not None:
                found[sample.link] = ref, name, None, sample
        self.failed, self.has_looked = {}, True
        for ref, samples in self._session.stats_in(whole).items():
            if isinstance(samples, VethError):
                if not missing_ok:
                    raise samples
                self.failed[ref] = samples
                continue
            links = self._links_of(ref, samples)
            for sample in samples:
                if (link := links.get(sample.index)) is not None:
                    found.setdefault(sample.link, (ref, link.name, link, sample))
        places = {sample.place for _, _, _, sample in found.values()}
        self._links = {place: links for place, links in self._links.items() if place in places}  # others have ended
        rates = self._meter.read(sample for _, _, _, sample in found.values())
        return [
            Counted(ref, name, sample, rate, link)
            for (ref, name, link, sample), rate in zip(found.values(), rates, strict=True)
        ]

    def _links_of(self, ref: str, samples: Sequence[Sample]) -> dict[int, Link]:
        """What is known of the links of a namespace, by ifindex."""
        if not samples:
            return {}
        now = time.monotonic()
        read_at, links = self._links.get(samples[0].place, (0.0, {}))
        if now - read_at >= _NAMES_KEPT or links.keys() != {sample.index for sample in samples}:
            try:
                links = {link.index: link for link in self._session.links(ref)}
            except VethError as error:
                self.failed[ref] = error
                return {}
            self._links[samples[0].place] = now, links
        return links
