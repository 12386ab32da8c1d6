"""From the desired and the observed state to the operations that lead from one to the other. Pure: no I/O.

The order of the input does not matter. The first of these rules that applies decides about an interface:

1. Two interfaces cannot have the same name in one namespace. The interface whose own name it is gets it, or else the
   interface with that kernel name that sorts first, or else the first with that alternative name; any other is FAILED.
2. A pair needs both interfaces, pointing at each other, both namespaces, and the masters of its ends; otherwise it is
   PENDING. If only a master is missing, an existing pair stays as it is.
3. A name that it needs, also as an alternative one, must not be held by a link that is not owned, or that must not be
   touched now; otherwise it is FAILED. The peer of a FAILED interface is PENDING. Existing ends of their pair stay,
   unless another pair needs their kernel name as its own.
4. An existing pair keeps its links if all differences can be changed in place. Its link takes the names that it needs
   from others as in rule 5, except that a pair is rebuilt if it needs the kernel name that another one has until then.
5. Any other pair is created, after every owned pair that has the same marks or holds one of its names is deleted. A
   link that gives the name up anyway, or has it as an alternative one, loses only that (see `names.py`).

If `prune` is True, the desired interfaces are all that this label should have: owned pairs that no rule keeps are
deleted. If it is a set of names, this holds for the interfaces with those names, configured or not. If it is False,
pairs of other interfaces are left alone, and if only one end of an existing pair is desired, that end is changed in
place. Such a lone end also gets a name that another link loses in the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TypeAlias

from vethlib.agent import reasons
from vethlib.agent.config.mark import ADDRESS_PROTO, alias_of, group_of, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.reasons import Reason
from vethlib.agent.state import State, Verdict
from vethlib.endfields.table import ALTNAMES, ROUTES
from vethlib.links import Link, Veth, describe

from .compare import change_of, rebuild_reason
from .detection import unusable
from .names import gained, in_order_of_names
from .observed import LinkId, NetnsId, Observed, SeenLink
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Plan
from .order import in_order
from .owned import OwnedPairs
from .recorded import PairRecord
from .requirements import DesiredEnd, missing_master, missing_peer, mutual_pairs, name_conflicts, unmet, with_netns

__all__ = ["plan"]

CONFIGURED = Verdict(State.CONFIGURED)

_Pair: TypeAlias = "tuple[DesiredEnd, DesiredEnd, tuple[SeenLink, SeenLink] | None]"
"""Two interfaces, and the links of their pair if it exists."""


def plan(
    desired: Mapping[str, Interface],
    observed: Observed,
    *,
    label: str,
    prune: bool | Set[str],
    leave: Iterable[str] = (),
    owned: OwnedPairs | None = None,
    record: PairRecord | None = None,
    configured: Mapping[str, Interface] | None = None,
) -> Plan:
    """Compare the `desired` interfaces (by name) with the `observed` state; `label` determines the owned pairs.

    If these are only some of the `configured` interfaces, each comes with its peer if that points back (see
    `Desired.with_peers`), and of any other peer only the configuration matters.

    Links of the interfaces in `leave` stay as they are, because their desired state is not known. `record` is the
    record of built pairs (see `owned.py`); if the caller has already determined the owned pairs in `observed`, it
    passes them as `owned`.

    Raises :class:`vethlib.errors.InvalidValue` for an invalid label.
    """
    if owned is None:
        owned = OwnedPairs(observed, label, record, desired)
    planner = _Planner(desired, observed, label, prune, owned)
    planner.leave(leave)
    planner.refuse_conflicts()
    planner.keep_what_is_unknown()
    planner.change_lone_ends()
    planner.judge_pairs()
    planner.build_pairs()
    planner.rename_lone_ends()
    planner.leave_the_rest_pending(desired if configured is None else configured)
    planner.delete_unwanted()
    planner.make_room_for_changes()
    planner.free_altnames()
    planner.add_routes_again()
    return planner.result()


class _Planner:
    """The decisions so far; the methods are the steps, in their order."""

    def __init__(
        self,
        desired: Mapping[str, Interface],
        observed: Observed,
        label: str,
        prune: bool | Set[str],
        owned: OwnedPairs,
    ) -> None:
        self.observed = observed
        self.label = label
        self.prune = prune
        self.owned = owned
        self.desired = with_netns(desired, observed)
        self.pairs = list(mutual_pairs(self.desired))
        # Of the pairs whose namespaces and masters exist; the others stay PENDING, unless a reason for FAILED is found.
        self.complete = {
            end.name for pair in self.pairs if all(self._has_what_it_needs(each) for each in pair) for end in pair
        }
        self.left: frozenset[str] = frozenset()  # their desired state is not known
        self.verdicts: dict[str, Verdict] = {}
        self.found: dict[str, SeenLink] = {}
        self.kept: set[LinkId] = set()  # must not be pruned
        self.shielded: set[LinkId] = set()  # must not be deleted to make room for others either
        self.to_build: list[tuple[DesiredEnd, DesiredEnd, str]] = []
        self.lone: dict[LinkId, tuple[DesiredEnd, SeenLink]] = {}  # ends whose peer is not among the desired interfaces
        self.to_rename: list[tuple[DesiredEnd, SeenLink]] = []  # lone ends whose name another link has
        self.freed: dict[LinkId, set[str]] = {}  # alternative names that links lose to make room
        self.deletes: dict[LinkId, DeletePair] = {}  # under the id of each end
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.new_netns: dict[NetnsId, AddNetns] = {}
        self.doubtful: set[str] = set()
        self.unusable: dict[str, Verdict] = {}

    def _has_what_it_needs(self, end: DesiredEnd) -> bool:
        return end.place is not None and missing_master(end, self.observed) is None

    def leave(self, names: Iterable[str]) -> None:
        """Shield the pairs of these interfaces."""
        self.left = frozenset(names)
        for name in self.left:
            for end in self.owned.built_for(name):
                self.shielded.update(each.id for each in self.owned.ends(end))

    def refuse_conflicts(self) -> None:
        """Apply rule 1."""
        for name, reason in name_conflicts(self.desired).items():
            self.verdicts[name] = Verdict.because(State.FAILED, reason)

    def keep_what_is_unknown(self) -> None:
        """Shield the pairs of interfaces whose namespace may exist: not knowing that does not justify deleting them."""
        for a, b in self.pairs:
            if a.netns.unknown or b.netns.unknown:
                if all(end.netns.unknown or end.place is not None for end in (a, b)):
                    self.doubtful.update((a.name, b.name))
                for end in [*self.owned.built_for(a.name), *self.owned.built_for(b.name)]:
                    if self.owned.owners(end) <= {a.name, b.name}:
                        self.shielded.update(each.id for each in self.owned.ends(end))

    def change_lone_ends(self) -> None:
        """Without `prune`, change the end of an existing pair whose peer is not among the desired interfaces."""
        if self.prune is not False:
            return
        for end in self.desired.values():
            if end.peer_name not in self.desired and end.place is not None and end.name not in self.verdicts:
                seen = self.owned.half(end.interface, end.place)
                if seen is not None:
                    self.shielded.update(each.id for each in self.owned.ends(seen))
                    self.lone[seen.id] = end, seen
        for end, seen in in_order(self.lone, lambda item: self._holders(*item)):
            self.verdicts[end.name] = self._change_lone_end(end, seen)

    def _change_lone_end(self, end: DesiredEnd, seen: SeenLink) -> Verdict:
        obstacle = self._obstacle(end, seen, end.names)
        if obstacle:
            return Verdict.because(State.FAILED, obstacle)
        rebuild = rebuild_reason(end.interface, seen)
        waits = missing_master(end, self.observed)
        reason = waits or rebuild or (None if self._becomes_free(end) else self._blocked_rename(end, seen))
        if reason:
            if not (waits or rebuild):
                self.to_rename.append((end, seen))
            return Verdict.because(State.PENDING, missing_peer(end.peer_name, (), self.left), reason)
        self._change_in_place(end, seen)
        return CONFIGURED

    def _becomes_free(self, end: DesiredEnd) -> bool:
        """Return whether another link has the kernel name of `end`, but is deleted or renamed before the link of `end`.

        Deletions are executed before changes, and changes in the order in which they free names.
        """
        assert end.place is not None
        holder = self.observed.by_name.get((end.place, end.kernel_name))
        if holder is None or holder.link.name != end.kernel_name:
            return False
        owner = self.owned.owner(holder)
        return holder.id in self.deletes or (
            self.found.get(owner) is holder and self.desired[owner].kernel_name != end.kernel_name
        )

    def judge_pairs(self) -> None:
        """Apply rules 3 and 4 to every pair that has everything it needs, and list the pairs to build."""
        possible: list[_Pair] = []
        for a, b in self.pairs:
            if a.place is None or b.place is None:
                continue
            pair = self.owned.pair(a.interface, a.place, b.interface, b.place)
            if self._is_possible(a, b, pair, lambda end: (end.kernel_name,)):
                possible.append((a, b, pair))
        # By now, it has been decided which links keep their kernel names.
        possible = [
            (a, b, pair)
            for a, b, pair in possible
            if not (a.interface.altnames or b.interface.altnames)
            or self._is_possible(a, b, pair, lambda end: end.interface.altnames)
        ]
        for a, b, pair in possible:
            self.verdicts[a.name] = self.verdicts[b.name] = CONFIGURED
            if pair is None:
                self.to_build.append((a, b, ""))
                continue
            reason = self._rebuild_reason(a, pair[0]) or self._rebuild_reason(b, pair[1])
            if reason:
                self.to_build.append((a, b, reason.text))
            else:
                self._change_in_place(a, pair[0])
                self._change_in_place(b, pair[1])

    def _is_possible(
        self,
        a: DesiredEnd,
        b: DesiredEnd,
        pair: tuple[SeenLink, SeenLink] | None,
        names: Callable[[DesiredEnd], Sequence[str]],
    ) -> bool:
        """Return whether both ends have their masters and can have these names; if not, an existing pair is kept."""
        for end, seen in zip((a, b), pair or (None, None), strict=True):
            obstacle = self._obstacle(end, seen, names(end))
            if obstacle and end.name not in self.verdicts:
                self.verdicts[end.name] = Verdict.because(State.FAILED, obstacle)
        if self._fails(a, b) or a.name not in self.complete:
            self.kept.update(seen.id for seen in pair or ())
            return False
        return True

    def _fails(self, a: DesiredEnd, b: DesiredEnd) -> bool:
        """Return whether one end has FAILED; if so, the other end waits for it, unless it has FAILED, too."""
        for end, peer in ((a, b), (b, a)):
            verdict = self.verdicts.get(end.name)
            if verdict is not None and verdict.state is State.FAILED and peer.name not in self.verdicts:
                reason = reasons.peer_failed(end.name, verdict.reason)
                self.verdicts[peer.name] = Verdict.because(State.PENDING, reason)
        return a.name in self.verdicts

    def _obstacle(self, end: DesiredEnd, seen: SeenLink | None, names: Iterable[str]) -> Reason | None:
        """Return why `end` cannot have one of these names, even if owned pairs make room; `seen` is its link if any."""
        assert end.place is not None
        for name in names:
            holder = self.observed.by_name.get((end.place, name))
            if holder is None or holder is seen or self._will_leave(holder, name, end):
                continue
            if holder in self.owned and self._may_make_room(holder):
                # No pair is deleted for an alternative name.
                is_needed_as_altname = name != end.kernel_name and holder.link.name == name
                if not (is_needed_as_altname and self._keeps_name(holder)):
                    continue
            where = describe(name, end.interface.namespace.ref)
            if holder.link.name != name:
                return reasons.link_altname(where, holder.link.name)
            if holder not in self.owned:
                return self._foreign(where, holder.link)
            return reasons.link_in_use(where, self.owned.owner(holder))
        return None

    def _foreign(self, where: str, link: Link) -> Reason:
        """Return the reason for a foreign link, with its owner according to its alias."""
        mark = read_alias(link.alias)
        if mark is None:
            return reasons.link_foreign(where, link.name, link.kind, link.alias)
        if mark.label != self.label:
            return reasons.link_of_other_label(where, link.kind, mark.name, mark.label)
        return reasons.link_unrecorded(where, link.name, link.kind, mark.name)

    def _will_leave(self, holder: SeenLink, name: str, end: DesiredEnd) -> bool:
        """Return whether a lone end gives up a name that `end` needs."""
        if holder.id not in self.lone:
            return False
        if holder.link.name != name:
            return True
        # It may not be judged yet, if it waits for `end` in turn. If `end` is renamed, it has to be judged first.
        other, _ = self.lone[holder.id]
        return name not in (end.kernel_name, other.kernel_name) and other.name not in self.verdicts

    def _may_make_room(self, seen: SeenLink) -> bool:
        """Return whether an owned pair may be deleted, or its link gives up a name, to make room for another."""
        owner = self.owned.owner(seen)
        if self.found.get(owner) is seen and seen.link.name != self.desired[owner].kernel_name:
            return True
        if seen.id in self.shielded:
            return False
        owners = self.owned.owners(seen)
        return not owners or not owners.isdisjoint(self.desired) or self._prunes(owners)

    def _keeps_name(self, holder: SeenLink) -> bool:
        """Return whether an owned link keeps its kernel name, unless it is deleted for the sake of another one."""
        owner = self.owned.owner(holder)
        if self.found.get(owner) is holder:
            return False
        stays = owner in self.verdicts or owner not in self.complete
        return holder.id in self.kept or (stays and not self._prunes(self.owned.owners(holder)))

    def _prunes(self, owners: Set[str]) -> bool:
        """Return whether a pair that was built for these interfaces is deleted if no rule keeps it."""
        if isinstance(self.prune, bool):
            return self.prune
        return not self.prune.isdisjoint(owners)

    def _rebuild_reason(self, end: DesiredEnd, seen: SeenLink) -> Reason | None:
        return rebuild_reason(end.interface, seen) or self._blocked_rename(end, seen)

    def _blocked_rename(self, end: DesiredEnd, seen: SeenLink) -> Reason | None:
        """Return why a link cannot be renamed: another one has its new name as its kernel name."""
        name = end.kernel_name
        holder = self.observed.by_name.get((seen.place, name))
        if holder is None or holder is seen or holder.link.name != name:
            return None
        return reasons.name_taken(seen.link.name, name)

    def _change_in_place(self, end: DesiredEnd, seen: SeenLink) -> None:
        self.found[end.name] = seen
        self.kept.add(seen.id)
        other = None if seen.peer is None else self.observed.by_index.get(seen.peer)
        change = change_of(end.interface, seen, self.label, marked=self.owned.is_marked(seen), peer=other)
        if change is not None:
            self.changes.append(change)
        peer = self.desired.get(end.peer_name)
        if (verdict := unusable(end.interface, seen, None if peer is None else peer.interface)) is not None:
            self.unusable[end.name] = verdict

    def build_pairs(self) -> None:
        """Apply rule 5."""
        if not self.to_build:
            return
        group = group_of(self.label)
        for a, b, reason in self.to_build:
            self._make_room(a, reason)
            self._make_room(b, reason)
            ends = [
                end.interface.end(group=group, alias=alias_of(self.label, end.interface), address_proto=ADDRESS_PROTO)
                for end in (a, b)
            ]
            self.creates.append(CreatePair(a.interface, b.interface, Veth(*ends)))
            for end in (a, b):
                if end.netns.missing and end.place is not None:
                    self.new_netns.setdefault(end.place, AddNetns(end.interface.namespace.name))

    def _make_room(self, end: DesiredEnd, reason: str) -> None:
        """Delete what is in the way of a new end; `reason` is why its pair is rebuilt, "" if there is none."""
        why = f"rebuilt: {reason}" if reason else ""
        for seen in self.owned.built_for(end.name):
            self._delete(seen, why or f"replaced: {self._misfit(end, seen)}")
        self._free(end, end.names, why)

    def _misfit(self, end: DesiredEnd, seen: SeenLink) -> str:
        """Return why a link that was built for `end` cannot be kept."""
        if seen.place != end.place:
            return f"{end.name} is configured as {end}"
        return f"the other end of {end} is not {self.desired[end.peer_name]}"

    def _free(self, end: DesiredEnd, names: Iterable[str], why: str) -> None:
        """Take these names from the owned links that have them; pairs are deleted for the reason `why`, if given."""
        assert end.place is not None
        for name in names:
            holder = self.observed.by_name.get((end.place, name))
            if holder is None:
                continue
            owner = self.owned.owner(holder)
            if holder.link.name != name and owner in self.desired:
                self.freed.setdefault(holder.id, set()).add(name)
            # A holder whose pair is changed in place is renamed, because no two interfaces have one name.
            elif self.found.get(owner) is not holder and (name == end.kernel_name or holder.link.name != name):
                self._delete(holder, why or f"replaced: {end} is claimed by {end.name}")

    def _delete(self, seen: SeenLink, why: str) -> None:
        if seen.id in self.deletes:
            return
        end, ends = self._deleted_end(seen), self.owned.ends(seen)
        home = next((each for each in ends if each.place == self.observed.home), None)
        delete = DeletePair(
            end.ref,
            end.place,
            end.link.index,
            end.link.name,
            self.owned.owner(end),
            why,
            at_home=None if home is None else (home.link.name, home.link.index),
            marks=tuple((each.id, mark) for each in ends if (mark := self.owned.mark(each)) is not None),
            seen=home or end,
        )
        for each in ends:
            self.deletes[each.id] = delete

    def _deleted_end(self, seen: SeenLink) -> SeenLink:
        """Return the end that identifies the pair: that of a known interface, if there is one."""

        def order(end: SeenLink) -> tuple[bool, str, str, int]:
            owner = self.owned.owner(end)
            return not owner, owner, end.ref, end.link.index

        return min(self.owned.ends(seen), key=order)

    def rename_lone_ends(self) -> None:
        """Change the lone ends whose names become free because the pairs that have them are deleted or renamed.

        A pair is rebuilt in this case, which a lone end cannot be.
        """
        for end, seen in self.to_rename:
            if self._becomes_free(end):
                self._change_in_place(end, seen)
                self.verdicts[end.name] = CONFIGURED

    def leave_the_rest_pending(self, configured: Mapping[str, Interface]) -> None:
        """Apply rule 2."""
        for end in self.desired.values():
            if end.name not in self.verdicts:
                missing = unmet(end, self.desired, configured, self.observed, self.left)
                self.verdicts[end.name] = Verdict.because(State.PENDING, *missing)

    def delete_unwanted(self) -> None:
        """Delete the owned pairs that no rule keeps."""
        staying = self.kept | self.shielded
        for seen in self.owned:
            if seen.id in staying or not staying.isdisjoint(end.id for end in self.owned.ends(seen)):
                continue
            if not self._prunes(self.owned.owners(seen)):
                continue
            owner = self.owned.owner(self._deleted_end(seen))
            verdict = self.verdicts.get(owner)
            if not owner:
                why = "left behind by an interrupted create"
            elif verdict is None:
                why = f"{owner} is not configured"
            else:
                why = verdict.reason or f"{owner} has another pair"
            self._delete(seen, why)

    def make_room_for_changes(self) -> None:
        """Take the names that changed links get from the links that have them."""
        for change in self.changes:
            if names := gained(change):
                end = self.desired[change.interface.name]
                self._free(end, names, f"replaced: {end} needs its name")

    def free_altnames(self) -> None:
        """Remove the alternative names that other pairs need from the links that stay."""
        changes = {(change.place, change.index): change for change in self.changes}
        for link, names in self.freed.items():
            if link in self.deletes:
                continue
            seen = self.observed.by_index[link]
            change = changes.get(link) or self._no_change(seen)
            _, wanted = change.changes.get(ALTNAMES, ((), seen.link.altnames))
            rest = tuple(name for name in wanted if name not in names)
            changes[link] = replace(change, changes={**change.changes, ALTNAMES: (seen.link.altnames, rest)})
        self.changes = list(changes.values())

    def add_routes_again(self) -> None:
        """Set routes again that the kernel removes from links because another link gives their source up.

        That may be for a moment only, as when a pair is rebuilt. If it is for good, the kernel refuses them, which is
        reported.
        """
        taken = {
            (link[0], address.interface.ip)
            for link in self.deletes
            for address in self.observed.by_index[link].addresses
        }
        for change in self.changes:
            addresses = () if change.seen is None else change.seen.addresses
            taken |= {(change.place, each.interface.ip) for each in addresses if change.costs_source(each)}
        if not taken:
            return
        changes = {(change.place, change.index): change for change in self.changes}
        for seen in self.found.values():
            routes = seen.further.get(ROUTES) or ()
            if any((seen.place, route.source) in taken for route in routes):
                change = changes.get(seen.id) or self._no_change(seen)
                if ROUTES not in change.changes:
                    changes[seen.id] = replace(change, changes={**change.changes, ROUTES: (routes, routes)})
        self.changes = list(changes.values())

    def _no_change(self, seen: SeenLink) -> ChangeLink:
        interface = self.desired[self.owned.owner(seen)].interface
        index, name = seen.link.index, seen.link.name
        return ChangeLink(interface, seen.ref, seen.place, index, name, {}, seen=seen, mark=self.owned.mark(seen))

    def _holders(self, end: DesiredEnd, seen: SeenLink) -> list[LinkId]:
        """Return the other links that have one of the names of `end`; `seen` is its link."""
        holders = (self.observed.by_name.get((seen.place, name)) for name in end.names)
        return [holder.id for holder in holders if holder is not None and holder is not seen]

    def result(self) -> Plan:
        """Return the plan, with the operations in the order of execution, and sorted within each kind."""
        deletes = {id(delete): delete for delete in self.deletes.values()}.values()
        return Plan(
            (
                *sorted(self.new_netns.values(), key=lambda add: add.name),
                *sorted(deletes, key=lambda delete: (delete.interface, delete.ref, delete.index)),
                *in_order_of_names(sorted(self.changes, key=lambda change: change.interface.name)),
                *self.creates,
            ),
            {name: self.verdicts[name] for name in self.desired},
            self.found,
            frozenset(self.doubtful),
            self.unusable,
            {end.name: seen for end in self.desired.values() if (seen := self._standing(end)) is not None},
        )

    def _standing(self, end: DesiredEnd) -> SeenLink | None:
        """Return the link of an interface that is not as configured, but whose pair stays."""
        if end.name in self.found:
            return None
        ends = self.owned.built_for(end.name)
        return next((seen for seen in ends if seen.id not in self.deletes and end.place in (None, seen.place)), None)
