"""Whatever the host looks like and whatever is wanted: a plan gets there, at once, and touches nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_interface

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.unit.host_model import HOME, Host, HostLink
from vethlib.agent import (
    ChangeLink,
    DeletePair,
    Interface,
    Mark,
    Namespace,
    Plan,
    State,
    group_of,
    is_ours,
    plan,
)
from vethlib.agent.observed import LinkId

LABEL = "vpp1"
NAMES = [f"veth{number}" for number in range(6)]
KERNEL_NAMES = ["", "", "eth0", "eth1", "veth0", "veth1"]
NAMESPACES = [
    Namespace(),
    Namespace(2, name="a"),
    Namespace(2, name="b"),
    Namespace(3, filepath="/run/netns/a"),
    Namespace(2, name="new"),
    Namespace(0, pid=42),
]
MACS = ["", "", "02:00:00:00:aa:01", "02:00:00:00:aa:02"]
ADDRESSES = ["10.0.0.1/24", "10.0.0.2/24", "10.0.1.1/24", "2001:db8::1/64", "2001:db8::2/64", "fe80::abc/64"]
OTHERS_ADDRESSES = ["10.0.0.9/24", "10.0.1.9/24", "10.0.0.1/24", "2001:db8::9/64"]


@st.composite
def interface_lists(draw: st.DrawFn) -> dict[str, Interface]:
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
        stray = draw(st.integers(0, 9)) == 0
        peer = draw(st.sampled_from([n for n in NAMES if n != name])) if stray else peers[name]
        addresses = draw(st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True))
        six = any(":" in address for address in addresses)
        made[name] = Interface(
            name,
            peer,
            enabled=draw(st.booleans()),
            phys_address=draw(st.sampled_from(MACS)),
            mtu=draw(st.sampled_from([0, 1400, 9000] if six else [0, 1000, 1400])),
            ip_addresses=tuple(addresses),
            namespace=draw(st.sampled_from(NAMESPACES)),
            host_if_name=draw(st.sampled_from(KERNEL_NAMES)),
            num_queues=draw(st.sampled_from([0, 0, 0, 1, 4])),
            link_only=draw(st.integers(0, 5)) == 0,
        )
    return made


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """A host with a past: something was configured, somebody meddled with it, and others live there too."""
    host = Host()
    host.add_netns("netns:a", "path:/run/netns/a")
    host.add_netns("netns:b")
    pid = draw(st.booleans())
    if pid:
        host.add_netns("pid:42")
    places = sorted(set(host.places.values()), key=str)
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
        host.add(a, names[0], kind="dummy", group=group_of(LABEL))  # type: ignore[arg-type]
        return
    alias = draw(st.sampled_from(["", "uplink", str(Mark("vpp2", names[0], False))]))
    left, right = host.add(a, names[0], alias=alias), host.add(b, names[1], alias=alias)  # type: ignore[arg-type]
    host.connect(a, left, b, right)  # type: ignore[arg-type]


def _ours(link: HostLink) -> bool:
    return link.kind == "veth" and is_ours(link.group, link.alias, LABEL)


def _only_ours(meddle: Callable[[st.DrawFn, Host, LinkId], None]) -> Callable[[st.DrawFn, Host, LinkId], None]:
    def guarded(draw: st.DrawFn, host: Host, end: LinkId) -> None:
        if _ours(host.links[end]):
            meddle(draw, host, end)

    return guarded


@_only_ours
def _flip(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].set_up(not host.links[end].up)


@_only_ours
def _strip(_draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].addresses.clear()


@_only_ours
def _address(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    address = ip_interface(draw(st.sampled_from(OTHERS_ADDRESSES)))
    if address.version == 4 or host.links[end].mtu >= 1280:
        host.links[end].give(address, draw(st.sampled_from([0, 0, 4])))


@_only_ours
def _mtu(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    host.links[end].set_mtu(draw(st.sampled_from([1000, 1300, 1500])))


@_only_ours
def _rename(draw: st.DrawFn, host: Host, end: LinkId) -> None:
    name = draw(st.sampled_from([*NAMES, "eth0", "eth1", "other"]))
    if host.at(end[0], name) is None:
        host.links[end].name = name


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


MEDDLING = [_flip, _strip, _address, _mtu, _rename, _crash, _seize, _mistake, _delete]


def _foreign(host: Host) -> dict[LinkId, HostLink]:
    """Links that are not ours, and ours whose other end is not."""
    links = host.snapshot()
    found = {}
    for end, link in links.items():
        if not _ours(link) or (link.peer is not None and not _ours(links[link.peer])):
            found[end] = link
    return found


def _touched(made: Plan) -> set[LinkId]:
    return {(op.place, op.index) for op in made.operations if isinstance(op, ChangeLink | DeletePair)}


def _check_configured(host: Host, desired: dict[str, Interface], made: Plan) -> None:
    for name, interface in desired.items():
        if made.verdicts[name].state is not State.CONFIGURED:
            continue
        link = host[interface.namespace.ref, interface.kernel_name]
        assert link.up == interface.enabled
        assert link.mtu == (interface.mtu or 1500)
        assert link.mac == (interface.phys_address or link.mac)
        assert link.num_queues == (interface.num_queues or link.num_queues)
        assert link.alias == str(Mark(LABEL, name, bool(interface.phys_address)))
        assert link.peer is not None
        peer = desired.get(interface.peer_if_name)
        if peer is not None:
            other = host[peer.namespace.ref, peer.kernel_name]
            assert host.links[link.peer] is other
        if not interface.link_only:
            there = {address.interface for address in link.addresses}
            given = {a.interface for a in link.addresses if a.proto == 0x76 and not a.interface.is_link_local}
            assert set(interface.addresses) <= there
            assert given <= set(interface.addresses)


def _others_ipv4(host: Host) -> dict[LinkId, set[object]]:
    return {
        end: {(a.interface, a.proto) for a in link.addresses if a.proto != 0x76 and a.interface.version == 4}
        for end, link in host.links.items()
    }


thorough = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans())
def test_a_plan_leads_to_what_is_wanted_and_the_next_one_is_empty(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    first = plan(desired, host.observe(), label=LABEL, prune=prune)
    host.apply(first)
    _check_configured(host, desired, first)
    second = plan(desired, host.observe(), label=LABEL, prune=prune)
    assert second.operations == ()
    assert {n: v.state for n, v in second.verdicts.items()} == {n: v.state for n, v in first.verdicts.items()}
    for verdict in first.verdicts.values():
        event(str(verdict.state))
        assert (verdict.state is State.CONFIGURED) == (verdict.reason == "")


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans())
def test_links_of_others_never_occur_in_a_plan_and_stay_as_they_are(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    foreign = _foreign(host)
    made = plan(desired, host.observe(), label=LABEL, prune=prune)
    assert _touched(made).isdisjoint(foreign)
    host.apply(made)
    assert {end: host.links.get(end) for end in foreign} == foreign


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans())
def test_ipv4_addresses_given_by_others_outlive_every_change(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    before = _others_ipv4(host)
    host.apply(plan(desired, host.observe(), label=LABEL, prune=prune))
    after = _others_ipv4(host)
    for end in before.keys() & after.keys():
        assert before[end] <= after[end]


@thorough
@given(host=hosts(), desired=interface_lists(), seed=st.randoms(use_true_random=False))
def test_the_order_of_what_is_wanted_and_of_what_is_seen_does_not_matter(
    host: Host, desired: dict[str, Interface], seed: random.Random
) -> None:
    expected = plan(desired, host.observe(), label=LABEL, prune=True)
    items = list(desired.items())
    ends = list(host.links.items())
    seed.shuffle(items)
    seed.shuffle(ends)
    host.links = dict(ends)
    assert plan(dict(items), host.observe(), label=LABEL, prune=True) == expected


@thorough
@given(host=hosts(), desired=interface_lists())
def test_what_is_left_with_prune_is_wanted_or_cannot_be_had_yet(host: Host, desired: dict[str, Interface]) -> None:
    seized = _foreign(host)
    made = plan(desired, host.observe(), label=LABEL, prune=True)
    host.apply(made)
    failing = {name for name, verdict in made.verdicts.items() if "exists" in verdict.reason}
    failing |= {name for name, verdict in made.verdicts.items() if "wanted by" in verdict.reason}
    for end, link in host.links.items():
        if _ours(link) and end not in seized:
            name = link.alias.partition("name=")[2].partition(" ")[0]
            right = name in desired and made.verdicts[name].state is State.CONFIGURED
            assert right or not name or name in failing


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans())
def test_a_pair_is_deleted_once_by_one_of_its_ends(host: Host, desired: dict[str, Interface], prune: bool) -> None:
    made = plan(desired, host.observe(), label=LABEL, prune=prune)
    deleted = [(op.place, op.index) for op in made.operations if isinstance(op, DeletePair)]
    ends = [*deleted, *(host.links[end].peer for end in deleted)]
    assert len(ends) == len(set(ends))


@thorough
@given(host=hosts(), desired=interface_lists())
def test_an_agent_of_another_label_has_nothing_to_do_with_our_pairs(host: Host, desired: dict[str, Interface]) -> None:
    foreign = plan({}, host.observe(), label="vpp3", prune=True)
    assert foreign.operations == ()
    touched = _touched(plan(desired, host.observe(), label="vpp3", prune=True))
    assert touched == set()


@pytest.mark.parametrize("prune", [True, False])
def test_an_empty_host_and_an_empty_configuration_need_no_plan(prune: bool) -> None:
    host = Host()
    assert HOME in host.places.values()
    assert plan({}, host.observe(), label=LABEL, prune=prune) == Plan((), {})
