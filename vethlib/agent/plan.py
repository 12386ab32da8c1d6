"""From what is wanted and what is there to what has to be done. Pure: no I/O, and order does not matter.

How an interface is judged; the first rule that applies decides:

1. Two interfaces cannot have one kernel name in one namespace: the one that sorts first gets it, the other FAILED.
2. A pair needs both interfaces, pointing at each other, and both namespaces: else PENDING.
3. A name it needs must not be held by a link that is not ours, or not ours to touch now: else FAILED. The partner
   of a FAILED interface is PENDING. What is there of their pair stays, unless another pair needs its name.
4. A pair that is there keeps its links where all that differs can be changed in place.
5. Any other pair is created, once every pair of ours that bears the same marks or holds a name of it is deleted.

With a `prune` of True, the desired interfaces are all that this label should have: pairs of ours that no rule keeps
are deleted. With some names, this holds for the interfaces of those names, configured or not. With False, pairs of
interfaces that are not given are left alone, and where only one end of a pair that is there is given, that end is
changed in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from vethlib.links import Link, Veth

from .compare import change_of, rebuild_reason
from .mark import ADDRESS_PROTO, alias_of, group_of, read_alias
from .model import Interface
from .observed import LinkId, Observed, Place, SeenLink
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Plan
from .ours import OurPairs
from .requirements import Wanted, mutual_pairs, name_conflicts, unmet, with_netns
from .state import State, Verdict

__all__ = ["plan"]

CONFIGURED = Verdict(State.CONFIGURED)


def plan(
    desired: Mapping[str, Interface],
    observed: Observed,
    *,
    label: str,
    prune: bool | Set[str],
    leave: Iterable[str] = (),
    ours: OurPairs | None = None,
) -> Plan:
    """Compare the `desired` interfaces (by name) with what was `observed`; `label` says which pairs are ours.

    What is there of the interfaces called in `leave` stays as it is: nobody knows what they should be. `ours` are the
    pairs of the label in `observed`, if the caller has them already.

    Raises :class:`vethlib.errors.InvalidValue` for a label that cannot be one.
    """
    planner = _Planner(desired, observed, label, prune, ours or OurPairs(observed, label))
    planner.leave(leave)
    planner.refuse_conflicts()
    planner.keep_what_is_unknown()
    planner.change_lone_ends()
    planner.judge_pairs()
    planner.build_pairs()
    planner.leave_the_rest_pending()
    planner.delete_unwanted()
    return planner.result()


class _Planner:
    """What is decided so far; the methods are the steps, in their order."""

    def __init__(
        self,
        desired: Mapping[str, Interface],
        observed: Observed,
        label: str,
        prune: bool | Set[str],
        ours: OurPairs,
    ) -> None:
        self.observed = observed
        self.label = label
        self.prune = prune
        self.ours = ours
        self.wanted = with_netns(desired, observed)
        self.verdicts: dict[str, Verdict] = {}
        self.found: dict[str, SeenLink] = {}
        self.kept: set[LinkId] = set()  # not to be pruned
        self.shielded: set[LinkId] = set()  # not to be touched for the sake of others either
        self.to_build: list[tuple[Wanted, Wanted, str]] = []
        self.deletes: dict[LinkId, DeletePair] = {}  # under the id of each end
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.new_netns: dict[Place, AddNetns] = {}
        self.doubtful: set[str] = set()

    def leave(self, names: Iterable[str]) -> None:
        """Shield the pairs of these interfaces."""
        for name in names:
            for end in self.ours.built_for(name):
                self.shielded.update(one.id for one in self.ours.ends(end))

    def refuse_conflicts(self) -> None:
        """Rule 1."""
        for name, reason in name_conflicts(self.wanted).items():
            self.verdicts[name] = Verdict(State.FAILED, reason)

    def keep_what_is_unknown(self) -> None:
        """Shield the pairs of interfaces whose namespace may be there: not knowing is no reason to delete."""
        for a, b in mutual_pairs(self.wanted):
            if a.netns.unknown or b.netns.unknown:
                if all(one.netns.unknown or one.place is not None for one in (a, b)):
                    self.doubtful.update((a.name, b.name))
                for end in [*self.ours.built_for(a.name), *self.ours.built_for(b.name)]:
                    if self.ours.owners(end) <= {a.name, b.name}:
                        self.shielded.update(one.id for one in self.ours.ends(end))

    def change_lone_ends(self) -> None:
        """Without `prune`, an interface whose peer is not given may be one end of a pair that is there."""
        if self.prune is not False:
            return
        lone = []
        for one in self.wanted.values():
            if one.peer_name not in self.wanted and one.place is not None and one.name not in self.verdicts:
                half = self.ours.half(one.interface, one.place)
                if half is not None:
                    self.shielded.update(end.id for end in self.ours.ends(half))
                    lone.append((one, half))
        for one, half in lone:
            self.verdicts[one.name] = self._change_lone_end(one, half)

    def _change_lone_end(self, one: Wanted, half: SeenLink) -> Verdict:
        obstacle = self._obstacle(one, half)
        if obstacle:
            return Verdict(State.FAILED, obstacle)
        reason = rebuild_reason(one.interface, half) or self._blocked_rename(one, half)
        if reason:
            return Verdict(State.PENDING, f"peer {one.peer_name} is not configured; {reason}")
        self._change_in_place(one, half)
        return CONFIGURED

    def judge_pairs(self) -> None:
        """Rules 3 and 4, for every pair that has what it needs; those to be built are listed."""
        for a, b in mutual_pairs(self.wanted):
            if a.place is None or b.place is None:
                continue
            there = self.ours.pair(a.interface, a.place, b.interface, b.place)
            ends = there or (None, None)
            for one, own in zip((a, b), ends, strict=True):
                obstacle = self._obstacle(one, own)
                if obstacle and one.name not in self.verdicts:
                    self.verdicts[one.name] = Verdict(State.FAILED, obstacle)
            if self._fails(a, b):
                self.kept.update(end.id for end in ends if end is not None)
                continue
            self.verdicts[a.name] = self.verdicts[b.name] = CONFIGURED
            if there is None:
                self.to_build.append((a, b, ""))
                continue
            reason = self._rebuild_reason(a, there[0]) or self._rebuild_reason(b, there[1])
            if reason:
                self.to_build.append((a, b, reason))
            else:
                self._change_in_place(a, there[0])
                self._change_in_place(b, there[1])

    def _fails(self, a: Wanted, b: Wanted) -> bool:
        """Whether one end has FAILED; then the other, if it has not, waits for it."""
        for one, other in ((a, b), (b, a)):
            verdict = self.verdicts.get(one.name)
            if verdict is not None and verdict.state is State.FAILED and other.name not in self.verdicts:
                reason = f"peer {one.name} failed: {verdict.reason}"
                self.verdicts[other.name] = Verdict(State.PENDING, reason)
        return a.name in self.verdicts

    def _obstacle(self, one: Wanted, own: SeenLink | None) -> str:
        """Why `one` cannot have its kernel name even if pairs of ours make room; `own` is its link, if there."""
        assert one.place is not None
        holder = self.observed.by_name.get((one.place, one.interface.kernel_name))
        if holder is None or holder is own:
            return ""
        if holder not in self.ours:
            return f"{one} exists and is not managed by this agent{self._whose(holder.link)}"
        if holder.link.name != one.interface.kernel_name:
            return f"{one} exists as an alternative name of {holder.link.name!r}"
        if self._may_go(holder):
            return ""
        return f"{one} is still the link of {self.ours.owner(holder) or 'another interface'}"

    def _whose(self, link: Link) -> str:
        """Whose a link is that is not ours, as far as it says, and what to do about it."""
        mark = read_alias(link.alias)
        if mark is not None and mark.label != self.label:
            owner = f"{mark.name} of the agent with the label {mark.label}"
            return f" (kind {link.kind}): it is {owner}: delete it, or take that label"
        if mark is not None:
            other = "its other end has another alias"
            return f" (kind {link.kind}): it was {mark.name}, but {other}: clear that, or delete the link"
        said = [f"kind {link.kind}"] if link.kind else []
        said += [f"alias {link.alias!r}"] if link.alias else []
        return f"{' (' + ', '.join(said) + ')' if said else ''}: delete or rename it, or give another host_if_name"

    def _may_go(self, seen: SeenLink) -> bool:
        """Whether a pair of ours may be deleted, or is about to be renamed, to make room for another."""
        owner = self.ours.owner(seen)
        if self.found.get(owner) is seen and seen.link.name != self.wanted[owner].interface.kernel_name:
            return True
        if seen.id in self.shielded:
            return False
        owners = self.ours.owners(seen)
        return not owners or not owners.isdisjoint(self.wanted) or self._prunes(owners)

    def _prunes(self, owners: Set[str]) -> bool:
        """Whether a pair built for these interfaces is deleted if no rule keeps it."""
        if isinstance(self.prune, bool):
            return self.prune
        return not self.prune.isdisjoint(owners)

    def _rebuild_reason(self, one: Wanted, own: SeenLink) -> str:
        return rebuild_reason(one.interface, own) or self._blocked_rename(one, own)

    def _blocked_rename(self, one: Wanted, own: SeenLink) -> str:
        """A rename needs a name that is free before anything is done: room made by others may come too late."""
        name = one.interface.kernel_name
        if own.link.name == name or (own.place, name) not in self.observed.by_name:
            return ""
        return f"{own.link.name!r} cannot be renamed while {name!r} is taken"

    def _change_in_place(self, one: Wanted, own: SeenLink) -> None:
        self.found[one.name] = own
        self.kept.add(own.id)
        change = change_of(one.interface, own, self.label)
        if change is not None:
            self.changes.append(change)

    def build_pairs(self) -> None:
        """Rule 5."""
        group = group_of(self.label)
        for a, b, reason in self.to_build:
            for one in (a, b):
                why = f"rebuilt: {reason}" if reason else f"replaced: {one} is to be {one.name}"
                self._make_room(one, why)
            ends = [
                one.interface.end(group=group, alias=alias_of(self.label, one.interface), address_proto=ADDRESS_PROTO)
                for one in (a, b)
            ]
            self.creates.append(CreatePair(a.interface, b.interface, Veth(*ends)))
            for one in (a, b):
                if one.netns.creatable and one.place is not None:
                    self.new_netns.setdefault(one.place, AddNetns(one.interface.namespace.name))

    def _make_room(self, one: Wanted, why: str) -> None:
        assert one.place is not None
        for end in self.ours.built_for(one.name):
            self._delete(end, why)
        holder = self.observed.by_name.get((one.place, one.interface.kernel_name))
        # A holder whose pair is changed in place is renamed: no two interfaces want one name.
        if holder is not None and self.found.get(self.ours.owner(holder)) is not holder:
            self._delete(holder, why)

    def _delete(self, seen: SeenLink, why: str) -> None:
        if seen.id in self.deletes:
            return
        end = self._deleted_end(seen)
        delete = DeletePair(end.ref, end.place, end.link.index, end.link.name, self.ours.owner(end), why)
        for one in self.ours.ends(seen):
            self.deletes[one.id] = delete

    def _deleted_end(self, seen: SeenLink) -> SeenLink:
        return min(self.ours.ends(seen), key=lambda end: (self.ours.owner(end), end.ref, end.link.index))

    def leave_the_rest_pending(self) -> None:
        """Rule 2."""
        for one in self.wanted.values():
            if one.name not in self.verdicts:
                self.verdicts[one.name] = Verdict(State.PENDING, unmet(one, self.wanted))

    def delete_unwanted(self) -> None:
        """Delete what is ours and kept by no rule."""
        staying = self.kept | self.shielded
        for seen in self.ours:
            if not staying.isdisjoint(end.id for end in self.ours.ends(seen)):
                continue
            if not self._prunes(self.ours.owners(seen)):
                continue
            owner = self.ours.owner(self._deleted_end(seen))
            verdict = self.verdicts.get(owner)
            if not owner:
                why = "left behind by a create that was cut short"
            elif verdict is None:
                why = f"{owner} is not configured"
            else:
                why = verdict.reason or f"{owner} is elsewhere"
            self._delete(seen, why)

    def result(self) -> Plan:
        """The plan, its operations in the order of execution and each kind sorted."""
        deletes = {id(delete): delete for delete in self.deletes.values()}.values()
        return Plan(
            (
                *sorted(self.new_netns.values(), key=lambda add: add.name),
                *sorted(deletes, key=lambda delete: (delete.interface, delete.ref, delete.index)),
                *sorted(self.changes, key=lambda change: change.interface.name),
                *self.creates,
            ),
            {name: self.verdicts[name] for name in self.wanted},
            self.found,
            frozenset(self.doubtful),
        )
