"""Changing one link: completely, or not at all.

Each field has its own message, so that a refusal identifies its field, and each message is accompanied by those that
undo it. If one is refused, those that succeeded are undone, last first; then addresses, routes and neighbours are
restored as they were read (:mod:`.linksteps`, :mod:`.restoring`). The kernel goes on after a message that it refuses,
so the messages are sent in several datagrams: those that can be undone without a trace, then the name, then those that
remove something. Only after the rename can the former name become an alternative name, and addresses are added after
it, too, because it changes labels. Finally the addresses are read, and missing ones are added (:mod:`.addressing`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, NamedTuple

from vethlib._nl.addr import relabelled, without_own_label
from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, set_link
from vethlib._nl.wire import encoded
from vethlib._values import replace
from vethlib.addresses import Address
from vethlib.endfields.checks import ADDR_GEN_MODE, IPV6_MIN_MTU, STABLE_SECRET, Sysctl, check_ipv6
from vethlib.endfields.ipv6fields import check_field_of_ipv6
from vethlib.endfields.table import ALTNAMES, FIELDS, LATE, MASTER, NEIGHBOURS, ROUTES, SYSCTLS, TAKES_LATE, Step
from vethlib.errors import InvalidValue, LinkExists, NetlinkError, VethError
from vethlib.linkref import Located
from vethlib.links import IPInterface, Link, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.read.dying import are_dying, holders
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import find, find_known, read_addresses, to_link
from vethlib.session.read.target import Target

from .addressing import ROUNDS, Goal
from .linksteps import LinkSteps, decides_addresses
from .masters import find_masters, no_master
from .restoring.late import ELSEWHERE

__all__ = ["Change", "change", "change_all", "check_expected"]


class Change(NamedTuple):
    """A requested change of a link; None leaves a field unchanged.

    `fields` has values of ``vethlib.endfields.table.FIELDS``. `addresses` is the whole set in order, except the
    link-local address generated from the MAC; `add` and `remove` are differences, and the addresses in `order` are to
    be in that order.
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
        """Return whether the change may remove or add addresses, so that they must be read first.

        Setting the link down (also to undo setting it up) drops its IPv6 addresses, and so does joining a VRF.
        """
        switched = self.up not in (None, before.up) or self.ipv6 not in (None, before.ipv6)
        early = MASTER in self.fields
        return self.has_addresses or switched or early or self.mtu_after(before) < IPV6_MIN_MTU

    def relabels(self, before: LinkMessage) -> bool:
        """Return whether the change may be refused after a rename, which changes labels of IPv4 addresses."""
        last = (name for name in self.fields if name in LATE or name == ALTNAMES or FIELDS[name].direct)
        return self.name_after(before) != before.name and any(last)

    def causes(self, before: LinkMessage, goal: Goal | None, addresses: Sequence[Address]) -> set[str]:
        """Return the parts of the change that may cost the link late fields (``TAKES_LATE``).

        A rename is not among them, because it does so only if the kernel refuses it at first.
        """
        return {"mac", MASTER} & self.fields.keys() | {
            cause
            for cause, holds in (
                ("up", self.up is False and before.up),
                ("ipv6", self.ipv6 is False and before.ipv6),
                ("mtu", self.mtu_after(before) < IPV6_MIN_MTU <= before.mtu),
                ("addresses", goal is not None and goal.takes(addresses)),
            )
            if holds
        }

    def resets_ipv6_mtu(self, before: LinkMessage) -> bool:
        """Return whether the change, or undoing it, sets the MTU of IPv6 to that of the link."""
        switched = self.up not in (None, before.up) or self.ipv6 not in (None, before.ipv6)
        return switched or MASTER in self.fields or self.mtu_after(before) != before.mtu

    def name_after(self, before: LinkMessage) -> str:
        """Return the name that the link has after the change."""
        return self.new_name or before.name

    def mtu_after(self, before: LinkMessage) -> int:
        """Return the MTU that the link has after the change."""
        mtu: int = self.fields.get("mtu", before.mtu)
        return mtu


