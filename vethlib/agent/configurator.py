"""Configurator: the interfaces of a host kept as they are wanted.

Theory of operation:

1. Whatever happens only marks interfaces as dirty: a new configuration, a namespace that comes or goes, a link that
   somebody changed, a time that is due. Nothing of what the occasion was is remembered.
2. The work for the dirty ones compares what is wanted with what is there: look, plan, execute, and look again, until a
   look finds nothing left to do. They are planned together, with whom they concern, so that thousands cost what bulk
   operations cost. An interface is CONFIGURED because a look has found it right, never because it was told to be.
3. The first look is at the whole host: what an earlier run has left is known from then on, wherever it is. It is
   deleted for not being configured only after :meth:`Configurator.resync` has said what the whole configuration is.
4. One switch (`repair.outcome`) says what follows: done, wait for an event, try again later, or nothing until the
   configuration changes.
5. All work is done in :meth:`Configurator.poll`, by the thread that calls it.
"""

from __future__ import annotations

import logging
import os
import select
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

from vethlib.errors import InvalidValue, NetlinkError, SessionClosed, VethError
from vethlib.ifindex import LinkEvent
from vethlib.session import Session
from vethlib.session.refusal import system_errors

from .dependants import Attachment, Dependant, Dependants
from .desired import Desired
from .execute import interfaces_of
from .follow import Follower
from .indexes import Indexes
from .mark import check_label
from .model import Interface
from .observed import Observed, SeenLink
from .operations import ChangeLink, DeletePair, Operation, Plan
from .plan import CONFIGURED
from .records import Records
from .repair import Attempts, Outcome, outcome
from .sight import Heard, Sight
from .state import State, Verdict
from .status import Status
from .statuses import StatusChange, Statuses
from .subscriptions import Subscription
from .tally import Load, Tally
from .work import Findings, Work

__all__ = ["Configurator"]

_log = logging.getLogger("vethlib.agent")


