"""The plan that undoes a plan, whatever other programs have changed in the meantime. Pure: no I/O.

To try a configuration, and to restore the host afterwards:

    before = observe(session, refs, interfaces=interfaces.values())
    planned = plan(interfaces, before, label=label, prune=True)
    at_stake = links_at_stake(planned, before)
    dependents = session.dependents([(seen.ref, seen.link.index) for seen in at_stake])
    if not irreversible(planned, before, {seen.id: each for seen, each in zip(at_stake, dependents)}):
        done = execute(session, planned).done
        refs += [seen.ref for seen in at_stake]
        after = observe(session, refs, interfaces=interfaces.values())
        ...                                      # is it good?
        undo = inverse(done, before, after, observe(session, refs, interfaces=interfaces.values()))
        execute(session, undo.plan)

`refs` are the namespaces of the interfaces, and for the last two looks those of :func:`links_at_stake` as well.

1. Created pairs are deleted, and changed links are changed back, with addresses in their old order and with their old
   labels, flags and owners.
2. A pair that was deleted is created as it was, including its MACs; its ifindexes are new and its counters begin at 0.
   Everything that other programs had added to it would be lost: such a plan is irreversible.
3. A field that another program has changed since is left alone, and so are addresses that others have added or removed
   since, and a link whose alias has changed. Each is reported.
4. A namespace that was added is removed, unless it is in use by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from vethlib import links
from vethlib.addresses import Identity
from vethlib.agent.config.mark import ADDRESS_PROTO, Mark, read_alias
from vethlib.agent.config.model import IPV6_MIN_MTU, Interface
from vethlib.agent.config.namespace import Namespace
from vethlib.endfields.checks import is_master
from vethlib.endfields.newaddress import as_given
from vethlib.endfields.table import ALTNAMES, FIELDS, MASTER
from vethlib.errors import InvalidValue
from vethlib.links import Address, End, Veth, describe

from .observed import LinkId, NetnsId, Observed, SeenLink, SeenNetns, is_same_link, is_same_netns
from .operations import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Operation,
    Plan,
    RemoveNetns,
    listed_identity,
    named,
)
from .order import in_order
from .recorded import PairRecord

__all__ = ["Inverse", "creation", "inverse"]


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
) -> Inverse:
    """Return the plan that undoes the operations in `done`.

    `before`, `after` and `now` are the states of the host for which the plan was made, after it was executed, and at
    present. Operations that :func:`irreversible` would have reported are undone as far as possible. `record` has the
    links that were created, so that marks of links outside the home namespace do not matter; without it, ownership is
    decided by marks alone.
    """
    undoing = _Undoing(before, after, now, record)
    for operation in done:
        undoing.undo(operation)
    return undoing.result()


class _Undoing:
    """The decisions so far."""

    def __init__(self, before: Observed, after: Observed, now: Observed, record: PairRecord | None) -> None:
        self.record = record
        self.before = before
        self.after = after
        self.now = now
        self.deletes: list[DeletePair] = []
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.added: list[AddNetns] = []
        self.left: list[str] = []
        self.deleted: set[LinkId] = set()  # both ends of deleted pairs

    def undo(self, operation: Operation) -> None:
        match operation:
            case CreatePair():
                self._undo_create(operation)
            case ChangeLink():
                self._undo_change(operation)
            case DeletePair():
                self._undo_delete(operation)
            case AddNetns():
                self.added.append(operation)

    def result(self) -> Inverse:
        self.deleted = {
            end.id for each in self.deletes for end in self.now.ends(self.now.by_index[each.place, each.index])
        }
        freed = set(self.deleted)  # links that give up their names before others get them
        changes: list[ChangeLink] = []
        for each in in_order({(each.place, each.index): each for each in self.changes}, self._holder):
            if (change := self._with_free_name(each, freed)) is not None:
                changes.append(change)
                if "name" in change.changes:
                    freed.add((change.place, change.index))
        creates = [create for create in self.creates if self._has_free_names(create, freed)]
        removals = [removal for each in self.added if (removal := self._removal(each)) is not None]
        return Inverse(Plan((*self.deletes, *changes, *creates, *removals), {}), tuple(self.left))

    def _holder(self, change: ChangeLink) -> list[LinkId]:
        """Return the link that has the name which a change restores."""
        holder = self.now.by_name.get((change.place, change.changes["name"][1])) if "name" in change.changes else None
        return [] if holder is None else [holder.id]

    def _with_free_name(self, change: ChangeLink, freed: Set[LinkId]) -> ChangeLink | None:
        """Return the change without the name if that name is taken by now; None if nothing remains.

        The links in `freed` have given up their kernel names by then, or are deleted.
        """
        if "name" not in change.changes:
            return change
        now, old = change.changes["name"]
        holder = self.now.by_name.get((change.place, old))
        if holder is None or holder.id in self.deleted or (holder.id in freed and holder.link.name == old):
            return change
        why = f"another link is called {old!r} now"
        if holder.id == (change.place, change.index):
            _, altnames = change.changes.get(ALTNAMES, ((), holder.link.altnames))
            if old not in altnames:
                return change
            why = f"{old!r} is an alternative name of it now"
        self.left.append(f"{describe(now, change.ref)} keeps its name: {why}")
        changes = {name: values for name, values in change.changes.items() if name != "name"}
        return replace(change, changes=changes) if changes or change.restored is not None else None

    def _has_free_names(self, create: CreatePair, freed: Set[LinkId]) -> bool:
        for end in (create.veth.a, create.veth.b):
            place = self.now.netns[str(end.netns)].place
            holder = None if place is None else self.now.by_name.get((place, end.name))
            if holder is not None and holder.id not in freed:
                self.left.append(f"{create.veth} stays deleted: another link is called {end.name!r} now")
                return False
        return True

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
            new = [each for each in seen.addresses if each.identity not in known and not each.by_kernel]
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
        """Return a link as it is now; None if it does not exist any more, whatever else has its place by now.

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
                self.left.append(
                    f"{where} stays deleted: {end.ref} does not exist any more, or leads to another namespace"
                )
                return
        try:
            self.creates.append(creation(ends[0], ends[1], delete))
        except InvalidValue as error:
            self.left.append(f"{where} stays deleted: {error}")

    def _undo_change(self, change: ChangeLink) -> None:
        before = self.before.by_index[change.place, change.index]
        after = self.after.by_index.get(before.id)
        present = None if after is None else self._still(after, change.mark)
        where = describe(change.name, change.ref)
        if after is None or present is None:
            self.left.append(f"{where} does not exist any more: another program has deleted it")
            return
        if self._is_taken(after, present):
            self.left.append(
                f"{where} is not changed back: another program has set its alias to {present.link.alias!r}"
            )
            return
        fields = {}
        for name, (old, new) in change.changes.items():
            value = present.value_of(name)
            if value is None and name in FIELDS and new == FIELDS[name].none:
                value = new  # it was not read, because its mark says that there is nothing to be read
            if old is not None and _is_same_value(name, value, new):
                fields[name] = (value, old)
            elif not _is_same_value(name, value, old):
                self.left.append(f"{where}: {name} stays {value}, because another program has set it since")
        if "mtu" in fields and present.link.mtu < IPV6_MIN_MTU <= before.link.mtu:
            fields["ipv6"] = (False, before.link.ipv6)  # with the larger MTU, it would be as for a new link
        target = _merged(change, before.addresses, after.addresses, present.addresses)
        now = [address for address in present.addresses if not address.by_kernel]
        # Setting a link down, having no IPv6, renaming, and joining a VRF change addresses as a side effect.
        side_effects = fields.keys() & {"up", "mtu", "name", "ipv6", "master"}
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
                added=tuple(named(each) for each in target if _is_other(each, present_ids)),
                removed=tuple(named(each) for each in now if _is_other(each, target_ids)),
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
            return None  # it does not exist any more, and a new one with its name is foreign
        others = [
            seen
            for seen in self.now.links
            if seen.place == place and seen.id not in self.deleted and seen.link.name != "lo"
        ]
        if others:
            inside = ", ".join(sorted(repr(seen.link.name) for seen in others))
            self.left.append(f"{add.ref} is not removed: {inside} {'is' if len(others) == 1 else 'are'} in it")
            return None
        return RemoveNetns(add.name, place, cookie)


