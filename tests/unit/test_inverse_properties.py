"""Whatever is tried on whatever host: unless it is refused beforehand, undoing it gives back the host that was."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from tests.unit.host_model import Host
from tests.unit.test_plan_properties import LABEL, MEDDLING, hosts, interface_lists, thorough
from vethlib.agent import Interface, RemoveNetns, inverse, irreversible, plan


def _state(host: Host) -> dict[Any, Any]:
    """All but the indexes, and what the kernel makes of them: link-local addresses."""

    def end(at: Any) -> Any:
        return None if at is None else (at[0], host.links[at].name)

    return {
        (place, link.name): (
            (link.kind, link.mac, link.mtu, link.up, link.alias, link.group, link.num_queues, link.altnames),
            [(a.interface, a.proto, a.flags) for a in link.addresses if a.proto != 3 and a.interface.version == 4],
            {(a.interface, a.proto, a.flags) for a in link.addresses if a.proto != 3 and a.interface.version == 6},
            end(link.peer),
        )
        for (place, _), link in host.links.items()
    }


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans())
def test_a_plan_and_its_inverse_leave_the_host_as_it_was(
    host: Host, desired: dict[str, Interface], prune: bool
) -> None:
    before, state, places = host.observe(), _state(host), dict(host.places)
    made = plan(desired, before, label=LABEL, prune=prune)
    refused = irreversible(made, before, {})
    event(f"{'refused' if refused else 'undone'}: {sorted({one.op for one in made.operations})}")
    if refused:
        return
    host.apply(made)
    after = host.observe()
    undo = inverse(made.operations, before, after, after)
    assert undo.left == ()
    host.apply(undo.plan)
    assert _state(host) == state
    assert host.places == places


@thorough
@given(host=hosts(), desired=interface_lists(), prune=st.booleans(), data=st.data())
def test_undoing_leaves_what_others_have_changed_meanwhile(
    host: Host, desired: dict[str, Interface], prune: bool, data: st.DataObject
) -> None:
    before = host.observe()
    made = plan(desired, before, label=LABEL, prune=prune)
    if irreversible(made, before, {}):
        return
    host.apply(made)
    after, kept = host.observe(), deepcopy(host.links)
    for _ in range(data.draw(st.integers(1, 3))):
        if host.links:
            end = data.draw(st.sampled_from(sorted(host.links, key=str)))
            data.draw(st.sampled_from(MEDDLING))(data.draw, host, end)
    meddled = deepcopy(host.links)
    undo = inverse(made.operations, before, after, host.observe())
    for operation in undo.plan.operations:
        if not isinstance(operation, RemoveNetns) and hasattr(operation, "changes"):
            link, was = meddled[operation.place, operation.index], kept[operation.place, operation.index]
            for name in operation.changes:
                assert getattr(link, name) == getattr(was, name), "somebody else has set it"
            theirs = {a.interface for a in link.addresses} - {a.interface for a in was.addresses}
            assert theirs.isdisjoint(operation.removed)
