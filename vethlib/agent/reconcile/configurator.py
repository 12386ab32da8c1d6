"""Configurator: maintain the desired interfaces of a host.

Theory of operation:

1. Every event only marks interfaces to be looked at: a new configuration, a namespace that starts or ends, a link that
   another program changed, a time that has come. Nothing else of an event is remembered (`events`, `occasions`).
2. A pass compares the desired with the observed state of the marked interfaces: it observes, plans, executes, and
   observes again, until there is nothing left to do. They are planned together with the interfaces that they concern,
   so that thousands cost as much as bulk operations do. An interface is CONFIGURED because it was found to be as
   configured, by an observation or by what is read when its namespace is first watched, never because of what was done
   about it (`passes`).
3. The first observation is of the whole host: it finds everything that an earlier run has left, wherever that is. Pairs
   that are not configured are deleted only after :meth:`Configurator.resync` has set the whole configuration.
4. One switch (`backoff.next_step`) decides what follows for an interface: done, wait for an event, retry later, or
   nothing until the configuration changes. Its status is reported (`reporter`).
5. All work is done in :meth:`Configurator.poll`, by the thread that calls it, in passes over some of the interfaces.
   After `BUDGET` seconds no further pass is started, so that the caller can do its other work.

Each part of the state has one owner: `Desired` the configuration, `Occasions` what to look at, `Backoff` when to try
again, `HostObserver` what is known of the host, and `Statuses` what is reported about it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Final, get_args

from vethlib._closing import WarnsUnclosed
from vethlib._primitives import select, time
from vethlib.agent.config.mark import check_label
from vethlib.agent.config.model import Interface, IPv6Policy
from vethlib.agent.host.creatable import CreatableNetns
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.planning.desired import Desired
from vethlib.agent.reconcile.passes.runner import PassRunner
from vethlib.agent.registry.dependants import Attachment, Dependant, Dependants
from vethlib.agent.registry.indexes import Indexes
from vethlib.agent.registry.subscriptions import Subscription
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue, SessionClosed, belongs_to_parent, check_type
from vethlib.linkref import as_list_of
from vethlib.ns.deadline import LONGEST, deadline_after, earliest
from vethlib.session import Session
from vethlib.session.core.ipv6 import can_switch_ipv6
from vethlib.session.core.refusal import system_errors

from .backoff import Backoff
from .counters import Counters, Load
from .events import Events
from .observer import HostObserver
from .occasions import CONFIGURATION, Occasions
from .owners import Owners
from .reporter import Reporter
from .statuses import Change, StatusChange, Statuses
from .watches import Watches

__all__ = ["Configurator"]

BUDGET: Final = 0.15
"""Seconds after which a poll starts no further pass."""

_NO_INTERFACE: Final = 'must be an Interface, such as Interface("veth1", peer_if_name="veth2")'


_NO_NAME: Final = "must be the name of an interface"
_NO_PROBLEMS: Final = "must be a list of the problems of the value, each an InvalidValue"


class Configurator(WarnsUnclosed):
    """Maintain the desired interfaces on this host, using pairs with its label and no others.

        with Session() as session, Configurator(session, label="mine") as configurator:
            configurator.resync([Interface("veth1", "veth2", enabled=True), Interface("veth2", "veth1", enabled=True)])
            while True:
                for name, status in configurator.poll(timeout=None).items():
                    print(name, status.state if status else "is not configured any more")

    It starts no thread and needs no event loop: :meth:`poll` does all the work, :meth:`fileno` is readable when there
    is work, and :meth:`due` returns when there will be work.

    `missing_netns` selects what happens if a named namespace does not exist: "create" it for a pair, or "wait" until
    it exists. With `loopback`, the loopback of each namespace that it creates is set up. `limits` restrict the size of
    each input. `ipv6` is the policy for interfaces whose configuration leaves open whether they have IPv6: with "on",
    it is left as new links of the namespace have it; with "auto", those in the home namespace have none, which saves
    more time the more of them there are; with "off", none has it. Interfaces with IPv6 addresses or `link_only` are
    excepted, and all are if net.ipv6.conf cannot be written. `records` is the directory of the record of built pairs:
    None for the default of the label below /run/vethlib, "" to keep the record in memory only. The resolver of the
    session finds microservices. A configurator must not be used by several threads at once. Close it, or use it in a
    ``with`` statement; the host stays as it is.

    Raises InvalidValue, NetlinkError, and NotPermitted with CAP_SYS_ADMIN but without CAP_NET_BROADCAST.
    """

    _usage = "Configurator(…)"

    def __init__(
        self,
        session: Session,
        *,
        label: str = "vpp1",
        missing_netns: str = "create",
        loopback: bool = True,
        limits: Limits = DEFAULT,
        records: str | None = None,
        ipv6: IPv6Policy = "on",
    ) -> None:
        check_type(session, Session, "session", "must be a Session")
        self.label = check_label(label)
        if missing_netns not in ("create", "wait"):
            raise InvalidValue("missing_netns", missing_netns, 'must be "create" or "wait"')
        if ipv6 not in get_args(IPv6Policy):
            raise InvalidValue("ipv6", ipv6, 'must be "on", "auto" or "off"')
        check_type(limits, Limits, "limits", "must be Limits, such as Limits(addresses=100)")
        self.ipv6: IPv6Policy = ipv6 if can_switch_ipv6() else "on"
        """The policy for IPv6 that applies."""
        self.limits = limits
        """The limits on the size of each input."""
        self.session = session
        """The session that it works with; other code may read with it, too."""
        self.counters = Counters()
        """Counters of the work."""
        self.tally = self.counters
        """The former name of `counters`."""
        self._desired = Desired()
        self._occasions = Occasions()
        self._backoff = Backoff()
        self._statuses = Statuses(limits)
        home = session.identity("")
        self.indexes = Indexes(home)
        """Names ⇄ ifindexes of managed interfaces, and of the other links in the home namespace."""
        with ExitStack() as opened, system_errors("start a configurator"):
            self.pairs = opened.enter_context(RecordFile(session, label, records))
            """The record of the pairs that it has built, and its file."""
            watches = Watches(session)
            opened.callback(watches.close)
            create_missing = missing_netns == "create"
            creatable = CreatableNetns(limits.netns_made, self._desired.at, create_missing=create_missing)
            self._observer = HostObserver(session, watches, label, self.pairs, creatable)
            self._dependants = Dependants(watches.known_to_lead_to, watches.refs_at)
            self._epoll = opened.enter_context(select.epoll())
            self._wake = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            opened.callback(os.close, self._wake)
            for fd in (self._wake, *watches.filenos()):
                self._epoll.register(fd, select.EPOLLIN)
            self.indexes.reset_unmanaged(watches.cache.links(""))
            self._opened = opened.pop_all()
        owners = Owners(
            session=session,
            label=label,
            home=home,
            limits=limits,
            records=self.pairs,
            desired=self._desired,
            occasions=self._occasions,
            backoff=self._backoff,
            observer=self._observer,
            statuses=self._statuses,
            indexes=self.indexes,
            dependants=self._dependants,
            counters=self.counters,
        )
        self._reporter = Reporter(owners)
        self._passes = PassRunner(owners, self._reporter, loopback=loopback)
        self._events = Events(owners, self._reporter)
        self._quiet_until = 0.0  # nothing is due before without an event; 0 if that was not asked since the last poll
        self._pid = os.getpid()
        self._closed = False

    def close(self) -> None:
        """Detach all dependants and stop watching. The host stays as it is. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            if self._pid == os.getpid():  # a forked child only closes its copies
                self._dependants.close()
            self._opened.close()

    # --- the desired state

    def put(self, interface: Interface) -> None:
        """Set a desired interface. Putting an equal one again checks it, and retries it, immediately.

        An interface that exceeds the limits is refused (see :meth:`refuse`).
        """
        self._check()
        check_type(interface, Interface, "interface", _NO_INTERFACE)
        if beyond := interface.beyond(self.limits):
            self.refuse(interface.name, beyond)
            return
        interface = interface.with_ipv6_policy(self.ipv6)
        ref, before = interface.namespace.ref, self._desired.interfaces.get(interface.name)
        if before is not None and before.namespace.ref != ref:
            self._observer.watches.left.add(before.namespace.ref)
        elif self._observer.watches.is_gone(ref):
            self._occasions.mark(self._desired.at(ref), CONFIGURATION)
        self._observer.watches.follow(ref, self._backoff.following)
        self._configured(self._desired.put(interface))

    def delete(self, name: str) -> None:
        """Remove a desired interface. It is not an error if the name was never put."""
        self._check()
        before = self._desired.interfaces.get(name)
        if before is not None and before.namespace.ref:
            self._observer.watches.left.add(before.namespace.ref)
        self._configured(self._desired.delete(name))

    def refuse(self, name: str, problems: Iterable[InvalidValue]) -> None:
        """Report an invalid value of an interface: it becomes INVALID, and the last valid value stays in force."""
        self._check()
        check_type(name, str, "name", _NO_NAME)
        self._configured(self._desired.refuse(name, as_list_of(InvalidValue, problems, "problems", _NO_PROBLEMS)))

    def resync(
        self,
        interfaces: Iterable[Interface] | None = None,
        *,
        refused: Mapping[str, Iterable[InvalidValue]] | None = None,
        complete: bool = True,
    ) -> None:
        """Compare the whole host with the desired state, and retry everything that failed immediately.

        If `interfaces` is given, they replace the desired interfaces. Pairs of this label that are no longer desired
        are deleted. A pair that matches its configuration is not touched. `refused` are the names of invalid values, as
        for :meth:`refuse`. Without `complete`, there may be other desired interfaces, so no pair is deleted because
        it is missing here.
        """
        self._check()
        if interfaces is not None:
            refused = _checked_refusals(refused)
            listed = as_list_of(Interface, interfaces, "interfaces", _NO_INTERFACE)
            by_name = {interface.name: interface for interface in listed}
            if complete:
                for name in self._desired.names() - by_name.keys() - refused.keys():
                    self.delete(name)
            for name, interface in by_name.items():
                before = self._desired.interfaces.get(name)
                if before != interface or before.remarks != interface.remarks or name in self._desired.refused:
                    self.put(interface)
            for name, problems in refused.items():
                self.refuse(name, problems)
            self._desired.declare(complete=complete)
        self._backoff.try_all()
        self._occasions.everything("resync")
        os.eventfd_write(self._wake, 1)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise belongs_to_parent("configurator", self._pid)
        if self._closed:
            raise SessionClosed("this configurator is closed")

    def _configured(self, names: Collection[str]) -> None:
        """Look at these interfaces, which a change of the configuration concerns."""
        self._backoff.forget(names)
        self._occasions.configured(names)
        self._backoff.looking.due = None
        os.eventfd_write(self._wake, 1)

    # --- the observed state

    def status(self, name: str | None = None) -> list[Status]:
        """Return the status of all interfaces that were put or refused, ordered by name; or only of `name`, if any."""
        now = self._statuses.now
        if name is not None:
            return [now[name]] if name in now else []
        return [now[name] for name in sorted(now)]

    def interface(self, name: str) -> Interface | None:
        """Return the configuration in force for an interface; None if there is none."""
        return self._desired.interfaces.get(name)

    def history(self, name: str) -> list[Change]:
        """Return the latest changes of an interface, oldest first, even if it was removed recently."""
        return self._statuses.history.of(name)

    def lookup_interfaces(self) -> list[Status]:
        """Return :meth:`status`, followed by the links of the home namespace that are not owned, as UNMANAGED."""
        self._check()
        owned = {status.link.index for status in self._statuses.now.values() if status.link and not status.link.netns}
        others = [link for link in self._observer.watches.cache.links("") if link.index not in owned]
        return self.status() + [
            Status(link.name, State.UNMANAGED, "", 0.0, "", link.name, "", link, link.peer_index) for link in others
        ]

    def load(self) -> Load:
        """Return the amount of work, and the number of watched namespaces."""
        self._check()
        watched = len(self._observer.watches.cache.netns())
        return Load(self._occasions.count() + self._passes.being_created, self._backoff.waiting(), watched)

    def subscribe(self, callback: Callable[[StatusChange], object] | None = None) -> Subscription[StatusChange]:
        """Subscribe to the status of every interface, followed by every change, in order.

        With a callback, :meth:`poll` calls it at its end. Without one, take the changes from the returned object.
        """
        replay = [StatusChange(status.name, status) for status in self.status()]
        return self._statuses.subscribers.add(callback, replay)

    def attach(self, dependant: Dependant) -> Attachment:
        """Register a dependant, which is attached to its link whenever the link exists and is up.

        It is detached before this object deletes the link or sets it down, and immediately after others do. This ends
        with :meth:`Attachment.remove`.
        """
        self._check()
        attachment = self._dependants.add(dependant)
        try:
            self._observer.watches.follow(dependant.netns, self._backoff.following)
            self._events.find_for_dependants({dependant.netns})
        except BaseException:
            attachment.remove()
            raise
        return attachment

    # --- the work

    def fileno(self) -> int:
        """Return a descriptor, for any kind of event loop, that is readable when :meth:`poll` has work."""
        self._check()
        return self._epoll.fileno()

    def due(self) -> float | None:
        """Return the seconds after which :meth:`poll` has work even without an event; None for never."""
        self._check()
        return 0.0 if self._occasions.torn else self._due()

    @property
    def behind(self) -> bool:
        """Return whether :meth:`poll` has left work for its next call."""
        return self._passes.has_work

    @property
    def detecting(self) -> int:
        """Return how many interfaces are PENDING only until duplicate address detection has finished."""
        return len(self._reporter.detecting)

    def _due(self) -> float | None:
        if self.indexes.pending or self._statuses.subscribers.pending or self.behind:
            return 0.0
        due = self._events.next_due()
        self._quiet_until = math.inf if due is None else due
        return earliest(None if due is None else max(0.0, due - time.monotonic()), self.pairs.due())

    def poll(self, timeout: float | None = 0) -> dict[str, Status | None]:
        """Do the pending work, and return the statuses that have changed; None for an interface that was removed.

        If there is no work, wait up to `timeout` seconds (None: without limit). If there is much work, only part of it
        is done, and :meth:`due` returns 0.

        Refusals by the kernel are reported in the statuses. Raises SessionClosed, InvalidValue for a bad time-out.
        """
        self._check()
        deadline = deadline_after(timeout)
        if self._occasions.torn:
            # Events that were read but not acted upon are lost, and so are changes that were taken but not returned.
            self._occasions.everything("an interruption")
            self._statuses.take_back()
            self._passes.abandon_creation()
            self._observer.note_work()
            self._events.recover()
            self._quiet_until = 0.0
        self._occasions.torn = True
        while True:
            try:
                os.eventfd_read(self._wake)
            except BlockingIOError:
                pass
            # A change of the configuration alone is a reason for a pass, and not to ask all sources of events.
            quiet_until, self._quiet_until = self._quiet_until, 0.0
            if quiet_until <= time.monotonic() or self._epoll.poll(0):
                self._events.collect()
            until = time.monotonic() + BUDGET
            while self._passes.has_work:
                self._passes.run_next()
                if time.monotonic() >= until:
                    break
            self.pairs.try_again()
            self._reporter.warn_of_record()
            self.indexes.deliver()
            self._statuses.subscribers.deliver()
            changed = self._statuses.take_changes()
            left = None if deadline is None else deadline - time.monotonic()
            if changed or (left is not None and left <= 0):
                self._occasions.torn = False
                return changed
            due = self._due()
            self._epoll.poll(min(seconds for seconds in (left, due, LONGEST) if seconds is not None))


def _checked_refusals(refused: Mapping[str, Iterable[InvalidValue]] | None) -> dict[str, list[InvalidValue]]:
    """Return the problems of each invalid value. Raises InvalidValue before anything is changed."""
    if refused is None:
        return {}
    if not isinstance(refused, Mapping):
        raise InvalidValue("refused", refused, "must be a mapping of names to lists of InvalidValue")
    return {
        check_type(name, str, "refused", _NO_NAME): as_list_of(InvalidValue, problems, "refused", _NO_PROBLEMS)
        for name, problems in refused.items()
    }
