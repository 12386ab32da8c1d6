"""Short forms for writing interfaces, planning them and examining the plan."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tests.reasons import in_codes
from tests.unit.host_model import Host
from vethlib.agent import ChangeLink, DeletePair, Interface, Namespace, Observed, Plan, inverse, plan
from vethlib.agent.host.recording import facts_of_look
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.recorded import PairRecord

LABEL = "vpp1"
NS1 = Namespace(2, name="ns1")
NS2 = Namespace(2, name="ns2")


def end(name: str, peer: str, **fields: Any) -> Interface:
    values: dict[str, Any] = {"enabled": True, "namespace": NS1} | fields
    return Interface(name, peer, **values)


VETH1 = end("veth1", "veth2")
VETH2 = end("veth2", "veth1", namespace=NS2)


def two_namespaces() -> Host:
    host = Host()
    host.add_netns("netns:ns1", "path:/run/netns/ns1")
    host.add_netns("netns:ns2")
    return host


def planned(host: Host, *interfaces: Interface, prune: bool | Set[str] = True, label: str = LABEL) -> Plan:
    return plan({one.name: one for one in interfaces}, host.observe(), label=label, prune=prune)


def applied(host: Host, *interfaces: Interface, prune: bool = True, label: str = LABEL) -> Plan:
    made = planned(host, *interfaces, prune=prune, label=label)
    host.apply(made)
    return made


def undone(host: Host, made: Plan, before: Observed) -> None:
    """Undo what was planned when the host was as `before`, which leaves nothing."""
    after = host.observe()
    undo = inverse(made.operations, before, after, after)
    assert undo.left == ()
    host.apply(undo.plan)


def recorded(host: Host, *interfaces: Interface, label: str = LABEL) -> PairRecord:
    """Return the record that a first look at the host leaves."""
    record, observed = PairRecord(), host.observe()
    wanted = {one.name: one for one in interfaces}
    owned = OwnedPairs(observed, label, record, wanted)
    found = plan(wanted, observed, label=label, prune=True, owned=owned).found
    facts_of_look(record, owned, observed, found=found, desired=wanted, missing=())
    return record


def ops(made: Plan) -> list[str]:
    return [operation.op for operation in made.operations]


def change(made: Plan) -> ChangeLink:
    (operation,) = made.operations
    assert isinstance(operation, ChangeLink)
    return operation


def deleted(made: Plan) -> list[DeletePair]:
    return [operation for operation in made.operations if isinstance(operation, DeletePair)]


def judged(made: Plan, *names: str) -> dict[str, str]:
    """Return the states and the codes of reasons, of these or of all interfaces."""
    return {name: in_codes(made.verdicts[name]) for name in names or made.verdicts}


def states(made: Plan) -> dict[str, str]:
    return {name: str(verdict.state) for name, verdict in made.verdicts.items()}
