"""Observing the ends of a pair: the link, addresses and counters of each, in the namespace given by its status."""

from __future__ import annotations

from collections.abc import Sequence

from vethlib.agent.stores.published import Entry, Published
from vethlib.cli.render.values import EndState
from vethlib.errors import VethError
from vethlib.links import Link
from vethlib.session import Session

from .status_places import StatusPlaces

__all__ = ["observe_ends"]


def observe_ends(entries: Sequence[Entry], published: Published) -> list[EndState]:
    """Return the end of each interface, or a problem if it cannot be observed."""
    try:
        with Session() as session:
            places = StatusPlaces(session, published)
            return [_observe(session, entry, places.reached(entry)) for entry in entries]
    except VethError as error:
        return [_unknown(entry, str(error)) for entry in entries]


def _observe(session: Session, entry: Entry, reached: str | None) -> EndState:
    """Return the end of an interface, in a namespace that this process reaches as `reached`."""
    name = entry["host_name"] or entry["name"]
    if entry["netns"] is None or entry["netns"].startswith("microservice:"):
        return _unknown(entry, f"only the agent can find {entry['netns'] or 'its namespace'}")
    ref = "" if reached is None else reached  # the home of an agent that no longer runs
    try:
        survey = session.inspect([(ref, name)])
        place = survey.places[ref]
        if isinstance(place, VethError):
            return _unknown(entry, str(place))
        if not survey.links:
            return _unknown(entry, "there is no link")
        (surveyed,) = survey.links
        index = surveyed.link.index
        if index != entry["ifindex"]:
            return _unknown(entry, f"the link {name} there is not that of the interface: its index is {index}")
        if not _is_of(entry, surveyed.link):
            return _unknown(entry, f"the link {name} there is not that of the interface: it has another MAC and peer")
        stats = session.stats(name, ref)
        fields = session.fields(name, ref)
    except VethError as error:
        return _unknown(entry, str(error))
    return EndState(entry["name"], entry["netns"], name, surveyed.link, surveyed.addresses, stats, fields=fields)


def _is_of(entry: Entry, link: Link) -> bool:
    """Return whether a link with the ifindex of a status is that of the status: its MAC or its peer agrees.

    After a namespace has been created again, its first link often has the same name and ifindex as the former one.
    """
    mac, peer = entry.get("mac"), entry.get("peer_ifindex")
    return mac in (None, link.mac) or (peer is not None and peer == link.peer_index)


def _unknown(entry: Entry, problem: str) -> EndState:
    return EndState(entry["name"], entry["netns"] or "", entry["host_name"] or entry["name"], problem=problem)
