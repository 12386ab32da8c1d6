"""A network between a client and a server that fails as networks do: it cuts, refuses, goes silent, and recovers."""

from __future__ import annotations

import queue
import selectors
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from fcntl import ioctl
from typing import TypeVar

from tests.backends.ports import free_port
from vethlib import ns

__all__ = ["Proxy"]

T = TypeVar("T")
_CHUNK = 65536
_FULL = 1 << 20  # bytes held for a receiver that does not read, before no more are read from the sender
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with an RST


@dataclass(eq=False)
class _Way:
    """One direction of a connection: the bytes received from `source` and not yet sent to `sink`."""

    source: socket.socket
    sink: socket.socket
    is_down: bool
    held: bytearray = field(default_factory=bytearray)
    ended: bool = False  # by its source
    reset: bool = False  # and not in an orderly way
    shut: bool = False  # its sink was told so, or takes nothing any more
    passed: int = 0  # bytes
    limit: int | None = None  # of bytes, after which the connection is cut


@dataclass(eq=False)
class _Pair:
    """A connection: `up` to the server, `down` from it."""

    up: _Way
    down: _Way

    def of(self, source: socket.socket) -> _Way:
        return self.up if self.up.source is source else self.down


class Proxy:
    """Listens at `address`, perhaps in another namespace, and passes everything on to `target`, and back.

    A single thread does this, and carries out orders between two steps: when :meth:`cut` returns, all are cut.
    """

    def __init__(self, target: tuple[str, int], netns: ns.Netns | str = "", *, query: str = "") -> None:
        self._accepted = self._cuts = 0
        self._bytes = {"up": 0, "down": 0}
        self.address = "127.0.0.1", free_port()
        self._query = query
        self._target = target
        self._pairs: list[_Pair] = []
        self._silent = {"up": False, "down": False}
        self._limit: int | None = None
        self._rate = 0.0  # bytes in a second that come down, 0 for any number
        self._allowance = self._counted_at = 0.0  # how many may come down now, and since when that holds
        with ns.entered(netns) if netns else nullcontext():
            self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self.address)
        self._selector = selectors.DefaultSelector()
        self._orders: queue.SimpleQueue[Callable[[], bool] | None] = queue.SimpleQueue()
        self._bell, self._rung = socket.socketpair()
        self._selector.register(self._rung, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def url(self) -> str:
        """For a store, if nobody has to prove who he is."""
        return f"etcd://{self.endpoint}{self._query}"

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self._do(lambda: len(self._pairs))

    @property
    def accepted(self) -> int:
        """How many there were."""
        return self._do(lambda: self._accepted)

    @property
    def bytes_up(self) -> int:
        """How many the server was given, over all of them."""
        return self._do(lambda: self._bytes["up"])

    @property
    def bytes_down(self) -> int:
        """How many came from the server and were passed on."""
        return self._do(lambda: self._bytes["down"])

    @property
    def cuts(self) -> int:
        """How many :meth:`cut_after` has cut."""
        return self._do(lambda: self._cuts)

    def cut(self) -> None:
        """Reset all connections."""
        self._do(self._cut_all)

    def refuse(self) -> None:
        """Let nobody connect; connections that there are stay."""
        self._do(self._deafen)

    def accept(self) -> None:
        """Let connect again."""
        self._do(self._listen)

    def silence(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing through, on old and new connections, not even their end; everything is held."""
        self._do(lambda: self._set_silent(up=up, down=down))

    def speak(self) -> None:
        """Let everything through again; what was held arrives late, like TCP retransmissions."""
        self._do(lambda: self._set_silent(up=False, down=False))

    def slow_down(self, rate: float) -> None:
        """Pass on no more than this many bytes per second from the server, over all connections; 0: no limit."""
        self._do(lambda: self._set_rate(rate))

    def cut_after(self, count: int) -> None:
        """Reset the first connection that passes this many bytes from the server from now on, and no other."""
        self._do(lambda: self._set_limit(count))

    def close(self) -> None:
        """End it, and all connections."""
        self._orders.put(None)
        self._bell.send(b"!")
        self._thread.join()

    # --- in the thread

    def _do(self, order: Callable[[], T]) -> T:
        """Have the thread do that, and wait until it is done."""
        answers: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

        def obey() -> bool:
            try:
                answers.put(order())
            except BaseException as error:
                answers.put(error)
            return True

        self._orders.put(obey)
        self._bell.send(b"!")
        answer = answers.get(timeout=10)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        while self._obey():
            self._allow_more()
            for pair in list(self._pairs):
                self._register(pair)
            ready = self._selector.select(0.005 if self._rate else None)
            for key, events in ready:
                if key.fileobj is self._rung:
                    continue  # the orders are looked at anyway
                if key.fileobj is self._listener:
                    self._take()
                elif key.data in self._pairs:
                    assert isinstance(key.fileobj, socket.socket)
                    self._pass(key.data, key.fileobj, events)
        self._cut_all()
        self._selector.close()
        for one in (self._listener, self._bell, self._rung):
            one.close()

    def _obey(self) -> bool:
        """Do what was ordered; False to end."""
        try:
            while True:
                order = self._orders.get_nowait()
                self._rung.recv(1)
                if order is None:
                    return False
                order()
        except queue.Empty:
            return True

    def _listen(self) -> None:
        self._listener.listen(64)
        self._listener.setblocking(False)
        if self._listener.fileno() not in self._selector.get_map():
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _deafen(self) -> None:
        self._selector.unregister(self._listener)
        # It is no longer a listener, but keeps its port (inet_shutdown, net/ipv4/af_inet.c).
        self._listener.shutdown(socket.SHUT_RDWR)

    def _take(self) -> None:
        client, _ = self._listener.accept()
        self._accepted += 1
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            _reset(client)
            return
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(_Way(client, server, is_down=False), _Way(server, client, is_down=True, limit=self._limit))
        self._pairs.append(pair)

    def _register(self, pair: _Pair) -> None:
        """Register the events to wait for on a connection."""
        for here, there in ((pair.up, pair.down), (pair.down, pair.up)):
            events = 0
            if not here.ended and (len(here.held) < _FULL or self._is_silent(here)):
                events |= selectors.EVENT_READ
            if self._wants_out(there):
                events |= selectors.EVENT_WRITE
            registered = self._selector.get_map().get(here.source)
            if registered is not None and registered.events != events:
                self._selector.unregister(here.source)
                registered = None
            if events and registered is None:
                self._selector.register(here.source, events, pair)

    def _is_silent(self, way: _Way) -> bool:
        return self._silent["down" if way.is_down else "up"]

    def _wants_out(self, way: _Way) -> bool:
        if way.is_down and self._rate and self._allowance < 1:
            return False
        return not self._is_silent(way) and bool(way.held or (way.ended and not way.shut))

    def _allow_more(self) -> None:
        """Renew the allowance; unused bytes do not accumulate."""
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._counted_at) * self._rate, 0.05 * self._rate)
        self._counted_at = now

    def _pass(self, pair: _Pair, ready: socket.socket, events: int) -> None:
        if events & selectors.EVENT_READ:
            _receive(pair.of(ready))
        for way in (pair.up, pair.down):
            if self._wants_out(way):
                self._send(way)
            if way.passed == way.limit:
                self._cut_short(pair)
                return
        if any(way.shut and way.reset for way in (pair.up, pair.down)) or (pair.up.shut and pair.down.shut):
            self._end(pair)

    def _send(self, way: _Way) -> None:
        """Pass on what can be."""
        most = len(way.held) if way.limit is None else min(len(way.held), way.limit - way.passed)
        if way.is_down and self._rate:
            most = min(most, int(self._allowance))
        try:
            sent = way.sink.send(way.held[:most]) if most else 0
        except BlockingIOError:
            return
        except ConnectionError:
            way.held.clear()
            way.ended = way.shut = True
            return
        del way.held[:sent]
        way.passed += sent
        self._bytes["down" if way.is_down else "up"] += sent
        self._allowance -= sent if way.is_down else 0
        if way.ended and not way.held:
            way.shut = True
            if not way.reset:
                _shut(way.sink)

    def _cut_short(self, pair: _Pair) -> None:
        """Cut a connection that has passed what it may; what was passed arrives."""
        self._cuts += 1
        self._limit = None
        for other in self._pairs:
            other.down.limit = None
        _drain(pair.down.sink)
        self._end(pair)

    def _set_silent(self, *, up: bool, down: bool) -> None:
        self._silent = {"up": up, "down": down}

    def _set_rate(self, rate: float) -> None:
        self._rate, self._allowance, self._counted_at = rate, 0.0, time.monotonic()

    def _set_limit(self, count: int) -> None:
        self._limit = count
        for pair in self._pairs:
            pair.down.limit = pair.down.passed + count

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        for way in (pair.up, pair.down):
            if way.source in self._selector.get_map():
                self._selector.unregister(way.source)
        for way in (pair.up, pair.down):
            _reset(way.source)


def _receive(way: _Way) -> None:
    if way.ended:
        return
    try:
        found = way.source.recv(_CHUNK)
    except BlockingIOError:
        return
    except ConnectionError:
        way.ended = way.reset = True
        return
    way.held += found
    way.ended = not found


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it is gone already


def _drain(one: socket.socket) -> None:
    """Wait until the other side has received everything; a side that does not read does not get it."""
    deadline = time.monotonic() + 1
    while struct.unpack("i", ioctl(one, termios.TIOCOUTQ, bytes(4)))[0] and time.monotonic() < deadline:
        time.sleep(0.001)


def _reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    one.close()
