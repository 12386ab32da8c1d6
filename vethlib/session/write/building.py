"""Building a slab of pairs, each end directly in its namespace: the messages, and their order.

1. Every namespace of the slab is opened once (:mod:`.namespaces`), and the messages are encoded. Nothing has been sent
   yet, so a reference that leads nowhere has no consequences.
2. One message creates a pair. It is sent through a socket in the namespace of one end (home, if possible); the
   namespace of the other end is an fd inside the message. The kernel echoes both ifindexes. A link is never moved,
   which would cost 16 ms and possibly another ifindex.
3. The rest follows: first whether an end has IPv6, which is no message (:mod:`..core.ipv6`), then in one datagram per
   namespace: addresses, alias, up. An end cannot be up in the message that creates
   its peer (ENOTCONN). The second end that is set up wakes a kernel thread, which works on the two for 80 µs while it
   holds the RTNL lock (linkwatch_event, net/core/link_watch.c).
4. Last, every end is read. Earlier, the request would wait for that thread; and if the peer is not up yet, it would
   make the kernel do deferred work on the link at once and in vain (linkwatch_sync_dev in rtnl_getlink, 70 µs).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from vethlib._nl.addr import new_addr
from vethlib._nl.batch import DONE, UNSENT, Exchange, Outcome
from vethlib._nl.link import LinkMessage, NewEnd, create_veth, get_link, parse_link, set_link, set_up
from vethlib.endfields.checks import IPV6_MIN_MTU, Sysctl
from vethlib.endfields.table import FIELDS, SYSCTLS, Step
from vethlib.errors import InvalidValue, LinkExists, Malformed, NetlinkError, VethError
from vethlib.links import End, IPInterface, Link, Veth, describe, spell
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.refusal import copy_for, refusal
from vethlib.session.core.settings import write_sysctls
from vethlib.session.read.dying import Patience, Wanted, are_dying, holders
from vethlib.session.read.reading import find, link_of, to_link
from vethlib.session.read.target import Target

from .addressing import as_sent
from .freenames import FreeNames, is_open
from .ids import assign_ids, note_id

__all__ = ["Job", "Side", "Slab"]

_TRIES: Final = 16
"""Attempts at creating a pair whose names were free for a moment: other programs may take them, too."""


class Side:
    """One end of a pair being built."""

    __slots__ = ("end", "group", "index", "link", "mac", "name", "place")

    def __init__(self, end: End, place: OpenNetns) -> None:
        self.end = end
        self.name = end.name  # until one is chosen for an end that takes any free name
        self.place = place
        self.group = end.group
        self.index = 0
        self.link: Link | None = None
        self.mac = None if end.mac is None else bytes.fromhex(end.mac.replace(":", ""))

    @property
    def made(self) -> Target:
        """The link that was created."""
        return Target(self.place, self.name, self.place.ref, "read what was made")

    @property
    def wants_more(self) -> bool:
        """Whether it has settings that cannot be in the creating message."""
        end = self.end
        return end.up or end.alias is not None or bool(end.addresses or end.further) or end.ipv6 is not None


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
        """Make the message that creates the pair, with the present names."""
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
        """The outer end as the kernel echoed it, its peer's ifindex in `link`; kernels before 6.2 do not."""
        if self._echo is None and (bodies := self.outcome.bodies):
            try:
                self._echo = parse_link(bodies[0])
            except Malformed:
                return None  # as of those kernels: the new links are looked up
        return self._echo

    @property
    def has_known_queues(self) -> bool:
        """Whether the number of queues of the peer is known, given the echo of the outer end."""
        return self.peer.end.num_queues is not None or self.outer.end.num_queues is None

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
            end.interfaces,
            peer,
            netnsid,
            end.alias or "",
            side.group or 0,
            queues,
            end.further.get("altnames", ()),
            (),
            mtu >= IPV6_MIN_MTU if end.ipv6 is None else end.ipv6,
        )

    @property
    def names(self) -> list[Wanted]:
        """The names that must be free for it."""
        return [(side.place, side.name) for side in (self.a, self.b)]

    def refused(self, outcome: Outcome, *, says: str = "", side: Side | None = None, dying: bool = False) -> None:
        """Note that a step failed; only the first error is kept."""
        if self.error is None:
            netns = (side or self.outer).place.ref
            cls = NetlinkError if outcome.errno in (errno.EEXIST, errno.EACCES) and side is not None else None
            self.error = refusal(outcome, f"create veth {self.veth}", netns, says=says, cls=cls)
            self.error.item = self.veth
            if isinstance(self.error, LinkExists):
                self.error.dying = dying

    def failed(self, error: VethError) -> None:
        """Note a copy of an error that concerns all pairs of a namespace."""
        if self.error is None:
            self.error = copy_for(error, self.veth, f"create veth {self.veth}")


