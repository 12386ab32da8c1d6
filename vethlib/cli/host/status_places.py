"""The links that published statuses are about, as this process sees them.

A status names its namespace as the agent does: "" is the home of the agent, which need not be that of the reader, and a
namespace may have several names and processes. Its identity (st_dev, st_ino) and the ifindex decide whether a link is
the one of a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vethlib import ns
from vethlib.errors import VethError
from vethlib.ns.opening import identity_at
from vethlib.session import Session

if TYPE_CHECKING:  # it imports protobuf
    from vethlib.agent.stores.published import Published
    from vethlib.session.core.namespaces import Identity
    from vethlib.session.read.survey import LinkAt

__all__ = ["StatusPlaces"]


class StatusPlaces:
    """Finds namespaces and links of statuses. `known` are references of this process that are already resolved.

    Each reference is resolved once.
    """

    def __init__(
        self, session: Session, published: Published, known: Mapping[str, Identity | VethError] | None = None
    ) -> None:
        self._session = session
        self._home = _home_of(published)
        self._reached_home = {} if self._home is None else ns.find([self._home])
        self._places: dict[str, Identity | VethError] = dict(known or {})

    def resolve(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Resolve the namespaces of these statuses together."""
        refs = {entry["netns"] for entry in entries} - self._places.keys()
        wanted = [ref for ref in refs if ref and not ref.startswith("microservice:")]
        try:
            self._places |= self._session.inspect([], wanted).places
        except VethError as error:
            self._places |= dict.fromkeys(wanted, error)

    def reached(self, entry: Mapping[str, Any]) -> str | None:
        """Return the reference by which this process reaches the namespace of a status; None if that is unknown."""
        ref: str | None = entry["netns"]
        return self._reached_home.get(self._home) if ref == "" and self._home is not None else ref or None

    def place(self, entry: Mapping[str, Any]) -> Identity | None:
        """Return the identity of the namespace of a status; None if it is unknown."""
        if entry["netns"] == "":
            return self._home
        place = self._places.get(entry["netns"])
        return place if isinstance(place, tuple) else None

    def link(self, entry: Mapping[str, Any]) -> LinkAt | None:
        """Return the link of a status; None if it has none, or its namespace is unknown."""
        place = self.place(entry)
        return None if place is None or not entry["ifindex"] else (place, entry["ifindex"])


def _home_of(published: Published) -> Identity | None:
    """Return the identity of the home of an agent of this host; None if it is unknown."""
    if published.home is not None:
        return published.home
    agent = published.agent
    # An older agent does not report its home.
    return None if agent is None or agent.host or not agent.pid else identity_at(f"/proc/{agent.pid}/ns/net")
