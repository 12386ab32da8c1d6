"""Start the relay of a topology (program.py), and control it."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from vethlib import ns
from vethlib._closing import Closing
from vethlib._nl.const import RTNLGRP_LINK, SO_RCVBUFFORCE
from vethlib._primitives import RLock, real_subprocess, socket
from vethlib.errors import LinkNotFound, NetlinkError, VethError
from vethlib.links import Link, Pair
from vethlib.session.core.refusal import system_errors
from vethlib.topology.design.description import Wire
from vethlib.topology.design.impairment import Impairment
from vethlib.topology.programs.scripts import own_pidfd, script

from . import program

__all__ = ["Relay", "relay_netns"]

_AF_PACKET: Final = 17
_AF_NETLINK: Final = 16
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_ETH_P_ALL: Final = 3  # include/uapi/linux/if_ether.h
_SOL_PACKET: Final = 263  # include/linux/socket.h
_PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 8, 15, 23  # include/uapi/linux/if_packet.h
_BUFFER: Final = 8 << 20
_EVENTS_BUFFER: Final = 8 << 20  # a namespace that ends deletes all its links before the relay can read an event

_PATIENCE: Final = 30.0  # seconds to wait for an answer of the relay
_GRACE: Final = 2.0  # seconds to wait for the relay to end
_LONGEST_ANSWER: Final = 4096  # bytes
_NO_IPV6: Final = "/proc/sys/net/ipv6/conf/default/disable_ipv6"


def relay_netns() -> ns.Netns:
    """Create the namespace of a relay, whose links send nothing themselves. Raises NotPermitted, NetlinkError."""
    with system_errors("create the namespace of a relay"):
        netns = ns.Netns(ns.call_in_new(_silent))
    netns.label = "the relay"
    return netns


def _silent() -> ns.Descriptor:
    try:
        with open(_NO_IPV6, "w", encoding="utf-8") as file:
            file.write("1")
    except OSError:
        pass  # no IPv6 in this kernel, or /proc/sys is read-only: then its links also send a few IPv6 packets
    return ns.current()


class Relay(Closing):
    """The relay of a topology. `halves` are both pairs of each relayed wire, by the number of the wire among `wires`.

    Commands are numbered, and the relay answers each with its number: if the wait for an answer is interrupted, the
    next command ignores that answer. Whether the relay has carried the command out is then unknown, so it is asked for
    the values of that direction when they are needed.

    The relay ends with its last wire. Then there is nothing left to look at or to keep.
    """

    def __init__(self, netns: ns.Netns, halves: dict[int, tuple[Pair, Pair]], wires: Sequence[Wire]) -> None:
        self._wires = wires
        self._place = {number: place for place, number in enumerate(halves)}
        self._now = {(number, to_b): Impairment() for number in halves for to_b in (False, True)}
        self._lock = RLock()  # an RLock knows which thread holds it, see _alone()
        self._number = 0  # the number of the last command
        self._is_kept: bool | None = False  # None: unknown
        links = [pair.b for both in halves.values() for pair in both]
        begun: list[subprocess.Popen[bytes]] = []
        try:
            with system_errors("start the relay of a topology"):
                self._start(netns, links, begun)
        except BaseException:
            for process in begun:
                process.kill()
                process.wait()
            raise

    def _start(self, netns: ns.Netns, links: Sequence[Link], begun: list[subprocess.Popen[bytes]]) -> None:
        """Start the process, and note it in `begun`, even if this is interrupted."""
        with ExitStack() as undoing, ExitStack() as closing:
            sockets = ns.call_in(netns.fd, partial(_sockets, [link.name for link in links]))
            for one in sockets:
                closing.callback(one.close)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undoing.callback(self._control.close)
            closing.callback(theirs.close)
            _begin(theirs, sockets, [link.index for link in links], begun)
            self._process = begun[0]
            self._control.settimeout(_PATIENCE)
            undoing.pop_all()

    def __contains__(self, number: int) -> bool:
        return number in self._place

    def get(self, number: int, *, to_b: bool) -> Impairment:
        """Return the impairment of packets of a wire on the way to its port `b`, or to `a` if not `to_b`.

        Raises LinkNotFound if that is unknown and the wire is gone, NetlinkError if the relay does not answer.
        """
        known = self._now.get((number, to_b))
        if known is None:
            with self._alone():
                answer = self._ask_about(number, to_b=to_b, tell=True)
                known = self._now[number, to_b] = Impairment(**answer["values"])
        return known

    def set(self, number: int, impairment: Impairment, *, to_b: bool) -> None:
        """Set the impairment of packets of a wire from now on.

        Raises LinkNotFound if the wire is gone, NetlinkError if the relay does not answer.
        """
        with self._alone():
            self._now.pop((number, to_b), None)  # until there is an answer, which an interruption may prevent
            self._ask_about(number, to_b=to_b, **asdict(impairment))
            self._now[number, to_b] = impairment

    def _ask_about(self, number: int, *, to_b: bool, **command: object) -> dict[str, Any]:
        """Send a command for one direction of a wire. Raises LinkNotFound, NetlinkError."""
        answer = self._ask({"half": 2 * self._place[number] + to_b} | command)
        if answer is None:
            wire = self._wires[number]
            message = f"the wire between {wire.a.node} and {wire.b.node} no longer exists"
            raise LinkNotFound(message, errno=errno.ENODEV)
        return answer

    def look(self) -> None:
        """Give both halves of each wire the same state now; without this, it takes up to a second."""
        with self._alone():
            self._ask({"look": True})

    def keep(self) -> None:
        """Let the relay run until its last wire is deleted, instead of only until this process ends."""
        with self._alone():
            self._is_kept = None
            self._ask({"keep": True})
        self._is_kept = True
        self._process.returncode = 0  # nobody waits for it

    def _alone(self) -> AbstractContextManager[object]:
        """Return the lock, whose own methods are C functions, so that an interruption never leaves it locked."""
        if self._lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks, too
            # Two questions at once would each receive the other's answer.
            raise VethError("the relay is in use by this thread, which a signal handler has interrupted")
        return self._lock

    def _ask(self, command: dict[str, object]) -> dict[str, Any] | None:
        """Send a command, with the lock held, and return its answer; None if the wire, or every wire, is gone.

        Raises NetlinkError.
        """
        self._number += 1
        try:
            self._control.send(json.dumps({"number": self._number} | command).encode())
            answer = self._answer()
        except ConnectionError:
            answer = None
        except OSError as error:
            raise NetlinkError(f"the relay of the topology does not answer: {error}", errno=error.errno or 0) from None
        if answer is None and not self._has_ended_with_its_wires():
            raise NetlinkError("the relay of the topology has ended", errno=errno.EPIPE)
        return None if answer is None or answer.get("gone") else answer

    def _answer(self) -> dict[str, Any] | None:
        """Return the answer to the last command; None if the relay has ended."""
        while text := self._control.recv(_LONGEST_ANSWER):
            answer: dict[str, Any] = json.loads(text)
            if answer["number"] == self._number:
                return answer
        return None

    def _has_ended_with_its_wires(self) -> bool:
        """Return whether the relay, which has hung up, ended with its last wire, and not by a signal or an error."""
        try:
            return self._process.wait(_GRACE) == 0
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        """End the relay, and with it its wires, unless they are kept. Closing twice is harmless."""
        self._control.close()
        if self._is_kept:
            return
        try:
            if self._is_kept is None:  # it may consider itself kept
                self._process.kill()
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            pass  # the relay is stopped
        finally:
            self._process.kill()
            self._process.wait()


def _sockets(names: Sequence[str]) -> list[socket.socket]:
    """Return a socket for the events of the calling thread's namespace, and a packet socket on each link."""
    made: list[socket.socket] = []
    try:
        made.append(socket.socket(_AF_NETLINK, socket.SOCK_RAW, 0))
        _set_buffer(made[0], _EVENTS_BUFFER)
        made[0].connect((0, 0))  # to the kernel, so that nobody else can send to it
        made[0].setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, RTNLGRP_LINK)
        for name in names:
            made.append(socket.socket(_AF_PACKET, socket.SOCK_RAW, 0))
            option = made[-1].setsockopt
            for wanted in (_PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING):
                option(_SOL_PACKET, wanted, 1)
            _set_buffer(made[-1], _BUFFER)
            made[-1].bind((name, _ETH_P_ALL))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def _set_buffer(receiving: socket.socket, size: int) -> None:
    try:
        receiving.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _begin(
    control: socket.socket,
    sockets: Sequence[socket.socket],
    indexes: Sequence[int],
    begun: list[subprocess.Popen[bytes]],
) -> None:
    command = script(program)
    with own_pidfd() as owner:
        events, *halves = (one.fileno() for one in sockets)
        descriptors = [control.fileno(), owner.fileno(), events]
        ends = [f"{fd}:{index}" for fd, index in zip(halves, indexes, strict=True)]
        start = partial(
            real_subprocess().Popen,
            pass_fds=[*descriptors, *halves],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        begun.extend(map(start, [[*command, *map(str, descriptors), *ends]]))  # returned and noted in one C call
