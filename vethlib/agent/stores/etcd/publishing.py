"""What an agent says of itself and of its interfaces, under a lease: when the agent ends, so does what it said.

The same lease is the pulse of the connection. A peer that is silent looks like one that has nothing to say; only a
question that has to be answered tells them apart, and it has to be asked often enough.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Mapping

from vethlib import __version__
from vethlib.agent.status import Status
from vethlib.agent.stores.keys import liveness_key, status_key
from vethlib.agent.stores.protocol import StoreError

from . import etcd_pb2 as pb
from .address import Address
from .connection import OPS, Connection
from .refusal import Denied, LeaseGone
from .streams import Pulse

__all__ = ["ANSWER", "Publisher"]

ANSWER = 2.5  # seconds that a heartbeat's answer may take
_AGAIN = 30.0  # seconds after which what is not allowed is tried again
_PARTING = 1.0  # seconds that taking leave may take
_OK = 1  # of the states of an agent: 0 it starts, 1 it works, 2 it has failed

_log = logging.getLogger("vethlib.agent")


class Publisher:
    """A thread that keeps a lease alive and writes under it, over the connection that it was given last.

    `failed` is called with a connection that does not answer, and why.
    """

    def __init__(self, address: Address, label: str) -> None:
        self.lease = 0
        self._address = address
        self._label = label
        self._started = int(time.time())
        self._condition = threading.Condition()
        self._connection: Connection | None = None
        self._pulse: Pulse | None = None
        self._statuses: dict[str, Status] = {}  # all of them
        self._revisions: dict[str, int] = {}
        self._unwritten: set[str] = set()
        self._is_first = True  # of this process: others may have left something
        self._begun = False  # there is something to be said of interfaces, if only that there are none
        self._alive = False  # is written
        self._next = 0.0  # heartbeat
        self._put_off = 0.0
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="vethlib-etcd-status", daemon=True)
        self._thread.start()

    def publish(self, statuses: Mapping[str, Status | None], revisions: Mapping[str, int]) -> None:
        """Write these as soon as that can be done. `revisions` are those of the configuration that was worked on."""
        with self._condition:
            self._begun = True
            for name, revision in revisions.items():
                if revision:
                    self._revisions[name] = revision
                else:
                    self._revisions.pop(name, None)
                if name in self._statuses:
                    self._unwritten.add(name)
            for name, status in statuses.items():
                if status is None:
                    self._statuses.pop(name, None)
                else:
                    self._statuses[name] = status
                self._unwritten.add(name)
            self._condition.notify()

    def use(self, connection: Connection | None) -> None:
        """Go on over this connection; None: wait for another."""
        with self._condition:
            self._connection = connection
            self._next = 0.0
            self._put_off = 0.0
            self._condition.notify()

    def close(self) -> None:
        """Take leave: what was said is no longer true."""
        with self._condition:
            self._ending = True
            self._condition.notify()
        self._thread.join(2 * _PARTING)  # longer only where an answer is waited for that does not come

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._ending or self._is_due):
                    self._condition.wait(self._left)
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
                self._wait_for_permission(error)
            except StoreError as error:
                # Who follows the keys over this connection finds it closed, and makes another.
                connection.close(error)
                self._drop(connection)
            except Exception:
                _log.exception("the status cannot be written")
                connection.close()
                self._drop(connection)

    @property
    def _is_due(self) -> bool:
        return self._connection is not None and (
            time.monotonic() >= self._next or (self._can_write and time.monotonic() >= self._put_off)
        )

    @property
    def _can_write(self) -> bool:
        return self._begun and (bool(self._unwritten) or self._is_first)

    @property
    def _left(self) -> float | None:
        if self._connection is None:
            return None
        times = [self._next, self._put_off] if self._can_write else [self._next]
        return max(0.0, min(times) - time.monotonic())

    def _work(self, connection: Connection) -> None:
        now = time.monotonic()
        if not self.lease:
            self.lease = connection.grant(self._address.lease)
            self._next = now + self._address.heartbeat
        elif now >= self._next:
            self._beat(connection)
            self._next = now + self._address.heartbeat
        if now < self._put_off:
            return
        if not self._alive:
            self._say_alive(connection)
        if self._begun and self._is_first:
            self._take_over(connection)
            self._is_first = False
        while True:
            with self._condition:
                names = sorted(self._unwritten)[:OPS]
                self._unwritten.difference_update(names)
            if not names:
                break
            try:
                connection.write([self._operation(name) for name in names])
            except BaseException:
                with self._condition:
                    self._unwritten.update(names)
                raise
        self._put_off = 0.0

    def _beat(self, connection: Connection) -> None:
        pulse = self._pulse
        if pulse is None or pulse.connection is not connection or pulse.lease != self.lease:
            if pulse is not None:
                pulse.close()
            pulse = self._pulse = connection.pulse(self.lease)
        pulse.beat(ANSWER)

    def _operation(self, name: str) -> pb.RequestOp:
        key = status_key(self._label, name).encode()
        status = self._statuses.get(name)
        if status is None:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        entry = status.as_dict() | {"config_revision": self._revisions.get(name, 0)}
        return pb.RequestOp(request_put=pb.PutRequest(key=key, value=_json(entry), lease=self.lease))

    def _say_alive(self, connection: Connection) -> None:
        key = liveness_key(self._label).encode()
        host = platform.node()
        if self._is_first:
            self._tell_of_another(connection, key, host)
        entry = {
            "build_version": __version__,
            "state": _OK,
            "start_time": self._started,
            "last_change": self._started,
            "last_update": int(time.time()),
            "host": host,
            "pid": os.getpid(),
        }
        connection.write([pb.RequestOp(request_put=pb.PutRequest(key=key, value=_json(entry), lease=self.lease))])
        self._alive = True

    def _tell_of_another(self, connection: Connection, key: bytes, host: str) -> None:
        """Warn of an agent of this label on another host. One of this host was here before: there can be only one."""
        found = connection.get(key)
        try:
            other = json.loads(found.value) if found else {}
            where, pid = other.get("host", host), other.get("pid", "?")
        except (ValueError, AttributeError):
            return
        if where != host:
            _log.warning(
                "an agent with the label %s is alive on %s (process %s): two agents of one label keep the same "
                "interfaces, and overwrite each other's status: give each its own label",
                self._label,
                where,
                pid,
            )

    def _take_over(self, connection: Connection) -> None:
        """Have all that an earlier run said of interfaces that are no more removed."""
        prefix = status_key(self._label, "").encode()
        found = connection.read(prefix, keys_only=True)
        names = {key[len(prefix) :].decode(errors="surrogateescape") for key in found.values}
        with self._condition:
            self._unwritten |= names - self._statuses.keys()

    def _forget(self) -> None:
        """The lease has ended, and with it all that was written."""
        with self._condition:
            self.lease = 0
            self._alive = False
            self._next = 0.0
            self._unwritten |= self._statuses.keys()

    def _wait_for_permission(self, error: Denied) -> None:
        if not self._put_off:
            _log.warning("the status cannot be written: %s", error)
        self._put_off = time.monotonic() + _AGAIN
        self._next = max(self._next, time.monotonic() + self._address.heartbeat)

    def _drop(self, connection: Connection) -> None:
        with self._condition:
            if self._connection is connection:
                self._connection = None

    def _leave(self, connection: Connection | None) -> None:
        if connection is None or not self.lease:
            return
        try:
            connection.revoke(self.lease, _PARTING)
        except StoreError:
            pass  # it ends by itself


def _json(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogateescape")
