"""Planning: when a pair is built, when it waits, and how a plan reads."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.refusing import raises
from tests.unit.host_model import Host
from tests.unit.planning import (
    LABEL,
    NS1,
    NS2,
    VETH1,
    VETH2,
    applied,
    deleted,
    end,
    judged,
    ops,
    planned,
    states,
    two_namespaces,
)
from vethlib.agent import (
    AddNetns,
    CreatePair,
    Interface,
    Namespace,
    Observed,
    Reason,
    ReasonCode,
    SeenLink,
    SeenNetns,
    State,
    Verdict,
    alias_of,
    group_of,
    plan,
)
from vethlib.errors import InvalidValue
from vethlib.links import Link, Veth


@pytest.fixture
def host() -> Host:
    return two_namespaces()


# Building


def test_a_pair_is_created_where_it_is_to_live_with_all_its_values_and_marks(host: Host) -> None:
    veth1 = replace(VETH1, phys_address="d2:74:8c:12:67:d2", mtu=1400, ip_addresses=("192.168.22.1/24",))
    made = planned(host, VETH2, veth1)
    group = group_of(LABEL)
    a = veth1.end(group=group, alias="vethlib label=vpp1 name=veth1 mac", address_proto=0x76)
    b = VETH2.end(group=group, alias="vethlib label=vpp1 name=veth2", address_proto=0x76)
    assert made.operations == (CreatePair(veth1, VETH2, Veth(a, b)),)
    assert made.verdicts == {"veth1": Verdict(State.CONFIGURED), "veth2": Verdict(State.CONFIGURED)}


def test_a_missing_named_namespace_is_added_once_and_only_for_a_pair_that_is_created(host: Host) -> None:
    new = Namespace(2, name="new")
    pair = [end("a", "b", namespace=new), end("b", "a", namespace=new)]
    other = [end("c", "d", namespace=new), end("d", "c")]
    lonely = end("e", "f", namespace=Namespace(2, name="lonely"))
    made = planned(host, *pair, *other, lonely)
    assert made.operations[0] == AddNetns("new")
    assert ops(made) == ["add-netns", "create", "create"]
    assert judged(made, "e") == {"e": "PENDING: peer-not-configured(f)"}


def test_a_missing_named_namespace_that_must_not_be_added_is_waited_for(host: Host) -> None:
    veth1 = replace(VETH1, namespace=Namespace(2, name="new"))
    made = plan({"veth1": veth1, "veth2": VETH2}, host.observe(creatable=False), label=LABEL, prune=True)
    assert made.operations == ()
    assert judged(made) == dict.fromkeys(("veth1", "veth2"), "PENDING: netns-not-found(netns:new)")


# Waiting


def test_an_end_without_its_peer_is_pending_whichever_comes_first(host: Host) -> None:
    assert judged(planned(host, VETH1)) == {"veth1": "PENDING: peer-not-configured(veth2)"}
    assert judged(planned(host, VETH2)) == {"veth2": "PENDING: peer-not-configured(veth1)"}


def test_peers_have_to_point_at_each_other(host: Host) -> None:
    # Whatever the order of arrival.
    stray = replace(VETH2, peer_if_name="veth3")
    veth3 = end("veth3", "veth2", namespace=NS2)
    made = planned(host, VETH1, stray, veth3)
    assert judged(made) == {
        "veth1": "PENDING: peer-points-elsewhere(veth2)",
        "veth2": "CONFIGURED",
        "veth3": "CONFIGURED",
    }


@pytest.mark.parametrize(
    ("namespace", "code"),
    [
        (Namespace(0, pid=42), ReasonCode.PROCESS_GONE),
        (Namespace(1, microservice="vnf1"), ReasonCode.MICROSERVICE_NOT_RUNNING),
        (Namespace(3, filepath="/run/x"), ReasonCode.NETNS_NOT_FOUND),
    ],
)
def test_what_is_waited_for_is_told_exactly(host: Host, namespace: Namespace, code: ReasonCode) -> None:
    host.absent[namespace.ref] = SeenNetns(namespace.ref, None, "as it was seen", code=code)
    made = planned(host, replace(VETH1, namespace=namespace), VETH2)
    assert made.operations == ()
    assert judged(made) == dict.fromkeys(("veth1", "veth2"), f"PENDING: {code}({namespace.ref})")
    assert made.verdicts["veth2"].reason == f"peer veth1: {made.verdicts['veth1'].reason}"


def test_everything_that_is_missing_is_told_and_the_same_thing_once(host: Host) -> None:
    gone = Namespace(0, pid=42)
    host.absent["pid:42"] = SeenNetns("pid:42", None, code=ReasonCode.PROCESS_GONE)
    host.absent["pid:43"] = SeenNetns("pid:43", None, code=ReasonCode.PROCESS_GONE)
    made = planned(
        host,
        end("a", "nobody", namespace=gone),
        end("b", "c", namespace=gone),
        end("c", "b", namespace=Namespace(0, pid=43)),
        end("d", "e", namespace=gone),
        end("e", "d", namespace=gone),
    )
    assert judged(made) == {
        "a": "PENDING: peer-not-configured(nobody), process-gone(pid:42)",
        "b": "PENDING: process-gone(pid:42), process-gone(pid:43)",
        "c": "PENDING: process-gone(pid:43), process-gone(pid:42)",
        "d": "PENDING: process-gone(pid:42)",
        "e": "PENDING: process-gone(pid:42)",
    }


def test_a_namespace_without_an_answer_is_pending_with_some_reason() -> None:
    observed = Observed({"netns:ns2": SeenNetns("netns:ns2", None)})
    made = plan({"veth1": VETH1, "veth2": VETH2}, observed, label=LABEL, prune=True)
    assert judged(made, "veth1") == {"veth1": "PENDING: netns-unknown(netns:ns1), netns-not-found(netns:ns2)"}
    assert made.verdicts["veth1"].reason
    home = plan({"a": end("a", "b", namespace=Namespace())}, Observed({}), label=LABEL, prune=True)
    assert judged(home) == {"a": "PENDING: peer-not-configured(b), netns-unknown"}


def test_a_pair_goes_when_a_requirement_ends_and_comes_back_when_it_returns(host: Host) -> None:
    host.add_netns("pid:42")
    veth2 = replace(VETH2, namespace=Namespace(0, pid=42))
    applied(host, VETH1, veth2)
    place = host.places.pop("pid:42")
    host.absent["pid:42"] = SeenNetns("pid:42", None, code=ReasonCode.PROCESS_GONE)
    host.places["something that pins it"] = place
    made = applied(host, VETH1, veth2)
    assert ops(made) == ["delete"]
    assert deleted(made)[0].why == made.verdicts["veth1"].reason
    assert made.verdicts["veth1"].code == ReasonCode.PROCESS_GONE
    assert host.links == {}
    del host.absent["pid:42"]
    host.add_netns("pid:42")
    assert ops(planned(host, VETH1, veth2)) == ["create"]


def test_a_namespace_nobody_can_tell_of_keeps_its_pairs(host: Host) -> None:
    # If the container engine does not answer, that does not mean that every container has ended.
    microservice = Namespace(1, microservice="vnf1")
    host.add_netns("microservice:vnf1")
    veth2 = replace(VETH2, namespace=microservice)
    applied(host, VETH1, veth2)
    before = host.snapshot()
    host.places["unknown"] = host.places.pop("microservice:vnf1")
    unknown = SeenNetns("microservice:vnf1", None, "the container engine does not answer", unknown=True)
    host.absent["microservice:vnf1"] = unknown
    made = applied(host, VETH1, veth2)
    assert host.links == before
    assert states(made) == {"veth1": "PENDING", "veth2": "PENDING"}
    blocked = applied(host, VETH1, veth2, end("a", "b", host_if_name="veth1"), end("b", "a"))
    assert states(blocked) == {"a": "FAILED", "b": "PENDING", "veth1": "PENDING", "veth2": "PENDING"}
    assert host.at(host.places["netns:ns1"], "veth1") is not None
    assert ops(applied(host, VETH1)) == ["delete"]


def test_only_the_pair_itself_is_kept_while_its_namespace_is_unknown(host: Host) -> None:
    applied(host, replace(VETH1, peer_if_name="old"), end("old", "veth1"))
    host.absent["pid:42"] = SeenNetns("pid:42", None, "not known", unknown=True)
    made = planned(host, VETH1, replace(VETH2, namespace=Namespace(0, pid=42)))
    (delete,) = deleted(made)
    assert delete.interface == "old"


def test_a_name_held_by_a_pair_nobody_can_tell_of_is_not_given_to_another(host: Host) -> None:
    host.add_netns("pid:42")
    veth2 = replace(VETH2, namespace=Namespace(0, pid=42), host_if_name="eth0")
    applied(host, VETH1, veth2)
    host.places["elsewhere"] = host.places.pop("pid:42")
    host.absent["pid:42"] = SeenNetns("pid:42", None, "not known", unknown=True)
    host["netns:ns1", "veth1"].name = "eth7"
    made = planned(host, VETH1, veth2, end("a", "b", host_if_name="eth7"), end("b", "a"))
    assert judged(made, "a") == {"a": "FAILED: link-in-use(veth1)"}


# Scenarios


def test_three_namespaces_chained_by_two_pairs_are_found_again_after_a_restart(host: Host) -> None:
    chain = [
        end("left", "mid0", ip_addresses=("10.0.0.1/30",)),
        end("mid0", "left", ip_addresses=("10.0.0.2/30",), namespace=NS2),
        end("mid1", "right", ip_addresses=("10.0.0.5/30",), namespace=NS2),
        end("right", "mid1", ip_addresses=("10.0.0.6/30",), namespace=Namespace(2, name="ns3")),
    ]
    assert ops(applied(host, *chain)) == ["add-netns", "create", "create"]
    assert planned(host, *chain).operations == ()


def test_one_end_enabled_and_the_other_not_is_what_is_configured(host: Host) -> None:
    applied(host, VETH1, replace(VETH2, enabled=False))
    assert (host["netns:ns1", "veth1"].up, host["netns:ns2", "veth2"].up) == (True, False)


def test_a_link_that_somebody_deleted_is_created_again(host: Host) -> None:
    applied(host, VETH1, VETH2)
    host.delete(next(iter(host.links)))
    assert ops(planned(host, VETH1, VETH2)) == ["create"]


# The plan for others to read


@pytest.mark.parametrize(
    ("veth1", "veth2", "why"),
    [
        (NS1, NS1, "the other end of 'veth1' in netns:ns1 is not 'veth2' in netns:ns1"),
        (NS2, NS2, "veth1 is configured as 'veth1' in netns:ns2"),
    ],
)
def test_a_pair_that_is_elsewhere_is_replaced_for_a_reason_that_names_the_place(
    host: Host, veth1: Namespace, veth2: Namespace, why: str
) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, replace(VETH1, namespace=veth1), replace(VETH2, namespace=veth2))
    assert [one.why for one in deleted(made)] == [f"replaced: {why}"]


def test_operations_come_in_the_order_that_frees_names_first(host: Host) -> None:
    applied(host, VETH1, VETH2, end("c", "d"), end("d", "c"), end("e", "f"), end("f", "e"))
    new = Namespace(2, name="new")
    wanted = [end("g", "h", namespace=new), end("h", "g"), end("c", "d", mtu=1400), end("d", "c")]
    made = planned(host, replace(VETH1, num_queues=1), VETH2, *wanted)
    assert ops(made) == ["add-netns", "delete", "delete", "change", "create", "create"]


def test_a_plan_reads_as_json_with_one_entry_for_each_end(host: Host) -> None:
    old = replace(VETH1, ip_addresses=("10.0.0.1/24",))
    applied(host, old, VETH2, end("c", "d"), end("d", "c"))
    wanted = [
        replace(old, mtu=9000, ip_addresses=("10.0.0.2/24",)),
        VETH2,
        end("x", "y", namespace=Namespace(2, name="new"), mtu=1400, ip_addresses=("10.1.0.1/24",)),
        end("y", "x", namespace=Namespace(), enabled=False, num_queues=1),
    ]
    made = planned(host, *wanted)
    expected = [
        {"op": "add-netns", "interface": "", "netns": "netns:new", "changes": {}},
        {"op": "delete", "interface": "c", "netns": "netns:ns1", "changes": {"name": ["c", None]}},
        {
            "op": "change",
            "interface": "veth1",
            "netns": "netns:ns1",
            "changes": {
                "mtu": [1500, 9000],
                "addresses": {"added": ["10.0.0.2/24"], "removed": ["10.0.0.1/24"]},
            },
        },
        {
            "op": "create",
            "interface": "x",
            "netns": "netns:new",
            "changes": {
                "name": [None, "x"],
                "peer": [None, "y"],
                "mtu": [None, 1400],
                "up": [None, True],
                "alias": [None, "vethlib label=vpp1 name=x"],
                "addresses": {"added": ["10.1.0.1/24"], "removed": []},
            },
        },
        {
            "op": "create",
            "interface": "y",
            "netns": "",
            "changes": {
                "name": [None, "y"],
                "peer": [None, "x"],
                "up": [None, False],
                "num_queues": [None, 1],
                "alias": [None, "vethlib label=vpp1 name=y"],
            },
        },
    ]
    assert json.loads(json.dumps(made.as_dicts())) == expected


def test_a_change_of_no_address_mentions_none(host: Host) -> None:
    applied(host, VETH1, VETH2)
    (entry,) = planned(host, replace(VETH1, mtu=9000), VETH2).as_dicts()
    assert entry["changes"] == {"mtu": [1500, 9000]}


def test_a_verdict_reads_as_state_and_reason() -> None:
    assert str(Verdict(State.CONFIGURED)) == "CONFIGURED"
    assert str(Verdict(State.PENDING, "x")) == "PENDING (x)"
    assert str(Verdict.because(State.PENDING, *[Reason(ReasonCode.REFUSED, text) for text in "xy"])) == "PENDING (x; y)"


def test_a_label_that_cannot_be_one_is_refused(host: Host) -> None:
    with raises(InvalidValue, field="label", value="a b"):
        planned(host, label="a b")


def test_planning_time_grows_with_the_number_of_pairs_and_not_faster() -> None:
    # A ratio, because absolute times are the machine's.
    small, large = (_planning_time(pairs) for pairs in (500, 4_000))
    assert large < 3 * 8 * small


def _planning_time(pairs: int) -> float:
    place = (4, 7)
    desired: dict[str, Interface] = {}
    seen: list[SeenLink] = []
    for number in range(pairs):
        names = f"a{number}", f"b{number}"
        for index, (name, peer) in enumerate((names, names[::-1]), 2 * number):
            desired[name] = interface = end(name, peer)
            alias, other = alias_of(LABEL, interface), (place, index ^ 1)
            link = Link(index, name, "", "veth", "", 1500, True, "up", (), index ^ 1, None, alias, 0, 1)
            seen.append(SeenLink(place, "netns:ns1", link, (), other))
    observed = Observed({"netns:ns1": SeenNetns("netns:ns1", place)}, seen)
    times = []
    for _ in range(3):
        started = time.process_time()
        made = plan(desired, observed, label=LABEL, prune=True)
        times.append(time.process_time() - started)
        assert made.operations == ()
        assert len(plan({}, observed, label=LABEL, prune=True).operations) == pairs
    return min(times)
