"""The plan that undoes a plan: what of it can be undone, and how, whatever others did meanwhile. Pure: no I/O.

For whoever wants to try a configuration and to have the host back as it was:

    before = observe(session, refs)
    wanted = plan(interfaces, before, label=label, prune=True)
    at_stake = links_at_stake(wanted, before)
    borne = session.borne([(one.ref, one.link.index) for one in at_stake])
    if not irreversible(wanted, before, {one.id: it for one, it in zip(at_stake, borne)}):
        done = execute(session, wanted).done
        refs += [one.ref for one in at_stake]
        after = observe(session, refs)
        ...                                      # is it good?
        undo = inverse(done, before, after, observe(session, refs))
        execute(session, undo.plan)

`refs` are the namespaces of the interfaces, and for the last two looks those of :func:`links_at_stake` as well.

1. What was created is deleted, and what was changed is changed back, with addresses in their old order and with their
   old labels, flags and owners.
2. A pair that was deleted is created as it was, its MACs included; its ifindexes are new and its counters begin at 0.
   What others had put on it would be lost: such a plan is irreversible.
3. A field that somebody has changed since is theirs, and stays; so do addresses that others gave or took since, and a
   link whose alias is another. Each is told.
4. A namespace that was added is removed, unless somebody uses it by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from vethlib import links
from vethlib.errors import InvalidValue
from vethlib.links import Address, Borne, End, Veth, describe

from .mark import ADDRESS_PROTO, Mark, read_alias
from .model import IPV6_MIN_MTU, Interface, Namespace, NamespaceType
from .observed import LinkId, Observed, SeenLink
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan, RemoveNetns

__all__ = ["Inverse", "Irreversible", "ends_of", "inverse", "irreversible", "links_at_stake"]

_NOTHING = Borne()


@dataclass(frozen=True, slots=True)
class Irreversible:
    """An operation that cannot be undone, and why."""

    operation: Operation
    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class Inverse:
    """The plan that undoes, and in words what it leaves as others have made it since."""

    plan: Plan
    left: tuple[str, ...]


def links_at_stake(plan: Plan, before: Observed) -> list[SeenLink]:
    """The links of which :func:`irreversible` has to know what they bear: those that are changed or deleted."""
    found: dict[LinkId, SeenLink] = {}
    for operation in plan.operations:
        if isinstance(operation, ChangeLink | DeletePair):
            seen = before.by_index.get((operation.place, operation.index))
            ends = ends_of(before, seen) if isinstance(operation, DeletePair) else [seen]
            found.update((end.id, end) for end in ends if end is not None)
    return list(found.values())


def irreversible(plan: Plan, before: Observed, borne: Mapping[LinkId, Borne]) -> tuple[Irreversible, ...]:
    """The operations of `plan` that nothing brings back, each with the reason; none if the plan can be undone.

    `borne` is what the :func:`links_at_stake` bear; one that is not there bears nothing.
    """
    found: list[Irreversible] = []
    for operation in plan.operations:
        if isinstance(operation, ChangeLink):
            seen = before.by_index[operation.place, operation.index]
            whys = list(_lost_by_change(operation, seen, borne.get(seen.id, _NOTHING)))
        elif isinstance(operation, DeletePair):
            whys = list(_lost_by_deletion(operation, before, borne))
        else:
            continue
        found += [Irreversible(operation, why) for why in whys]
    return tuple(found)


def _lost_by_change(change: ChangeLink, seen: SeenLink, borne: Borne) -> Iterator[str]:
    where = describe(seen.link.name, seen.ref)
    new = {name: value for name, (_, value) in change.changes.items()}
    down = new.get("up") is False
    too_small = new.get("mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU <= seen.link.mtu
    labels = "name" in new and sum(one.interface.version == 4 for one in seen.addresses) > 1
    what = [
        text
        for text, holds in (
            ("taking it down", down),
            (f"an MTU below {IPV6_MIN_MTU}", too_small),
            ("taking addresses away", bool(change.removed)),
            ("renaming it", labels),
        )
        if holds
    ]
    if what and borne.routes:
        yield f"{where}: {_and(what)} loses {_counted(borne.routes, 'route')} that others gave it"
    if borne.neighbours and (down or "mac" in new):
        verb = "taking it down" if down else "another MAC"
        yield f"{where}: {verb} loses {_counted(borne.neighbours, 'permanent neighbour')} that others gave it"
    if borne.stacked and new.keys() & {"up", "mac", "mtu"}:
        yield f"{where}: {', '.join(borne.stacked)} on top of it would not come back as it is"
    if borne.ipv6_off and any(one.version == 6 for one in change.added):
        yield f"{where}: IPv6 is switched off on it, and its IPv6 address would switch it on"
    for address in seen.addresses:
        gone = address.interface in change.removed or (down and address.interface.version == 6)
        if gone and not address.permanent and not address.by_kernel:
            yield f"{where}: its address {address.interface} expires, and would not come back with the time it has left"


def _lost_by_deletion(delete: DeletePair, before: Observed, borne: Mapping[LinkId, Borne]) -> Iterator[str]:
    ends = ends_of(before, before.by_index.get((delete.place, delete.index)))
    where = describe(delete.name, delete.ref)
    if len(ends) < 2:
        yield f"{where}: its pair is deleted, and nobody knows what its other end was like"
        return
    try:
        _creation(ends[0], ends[1])
    except InvalidValue as error:
        yield f"{where}: its pair is deleted, and could not be made again: {error}"
    for end in ends:
        lost = list(_not_ours(end, borne.get(end.id, _NOTHING)))
        if lost:
            yield f"{describe(end.link.name, end.ref)}: it is deleted ({delete.why}), and with it {_and(lost)}"


def _not_ours(end: SeenLink, borne: Borne) -> Iterator[str]:
    """What goes with a link and does not come back when it is created again."""
    for address in end.addresses:
        if not address.by_kernel and not (address.proto == ADDRESS_PROTO and address.is_plain(end.link.name)):
            yield f"the address {address.interface} of others"
    if borne.routes:
        yield f"{_counted(borne.routes, 'route')} of others"
    if borne.neighbours:
        yield _counted(borne.neighbours, "permanent neighbour")
    yield from (f"{name} on top of it" for name in borne.stacked)
    yield from borne.fixed


def ends_of(observed: Observed, seen: SeenLink | None) -> list[SeenLink]:
    """Both ends of a pair by one of them, or what is known of it."""
    if seen is None:
        return []
    other = observed.by_index.get(seen.peer) if seen.peer is not None else None
    if other is None:
        other = next((one for one in observed.links if one.peer == seen.id), None)
    return [seen] if other is None else [seen, other]


def inverse(done: Sequence[Operation], before: Observed, after: Observed, now: Observed) -> Inverse:
    """The plan that undoes what was `done`.

    `before` is the host as the plan was made for, `after` as it was when that was done, and `now` as it is. What
    :func:`irreversible` would have refused is undone as far as that goes.
    """
    undoing = _Undoing(before, after, now)
    for operation in done:
        undoing.undo(operation)
    return undoing.result()


class _Undoing:
    """What is decided so far."""

    def __init__(self, before: Observed, after: Observed, now: Observed) -> None:
        self.before = before
        self.after = after
        self.now = now
        self.deletes: list[DeletePair] = []
        self.changes: list[ChangeLink] = []
        self.creates: list[CreatePair] = []
        self.added: list[AddNetns] = []
        self.left: list[str] = []
        self.going: set[LinkId] = set()  # both ends of what is deleted

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
        self.going = {
            end.id for one in self.deletes for end in ends_of(self.now, self.now.by_index[one.place, one.index])
        }
        self.changes = [change for one in self.changes if (change := self._with_free_name(one)) is not None]
        freed = self.going | {(one.place, one.index) for one in self.changes if "name" in one.changes}
        creates = [one for one in self.creates if self._has_free_names(one, freed)]
        removals = [removal for one in self.added if (removal := self._removal(one)) is not None]
        return Inverse(Plan((*self.deletes, *self.changes, *creates, *removals), {}), tuple(self.left))

    def _with_free_name(self, change: ChangeLink) -> ChangeLink | None:
        """The change without the name where somebody else has that by now; None if nothing remains."""
        if "name" not in change.changes:
            return change
        now, old = change.changes["name"]
        holder = self.now.by_name.get((change.place, old))
        if holder is None or holder.id in self.going:
            return change
        self.left.append(f"{describe(now, change.ref)} keeps its name: {old!r} is another link now")
        changes = {name: values for name, values in change.changes.items() if name != "name"}
        return replace(change, changes=changes) if changes or change.restored is not None else None

    def _has_free_names(self, create: CreatePair, freed: Set[LinkId]) -> bool:
        for end in (create.veth.a, create.veth.b):
            place = self.now.netns[str(end.netns)].place
            holder = None if place is None else self.now.by_name.get((place, end.name))
            if holder is not None and holder.id not in freed:
                self.left.append(f"{create.veth} stays deleted: {end.name!r} is another link now")
                return False
        return True

    def _undo_create(self, create: CreatePair) -> None:
        ends = []
        for interface in (create.a, create.b):
            netns = self.after.netns.get(interface.namespace.ref)
            place = netns.place if netns is not None else None
            made = None if place is None else self.after.by_name.get((place, interface.kernel_name))
            there = None if made is None else self.now.by_index.get(made.id)
            if made is None or there is None:
                return  # somebody has deleted it
            if there.link.alias != made.link.alias:
                where = describe(there.link.name, interface.namespace.ref)
                self.left.append(f"{where} stays: somebody else has it now, for its alias is {there.link.alias!r}")
                return
            ends.append((interface, made, there))
        for interface, made, there in ends:
            where = describe(there.link.name, interface.namespace.ref)
            known = {one.interface for one in made.addresses}
            new = [one for one in there.addresses if one.interface not in known and not one.by_kernel]
            if new:
                what = ", ".join(str(one.interface) for one in new)
                self.left.append(f"{where} goes, and {what}, which others gave it meanwhile, with it")
        interface, _, there = ends[0]
        ref = interface.namespace.ref
        self.deletes.append(DeletePair(ref, there.place, there.link.index, there.link.name, interface.name, "tried"))

    def _undo_delete(self, delete: DeletePair) -> None:
        ends = ends_of(self.before, self.before.by_index.get((delete.place, delete.index)))
        where = describe(delete.name, delete.ref)
        if len(ends) < 2:
            self.left.append(f"{where} stays deleted: nobody knows what its other end was like")
            return
        for end in ends:
            netns = self.now.netns.get(end.ref)
            if netns is None or netns.place != end.place:
                self.left.append(f"{where} stays deleted: {end.ref} is gone, or is another namespace now")
                return
        try:
            self.creates.append(_creation(ends[0], ends[1]))
        except InvalidValue as error:
            self.left.append(f"{where} stays deleted: {error}")

    def _undo_change(self, change: ChangeLink) -> None:
        before = self.before.by_index[change.place, change.index]
        after = self.after.by_index.get(before.id)
        there = self.now.by_index.get(before.id)
        where = describe(change.name, change.ref)
        if after is None or there is None:
            self.left.append(f"{where} is gone: somebody has deleted it")
            return
        if there.link.alias != after.link.alias:
            self.left.append(f"{where} stays as it is: somebody else has it now, for its alias is {there.link.alias!r}")
            return
        fields = {}
        for name, (old, new) in change.changes.items():
            value = getattr(there.link, name)
            if value == new:
                fields[name] = (value, old)
            elif value != old:
                self.left.append(f"{where}: {name} stays {value}, as somebody has set it meanwhile")
        target = _merged(change, before.addresses, after.addresses, there.addresses)
        now = [one for one in there.addresses if not one.by_kernel]
        # Going down, an MTU below IPv6's, and another name change addresses by the way.
        by_the_way = fields.keys() & {"up", "mtu", "name"}
        same = len(now) == len(target) and all(map(Address.same, now, target))
        restored = None if same and not by_the_way else target
        if not fields and restored is None:
            return
        is_there, is_wanted = {one.interface for one in now}, {one.interface for one in target}
        self.changes.append(
            ChangeLink(
                change.interface,
                change.ref,
                change.place,
                change.index,
                there.link.name,
                fields,
                added=tuple(one.interface for one in target if one.interface not in is_there),
                removed=tuple(one.interface for one in now if one.interface not in is_wanted),
                restored=restored,
            )
        )

    def _removal(self, add: AddNetns) -> RemoveNetns | None:
        added, there = self.after.netns.get(add.ref), self.now.netns.get(add.ref)
        place = None if added is None else added.place
        if place is None or isinstance(place, str) or there is None or there.place != place:
            return None  # it is gone already, and another one of its name is another's
        others = [
            one for one in self.now.links if one.place == place and one.id not in self.going and one.link.name != "lo"
        ]
        if others:
            inside = ", ".join(sorted(repr(one.link.name) for one in others))
            self.left.append(f"{add.ref} stays: {inside} {'is' if len(others) == 1 else 'are'} in it")
            return None
        return RemoveNetns(add.name, place)


def _merged(
    change: ChangeLink, before: Iterable[Address], after: Iterable[Address], now: Iterable[Address]
) -> tuple[Address, ...]:
    """The addresses before, with what others have done since the change to those after it; see the rule 3 above."""
    was = {one.interface: one for one in before if not one.by_kernel}
    became = {one.interface: one for one in after}
    is_now = {one.interface: one for one in now if not one.by_kernel}
    target: list[Address] = []
    for interface, one in was.items():
        there, then = is_now.get(interface), became.get(interface)
        if there is None and then is not None:
            continue  # others have taken it
        theirs = there is not None and then is not None and not there.same(then)
        target.append(there if theirs and there is not None else one)
    for interface, one in is_now.items():
        ours = interface in change.added and one.proto == ADDRESS_PROTO
        if interface not in was and not ours:
            target.append(one)
    return tuple(target)


def _creation(a: SeenLink, b: SeenLink) -> CreatePair:
    """What makes a pair as these two ends were. Raises InvalidValue where their marks do not say whose they are."""
    marks = []
    for end in (a, b):
        mark = read_alias(end.link.alias)
        if mark is None:
            raise InvalidValue("alias", end.link.alias, f"{describe(end.link.name, end.ref)} bears no mark of its own")
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
    )


def _addresses(seen: SeenLink) -> tuple[links.Interface, ...]:
    """Those that are ours, in the order in which to give them: the kernel puts a new IPv6 one before the others."""
    ours = [one.interface for one in seen.addresses if one.proto == ADDRESS_PROTO]
    four = [one for one in ours if one.version == 4]
    return *four, *reversed([one for one in ours if one.version == 6])


def _interface(seen: SeenLink, mark: Mark, peer: Mark, end: End) -> Interface:
    return Interface(
        mark.name,
        peer.name,
        enabled=end.up,
        phys_address=seen.link.mac if mark.mac else "",
        mtu=seen.link.mtu,
        ip_addresses=tuple(map(str, end.interfaces)),
        namespace=_namespace(seen.ref),
        host_if_name=seen.link.name,
        num_queues=seen.link.num_queues,
    )


def _namespace(ref: str) -> Namespace:
    kind, _, value = ref.partition(":")
    match kind:
        case "netns":
            return Namespace(NamespaceType.NAMED_NS, name=value)
        case "pid":
            return Namespace(NamespaceType.PID_REF_NS, pid=int(value))
        case "path":
            return Namespace(NamespaceType.FILE_REF_NS, filepath=value)
        case "microservice":
            return Namespace(NamespaceType.MICROSERVICE_REF_NS, microservice=value)
    return Namespace()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
