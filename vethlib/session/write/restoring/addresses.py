"""Restore the addresses that a link had: each exactly as it was read, and in the kernel's former order."""

from __future__ import annotations

import errno
from collections.abc import Container, Sequence

from vethlib._nl.batch import Outcome
from vethlib.address_order import added, in_subnets_of, listed, rearrangement
from vethlib.addresses import Address, Identity
from vethlib.endfields.table import Step
from vethlib.errors import NetlinkError
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.read.reading import read_addresses
from vethlib.session.read.target import Target
from vethlib.session.write.addressing import ROUNDS, give, take

__all__ = ["restore_addresses"]


def restore_addresses(
    namespaces: Namespaces,
    target: Target,
    index: int,
    wanted: Sequence[Address],
    own: Container[Identity] | None = None,
) -> None:
    """Restore the addresses of the link with that ifindex. Raises NetlinkError.

    Those that the kernel makes (``comes_again``) are left alone. Of the others, those that were not there are removed:
    all of them, or only those in `own`, because other programs may have added addresses meanwhile.
    """
    restored = listed(address for address in wanted if not address.comes_again)
    for _ in range(ROUNDS):
        steps = _missing(namespaces, target.place, index, restored, own)
        if not steps:
            return
        outcomes = namespaces.exchange(target.place, [step.request for step in steps])
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome.errno and outcome.errno not in step.fine:
                raise target.refusal(outcome, cls=NetlinkError)
    if steps := _missing(namespaces, target.place, index, restored, own):
        says = "they do not stay as they were: another program keeps changing them"
        what = f"{target.what}: {steps[0].what}"
        raise refusal(Outcome(errno.EBUSY), what, target.netns, says=says, cls=NetlinkError)


def _missing(
    namespaces: Namespaces, place: OpenNetns, index: int, wanted: Sequence[Address], own: Container[Identity] | None
) -> list[Step]:
    present = [each for each in read_addresses(namespaces, place, index) if not each.comes_again]
    known = {address.identity for address in wanted}
    foreign = (
        [] if own is None else [each for each in present if each.identity not in known and each.identity not in own]
    )
    # These may have to be added again after ours, which were primary; the others are not touched.
    involved = in_subnets_of(wanted, foreign)
    apart = {address.identity for address in foreign} - {address.identity for address in involved}
    there = [address for address in present if address.identity not in apart]
    change = rearrangement(there, added(wanted, involved), Address.same)
    # The kernel removes secondary addresses along with their primary.
    dragged = [each for each in foreign if each.secondary and each.identity in apart] if change.take else []
    return [*(take(each, index) for each in change.take), *(give(each, index) for each in (*change.give, *dragged))]