def change(namespaces: Namespaces, target: Target, wanted: Change) -> Link:
    """Change a link, and return it as changed. Raises LinkNotFound, LinkExists (a new name is taken), NetlinkError."""
    place = target.place
    before = _found(namespaces, target, wanted)
    if MASTER in wanted.fields:
        wanted = _with_master(namespaces, target, wanted)
    touches = wanted.touches_addresses(before)
    reads = touches or wanted.relabels(before) or decides_addresses(wanted.fields)
    had = addresses = read_addresses(namespaces, place, before.ifindex) if reads else []
    if (name := wanted.name_after(before)) != before.name:
        addresses = _relabelled(addresses, name)
    goal = _goal(before.ifindex, addresses, wanted) if wanted.has_addresses else None
    _check_mtu(before, addresses, wanted, goal)
    present = _present(namespaces, place, before, wanted)
    direct = {name: value for name, value in present.items() if FIELDS[name].direct}
    mac = wanted.fields.get("mac", "")
    sent = LinkSteps(namespaces, target, before, had if reads else None, direct, mac, readdresses=touches)
    if wanted.mtu_after(before) < IPV6_MIN_MTU <= before.mtu:
        sent.keep_ipv6()
    elif wanted.resets_ipv6_mtu(before):
        sent.keep_ipv6_mtu()
    causes = wanted.causes(before, goal, addresses)
    sent.late.read({name for cause in causes for name in TAKES_LATE[cause]})
    if causes - {"mac"}:
        sent.late.read_elsewhere(had, *((4, 6) if "addresses" in causes else (6,)))
    late = [name for name in LATE if name in wanted.fields]
    sent.late.read(late, only_own=True)
    keeps_foreign = "addresses" in causes and "mac" not in causes
    kept = list(LATE) if keeps_foreign else []
    if keeps_foreign and goal is not None and goal.readds(addresses):
        kept.append(ELSEWHERE)
    sent.late.check_known(kept, own=late)
    steps = list(_steps(before, addresses, wanted, goal, present))
    try:
        return _carry_out_or_undo(sent, steps, goal, wanted, keeps_foreign=keeps_foreign)
    except BaseException as error:
        sent.undo(error)
        if isinstance(error, LinkExists):
            error.dying = are_dying(namespaces, holders(namespaces, [(place, wanted.new_name or target.name)]))
        raise


def change_all(
    open_namespaces: Callable[[], Namespaces], items: Sequence[Located], wanted: Change
) -> dict[int, VethError]:
    """Change many links, one after the other; return the errors, by position."""
    failed: dict[int, VethError] = {}
    for position, (name, netns, index, seen) in enumerate(items):
        try:
            with open_namespaces() as namespaces:
                request = f"set {describe(name, netns)}"
                change(namespaces, Target(namespaces(netns), name, netns, request, index, seen=seen), wanted)
        except VethError as error:
            failed[position] = error
    return failed


def _with_master(namespaces: Namespaces, target: Target, wanted: Change) -> Change:
    """Return the change with the ifindex of the master. Raises LinkNotFound, or NetlinkError if it takes no ports."""
    name = wanted.fields[MASTER]
    found = find_masters(namespaces, target.place, [name])[name]
    if isinstance(found, Outcome):
        raise refusal(found, target.what, target.netns, says=no_master(found, name, target.netns))
    return wanted._replace(fields={**wanted.fields, MASTER: found})


def _present(namespaces: Namespaces, place: OpenNetns, before: LinkMessage, wanted: Change) -> dict[str, Any]:
    """Return the present values of the fields to be changed, except the late fields."""
    further = {name: value for name, value in wanted.fields.items() if FIELDS[name].read is None and name not in LATE}
    settings = {setting.name for setting in further.get(SYSCTLS, ())}
    if STABLE_SECRET in settings and ADDR_GEN_MODE not in settings:
        further[SYSCTLS] = [*further[SYSCTLS], Sysctl(ADDR_GEN_MODE, "")]
    present = read_further(namespaces, place, before, further) if further else {}
    return present | {name: read(before) for name in wanted.fields if (read := FIELDS[name].read) is not None}


