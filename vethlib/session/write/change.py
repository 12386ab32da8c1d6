"""Changing one link: completely, or not at all.

Each field is a message of its own, so that a refusal names its field, and comes with the messages that undo it. If one
is refused, those that succeeded are undone, last first; then addresses, routes and neighbours are restored as they
were read (:mod:`.linksteps`, :mod:`.restoring`). The kernel goes on after a message that it refuses, so they are sent
in up to three datagrams: those that can be undone without a trace, then the name, then those that remove something. The
former name can become an alternative one only then, too. Finally the addresses are read, and missing ones are added
(:mod:`.addressing`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vethlib._nl.addr import without_own_label
from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, set_link
from vethlib._values import replace
from vethlib.addresses import Address
from vethlib.endfields.checks import ADDR_GEN_MODE, IPV6_MIN_MTU, STABLE_SECRET, Sysctl, check_ipv6
from vethlib.endfields.table import ALTNAMES, FIELDS, LATE, MASTER, SYSCTLS, TAKES_LATE, Step
from vethlib.errors import InvalidValue, LinkExists, NetlinkError
from vethlib.links import IPInterface, Link, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.read.dying import are_dying, holders
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import addresses_of, find, find_known, read_addresses, read_link, to_link
from vethlib.session.read.target import Target

from .addressing import ROUNDS, Goal
from .linksteps import LinkSteps
from .masters import find_masters, no_master

__all__ = ["Change", "change", "check_expected"]


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

    def takes_late(self, before: LinkMessage, goal: Goal | None, addresses: Sequence[Address]) -> set[str]:
        """Return the late fields of which the kernel may remove something along with the change.

        A rename is not among its causes, because that is so only if the kernel refuses it at first.
        """
        causes = {"mac", MASTER} & self.fields.keys()
        causes |= {
            cause
            for cause, holds in (
                ("up", self.up is False and before.up),
                ("ipv6", self.ipv6 is False and before.ipv6),
                ("mtu", self.mtu_after(before) < IPV6_MIN_MTU <= before.mtu),
                ("addresses", goal is not None and goal.takes(addresses)),
            )
            if holds
        }
        return {name for cause in causes for name in TAKES_LATE[cause]}

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
    direct = {name: value for name, value in present.items() if FIELDS[name].direct}
    sent = LinkSteps(namespaces, target, before, addresses if touches else None, direct)
    if wanted.mtu_after(before) < IPV6_MIN_MTU <= before.mtu:
        sent.keep_ipv6()
    sent.late.read(wanted.takes_late(before, goal, addresses))
    sent.late.read([name for name in LATE if name in wanted.fields], only_own=True)
    steps = list(_steps(before, addresses, wanted, goal, present))
    try:
        return _carry_out_or_undo(sent, steps, goal, wanted)
    except BaseException as error:
        sent.undo(error)
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
    """Return the values that the fields to be changed have now, except the late ones."""
    further = {name: value for name, value in wanted.fields.items() if FIELDS[name].read is None and name not in LATE}
    settings = {setting.name for setting in further.get(SYSCTLS, ())}
    if STABLE_SECRET in settings and ADDR_GEN_MODE not in settings:
        further[SYSCTLS] = [*further[SYSCTLS], Sysctl(ADDR_GEN_MODE, "")]
    present = read_further(namespaces, place, before, further) if further else {}
    return present | {name: read(before) for name in wanted.fields if (read := FIELDS[name].read) is not None}


def _found(namespaces: Namespaces, target: Target, wanted: Change) -> LinkMessage:
    """Return the link before the change. Raises LinkNotFound if it is not the one that the caller means."""
    # A cache is told neither whether the link has IPv6, nor of every change of an alias.
    needs_ipv6 = wanted.ipv6 is not None or wanted.fields.get("mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU
    ask = find if needs_ipv6 or target.only_if is not None else find_known
    before = ask(namespaces, target)
    check_expected(target, before)
    return before


def check_expected(target: Target, link: LinkMessage) -> None:
    """Raise LinkNotFound if the caller means another link."""
    target.check_ifindex(link.ifindex)
    if target.only_if is not None and not target.only_if(to_link(link, target.netns), target.place.birth):
        says = f"{describe(target.name, target.netns)} is another link by now"
        raise target.refusal(Outcome(errno.ENODEV, "", ()), says=says)


def _carry_out_or_undo(sent: LinkSteps, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change) -> Link:
    # The inner one of two handlers; see undo.py for why there are two, and why there is no loop here.
    try:
        return _carry_out(sent, steps, goal, wanted)
    except BaseException:
        sent.undo(None)
        raise


def _carry_out(sent: LinkSteps, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change) -> Link:
    before = sent.before
    name = wanted.new_name or before.name
    # Enabled before addresses are added, but a link has no such setting below the minimum; disabled last, because that
    # removes addresses.
    early = wanted.ipv6 is True and before.mtu >= IPV6_MIN_MTU
    if early:
        sent.switch_ipv6(before.name, on=True)
    for number, together in enumerate(steps):
        sent.send(together)
        if together and not number:
            sent.keep_addresses()
    if wanted.ipv6 is not None and not early:
        sent.switch_ipv6(name, on=wanted.ipv6)
    if direct := {field: value for field, value in wanted.fields.items() if FIELDS[field].direct}:
        sent.write_settings(name, direct)
    link = read_link(sent.namespaces, sent.target.renamed(name)) if goal is None else _reach(sent, goal, name)
    sent.reach_late({field: value for field, value in wanted.fields.items() if field in LATE})
    if link.up:
        for field in LATE:
            if field not in wanted.fields:
                sent.late.keep_own(field)
    if wanted.ipv6 not in (None, link.ipv6):
        refused = Outcome(errno.EBUSY, "", ())
        says = f"another program keeps changing net.ipv6.conf.{name}.disable_ipv6"
        raise refusal(refused, f"{sent.target.what} ipv6", sent.target.netns, says=says, cls=NetlinkError)
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
        if name in wanted.fields and name not in LATE
    }
    renames, former = _rename_steps(before, wanted), list[Step]()
    if renames and before.name in wanted.fields.get(ALTNAMES, ()):
        altnames = wanted.fields[ALTNAMES]
        others = tuple(name for name in altnames if name != before.name)
        changes[ALTNAMES] = list(FIELDS[ALTNAMES].steps(index, present[ALTNAMES], others))
        former = list(FIELDS[ALTNAMES].steps(index, others, altnames))
    # Setting the link down drops the IPv6 ones before others are added (addrconf_ifdown).
    stay = [address for address in addresses if address.interface.version == 4 or wanted.up is not False]
    if renames:  # what is added again after that is not to have the former name as its label
        stay = [replace(each, message=without_own_label(each.message, before.name)) for each in stay]
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
    yield renames
    yield former + last + (mtu if shrinks else [])


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


def _reach(sent: LinkSteps, goal: Goal, name: str) -> Link:
    """Read the link and send the missing steps until its addresses are as requested; return the link."""
    missing: list[Step] = []
    for _ in range(ROUNDS):
        link = read_link(sent.namespaces, sent.target.renamed(name))
        missing = goal.unmet(link.ifaddrs)
        if not missing:
            return link
        sent.send(missing)
    link = read_link(sent.namespaces, sent.target.renamed(name))
    if missing := goal.unmet(link.ifaddrs):
        says = "the addresses of the link are not as they were set: another program keeps changing them"
        refused = Outcome(errno.EBUSY, "", ())
        raise refusal(refused, f"{sent.target.what} {missing[0].what}", sent.target.netns, says=says, cls=NetlinkError)
    return link
