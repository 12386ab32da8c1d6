"""Bring the record of built pairs up to date with an observation.

After every observation, the record has each owned pair that was seen with both ends, as it is now, and no longer has
the pairs that are not where they were. Pairs with both ends in the home namespace are not recorded, because no tenant
can write their marks.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Set
from dataclasses import replace

from vethlib.agent.config.mark import Mark
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.observed import LinkId, NetnsId, Observed, SeenLink, is_same_netns
from vethlib.agent.planning.operations import CreatePair, Plan
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.planner import plan
from vethlib.agent.planning.recorded import PairRecord, RecordedEnd, RecordedPair
from vethlib.ns.opening import has_procfs
from vethlib.session.write.creating.create import Made, Planned

from .given import facts_of_missing
from .recordfile import RecordFile

__all__ = ["ends_missing", "facts_of_look", "intended", "made", "plan_and_note"]


def facts_of_look(
    record: PairRecord,
    owned: OwnedPairs,
    observed: Observed,
    *,
    found: Mapping[str, SeenLink],
    desired: Mapping[str, Interface],
    missing: Container[LinkId],
    names: Set[str] | None = None,
) -> list[str]:
    """Bring the record up to date with what was observed; return the facts for its file.

    `found` has the link of each interface, as in a plan, `desired` the configuration, and `missing` the recorded ends
    that were not found. The observation was of the interfaces `names`; None means of the whole host. Only such an
    observation removes a pair that is not where it was, because the pair may have been moved, even while it was being
    deleted. From now on, marks alone do not make a pair owned.
    """
    facts = []
    built_for = {seen.id: name for name, seen in found.items()}
    for pair in owned.pairs:
        if pair[0].place == pair[1].place == observed.home:
            continue
        known = record.at(pair[0].id)
        before = known if known is not None and known[1].id == pair[1].id else (None, None)
        ends = [
            _end(seen, built_for.get(seen.id, ""), owned.mark(seen), desired, observed.cookies.get(seen.place, 0), old)
            for seen, old in zip(pair, before, strict=True)
        ]
        if ends[0] is not before[0] or ends[1] is not before[1]:
            facts.append(record.add(RecordedPair(*ends)))
        else:
            record.find(pair[0].id)
    for built in list(record) if names is None else _built_for(record, names):
        where = record.ends_of(built)
        if _is_gone(where, observed, missing):
            facts += [record.forget(where[0].id)] if names is None else record.lose(built)
    facts += [record.void(both) for both in _answered(record, observed, names) if both not in owned.half_created]
    if names is None:
        facts += facts_of_missing(record, observed)
    record.adopts = False
    return facts


def plan_and_note(
    desired: Mapping[str, Interface], observed: Observed, records: RecordFile, *, label: str, prune: bool
) -> Plan:
    """Plan as :func:`plan` does, with the record, and record what an observation of the whole host has found."""
    owned = OwnedPairs(observed, label, records.record, desired)
    planned = plan(desired, observed, label=label, prune=prune, owned=owned)
    missing = ends_missing(records.record, observed, {})
    records.write(facts_of_look(records.record, owned, observed, found=planned.found, desired=desired, missing=missing))
    return planned


def ends_missing(record: PairRecord, observed: Observed, recorded: Mapping[NetnsId, str]) -> set[LinkId]:
    """Return the recorded ends that an observation of the whole host did not find.

    `recorded` has a reference to each of their namespaces. Ends in a namespace that may exist, but could not be looked
    into, are not missing. Without /proc, it is not known of any.
    """
    if not has_procfs():
        return set()
    unknown = {netns.ref for netns in observed.netns.values() if netns.unknown}
    hidden = {place for place, ref in recorded.items() if ref in unknown}
    ends = [end for pair in record for end in pair.ends if end.ref not in unknown and end.place not in hidden]
    return {end.id for end in ends if not observed.has(end.id, end.cookie)}


def _end(
    seen: SeenLink, name: str, mark: Mark | None, desired: Mapping[str, Interface], cookie: int, old: RecordedEnd | None
) -> RecordedEnd:
    """Return the record for an end: the previous one if nothing has changed."""
    name = name or (mark.name if mark is not None else "")
    interface = desired.get(name)
    given = mark is not None and mark.mac if interface is None else bool(interface.phys_address)
    mac = seen.link.mac
    if old is None or not is_same_netns(old.place, old.cookie, seen.place, cookie):
        return RecordedEnd(name, seen.place, cookie, seen.link.index, seen.link.name, mac, given, seen.ref)
    if old.name == name and old.mac == mac and old.given_mac == given and cookie in (old.cookie, 0):
        return old
    # The kernel name stays as it was recorded, because a tenant can change it.
    return replace(old, name=name, cookie=cookie or old.cookie, mac=mac, given_mac=given, ref=old.ref or seen.ref)


def _answered(record: PairRecord, observed: Observed, names: Set[str] | None) -> list[frozenset[str]]:
    """Return the intents that were not carried out: nothing was found in the namespaces where the pairs should be."""
    intents = record.intents()
    if not intents:
        return []
    looked = {netns.place for netns in observed.netns.values()} | {seen.place for seen in observed.links}
    looked.add(observed.home)
    return [
        intent.names
        for intent in intents
        if (names is None or intent.names <= names) and looked.issuperset(end.place for end in intent.ends)
    ]


def _built_for(record: PairRecord, names: Set[str]) -> list[RecordedPair]:
    return list(dict.fromkeys(pair for name in names for pair in record.of(name)))


def _is_gone(ends: list[RecordedEnd], observed: Observed, missing: Container[LinkId]) -> bool:
    """Return whether a recorded pair is not where it was; `ends` are those that would still be there."""
    if any(observed.has(end.id, end.cookie) for end in ends):
        return False
    # An end in the home namespace cannot be moved by a tenant: if it is missing, the pair was deleted.
    return all(end.id in missing for end in ends) or any(
        end.place == observed.home and end.id in missing for end in ends
    )


def intended(create: CreatePair, planned: Planned) -> RecordedPair:
    """Return the pair that is about to be created."""
    ends = []
    for interface, place in ((create.a, planned.a), (create.b, planned.b)):
        given, ref = bool(interface.phys_address), interface.namespace.ref
        ends.append(RecordedEnd(interface.name, place, 0, link=interface.kernel_name, given_mac=given, ref=ref))
    return RecordedPair(*ends)


def made(create: CreatePair, what: Made) -> RecordedPair:
    """Return the pair that was created."""
    ends = []
    for interface, link, (place, cookie) in zip((create.a, create.b), what.pair, (what.a, what.b), strict=True):
        given = bool(interface.phys_address)
        ref = interface.namespace.ref
        ends.append(RecordedEnd(interface.name, place, cookie, link.index, link.name, link.mac, given, ref))
    return RecordedPair(*ends)
