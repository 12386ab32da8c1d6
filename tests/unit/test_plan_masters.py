"""Planning: an interface waits for its master, and keeps its link without it; losses by joining a VRF."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.host_model import Host
from tests.unit.planning import LABEL, VETH1, VETH2, applied, change, judged, planned, two_namespaces
from vethlib.agent import irreversible, plan
from vethlib.agent.planning.words import changes
from vethlib.links import Dependents

ATTACHED = replace(VETH1, master="br0")
WAITING = dict.fromkeys(("veth1", "veth2"), "PENDING: master-not-found(br0)")


@pytest.fixture
def host() -> Host:
    return two_namespaces()


def add(host: Host, name: str, kind: str = "bridge") -> None:
    host.add(host.places["netns:ns1"], name, kind=kind)


def test_a_pair_waits_for_the_master_of_one_end(host: Host) -> None:
    made = planned(host, ATTACHED, VETH2)
    assert (made.operations, judged(made)) == ((), WAITING)
    host.add(host.places["netns:ns2"], "br0", kind="bridge")  # in another namespace
    assert planned(host, ATTACHED, VETH2).operations == ()
    add(host, "br0")
    applied(host, ATTACHED, VETH2)
    assert host["netns:ns1", "veth1"].master == "br0"


def test_a_master_may_be_given_by_an_alternative_name(host: Host) -> None:
    host.add(host.places["netns:ns1"], "x", kind="bridge", altnames=("br0",))
    applied(host, ATTACHED, VETH2)


def test_an_existing_pair_stays_while_a_master_is_away(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, ATTACHED, VETH2)
    assert (made.operations, judged(made), made.standing.keys()) == ((), WAITING, WAITING.keys())
    lone = plan({"veth1": ATTACHED}, host.observe(), label=LABEL, prune=False)
    assert lone.operations == ()
    assert judged(lone)["veth1"].endswith("master-not-found(br0)")


def test_a_link_is_detached_when_the_field_goes(host: Host) -> None:
    add(host, "br0")
    applied(host, ATTACHED, VETH2)
    made = change(applied(host, VETH1, VETH2))
    assert made.changes["master"] == ("br0", "")


def test_what_is_only_set_again_is_no_difference(host: Host) -> None:
    add(host, "br0")
    routed = replace(VETH1, routes=({"dst": "10.9.0.0/16"},))  # type: ignore[arg-type]
    applied(host, routed, VETH2)
    made = change(planned(host, replace(routed, master="br0"), VETH2))
    assert made.changes.keys() == {"alias", "master", "routes"}
    assert made.differences.keys() == {"alias", "master"}
    assert made.as_dicts()[0]["changes"].keys() == {"alias", "master"}
    assert changes(made).endswith("master none → br0")


@pytest.mark.parametrize(("kind", "lost"), [("bridge", 0), ("vrf", 2)])
def test_joining_and_leaving_a_vrf_would_lose_what_others_added(host: Host, kind: str, lost: int) -> None:
    add(host, "br0", kind)
    applied(host, VETH1, VETH2)
    others = {end: Dependents(routes=1, neighbours=1) for end in host.links}
    for desired in (ATTACHED, VETH1):
        before = host.observe()
        made = planned(host, desired, VETH2)
        assert len(irreversible(made, before, others)) == lost
        host.apply(made)
