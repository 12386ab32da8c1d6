"""Steps sent for one link: which are tried a second time, and how all of them are undone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from vethlib._nl.batch import LOST, Exchange, Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link, set_link
from vethlib.addresses import Address, Identity
from vethlib.endfields.checks import ADDR_GEN_MODE, IPV6_MTU, OF_THE_NAMESPACE, STABLE_SECRET, Sysctl
from vethlib.endfields.table import FIELDS, LATE, ROUTES, SYSCTLS, Step
from vethlib.errors import LinkExists, LinkNotFound, NetlinkError, VethError
from vethlib.links import Link, describe
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.present_name import read_by_name
from vethlib.session.core.refusal import loading, refusal
from vethlib.session.core.settings import check_secret, read_all, read_setting, restore_all, write_settings
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import find_at, read_addresses, with_addresses
from vethlib.session.read.samelink import is_replaced
from vethlib.session.read.target import Target, read_body

from .addressing import give, take
from .restoring.addresses import restore_addresses
from .restoring.late import ELSEWHERE, LateFields

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route

__all__ = ["LinkSteps", "decides_addresses"]

_MAY_BE_MADE: Final = (0, LOST.errno)
"""Undoing a step that was not carried out is harmless: it changes nothing."""

# The address is present again, or already gone; or the link is gone, with everything.
_AS_GOOD_AS_UNDONE: Final = (0, errno.EEXIST, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENODEV)

_MAKES_NONE: Final = "1"
"""The ADDR_GEN_MODE of a link for which the kernel generates no address (IN6_ADDR_GEN_MODE_NONE)."""


class LinkSteps:
    """Steps sent for one link, and their undoing.

    `addresses` are those that the link had, if they may have to be restored, and `mac` is the MAC that the steps give
    it, if any. With `readdresses`, the steps may also remove or add addresses; otherwise, they change labels at most.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        target: Target,
        before: LinkMessage,
        addresses: Sequence[Address] | None,
        direct: Mapping[str, Any] = MappingProxyType({}),
        mac: str = "",
        *,
        readdresses: bool = True,
    ) -> None:
        self.namespaces = namespaces
        self.target = target
        self.before = before
        self._addresses = addresses
        self._readdresses = readdresses and addresses is not None
        self._sent: list[tuple[Sequence[Step], Exchange]] = []
        self._had_ipv6: bool | None = None  # before it was switched or lost
        self._switched_ipv6 = False
        self._ipv6_settings: Sequence[Sysctl] = ()  # if they may be lost
        self._direct = direct  # former values of the fields to be changed that no message sets
        self._wrote_settings = False
        self.late = LateFields(namespaces, target, before)
        self._mac = mac
        self._is_replaced = False
        self._is_undone = False

    def send(self, steps: Sequence[Step]) -> None:
        """Send one datagram. Raises the error of the first step that is refused for good, despite a second attempt."""
        if not steps:
            return
        for step, outcome in zip(steps, self._send(steps), strict=True):
            if outcome.errno and outcome.errno not in step.fine:
                again = self._second_try(step, outcome)
                if again.errno:
                    raise _refused(step, again, self.target, lacks_ipv6=self._lacks_ipv6(step, again))

    def _send(self, steps: Sequence[Step]) -> list[Outcome]:
        exchange = self.namespaces.begin(self.target.place, [step.request for step in steps])
        self._sent.append((steps, exchange))  # before any step is carried out
        self.namespaces.run(self.target.place, exchange)
        return exchange.outcomes

    def _lacks_ipv6(self, step: Step, outcome: Outcome) -> bool:
        """Return whether an IPv6 route or neighbour was refused because the link has no IPv6.

        EACCES: it is disabled (fib6_nh_init). ENODEV: the MTU is too small, or the link is gone. Raises LinkNotFound if
        another link has its ifindex.
        """
        if step.late_version != 6:
            return False
        return outcome.errno == errno.EACCES or (outcome.errno == errno.ENODEV and self._link_now() is not None)

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
        self._had_ipv6, self._switched_ipv6 = False, True
        for error in enable_ipv6(self.namespaces, self.target.place, [link.ifindex]).values():
            raise error
        return self._send([step])[0]

    def switch_ipv6(self, *, on: bool) -> None:
        """Enable or disable IPv6 on the link."""
        self._had_ipv6, self._switched_ipv6 = self.before.ipv6, True
        self._switch_ipv6(on=on)

    def _switch_ipv6(self, *, on: bool) -> None:
        for error in switch_ipv6(self.namespaces, {self.target.place: {self.before.ifindex: on}}).values():
            raise error

    def keep_ipv6(self) -> None:
        """Keep the IPv6 settings, which the kernel forgets as soon as the MTU is below the minimum of IPv6."""
        if self.before.name in OF_THE_NAMESPACE:  # its settings are of no link
            return
        self._ipv6_settings = self._read_by_name(lambda name: read_all(self.target.place, name, ["ipv6"]))
        self._had_ipv6 = self.before.ipv6

    def keep_ipv6_mtu(self) -> None:
        """Keep the MTU of IPv6 if another program has made it less than that of the link."""
        if self.before.name not in OF_THE_NAMESPACE:
            wanted = [Sysctl(IPV6_MTU, "")]
            (mtu,) = self._read_by_name(
                lambda name: read_setting(self.namespaces, self.target.place, name, SYSCTLS, wanted)
            )
            if mtu.value not in ("", str(self.before.mtu)):
                self._ipv6_settings = [mtu]

    def _read_by_name(self, read: Callable[[str], Sequence[Sysctl]]) -> Sequence[Sysctl]:
        return read_by_name(self.namespaces, self.target.place, self.before, read)

    def write_settings(self, fields: Mapping[str, Any]) -> None:
        """Write fields that no message sets."""
        self._wrote_settings = True
        for error in write_settings(self.namespaces, {self.target.place: {self.before.ifindex: fields}}).values():
            raise error

    def reach_late(self, wanted: Mapping[str, Any]) -> None:
        """Change the late fields, starting from what the other steps have left of them.

        If a route is refused because its source is still being checked for duplicates, it is tried again after the
        check.
        """
        try:
            self._change_late(wanted)
        except NetlinkError as error:
            if error.errno != errno.EINVAL or ROUTES not in wanted:
                raise
            self._await_sources(wanted[ROUTES], error)
            self._change_late(wanted)

    def _await_sources(self, routes: Iterable[Route], refused: NetlinkError) -> None:
        """Wait until the sources of routes have been checked. Raises the refusal if that is in vain."""
        with loading:
            from vethlib.session.read.sources import sources_of, until_checked  # for few routes

        link = self.target.place, self.before.ifindex
        if not (sources := sources_of(routes)):
            raise refused
        if why := until_checked(self.namespaces, {link: sources}).get(link):
            outcome = Outcome(errno.EINVAL, refused.extack)
            raise refusal(outcome, refused.request, self.target.netns, says=why) from None
        self._link_now()

    def _change_late(self, wanted: Mapping[str, Any]) -> None:
        present = read_further(self.namespaces, self.target.place, self.before, wanted) if wanted else {}
        for name, value in wanted.items():
            # Their former values are in `late`: they are undone once the link has its addresses again.
            self.send(list(FIELDS[name].steps(self.before.ifindex, present[name], value)))

    def keep_addresses(self) -> None:
        """Add the addresses again that the first steps have cost the link."""
        assert self._addresses is not None
        self._restore_addresses(self._addresses)

    def read_link(self) -> Link:
        """Read the link by its ifindex: another program may rename it as soon as it has changed."""
        message = find_at(self.namespaces, self.target, self.before.ifindex)
        return with_addresses(self.namespaces, self.target, message)

    def _rename_while_down(self, step: Step, link: LinkMessage) -> Outcome:
        """Rename a link that is up, before Linux 6.2 (dev_change_name)."""
        if not link.up:
            return self._send([step])[0]
        index = link.ifindex
        addresses = read_addresses(self.namespaces, self.target.place, index)
        has_added = any(step.adds is not None for steps, _ in self._sent for step in steps)
        self.late.read_rest(readdressed=self._readdresses and has_added)
        self.late.read_elsewhere(addresses, 6)
        down, up = Step("down", set_link(index, up=False)), Step("up", set_link(index, up=True))
        lost = [
            give(address, index)._replace(adds=None)  # it may be of another program
            for address in reversed(addresses)
            if address.interface.version == 6 and not address.temporary
        ]
        back = [down.request, *step.undo, *(readded.request for readded in lost), up.request]
        return self._send([down, step._replace(undo=tuple(back)), *lost, up])[1]

    def undo(self, cause: BaseException | None) -> None:
        """Undo all steps, last first, and restore the addresses; a second call completes an interrupted first one.

        Failures (as when the link is gone) are noted on `cause`, if it is given.
        """
        if not self._is_undone:
            failures: list[str] = []
            undo_all((step, lambda error: failures.append(str(error))) for step in self._steps_back())
            self._is_undone = not failures
            if cause is not None:
                for failure in failures:
                    note(cause, failure)

    def _steps_back(self) -> Iterator[Callable[[], None]]:
        """Yield the steps of undoing; there are none if another link now has the ifindex."""
        yield self._find_again
        if not self._is_replaced:
            yield self._read_late
            yield self._take_back
            yield self._write_settings_back
            yield self._switch_ipv6_back
            yield self._give_addresses_back
            yield self._take_generated
            yield from (partial(self._restore_late, name) for name in (*LATE, ELSEWHERE))

    def _find_again(self) -> None:
        if self._may_have_lost or self._wrote_settings:
            try:
                self._link_now()
            except LinkNotFound:
                self._is_replaced = True
                raise

    @property
    def _may_have_lost(self) -> bool:
        """Whether the link may have lost something: by a message, or by switching IPv6, which takes no message."""
        return bool(self._sent) or self._had_ipv6 is not None

    def _read_late(self) -> None:
        if self._may_have_lost:
            # Removing an added address costs a link something if it had no IPv4 address before.
            had_ipv4 = any(address.interface.version == 4 for address in self._addresses or ())
            is_costly = self._readdresses and not had_ipv4
            self.late.read_rest(readdressed=self._readdresses, is_costly=is_costly)
            self.late.read_elsewhere(self._addresses or (), 4, 6, is_costly=False)

    def _restore_late(self, name: str) -> None:
        if self._may_have_lost:
            self.late.restore(name)

    def _take_back(self) -> None:
        done = [
            step
            for steps, exchange in self._sent
            for step, outcome in zip(steps, exchange.outcomes, strict=True)
            if step.undo and _may_be_made(step, outcome)
        ]
        undone = [(step, request) for step in reversed(done) for request in step.undo]
        # The MAC first: when IPv6 is enabled on the link again, the kernel generates an address from it.
        undone.sort(key=lambda each: not each[0].what.startswith("mac "))
        outcomes = self.namespaces.exchange(self.target.place, [request for _, request in undone]) if undone else []
        for (step, _), outcome in zip(undone, outcomes, strict=True):
            taken = outcome.errno == errno.EEXIST and step.what.startswith("name ")
            # If this is the second attempt at undoing the change, an alternative name is already gone.
            gone = outcome.errno == errno.ENOENT and step.what.startswith("altname ")
            if taken or (outcome.errno not in _AS_GOOD_AS_UNDONE and not gone):
                raise refusal(outcome, f"{self.target.what}: undo {step.what}", self.target.netns)

    def _write_settings_back(self) -> None:
        if self._wrote_settings and (link := self._link_now()) is not None:
            wanted = {self.target.place: {link.ifindex: self._direct}}
            for error in write_settings(self.namespaces, wanted, go_on=True).values():
                raise error
            check_secret(self.target.place, link.name, self._direct.get(SYSCTLS, ()))

    def _switch_ipv6_back(self) -> None:
        if (self._had_ipv6 is None and not self._ipv6_settings) or (link := self._link_now()) is None:
            return
        if self._had_ipv6 is not None and (self._switched_ipv6 or link.ipv6 != self._had_ipv6):
            self._switch_ipv6(on=self._had_ipv6)
        if self._ipv6_settings:
            restore_all(self.namespaces, self.target.place, link.ifindex, self._ipv6_settings)

    def _link_now(self) -> LinkMessage | None:
        """Return the link as it is now; None if it is gone. Raises LinkNotFound if another link has its ifindex."""
        (now,) = self.namespaces.exchange(self.target.place, [get_link(self.before.ifindex)])
        if now.errno == errno.ENODEV:
            return None
        if now.errno:
            raise refusal(now, f"read {self.before.name!r}", self.target.netns)
        link = read_body(self.target.place, now, parse_link, f"read {self.before.name!r}")
        if is_replaced(self.before, link) and link.mac.hex(":") != self._mac:
            says = "it is gone, and another link now has its ifindex"
            raise self.target.refusal(Outcome(errno.ENODEV), says=says)
        return link

    def _give_addresses_back(self) -> None:
        if self._addresses is not None and self._may_have_lost:
            self._restore_addresses(self._addresses)

    def _take_generated(self) -> None:
        """Remove the link-local addresses that the kernel generated because of settings that have since been undone.

        If the link had none although it was due to get one, the kernel was about to generate it. If it has lost those
        that it had, the kernel has generated the new ones in their place.
        """
        if self._addresses is None or not self._wrote_settings or not decides_addresses(self._direct):
            return
        had = {address.identity for address in self._addresses if address.by_kernel}
        if had or Sysctl(ADDR_GEN_MODE, _MAKES_NONE) in self._direct[SYSCTLS]:
            index = self.before.ifindex
            present = read_addresses(self.namespaces, self.target.place, index)
            if had and had.isdisjoint(each.identity for each in present):
                return
            steps = [take(each, index) for each in present if each.by_kernel and each.identity not in had]
            outcomes = self.namespaces.exchange(self.target.place, [step.request for step in steps]) if steps else []
            for step, outcome in zip(steps, outcomes, strict=True):
                if outcome.errno not in _AS_GOOD_AS_UNDONE:
                    raise refusal(outcome, f"{self.target.what}: {step.what}", self.target.netns)

    def _restore_addresses(self, addresses: Sequence[Address]) -> None:
        request = f"restore the addresses of {describe(self.before.name, self.target.netns)}"
        target = self.target.requesting(request)
        restore_addresses(self.namespaces, target, self.before.ifindex, addresses, own=self._added())

    def _added(self) -> set[Identity]:
        """Return the addresses that the steps have added."""
        return {
            step.adds
            for steps, exchange in self._sent
            for step, outcome in zip(steps, exchange.outcomes, strict=True)
            if step.adds is not None and outcome.errno in _MAY_BE_MADE
        }


