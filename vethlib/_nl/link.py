"""Links on the wire: requests to create, read, change and delete them, and parsing.

Layout: struct ifinfomsg (family, pad, type, index, flags, change mask), then IFLA_* attributes
(include/uapi/linux/rtnetlink.h and if_link.h). The kernel handles them in net/core/rtnetlink.c, and the peer of a veth
in drivers/net/veth.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from itertools import repeat
from socket import AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from vethlib.errors import Malformed

from .const import (
    DEVCONF_DISABLE_IPV6,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_ALT_IFNAME,
    IFLA_EXT_MASK,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_CACHEINFO,
    IFLA_INET6_CONF,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_NEW_IFINDEX,
    IFLA_NUM_RX_QUEUES,
    IFLA_NUM_TX_QUEUES,
    IFLA_OPERSTATE,
    IFLA_PROP_LIST,
    IFLA_STATS,
    IFLA_STATS64,
    IFLA_STATS_LINK_64,
    IFLA_TARGET_NETNSID,
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    OPERSTATES,
    RTEXT_FILTER_SKIP_STATS,
    RTM_DELLINK,
    RTM_DELLINKPROP,
    RTM_GETLINK,
    RTM_GETSTATS,
    RTM_NEWLINK,
    RTM_NEWLINKPROP,
    RTM_SETLINK,
    VETH_INFO_PEER,
)
from .layout import Differing, Layouts
from .wire import (
    ENCODING,
    ERRORS,
    Part,
    Template,
    attribute,
    attributes,
    attributes_of,
    hole,
    message,
    nest,
    template_cache,
)

_IFINFOMSG: Final = Struct("=BxHiII")
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")
_SKIP_STATS: Final = attribute(IFLA_EXT_MASK, _U32.pack(RTEXT_FILTER_SKIP_STATS))
_VETH_KIND: Final = attribute(IFLA_INFO_KIND, b"veth\0")


_LAYOUTS: Final = Layouts(
    "=4xiI4x",
    {
        IFLA_IFNAME: "s",
        IFLA_OPERSTATE: "B",
        IFLA_MTU: "I",
        IFLA_GROUP: "I",
        IFLA_NUM_TX_QUEUES: "I",
        IFLA_ADDRESS: "s",
        IFLA_LINKINFO: "64s",  # IFLA_INFO_KIND is the first, and much may follow it (a macvlan's list of MACs)
        IFLA_LINK_NETNSID: "i",
        IFLA_LINK: "I",
        (IFLA_AF_SPEC, AF_INET6, IFLA_INET6_CONF): f"{4 * DEVCONF_DISABLE_IPV6}xI+",
        # Last, because links rarely have them.
        IFLA_IFALIAS: "s",
        IFLA_PROP_LIST: "s",
    },
    Differing(
        4,
        (IFLA_IFNAME, IFLA_ADDRESS, IFLA_LINK_NETNSID, IFLA_LINK),
        (IFLA_STATS, IFLA_STATS64, (IFLA_AF_SPEC, AF_INET6, IFLA_INET6_CACHEINFO)),
    ),
)
_OPERSTATES: Final[dict[int | None, str]] = dict(enumerate(OPERSTATES))


class NewEnd(NamedTuple):
    """One end in a message that creates a pair; for None, the kernel chooses a value."""

    name: bytes
    mac: bytes | None
    mtu: int | None
    num_queues: int | None
    group: int | None


def create_veth(outer: NewEnd, peer: NewEnd, peer_netns_fd: int | None) -> bytes:
    """RTM_NEWLINK for a pair: `outer` in the socket's namespace, `peer` in that of the fd (None: in the same one).

    The kernel echoes the outer end as created (NLM_F_ECHO, since Linux 6.2), with its ifindex, and that of its peer in
    IFLA_LINK. The echo is sent in the outer end's own namespace (rtnl_notify in rtnetlink.c), where a socket in another
    one would not receive it; so the outer end is always in the socket's namespace.
    """
    values = _end_values(outer) + _end_values(peer)
    if peer_netns_fd is not None:
        values.append(peer_netns_fd)
    return _create_template(_given(outer), _given(peer), peer_netns_fd is not None).fill(values)


def _given(end: NewEnd) -> tuple[bool, ...]:
    _name, mac, mtu, num_queues, group = end
    return True, mac is not None, mtu is not None, num_queues is not None, group is not None


def _end_values(end: NewEnd) -> list[bytes | int]:
    name, mac, mtu, num_queues, group = end
    values: list[bytes | int] = [name]
    if mac is not None:
        values.append(mac)
    if mtu is not None:
        values.append(mtu)
    if num_queues is not None:
        values += (num_queues, num_queues)
    if group is not None:
        values.append(group)
    return values


@template_cache
def _create_template(outer: tuple[bool, ...], peer: tuple[bool, ...], peer_elsewhere: bool) -> Template:
    peer_parts = [_IFINFOMSG.pack(0, 0, 0, 0, 0), *_end_parts(peer)]
    if peer_elsewhere:
        peer_parts += hole(IFLA_NET_NS_FD, "I")
    parts = [
        _IFINFOMSG.pack(0, 0, 0, 0, 0),
        *_end_parts(outer),
        *nest(IFLA_LINKINFO, [_VETH_KIND, *nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, peer_parts))]),
    ]
    return Template(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO, parts)


def _end_parts(present: tuple[bool, ...]) -> list[Part]:
    _name, mac, mtu, num_queues, group = present
    parts = hole(IFLA_IFNAME, "16s")
    if mac:
        parts += hole(IFLA_ADDRESS, "6s")
    if mtu:
        parts += hole(IFLA_MTU, "I")
    if num_queues:
        parts += hole(IFLA_NUM_TX_QUEUES, "I") + hole(IFLA_NUM_RX_QUEUES, "I")
    if group:
        parts += hole(IFLA_GROUP, "I")
    return parts


def create_bridge(name: bytes) -> bytes:
    """RTM_NEWLINK for a bridge that is up from the start (br_dev_newlink, net/bridge/br_netlink.c)."""
    body = _IFINFOMSG.pack(0, 0, 0, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name + b"\0")
    body += attribute(IFLA_LINKINFO | NLA_F_NESTED, attribute(IFLA_INFO_KIND, b"bridge\0"))
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, body)


def set_master(index: int, master: int) -> bytes:
    """RTM_SETLINK: make link `index` a port of the bridge (or of the VRF, …) `master`; 0: of none."""
    body = _IFINFOMSG.pack(0, 0, index, 0, 0) + attribute(IFLA_MASTER, _U32.pack(master))
    return message(RTM_SETLINK, NLM_F_REQUEST, body)


_SET_UP: Final = Struct("=20si8s")
_SET_UP_START: Final = message(RTM_NEWLINK, NLM_F_REQUEST, bytes(16))[:20]
_SET_UP_FLAGS: Final = _U32.pack(IFF_UP) + _U32.pack(IFF_UP)


def set_up(index: int) -> bytes:
    """RTM_SETLINK: set a link up, which every end of every pair needs."""
    return _SET_UP.pack(_SET_UP_START, index, _SET_UP_FLAGS)


_SET_GROUP: Final = Template(
    RTM_SETLINK, NLM_F_REQUEST, [b"\0\0\0\0", "i", b"\0\0\0\0\0\0\0\0", *hole(IFLA_GROUP, "I")]
)


def set_group(index: int, group: int) -> bytes:
    """RTM_SETLINK: put a link into a group, as for each link that is deleted in bulk."""
    return _SET_GROUP.fill((index, group))


def set_link(
    index: int,
    *,
    name: bytes | None = None,
    up: bool | None = None,
    mac: bytes | None = None,
    mtu: int | None = None,
    alias: bytes | None = None,
    group: int | None = None,
    netns_fd: int | None = None,
    new_index: int | None = None,
) -> bytes:
    """RTM_SETLINK: change the given settings of link `index`; `name` renames it, `netns_fd` moves it.

    `new_index` is the ifindex that a link has after a move (IFLA_NEW_IFINDEX, Linux 5.12; ignored before).
    """
    body = _IFINFOMSG.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
    if netns_fd is not None:
        body += attribute(IFLA_NET_NS_FD, _U32.pack(netns_fd))
    if new_index is not None:
        body += attribute(IFLA_NEW_IFINDEX, _I32.pack(new_index))
    if name is not None:
        body += attribute(IFLA_IFNAME, name + b"\0")
    return message(RTM_SETLINK, NLM_F_REQUEST, body + attribute_of(mac=mac, mtu=mtu, alias=alias, group=group))


def attribute_of(
    *, mac: bytes | None = None, mtu: int | None = None, alias: bytes | None = None, group: int | None = None
) -> bytes:
    """Return the attributes of these settings, for messages that change a link."""
    attrs = b""
    if mtu is not None:
        attrs += attribute(IFLA_MTU, _U32.pack(mtu))
    if mac is not None:
        attrs += attribute(IFLA_ADDRESS, mac)
    if group is not None:
        attrs += attribute(IFLA_GROUP, _U32.pack(group))
    if alias is not None:
        # The kernel ignores an empty IFLA_IFALIAS (dev_set_alias); one NUL clears the alias.
        attrs += attribute(IFLA_IFALIAS, alias or b"\0")
    return attrs


_SET_BY_NAME: Final = Struct("=IHH16xII4s16s")
_NAME_HEADER: Final = attribute(IFLA_IFNAME, bytes(16))[:4]


def set_attribute(index: int, name: bytes, attr: bytes, up: bool | None = None) -> bytes:
    """RTM_SETLINK: change one setting of a link, given by ifindex, or else by its name or an alternative name."""
    flags, mask = IFF_UP if up else 0, 0 if up is None else IFF_UP
    if not index and len(name) < 16:
        size = _SET_BY_NAME.size + len(attr)
        return _SET_BY_NAME.pack(size, RTM_SETLINK, NLM_F_REQUEST, flags, mask, _NAME_HEADER, name) + attr
    if not index:
        attr = attribute(IFLA_ALT_IFNAME, name + b"\0") + attr
    return message(RTM_SETLINK, NLM_F_REQUEST, _IFINFOMSG.pack(0, 0, index, flags, mask) + attr)


def set_altname(index: int, name: bytes, *, present: bool) -> bytes:
    """RTM_NEWLINKPROP or RTM_DELLINKPROP: give a link an alternative name, or remove it (Linux 5.5).

    EEXIST: a link has that name already; ENOENT: this one does not have it (rtnl_alt_ifname, net/core/rtnetlink.c).
    """
    body = _IFINFOMSG.pack(0, 0, index, 0, 0)
    body += attribute(IFLA_PROP_LIST | NLA_F_NESTED, attribute(IFLA_ALT_IFNAME, name + b"\0"))
    return message(RTM_NEWLINKPROP if present else RTM_DELLINKPROP, NLM_F_REQUEST, body)


# The two requests that look-ups send, each filled in by one call; a name may be padded with NULs.
_GET_BY_INDEX: Final = Struct("=20si16s")
_GET_HEADER: Final = message(RTM_GETLINK, NLM_F_REQUEST, bytes(16) + _SKIP_STATS)[:20]
_GET_REST: Final = bytes(8) + _SKIP_STATS
_GET_BY_NAME: Final = Struct("=36s16s8s")
_GET_BY_NAME_START: Final = message(
    RTM_GETLINK, NLM_F_REQUEST, bytes(16) + attribute(IFLA_IFNAME, bytes(16)) + _SKIP_STATS
)[:36]


def get_link(index: int = 0, name: bytes = b"", *, netnsid: int | None = None, stats: bool = False) -> bytes:
    """RTM_GETLINK of one link, by ifindex or by name, which may be an alternative name (__dev_get_by_name).

    With `netnsid`, the link is in the namespace that has this id in the socket's own (IFLA_TARGET_NETNSID, Linux 4.20).
    Without `stats`, the answer is a quarter shorter.
    """
    if netnsid is None and not stats:
        if not name:
            return _GET_BY_INDEX.pack(_GET_HEADER, index, _GET_REST)
        if len(name) < 16:
            return _GET_BY_NAME.pack(_GET_BY_NAME_START, name, _SKIP_STATS)
    body = _IFINFOMSG.pack(0, 0, index, 0, 0)
    if name:
        # Only this attribute has room for an alternative name of up to 127 bytes.
        body += attribute(IFLA_IFNAME if len(name) < 16 else IFLA_ALT_IFNAME, name + b"\0")
    if netnsid is not None:
        body += attribute(IFLA_TARGET_NETNSID, _I32.pack(netnsid))
    return message(RTM_GETLINK, NLM_F_REQUEST, body if stats else body + _SKIP_STATS)


def get_named(name: str) -> bytes:
    """RTM_GETLINK, as from :func:`get_link`, for a name given as text."""
    return get_link(name=name.encode(ENCODING, ERRORS))  # as encoded(), without another call


def new_link(body: bytes) -> bytes:
    """Return an RTM_NEWLINK with this body, for a decoder of whole messages."""
    return message(RTM_NEWLINK, 0, body)


def dump_links(kind: bytes = b"", *, netnsid: int | None = None) -> bytes:
    """RTM_GETLINK of all links, or of those of one kind (the kernel filters); `netnsid` as for :func:`get_link`.

    With `netnsid`, link_netnsid is also an id in the socket's namespace, which the kernel assigns if there is none.
    """
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + _SKIP_STATS
    if netnsid is not None:
        body += attribute(IFLA_TARGET_NETNSID, _I32.pack(netnsid))
    if kind:
        body += attribute(IFLA_LINKINFO | NLA_F_NESTED, attribute(IFLA_INFO_KIND, kind + b"\0"))
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, body)


def delete_link(index: int) -> bytes:
    """RTM_DELLINK of one link, and of its peer, wherever that is."""
    return message(RTM_DELLINK, NLM_F_REQUEST, _IFINFOMSG.pack(0, 0, index, 0, 0))


def delete_group(group: int) -> bytes:
    """RTM_DELLINK of every link of a group, in one unregistration (rtnl_group_dellink)."""
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(IFLA_GROUP, _U32.pack(group))
    return message(RTM_DELLINK, NLM_F_REQUEST, body)


class LinkMessage(NamedTuple):
    """The parts of an RTM_NEWLINK that are read. `link` is IFLA_LINK (a veth's peer), `link_netnsid` its namespace.

    `ipv6` is False if the link has no IPv6: it is disabled (disable_ipv6), or the MTU is below its minimum.
    """

    ifindex: int
    flags: int
    name: str
    mac: bytes
    mtu: int
    link: int | None
    link_netnsid: int | None
    operstate: str
    kind: str
    alias: str
    group: int
    num_tx_queues: int
    altnames: tuple[str, ...]
    ipv6: bool = True

    @property
    def up(self) -> bool:
        """Whether IFF_UP is set: the administrative state."""
        return bool(self.flags & IFF_UP)


def parse_link(body: bytes) -> LinkMessage:
    """Read the body of an RTM_NEWLINK or RTM_DELLINK message. Raises Malformed."""
    index, flags, name, operstate, mtu, group, num_tx_queues, mac, info, netnsid, link, off, alias, properties = (
        _read_layout(body)
    )
    return _link_message(
        (
            index,
            flags,
            name.rstrip(b"\0").decode(ENCODING, ERRORS) if name else "",  # as _text()
            mac or b"",
            mtu or 0,
            # Before Linux 5.2, nla_put_iflink() leaves out an index equal to the link's own, whatever the namespace.
            link if link is not None or netnsid is None else index,
            netnsid,
            _OPERSTATES.get(operstate, "unknown"),
            _kind(info) if info else "",
            _text(alias) if alias else "",
            group or 0,
            num_tx_queues or 0,
            _altnames(properties) if properties else (),
            off == 0,  # None: the kernel has no IPv6 settings for the link (inet6_fill_link_af, net/ipv6/addrconf.c)
        )
    )


def parse_alike(datagram: bytes, start: int, end: int, first: LinkMessage) -> list[LinkMessage]:
    """Parse the messages of a dump that follow `first`, which is between `start` and `end`, and differ little from it.

    They differ in name, MAC, ifindex and peer, as most links do. This takes half the time of parsing each of them.
    """
    columns = _LAYOUTS.read_alike(datagram, start, end)
    if not columns:
        return []
    indexes, names, macs, netnsids, links = columns
    if links is None:
        links = indexes if netnsids is not None else None  # as in parse_link()
    texts = [name.rstrip(b"\0").decode(ENCODING, ERRORS) for name in names or ()]
    _, flags, _, _, mtu, _, _, operstate, kind, alias, group, queues, altnames, ipv6 = first
    return [
        _link_message(
            (index, flags, name, mac, mtu, link, netnsid, operstate, kind, alias, group, queues, altnames, ipv6)
        )
        for index, name, mac, link, netnsid in zip(
            indexes,
            texts or repeat(""),
            macs or repeat(b""),
            links or repeat(None),
            netnsids or repeat(None),
            strict=False,
        )
    ]


def numbers_of(body: bytes, kinds: Iterable[int]) -> list[int | None]:
    """Return the 32-bit attributes of a link message that have these types; None for a missing attribute."""
    found = {kind: _U32.unpack_from(body, start)[0] for kind, start, end in attributes_of(body, 16) if end - start == 4}
    return [found.get(kind) for kind in kinds]


def index_of(body: bytes) -> int:
    """Return only the ifindex of a link message. Raises Malformed."""
    if len(body) < 8:
        raise Malformed(f"a link message of {len(body)} bytes")
    index: int = _I32.unpack_from(body, 4)[0]
    return index


_read_layout: Final = _LAYOUTS.read

# The __new__ of a NamedTuple is written in Python, and takes three times as long.
_link_message = partial(tuple.__new__, LinkMessage)


@lru_cache(maxsize=64)  # links of a kind usually have identical bytes here
def _kind(info: bytes) -> str:
    try:
        for attr, start, end in attributes(info, 0, len(info)):
            if attr == IFLA_INFO_KIND:
                return _text(info[start:end])
    except Malformed:
        pass  # IFLA_LINKINFO itself may be cut (see wire.py, rule 6)
    return ""


@lru_cache(maxsize=32)  # 496 names take 0.3 ms, and each event of their link has them; so they are cached, too
def _altnames(properties: bytes) -> tuple[str, ...]:
    names: list[str] = []
    try:
        for attr, start, end in attributes(properties, 0, len(properties)):
            if attr == IFLA_ALT_IFNAME:
                names.append(_text(properties[start:end]))
    except Malformed:
        pass  # as above: older kernels do not limit the list
    return tuple(names)


def _text(raw: bytes) -> str:
    # As decoded(), without another call.
    return raw.rstrip(b"\0").decode(ENCODING, ERRORS)


# struct if_stats_msg (include/uapi/linux/if_link.h): family, padding, ifindex, filter mask
_IF_STATS_MSG: Final = Struct("=BxxxII")
_COUNTERS: Final = Struct("=24Q")


def get_stats(index: int) -> bytes:
    """RTM_GETSTATS of one link: only its struct rtnl_link_stats64 (net/core/rtnetlink.c, since Linux 4.7)."""
    body = _IF_STATS_MSG.pack(0, index, 1 << (IFLA_STATS_LINK_64 - 1))
    return message(RTM_GETSTATS, NLM_F_REQUEST, body)


def dump_stats() -> bytes:
    """RTM_GETSTATS of every link of a namespace; see :func:`get_stats`."""
    return message(RTM_GETSTATS, NLM_F_REQUEST | NLM_F_DUMP, _IF_STATS_MSG.pack(0, 0, 1 << (IFLA_STATS_LINK_64 - 1)))


def parse_indexed_stats(body: bytes) -> tuple[int, tuple[int, ...]]:
    """Return the ifindex and the counters of an RTM_NEWSTATS. Raises Malformed."""
    return index_of(body), parse_stats(body)


def parse_stats(body: bytes) -> tuple[int, ...]:
    """Read an RTM_NEWSTATS: the 24 counters in the order of struct rtnl_link_stats64. Raises Malformed."""
    for attr, start, end in attributes_of(body, _IF_STATS_MSG.size):
        if attr == IFLA_STATS_LINK_64 and end - start >= _COUNTERS.size:
            return _COUNTERS.unpack_from(body, start)
    raise Malformed("a statistics message without the 64-bit counters")
