"""Observing the ends of a pair: the link, addresses and counters of each, in the namespace given by its status."""

from __future__ import annotations

from collections.abc import Sequence

from vethlib.agent.stores.published import Entry
from vethlib.cli.render.values import EndState
from vethlib.errors import VethError
from vethlib.session import Session

__all__ = ["observe_ends"]


def observe_ends(entries: Sequence[Entry]) -> list[EndState]:
    """Return the end of each interface, or a problem if it cannot be observed."""
    try:
        with Session() as session:
            return [_observe(session, entry) for entry in entries]
    except VethError as error:
        return [_unknown(entry, str(error)) for entry in entries]


def _observe(session: Session, entry: Entry) -> EndState:
    ref, name = entry["netns"], entry["host_name"] or entry["name"]
    if ref is None or ref.startswith("microservice:"):
        return _unknown(entry, f"only the agent can find {ref or 'its namespace'}")
    try:
        survey = session.inspect([(ref, name)])
        place = survey.places[ref]
        if isinstance(place, VethError):
            return _unknown(entry, str(place))
        if not survey.links:
            return _unknown(entry, "there is no link")
        (surveyed,) = survey.links
        stats = session.stats(name, ref)
        fields = session.fields(name, ref)
    except VethError as error:
        return _unknown(entry, str(error))
    return EndState(entry["name"], ref, name, surveyed.link, surveyed.addresses, stats, fields=fields)


def _unknown(entry: Entry, problem: str) -> EndState:
    return EndState(entry["name"], entry["netns"] or "", entry["host_name"] or entry["name"], problem=problem)
