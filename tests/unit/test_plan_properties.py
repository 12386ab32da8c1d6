"""For any host and any desired state, a single plan reaches the desired state and touches nothing else."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from tests.unit.host_model import HOME, Host, HostLink
from tests.unit.kernel_addresses import Held, KernelAddresses
from tests.unit.strategies import IN_THE_WAY, LABEL, NAMES, hosts, interface_lists, is_our_link, thorough
from vethlib.agent import (
    ChangeLink,
    DeletePair,
    Interface,
    Plan,
    State,
    plan,
)
from vethlib.agent.config.mark import alias_of
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.observed import LinkId
from vethlib.agent.planning.operations import Operation
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.requirements import with_netns
from vethlib.agent.reasons import ReasonCode


def _decides(host: Host, end: LinkId) -> bool:
    """Whether what this end says of itself counts: where one end is at home, what the other says does not."""
    peer = host.links[end].peer
    return end[0] == HOME or peer is None or peer[0] != HOME


def _foreign(host: Host) -> dict[LinkId, HostLink]:
    """Links that are not ours, and ours whose other end is not."""
    links = host.snapshot()
    found = {}
    for end, link in links.items():
        ends = [end] if link.peer is None else [end, link.peer]
        if not all(is_our_link(links[one]) for one in ends if _decides(host, one)):
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
        assert link.ipv6 == (link.ipv6 if interface.ipv6 is None else interface.ipv6)
        assert link.num_queues == (interface.num_queues or link.num_queues)
        assert set(interface.altnames) <= set(link.altnames)
        if _decides(host, (host.places[interface.namespace.ref], link.index)):
            assert link.alias == alias_of(LABEL, interface)
        assert link.peer is not None
        peer = desired.get(interface.peer_if_name)
        if peer is not None:
            other = host[peer.namespace.ref, peer.kernel_name]
            assert host.links[link.peer] is other
        if not interface.link_only:
            wanted = [str(address) for address in interface.addresses]
            there = link.kept.texts()
            given = {one.text for one in link.kept if one.proto == 0x76}
            assert set(wanted) <= set(there)
            assert given <= set(wanted)
            for version in (4, 6):
                _check_order([text for text in wanted if (":" in text) == (version == 6)], link, version)


def _check_order(wanted: list[str], link: HostLink, version: int) -> None:
    """Check that addresses are in the order of a new link, unless somebody else has added some."""
    found = [one for one in link.kept if one.is_ipv6 == (version == 6) and one.proto != 3]
    if {one.text for one in found} == set(wanted):
        new = KernelAddresses()
        for text in wanted if version == 4 else reversed(wanted):
            assert new.give(Held(text)) == ""
        assert [one.text for one in found] == new.texts()


def _others_ipv4(host: Host) -> dict[LinkId, set[object]]:
    """What others gave, aside from what they put in the place of ours."""
    return {
        end: {
            (one.text, one.proto)
            for one in link.kept
            if one.proto != 0x76 and not one.is_ipv6 and one.text not in IN_THE_WAY
        }
        for end, link in host.links.items()
    }


def _it_leads_to_what_is_wanted_and_the_next_one_is_empty(
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


def _links_of_others_never_occur_in_it_and_stay_as_they_are(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    foreign = _foreign(host)
    made = plan(desired, host.observe(), label=LABEL, prune=prune)
    assert _touched(made).isdisjoint(foreign)
    host.apply(made)
    assert {end: host.links.get(end) for end in foreign} == foreign


def _ipv4_addresses_given_by_others_outlive_every_change(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    before = _others_ipv4(host)
    host.apply(plan(desired, host.observe(), label=LABEL, prune=prune))
    after = _others_ipv4(host)
    for end in before.keys() & after.keys():
        assert before[end] <= after[end]


def _the_order_of_what_is_wanted_and_of_what_is_seen_does_not_matter(
    host: Host, desired: dict[str, Interface], seed: random.Random
) -> None:
    expected = plan(desired, host.observe(), label=LABEL, prune=True)
    items = list(desired.items())
    ends = list(host.links.items())
    seed.shuffle(items)
    seed.shuffle(ends)
    host.links = dict(ends)
    assert plan(dict(items), host.observe(), label=LABEL, prune=True) == expected


def _what_is_left_with_prune_is_wanted_or_cannot_be_had_yet(
    host: Host, desired: dict[str, Interface], _prune: bool
) -> None:
    seized = _foreign(host)
    made = plan(desired, host.observe(), label=LABEL, prune=True)
    host.apply(made)
    # A pair of which only the master is missing stays as it is.
    excused = {
        name
        for name, verdict in made.verdicts.items()
        if verdict.state is State.FAILED or any(each.code is ReasonCode.MASTER_NOT_FOUND for each in verdict.reasons)
    }
    excused |= {one.name for one in desired.values() if one.peer_if_name in excused}
    for end, link in host.links.items():
        if is_our_link(link) and end not in seized and _decides(host, end):
            name = link.alias.partition("name=")[2].partition(" ")[0]
            right = name in desired and made.verdicts[name].state is State.CONFIGURED
            assert right or not name or name in excused


def _a_pair_is_deleted_once_by_one_of_its_ends(host: Host, desired: dict[str, Interface], prune: bool) -> None:
    made = plan(desired, host.observe(), label=LABEL, prune=prune)
    deleted = [(op.place, op.index) for op in made.operations if isinstance(op, DeletePair)]
    ends = [*deleted, *(host.links[end].peer for end in deleted)]
    assert len(ends) == len(set(ends))


def _an_agent_of_another_label_has_nothing_to_do_with_our_pairs(
    host: Host, desired: dict[str, Interface], _prune: bool
) -> None:
    foreign = plan({}, host.observe(), label="vpp3", prune=True)
    assert foreign.operations == ()
    touched = _touched(plan(desired, host.observe(), label="vpp3", prune=True))
    assert touched == set()


PROPERTIES = [
    _it_leads_to_what_is_wanted_and_the_next_one_is_empty,
    _links_of_others_never_occur_in_it_and_stay_as_they_are,
    _ipv4_addresses_given_by_others_outlive_every_change,
    _what_is_left_with_prune_is_wanted_or_cannot_be_had_yet,
    _a_pair_is_deleted_once_by_one_of_its_ends,
    _an_agent_of_another_label_has_nothing_to_do_with_our_pairs,
]


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans(), seed=st.integers(0, 1 << 32))
def test_a_plan_gets_there_at_once_and_touches_nothing_else(
    host: Host, desired: dict[str, Interface], prune: bool, seed: int
) -> None:
    """All properties of one host are checked together, because drawing a host takes longer than checking them."""
    for holds in PROPERTIES:
        holds(deepcopy(host), desired, prune)
    _the_order_of_what_is_wanted_and_of_what_is_seen_does_not_matter(deepcopy(host), desired, random.Random(seed))


def _scope(host: Host, desired: Desired, chosen: set[str], owned: OwnedPairs) -> set[str]:
    """What a pass for the `chosen` interfaces plans: those, their peers and rivals, and owners of links it finds."""
    observed = host.observe()
    for name, interface in desired.interfaces.items():
        desired.claim(name, with_netns({name: interface}, observed)[name].place)
    names = desired.with_peers(chosen)
    while True:
        more = desired.rivals(names)
        for end in list(owned):
            wanted = {
                (observed.netns[interface.namespace.ref].place, interface.kernel_name)
                for interface in desired.among(names).values()
                if interface.namespace.ref in observed.netns
            }
            if (end.place, end.link.name) in wanted or not owned.owners(end).isdisjoint(names):
                more |= owned.owners(end)
        if more <= names:
            return names
        names |= desired.with_peers(more)


@thorough
@given(
    host=hosts(), interfaces=interface_lists(strays=5), chosen=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2)
)
def test_an_interface_is_judged_the_same_with_those_in_its_scope_as_with_all(
    host: Host, interfaces: dict[str, Interface], chosen: set[str]
) -> None:
    desired, observed = Desired(), host.observe()
    for interface in interfaces.values():
        desired.put(interface)
    owned = OwnedPairs(observed, LABEL, None, interfaces)
    # A pair whose owners are unknown is deleted for the sake of an alternative name only if the whole configuration is
    # known (test_plan_ownership.py).
    altnames = {name for interface in interfaces.values() for name in interface.altnames}
    assume(not any(end.link.name in altnames and not owned.owners(end) for end in owned))
    names = _scope(host, desired, chosen, owned)
    event(f"{len(names)} of {len(interfaces)}")
    of_all = plan(interfaces, observed, label=LABEL, prune=True)
    of_some = plan(desired.among(names), observed, label=LABEL, prune=names, configured=interfaces)
    assert of_some.verdicts == {name: of_all.verdicts[name] for name in of_some.verdicts}
    some, every = _without_reasons(of_some), _without_reasons(of_all)
    assert all(operation in every for operation in some)
    assert all(operation in some or chosen.isdisjoint(operation.interfaces) for operation in every)


def _without_reasons(made: Plan) -> list[Operation]:
    """Its operations, without the reason for which a pair is deleted: there may be several."""
    return [replace(one, why="") if isinstance(one, DeletePair) else one for one in made.operations]


@pytest.mark.parametrize("prune", [True, False])
def test_an_empty_host_and_an_empty_configuration_need_no_plan(prune: bool) -> None:
    host = Host()
    assert HOME in host.places.values()
    assert plan({}, host.observe(), label=LABEL, prune=prune) == Plan((), {})
