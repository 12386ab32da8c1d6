"""Publish an agent's liveness and its statuses under a lease, so that they are deleted when the agent ends.

The heartbeats of the lease also check the connection: only a request that must be answered, sent often enough,
distinguishes a silent peer from a peer without events.

Published keys are checked, too: somebody may delete or overwrite them, or another agent of the label may overwrite them
and end.

Other users may write any number of keys, of any length, beside those of the agent. So heartbeats and statuses are also
sent between the pages of a reading, and heartbeats between the transactions of a writing.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Collection, Mapping

from vethlib import __version__
from vethlib import _threads as threads
from vethlib._primitives import time
from vethlib.agent.process.boot import boot_id
from vethlib.agent.status import Status
from vethlib.agent.stores.keys import liveness_key, presence_key
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.text import cut

from . import etcd_pb2 as pb
from .address import Address
from .connection import OPS, Connection, Raw, end_of
from .ledger import Ledger, as_json
from .reading import MOST_AGENTS, entry_of, read_agents, shortened
from .refusal import Denied, LeaseGone, TooLarge
from .streams import Pulse

__all__ = ["ANSWER", "Publisher"]

ANSWER = 2.5  # seconds that the answer to a heartbeat may take
_AGAIN = 30.0  # seconds before another attempt at a refused write
_LONGEST_WORD = 64  # characters of a field that another agent has written
_MANY = f"more than {MOST_AGENTS} agents"
_MOST_STALE = 16 << 20  # bytes of the keys of foreign statuses that are deleted at a time
_MOST_NAMED = 8  # other agents that a warning names
_LEAST_PAUSE = 1.0  # seconds between two leases, and between two searches for other agents
_CHECK = 15  # heartbeats between two checks of the published keys
_LONGEST_CHECK = 300.0  # seconds between two checks if another agent has the label, too
_PARTING = 1.0  # seconds that revoking the lease may take
_OK = 1  # the states of an agent: 0 starting, 1 working, 2 failed

_log = logging.getLogger("vethlib.agent")


class Publisher:
    """A thread that keeps a lease alive and writes under it, over the latest connection that it was given.

    A connection that fails is closed with the error, so that its other users get that error. A refusal by etcd is no
    failure of the connection.
    """

    def __init__(self, address: Address, label: str) -> None:
        self._address = address
        self._label = label
        self._liveness = liveness_key(label).encode()
        self._presence = presence_key(label, _this_agent()).encode()
        self._started = int(time.time())
        self._condition = threading.Condition()  # protects the following and the ledger; not held during calls
        self._ledger = Ledger(label)
        self._begun = False  # whether publish() has been called
        self._connection: Connection | None = None
        self._pulse: Pulse | None = None
        self._lease = 0
        self._alive = False  # whether the liveness key is written
        self._alone = False  # whether statuses of others have been deleted
        self._next = 0.0  # time of the next heartbeat
        self._check_at = 0.0
        self._check_every = _CHECK * address.heartbeat
        self._put_off = 0.0  # no writing before this time
        self._refusal = ""  # the last refusal that was logged
        self._looked = False  # whether a previous agent of the label has been looked for
        self._other = ""  # the other agent of the label that was logged last
        self._looking = False  # whether to search for other agents of the label
        self._looked_at = 0.0
        self._granted_at = 0.0
        self._others: set[str] = set()  # the other agents found by the last search
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="vethlib-etcd-status", daemon=True)
        try:
            threads.start(self._thread, "writing statuses to etcd")
        except BaseException:
            with self._condition:  # it may run although its start was interrupted
                self._ending = True
                self._condition.notify()
            raise

    def publish(self, statuses: Mapping[str, Status | None], revisions: Mapping[str, int]) -> None:
        """Write these as soon as possible. `revisions` are those of the configurations that the statuses are about."""
        with self._condition:
            self._begun = True
            self._ledger.update(statuses, revisions)
            self._condition.notify()

    def use(self, connection: Connection | None) -> None:
        """Continue over this connection, or wait for the next one (None)."""
        with self._condition:
            self._connection = connection
            self._next = self._put_off = 0.0
            self._condition.notify()

    def look_around(self) -> None:
        """Search for other agents of the label, because one has started or ended."""
        with self._condition:
            self._looking = True
            self._next = min(self._next, self._looked_at + _LEAST_PAUSE)
            self._condition.notify()

    def close(self) -> None:
        """Delete everything that was published, by revoking the lease, and end the thread."""
        with self._condition:
            self._ending = True
            self._condition.notify()
        self._thread.join(2 * _PARTING)  # it takes longer only if an expected answer does not arrive

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
                _log.exception("statuses cannot be written")
                self._refused(repr(error))

    @property
    def _left(self) -> float | None:
        """The seconds until there is something to do; None means not before a notification."""
        if self._connection is None:
            return None
        has_to_write = self._begun and not (self._ledger.is_written and self._alone)
        due = min(self._next, self._put_off) if has_to_write else self._next
        return max(0.0, due - time.monotonic())

    def _work(self, connection: Connection) -> None:
        now = time.monotonic()
        if not self._lease:
            self._granted_at = now
            self._lease = connection.grant(self._address.lease)
            self._next = now + self._address.heartbeat
        else:
            self._beat_if_due(connection)
        if now < self._put_off:
            return
        if self._refusal:
            connection.authenticate()  # the login may have expired
        if self._alive and now >= self._check_at:
            self._check(connection)
        if not self._alive:
            self._announce(connection)
        if self._looking and now >= self._looked_at + _LEAST_PAUSE:
            self._looking = False
            self._looked_at = now
            self._find_others(connection)
        if self._begun and not self._alone:
            self._clear_others(connection)
        self._write(connection)
        if self._refusal:
            _log.info("statuses are being written again")
            self._refusal = ""
        self._put_off = 0.0

    def _beat_if_due(self, connection: Connection) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._beat(connection)
            self._next = now + self._address.heartbeat

    def _beat(self, connection: Connection) -> None:
        pulse = self._pulse
        if pulse is None or pulse.has_ended or pulse.connection is not connection or pulse.lease != self._lease:
            if pulse is not None:
                pulse.close()
            pulse = self._pulse = connection.pulse(self._lease)
        pulse.beat(ANSWER)

    def _write(self, connection: Connection) -> None:
        """Write all unwritten statuses, in as few transactions as possible."""
        count = OPS
        while True:
            with self._condition:
                operations = self._ledger.take(count, self._lease)
            if not operations:
                return
            try:
                self._beat_if_due(connection)
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

    def _announce(self, connection: Connection) -> None:
        """Write the keys that exist while the agent is alive."""
        if not self._looked:
            self._looked = True
            self._find_predecessor(connection)
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
            pass  # its role permits only the necessary keys
        self._alive = self._looking = True
        self._check_at = time.monotonic() + self._check_every

    def _find_predecessor(self, connection: Connection) -> None:
        """Warn of an agent on another host. An agent on this host may be a former run whose lease has not ended yet."""
        try:
            known = connection.get(self._liveness)
        except Denied:
            return  # its role does not permit reading
        if known is not None and entry_of(known.value).get("host", platform.node()) != platform.node():
            self._note_other(known)

    def _check(self, connection: Connection) -> None:
        """Check that the published keys are still those of this agent; otherwise have all of them written again."""
        self._check_at = time.monotonic() + self._check_every
        prefix = self._ledger.prefix
        # Serializable: the member answers without asking the others. If it lags behind, everything is written once
        # more.
        alive_range = pb.RangeRequest(key=self._liveness, serializable=True)
        count_range = pb.RangeRequest(key=prefix, range_end=end_of(prefix), serializable=True, count_only=True)
        look = [pb.RequestOp(request_range=alive_range), pb.RequestOp(request_range=count_range)]
        # A key that somebody else has written is not under our lease. This compares all keys, of which there are none
        # at first, which counts as a difference.
        ours = pb.Compare(target=pb.Compare.LEASE, key=prefix, range_end=end_of(prefix), lease=self._lease)
        try:
            answer = connection.write(look, [ours], otherwise=look)
        except Denied as error:
            if error.code is not StoreCode.NOT_PERMITTED:
                raise
            self._check_at = float("inf")  # its role does not permit reading
            return
        alive, statuses = (response.response_range for response in answer.responses)
        is_ours = bool(alive.kvs) and alive.kvs[0].lease == self._lease
        are_ours = answer.succeeded or not statuses.count
        with self._condition:
            if is_ours and (not self._ledger.is_written or (are_ours and statuses.count == len(self._ledger))):
                return
            self._ledger.repeat()
            self._alone = False
        if not is_ours:
            self._alive = False
            if alive.kvs:
                self._note_other(alive.kvs[0])

    def _find_others(self, connection: Connection) -> None:
        """Warn of other running agents of the label, and log when none is left."""
        present, refusal = read_agents(connection, self._label, _process, lambda: self._continue(connection))
        if refusal is not None and len(present) < MOST_AGENTS:
            return
        present.pop(shortened(self._presence), None)
        others = set(present.values()) if refusal is None else {_MANY}
        self._warn_of(others - self._others)
        if self._others and not others:
            _log.info("no other agent has the label %s now", self._label)
            self._other = ""
            with self._condition:
                self._ledger.repeat()  # it may have overwritten any status, and deleted it when it ended
        self._others = others

    def _continue(self, connection: Connection) -> None:
        """Send heartbeats and statuses while something is read."""
        self._beat_if_due(connection)
        try:
            self._write(connection)
        except Denied:
            pass  # it is tried again, and reported, after the reading

    def _warn_of(self, others: Collection[str]) -> None:
        """Warn of these other agents, on one line, however many there are."""
        new = sorted(others)
        if not new or new == [self._other]:
            return
        self._other = new[-1]
        if (more := len(new) - _MOST_NAMED) > 0:
            new[_MOST_NAMED:] = [f"and {more} more"]
        is_one = len(others) == 1 and _MANY not in others
        _log.warning(
            "%s the label %s, too: %s. %s the same interfaces and overwrite each other's statuses: give each agent "
            "its own label",
            "another agent has" if is_one else "other agents have",
            self._label,
            ", ".join(new),
            "Both manage" if is_one else "All manage",
        )

    def _note_other(self, known: pb.KeyValue) -> None:
        """Warn of another agent that has written the liveness key of this label."""
        # Two agents that overwrite each other's key must not do so all the time.
        self._check_every = min(2 * self._check_every, _LONGEST_CHECK)
        self._warn_of([_process(known.value)])

    def _clear_others(self, connection: Connection) -> None:
        """Have the statuses deleted that an earlier run has published of former interfaces."""
        stale: list[bytes] = []
        room = _MOST_STALE

        def keep(key: bytes, _raw: Raw) -> None:
            nonlocal room
            room -= len(key)
            if room >= 0 or not stale:
                stale.append(key)  # the others are deleted after the next check

        try:
            connection.read(
                self._ledger.prefix,
                keys_only=True,
                keep=keep,
                known_as=lambda _: b"",
                after_page=lambda: self._continue(connection),
            )
        except Denied as error:
            if error.code is not StoreCode.TOO_LARGE:  # if there are too many, the others are deleted later, too
                stale.clear()  # unreadable statuses can stay, since they end with their lease
        with self._condition:
            self._ledger.clear(stale)
        self._alone = True

    def _forget(self) -> None:
        """Start over, because the lease has ended and its keys are deleted."""
        with self._condition:
            self._lease = 0
            self._alive = False
            self._next = self._put_off = self._granted_at + _LEAST_PAUSE
            self._ledger.repeat()

    def _refused(self, reason: str) -> None:
        """Log a refusal, and try again later. Published keys stay as long as the heartbeats continue."""
        if reason != self._refusal:
            _log.warning("statuses cannot be written: %s", reason)
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
            pass  # it expires


def _this_agent() -> str:
    """Return an id that is unique among agents: each network namespace has one agent of a label (see `instance.py`).

    Neither the name nor the inode is unique: hosts may be clones, and the first namespace has the same inode on each.
    """
    return f"{platform.node()}:{os.stat('/proc/self/ns/net').st_ino}:{boot_id()}"


def _process(raw: bytes) -> str:
    entry = entry_of(raw)
    pid, host = (_word(entry.get(field)) for field in ("pid", "host"))
    return f"process {pid} on {host}"


def _word(value: object) -> str:
    """Format a field for a message: anybody may have written it, and the repr() of nested lists may fail."""
    return cut(str(value), _LONGEST_WORD) if isinstance(value, str | int) else "?"
