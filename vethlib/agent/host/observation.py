"""Observe the host for a plan: the namespaces of the desired interfaces, and every link that may matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from vethlib import ns
from vethlib.agent.config.mark import Mark, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.observed import LinkId, NetnsId, Observed, SeenLink, SeenNetns
from vethlib.agent.planning.operations import Plan
from vethlib.agent.planning.requirements import precedence
from vethlib.agent.planning.undo.losses import links_losing_settings, links_to_delete
from vethlib.agent.reasons import ReasonCode, of_error
from vethlib.endfields.checks import Sysctl
from vethlib.endfields.table import ALTNAMES, FIELDS, MASTER, OFFLOAD, SYSCTLS
from vethlib.errors import NetnsNotFound, VethError
from vethlib.follow import ResolverDown
from vethlib.linkref import check_several
from vethlib.links import FURTHER
from vethlib.ns.opening import entry_at, is_leftover
from vethlib.session import Session
from vethlib.session.read.further import Asked
from vethlib.session.read.survey import Survey

from .given import attributed
from .recordfile import RecordFile
from .unshared import not_unshared

__all__ = ["find_recorded", "fingerprints", "look_at", "observe", "observe_all", "with_settings"]

_MOST_OTHERS: Final = 64
"""Links of one foreign namespace that only a mark assigns to an interface.

