"""A pair with an end at home, one without, and plans with a record of built pairs."""

from __future__ import annotations

from tests.unit.host_model import Host
from tests.unit.planning import LABEL, NS2, end
from vethlib.agent import Interface, Namespace, group_of, plan
from vethlib.agent.planning.recorded import PairRecord, RecordedEnd, RecordedPair

GROUP = group_of(LABEL)
A, B = end("a", "b"), end("b", "a", namespace=Namespace())
C, D = end("c", "d"), end("d", "c", namespace=NS2)


def planned(host: Host, record: PairRecord | None, *interfaces: Interface):  # type: ignore[no-untyped-def]
    return plan({one.name: one for one in interfaces}, host.observe(), label=LABEL, prune=True, record=record)


def intent(host: Host) -> PairRecord:
    record = PairRecord(adopts=False)
    places = host.places["netns:ns1"], host.places["netns:ns2"]
    ends = [RecordedEnd(one.name, place, 0, link=one.name) for one, place in zip((C, D), places, strict=True)]
    record.intend(RecordedPair(*ends))
    return record