_new = partial(tuple.__new__, NewEnd)  # as in _nl/link.py


def _new_end(side: Side) -> NewEnd:
    end = side.end
    return _new((os.fsencode(side.name), side.mac, end.mtu, end.num_queues, side.group))


_DEFAULT_MTU: Final = 1500  # ether_setup, net/ethernet/eth.c


def _random_mac() -> bytes:
    """Return a MAC as the kernel would choose one (eth_random_addr): unicast and locally administered."""
    mac = os.urandom(6)
    return bytes([mac[0] & 0xFC | 2]) + mac[1:]


_Ends = list[tuple[Job, Side]]


class Slab:
    """Pairs that are built together, in namespaces that are open meanwhile."""

    __slots__ = ("_names", "_namespaces", "_reads", "_with_births", "jobs")

    def __init__(
        self, namespaces: Namespaces, names: FreeNames, *, reads: bool = True, with_births: bool = True
    ) -> None:
        self._namespaces = namespaces
        self._names = names
        self._reads = reads
        self._with_births = with_births
        self.jobs: list[Job] = []

    @property
    def has_errors(self) -> bool:
        """Whether a pair has failed so far."""
        return any(job.error is not None for job in self.jobs)

    def create(self, patience: Patience, *, keep_going: bool) -> None:
        """Send the creating messages, and learn both ifindexes of each new pair.

        A pair whose names are taken by links that are about to vanish is tried again, as long as `patience` lasts.
        """
        self._reach()
        for job in self.jobs:
            if job.open and job.error is None:
                self._name(job, job.open)
        if self.has_errors and not keep_going:
            return
        jobs = [job for job in self.jobs if job.error is None]
        for attempt in range(_TRIES):
            _send_creates(self._namespaces, jobs)
            blocked = [job for job in self.jobs if job.error is None and job.outcome.errno == errno.EEXIST]
            if not blocked or (self.has_errors and not keep_going):
                break
            if jobs := self._named_again([job for job in blocked if job.open], attempt):
                continue
            try:
                jobs = patience.freed(self._namespaces, [(job, job.names) for job in blocked])
            except VethError:
                break  # the links that have the names cannot be read
            if not jobs:
                break
        for job in self.jobs:
            if job.error is None and job.outcome.errno:
                _explain_create(self._namespaces, job, job.outcome)

    def _named_again(self, jobs: Sequence[Job], attempt: int) -> list[Job]:
        """Choose other names for ends whose names others have taken since; return the pairs that have some."""
        again: dict[Job, list[Side]] = {}
        for job in jobs:
            try:
                taken = holders(self._namespaces, [(side.place, side.name) for side in job.open])
            except VethError as error:
                job.failed(error)
                continue
            if sides := [side for side in job.open if (side.place, side.name) in taken]:
                again[job] = sides
        looked: set[tuple[OpenNetns, str]] = set()
        for job, sides in again.items():
            for side in sides:
                if (key := (side.place, side.end.name)) not in looked:
                    looked.add(key)
                    self._names.look_again(self._namespaces, *key, attempt)
            self._name(job, sides)
        return [job for job in again if job.error is None]

    def _name(self, job: Job, sides: Iterable[Side]) -> None:
        """Choose free names for these ends of a pair."""
        for side in sides:
            try:
                name = self._names.choose(self._namespaces, side.place, side.end.name)
            except VethError as error:
                job.failed(error)
                return
            if name is None:
                says = f"every name {side.end.name!r} is taken in {spell(side.end.netns)}"
                job.refused(Outcome(errno.EEXIST, "", ()), says=says)
                return
            side.name = name
        job.encode()

    def _reach(self) -> None:
        """Open what is needed in each namespace, so that no pair is started that cannot be finished or read."""
        everywhere = self._reads or self._with_births
        needed = [
            (job, side)
            for job in self.jobs
            for side in (job.a, job.b)
            if everywhere or side is job.outer or side.wants_more or side in job.open or not job.has_known_queues
        ]
        self._namespaces.open_sockets(side.place for _, side in needed)
        for job, side in needed:
            try:
                self._namespaces.socket(side.place)
                _ = side.place.cookie  # so that it is known when the socket is closed: undoing needs it
            except VethError as error:
                job.failed(error)

    def finish(self) -> None:
        """Configure and read each pair that was created."""
        self._write_settings()
        to_configure: dict[OpenNetns, _Ends] = {}
        to_read: dict[OpenNetns, _Ends] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.wants_more:
                        to_configure.setdefault(side.place, []).append((job, side))
                    side.link = self._known(job, side)
                    if side.link is None:
                        to_read.setdefault(side.place, []).append((job, side))
        for place, ends in to_configure.items():
            _try(_configure, self._namespaces, place, ends)
        read: list[tuple[Identity, LinkMessage]] = []
        for place, ends in to_read.items():
            _try(partial(_read, read), self._namespaces, place, ends)
        self._namespaces.caches.learn(read)

    def _known(self, job: Job, side: Side) -> Link | None:
        """Return an end that need not be read."""
        if not self._reads:
            return job.unread(side)
        echo = job.echo if side is job.outer and not side.wants_more else None
        return None if echo is None else to_link(echo, side.end.netns)

    def _write_settings(self) -> None:
        """Write what is no message: whether an end has IPv6, and its sysctls."""
        ipv6: dict[OpenNetns, dict[str, bool]] = {}
        sysctls: dict[OpenNetns, dict[str, tuple[Sysctl, ...]]] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.end.ipv6 is not None:
                        ipv6.setdefault(side.place, {})[side.name] = side.end.ipv6
                    if side.end.sysctls:
                        sysctls.setdefault(side.place, {})[side.name] = side.end.further[SYSCTLS]
        failed = (switch_ipv6(ipv6) if ipv6 else {}) | (write_sysctls(sysctls) if sysctls else {})
        for job in self.jobs if failed else ():
            for side in (job.outer, job.peer):
                if (error := failed.get((side.place, side.name))) is not None:
                    job.failed(error)


