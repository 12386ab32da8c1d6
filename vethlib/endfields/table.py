"""The fields of an end: how each is checked, sent, read, compared, undone and put into words, in one table.

1. A field that is set by one attribute of a message has that ``attribute``; the same attribute with the former value
   undoes the change. A field with several values (``several``) is changed by one message for each value that is added
   or removed, and the opposite message undoes it; late fields are restored by `session/write/restoring`. ``SYSCTLS``
   are files and ``OFFLOAD`` is an ioctl, not messages (``direct``): `session/core/settings.py` reads and writes them. A
   new link has none of several values yet, so ``new`` returns its messages without any that undo them.
2. The present value is in every :class:`LinkMessage` (``read``), or it is read only on request: with ``number``, it is
   that attribute of a link message, and ``along`` is another attribute that the kernel changes with it; the rest is in
   `session/read/further.py`. So an end without such fields costs nothing extra.
3. ``target`` returns the value that a link should have, given what it has: by default, the desired value.
4. The values of a field with ``none`` are those that vethlib has set, so when such a field is no longer configured, an
   agent sets it to ``none``. Other fields are left as they are.
5. A ``late`` field needs a link that is up and has its addresses, so it is sent last, and lost with them. An ``early``
   field may cost the link its addresses, so it is sent before them.
6. The kernel sends a link event when an ``announced`` field changes, which does not show its value (NETDEV_CHANGEUPPER,
   NETDEV_FEAT_CHANGE and NETDEV_CHANGE_TX_QUEUE_LEN in rtnetlink_event, net/core/rtnetlink.c). For the other fields
   that are read on request, no link event reports a change.
7. The fields are in the order in which they are sent. The alias is first, because it may be a mark that describes the
   others.
8. The name, the namespace, the addresses, and whether the link is up and has IPv6 are not in the table: they affect one
   another, and `session/write/change.py` determines their order. `mtu` is in the table, but that module sends it first
   or last, because IPv6 needs 1280 bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vethlib._nl.const import IFLA_GSO_IPV4_MAX_SIZE, IFLA_GSO_MAX_SIZE, IFLA_MASTER, IFLA_TXQLEN
from vethlib._nl.dependents.port import set_port
from vethlib._nl.link import LinkMessage, attribute_of, set_altname, set_attribute, set_master
from vethlib._nl.wire import attribute, encoded
from vethlib.addresses import Identity, IPInterface

from .checks import (
    MasterName,
    check_alias,
    check_all_altnames,
    check_altname,
    check_altnames,
    check_group,
    check_gso_max_size,
    check_mac,
    check_master,
    check_mtu,
    check_sysctls,
    check_txqlen,
    is_master,
    sysctls_target,
)

if TYPE_CHECKING:
    from .neighbours import Neighbour
    from .routes import Route

__all__ = [
    "ALTNAMES",
    "FIELDS",
    "LATE",
    "MASTER",
    "NEIGHBOURS",
    "OFFLOAD",
    "ROUTES",
    "SYSCTLS",
    "TAKES_LATE",
    "Field",
    "Step",
    "return_to_master",
]

ALTNAMES: Final = "altnames"
SYSCTLS: Final = "sysctls"
OFFLOAD: Final = "offload"
ROUTES: Final = "routes"
NEIGHBOURS: Final = "neighbours"
MASTER: Final = "master"

_U32: Final = Struct("=I")


class Step(NamedTuple):
    """One message, and those that undo it. `fine` are errnos that may mean that it was unnecessary.

    `address` is the address that it adds or changes, and `adds` its identity if the link did not have it. `exists` is
    the meaning of EEXIST, unless that means that a link has a name. `late_version` is the IP version of the route or
    neighbour that it adds, if it adds one. With `halves`, the kernel may have carried out half of it when it refuses
    it.
    """

    what: str
    request: bytes
    undo: tuple[bytes, ...] = ()
    fine: tuple[int, ...] = ()
    address: IPInterface | None = None
    exists: str = ""
    adds: Identity | None = None
    late_version: int = 0
    halves: bool = False


def _wanted(_present: Any, wanted: Any) -> Any:
    return wanted


class Field(NamedTuple):
    """A field of an end and of :meth:`Session.set`, where it has the same name.

    `check` returns a value in the form that is compared, or raises InvalidValue; `check_change`, if present, takes its
    place for an existing link, which may have values that cannot be given to a new one. `words` returns the text of a
    value in errors, and `exists` is the meaning of EEXIST for one of its values. For the others, see the module.
    """

    name: str
    check: Callable[[Any, str], Any]
    attribute: Callable[[Any], bytes] | None = None
    read: Callable[[LinkMessage], Any] | None = None
    number: int = 0
    along: int = 0
    several: Callable[[int, Any, Any], Iterator[Step]] | None = None
    new: Callable[[int, Any], Iterator[tuple[object, bytes]]] | None = None
    target: Callable[[Any, Any], Any] = _wanted
    words: Callable[[Any], str] = str
    exists: str = ""
    late: bool = False
    early: bool = False
    none: Any = None
    direct: bool = False
    announced: bool = False
    check_change: Callable[[Any, str], Any] | None = None

    def check_set(self, value: Any) -> Any:
        """Return a value for an existing link, in the form that is compared. Raises InvalidValue."""
        return (self.check_change or self.check)(value, self.name)

    def describe(self, value: Any) -> str:
        """Describe setting the field to this value."""
        return f"{self.name} {self.words(value)}"

    def creation(self, index: int, value: Any) -> Iterator[tuple[object, bytes]]:
        """Return the messages that give the field of a new link its value, each with a description (text on demand)."""
        if self.new is not None:
            return self.new(index, value)
        return ((step.what, step.request) for step in self.steps(index, None, value))

    def steps(self, index: int, present: Any, value: Any) -> Iterator[Step]:
        """Yield the steps that change the field of a link from `present` (None: unknown, or no value) to `value`."""
        if self.several is not None:
            for step in self.several(index, present or (), value):
                yield step._replace(exists=self.exists) if self.exists else step
        elif self.attribute is not None:
            undo = () if present is None else (set_attribute(index, b"", self.attribute(present)),)
            yield Step(self.describe(value), set_attribute(index, b"", self.attribute(value)), undo)


def _number(name: str, check: Callable[[Any, str], Any], kind: int, *, announced: bool = False) -> Field:
    return Field(name, check, lambda value: attribute(kind, _U32.pack(value)), number=kind, announced=announced)


def _gso_max_size(size: int) -> bytes:
    ipv4 = getattr(size, "ipv4", None)
    along = b"" if ipv4 is None else attribute(IFLA_GSO_IPV4_MAX_SIZE, _U32.pack(ipv4))
    return attribute(IFLA_GSO_MAX_SIZE, _U32.pack(size)) + along


def return_to_master(index: int, master: MasterName) -> tuple[bytes, ...]:
    """Return the messages that attach a link to its former master again, with its settings as a port of that bridge."""
    attached = set_master(index, master.ifindex)
    return (attached, set_port(index, master.port)) if master.port else (attached,)


def _change_master(index: int, present: Any, wanted: Any) -> Iterator[Step]:
    """Change the master from one that was looked up (`MasterName`) to another.

    The kernel detaches the link from its master before it asks the new one (do_set_master, net/core/rtnetlink.c).
    """
    if wanted.ifindex != (present.ifindex if present else 0):
        what = f"master {wanted}" if wanted else "no master"
        undo = return_to_master(index, present) if present else (set_master(index, 0),)
        yield Step(what, set_master(index, wanted.ifindex), undo, halves=True)


def _target_master(present: str | None, wanted: str) -> str | None:
    return present if is_master(present, wanted) else wanted


def _change_altnames(index: int, present: Sequence[str], wanted: Sequence[str]) -> Iterator[Step]:
    there, kept = set(present), set(wanted)
    for name in [*present, *wanted]:
        given = name in kept
        if given != (name in there):
            request, undo = (set_altname(index, encoded(name), present=each) for each in (given, not given))
            fine = () if given else (errno.ENOENT,)
            if given:
                check_altname(name)
            yield Step(f"{'altname' if given else 'no altname'} {name!r}", request, (undo,), fine)


def _check_offload(offload: Any, field: str) -> Any:
    from .offload import check_offload  # only for ends that have it

    return check_offload(offload, field)


def _offload_target(present: Any, wanted: Any) -> Any:
    from .offload import target_of  # as above

    return target_of(present, wanted)


def _check_routes(routes: Any, field: str) -> Any:
    from .routes import check_routes  # 1 ms, only for ends with routes

    return check_routes(routes, field)


def _change_routes(index: int, present: Sequence[Route], wanted: Sequence[Route]) -> Iterator[Step]:
    from .routes import route_requests  # as above

    for what, request, fine, version in route_requests(index, present, wanted):
        yield Step(what, request, fine=fine, late_version=version)


def _new_routes(index: int, wanted: Sequence[Route]) -> Iterator[tuple[object, bytes]]:
    from .routes import new_route_requests  # as above

    return new_route_requests(index, wanted)


def _check_neighbours(neighbours: Any, field: str) -> Any:
    from .neighbours import check_given  # as above

    return check_given(neighbours, field)


def _change_neighbours(index: int, present: Sequence[Neighbour], wanted: Sequence[Neighbour]) -> Iterator[Step]:
    from .neighbours import neighbour_requests  # as above

    for what, request, fine, version in neighbour_requests(index, present, wanted):
        yield Step(what, request, fine=fine, late_version=version)


def _with_foreign(present: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
    """Return the desired values, after the present ones, which may be foreign (nothing marks an alternative name)."""
    return tuple(dict.fromkeys((*present, *wanted)))


FIELDS: Final = {
    field.name: field
    for field in (
        Field(
            "alias",
            check_alias,
            lambda text: attribute_of(alias=encoded(text)),
            lambda link: link.alias,
            words=repr,
        ),
        Field("mac", check_mac, lambda mac: attribute_of(mac=_packed(mac)), lambda link: link.mac.hex(":")),
        Field("group", check_group, lambda group: attribute_of(group=group), lambda link: link.group),
        Field("mtu", check_mtu, lambda mtu: attribute_of(mtu=mtu), lambda link: link.mtu),
        _number("txqlen", check_txqlen, IFLA_TXQLEN, announced=True),
        Field(
            "gso_max_size", check_gso_max_size, _gso_max_size, number=IFLA_GSO_MAX_SIZE, along=IFLA_GSO_IPV4_MAX_SIZE
        ),
        Field(
            ALTNAMES,
            check_altnames,
            read=lambda link: link.altnames,
            several=_change_altnames,
            target=_with_foreign,
            check_change=check_all_altnames,
        ),
        # A link that joins a VRF loses its IPv6 addresses (addrconf_notify, NETDEV_CHANGEUPPER).
        Field(
            MASTER,
            check_master,
            number=IFLA_MASTER,
            several=_change_master,
            target=_target_master,
            early=True,
            none="",
            announced=True,
        ),
        Field(SYSCTLS, check_sysctls, target=sysctls_target, direct=True),
        Field(OFFLOAD, _check_offload, target=_offload_target, direct=True, announced=True),
        Field(
            ROUTES,
            _check_routes,
            several=_change_routes,
            new=_new_routes,
            exists="another route has this destination, metric and table",
            late=True,
            none=(),
        ),
        Field(NEIGHBOURS, _check_neighbours, several=_change_neighbours, late=True, none=()),
    )
}


LATE: Final = tuple([name for name, field in FIELDS.items() if field.late])
"""The late fields (rule 5)."""

TAKES_LATE: Final = {
    "up": LATE,
    "mac": (NEIGHBOURS,),
    "mtu": LATE,
    "ipv6": LATE,
    MASTER: LATE,
    "name": LATE,
    "addresses": LATE,
}
"""The late fields that a link may lose by a change (rule 5).

A link is set down by ``up``, when it joins or leaves a VRF, and, before Linux 6.2, to be renamed (fib_disable_ip,
addrconf_ifdown and neigh_ifdown). Another MAC removes neighbours (neigh_changeaddr); an MTU below 1280 and disabling
IPv6 remove IPv6 routes and neighbours (addrconf_ifdown); removing an address removes the routes whose source it is, and
removing the last IPv4 address removes all IPv4 routes and neighbours (fib_sync_down_addr, fib_disable_ip).
"""


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
