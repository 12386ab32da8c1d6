"""The plan that undoes a plan, whatever other programs have changed in the meantime. Pure: no I/O.

To try a configuration, and to restore the host afterwards:

    before = observe(session, refs, interfaces=interfaces.values())
    planned = plan(interfaces, before, label=label, prune=True)
    before = with_settings(session, before, planned)
    at_stake = links_at_stake(planned, before)
    dependents = session.dependents([(seen.ref, seen.link.index) for seen in at_stake])
    if not irreversible(planned, before, {seen.id: each for seen, each in zip(at_stake, dependents)}):
        execution = execute(session, planned)
        refs += [seen.ref for seen in at_stake]
        after = observe(session, refs, interfaces=interfaces.values())
        ...                                      # is it good?
        now = observe(session, refs, interfaces=interfaces.values())
        undo = inverse(execution.done, before, after, now, begun=execution.begun)
        execute(session, undo.plan)

`refs` are the namespaces of the interfaces, and for the last two observations those of :func:`links_at_stake` as well.

1. Created pairs are deleted, and changed links are changed back, with addresses in their old order and with their old
   labels, flags and owners.
2. A pair that was deleted is created as it was, including its MACs and its settings in /proc/sys/net; its ifindexes
   are new and its counters begin at 0. Everything that other programs had added to it would be lost: such a plan is
   irreversible.
3. A field that another program has changed since is left alone, and so are a setting in /proc/sys/net, addresses that
   others have added or removed since, and a link whose alias has changed. Each is reported.
4. A name is given back if no other link has it by then: names are given up and taken in the order of
   :mod:`vethlib.agent.planning.names`. A pair is created without an alternative name that another link has, but not
   with another kernel name.
5. A namespace that was added is removed, unless it is in use by now.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from vethlib.agent.config.mark import Mark, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.names import gained, given_up, in_order_of_names
from vethlib.agent.planning.observed import (
    LinkId,
    NetnsId,
    Observed,
    SeenLink,
    SeenNetns,
    is_of_every_netns,
    is_same_link,
    is_same_netns,
)
from vethlib.agent.planning.operations import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Operation,
    Plan,
    RemoveNetns,
    named,
)
from vethlib.agent.planning.recorded import PairRecord
from vethlib.endfields.table import ALTNAMES
from vethlib.errors import InvalidValue
from vethlib.links import Address, End, describe

from .recreation import creation, without_altnames
from .reversion import differs_from, reverted_addresses, reverted_fields

__all__ = ["Inverse", "inverse"]


@dataclass(frozen=True, slots=True)
class Inverse:
    """A plan that undoes another one, and a description of later changes by others that it leaves alone."""

    plan: Plan
    left: tuple[str, ...]


def inverse(
    done: Sequence[Operation],
    before: Observed,
    after: Observed,
    now: Observed,
    record: PairRecord | None = None,
    *,
    begun: Sequence[Operation] = (),
) -> Inverse:
    """Return the plan that undoes the operations in `done`, and as much as was done of those in `begun`.

    `before`, `after` and `now` are the states of the host for which the plan was made, after it was executed, and at
    present. Operations that :func:`irreversible` would have reported are undone as far as possible. `record` has the
    links that were created, so that marks of links outside the home namespace do not matter; without it, ownership is
    decided by marks alone.
    """
    undoing = _Undoing(before, after, now, record)
    for operation in done:
        undoing.undo(operation)
    known = set(map(id, done))
    for operation in begun:
        if id(operation) not in known and undoing.may_be_made(operation):
            known.add(id(operation))
            undoing.undo(operation, is_begun=True)
    return undoing.result()


class _Undoing:
    """The decisions so far."""

    def __init__(self, before: Observed, after: Observed, now: Observed, record: PairRecord | None) -> None:
        self.record = record
        self.before = before
        self.after = after
        self.now = now
        self.deletes: list[DeletePair] = []
        self.made: dict[LinkId, list[ChangeLink]] = {}  # the changes to be undone, with all steps
        self.begun: set[LinkId] = set()  # links of which a change was only begun
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.added: list[AddNetns] = []
        self.left: list[str] = []
        self.deleted: set[LinkId] = set()  # both ends of deleted pairs
        self.keeps_name: set[LinkId] = set()  # links whose former name is taken

    def may_be_made(self, operation: Operation) -> bool:
        """Return whether there may be something to undo of an operation whose result is not known."""
        match operation:
            case CreatePair():
                recorded = any(self._recorded(operation))
                return any(
                    seen is not None and (recorded or seen.link.alias == end.alias) and not _exists(seen, self.before)
                    for end, seen in zip((operation.veth.a, operation.veth.b), self._created(operation), strict=True)
                )
            case DeletePair():
                was = self.before.by_index.get((operation.place, operation.index))
                return was is None or not _exists(was, self.now)
        return True

    def undo(self, operation: Operation, *, is_begun: bool = False) -> None:
        match operation:
            case CreatePair():
                self._undo_create(operation)
            case ChangeLink():
                self.made.setdefault((operation.place, operation.index), []).append(operation)
                if is_begun:
                    self.begun.add((operation.place, operation.index))
            case DeletePair():
                self._undo_delete(operation)
            case AddNetns():
                self.added.append(operation)

    def result(self) -> Inverse:
        for made in self.made.values():
            self._undo_change(made)
        deleted = [end for each in self.deletes for end in self.now.ends(self.now.by_index[each.place, each.index])]
        self.deleted = {end.id for end in deleted}
        # The names that are given up before others get them.
        free = {(end.place, name) for end in deleted for name in (end.link.name, *end.link.altnames)}
        changes: list[ChangeLink] = []
        for each in in_order_of_names(self.changes):
            if (change := self._with_free_names(each, free)) is not None:
                changes.append(change)
                free.update((change.place, name) for name in given_up(change))
        creates = [possible for each in self.creates if (possible := self._creatable(each, free)) is not None]
        removals = [removal for each in self.added if (removal := self._removal(each)) is not None]
        return Inverse(Plan((*self.deletes, *changes, *creates, *removals), {}), tuple(self.left))

    def _with_free_names(self, change: ChangeLink, free: Set[tuple[NetnsId, str]]) -> ChangeLink | None:
        """Return the change without the names that are taken by now; None if nothing remains.

        The names in `free` have been given up by then.
        """
        link = change.place, change.index
        if link in self.keeps_name and "name" not in change.changes:
            change = replace(change, name=self.now.by_index[link].link.name)
        taken = {name for name in gained(change) if self._is_taken_name(change.place, name, free)}
        if not taken:
            return change
        changes = dict(change.changes)
        now, old = changes.get("name", ("", ""))
        if old in taken:
            itself = self.now.by_name[change.place, old].id == link
            why = f"{old!r} is an alternative name of it now" if itself else f"another link is called {old!r} now"
            self.left.append(f"{describe(now, change.ref)} keeps its name: {why}")
            self.keeps_name.add(link)
            del changes["name"]
        if ALTNAMES in changes:
            present, altnames = changes.pop(ALTNAMES)
            for name in taken.intersection(altnames):
                where = describe(change.name, change.ref)
                self.left.append(f"{where} does not get its alternative name {name!r} back: another link has it now")
            rest = tuple(name for name in altnames if name not in taken and (name != now or "name" in changes))
            if rest != present:
                changes[ALTNAMES] = present, rest
        change = replace(change, changes=changes)
        return None if change.is_empty else change

    def _is_taken_name(self, place: NetnsId, name: str, free: Set[tuple[NetnsId, str]]) -> bool:
        return (place, name) in self.now.by_name and (place, name) not in free

    def _creatable(self, create: CreatePair, free: Set[tuple[NetnsId, str]]) -> CreatePair | None:
        """Return the creation without alternative names that are taken by now; None if a kernel name is."""
        ends: tuple[tuple[Literal["a", "b"], End], ...] = (("a", create.veth.a), ("b", create.veth.b))
        for which, end in ends:
            place = self.now.netns[str(end.netns)].place
            if place is None:
                continue
            if self._is_taken_name(place, end.name, free):
                self.left.append(f"{create.veth} stays deleted: another link is called {end.name!r} now")
                return None
            taken = [name for name in end.altnames if self._is_taken_name(place, name, free)]
            for name in taken:
                self.left.append(f"{end} is created without its alternative name {name!r}: another link has it now")
            if taken:
                create = without_altnames(create, which, taken)
        return create

    def _undo_create(self, create: CreatePair) -> None:
        ends = []
        marks: dict[LinkId, Mark] = {}
        for interface, end, created in zip(
            (create.a, create.b), (create.veth.a, create.veth.b), self._created(create), strict=True
        ):
            mark = read_alias(end.alias or "")
            seen = None if created is None else self._still(created, mark)
            if created is None or seen is None:
                continue  # it was moved; if it was deleted, both ends are
            if mark is not None:
                marks[seen.id] = mark
            if self._alias_decides(seen) and seen.link.alias != (end.alias or ""):
                where = describe(seen.link.name, interface.namespace.ref)
                self.left.append(f"{where} is not deleted: another program has set its alias to {seen.link.alias!r}")
                return
            ends.append((interface, created, seen))
        if not ends:
            self.left.append(f"{create.veth} is not deleted: neither end is where it was created")
            return
        ends.sort(key=lambda end: end[2].place != self.now.home)  # first the end that no tenant can move
        for interface, created, seen in ends:
            where = describe(seen.link.name, interface.namespace.ref)
            known = {address.identity for address in created.addresses}
            new = [each for each in seen.addresses if each.identity not in known and not each.comes_again]
            if new:
                addresses = ", ".join(map(str, new))
                self.left.append(f"{where} is deleted, with {addresses}, which another program has added since")
        interface, _, seen = ends[0]
        ref = interface.namespace.ref
        index, name = seen.link.index, seen.link.name
        self.deletes.append(
            DeletePair(ref, seen.place, index, name, interface.name, "tried", marks=tuple(marks.items()), seen=seen)
        )

    def _still(self, was: SeenLink, mark: Mark | None) -> SeenLink | None:
        """Return a link as it is now; None if it no longer exists, even if another link has its place.

        Where a changed alias is reported (see `_is_taken`), a link with another alias still counts as the same link.
        """
        now = self.now.by_index.get(was.id)
        if now is None or not is_same_netns(was.place, was.cookie, now.place, now.cookie):
            return None
        return now if self._alias_decides(now) or is_same_link(was, mark, now.link, now.place, now.cookie) else None

    def _created(self, create: CreatePair) -> list[SeenLink | None]:
        """Return the ends of a pair as they were after it was created."""
        recorded = self._recorded(create)
        if any(recorded):
            return recorded
        ends = ((create.a, create.veth.a), (create.b, create.veth.b))
        return [self._named(interface, end.alias) for interface, end in ends]

    def _recorded(self, create: CreatePair) -> list[SeenLink | None]:
        """Return the recorded ends of a created pair, as far as they were observed after that.

        A pair with both ends in the home namespace is not recorded: what the record has is one that was deleted.
        """
        interfaces = create.a, create.b
        if self.record is None or all(self._place_after(interface) == self.after.home for interface in interfaces):
            return []
        # The pair that was recorded last: the record may still have deleted ones.
        for pair in reversed(list(self.record.of(create.a.name))):
            if pair.names == set(create.interfaces):
                by_name = {end.name: self.after.by_index.get(end.id) for end in pair.ends}
                return [by_name[name] for name in create.interfaces]
        return []

    def _named(self, interface: Interface, alias: str | None) -> SeenLink | None:
        """Return the link with the name of an interface after the plan was executed; None if it is another link."""
        place = self._place_after(interface)
        seen = None if place is None else self.after.by_name.get((place, interface.kernel_name))
        if seen is None or self._alias_decides(seen):
            return seen  # another alias is reported
        return seen if seen.link.alias == alias else None

    def _place_after(self, interface: Interface) -> NetnsId | None:
        netns = self.after.netns.get(interface.namespace.ref)
        return None if netns is None else netns.place

    def _alias_decides(self, seen: SeenLink) -> bool:
        """Return whether an alias proves who owns a link: no tenant can set it, or nothing else is known."""
        return self.record is None or seen.place == self.now.home

    def _is_taken(self, after: SeenLink, now: SeenLink) -> bool:
        """Return whether another program has taken a link over: its alias has changed where no tenant can set it."""
        return self._alias_decides(now) and now.link.alias != after.link.alias

    def _undo_delete(self, delete: DeletePair) -> None:
        ends = self.before.ends(self.before.by_index.get((delete.place, delete.index)))
        where = describe(delete.name, delete.ref)
        if len(ends) < 2:
            self.left.append(f"{where} stays deleted: its other end was not observed")
            return
        for end in ends:
            netns = self.now.netns.get(end.ref)
            if netns is None or not self._is_same(end, netns):
                self.left.append(f"{where} stays deleted: {end.ref} no longer exists, or leads to another namespace")
                return
        try:
            self.creates.append(creation(ends[0], ends[1], delete))
        except InvalidValue as error:
            self.left.append(f"{where} stays deleted: {error}")

    def _undo_change(self, made: Sequence[ChangeLink]) -> None:
        """Undo the steps of the change of one link together."""
        change = made[0]
        before = self.before.by_index[change.place, change.index]
        after = self.after.by_index.get(before.id)
        present = None if after is None else self._still(after, change.mark)
        where = describe(change.name, change.ref)
        if after is None or present is None:
            self.left.append(f"{where} no longer exists: another program has deleted it")
            return
        if self._is_taken(after, present):
            self.left.append(
                f"{where} is not changed back: another program has set its alias to {present.link.alias!r}"
            )
            return
        fields, stay = reverted_fields(made, before, present, is_begun=before.id in self.begun)
        self.left += [f"{where}: {each}" for each in stay]
        target = reverted_addresses(made, before.addresses, after.addresses, present.addresses)
        now = [address for address in present.addresses if not address.comes_again]
        # Setting a link down, having no IPv6, renaming, and joining a VRF change addresses as a side effect. Neighbours
        # that another MAC costs other programs are restored along with addresses.
        side_effects = fields.keys() & {"up", "mtu", "name", "ipv6", "master", "mac"}
        same = len(now) == len(target) and all(map(Address.same, now, target))
        restored = None if same and not side_effects else target
        if not fields and restored is None:
            return
        present_ids, target_ids = ({each.identity: each for each in addresses} for addresses in (now, target))
        self.changes.append(
            ChangeLink(
                change.interface,
                change.ref,
                change.place,
                change.index,
                present.link.name,
                fields,
                added=tuple(named(each) for each in target if differs_from(each, present_ids)),
                removed=tuple(named(each) for each in now if differs_from(each, target_ids)),
                restored=restored,
                seen=present,
                mark=change.mark,
            )
        )

    def _is_same(self, end: SeenLink, netns: SeenNetns) -> bool:
        cookies = self.now.cookies
        return is_same_netns(end.place, end.cookie, netns.place, cookies.get(end.place, 0))

    def _removal(self, add: AddNetns) -> RemoveNetns | None:
        added, present = self.after.netns.get(add.ref), self.now.netns.get(add.ref)
        place = None if added is None else added.place
        if place is None or isinstance(place, str) or present is None:
            return None
        cookie = self.after.cookies.get(place, 0)
        if not is_same_netns(place, cookie, present.place, self.now.cookies.get(place, 0)):
            return None  # it no longer exists, and a new one with its name is foreign
        others = [
            seen
            for seen in self.now.links
            if seen.place == place and seen.id not in self.deleted and not is_of_every_netns(seen.link)
        ]
        if others:
            inside = ", ".join(sorted(repr(seen.link.name) for seen in others))
            self.left.append(f"{add.ref} is not removed: {inside} {'is' if len(others) == 1 else 'are'} in it")
            return None
        return RemoveNetns(add.name, place, cookie)


def _exists(seen: SeenLink, observed: Observed) -> bool:
    """Return whether a link that was seen in one observation was there in another one, too."""
    other = observed.by_index.get(seen.id)
    return other is not None and is_same_link(seen, None, other.link, other.place, other.cookie)
