"""Restoring the addresses that a link had: each exactly as it was read, in the order that the kernel had them in."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from vethlib._nl.batch import Outcome
from vethlib.address_order import listed, rearrangement
from vethlib.addresses import Address
from vethlib.endfields.table import Step
from vethlib.errors import NetlinkError
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.read.reading import addresses_of, read_addresses
from vethlib.session.read.target import Target
from vethlib.session.write.addressing import ROUNDS, give, take

__all__ = ["restore_addresses"]


def restore_addresses(namespaces: Namespaces, target: Target, index: int, wanted: Sequence[Address]) -> None:
    """Make the addresses of the link with that ifindex what they were. Raises NetlinkError.

    Those that are ``by_kernel`` are left alone.
    """
    restored = listed(address for address in wanted if not address.by_kernel)
    for _ in range(ROUNDS):
        steps = _missing(namespaces, target.place, index, restored)
        if not steps:
            return
        outcomes = namespaces.exchange(target.place, [step.request for step in steps])
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome.errno and outcome.errno not in step.fine:
                raise target.refusal(outcome, cls=NetlinkError)
    if steps := _missing(namespaces, target.place, index, restored):
        says = "they are not as they were: another program keeps changing them"
        refused = Outcome(errno.EBUSY, "", ())
        raise refusal(refused, f"{target.what}: {steps[0].what}", target.netns, says=says, cls=NetlinkError)


def _missing(namespaces: Namespaces, place: OpenNetns, index: int, wanted: Sequence[Address]) -> list[Step]:
    addresses = addresses_of(read_addresses(namespaces, place, index))
    change = rearrangement([address for address in addresses if not address.by_kernel], wanted, Address.same)
    return [*(take(address, index) for address in change.take), *(give(address, index) for address in change.give)]