They may have been renamed, but a tenant can have thousands with such a mark.
"""


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
    surplus: int | None = None,
) -> Observed:
    """Return what is in the namespaces of `refs`, in the home namespace, and in every named namespace.

    Owned pairs may be in any of them. With `create_missing`, a missing named namespace may be created for a pair. A
    missing namespace is not an error, and neither is one that cannot be inspected: that one is unknown.

    `gone` are references that lead nowhere, whatever the host shows, each with the reason: an agent knows that the
    processes that they meant have ended.

    With `fingerprints`, the result has them. The further fields that `interfaces` have are read from their links, and
    so are those of other links whose marks list such fields: with `records`, only if that label built them. `surplus`
    is that of :meth:`Session.fields_many`: an agent must not read everything a tenant has added.

    Raises NetlinkError if the home namespace cannot be read, and NotPermitted if no namespace of `refs` may be entered,
    unless they `may_be_closed`.
    """
    asked, existing, others = _places(refs, gone)
    closed = existing | others if may_be_closed else others
    survey = session.survey([*existing, *others], may_be_closed=closed, fingerprints=fingerprints)
    observed = _observed(session, asked, survey, create_missing, gone)
    return _with_further(session, observed, interfaces, records, surplus)


def fingerprints(session: Session, refs: Iterable[str], gone: Mapping[str, str]) -> object:
    """Return the fingerprints that :func:`observe` would have now; None if they cannot be taken."""
    _asked, existing, others = _places(refs, gone)
    return session.fingerprints([*existing, *others])


def _places(
    refs: Iterable[str], gone: Mapping[str, str] | None
) -> tuple[dict[str, None], dict[str, None], dict[str, None]]:
    """Return the references to look up, those of them that are not `gone`, and those of all other named namespaces."""
    check_several(refs)
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
    surplus: int | None = None,
) -> Observed:
    """Observe single links, each (reference, name or ifindex), as :func:`observe` does. Missing links are left out."""
    asked = dict.fromkeys(["", *refs])
    existing = [ref for ref in asked if ref not in gone]
    links = [(ref, link) for ref, link in links if ref not in gone]
    survey = session.inspect(links, existing, ends_at_home=True, may_be_closed=set(existing))
    observed = _observed(session, asked, survey, create_missing, gone)
    return _with_further(session, observed, interfaces, records, surplus)


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
        elif ref and survey.places[ref] == home:
            netns[ref] = _seen_home(ref, home, session)
        else:
            netns[ref] = _seen_netns(ref, survey.places[ref], create_missing)
    cookies: dict[NetnsId, int] = dict(survey.cookies.items())
    links = [
        SeenLink(seen.at, seen.ref, seen.link, seen.addresses, seen.peer, cookies.get(seen.at, 0))
        for seen in survey.links
    ]
    return Observed(netns, links, cookies, survey.fingerprints)


def _with_further(
    session: Session,
    observed: Observed,
    interfaces: Iterable[Interface],
    records: RecordFile | None,
    surplus: int | None,
) -> Observed:
    """Read the fields that few interfaces have, of those links that may be theirs.

    Where they cannot be read, they are missing, and setting them reports the reason.
    """
    configured = {interface.name: interface for interface in interfaces}
    any_further = any(interface.further for interface in configured.values())
    claimants = _claimants(observed, configured.values()) if any_further else {}
    asked: dict[int, Asked] = {}
    others: Counter[NetnsId] = Counter()
    for number, seen in enumerate(observed.links):
        alias = seen.link.alias
        mark = read_alias(alias) if any_further or " more" in alias else None
        if mark is not None and not _may_be_owned(seen, mark, observed.home, configured, records):
            mark = None
        if mark is not None and records is not None and not _is_expected(seen, mark, observed, configured, records):
            others[seen.place] += 1
            if others[seen.place] > _MOST_OTHERS:
                mark = None
        owner = _probable_owner(seen, mark, observed.home, configured, claimants, records) if any_further else None
        wanted: Mapping[str, Any] = {} if owner is None else owner.further
        if mark is not None and mark.more:
            # It has or had such fields: they may have to be removed, or to be restored if its deletion is undone.
            had = {name: value for name, value in FURTHER.items() if FIELDS[name].none is None or name in mark.owned}
            asked[number] = seen.ref, seen.link.index, {**had, **wanted}
        elif wanted:
            asked[number] = seen.ref, seen.link.index, wanted
    if not asked:
        return observed
    links = list(observed.links)
    for number, values in zip(asked, session.fields_many(asked.values(), surplus=surplus), strict=True):
        if isinstance(values, dict):
            links[number] = replace(links[number], further=values)
    return replace(observed, links=links)


def _is_expected(
    seen: SeenLink, mark: Mark, observed: Observed, configured: Mapping[str, Interface], records: RecordFile
) -> bool:
    """Return whether more than its mark, which a tenant can write, assigns a link to an interface."""
    if seen.place == observed.home or records.record.at(seen.id) is not None:
        return True
    interface = configured.get(mark.name)
    if interface is None or interface.kernel_name != seen.link.name:
        return False
    return observed.netns[interface.namespace.ref].place == seen.place


_Claimants: TypeAlias = "dict[tuple[NetnsId, str], Interface]"


def _claimants(observed: Observed, interfaces: Iterable[Interface]) -> _Claimants:
    """Return the interface that gets each kernel name in each namespace, of all that claim it."""
    claimants: _Claimants = {}
    for interface in interfaces:
        place, name = observed.netns[interface.namespace.ref].place, interface.kernel_name
        if place is not None:
            other = claimants.setdefault((place, name), interface)
            if other is not interface and precedence(name, interface) < precedence(name, other):
                claimants[place, name] = interface
    return claimants


def _probable_owner(
    seen: SeenLink,
    mark: Mark | None,
    home: NetnsId | None,
    configured: Mapping[str, Interface],
    claimants: _Claimants,
    records: RecordFile | None,
) -> Interface | None:
    """Return the interface of which the fields of a link are read, before it is decided whose link it is.

    A tenant can write marks, so outside the home namespace, the record and the name of the link are asked first.
    """
    claimant = claimants.get((seen.place, seen.link.name))
    by_mark = None if mark is None else configured.get(mark.name)
    if seen.place == home:
        return by_mark or claimant
    recorded = None if records is None else records.record.at(seen.id)
    return (None if recorded is None else configured.get(recorded[0].name)) or claimant or by_mark


def with_settings(session: Session, observed: Observed, plan: Plan) -> Observed:
    """Return what was observed, with what else must be restored if a plan is undone.

    That is the fields of links that the plan deletes, no matter who has set them, and settings in /proc/sys/net that
    new links would not have: of links that it deletes, leaves without IPv6, or gives another secret of addresses.
    Raises VethError if they cannot be read.
    """
    deleted = {end.id for end in links_to_delete(plan, observed)}
    asked = {
        seen.id: (seen.ref, seen.link.index, _OF_A_DELETED if seen.id in deleted else {SYSCTLS: None})
        for seen in links_losing_settings(plan, observed)
    }
    given: dict[LinkId, Mapping[str, Any]] = {}
    for end, values in zip(asked, session.fields_many(asked.values()), strict=True):
        if isinstance(values, VethError):
            raise values
        given[end] = {} if values is None else values
    if not any(given.values()):
        return observed
    return replace(observed, links=[_with_given(seen, given.get(seen.id, {})) for seen in observed.links])


# A link has its alternative names anyway, and one with a master of other programs is not deleted on trial.
_OF_A_DELETED: Final = {name: value for name, value in FURTHER.items() if name not in (ALTNAMES, MASTER)} | {
    SYSCTLS: None
}


_NEW_TXQLEN: Final = 1000  # DEFAULT_TX_QUEUE_LEN
_NEW_GSO_MAX_SIZE: Final = 65536  # GSO_LEGACY_MAX_SIZE


def _is_as_new(name: str, value: Any) -> bool:
    """Return whether a new veth has this value of a field anyway."""
    if name == "gso_max_size":
        return value == _NEW_GSO_MAX_SIZE and getattr(value, "ipv4", None) in (None, _NEW_GSO_MAX_SIZE)
    return bool(value == {"txqlen": _NEW_TXQLEN, OFFLOAD: True}.get(name, ()))


def _with_given(seen: SeenLink, given: Mapping[str, Any]) -> SeenLink:
    settings = dict(seen.further.get(SYSCTLS, ())) | dict(given.get(SYSCTLS, ()))
    further = {name: value for name, value in given.items() if not _is_as_new(name, value)}
    further |= seen.further
    if settings:
        further[SYSCTLS] = tuple(Sysctl(*each) for each in sorted(settings.items()))
    return replace(seen, further=further) if further else seen


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


def _seen_home(ref: str, home: tuple[int, int] | VethError, session: Session) -> SeenNetns:
    """Return what is known of the namespace of `ref`, which leads to the home namespace, but may not mean it."""
    try:
        reason = not_unshared(ref, session.resolver)
    except VethError as error:
        return _seen_netns(ref, error)
    return _seen_netns(ref, home) if reason is None else SeenNetns(ref, None, reason.text, code=reason.code)


def _seen_netns(ref: str, place: NetnsId | VethError, create_missing: bool = False) -> SeenNetns:
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