def decides_addresses(direct: Mapping[str, Any]) -> bool:
    """Return whether settings among these fields decide which address the kernel generates."""
    return any(setting.name in (STABLE_SECRET, ADDR_GEN_MODE) for setting in direct.get(SYSCTLS, ()))


def _may_be_made(step: Step, outcome: Outcome) -> bool:
    """Return whether a step may have changed something. EPERM: the kernel did not look at it (rtnetlink_rcv_msg)."""
    return outcome.errno in _MAY_BE_MADE or (step.halves and outcome.errno != errno.EPERM)


def _refused(step: Step, outcome: Outcome, target: Target, *, lacks_ipv6: bool) -> VethError:
    cls: type[NetlinkError] | None = None
    says = ""
    if outcome.errno == errno.EEXIST and step.address is not None:
        cls, says = NetlinkError, "the link has this address with another prefix length or peer"
    elif outcome.errno == errno.EEXIST and step.exists:
        cls, says = NetlinkError, step.exists
    elif outcome.errno == errno.EEXIST:
        cls, says = LinkExists, "a link of that name already exists there"
    elif step.address is not None and outcome.errno == errno.EACCES:
        cls = NetlinkError
    elif lacks_ipv6:
        cls, says = NetlinkError, "IPv6 is disabled on the link, or its MTU is too small for it"
    return refusal(outcome, f"{target.what} {step.what}", target.netns, says=says, cls=cls)
