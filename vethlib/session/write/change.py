"""Changing one link: completely, or not at all.

Each field is a message of its own, so that a refusal names its field, and comes with the messages that undo it. If one
is refused, those that succeeded are undone, last first; then addresses are restored as they were read
(:mod:`.restore`). The kernel goes on after a message that it refuses, so they are sent in up to three datagrams: those
that can be undone without a trace, then the name, then those that remove something. Finally the addresses are read, and
missing ones are added (:mod:`.addressing`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from vethlib._nl.batch import LOST, Exchange, Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link, set_link
from vethlib.addresses import Address
from vethlib.endfields.checks import IPV6_MIN_MTU, check_ipv6
from vethlib.endfields.table import FIELDS, MASTER, Step
from vethlib.errors import InvalidValue, LinkExists, NetlinkError, VethError
from vethlib.links import IPInterface, Link, describe
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.settings import write_settings
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.dying import are_dying, holders
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import addresses_of, find, find_known, read_addresses, read_link, to_link
from vethlib.session.read.target import Target, read_body

from .addressing import ROUNDS, Goal, give
from .masters import find_masters, no_master
from .restore import restore_addresses

__all__ = ["Change", "change"]


_MAY_BE_MADE: Final = (0, LOST.errno)
"""A step that was not made can be undone, too: that changes nothing."""

# The address is present again, or already gone; or the link is gone, with everything.
_AS_GOOD_AS_UNDONE: Final = (0, errno.EEXIST, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENODEV)


class Change(NamedTuple):
    """A requested change of a link; None leaves a field unchanged.

    `fields` has values of ``vethlib.endfields.table.FIELDS``. `addresses` is the whole set in order, except the
    link-local address generated from the MAC; `add` and `remove` are differences, and those of `order` are to be in
    that order.
    """

    new_name: str | None = None
    up: bool | None = None
    fields: Mapping[str, Any] = MappingProxyType({})
    addresses: tuple[IPInterface, ...] | None = None
    add: tuple[IPInterface, ...] = ()
    remove: tuple[IPInterface | Address, ...] = ()
    address_proto: int = 0
    order: tuple[IPInterface, ...] = ()
    ipv6: bool | None = None

    @property
    def has_addresses(self) -> bool:
        """Whether addresses are to be changed."""
        return self.addresses is not None or bool(self.add or self.remove or self.order)

    def touches_addresses(self, before: LinkMessage) -> bool:
        """Return whether the addresses must be read first.

        Setting the link down, also to undo up, drops those of IPv6, and so does a VRF that it joins.
        """
        switched = self.up not in (None, before.up) or self.ipv6 not in (None, before.ipv6)
        early = MASTER in self.fields
        return self.has_addresses or switched or early or self.mtu_after(before) < IPV6_MIN_MTU

    def mtu_after(self, before: LinkMessage) -> int:
        """Return the MTU that the link is to have."""
        mtu: int = self.fields.get("mtu", before.mtu)
        return mtu


def change(namespaces: Namespaces, target: Target, wanted: Change) -> Link:
    """Change a link, and return it as changed. Raises LinkNotFound, LinkExists (a new name is taken), NetlinkError."""
    place = target.place
    before = _found(namespaces, target, wanted)
    if MASTER in wanted.fields:
        wanted = _with_master(namespaces, target, wanted)
    touches = wanted.touches_addresses(before)
    addresses = addresses_of(read_addresses(namespaces, place, before.ifindex)) if touches else []
    goal = _goal(before.ifindex, addresses, wanted) if wanted.has_addresses else None
    _check_mtu(before, addresses, wanted, goal)
    present = _present(namespaces, place, before, wanted)
    late = {name: value for name, value in present.items() if FIELDS[name].late}
    direct = {name: value for name, value in present.items() if FIELDS[name].direct}
    work = _Work(namespaces, target, before, addresses if touches else None, direct, late)
    steps = list(_steps(before, addresses, wanted, goal, present))
    try:
        return _carry_out_or_undo(work, steps, goal, wanted)
    except BaseException as error:
        work.undo(error)
        if isinstance(error, LinkExists):
            error.dying = are_dying(namespaces, holders(namespaces, [(place, wanted.new_name or target.name)]))
        raise


def _with_master(namespaces: Namespaces, target: Target, wanted: Change) -> Change:
    """Return the change with the ifindex of the master. Raises LinkNotFound if there is none of that name."""
    name = wanted.fields[MASTER]
    found = find_masters(namespaces, target.place, [name])[name]
    if isinstance(found, Outcome):
        raise no_master(found, name, target.netns, target.what)
    return wanted._replace(fields={**wanted.fields, MASTER: found})


def _present(namespaces: Namespaces, place: OpenNetns, before: LinkMessage, wanted: Change) -> dict[str, Any]:
    """Return the values that the fields to be changed have now."""
    further = {name: value for name, value in wanted.fields.items() if FIELDS[name].read is None}
    present = read_further(namespaces, place, before, further) if further else {}
    return present | {name: read(before) for name in wanted.fields if (read := FIELDS[name].read) is not None}


def _found(namespaces: Namespaces, target: Target, wanted: Change) -> LinkMessage:
    """Return the link before the change. Raises LinkNotFound if it is not the one that the caller means."""
    # A cache is told neither whether the link has IPv6, nor of every change of an alias.
    ask = find_known if wanted.ipv6 is None and target.only_if is None else find
    before = ask(namespaces, target)
    target.check_ifindex(before.ifindex)
    if target.only_if is not None and not target.only_if(to_link(before, target.netns), target.place.birth):
        says = f"{describe(target.name, target.netns)} is another link by now"
        raise target.refusal(Outcome(errno.ENODEV, "", ()), says=says)
    return before


def _carry_out_or_undo(work: _Work, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change) -> Link:
    # The inner one of two handlers; see undo.py for why there are two, and why there is no loop here.
    try:
        return _carry_out(work, steps, goal, wanted)
    except BaseException:
        work.undo(None)
        raise


def _carry_out(work: _Work, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change) -> Link:
    before = work.before
    name = wanted.new_name or before.name
    # Enabled before addresses are added, but a link has no such setting below the minimum; disabled last, because that
    # removes addresses.
    early = wanted.ipv6 is True and before.mtu >= IPV6_MIN_MTU
    if early:
        work.switch_ipv6(before.name, on=True)
    for number, together in enumerate(steps):
        work.send(together)
        if together and not number:
            work.keep_addresses()
    if wanted.ipv6 is not None and not early:
        work.switch_ipv6(name, on=wanted.ipv6)
    if direct := {field: value for field, value in wanted.fields.items() if FIELDS[field].direct}:
        work.write_settings(name, direct)
    link = read_link(work.namespaces, work.target.renamed(name)) if goal is None else _reach(work, goal, name)
    work.reach_late({field: value for field, value in wanted.fields.items() if FIELDS[field].late})
    if wanted.ipv6 not in (None, link.ipv6):
        refused = Outcome(errno.EBUSY, "", ())
        says = f"another program keeps changing net.ipv6.conf.{name}.disable_ipv6"
        raise refusal(refused, f"{work.target.what} ipv6", work.target.netns, says=says, cls=NetlinkError)
    return link


def _goal(index: int, addresses: Sequence[Address], wanted: Change) -> Goal:
    return Goal.of(
        addresses,
        index,
        wanted.address_proto,
        whole=wanted.addresses,
        add=wanted.add,
        remove=wanted.remove,
        order=wanted.order,
    )


def _steps(
    before: LinkMessage,
    addresses: Sequence[Address],
    wanted: Change,
    goal: Goal | None,
    present: Mapping[str, Any],
) -> Iterator[list[Step]]:
    """Yield the steps of each datagram. `present` are the values of the fields to be changed."""
    index = before.ifindex
    changes = {
        name: list(field.steps(index, present[name], wanted.fields[name]))
        for name, field in FIELDS.items()
        if name in wanted.fields and not field.late
    }
    # Setting the link down drops the IPv6 ones before others are added (addrconf_ifdown).
    stay = [address for address in addresses if address.interface.version == 4 or wanted.up is not False]
    first, last = ([], []) if goal is None else goal.first(stay)
    # Last if it falls, because IPv6 needs 1280 bytes.
    mtu = changes.pop("mtu", [])
    shrinks = wanted.mtu_after(before) < before.mtu
    yield [step for name, several in changes.items() if FIELDS[name].early for step in several]
    steps = [] if shrinks else mtu
    steps += [step for name, several in changes.items() if not FIELDS[name].early for step in several]
    if wanted.up is False:
        steps.append(Step("down", set_link(index, up=False), (set_link(index, up=before.up),)))
    steps += first
    if wanted.up:
        steps.append(Step("up", set_link(index, up=True), () if before.up else (set_link(index, up=False),)))
    yield steps
    yield _rename_steps(before, wanted)
    yield last + mtu if shrinks else last


def _check_mtu(before: LinkMessage, addresses: Sequence[Address], wanted: Change, goal: Goal | None) -> None:
    """Raise InvalidValue if the link would have an IPv6 address and too small an MTU for it.

    The kernel would drop the address silently (addrconf_notify). It generates its own again when it can.
    """
    mtu = wanted.mtu_after(before)
    check_ipv6(wanted.ipv6, (), mtu)
    if wanted.ipv6 is False:
        return
    after = addresses if goal is None else goal.target(addresses)
    if mtu < IPV6_MIN_MTU and any(address.interface.version == 6 and not address.by_kernel for address in after):
        raise InvalidValue("mtu", mtu, "IPv6 needs 1280 bytes: raise the MTU or remove the IPv6 addresses")


def _rename_steps(before: LinkMessage, wanted: Change) -> list[Step]:
    """Return the step for the name, which also changes labels of IPv4 addresses; that cannot be undone."""
    if wanted.new_name is None or wanted.new_name == before.name:
        return []
    index = before.ifindex
    request = set_link(index, name=os.fsencode(wanted.new_name))
    return [Step(f"name {wanted.new_name!r}", request, (set_link(index, name=os.fsencode(before.name)),))]


class _Work:
    """Steps sent for one link, and their undoing; `addresses` are those it had if they may have to be restored."""

    def __init__(
        self,
        namespaces: Namespaces,
        target: Target,
        before: LinkMessage,
        addresses: Sequence[Address] | None,
        direct: Mapping[str, Any] = MappingProxyType({}),
        late: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.namespaces = namespaces
        self.target = target
        self.before = before
        self._addresses = addresses
        self._sent: list[tuple[Sequence[Step], Exchange]] = []
        self._had_ipv6: bool | None = None  # before it was switched
        self._direct = direct  # what is no message and is to be changed, as it was
        self._wrote_settings = False
        self._late = late  # the late fields to be changed, as they were
        self._is_undone = False

    def send(self, steps: Sequence[Step]) -> None:
        """Send one datagram. Raises for the first step that is refused and that no second attempt can save."""
        if not steps:
            return
        for step, outcome in zip(steps, self._send(steps), strict=True):
            if outcome.errno and outcome.errno not in step.fine:
                again = self._second_try(step, outcome)
                if again.errno:
                    raise _refused(step, again, self.target)

    def _send(self, steps: Sequence[Step]) -> list[Outcome]:
        exchange = self.namespaces.begin(self.target.place, [step.request for step in steps])
        self._sent.append((steps, exchange))  # before any of it is done
        self.namespaces.run(self.target.place, exchange)
        return exchange.outcomes

    def _second_try(self, step: Step, outcome: Outcome) -> Outcome:
        """Try again if IPv6 is disabled on the link, or if its name cannot change while it is up."""
        off = step.address is not None and is_disabled(outcome, step.address)
        busy = outcome.errno == errno.EBUSY and step.what.startswith("name ")
        if not off and not busy:
            return outcome
        (now,) = self.namespaces.exchange(self.target.place, [get_link(self.before.ifindex)])
        if now.errno:
            return now
        link = read_body(self.target.place, now, parse_link, f"read {self.before.name!r}")
        if busy:
            return self._rename_while_down(step, link)
        self._had_ipv6 = False
        for error in enable_ipv6(self.target.place, [link.name]).values():
            raise error
        return self._send([step])[0]

    def switch_ipv6(self, name: str, *, on: bool) -> None:
        """Enable or disable IPv6 on the link, which has this name by now."""
        self._had_ipv6 = self.before.ipv6
        for error in switch_ipv6({self.target.place: {name: on}}).values():
            raise error

    def write_settings(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write fields that are no messages; the link has this name by now."""
        self._wrote_settings = True
        for error in write_settings(self.namespaces, {self.target.place: {name: fields}}).values():
            raise error

    def reach_late(self, wanted: Mapping[str, Any]) -> None:
        """Change the late fields, from what the other steps have left of them."""
        present = read_further(self.namespaces, self.target.place, self.before, wanted) if wanted else {}
        for name, value in wanted.items():
            # They are undone by :meth:`_give_late_back`, once the link has its addresses again.
            steps = [step._replace(undo=()) for step in FIELDS[name].steps(self.before.ifindex, present[name], value)]
            self.send(steps)

    def _give_late_back(self) -> None:
        if self._sent and self._late:
            self.reach_late(self._late)

    def keep_addresses(self) -> None:
        """Add the addresses again that the first steps have cost the link."""
        assert self._addresses is not None
        self._restore_addresses(self._addresses)

    def _rename_while_down(self, step: Step, link: LinkMessage) -> Outcome:
        """Rename a link that is up, before Linux 6.3 (dev_change_name)."""
        if not link.up:
            return self._send([step])[0]
        index = link.ifindex
        addresses = addresses_of(read_addresses(self.namespaces, self.target.place, index))
        down, up = Step("down", set_link(index, up=False)), Step("up", set_link(index, up=True))
        lost = [give(address, index) for address in reversed(addresses) if address.interface.version == 6]
        back = [down.request, *step.undo, *(readded.request for readded in lost), up.request]
        return self._send([down, step._replace(undo=tuple(back)), *lost, up])[1]

    def undo(self, cause: BaseException | None) -> None:
        """Undo all steps, last first, and restore the addresses; a second call completes an interrupted first one.

        Failures (as when the link is gone) are noted on `cause`, if it is given.
        """
        if not self._is_undone:
            failures: list[str] = []
            steps = (
                self._take_back,
                self._write_settings_back,
                self._switch_ipv6_back,
                self._give_addresses_back,
                self._give_late_back,
            )
            undo_all((step, lambda error: failures.append(str(error))) for step in steps)
            self._is_undone = not failures
            if cause is not None:
                for failure in failures:
                    note(cause, failure)

    def _take_back(self) -> None:
        done = [
            step
            for steps, exchange in self._sent
            for step, outcome in zip(steps, exchange.outcomes, strict=True)
            if outcome.errno in _MAY_BE_MADE and step.undo
        ]
        undone = [(step, request) for step in reversed(done) for request in step.undo]
        outcomes = self.namespaces.exchange(self.target.place, [request for _, request in undone]) if undone else []
        for (step, _), outcome in zip(undone, outcomes, strict=True):
            if outcome.errno not in _AS_GOOD_AS_UNDONE:
                raise refusal(outcome, f"{self.target.what}: undo {step.what}", self.target.netns)

    def _write_settings_back(self) -> None:
        if self._wrote_settings:
            self.write_settings(self.before.name, self._direct)

    def _switch_ipv6_back(self) -> None:
        if self._had_ipv6 is not None:
            for error in switch_ipv6({self.target.place: {self.before.name: self._had_ipv6}}).values():
                raise error

    def _give_addresses_back(self) -> None:
        if self._addresses is not None and (self._sent or self._had_ipv6 is not None):
            self._restore_addresses(self._addresses)

    def _restore_addresses(self, addresses: Sequence[Address]) -> None:
        request = f"restore the addresses of {describe(self.before.name, self.target.netns)}"
        restore_addresses(self.namespaces, self.target.requesting(request), self.before.ifindex, addresses)


