"""Removing routes and neighbours of a link that are known, without reading the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vethlib.endfields.table import FIELDS
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.read.reading import find
from vethlib.session.read.target import Target

from .change import check_expected

__all__ = ["remove_values"]


def remove_values(namespaces: Namespaces, target: Target, surplus: Mapping[str, Sequence[Any]]) -> None:
    """Remove these values of fields that have several. Those that are missing are no error. Raises NetlinkError."""
    link = find(namespaces, target)
    check_expected(target, link)
    steps = [step for field, values in surplus.items() for step in FIELDS[field].steps(link.ifindex, values, ())]
    outcomes = namespaces.exchange(target.place, [step.request for step in steps])
    for step, outcome in zip(steps, outcomes, strict=True):
        if outcome.errno and outcome.errno not in step.fine:
            raise target.requesting(f"{target.what}: {step.what}").refusal(outcome)
