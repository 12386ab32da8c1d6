"""Random hosts with a past, and random lists of interfaces, for properties of plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.unit.host_model import Host, HostLink
from tests.unit.kernel_addresses import Held
from vethlib.agent import Interface, Mark, Namespace, group_of, is_ours, plan
from vethlib.agent.planning.observed import LinkId

LABEL = "vpp1"
NAMES = [f"veth{number}" for number in range(6)]
KERNEL_NAMES = ["", "", "eth0", "eth1", "eth2", "wan", "veth0", "veth1"]
NAMESPACES = [
    Namespace(),
    Namespace(2, name="a"),
    Namespace(2, name="b"),
    Namespace(3, filepath="/run/netns/a"),
    Namespace(2, name="new"),
    Namespace(0, pid=42),
]
MACS = ["", "", "02:00:00:00:aa:01", "02:00:00:00:aa:02"]
ADDRESSES = [
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.1.1/24",
    "169.254.7.1/16",
    "2001:db8::1/64",
    "2001:db8::2/64",
    "fe80::abc/64",
    "fe80::abd/64",
]
OTHERS_ADDRESSES = [
    "10.0.0.9/24",
    "10.0.1.9/24",
    "10.0.0.1/24",
    "10.0.0.1 peer 10.0.0.2/32",
    "10.0.9.9 peer 10.0.0.2/24",
    "169.254.9.9/16",
    "2001:db8::9/64",
    "fe80::9/64",
]
IN_THE_WAY = ["10.0.0.2 peer 10.0.0.7/24", "2001:db8::1/48", "2001:db8::2 peer 2001:db8::7/64", "fe80::abc/128"]


FIELDS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "txqlen": st.sampled_from([0, 500]),
        "gso_max_size": st.sampled_from([4096]),
        "altnames": st.sampled_from(
            [("uplink",), ("uplink-b", "wan"), ("wan", "uplink"), ("eth2",), ("veth9", "eth3")]
        ),
        "sysctls": st.sampled_from([{"rp_filter": "0"}, {"rp_filter": "1"}]),
        "master": st.sampled_from(["br0", "br1"]),
        "neighbours": st.sampled_from([({"ip": "10.9.0.9", "mac": "02:00:00:00:00:09"},)]),
        "offload": st.booleans(),
        "routes": st.sampled_from([({"dst": "10.9.0.0/16"},), ({"dst": "10.8.0.0/16", "metric": 7},)]),
    },
)


@st.composite
def interface_lists(draw: st.DrawFn, strays: int = 1) -> dict[str, Interface]:
    """Interfaces of which about `strays` in ten name any other one as their peer, such as the next one of a chain."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    peers = {}
    for a, b in zip(NAMES[::2], NAMES[1::2], strict=True):
        peers[a], peers[b] = b, a
    if draw(st.booleans()):
        shuffled = draw(st.permutations(NAMES))
        for a, b in zip(shuffled[::2], shuffled[1::2], strict=True):
            peers[a], peers[b] = b, a
    made = {}
    for name in names:
        stray = draw(st.integers(0, 9)) < strays
        peer = draw(st.sampled_from([n for n in NAMES if n != name])) if stray else peers[name]
        addresses = draw(st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True))
        six = any(":" in address for address in addresses)
        ipv6 = draw(st.sampled_from([None, None, True] if six else [None, None, True, False]))
        kernel_name = draw(st.sampled_from(KERNEL_NAMES))
        made[name] = Interface(
            name,
            peer,
            enabled=draw(st.booleans()),
            phys_address=draw(st.sampled_from(MACS)),
            mtu=draw(st.sampled_from([0, 1400, 9000] if six or ipv6 else [0, 1000, 1400])),
            ip_addresses=tuple(addresses),
            namespace=draw(st.sampled_from(NAMESPACES)),
            host_if_name=kernel_name,
            num_queues=draw(st.sampled_from([0, 0, 0, 1, 4])),
            link_only=draw(st.integers(0, 5)) == 0,
            ipv6=ipv6,
            **without_own_name(draw(FIELDS), kernel_name or name),
        )
    return made


