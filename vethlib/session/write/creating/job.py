"""A pair being built: its two ends, the message that creates it, and its outcome."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import Final

from vethlib._nl.batch import UNSENT, Exchange, Outcome
from vethlib._nl.link import LinkMessage, NewEnd, create_veth, parse_link
from vethlib._nl.wire import encoded
from vethlib.addresses import plain_of
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.errors import InvalidValue, LinkExists, Malformed, NetlinkError, VethError
from vethlib.links import End, Link, Veth, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import copy_for, refusal
from vethlib.session.read.dying import Wanted
from vethlib.session.read.reading import link_of
from vethlib.session.read.samelink import UNKNOWN, KnownVeth
from vethlib.session.read.target import Target

from .freenames import is_open

__all__ = ["Job", "Side"]


class Side:
    """One end of a pair being built."""

    __slots__ = ("end", "group", "index", "link", "mac", "name", "place", "seen")

    def __init__(self, end: End, place: OpenNetns) -> None:
        self.end = end
        self.name = end.name  # replaced by a free name if the end takes any
        self.place = place
        self.group = end.group
        self.index = 0
        self.link: Link | None = None
        self.seen: LinkMessage | None = None  # if it was read
        self.mac = None if end.mac is None else bytes.fromhex(end.mac.replace(":", ""))

    @property
    def made(self) -> Target:
        """The link that was created."""
        return Target(self.place, self.name, self.place.ref, "read what was created")

    @property
    def wants_more(self) -> bool:
        """Whether it has settings that cannot be in the creating message."""
        end = self.end
        return end.up or end.alias is not None or bool(end.addresses or end.further) or end.ipv6 is not None

    @property
    def opens_files(self) -> bool:
        """Whether it has settings that are written through descriptors other than the socket in its namespace."""
        return self.end.ipv6 is not None or self.end.has_direct


class Job:
    """A pair being built. `outer` is the end in whose namespace the creating socket is; it gets the `group`, if any."""

    __slots__ = (
        "_echo",
        "_exchange",
        "_number",
        "a",
        "b",
        "error",
        "open",
        "outer",
        "peer",
        "position",
        "request",
        "veth",
    )

    def __init__(
        self, position: int, veth: Veth, namespaces: Namespaces, group: int | None = None, *, reads: bool = True
    ) -> None:
        self.position = position
        self.veth = veth
        self.a = Side(veth.a, namespaces(veth.a.netns))
        self.b = Side(veth.b, namespaces(veth.b.netns))
        if veth.a.name == veth.b.name and self.a.place is self.b.place and not is_open(veth.a):
            raise InvalidValue("name", veth.a.name, f"both ends of the pair would have this name in {self.a.place}")
        self.outer, self.peer = (self.b, self.a) if self.b.place.is_home else (self.a, self.b)
        if self.outer.group is None:
            self.outer.group = group
        if not reads and self.peer.mac is None:
            self.peer.mac = _random_mac()
        self.open: Sequence[Side] = ()  # the ends that take any free name
        if is_open(veth.a) or is_open(veth.b):
            self.open = [side for side in (self.a, self.b) if is_open(side.end)]
        self.encode()
        self.error: VethError | None = None
        self._exchange: Exchange | None = None
        self._number = 0
        self._echo: LinkMessage | None = None

    def encode(self) -> None:
        """Make the message that creates the pair, with the names chosen so far."""
        elsewhere = self.peer.place.fd if self.peer.place is not self.outer.place else None
        self.request = create_veth(_new_end(self.outer), _new_end(self.peer), elsewhere)

    def sent_as(self, exchange: Exchange, number: int) -> None:
        """Note that the pair is request `number` of `exchange`, which has its outcome."""
        self._exchange = exchange
        self._number = number

    @property
    def outcome(self) -> Outcome:
        """The outcome of the create request so far."""
        return UNSENT if self._exchange is None else self._exchange.outcomes[self._number]

    @property
    def made(self) -> bool:
        """Whether the pair was created."""
        return not self.outcome.errno

    @property
    def echo(self) -> LinkMessage | None:
        """The outer end as the kernel echoed it, with its peer's ifindex in `link`; None before Linux 6.2."""
        if self._echo is None and (bodies := self.outcome.bodies):
            try:
                self._echo = parse_link(bodies[0])
            except Malformed:
                return None  # as with those kernels, the new links are looked up
        return self._echo

    def known(self, side: Side) -> KnownVeth:
        """Return what identifies an end that was created."""
        seen = side.seen or (self.echo if side is self.outer else None)
        if seen is not None:
            return KnownVeth.of(seen)
        mac, peer = side.mac or b"", self.outer.index if side is self.peer else 0
        if self.outer.place is self.peer.place:
            return KnownVeth(mac, peer, None)
        return KnownVeth(mac, 0 if mac else peer, UNKNOWN)  # the ifindex alone, without its namespace, says little

    @property
    def has_known_queues(self) -> bool:
        """Whether the number of queues of the peer is known, given the echo of the outer end."""
        return self.peer.end.num_queues is not None or self.outer.end.num_queues is None

    def is_still(self, side: Side, link: LinkMessage) -> bool:
        """Return whether this is the end that was created, with its peer where it was, and not another link."""
        other = self.peer if side is self.outer else self.outer
        if link.kind != "veth" or link.link not in (None, other.index):
            return False
        return self.known(side).peer_netnsid in (UNKNOWN, link.link_netnsid)

    def unread(self, side: Side) -> Link | None:
        """Return an end as far as it is known from what was sent and echoed; None if it has to be read."""
        echo, end = self.echo, side.end
        if echo is None or not (side is self.outer or self.has_known_queues):
            return None
        if side is self.outer:
            mac, mtu, peer, netnsid, queues = echo.mac, echo.mtu, echo.link, echo.link_netnsid, echo.num_tx_queues
        else:
            mac, mtu, peer, netnsid = side.mac or b"", end.mtu or _DEFAULT_MTU, self.outer.index, None
            queues = end.num_queues or echo.num_tx_queues
        return link_of(
            side.index,
            side.name,
            end.netns,
            "veth",
            mac.hex(":"),
            mtu,
            end.up,
            "unknown" if end.up else echo.operstate,
            plain_of(end.interfaces),
            peer,
            netnsid,
            end.alias or "",
            side.group or 0,
            queues,
            end.further.get("altnames", ()),
            (),
            mtu >= IPV6_MIN_MTU if end.ipv6 is None else end.ipv6,
            side.place.cookie,
        )

    @property
    def names(self) -> list[Wanted]:
        """The names that must be free for it."""
        return [(side.place, side.name) for side in (self.a, self.b)]

    def refused(
        self,
        outcome: Outcome,
        *,
        says: str = "",
        side: Side | None = None,
        dying: bool = False,
        is_taken: bool = False,
    ) -> None:
        """Note that a step failed; only the first error is kept. `is_taken`: another link has the name that it sets."""
        if self.error is None:
            netns = (side or self.outer).place.ref
            is_other = outcome.errno in (errno.EEXIST, errno.EACCES) and side is not None and not is_taken
            cls = NetlinkError if is_other else None
            self.error = refusal(outcome, f"create veth {self.veth}", netns, says=says, cls=cls)
            self.error.item = self.veth
            if isinstance(self.error, LinkExists):
                self.error.dying = dying

    def gone(self, side: Side) -> None:
        """Note that an end that was created no longer exists."""
        says = f"{describe(side.name, side.end.netns)} was created, but no longer exists"
        self.refused(Outcome(errno.ENODEV), says=says, side=side)

    def failed(self, error: VethError) -> None:
        """Note a copy of an error that concerns all pairs of a namespace."""
        if self.error is None:
            self.error = copy_for(error, self.veth, f"create veth {self.veth}")


_new = partial(tuple.__new__, NewEnd)  # as in _nl/link.py


def _new_end(side: Side) -> NewEnd:
    end = side.end
    return _new((encoded(side.name), side.mac, end.mtu, end.num_queues, side.group))


_DEFAULT_MTU: Final = 1500  # ether_setup, net/ethernet/eth.c


def _random_mac() -> bytes:
    """Return a MAC as the kernel would choose one (eth_random_addr): unicast and locally administered."""
    mac = os.urandom(6)
    return bytes([mac[0] & 0xFC | 2]) + mac[1:]