def _by_outer_place(jobs: Iterable[Job]) -> dict[OpenNetns, list[Job]]:
    groups: dict[OpenNetns, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.outer.place, []).append(job)
    return groups


def _send_creates(namespaces: Namespaces, jobs: Sequence[Job]) -> None:
    groups = _by_outer_place(jobs)
    for place, group in groups.items():
        try:
            assign_ids(namespaces, place, (job.peer.place for job in group))
            exchange = namespaces.begin(place, [job.request for job in group])
            for number, job in enumerate(group):
                job.sent_as(exchange, number)
            namespaces.run(place, exchange)
        except VethError as error:
            for job in group:
                if not job.made:
                    job.failed(error)
        for job in group:
            if not job.outcome.errno:
                _take_indexes(namespaces, job)
            elif job.outcome.errno != errno.EEXIST:
                _explain_create(namespaces, job, job.outcome)


def _take_indexes(namespaces: Namespaces, job: Job) -> None:
    if (echo := job.echo) is not None:
        job.outer.index, job.peer.index = echo.ifindex, echo.link or 0
        note_id(job.outer.place, echo.link_netnsid)
    for side in (job.outer, job.peer):
        if not side.index:
            try:
                side.index = find(namespaces, side.made).ifindex
            except VethError as error:
                job.failed(error)


def _explain_create(namespaces: Namespaces, job: Job, outcome: Outcome) -> None:
    """Note the error of a pair. EEXIST does not say which end's name is taken, so the links are looked up."""
    says, dying = "", False
    if outcome.errno == errno.EEXIST:
        try:
            links = holders(namespaces, job.names)
            dying = are_dying(namespaces, links)
        except VethError:
            links = {}
        taken = [side for side in (job.a, job.b) if (side.place, side.name) in links]
        where = " and ".join(f"{side.name!r} already exists in {spell(side.end.netns)}" for side in taken)
        says = where or "a link of one of these names already exists"
        if dying:
            says += ", and is about to vanish with the namespace of its other end: try again, or wait for that (wait=)"
    elif outcome.errno == errno.EOPNOTSUPP:
        says = "this kernel has no veth (try: modprobe veth)"
    job.refused(outcome, says=says, dying=dying)