def _is_other(address: Address, among: Mapping[Identity, Address]) -> bool:
    """Return whether an address is not among these, or only with other attributes."""
    other = among.get(address.identity)
    return other is None or not address.same(other)


def _merged(
    change: ChangeLink, before: Iterable[Address], after: Iterable[Address], now: Iterable[Address]
) -> tuple[Address, ...]:
    """Return the addresses before, with later changes by other programs (rule 3)."""
    was = {address.identity: address for address in before if not address.by_kernel}
    became = {address.identity: address for address in after}
    is_now = {address.identity: address for address in now if not address.by_kernel}
    given = set(map(listed_identity, change.added))
    target: list[Address] = []
    for identity, address in was.items():
        present, then = is_now.get(identity), became.get(identity)
        if present is None and then is not None:
            continue  # removed by another program
        changed = present is not None and then is not None and not present.same(then)
        target.append(present if changed and present is not None else address)
    for identity, address in is_now.items():
        owned = identity in given and address.proto == ADDRESS_PROTO
        if identity not in was and not owned:
            target.append(address)
    return tuple(target)


def creation(a: SeenLink, b: SeenLink, delete: DeletePair) -> CreatePair:
    """Return the creation of a pair like these two ends. Raises InvalidValue if their owner is unknown."""
    marks = []
    for end in (a, b):
        mark = dict(delete.marks).get(end.id) or read_alias(end.link.alias)
        if mark is None:
            raise InvalidValue("alias", end.link.alias, f"{describe(end.link.name, end.ref)} has no owner mark")
        marks.append(mark)
    ends = _end(a), _end(b)
    return CreatePair(
        _interface(a, marks[0], marks[1], ends[0]), _interface(b, marks[1], marks[0], ends[1]), Veth(*ends)
    )


