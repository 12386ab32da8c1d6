"""What an agent says of itself and of its interfaces, under a lease: when the agent ends, so does what it said.

The same lease is the pulse of the connection. A peer that is silent looks like one that has nothing to say; only a
question that has to be answered tells them apart, and it has to be asked often enough.

What was written is looked after, too: somebody may delete it, or an agent of the same label overwrite it and end.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Mapping
from typing import Any

from vethlib import __version__
from vethlib.agent.status import Status
from vethlib.agent.stores.keys import liveness_key, presence_key
from vethlib.agent.stores.protocol import StoreError

from . import etcd_pb2 as pb
from .address import Address
from .connection import OPS, Connection, end_of
from .ledger import Ledger, as_json
from .refusal import Denied, LeaseGone, TooLarge
from .streams import Pulse

__all__ = ["ANSWER", "Publisher"]

ANSWER = 2.5  # seconds that a heartbeat's answer may take
_AGAIN = 30.0  # seconds after which what was refused is tried again
_CHECK = 15  # heartbeats between two looks at what was written
_LONGEST_CHECK = 300.0  # seconds between them, where another agent of the label is there, too
_PARTING = 1.0  # seconds that taking leave may take
_OK = 1  # of the states of an agent: 0 it starts, 1 it works, 2 it has failed

_log = logging.getLogger("vethlib.agent")


class Publisher:
    """A thread that keeps a lease alive and writes under it, over the connection that it was given last.

    A connection that fails is closed with the error, and so whoever else uses it hears of that. That etcd refuses to do
    something is no failure of the connection.
    """

    def __init__(self, address: Address, label: str) -> None:
        self._address = address
        self._label = label
        self._liveness = liveness_key(label).encode()
        self._presence = presence_key(label, _this_agent()).encode()
        self._started = int(time.time())
        self._condition = threading.Condition()  # over all that follows, and the ledger; not while etcd is asked
        self._ledger = Ledger(label)
        self._begun = False  # there is something to be said of interfaces, if only that there are none
        self._connection: Connection | None = None
        self._pulse: Pulse | None = None
        self._lease = 0
        self._alive = False  # is written
        self._alone = False  # what others have said of interfaces is to go
        self._next = 0.0  # heartbeat
        self._check_at = 0.0
        self._check_every = _CHECK * address.heartbeat
        self._put_off = 0.0  # no writing before this
        self._refusal = ""  # that was told
        self._looked = False  # who said before us that he is alive
        self._other = ""  # agent of the label, that was told
        self._looking = False  # who else says that he is alive
        self._others: set[str] = set()  # that were told
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="vethlib-etcd-status", daemon=True)
        self._thread.start()

    def publish(self, statuses: Mapping[str, Status | None], revisions: Mapping[str, int]) -> None:
        """Write these as soon as that can be done. `revisions` are those of the configuration that was worked on."""
        with self._condition:
            self._begun = True
            self._ledger.say(statuses, revisions)
            self._condition.notify()

    def use(self, connection: Connection | None) -> None:
        """Go on over this connection; None: wait for another."""
        with self._condition:
            self._connection = connection
            self._next = self._put_off = 0.0
            self._condition.notify()

    def look_around(self) -> None:
        """Another agent of the label has come, or one has gone."""
        with self._condition:
            self._looking = True
            self._next = 0.0
            self._condition.notify()

    def close(self) -> None:
        """Take leave: what was said is no longer true."""
        with self._condition:
            self._ending = True
            self._condition.notify()
        self._thread.join(2 * _PARTING)  # longer only where an answer is waited for that does not come

    # --- in the thread

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._ending and (left := self._left) != 0.0:
                    self._condition.wait(left)
                connection, ending = self._connection, self._ending
            if ending:
                self._leave(connection)
                return
            assert connection is not None
            try:
                self._work(connection)
            except LeaseGone:
                self._forget()
            except Denied as error:
                self._refused(str(error))
            except StoreError as error:
                connection.close(error)
                self._drop(connection)
            except Exception as error:
                _log.exception("the status cannot be written")
                self._refused(repr(error))

    @property
    def _left(self) -> float | None:
        """Seconds until there is something to do; None: not before somebody says so."""
        if self._connection is None:
            return None
        has_to_write = self._begun and not (self._ledger.is_written and self._alone)
        due = min(self._next, self._put_off) if has_to_write else self._next
        return max(0.0, due - time.monotonic())

    def _work(self, connection: Connection) -> None:
        now = time.monotonic()
        if not self._lease:
            self._lease = connection.grant(self._address.lease)
            self._next = now + self._address.heartbeat
        elif now >= self._next:
            self._beat(connection)
            self._next = now + self._address.heartbeat
        if now < self._put_off:
            return
        if self._refusal:
            connection.authenticate()  # the login may be what is refused
        if self._alive and now >= self._check_at:
            self._check(connection)
        if not self._alive:
            self._say_alive(connection)
        if self._looking:
            self._looking = False
            self._look_around(connection)
        if self._begun and not self._alone:
            self._clear_others(connection)
        self._write(connection)
        if self._refusal:
            _log.info("the status is written again")
            self._refusal = ""
        self._put_off = 0.0

    def _beat(self, connection: Connection) -> None:
        pulse = self._pulse
        if pulse is None or pulse.has_ended or pulse.connection is not connection or pulse.lease != self._lease:
            if pulse is not None:
                pulse.close()
            pulse = self._pulse = connection.pulse(self._lease)
        pulse.beat(ANSWER)

    def _write(self, connection: Connection) -> None:
        """Write what there is to be written, in as few transactions as etcd takes."""
        count = OPS
        while True:
            with self._condition:
                operations = self._ledger.take(count, self._lease)
            if not operations:
                return
            try:
                connection.write(list(operations.values()))
            except TooLarge as error:
                if count > 1:
                    self._give_back(operations)
                    count = max(1, len(operations) // 2)
                else:
                    _log.warning("a status cannot be written: %s", error)
            except BaseException:
                self._give_back(operations)
                raise

    def _give_back(self, operations: Mapping[bytes, object]) -> None:
        with self._condition:
            self._ledger.give_back(operations)

    def _say_alive(self, connection: Connection) -> None:
        if not self._looked:
            self._looked = True
            self._look_who_was_there(connection)
        entry = {
            "build_version": __version__,
            "state": _OK,
            "start_time": self._started,
            "last_change": self._started,
            "host": platform.node(),
            "pid": os.getpid(),
        }
        put = pb.PutRequest(key=self._liveness, value=as_json(entry), lease=self._lease)
        connection.write([pb.RequestOp(request_put=put)])
        try:
            put = pb.PutRequest(key=self._presence, value=as_json(entry), lease=self._lease)
            connection.write([pb.RequestOp(request_put=put)])
        except Denied:
            pass  # it may write what it has to, and no more
        self._alive = self._looking = True
        self._check_at = time.monotonic() + self._check_every

    def _look_who_was_there(self, connection: Connection) -> None:
        """Warn of an agent on another host. One on this host may be our predecessor, whose lease has yet to end."""
        try:
            found = connection.get(self._liveness)
        except Denied:
            return  # who may not read can but write
        if found is not None and _entry(found.value).get("host", platform.node()) != platform.node():
            self._tell_of_another(found)

    def _check(self, connection: Connection) -> None:
        """Look whether what was written is still there, and say it again where it is not."""
        self._check_at = time.monotonic() + self._check_every
        prefix = self._ledger.prefix
        # Serializable: this member answers by itself. Were it behind, all would be written once more, and no harm done.
        alive_range = pb.RangeRequest(key=self._liveness, serializable=True)
        count_range = pb.RangeRequest(key=prefix, range_end=end_of(prefix), serializable=True, count_only=True)
        look = [pb.RequestOp(request_range=alive_range), pb.RequestOp(request_range=count_range)]
        try:
            alive, statuses = (one.response_range for one in connection.write(look).responses)
        except Denied:
            self._check_at = float("inf")  # who may not read can but write
            return
        is_ours = bool(alive.kvs) and alive.kvs[0].lease == self._lease
        with self._condition:
            if is_ours and (not self._ledger.is_written or statuses.count == len(self._ledger)):
                return
            self._ledger.repeat()
            self._alone = False
        if not is_ours:
            self._alive = False
            if alive.kvs:
                self._tell_of_another(alive.kvs[0])

    def _look_around(self, connection: Connection) -> None:
        """Warn of every other agent of the label that is alive, wherever it runs; and say when that is over."""
        prefix = presence_key(self._label, "").encode()
        try:
            found = connection.read(prefix)
        except Denied:
            return
        others = {_process(raw) for key, (raw, _) in found.values.items() if key != self._presence}
        for other in sorted(others - self._others):
            self._warn_of(other)
        if self._others and not others:
            _log.info("no other agent has the label %s any more", self._label)
            self._other = ""
            with self._condition:
                self._ledger.repeat()  # it may have written over any of it, and taken it away
        self._others = others

    def _warn_of(self, other: str) -> None:
        if other != self._other:
            self._other = other
            _log.warning(
                "another agent has the label %s, too: %s. Both keep the same interfaces, and overwrite each other's "
                "status: give each a label of its own",
                self._label,
                other,
            )

    def _tell_of_another(self, found: pb.KeyValue) -> None:
        """Warn of another agent that says it is the one of this label."""
        self._check_every = min(
            2 * self._check_every, _LONGEST_CHECK
        )  # two that write in turn are not to do so all day
        self._warn_of(_process(found.value))

    def _clear_others(self, connection: Connection) -> None:
        """Have all that an earlier run said of interfaces that are no more removed."""
        try:
            found = connection.read(self._ledger.prefix, keys_only=True)
        except Denied:
            pass  # what nobody may read can stay: it ends with its lease
        else:
            with self._condition:
                self._ledger.clear(found.values)
        self._alone = True

    def _forget(self) -> None:
        """The lease has ended, and with it all that was written."""
        with self._condition:
            self._lease = 0
            self._alive = False
            self._next = 0.0
            self._ledger.repeat()

    def _refused(self, reason: str) -> None:
        """etcd does not do it. What is said already stays as long as the heart beats."""
        if reason != self._refusal:
            _log.warning("the status cannot be written: %s", reason)
            self._refusal = reason
        now = time.monotonic()
        self._put_off = now + _AGAIN
        self._next = max(self._next, now + self._address.heartbeat if self._lease else self._put_off)

    def _drop(self, connection: Connection) -> None:
        with self._condition:
            if self._connection is connection:
                self._connection = None

    def _leave(self, connection: Connection | None) -> None:
        if connection is None or not self._lease:
            return
        try:
            connection.revoke(self._lease, _PARTING)
        except StoreError:
            pass  # it ends by itself


def _this_agent() -> str:
    """What tells this agent from those of other hosts: one of a label runs in a network namespace (`instance.py`)."""
    return f"{platform.node()}:{os.stat('/proc/self/ns/net').st_ino}"


def _process(raw: bytes) -> str:
    entry = _entry(raw)
    return f"process {entry.get('pid', '?')} on {entry.get('host', '?')}"


def _entry(raw: bytes) -> dict[str, Any]:
    """The object that somebody wrote; an empty one, if it is none."""
    try:
        entry = json.loads(raw)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