def _reach(work: _Work, goal: Goal, name: str) -> Link:
    """Read the link and send the missing steps until its addresses are as requested; return the link."""
    missing: list[Step] = []
    for _ in range(ROUNDS):
        link = read_link(work.namespaces, work.target.renamed(name))
        missing = goal.unmet(link.ifaddrs)
        if not missing:
            return link
        work.send(missing)
    link = read_link(work.namespaces, work.target.renamed(name))
    if missing := goal.unmet(link.ifaddrs):
        says = "the addresses of the link are not as they were set: another program keeps changing them"
        refused = Outcome(errno.EBUSY, "", ())
        raise refusal(refused, f"{work.target.what} {missing[0].what}", work.target.netns, says=says, cls=NetlinkError)
    return link


def _refused(step: Step, outcome: Outcome, target: Target) -> VethError:
    cls: type[NetlinkError] | None = None
    says = ""
    if outcome.errno == errno.EEXIST and step.address is not None:
        cls, says = NetlinkError, "the link has this address with another prefix length or peer"
    elif outcome.errno == errno.EEXIST:
        cls, says = LinkExists, "a link of that name already exists there"
    elif step.address is not None and outcome.errno == errno.EACCES:
        cls = NetlinkError
    return refusal(outcome, f"{target.what} {step.what}", target.netns, says=says, cls=cls)
