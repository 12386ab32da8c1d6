"""The addresses that the agent has given to a link, where the kernel does not mark them (IFA_PROTO, Linux 5.18).

On such a kernel, the record has what the kernel does not store: the addresses that a link was created with, and those
that later changes gave to it. An observation adds the owner marks from the record to the addresses that it reads, so
that all later steps find them as on newer kernels. A change is recorded before and after it is made. So if an agent is
killed in between, or a later step of the change fails, the record may have an address too many, but none is missing,
and that address is configured anyway.

An address that is not in the record, because the record was lost or is older, may or may not be the agent's. It stays
on the link, and is reported (:func:`~vethlib.agent.planning.compare.unknown_addresses`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vethlib import addresses as kernel
from vethlib.addresses import identity_of
from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.planning.observed import LinkId, Observed, SeenLink
from vethlib.agent.planning.operations import ChangeLink, CreatePair
from vethlib.agent.planning.recorded import GivenAddresses, PairRecord
from vethlib.links import Address, IPInterface
from vethlib.session.write.creating.create import Made

from .recordfile import RecordFile

__all__ = ["ChangesMade", "attributed", "facts_of_creation", "facts_of_missing", "recorded_changes"]


def attributed(observed: Observed, record: PairRecord) -> Observed:
    """Return what was observed, with the owner mark of each address that the record has."""
    if kernel.kernel_marks_owners():
        return observed
    return replace(observed, links=[_attributed(seen, record) for seen in observed.links])


def _attributed(seen: SeenLink, record: PairRecord) -> SeenLink:
    if seen.link.kind != "veth":
        return seen
    given = record.given_at(seen.id)
    if given is None or (given.cookie and seen.cookie and given.cookie != seen.cookie):
        return replace(seen, owners_known=False)
    addresses = tuple(
        replace(address, proto=ADDRESS_PROTO) if _is_given(address, given) else address for address in seen.addresses
    )
    return replace(seen, addresses=addresses, owners_known=given.all_known)


def _is_given(address: Address, given: GivenAddresses) -> bool:
    return not address.proto and str(address) in given.addresses


def facts_of_creation(record: PairRecord, create: CreatePair, made: Made) -> Iterator[str]:
    """Record the addresses that the ends of a pair were created with."""
    if kernel.kernel_marks_owners():
        return
    for end, link, (place, cookie) in zip((create.veth.a, create.veth.b), made.pair, (made.a, made.b), strict=True):
        yield record.give((place, link.index), GivenAddresses(_texts(end.interfaces), True, cookie))


@dataclass(slots=True)
class ChangesMade:
    """The changes of links that were made, as far as the record of addresses is concerned.

    The addresses of a change are given by its first step, so the change counts as made even if a later step fails.
    `begun` is a change of which an interruption left it open whether it was made.
    """

    made: list[ChangeLink] = field(default_factory=list)
    begun: ChangeLink | None = None

    @contextmanager
    def making(self, change: ChangeLink) -> Iterator[None]:
        """Note that a change is made by the block, unless that raises an Exception: then nothing was changed."""
        self.begun = change
        try:
            yield
        except Exception:
            self.begun = None
            raise
        self.made.append(change)
        self.begun = None

    def may_be_made(self, change: ChangeLink) -> bool:
        """Return whether the first step of the last change was made, or may have been."""
        return self.begun is change or (bool(self.made) and self.made[-1] is change)


@contextmanager
def recorded_changes(records: RecordFile | None, changes: Sequence[ChangeLink]) -> Iterator[ChangesMade]:
    """Record the addresses that these changes give to links, while they are made.

    The ``with`` block notes each change in the object that it gets.
    """
    noted = ChangesMade()
    if records is None or kernel.kernel_marks_owners():
        yield noted
        return
    record = records.record
    changes = [change for change in changes if change.removed or _new(change)]
    before = {_end(change): record.given_at(_end(change)) for change in changes}
    records.write([record.give(_end(change), _after(record, change, frozenset())) for change in changes])
    try:
        yield noted
    finally:
        for change in noted.made:
            before.pop(_end(change), None)
        if noted.begun is not None:
            before.pop(_end(noted.begun), None)
        facts = [record.give(_end(change), _after(record, change, _texts(change.removed))) for change in noted.made]
        records.write([*facts, *(record.give(end, given) for end, given in before.items())])


def _end(change: ChangeLink) -> LinkId:
    return change.place, change.index


def _after(record: PairRecord, change: ChangeLink, removed: frozenset[str]) -> GivenAddresses:
    """Return the addresses that the agent has given to a link once the change is made."""
    given = record.given_at(_end(change))
    if given is None:
        given = GivenAddresses(cookie=0 if change.seen is None else change.seen.cookie)
    return replace(given, addresses=(given.addresses - removed) | _new(change))


def facts_of_missing(record: PairRecord, observed: Observed) -> Iterator[str]:
    """Forget the addresses given to links that observing the whole host did not find in the namespaces it has read."""
    if kernel.kernel_marks_owners():
        return
    read = {netns.place for netns in observed.netns.values()} | {seen.place for seen in observed.links}
    for end in list(record.links_given()):
        given = record.given_at(end)
        if end[0] in read and given is not None and not observed.has(end, given.cookie):
            yield record.give(end, None)


def _new(change: ChangeLink) -> frozenset[str]:
    """Return the addresses that a change leaves with the owner mark of the agent."""
    if change.restored is not None:
        return _texts(each for each in change.restored if each.proto == ADDRESS_PROTO)
    added = (each for each in change.added if not isinstance(each, Address))
    return _texts((*added, *change.again, *change.renewed))


def _texts(addresses: Iterable[IPInterface | Address]) -> frozenset[str]:
    """Return addresses as they are recorded: without attributes, but with the peer."""
    identities = (each.identity if isinstance(each, Address) else identity_of(each) for each in addresses)
    return frozenset(str(Address(0, interface, 0, 0, peer=peer)) for interface, peer in identities)
