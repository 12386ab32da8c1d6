"""Observe the host for a plan: the namespaces of the desired interfaces, and every link that may matter."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from vethlib import ns
from vethlib.agent.config.mark import Mark, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.observed import NetnsId, Observed, SeenLink, SeenNetns
from vethlib.agent.reasons import ReasonCode, of_error
from vethlib.endfields.table import FIELDS
from vethlib.errors import NetnsNotFound, VethError
from vethlib.follow import ResolverDown
from vethlib.links import FURTHER
from vethlib.ns.opening import entry_at, is_leftover
from vethlib.session import Session
from vethlib.session.read.further import Asked
from vethlib.session.read.survey import Survey

from .given import attributed
from .recordfile import RecordFile
from .unshared import not_unshared

__all__ = ["find_recorded", "fingerprints", "look_at", "observe", "observe_all"]


def observe(
    session: Session,
    refs: Iterable[str],
    *,
    create_missing: bool = True,
    gone: Mapping[str, str] | None = None,
    may_be_closed: bool = False,
    fingerprints: bool = False,
    interfaces: Iterable[Interface] = (),
    records: RecordFile | None = None,
) -> Observed:
    """Return what is in the namespaces of `refs`, in the home namespace, and in every named namespace.

    Owned pairs may be in any of them. With `create_missing`, a missing named namespace may be created for a pair. A
    missing namespace is no error, and neither is one that cannot be looked into: it is unknown.

    `gone` are references that lead nowhere, whatever the host shows, each with the reason: an agent knows that the
    processes that they meant have ended.

    With `fingerprints`, the result has them. The further fields that `interfaces` have are read from their links, and
    so are those of other links whose marks list such fields: with `records`, only if that label built them.

    Raises NetlinkError if the home namespace cannot be read, and NotPermitted if no namespace of `refs` may be entered,
    unless they `may_be_closed`.
    """
    asked, existing, others = _places(refs, gone)
    closed = existing | others if may_be_closed else others
    survey = session.survey([*existing, *others], may_be_closed=closed, fingerprints=fingerprints)
    return _with_further(session, _observed(session, asked, survey, create_missing, gone), interfaces, records)


def fingerprints(session: Session, refs: Iterable[str], gone: Mapping[str, str]) -> object:
    """Return the fingerprints that :func:`observe` would have now; None if they cannot be taken."""
    _asked, existing, others = _places(refs, gone)
    return session.fingerprints([*existing, *others])


def _places(
    refs: Iterable[str], gone: Mapping[str, str] | None
) -> tuple[dict[str, None], dict[str, None], dict[str, None]]:
    """Return the references to look up, those of them that are not `gone`, and those of all other named namespaces."""
    asked = dict.fromkeys(["", *refs])
    existing = {ref: None for ref in asked if not gone or ref not in gone}
    return asked, existing, {ref: None for name in ns.names() if (ref := f"netns:{name}") not in existing}


def look_at(
    session: Session,
    refs: Iterable[str],
    links: Iterable[tuple[str, str | int]],
    *,
    gone: Mapping[str, str],
    create_missing: bool,
    interfaces: Iterable[Interface] = (),
    records: RecordFile | None = None,
) -> Observed:
    """Observe single links, each (reference, name or ifindex), as :func:`observe` does. Missing links are left out."""
    asked = dict.fromkeys(["", *refs])
    existing = [ref for ref in asked if ref not in gone]
    links = [(ref, link) for ref, link in links if ref not in gone]
    survey = session.inspect(links, existing, ends_at_home=True, may_be_closed=set(existing))
    return _with_further(session, _observed(session, asked, survey, create_missing, gone), interfaces, records)


def observe_all(
    session: Session,
    refs: Iterable[str],
    records: RecordFile,
    *,
    create_missing: bool = True,
    interfaces: Iterable[Interface] = (),
) -> Observed:
    """Observe as :func:`observe` does, and find the recorded pairs as well."""
    records.refresh()
    refs = [*refs, *find_recorded(records).values()]
    observed = observe(session, refs, create_missing=create_missing, interfaces=interfaces, records=records)
    return attributed(observed, records.record)


def find_recorded(records: RecordFile) -> dict[NetnsId, str]:
    """Find the namespaces of recorded and intended pairs without an end in the home namespace, by stat alone.

    A pair with an end in the home namespace is found by that end.
    """
    record = records.record
    elsewhere = [pair for pair in (*record, *record.intents()) if not pair.is_at(records.home)]
    places = {end.place: end.ref for pair in elsewhere for end in pair.ends if isinstance(end.place, tuple)}
    return dict(ns.find(places, places.values()).items())


def _observed(
    session: Session, refs: Iterable[str], survey: Survey, create_missing: bool, gone: Mapping[str, str] | None
) -> Observed:
    netns: dict[str, SeenNetns] = {}
    home = survey.places[""]
    for ref in refs:
        if gone and ref in gone:
            is_label = ref.startswith("microservice:")
            code = ReasonCode.MICROSERVICE_NOT_RUNNING if is_label else ReasonCode.PROCESS_GONE
            netns[ref] = SeenNetns(ref, None, gone[ref], code=code)
        elif ref and survey.places[ref] == home and (reason := not_unshared(ref, session.resolver)):
            netns[ref] = SeenNetns(ref, None, reason.text, code=reason.code)
        else:
            netns[ref] = _seen_netns(ref, survey, create_missing)
    cookies: dict[NetnsId, int] = dict(survey.cookies.items())
    links = [
        SeenLink(seen.at, seen.ref, seen.link, seen.addresses, seen.peer, cookies.get(seen.at, 0))
        for seen in survey.links
    ]
    return Observed(netns, links, cookies, survey.fingerprints)


def _with_further(
    session: Session, observed: Observed, interfaces: Iterable[Interface], records: RecordFile | None
) -> Observed:
    """Read the fields that few interfaces have, of those links that may be theirs: by name, or by the name in the mark.

    Where they cannot be read, they are missing, and setting them reports the reason.
    """
    by_place: dict[tuple[NetnsId | None, str], Interface] = {}
    by_name: dict[str, Interface] = {}
    configured: set[str] = set()
    for interface in interfaces:
        configured.add(interface.name)
        if interface.further:
            by_name[interface.name] = interface
            by_place[observed.netns[interface.namespace.ref].place, interface.kernel_name] = interface
    asked: dict[int, Asked] = {}
    for number, seen in enumerate(observed.links):
        alias = seen.link.alias
        mark = read_alias(alias) if by_name or " more" in alias else None
        if mark is not None and not _may_be_owned(seen, mark, observed.home, configured, records):
            mark = None
        owner = by_place.get((seen.place, seen.link.name)) or (by_name.get(mark.name) if mark is not None else None)
        if mark is not None and mark.more:
            # It has or had such fields: they may have to be removed, or to be restored if its deletion is undone.
            had = {name: value for name, value in FURTHER.items() if FIELDS[name].none is None or name in mark.owned}
            asked[number] = seen.ref, seen.link.index, {**had, **(owner.further if owner is not None else {})}
        elif owner is not None:
            asked[number] = seen.ref, seen.link.index, owner.further
    if not asked:
        return observed
    links = list(observed.links)
    for number, values in zip(asked, session.fields_many(asked.values()), strict=True):
        if isinstance(values, dict):
            links[number] = replace(links[number], further=values)
    return replace(observed, links=links)


def _may_be_owned(
    seen: SeenLink, mark: Mark, home: NetnsId | None, configured: Container[str], records: RecordFile | None
) -> bool:
    """Return whether a link with this mark may be an agent's: a tenant can write any mark into its namespace."""
    if seen.link.kind != "veth":
        return False
    if records is None:
        return True
    if mark.label != records.label:
        return False
    return seen.place == home or mark.name in configured or any(records.record.of(mark.name))


def _is_free(ref: str) -> bool:
    """Return whether a namespace can be created with this name: no file has it, or a leftover of a killed creator."""
    try:
        return is_leftover(entry_at(ns.parse(ref).path))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _seen_netns(ref: str, survey: Survey, create_missing: bool) -> SeenNetns:
    place = survey.places[ref]
    if not isinstance(place, VethError):
        return SeenNetns(ref, place)
    if not ref:
        raise place
    why = of_error(place, ref)
    if not isinstance(place, NetnsNotFound):
        is_refused = not isinstance(place, ResolverDown)
        return SeenNetns(ref, None, why.text, unknown=True, refused=is_refused, code=why.code, errno=why.errno)
    kind, label = ns.parse(ref).kind, ref.partition(":")[2]
    missing = kind == "netns" and _is_free(ref)
    # Its process has ended, but the resolver does not know that yet.
    stopped = kind == "microservice" and place.netns.startswith("pid:")
    reason = f"microservice {label} is not running" if stopped else why.text
    code = ReasonCode.MICROSERVICE_NOT_RUNNING if stopped else why.code
    return SeenNetns(ref, ref if missing and create_missing else None, reason, missing, code=code)