def _end(seen: SeenLink) -> End:
    link = seen.link
    return End(
        link.name,
        seen.ref,
        mac=link.mac,
        mtu=link.mtu,
        addresses=_addresses(seen),
        up=link.up,
        num_queues=link.num_queues or None,
        alias=link.alias,
        group=link.group,
        address_proto=ADDRESS_PROTO,
        ipv6=link.ipv6,
        **{"altnames": link.altnames, **seen.further},
    )


def _addresses(seen: SeenLink) -> tuple[links.Interface, ...]:
    """Return the addresses that the agent has added, in order."""
    return tuple(as_given(each, seen.link.name) for each in seen.addresses if each.proto == ADDRESS_PROTO)


def _interface(seen: SeenLink, mark: Mark, peer: Mark, end: End) -> Interface:
    return Interface(
        mark.name,
        peer.name,
        enabled=end.up,
        phys_address=seen.link.mac if mark.mac else "",
        mtu=seen.link.mtu,
        ip_addresses=tuple(map(str, end.interfaces)),
        namespace=Namespace.at(seen.ref),
        host_if_name=seen.link.name,
        num_queues=seen.link.num_queues,
        ipv6=end.ipv6,
        **end.further,
    )


def _is_same_value(name: str, one: object, other: object) -> bool:
    """Return whether two values of a field mean the same: alternative names have the order in which they were added.

    A master may be meant by an alternative name.
    """
    if name == ALTNAMES and isinstance(one, tuple) and isinstance(other, tuple):
        return set(one) == set(other)
    if name == MASTER and isinstance(one, str) and isinstance(other, str):
        return is_master(one, other) or is_master(other, one)
    return one == other
