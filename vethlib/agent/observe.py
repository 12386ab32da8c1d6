"""Looking at the host for a plan: what the desired interfaces' namespaces are, and every link that may matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vethlib import ns
from vethlib.errors import NetnsNotFound, VethError
from vethlib.session import Session
from vethlib.session.survey import Survey

from .observed import Observed, SeenLink, SeenNetns

__all__ = ["look_at", "observe"]


def observe(
    session: Session, refs: Iterable[str], *, create_missing: bool = True, gone: Mapping[str, str] | None = None
) -> Observed:
    """What is in the namespaces of `refs`, at home, and in every named one (pairs of ours may be anywhere).

    `create_missing` says that a named namespace that is not there may be created for a pair. Raises NotPermitted and
    NetlinkError; a namespace that is not there is no error.

    `gone` is for an agent: references that lead nowhere whatever the host says, each with the reason. One that cannot
    be opened is no error then either, but unknown.
    """
    wanted = dict.fromkeys(["", *refs])
    there = [ref for ref in wanted if not gone or ref not in gone]
    survey = session.survey([*there, *(f"netns:{name}" for name in ns.names())])
    return _observed(wanted, survey, create_missing, gone)


def look_at(
    session: Session,
    refs: Iterable[str],
    links: Iterable[tuple[str, str | int]],
    *,
    gone: Mapping[str, str],
    create_missing: bool,
) -> Observed:
    """As :func:`observe`, of single links: each (reference, name or ifindex). Those that are not there are missing."""
    wanted = dict.fromkeys(refs)
    there = [ref for ref in wanted if ref not in gone]
    survey = session.inspect([(ref, link) for ref, link in links if ref not in gone], there)
    return _observed(wanted, survey, create_missing, gone)


def _observed(wanted: Iterable[str], survey: Survey, create_missing: bool, gone: Mapping[str, str] | None) -> Observed:
    netns = {
        ref: SeenNetns(ref, None, gone[ref]) if gone and ref in gone else _seen_netns(ref, survey, create_missing, gone)
        for ref in wanted
    }
    links = [SeenLink(one.at, one.ref, one.link, one.addresses, one.peer) for one in survey.links]
    return Observed(netns, links)


def _seen_netns(ref: str, survey: Survey, create_missing: bool, gone: Mapping[str, str] | None) -> SeenNetns:
    found = survey.places[ref]
    if not isinstance(found, VethError):
        return SeenNetns(ref, found)
    if not isinstance(found, NetnsNotFound):
        if gone is None:
            raise found
        return SeenNetns(ref, None, str(found), unknown=True)
    kind, label = ns.parse(ref).kind, ref.partition(":")[2]
    missing = kind == "netns"
    # Its process has ended, and who says what it stands for has not heard of it yet.
    stopped = kind == "microservice" and found.netns.startswith("pid:")
    reason = f"microservice {label} is not running" if stopped else str(found)
    return SeenNetns(ref, ref if missing and create_missing else None, reason, missing)
