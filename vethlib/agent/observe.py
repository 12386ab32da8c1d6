"""Looking at the host for a plan: what the desired interfaces' namespaces are, and every link that may matter."""

from __future__ import annotations

from collections.abc import Iterable

from vethlib import ns
from vethlib.errors import NetnsNotFound, VethError
from vethlib.session import Session
from vethlib.session.survey import Survey

from .observed import Observed, SeenLink, SeenNetns

__all__ = ["observe"]


def observe(session: Session, refs: Iterable[str], *, create_missing: bool = True) -> Observed:
    """What is in the namespaces of `refs`, at home, and in every named one (pairs of ours may be anywhere).

    `create_missing` says that a named namespace that is not there may be created for a pair. Raises NotPermitted and
    NetlinkError; a namespace that is not there is no error.
    """
    wanted = dict.fromkeys(["", *refs])
    survey = session.survey([*wanted, *(f"netns:{name}" for name in ns.names())])
    netns = {ref: _seen_netns(ref, survey, create_missing) for ref in wanted}
    links = [SeenLink(one.at, one.ref, one.link, one.addresses, one.peer) for one in survey.links]
    return Observed(netns, links)


def _seen_netns(ref: str, survey: Survey, create_missing: bool) -> SeenNetns:
    found = survey.places[ref]
    if not isinstance(found, VethError):
        return SeenNetns(ref, found)
    if not isinstance(found, NetnsNotFound):
        raise found
    missing = ns.parse(ref).kind == "netns"
    return SeenNetns(ref, ref if missing and create_missing else None, str(found), missing)
