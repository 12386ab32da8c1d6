"""The names of links, and the order in which changes of links give them up and take them. Pure.

1. A link has one kernel name and any number of alternative names. Within a namespace, all of these are different
   (netdev_name_in_use, net/core/dev.c), so a link that needs a name waits for the link that has it.
2. An interface claims its kernel name and its configured alternative names. Its link also keeps the alternative names
   that are not configured, also those that other programs have added, until another interface claims them.
3. Deleted pairs give up all their names, before any link is changed. A changed link gives up its former kernel name,
   unless that becomes an alternative name of it, and the alternative names that it loses. Pairs are created last.
4. A change that gives a name up precedes the change that takes it. If changes wait for each other, each of them is
   made in up to three steps: alternative names that others take are removed; all the rest; alternative names that
   others have given up are added. That suffices, because a pair is rebuilt if it needs the kernel name of a link that
   is renamed, and lone ends never exchange theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from vethlib.endfields.table import ALTNAMES

from .observed import LinkId, NetnsId
from .operations import ChangeLink
from .order import in_order

__all__ = ["gained", "given_up", "in_order_of_names"]

_Step: TypeAlias = "tuple[LinkId, int]"  # a link, and the number of the step among those of its change


def gained(change: ChangeLink) -> list[str]:
    """Return the names that a link has after a change, but not before."""
    before, after = _names(change)
    return [name for name in after if name not in before]


def given_up(change: ChangeLink) -> list[str]:
    """Return the names that a link has before a change, but not after it."""
    before, after = _names(change)
    return [name for name in before if name not in after]


def _names(change: ChangeLink) -> tuple[dict[str, None], dict[str, None]]:
    """Return the names before and after a change, without the alternative names that it does not concern."""
    kernel_names = change.changes.get("name", (change.name, change.name))
    before, after = (
        dict.fromkeys((kernel_name, *altnames))
        for kernel_name, altnames in zip(kernel_names, change.changes.get(ALTNAMES, ((), ())), strict=True)
    )
    return before, after


def in_order_of_names(changes: Iterable[ChangeLink]) -> list[ChangeLink]:
    """Return the changes in their order, as far as rule 4 allows it, with the steps of those that need several."""
    changes = list(changes)
    if len(changes) < 2:
        return changes
    takers = {(change.place, name) for change in changes for name in gained(change)}
    givers = {(change.place, name) for change in changes for name in given_up(change)}
    if takers.isdisjoint(givers):
        return changes
    ordered = _in_order([[change] for change in changes])
    if _is_possible(ordered, givers):
        return ordered
    return _in_order([_steps(change, takers, givers) for change in changes])


def _in_order(changes: Iterable[Sequence[ChangeLink]]) -> list[ChangeLink]:
    """Return the steps of all changes, each after the steps that free the names that it takes."""
    steps = {((step.place, step.index), number): step for several in changes for number, step in enumerate(several)}
    freed_by = {(step.place, name): key for key, step in steps.items() for name in given_up(step)}

    def before(item: tuple[_Step, ChangeLink]) -> Iterator[_Step]:
        (link, number), step = item
        if number:
            yield link, number - 1
        for name in gained(step):
            if (giver := freed_by.get((step.place, name))) is not None:
                yield giver

    return [step for _, step in in_order({key: (key, step) for key, step in steps.items()}, before)]


def _is_possible(changes: Iterable[ChangeLink], taken: Iterable[tuple[NetnsId, str]]) -> bool:
    """Return whether each of these changes, made in this order, finds its names free; those in `taken` are not yet."""
    taken = set(taken)
    for change in changes:
        if any((change.place, name) in taken for name in gained(change)):
            return False
        taken.difference_update((change.place, name) for name in given_up(change))
    return True


def _steps(change: ChangeLink, takers: set[tuple[NetnsId, str]], givers: set[tuple[NetnsId, str]]) -> list[ChangeLink]:
    """Return the steps of a change: one, unless it both gives up and takes names of other links."""
    asked = {name for name in given_up(change) if (change.place, name) in takers}
    awaited = {name for name in gained(change) if (change.place, name) in givers}
    if not asked or not awaited or ALTNAMES not in change.changes:
        return [change]
    before, after = change.changes[ALTNAMES]
    first = tuple(name for name in before if name not in asked)
    last = tuple(name for name in after if name not in awaited)
    rest = {**change.changes, ALTNAMES: (first, last)}
    if first == last:
        del rest[ALTNAMES]
    _, name = change.changes.get("name", ("", change.name))
    steps = [_only_altnames(change, before, first), replace(change, changes=rest), _only_altnames(change, last, after)]
    steps[-1] = replace(steps[-1], name=name)
    return [step for step in steps if not step.is_empty]


def _only_altnames(change: ChangeLink, before: Sequence[str], after: Sequence[str]) -> ChangeLink:
    changes = {ALTNAMES: (tuple(before), tuple(after))} if before != after else {}
    return ChangeLink(
        change.interface,
        change.ref,
        change.place,
        change.index,
        change.name,
        changes,
        seen=change.seen,
        mark=change.mark,
    )