class Configurator:
    """Keeps the interfaces of this host as they are wanted, by the pairs that bear its label and no others.

        with Session() as session, Configurator(session, label="mine") as configurator:
            configurator.resync([Interface("veth1", "veth2", …), Interface("veth2", "veth1", …)])
            while True:
                for name, status in configurator.poll(timeout=None).items():
                    print(name, status)

    It starts no thread and needs no event loop: :meth:`poll` does all the work, :meth:`fileno` is readable when there
    is some, and :meth:`due` says when there will be.

    `missing_netns` is what to do for a named namespace that is not there: "create" it for a pair, or "wait" for
    somebody to create it. Microservices are found by the session's resolver. Not for several threads at once. Close
    it, or use it in a ``with``; the host stays as it is.

    Raises InvalidValue, and as :class:`vethlib.IfIndexCache` does: NotPermitted, NetlinkError.
    """

    def __init__(self, session: Session, *, label: str = "vpp1", missing_netns: str = "create") -> None:
        self._closed = True  # until there is something to close
        self.label = check_label(label)
        if missing_netns not in ("create", "wait"):
            raise InvalidValue("missing_netns", missing_netns, 'say "create" or "wait"')
        self.session = session
        """That which it works with, for those who read beside it."""
        self.tally = Tally()
        """What was done, in numbers."""
        self._desired = Desired()
        self._dirty: dict[str, str] = {}  # each with the first occasion, for the log
        self._everything = "start"  # is to be looked at, on this occasion
        self._whole = False  # the configuration is known to be all there is
        self._left: set[str] = set()  # references that an interface had before
        self._unfollowed: set[str] = set()
        self._records = Records()
        self._looking = Attempts()  # at anything
        self._following = Attempts()  # what could not be followed
        self._leftovers = Attempts()  # at deleting what no interface bears the name of
        self._deleted: set[str] = set()  # names that are not wanted any more, while it is not known what is
        self._torn = False  # a poll was interrupted
        self._statuses = Statuses()
        self._follower = Follower(session.resolver)
        self._home = session.identity("")
        self.indexes = Indexes(self._home)
        """Names ⇄ ifindexes of what is managed, and of the other links of home."""
        with ExitStack() as opened, system_errors("start a configurator"):
            opened.callback(self._follower.close)
            self._sight = Sight(session, self._follower, label, create_missing=missing_netns == "create")
            opened.callback(self._sight.close)
            self._dependants = Dependants(self._sight.place)
            self._epoll = opened.enter_context(select.epoll())
            self._wake = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            opened.callback(os.close, self._wake)
            for fd in (self._wake, self._follower.fileno(), self._sight.cache.fileno()):
                self._epoll.register(fd, select.EPOLLIN)
            self.indexes.reset_unmanaged(self._sight.cache.links(""))
            self._opened = opened.pop_all()
        self._closed = False

    def __enter__(self) -> Configurator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}: close it, or use `with Configurator(…)`", ResourceWarning, 2, self)
            self.close()

    def close(self) -> None:
        """Detach what is attached and stop following; twice is harmless. The host stays as it is."""
        if not self._closed:
            self._closed = True
            self._dependants.close()
            self._opened.close()

    # --- what is wanted

    def put(self, interface: Interface) -> None:
        """Want this interface as it is given. Putting an equal one again has it looked at, and tried again, at once."""
        self._check()
        before = self._desired.interfaces.get(interface.name)
        self._follow(before, interface)
        self._deleted.discard(interface.name)
        self._take(self._desired.put(interface))

    def delete(self, name: str) -> None:
        """Want no such interface any more. The name of one that was never put is no error."""
        self._check()
        self._follow(self._desired.interfaces.get(name), None)
        if not self._whole:
            self._deleted.add(name)
        self._take(self._desired.delete(name))

    def refuse(self, name: str, problems: Iterable[InvalidValue]) -> None:
        """The value of this interface is bad: it is INVALID, and what was put before, if anything, stays in force."""
        self._check()
        self._take(self._desired.refuse(name, problems))

    def resync(
        self,
        interfaces: Iterable[Interface] | None = None,
        *,
        refused: Mapping[str, Iterable[InvalidValue]] | None = None,
        complete: bool = True,
    ) -> None:
        """Look at the whole host again, and try at once what was put off; with `interfaces`, these are all that is
        wanted from now on.

        Pairs of this label that nobody wants are deleted then. A pair that is as it should be is not touched.
        `refused` has the names whose values are bad, as for :meth:`refuse`. Without `complete`, there may be more than
        was given: nothing is deleted for not being mentioned.
        """
        self._check()
        if interfaces is not None:
            refused = refused or {}
            wanted = {interface.name: interface for interface in interfaces}
            if complete:
                for name in self._desired.names() - wanted.keys() - refused.keys():
                    self.delete(name)
            for name, interface in wanted.items():
                if self._desired.interfaces.get(name) != interface or name in self._desired.refused:
                    self.put(interface)
            for name, problems in refused.items():
                self.refuse(name, problems)
            self._whole = complete
            self._deleted.clear()
        self._records.try_all()
        self._looking.succeed()
        self._everything = self._everything or "resync"
        os.eventfd_write(self._wake, 1)

    def _check(self) -> None:
        if self._closed:
            raise SessionClosed("this configurator is closed")

    def _take(self, names: Iterable[str]) -> None:
        """Mark them as dirty, because another configuration concerns them."""
        for name in names:
            self._records.forget(name)
            self._dirty.setdefault(name, "configuration")
        self._looking.due = None
        os.eventfd_write(self._wake, 1)

    def _follow(self, before: Interface | None, now: Interface | None) -> None:
        """Follow what its namespace reference leads to, and no more what the one before did."""
        old = "" if before is None else before.namespace.ref
        new = "" if now is None else now.namespace.ref
        if before is not None and old != new:
            self._left.add(old)
        elif self._follower.gone(new):
            # It is put again, so the process is meant that has that number now.
            self._follower.unfollow([new])
            for name in self._desired.at(new):
                self._dirty.setdefault(name, "configuration")
        if now is not None:
            self._follow_also(new)

    def _follow_also(self, ref: str) -> None:
        """Follow this one, too; later, if there are no descriptors for it now."""
        try:
            self._follower.follow([ref])
        except NetlinkError as error:
            if not self._unfollowed:
                _log.warning("%s is not followed for now: %s", ref, error)
                self._following.fail(time.monotonic())
            self._unfollowed.add(ref)

    def _follow_the_rest(self, now: float) -> None:
        """Follow what could not be followed before; what has happened to it since is found by looking."""
        try:
            while self._unfollowed:
                ref = next(iter(self._unfollowed))
                self._follower.follow([ref])
                self._unfollowed.discard(ref)
                for name in self._desired.at(ref):
                    self._dirty.setdefault(name, f"{ref} can be followed")
        except NetlinkError:
            self._following.fail(now)
        else:
            self._following.succeed()

    # --- what is

    def status(self, name: str | None = None) -> list[Status]:
        """The status of every interface that was put or refused, by name; or of this one, which may be none."""
        now = self._statuses.now
        if name is not None:
            return [now[name]] if name in now else []
        return [now[name] for name in sorted(now)]

    def lookup_interfaces(self) -> list[Status]:
        """As :meth:`status`, and after them the links of the home namespace that are not ours, as UNMANAGED."""
        ours = {status.link.index for status in self._statuses.now.values() if status.link and not status.link.netns}
        others = [link for link in self._sight.cache.links("") if link.index not in ours]
        return self.status() + [
            Status(link.name, State.UNMANAGED, "", 0.0, "", link.name, "", link, link.peer_index) for link in others
        ]

    def load(self) -> Load:
        """What there is to do, and to watch."""
        return Load(len(self._dirty), self._records.waiting(), len(self._sight.cache.netns()))

    def subscribe(self, callback: Callable[[StatusChange], object] | None = None) -> Subscription[StatusChange]:
        """Be told of the status of every interface, and then of every change, in order.

        With a callback, :meth:`poll` calls it at its end; without one, what is returned has them.
        """
        replay = [StatusChange(status.name, status) for status in self.status()]
        return self._statuses.subscribers.add(callback, replay)

    def attach(self, dependant: Dependant) -> Attachment:
        """Have this attached to its link whenever that is there and up, as long as :meth:`Attachment.remove` was not
        called. It is detached before the link is deleted or set down here, and at once when others do that.
        """
        self._check()
        attachment = self._dependants.add(dependant)
        self._follow_also(dependant.netns)
        self._find_for_dependants({dependant.netns})
        return attachment

    def _find_for_dependants(self, refs: set[str]) -> None:
        """These references, of which dependants wait for a link, may lead elsewhere than before."""
        try:
            self._sight.watch_also(refs)
        except VethError as error:
            _log.warning("nothing is heard of the links that dependants wait for: %s", error)
            self._everything = self._everything or "another try"
            self._looking.fail(time.monotonic())
            return
        for ref in refs:
            place = self._sight.place(ref)
            for name in self._dependants.names_at(ref):
                link = self._sight.link_called(name, ref)
                if place is not None and link is not None:
                    self._dependants.link_is(place, link)
        self._dependants.look_again(refs)

    # --- the work

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to :meth:`poll`; for any kind of event loop."""
        self._check()
        return self._epoll.fileno()

    def due(self) -> float | None:
        """In how many seconds there will be something to :meth:`poll` though nothing happens; None: never."""
        return 0.0 if self._torn else self._due()

    def _due(self) -> float | None:
        if self.indexes.pending or self._statuses.subscribers.pending:
            return 0.0
        dues = (self._looking.due, self._leftovers.due, self._following.due, self._records.next_due())
        times = [due for due in dues if due is not None]
        following = self._follower.due()
        left = min(times) - time.monotonic() if times else None
        if following is not None:
            left = following if left is None else min(left, following)
        return None if left is None else max(0.0, left)

    def poll(self, timeout: float | None = 0) -> dict[str, Status | None]:
        """Do what there is to do now, and return the statuses that have changed; None for an interface that is no more.

        If there is nothing, wait for something up to `timeout` seconds (None: as long as it takes).

        What the kernel refuses is told by the statuses. Raises SessionClosed.
        """
        self._check()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._torn:
            # What was heard and not yet acted upon is lost, and so is what was not told.
            self._everything = self._everything or "an interruption"
            self._statuses.take_back()
        self._torn = True
        while True:
            self._collect()
            if (self._dirty or self._everything) and (self._looking.due or 0.0) <= time.monotonic():
                self._work()
            self.indexes.deliver()
            self._statuses.subscribers.deliver()
            changed = self._statuses.take_changes()
            left = None if deadline is None else deadline - time.monotonic()
            if changed or (left is not None and left <= 0):
                self._torn = False
                return changed
            due = self._due()
            self._epoll.poll(due if left is None else left if due is None else min(left, due))

    def _collect(self) -> None:
        """Mark as dirty whatever has an occasion to be."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        refs = self._follower.changed()
        for ref in refs:
            for name in self._desired.at(ref) | (self._sight.known_at(ref) if ref in self._left else set()):
                self._dirty.setdefault(name, f"{ref} changed")
        if waited_in := refs & self._dependants.refs:
            self._find_for_dependants(waited_in)
        now = time.monotonic()
        for name in self._records.take_due(now):
            self._dirty.setdefault(name, "another try")
        if self._following.due is not None and self._following.due <= now:
            self._follow_the_rest(now)
        if self._leftovers.due is not None and self._leftovers.due <= now:
            self._leftovers.due = None
            self._everything = self._everything or "another try"
        try:
            self._hear(self._sight.cache.poll())
        except VethError as error:
            # It stays due in the cache, too.
            self._everything = self._everything or "events of links cannot be read"
            self._fail(self._desired.names(), error)

    def _hear(self, events: list[LinkEvent]) -> None:
        if any(event.kind == "resync" for event in events):
            self.tally.overflows += 1
            self._everything = self._everything or "events of links were lost"
            self.indexes.reset_unmanaged(self._sight.cache.links(""))
        heard = self._sight.concerned(self._desired, events)
        self._pass_on(heard)
        now = time.monotonic()
        for name in heard.wrong:
            # The next try is due by itself, be it after a failure, which has events of its own (what was made half is
            # taken back), or in a fight, of which each stroke is one.
            status = self._statuses.now.get(name)
            if status is None or status.state is not State.RETRYING or not self._records.waits(name, now):
                self._dirty.setdefault(name, "its link is not as it was")
        for name in heard.bereft:
            self._dirty.setdefault(name, "its namespace has ended")
        for name, (place, link) in heard.right.items():
            if (fresh := self._statuses.refresh(name, link)) is not None:
                self.indexes.set_managed(name, place, self._desired.interfaces[name].namespace.ref, fresh)
        for name, address, given in heard.addresses:
            self._statuses.refresh_address(name, address, given)

    def _pass_on(self, heard: Heard) -> None:
        """Tell those who follow links of what has become of them."""
        for (place, index), link in heard.links.items():
            if place == self._home:
                if link is None:
                    self.indexes.remove_unmanaged(index)
                else:
                    self.indexes.set_unmanaged(link)
            if link is None:
                self._dependants.link_is_gone(place, index)
            else:
                self._dependants.link_is(place, link)
        for place in heard.ended:
            self._dependants.place_is_gone(place)
        if heard.ended:
            # Another one may be there under the name since before its end was heard of.
            self._find_for_dependants(self._dependants.refs)

    def _work(self) -> None:
        dirty, everything = self._dirty, self._everything
        self._dirty, self._everything = {}, ""
        work = Work(
            self.session,
            self._sight,
            self._desired,
            self.label,
            set(dirty),
            everything=bool(everything),
            prune=self._whole or self._deleted,
            may_act=self._may_act,
            before=self._before,
            tally=self.tally,
        )
        if everything:
            self.tally.resyncs[everything] += 1
        try:
            with self.tally.timing("bout"):
                findings = work.run()
        except BaseException as error:
            # What is there is not known any more, least of all after an interruption.
            self._dirty = dirty | self._dirty
            self._everything = everything or "what is there is not known"
            if not isinstance(error, VethError):
                raise
            self._fail(dirty.keys() | self._desired.names() if everything else dirty, error)
            return
        self._looking.succeed()
        if findings.leftovers:
            self._leftovers.fail(time.monotonic())
        elif everything:
            self._leftovers.succeed()
        self._settle(findings, dirty, everything)
        self._leave()

    def _leave(self) -> None:
        """Follow no more what nobody needs any more."""
        if not self._left:
            return
        kept = self._dependants.refs
        left = {ref for ref in self._left if not self._sight.known_at(ref)}
        self._follower.unfollow(ref for ref in left if ref not in kept and not self._desired.at(ref))
        for place in self._sight.release(self._desired, left, kept):
            self._dependants.place_is_gone(place)
        self._left -= left

    def _may_act(self, names: Sequence[str]) -> str:
        return self._records.may_act(names, time.monotonic())

    def _before(self, operations: Sequence[Operation], observed: Observed, planned: Plan) -> None:
        """Detach whoever is attached to a link that is about to go, or to go down; and note whom this repairs."""
        for operation in operations:
            if isinstance(operation, DeletePair):
                end = operation.place, operation.index
                for place, index in filter(None, (end, observed.by_index[end].peer)):
                    self._dependants.link_is_gone(place, index)
            elif isinstance(operation, ChangeLink) and not operation.changes.keys().isdisjoint(("name", "up")):
                self._dependants.link_is_gone(operation.place, operation.index)
        # Who was as wanted, has not been put since, and lacks nothing that it needs.
        now = time.monotonic()
        for name in self._records.settled({name for operation in operations for name in interfaces_of(operation)}):
            verdict = planned.verdicts.get(name)
            if verdict is not None and verdict.state is State.CONFIGURED:
                self._records.repaired(name, now)

    def _settle(self, findings: Findings, dirty: Mapping[str, str], everything: str) -> None:
        """Say what has become of every interface that was worked on, and when to go on with it."""
        now = time.monotonic()
        done: dict[str, list[Operation]] = {}
        for operation in findings.done:
            for name in interfaces_of(operation):
                done.setdefault(name, []).append(operation)
        cause = everything or ", ".join(dict.fromkeys(dirty.values()))
        for name in findings.names | (self._statuses.now.keys() if everything else set()):
            standing = self._standing(name, findings)
            verdict = self._judge(name, findings, now, standing=bool(standing))
            if verdict is None:
                changed = self._statuses.remove(name)
            elif standing:
                # Who follows the link goes on with what was found last.
                verdict = CONFIGURED
                changed = self._say(name, verdict, None, standing, unseen=True)
            else:
                changed = self._say(name, verdict, findings.plan.found.get(name))
            if not standing:
                self._register(name, verdict, findings.plan.found.get(name))
            if changed or name in done:
                self._statuses.log(name, verdict, done.get(name, ()), dirty.get(name, cause))

    def _standing(self, name: str, findings: Findings) -> str:
        """What to say of one that was as it is wanted, and is so still as far as events tell, while nobody says where
        its namespace is; "" for any other.
        """
        status, verdict = self._statuses.now.get(name), findings.verdict(name)
        if name not in findings.plan.doubtful or verdict is None or verdict.state is not State.PENDING:
            return ""
        if status is None or status.state is not State.CONFIGURED or status.link is None:
            return ""
        if not self._records.settled({name}) or name in self._desired.refused:
            return ""
        if not self._sight.stands(self._desired.interfaces[name], status.link):
            return ""
        return f"it stands, but cannot be checked: {verdict.reason}"

    def _judge(self, name: str, findings: Findings, now: float, *, standing: bool) -> Verdict | None:
        """The state of one, None if it is not wanted and nothing is left of it; and what follows from it."""
        verdict = findings.verdict(name)
        error = findings.errors.get(name)
        follows = Outcome.DONE if verdict is None else outcome(verdict, error)
        self.tally.outcomes[follows.value] += 1
        configured = standing or (verdict is not None and verdict.state is State.CONFIGURED)
        self._records.fared(name, follows, now, configured=configured, held=name in findings.held)
        if follows is Outcome.TERMINAL:
            verdict = Verdict(State.FAILED, str(error))
        problems = self._desired.refused.get(name)
        if problems is not None:
            reason = "; ".join(map(str, problems))
            kept = "; the last valid value stays in force" if name in self._desired.interfaces else ""
            verdict = Verdict(State.INVALID, reason + kept)
        return verdict

    def _register(self, name: str, verdict: Verdict | None, seen: SeenLink | None) -> None:
        """Let the registry and the dependants know of the link that an interface has, or that it has none."""
        if seen is None or verdict is None:
            self.indexes.remove_managed(name)
        elif isinstance(seen.place, tuple):
            self.indexes.set_managed(name, seen.place, self._desired.interfaces[name].namespace.ref, seen.link)
            self._dependants.link_is(seen.place, seen.link)

    def _say(
        self, name: str, verdict: Verdict, seen: SeenLink | None, doubt: str = "", *, unseen: bool = False
    ) -> bool:
        """The status of an interface and its link, if it was `seen`; `unseen`: the one that was seen last."""
        attempt, due = 0, 0.0
        if verdict.state is State.RETRYING:
            attempts = self._looking if self._looking.failed else self._records.of(name)
            assert attempts.due is not None
            attempt = attempts.failed or attempts.repairs
            due = time.time() + attempts.due - time.monotonic()
        interface = self._desired.interfaces.get(name)
        warning = doubt or ("" if interface is None else self._follower.remark(interface.namespace.ref))
        return self._statuses.say(
            name, verdict, interface, seen, attempt=attempt, due=due, warning=warning, unseen=unseen
        )

    def _fail(self, names: Iterable[str], error: VethError) -> None:
        """Looking is impossible: none of these is known to be as it should."""
        self._looking.fail(time.monotonic())
        verdict = Verdict(State.RETRYING, str(error))
        for name in names:
            if self._say(name, verdict, None, unseen=True):
                self._statuses.log(name, verdict, (), "looking is impossible")