def _found(namespaces: Namespaces, target: Target, wanted: Change) -> LinkMessage:
    """Return the link before the change. Raises LinkNotFound if it is not the link that the caller means."""
    # A cache receives no event for IPv6 being disabled, nor for every change of an alias.
    needs_ipv6 = wanted.ipv6 is not None or wanted.fields.get("mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU
    ask = find if needs_ipv6 or target.only_if is not None else find_known
    before = ask(namespaces, target)
    check_expected(namespaces, target, before)
    return before


def check_expected(namespaces: Namespaces, target: Target, link: LinkMessage) -> None:
    """Raise LinkNotFound if the caller means another link."""
    target.check(namespaces, link)
    birth = target.place.birth
    if target.only_if is not None and not target.only_if(to_link(link, target.netns, cookie=birth[1]), birth):
        says = f"{describe(target.name, target.netns)} is now another link"
        raise target.refusal(Outcome(errno.ENODEV), says=says)


def _carry_out_or_undo(
    sent: LinkSteps, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change, *, keeps_foreign: bool
) -> Link:
    # The inner one of two handlers; see undo.py for why there are two, and why there is no loop here.
    try:
        return _carry_out(sent, steps, goal, wanted, keeps_foreign=keeps_foreign)
    except BaseException:
        sent.undo(None)
        raise


def _carry_out(
    sent: LinkSteps, steps: Sequence[Sequence[Step]], goal: Goal | None, wanted: Change, *, keeps_foreign: bool
) -> Link:
    before = sent.before
    # IPv6 is enabled before addresses are added, but below the minimal MTU a link has no such setting; it is disabled
    # last, because that removes addresses.
    early = wanted.ipv6 is True and before.mtu >= IPV6_MIN_MTU
    direct = {field: value for field, value in wanted.fields.items() if FIELDS[field].direct}
    at_first, mac, *rest = steps
    sent.send(at_first)
    if at_first:
        sent.keep_addresses()
    sent.send(mac)
    if before.mtu >= IPV6_MIN_MTU and decides_addresses(direct):
        sent.write_settings(direct)
        direct = {}
    if early:
        sent.switch_ipv6(on=True)
    for together in rest:
        sent.send(together)
    if wanted.ipv6 and not early and decides_addresses(direct):
        # When the MTU rose, the kernel has generated an address, before these settings were restored.
        sent.switch_ipv6(on=False)
        sent.write_settings(direct)
        direct = {}
    if wanted.ipv6 is not None and not early:
        sent.switch_ipv6(on=wanted.ipv6)
    if direct:
        sent.write_settings(direct)
    link = sent.read_link() if goal is None else _reach(sent, goal)
    sent.late.keep_elsewhere()
    if keeps_foreign:
        sent.late.keep_foreign({address.interface.version for address in link.ifaddrs})
    sent.reach_late({field: value for field, value in wanted.fields.items() if field in LATE})
    if link.up:
        for field in LATE:
            if field not in wanted.fields:
                sent.late.keep_own(field)
    if wanted.ipv6 not in (None, link.ipv6):
        says = f"another program keeps changing net.ipv6.conf.{link.name}.disable_ipv6"
        what = f"{sent.target.what} ipv6"
        raise refusal(Outcome(errno.EBUSY), what, sent.target.netns, says=says, cls=NetlinkError)
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
    # Setting the link down drops its IPv6 addresses before others are added (addrconf_ifdown).
    stay = [address for address in addresses if address.interface.version == 4 or wanted.up is not False]
    if renames:  # addresses that are added again afterwards get the new name as their label
        name = wanted.name_after(before)
        stay = [replace(each, message=without_own_label(each.message, name)) for each in stay]
    first, last = ([], []) if goal is None else goal.first(stay)
    # Last if it is reduced, because IPv6 needs 1280 bytes.
    mtu = changes.pop("mtu", [])
    shrinks = wanted.mtu_after(before) < before.mtu
    yield [step for name, several in changes.items() if FIELDS[name].early for step in several]
    # When IPv6 is enabled on the link, the kernel generates an address from its present MAC.
    yield changes.pop("mac", []) if wanted.ipv6 else []
    steps = [step for name, several in changes.items() if not FIELDS[name].early for step in several]
    steps += [] if shrinks else mtu
    if wanted.up is False:
        steps.append(Step("down", set_link(index, up=False), (set_link(index, up=before.up),)))
    if not renames:
        steps += first
    if wanted.up:
        steps.append(Step("up", set_link(index, up=True), () if before.up else (set_link(index, up=False),)))
    yield steps
    yield renames
    yield first if renames else []  # after the rename, because it changes labels
    yield former + last + (mtu if shrinks else [])


def _check_mtu(before: LinkMessage, addresses: Sequence[Address], wanted: Change, goal: Goal | None) -> None:
    """Raise InvalidValue if the link would have an IPv6 address and too small an MTU for it.

    The kernel would drop the address silently (addrconf_notify); it generates its own again when that becomes possible.
    """
    mtu = wanted.mtu_after(before)
    check_ipv6(wanted.ipv6, (), mtu)
    check_field_of_ipv6(wanted.ipv6, mtu, *(wanted.fields.get(name, ()) for name in (ROUTES, NEIGHBOURS, SYSCTLS)))
    if mtu >= IPV6_MIN_MTU or wanted.ipv6 is False:
        return
    after = addresses if goal is None else goal.target(addresses)
    if any(address.interface.version == 6 and not address.by_kernel for address in after):
        raise InvalidValue("mtu", mtu, "IPv6 needs 1280 bytes: raise the MTU or remove the IPv6 addresses")


def _rename_steps(before: LinkMessage, wanted: Change) -> list[Step]:
    """Return the step for the name. It also changes labels of IPv4 addresses, which undoing it does not restore."""
    if (name := wanted.name_after(before)) == before.name:
        return []
    index = before.ifindex
    request = set_link(index, name=encoded(name))
    return [Step(f"name {name!r}", request, (set_link(index, name=encoded(before.name)),))]


def _relabelled(addresses: Sequence[Address], name: str) -> list[Address]:
    """Return the addresses of a link as they are once it has this name."""
    numbers = count(1)
    return [
        replace(each, message=relabelled(each.message, name, next(numbers))) if each.interface.version == 4 else each
        for each in addresses
    ]


def _reach(sent: LinkSteps, goal: Goal) -> Link:
    """Read the link and send the missing steps until its addresses are as requested; return the link."""
    missing: list[Step] = []
    for _ in range(ROUNDS):
        link = sent.read_link()
        missing = goal.unmet(link.ifaddrs)
        if not missing:
            return link
        sent.send(missing)
    link = sent.read_link()
    if missing := goal.unmet(link.ifaddrs):
        says = "the addresses of the link do not stay as they were set: another program keeps changing them"
        what = f"{sent.target.what} {missing[0].what}"
        raise refusal(Outcome(errno.EBUSY), what, sent.target.netns, says=says, cls=NetlinkError)
    return link
