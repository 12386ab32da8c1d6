"""Remove known routes and neighbours of a link, without reading the others."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vethlib._nl.dependents.neighbour import get_neighbour, parse_neighbour
from vethlib.endfields.table import FIELDS, NEIGHBOURS
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.read.reading import find
from vethlib.session.read.target import Target

from .change import check_expected

if TYPE_CHECKING:
    from vethlib.endfields.neighbours import Neighbour

__all__ = ["remove_values"]


def remove_values(namespaces: Namespaces, target: Target, surplus: Mapping[str, Sequence[Any]]) -> None:
    """Remove these values of fields that have several. Missing values are no error. Raises NetlinkError."""
    link = find(namespaces, target)
    check_expected(namespaces, target, link)
    if neighbours := surplus.get(NEIGHBOURS, ()):
        surplus = {**surplus, NEIGHBOURS: _present(namespaces, target, link.ifindex, neighbours)}
    steps = [step for field, values in surplus.items() for step in FIELDS[field].steps(link.ifindex, values, ())]
    outcomes = namespaces.exchange(target.place, [step.request for step in steps])
    for step, outcome in zip(steps, outcomes, strict=True):
        if outcome.errno and outcome.errno not in step.fine:
            raise target.requesting(f"{target.what}: {step.what}").refusal(outcome)


def _present(namespaces: Namespaces, target: Target, index: int, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    """Return those that the link has: a message that removes a neighbour has only its address, not its MAC."""
    outcomes = namespaces.ask_all(target.place, [get_neighbour(index, each.address.packed) for each in neighbours])
    present = []
    for each, outcome in zip(neighbours, outcomes, strict=True):
        if outcome.errno == errno.ENOENT:
            continue
        if outcome.errno:
            raise target.requesting(f"{target.what}: read neighbour {each}").refusal(outcome)
        found = target.read(outcome, parse_neighbour)
        if found.is_permanent and (found.mac.hex(":"), found.protocol) == (each.mac, each.proto):
            present.append(each)
    return present