def without_own_name(fields: dict[str, Any], kernel_name: str) -> dict[str, Any]:
    """Fields without the name of the link among its alternative ones."""
    return fields | {"altnames": tuple(name for name in fields.get("altnames", ()) if name != kernel_name)}


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """A host with a past: something was configured, somebody meddled with it, and there are foreign links, too."""
    host = Host()
    host.add_netns("netns:a", "path:/run/netns/a")
    host.add_netns("netns:b")
    pid = draw(st.booleans())
    if pid:
        host.add_netns("pid:42")
    places = sorted(set(host.places.values()), key=str)
    for place in places:
        for bridge in draw(st.sampled_from([("br0", "br1"), ("br0", "br1"), ("br0",)])):
            host.add(place, bridge, kind="bridge")
    for _ in range(draw(st.integers(0, 3))):
        _add_foreign(draw, host, draw(st.sampled_from(places)), draw(st.sampled_from(places)))
    host.apply(plan(draw(interface_lists()), host.observe(), label=LABEL, prune=True))
    if pid and draw(st.booleans()):
        gone = host.places.pop("pid:42")
        for end in [end for end in host.links if end[0] == gone]:
            if end in host.links:
                host.delete(end)
    for _ in range(draw(st.integers(0, 5))):
        if host.links:
            draw(st.sampled_from(MEDDLING))(draw, host, draw(st.sampled_from(sorted(host.links, key=str))))
    return host


def _add_foreign(draw: st.DrawFn, host: Host, a: object, b: object) -> None:
    names = [draw(st.sampled_from([*NAMES, "eth0", "eth1"])) for _ in range(2)]
    if host.at(a, names[0]) or host.at(b, names[1]) or (a == b and names[0] == names[1]):  # type: ignore[arg-type]
        return
    if draw(st.booleans()):
        altnames = draw(st.sampled_from([(), (), ("uplink",), ("wan", "eth2")]))
        if not any(host.at(a, name) for name in altnames):  # type: ignore[arg-type]
            host.add(a, names[0], kind="dummy", group=group_of(LABEL), altnames=altnames)  # type: ignore[arg-type]
        return
    alias = draw(st.sampled_from(["", "uplink", str(Mark("vpp2", names[0], False))]))
    left, right = host.add(a, names[0], alias=alias), host.add(b, names[1], alias=alias)  # type: ignore[arg-type]
    host.connect(a, left, b, right)  # type: ignore[arg-type]


def is_our_link(link: HostLink) -> bool:
    return link.kind == "veth" and is_ours(link.group, link.alias, LABEL)


def _only_ours(meddle: Callable[[st.DrawFn, Host, LinkId], None]) -> Callable[[st.DrawFn, Host, LinkId], None]:
    def guarded(draw: st.DrawFn, host: Host, end: LinkId) -> None:
        if is_our_link(host.links[end]):
            meddle(draw, host, end)

    return guarded


@_only_ours
def _flip(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].set_up(not host.links[end].up)


@_only_ours
def _strip(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].lose_all()


@_only_ours
def _address(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    _give(host.links[end], draw(st.sampled_from(OTHERS_ADDRESSES)), draw(st.sampled_from([0, 0, 4])))


@_only_ours
def _in_the_way(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    """Replace an address of ours with the same in another form; `ip address change` keeps the owner."""
    text = draw(st.sampled_from(IN_THE_WAY))
    kept = host.links[end].kept
    for one in list(kept):
        if one.local == text.partition(" ")[0].partition("/")[0]:
            kept.take(one.text)
    _give(host.links[end], text, draw(st.sampled_from([0, 0x76])))


@_only_ours
def _again(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    """Remove an address and add it again, which changes its position."""
    kept = host.links[end].kept
    if found := list(kept):
        one = draw(st.sampled_from(found))
        kept.take(one.text)
        kept.give(one)


def _give(link: HostLink, text: str, proto: int) -> None:
    if ":" not in text or link.mtu >= 1280:
        link.kept.give(Held(text, proto))


@_only_ours
def _mtu(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].set_mtu(draw(st.sampled_from([1000, 1300, 1500])))


@_only_ours
def _switch_ipv6(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].set_ipv6(draw(st.booleans()))


@_only_ours
def _rename(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    name = draw(st.sampled_from([*NAMES, "eth0", "eth1", "other"]))
    if host.at(end[0], name) is None:
        host.links[end].name = name


@_only_ours
def _altname(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    name = draw(st.sampled_from(["eth0", "eth2", "veth0", "wan", "other"]))
    if host.at(end[0], name) is None:
        host.links[end].altnames += (name,)


@_only_ours
def _crash(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].alias = ""


@_only_ours
def _seize(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].alias = "mine now"


@_only_ours
def _mistake(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].alias = str(Mark(LABEL, draw(st.sampled_from(NAMES)), draw(st.booleans())))


@_only_ours
def _delete(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.delete(end)


MEDDLING = [
    _flip,
    _strip,
    _address,
    _address,
    _in_the_way,
    _again,
    _mtu,
    _switch_ipv6,
    _rename,
    _altname,
    _crash,
    _seize,
    _mistake,
    _delete,
]


thorough = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
