"""Steps sent for one link: what is tried a second time, and how all of them are undone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from vethlib._nl.batch import LOST, Exchange, Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link, set_link
from vethlib.addresses import Address
from vethlib.endfields.checks import OF_THE_NAMESPACE, Sysctl
from vethlib.endfields.table import FIELDS, LATE, ROUTES, SYSCTLS, Step
from vethlib.errors import LinkExists, NetlinkError, VethError
from vethlib.links import describe
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.refusal import loading, refusal
from vethlib.session.core.settings import check_secret, read_all, restore_all, write_settings
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import addresses_of, read_addresses
from vethlib.session.read.target import Target, read_body

from .addressing import give
from .restoring.addresses import restore_addresses
from .restoring.late import LateFields

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route

__all__ = ["LinkSteps"]

_MAY_BE_MADE: Final = (0, LOST.errno)
"""A step that was not made can be undone, too: that changes nothing."""

# The address is present again, or already gone; or the link is gone, with everything.
_AS_GOOD_AS_UNDONE: Final = (0, errno.EEXIST, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENODEV)


class LinkSteps:
    """Steps sent for one link, and their undoing; `addresses` are those it had if they may have to be restored."""

    def __init__(
        self,
        namespaces: Namespaces,
        target: Target,
        before: LinkMessage,
        addresses: Sequence[Address] | None,
        direct: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.namespaces = namespaces
        self.target = target
        self.before = before
        self._addresses = addresses
        self._sent: list[tuple[Sequence[Step], Exchange]] = []
        self._had_ipv6: bool | None = None  # before it was switched, or lost
        self._switched_ipv6 = False
        self._ipv6_settings: Sequence[Sysctl] = ()  # if they may be lost
        self._direct = direct  # what is no message and is to be changed, as it was
        self._wrote_settings = False
        self.late = LateFields(namespaces, target, before.ifindex)
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
        self._had_ipv6, self._switched_ipv6 = False, True
        for error in enable_ipv6(self.target.place, [link.name]).values():
            raise error
        return self._send([step])[0]

    def switch_ipv6(self, name: str, *, on: bool) -> None:
        """Enable or disable IPv6 on the link, which has this name by now."""
        self._had_ipv6, self._switched_ipv6 = self.before.ipv6, True
        for error in switch_ipv6({self.target.place: {name: on}}).values():
            raise error

    def keep_ipv6(self) -> None:
        """Keep the IPv6 settings, which the kernel forgets as soon as the MTU is below the minimum of IPv6."""
        if self.before.name in OF_THE_NAMESPACE:  # its settings are of no link
            return
        self._ipv6_settings = read_all(self.target.place, self.before.name, ["ipv6"])
        self._had_ipv6 = self.before.ipv6

    def write_settings(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write fields that are no messages; the link has this name by now."""
        self._wrote_settings = True
        for error in write_settings(self.namespaces, {self.target.place: {name: fields}}).values():
            raise error

    def reach_late(self, wanted: Mapping[str, Any]) -> None:
        """Change the late fields, from what the other steps have left of them.

        If a route was refused because its source is still being checked for duplicates, try again when it is not.
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
            outcome = Outcome(errno.EINVAL, refused.extack, ())
            raise refusal(outcome, refused.request, self.target.netns, says=why) from None

    def _change_late(self, wanted: Mapping[str, Any]) -> None:
        present = read_further(self.namespaces, self.target.place, self.before, wanted) if wanted else {}
        for name, value in wanted.items():
            # What they were is in `late`: they are undone once the link has its addresses again.
            self.send(list(FIELDS[name].steps(self.before.ifindex, present[name], value)))

    def keep_addresses(self) -> None:
        """Add the addresses again that the first steps have cost the link."""
        assert self._addresses is not None
        self._restore_addresses(self._addresses)

    def _rename_while_down(self, step: Step, link: LinkMessage) -> Outcome:
        """Rename a link that is up, before Linux 6.2 (dev_change_name)."""
        if not link.up:
            return self._send([step])[0]
        index = link.ifindex
        addresses = addresses_of(read_addresses(self.namespaces, self.target.place, index))
        self.late.read_rest(readdressed=self._addresses is not None)
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
            steps: tuple[Callable[[], None], ...] = (
                self._read_late,
                self._take_back,
                self._write_settings_back,
                self._switch_ipv6_back,
                self._give_addresses_back,
                *(partial(self._restore_late, name) for name in LATE),
            )
            undo_all((step, lambda error: failures.append(str(error))) for step in steps)
            self._is_undone = not failures
            if cause is not None:
                for failure in failures:
                    note(cause, failure)

    @property
    def _may_have_lost(self) -> bool:
        """Whether the link may have lost something: by a message, or by switching IPv6, which is none."""
        return bool(self._sent) or self._had_ipv6 is not None

    def _read_late(self) -> None:
        if self._may_have_lost:
            self.late.read_rest(readdressed=self._addresses is not None)

    def _restore_late(self, name: str) -> None:
        if self._may_have_lost:
            self.late.restore(name)

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
            taken = outcome.errno == errno.EEXIST and step.what.startswith("name ")
            if taken or outcome.errno not in _AS_GOOD_AS_UNDONE:
                raise refusal(outcome, f"{self.target.what}: undo {step.what}", self.target.netns)

    def _write_settings_back(self) -> None:
        if self._wrote_settings and (link := self._link_now()) is not None:
            wanted = {self.target.place: {link.name: self._direct}}
            for error in write_settings(self.namespaces, wanted, go_on=True).values():
                raise error
            check_secret(self.target.place, link.name, self._direct.get(SYSCTLS, ()))

    def _switch_ipv6_back(self) -> None:
        if self._had_ipv6 is None or (link := self._link_now()) is None:
            return
        if self._switched_ipv6 or link.ipv6 != self._had_ipv6:
            for error in switch_ipv6({self.target.place: {link.name: self._had_ipv6}}).values():
                raise error
        if self._ipv6_settings:
            restore_all(self.namespaces, self.target.place, link.name, self._ipv6_settings)

    def _link_now(self) -> LinkMessage | None:
        """Return the link with the name that it has; None if it is gone.

        Another link may have its former name by now, and settings are written by name.
        """
        (now,) = self.namespaces.exchange(self.target.place, [get_link(self.before.ifindex)])
        if now.errno == errno.ENODEV:
            return None
        if now.errno:
            raise refusal(now, f"read {self.before.name!r}", self.target.netns)
        return read_body(self.target.place, now, parse_link, f"read {self.before.name!r}")

    def _give_addresses_back(self) -> None:
        if self._addresses is not None and self._may_have_lost:
            self._restore_addresses(self._addresses)

    def _restore_addresses(self, addresses: Sequence[Address]) -> None:
        request = f"restore the addresses of {describe(self.before.name, self.target.netns)}"
        restore_addresses(self.namespaces, self.target.requesting(request), self.before.ifindex, addresses)


def _refused(step: Step, outcome: Outcome, target: Target) -> VethError:
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
    return refusal(outcome, f"{target.what} {step.what}", target.netns, says=says, cls=cls)