def _try(
    work: Callable[[Namespaces, OpenNetns, _Ends], None], namespaces: Namespaces, place: OpenNetns, ends: _Ends
) -> None:
    """Do `work` for the ends in a namespace; an error concerns all of them."""
    try:
        work(namespaces, place, ends)
    except VethError as error:
        for job, _ in ends:
            job.failed(error)


def _field_steps(index: int, further: Mapping[str, Any], *, late: bool) -> Iterator[Step]:
    for name, value in further.items():
        if FIELDS[name].late == late:
            yield from FIELDS[name].steps(index, None, value)


def _configure(namespaces: Namespaces, place: OpenNetns, ends: _Ends) -> None:
    requests: list[bytes] = []
    steps: list[tuple[Job, Side, str | IPInterface]] = []
    for job, side in ends:
        end, index = side.end, side.index
        for interface in as_sent(end.interfaces):
            requests.append(_address_request(index, interface, end.address_proto))
            steps.append((job, side, interface))
        if end.alias is not None:
            requests.append(set_link(index, alias=os.fsencode(end.alias)))
            steps.append((job, side, "set its alias"))
        further = end.further
        for sent in _field_steps(index, further, late=False) if further else ():
            requests.append(sent.request)
            steps.append((job, side, f"set its {sent.what}"))
        if end.up:
            requests.append(set_up(index))
            steps.append((job, side, "bring it up"))
        for sent in _field_steps(index, further, late=True) if further else ():
            requests.append(sent.request)
            steps.append((job, side, f"set its {sent.what}"))
    without_ipv6: list[tuple[Job, Side, IPInterface]] = []
    for (job, side, step), outcome in zip(steps, namespaces.change(place, requests), strict=True):
        if outcome is DONE:
            continue
        if not isinstance(step, str) and is_disabled(outcome, step):
            without_ipv6.append((job, side, step))
        else:
            job.refused(outcome, says=_step_text(outcome, side, step), side=side)
    if without_ipv6:
        _add_with_ipv6_enabled(namespaces, place, without_ipv6)


def _read(read: list[tuple[Identity, LinkMessage]], namespaces: Namespaces, place: OpenNetns, ends: _Ends) -> None:
    outcomes = namespaces.ask_all(place, [get_link(side.index) for _, side in ends])
    for (job, side), outcome in zip(ends, outcomes, strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, "read it"), side=side)
            continue
        try:
            message = side.made.read(outcome, parse_link)
        except VethError as error:
            job.failed(error)
            continue
        if side.end.ipv6 not in (None, message.ipv6):
            step = "enable IPv6 on it" if side.end.ipv6 else "disable IPv6 on it"
            job.refused(
                Outcome(errno.EBUSY, "", ()), says=_step_text(Outcome(errno.EBUSY, "", ()), side, step), side=side
            )
        else:
            read.append((place.identity, message))
            side.link = to_link(message, side.end.netns, addresses=side.end.interfaces)


def _address_request(index: int, interface: IPInterface, proto: int) -> bytes:
    """Return the RTM_NEWADDR for an ``ipaddress`` interface."""
    return new_addr(index, interface.packed, interface.network.prefixlen, proto)


def _add_with_ipv6_enabled(
    namespaces: Namespaces, place: OpenNetns, wanted: Sequence[tuple[Job, Side, IPInterface]]
) -> None:
    """Enable IPv6 on the links and add the addresses. If that fails (/proc/sys is read-only), only its pair fails."""
    failed = enable_ipv6(place, {side.name: None for _, side, _ in wanted})
    for job, side, _ in wanted:
        if side.name in failed:
            job.failed(failed[side.name])
    wanted = [(job, side, interface) for job, side, interface in wanted if side.name not in failed]
    requests = [_address_request(side.index, interface, side.end.address_proto) for _, side, interface in wanted]
    for (job, side, interface), outcome in zip(wanted, namespaces.exchange(place, requests), strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, interface), side=side)


def _step_text(outcome: Outcome, side: Side, step: str | IPInterface) -> str:
    name = describe(side.name, side.end.netns)
    what = step if isinstance(step, str) else f"add {step}"
    return f"{name} was created, but the kernel refused to {what}: {os.strerror(outcome.errno)}"
