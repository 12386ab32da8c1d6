"""From the desired and the observed state to the operations that lead from one to the other. Pure: no I/O.

The order of the input does not matter. The first of these rules that applies decides about an interface:

1. Two interfaces cannot have the same name in one namespace. The interface whose own name it is gets it, or else the
   interface with that kernel name that sorts first, or else the first with that alternative name; any other is FAILED.
2. A pair needs both interfaces, pointing at each other, both namespaces, and the masters of its ends; otherwise it is
   PENDING. If only a master is missing, an existing pair stays as it is.
3. A name that it needs must not be held by a link that is not owned, or that must not be touched now; otherwise it is
   FAILED. The peer of a FAILED interface is PENDING. Existing ends of their pair stay, unless another pair needs the
   name.
4. An existing pair keeps its links if all differences can be changed in place.
5. Any other pair is created, after every owned pair that has the same marks or holds one of its names is deleted. A
   link that has the name as an alternative one loses only that.

If `prune` is True, the desired interfaces are all that this label should have: owned pairs that no rule keeps are
deleted. If it is a set of names, this holds for the interfaces with those names, configured or not. If it is False,
pairs of other interfaces are left alone, and if only one end of an existing pair is desired, that end is changed in
place. Such a lone end also gets a name that another link loses in the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from vethlib.agent import reasons
from vethlib.agent.config.mark import ADDRESS_PROTO, alias_of, group_of, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.reasons import Reason
from vethlib.agent.state import State, Verdict
from vethlib.endfields.table import ALTNAMES
from vethlib.links import Link, Veth

from .compare import change_of, rebuild_reason
from .detection import unusable
from .observed import LinkId, NetnsId, Observed, SeenLink
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Plan
from .order import in_order
from .owned import OwnedPairs
from .recorded import PairRecord
from .requirements import DesiredEnd, missing_master, missing_peer, mutual_pairs, name_conflicts, unmet, with_netns

__all__ = ["plan"]

CONFIGURED = Verdict(State.CONFIGURED)


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
    planner.free_altnames()
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
        self.left: frozenset[str] = frozenset()  # their desired state is not known
        self.verdicts: dict[str, Verdict] = {}
        self.found: dict[str, SeenLink] = {}
        self.kept: set[LinkId] = set()  # must not be pruned
        self.shielded: set[LinkId] = set()  # must not be deleted to make room for others either
        self.to_build: list[tuple[DesiredEnd, DesiredEnd, str]] = []
        self.to_rename: list[tuple[DesiredEnd, SeenLink]] = []  # lone ends whose name another link has
        self.freed: dict[LinkId, set[str]] = {}  # alternative names that links lose to make room
        self.deletes: dict[LinkId, DeletePair] = {}  # under the id of each end
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.new_netns: dict[NetnsId, AddNetns] = {}
        self.doubtful: set[str] = set()
        self.unusable: dict[str, Verdict] = {}

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
        """Shield the pairs of interfaces whose namespace may exist: not knowing it is no reason to delete them."""
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
        lone: dict[LinkId, tuple[DesiredEnd, SeenLink]] = {}
        for end in self.desired.values():
            if end.peer_name not in self.desired and end.place is not None and end.name not in self.verdicts:
                seen = self.owned.half(end.interface, end.place)
                if seen is not None:
                    self.shielded.update(each.id for each in self.owned.ends(seen))
                    lone[seen.id] = end, seen
        for end, seen in in_order(lone, lambda item: self._holders(item[1], [item[0].kernel_name])):
            self.verdicts[end.name] = self._change_lone_end(end, seen)

    def _change_lone_end(self, end: DesiredEnd, seen: SeenLink) -> Verdict:
        obstacle = self._obstacle(end, seen)
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
        for a, b in self.pairs:
            if a.place is None or b.place is None:
                continue
            pair = self.owned.pair(a.interface, a.place, b.interface, b.place)
            for end, seen in zip((a, b), pair or (None, None), strict=True):
                obstacle = self._obstacle(end, seen)
                if obstacle and end.name not in self.verdicts:
                    self.verdicts[end.name] = Verdict.because(State.FAILED, obstacle)
            if self._fails(a, b) or missing_master(a, self.observed) or missing_master(b, self.observed):
                self.kept.update(seen.id for seen in pair or ())
                continue
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

    def _fails(self, a: DesiredEnd, b: DesiredEnd) -> bool:
        """Return whether one end has FAILED; if so, the other end waits for it, unless it has FAILED, too."""
        for end, peer in ((a, b), (b, a)):
            verdict = self.verdicts.get(end.name)
            if verdict is not None and verdict.state is State.FAILED and peer.name not in self.verdicts:
                reason = reasons.peer_failed(end.name, verdict.reason)
                self.verdicts[peer.name] = Verdict.because(State.PENDING, reason)
        return a.name in self.verdicts

    def _obstacle(self, end: DesiredEnd, seen: SeenLink | None) -> Reason | None:
        """Return why `end` cannot have its kernel name, even if owned pairs make room; `seen` is its link, if any."""
        assert end.place is not None
        holder = self.observed.by_name.get((end.place, end.kernel_name))
        if holder is None or holder is seen:
            return None
        if holder in self.owned and self._may_make_room(holder):
            return None
        if holder.link.name != end.kernel_name:
            return reasons.link_altname(str(end), holder.link.name)
        if holder not in self.owned:
            return self._foreign(end, holder.link)
        return reasons.link_in_use(str(end), self.owned.owner(holder))

    def _foreign(self, end: DesiredEnd, link: Link) -> Reason:
        """Return the reason for a foreign link, with its owner according to its alias."""
        mark = read_alias(link.alias)
        if mark is None:
            return reasons.link_foreign(str(end), end.kernel_name, link.kind, link.alias)
        if mark.label != self.label:
            return reasons.link_of_other_label(str(end), link.kind, mark.name, mark.label)
        return reasons.link_unrecorded(str(end), end.kernel_name, link.kind, mark.name)

    def _may_make_room(self, seen: SeenLink) -> bool:
        """Return whether an owned pair may be deleted, or its link gives up a name, to make room for another."""
        owner = self.owned.owner(seen)
        if self.found.get(owner) is seen and seen.link.name != self.desired[owner].kernel_name:
            return True
        if seen.id in self.shielded:
            return False
        owners = self.owned.owners(seen)
        return not owners or not owners.isdisjoint(self.desired) or self._prunes(owners)

    def _prunes(self, owners: Set[str]) -> bool:
        """Return whether a pair that was built for these interfaces is deleted if no rule keeps it."""
        if isinstance(self.prune, bool):
            return self.prune
        return not self.prune.isdisjoint(owners)

    def _rebuild_reason(self, end: DesiredEnd, seen: SeenLink) -> Reason | None:
        return rebuild_reason(end.interface, seen) or self._blocked_rename(end, seen)

    def _blocked_rename(self, end: DesiredEnd, seen: SeenLink) -> Reason | None:
        """Return why a link cannot be renamed: its new name must be free before any operation is done."""
        name = end.kernel_name
        if seen.link.name == name or (seen.place, name) not in self.observed.by_name:
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
        group = group_of(self.label)
        for a, b, reason in self.to_build:
            for end in (a, b):
                self._make_room(end, f"rebuilt: {reason}" if reason else f"replaced: {end} is claimed by {end.name}")
            ends = [
                end.interface.end(group=group, alias=alias_of(self.label, end.interface), address_proto=ADDRESS_PROTO)
                for end in (a, b)
            ]
            self.creates.append(CreatePair(a.interface, b.interface, Veth(*ends)))
            for end in (a, b):
                if end.netns.missing and end.place is not None:
                    self.new_netns.setdefault(end.place, AddNetns(end.interface.namespace.name))

    def _make_room(self, end: DesiredEnd, why: str) -> None:
        assert end.place is not None
        for seen in self.owned.built_for(end.name):
            self._delete(seen, why)
        holder = self.observed.by_name.get((end.place, end.kernel_name))
        if holder is None:
            return
        owner = self.owned.owner(holder)
        if holder.link.name != end.kernel_name and owner in self.desired:
            self.freed.setdefault(holder.id, set()).add(end.kernel_name)
        # A holder whose pair is changed in place is renamed, because no two interfaces have one name.
        elif self.found.get(owner) is not holder:
            self._delete(holder, why)

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
            if not staying.isdisjoint(end.id for end in self.owned.ends(seen)):
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

    def free_altnames(self) -> None:
        """Remove the alternative names that other pairs need from the links that stay."""
        for link, names in self.freed.items():
            if link in self.deletes:
                continue
            seen = self.observed.by_index[link]
            change = next((each for each in self.changes if each.seen is seen), None)
            if change is None:
                change = self._no_change(seen)
            else:
                self.changes.remove(change)
            _, wanted = change.changes.get(ALTNAMES, ((), seen.link.altnames))
            rest = tuple(name for name in wanted if name not in names)
            self.changes.append(replace(change, changes={**change.changes, ALTNAMES: (seen.link.altnames, rest)}))

    def _no_change(self, seen: SeenLink) -> ChangeLink:
        interface = self.desired[self.owned.owner(seen)].interface
        index, name = seen.link.index, seen.link.name
        return ChangeLink(interface, seen.ref, seen.place, index, name, {}, seen=seen, mark=self.owned.mark(seen))

    def _holders(self, seen: SeenLink, names: Iterable[str]) -> list[LinkId]:
        """Return the other links that have one of these names in the namespace of `seen`."""
        holders = (self.observed.by_name.get((seen.place, name)) for name in names)
        return [holder.id for holder in holders if holder is not None and holder is not seen]

    def _ordered_changes(self) -> list[ChangeLink]:
        """Return the changes, sorted by interface; a change that frees a name precedes the one that needs it."""

        def before(change: ChangeLink) -> list[LinkId]:
            names = [*change.changes.get(ALTNAMES, ((), ()))[1]]
            if "name" in change.changes:
                names.append(change.changes["name"][1])
            return self._holders(change.seen, names) if names and change.seen is not None else []

        changes = sorted(self.changes, key=lambda change: change.interface.name)
        return in_order({(change.place, change.index): change for change in changes}, before)

    def result(self) -> Plan:
        """Return the plan, with the operations in the order of execution, and sorted within each kind."""
        deletes = {id(delete): delete for delete in self.deletes.values()}.values()
        return Plan(
            (
                *sorted(self.new_netns.values(), key=lambda add: add.name),
                *sorted(deletes, key=lambda delete: (delete.interface, delete.ref, delete.index)),
                *self._ordered_changes(),
                *self.creates,
            ),
            {name: self.verdicts[name] for name in self.desired},
            self.found,
            frozenset(self.doubtful),
            self.unusable,
        )
