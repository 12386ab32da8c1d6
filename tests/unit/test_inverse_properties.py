"""Any trial on any host: unless it is refused beforehand, undoing it restores the former host."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tests.unit.host_model import Host
from tests.unit.planning import undone
from tests.unit.strategies import FIELDS, LABEL, MEDDLING, thorough, without_own_name
from vethlib.agent import ChangeLink, Interface, Namespace, inverse, irreversible, plan
from vethlib.agent.planning.observed import LinkId
from vethlib.links import Dependents

ADDRESSES = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.0.1.1/24", "2001:db8::1/64", "2001:db8::2/64"]
ALTNAMES = [(), ("x",), ("y",), ("x", "y"), ("z", "x"), ("y", "z", "eth2")]
THEIRS = "10.77.0.1/16"

often = settings(thorough, max_examples=60)


def _state(host: Host) -> dict[Any, Any]:
    """Return everything except the indexes, and the link-local addresses that the kernel derives from them."""

    def end(at: Any) -> Any:
        return None if at is None else (at[0], host.links[at].name)

    return {
        (place, link.name): (
            (link.kind, link.mac, link.mtu, link.up, link.alias, link.group, link.num_queues, link.altnames, link.ipv6),
            link.further,
            [(one.text, one.proto, one.secondary, one.scope) for one in link.kept if one.proto != 3],
            end(link.peer),
        )
        for (place, _), link in host.links.items()
    }


@st.composite
def trials(draw: st.DrawFn) -> tuple[Host, dict[str, Interface]]:
    """A host with pairs of ours that were meddled with, and another desired state."""
    host = Host()
    places = [host.add_netns("netns:a"), host.add_netns("netns:b"), host.places[""]]
    for place in places:
        for bridge in ("br0", "br1"):
            host.add(place, bridge, kind="bridge")
    host.apply(plan(_pairs(draw, 3), host.observe(), label=LABEL, prune=True))
    for _ in range(draw(st.integers(0, 4))):
        if not host.links:
            break  # all of them were deleted
        draw(st.sampled_from(MEDDLING))(draw, host, draw(st.sampled_from(sorted(host.links, key=str))))
    for place in places:
        if draw(st.integers(0, 5)) == 5 and host.at(place, "eth1") is None:
            host.add(place, "eth1", kind="dummy")
    return host, _pairs(draw, draw(st.integers(0, 3)))


def _dependents(host: Host) -> dict[LinkId, Dependents]:
    return {end: Dependents(ipv6_off=link.disable_ipv6) for end, link in host.links.items()}


def _pairs(draw: st.DrawFn, count: int) -> dict[str, Interface]:
    """Complete pairs, with ends in random namespaces, and values that often differ from those of another draw."""
    made: dict[str, Interface] = {}
    for number in range(count):
        for name, peer in ((f"veth{number}", f"peer{number}"), (f"peer{number}", f"veth{number}")):
            addresses = draw(st.lists(st.sampled_from(ADDRESSES), max_size=4, unique=True))
            six = any(":" in address for address in addresses)
            kernel_name = draw(st.sampled_from(["", "", "eth1", "eth2"])) if number == 0 else ""
            made[name] = Interface(
                name,
                peer,
                enabled=draw(st.booleans()),
                phys_address=draw(st.sampled_from([f"02:00:00:00:0{number}:0{digit}" for digit in (1, 2)]))
                if number
                else "",
                mtu=draw(st.sampled_from([1400, 1400, 9000])),
                ip_addresses=tuple(addresses),
                namespace=Namespace(2, name=draw(st.sampled_from("aaaaabn" if name < peer else "bbbbbn"))),
                host_if_name=kernel_name,
                ipv6=draw(st.sampled_from([None, True, True] if six else [None, None, None, True, False])),
                **without_own_name(draw(FIELDS) | {"altnames": _altnames(draw, made.values())}, kernel_name or name),
            )
    return made


def _altnames(draw: st.DrawFn, others: Iterable[Interface]) -> tuple[str, ...]:
    """Alternative names that none of the others has, in whichever namespace."""
    taken = {name for each in others for name in each.altnames}
    return tuple(name for name in draw(st.sampled_from(ALTNAMES)) if name not in taken)


@often
@given(trial=trials(), prune=st.booleans())
def test_a_plan_and_its_inverse_leave_the_host_as_it_was(trial: tuple[Host, dict[str, Interface]], prune: bool) -> None:
    host, desired = trial
    before, state, places = host.observe(), _state(host), dict(host.places)
    made = plan(desired, before, label=LABEL, prune=prune)
    refused = irreversible(made, before, _dependents(host))
    event(f"{'refused' if refused else 'undone'}: {sorted({one.op for one in made.operations})}")
    assume(not refused)
    host.apply(made)
    undone(host, made, before)
    assert _state(host) == state
    assert host.places == places


@often
@given(trial=trials(), data=st.data())
def test_undoing_keeps_what_others_did_to_a_link_meanwhile(
    trial: tuple[Host, dict[str, Interface]], data: st.DataObject
) -> None:
    host, desired = trial
    before = host.observe()
    made = plan(desired, before, label=LABEL, prune=False)
    changed = [one for one in made.operations if isinstance(one, ChangeLink)]
    assume(changed and not irreversible(made, before, _dependents(host)))
    host.apply(made)
    after = host.observe()
    change = data.draw(st.sampled_from(changed))
    link = host.links[change.place, change.index]
    link.mtu = 1333
    link.give(THEIRS, 0)
    undo = inverse(made.operations, before, after, host.observe())
    host.apply(undo.plan)
    assert link.mtu == 1333
    assert THEIRS in link.kept.texts()
    # A link is changed in two operations if it has to give up an alternative name before another link can have it.
    fields = {key for one in changed if one.index == change.index and one.place == change.place for key in one.changes}
    assert any("mtu stays 1333" in text for text in undo.left) == ("mtu" in fields)


@often
@given(trial=trials(), data=st.data())
def test_a_link_that_somebody_took_over_meanwhile_is_left_alone(
    trial: tuple[Host, dict[str, Interface]], data: st.DataObject
) -> None:
    host, desired = trial
    before = host.observe()
    made = plan(desired, before, label=LABEL, prune=False)
    assume(made.operations and not irreversible(made, before, _dependents(host)))
    host.apply(made)
    after = host.observe()
    end = data.draw(st.sampled_from(sorted(host.links, key=str)))
    host.links[end].alias = "mine now"
    taken = deepcopy(host.links[end])
    undo = inverse(made.operations, before, after, host.observe())
    host.apply(undo.plan)
    assert host.links[end] == taken
