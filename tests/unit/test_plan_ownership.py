"""Planning: links of others, conflicts among our own, what a crash leaves, and pruning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.host_model import HOME, Host
from tests.unit.planning import (
    LABEL,
    NS2,
    VETH1,
    VETH2,
    applied,
    change,
    deleted,
    end,
    judged,
    ops,
    planned,
    recorded,
    states,
    two_namespaces,
)
from vethlib.agent import ChangeLink, DeletePair, Namespace, Observed, State, Verdict, alias_of, group_of, plan
from vethlib.agent.planning import compare, planner
from vethlib.agent.planning.observed import SeenLink


@pytest.fixture
def host() -> Host:
    return two_namespaces()


# Others' links


def test_a_foreign_link_of_a_wanted_name_is_refused_and_never_touched(host: Host) -> None:
    foreign = host.add(host.places["netns:ns1"], "veth1")
    other = host.add(HOME, "vb0")
    host.connect(host.places["netns:ns1"], foreign, HOME, other)
    made = planned(host, VETH1, VETH2)
    assert made.operations == ()
    assert judged(made) == {"veth1": "FAILED: link-foreign(veth1)", "veth2": "PENDING: peer-failed(veth1)"}
    assert made.verdicts["veth1"].reason in made.verdicts["veth2"].reason
    host.delete((HOME, other.index))
    assert ops(planned(host, VETH1, VETH2)) == ["create"]


def test_a_foreign_link_of_no_kind_is_named_without_one(host: Host) -> None:
    host.add(host.places["netns:ns1"], "veth1", kind="")
    reason = planned(host, VETH1, VETH2).verdicts["veth1"].reason
    assert "kind" not in reason


def test_a_foreign_links_alternative_name_is_taken_too(host: Host) -> None:
    host.add(HOME, "enp1s0", kind="", altnames=("veth1",))
    made = planned(host, replace(VETH1, namespace=Namespace()), VETH2)
    assert states(made) == {"veth1": "FAILED", "veth2": "PENDING"}


def test_an_alternative_name_of_a_link_of_others_is_told_as_such(host: Host) -> None:
    host.add(host.places["netns:ns1"], "br0", kind="bridge", altnames=("eth0",))
    made = planned(host, end("a", "b", host_if_name="eth0"), end("b", "a"))
    assert made.operations == ()
    assert judged(made, "a") == {"a": "FAILED: link-altname(br0)"}


@pytest.mark.parametrize("mtu", [0, 1400])
def test_an_alternative_name_of_our_own_link_makes_room(host: Host, mtu: int) -> None:
    applied(host, VETH1, VETH2)
    host["netns:ns1", "veth1"].altnames = ("eth0", "other")
    newcomers = [end("a", "b", host_if_name="eth0"), end("b", "a")]
    made = applied(host, replace(VETH1, mtu=mtu), VETH2, *newcomers)
    assert ops(made) == ["change", "create"]
    assert set(states(made).values()) == {"CONFIGURED"}
    assert list(host["netns:ns1", "veth1"].altnames) == ["other"]
    assert planned(host, replace(VETH1, mtu=mtu), VETH2, *newcomers).operations == ()


def test_a_name_as_a_kernel_name_goes_before_an_alternative_one_whoever_came_first(host: Host) -> None:
    a, b = [end("a", "a2", altnames=("b",)), end("a2", "a")], [end("b", "b2"), end("b2", "b")]
    for first in (a, b):
        host = two_namespaces()
        applied(host, *first)
        made = applied(host, *a, *b)
        assert judged(made, "a", "b") == {"a": "FAILED: name-claimed(b)", "b": "CONFIGURED"}
        assert planned(host, *a, *b).operations == ()
        made = applied(host, replace(a[0], altnames=()), a[1], *b)
        assert set(states(made).values()) == {"CONFIGURED"}
        assert host["netns:ns1", "a"].altnames == ()


@pytest.mark.parametrize("lone", [False, True], ids=["a pair", "a lone end"])
@pytest.mark.parametrize(
    "holder",
    [
        {"namespace": NS2, "master": "br0"},
        {"namespace": Namespace(1, microservice="nowhere")},
        {"namespace": NS2, "peer_if_name": "other"},
    ],
    ids=["no master", "no namespace", "another peer"],
)
def test_a_link_that_waits_elsewhere_keeps_its_name_which_nobody_gets_as_an_alternative_one(
    host: Host, holder: dict[str, Any], lone: bool
) -> None:
    a, b = [end("a", "a2", host_if_name="eth2"), end("a2", "a")], [end("b", "b2"), end("b2", "b")]
    applied(host, *a, *b)
    waits = [replace(a[0], **{"host_if_name": ""} | holder), a[1]]
    made = applied(host, *waits, replace(b[0], altnames=("eth2",)), *b[lone + 1 :], prune=False)
    assert states(made)["a"] == "PENDING"
    assert judged(made, "b") == {"b": "FAILED: link-in-use(a)"}
    assert host["netns:ns1", "eth2"].altnames == ()


def test_of_two_interfaces_with_the_same_alternative_name_the_first_gets_it(host: Host) -> None:
    pairs = [each for name in "ac" for each in (end(name, f"{name}2", altnames=("x",)), end(f"{name}2", name))]
    made = applied(host, *pairs)
    assert judged(made, "a", "c") == {"a": "CONFIGURED", "c": "FAILED: name-claimed(a)"}
    elsewhere = applied(host, *pairs[:2], replace(pairs[2], namespace=NS2), pairs[3])
    assert judged(elsewhere, "c") == {"c": "CONFIGURED"}


def test_both_ends_can_fail_each_for_its_own_reason(host: Host) -> None:
    host.add(host.places["netns:ns1"], "veth1", kind="dummy")
    host.add(host.places["netns:ns2"], "veth2", kind="bridge")
    made = planned(host, VETH1, VETH2)
    assert states(made) == {"veth1": "FAILED", "veth2": "FAILED"}
    assert [judged(made, name)[name] for name in ("veth1", "veth2")] == [
        "FAILED: link-foreign(veth1)",
        "FAILED: link-foreign(veth2)",
    ]


def test_a_pair_whose_new_name_is_taken_by_others_stays_as_it_is(host: Host) -> None:
    applied(host, VETH1, VETH2)
    host.add(host.places["netns:ns1"], "eth0", kind="dummy")
    made = planned(host, replace(VETH1, host_if_name="eth0"), VETH2)
    assert made.operations == ()
    assert states(made) == {"veth1": "FAILED", "veth2": "PENDING"}


def test_a_pair_somebody_took_over_by_its_alias_is_foreign_with_both_ends(host: Host) -> None:
    applied(host, VETH1, VETH2)
    host["netns:ns2", "veth2"].alias = "uplink"
    assert planned(host).operations == ()
    made = planned(host, VETH1, VETH2)
    assert made.operations == ()
    assert states(made) == {"veth1": "FAILED", "veth2": "FAILED"}


def test_agents_of_two_labels_on_one_host_do_not_see_each_other(host: Host) -> None:
    applied(host, VETH1, VETH2, label="vpp2")
    assert planned(host, label="vpp1").operations == ()
    assert states(planned(host, VETH1, VETH2, label="vpp1"))["veth1"] == "FAILED"
    assert planned(host, VETH1, VETH2, label="vpp2").operations == ()


def test_a_link_that_is_no_veth_is_foreign_whatever_its_marks(host: Host) -> None:
    host.add(HOME, "x", kind="dummy", alias=alias_of(LABEL, VETH1), group=group_of(LABEL))
    assert planned(host).operations == ()


# Conflicts


def test_of_two_that_want_one_name_in_one_namespace_the_first_in_order_gets_it(host: Host) -> None:
    mine = [end("a", "b", host_if_name="eth0"), end("b", "a", namespace=NS2)]
    late = [end("y", "z", host_if_name="eth0", namespace=Namespace(3, filepath="/run/netns/ns1")), end("z", "y")]
    made = planned(host, *reversed(late), *mine)
    assert ops(made) == ["create"]
    assert judged(made, "y", "z") == {"y": "FAILED: name-claimed(a)", "z": "PENDING: peer-failed(y)"}


def test_the_two_ends_of_a_pair_can_be_in_each_others_way(host: Host) -> None:
    made = planned(host, end("a", "b", host_if_name="eth0"), end("b", "a", host_if_name="eth0"))
    assert states(made) == {"a": "PENDING", "b": "FAILED"}


def test_a_newcomer_that_sorts_first_takes_the_name(host: Host) -> None:
    late = [end("y", "z", host_if_name="eth0"), end("z", "y")]
    applied(host, *late)
    made = applied(host, *late, end("a", "b", host_if_name="eth0"), end("b", "a"))
    assert ops(made) == ["delete", "create"]
    assert states(made) == {"a": "CONFIGURED", "b": "CONFIGURED", "y": "FAILED", "z": "PENDING"}


def test_nobody_takes_the_name_of_an_interface_that_is_called_so(host: Host) -> None:
    honest = [end("eth0", "z"), end("z", "eth0", namespace=NS2)]
    applied(host, *honest)
    for thief in (end("a", "b", host_if_name="eth0"), end("a", "eth0", host_if_name="eth0")):
        made = planned(host, *honest, thief, end("b", "a"))
        assert ops(made) == []
        assert states(made) == {"a": "FAILED", "b": "PENDING", "eth0": "CONFIGURED", "z": "CONFIGURED"}


def test_one_kernel_name_serves_in_many_namespaces(host: Host) -> None:
    made = applied(
        host,
        end("a", "b", host_if_name="eth0"),
        end("b", "a", host_if_name="eth0", namespace=NS2),
        end("c", "d", host_if_name="eth0", namespace=Namespace()),
        end("d", "c"),
    )
    assert set(states(made).values()) == {"CONFIGURED"}


# What a crash leaves


def test_a_pair_left_without_its_aliases_is_adopted_if_it_is_right(host: Host) -> None:
    applied(host, VETH1, VETH2)
    for link in host.links.values():
        link.alias = ""
    made = applied(host, VETH1, VETH2)
    assert ops(made) == ["change", "change"]
    assert [operation.changes for operation in made.operations if isinstance(operation, ChangeLink)] == [
        {"alias": ("", alias_of(LABEL, VETH1))},
        {"alias": ("", alias_of(LABEL, VETH2))},
    ]
    assert planned(host, VETH1, VETH2).operations == ()


def test_a_pair_left_behind_that_is_wrong_is_replaced(host: Host) -> None:
    applied(host, end("veth1", "other"), end("other", "veth1"))
    for link in host.links.values():
        link.alias = ""
    made = applied(host, VETH1, VETH2, prune=False)
    assert ops(made) == ["delete", "create"]
    assert deleted(made)[0].why == "replaced: 'veth1' in netns:ns1 is claimed by veth1"


def test_a_pair_left_behind_that_nobody_wants_is_deleted(host: Host) -> None:
    applied(host, VETH1, VETH2)
    for link in host.links.values():
        link.alias = ""
    (delete,) = deleted(applied(host))
    assert (delete.interface, delete.why) == ("", "left behind by an interrupted create")
    assert host.links == {}


@pytest.mark.parametrize("prune", [False, {"a", "b"}, True])
def test_a_pair_left_behind_makes_room_for_an_alternative_name_only_if_all_interfaces_are_known(
    host: Host, prune: bool | set[str]
) -> None:
    applied(host, end("wan", "other"), end("other", "wan"))
    for link in host.links.values():
        link.alias = ""
    made = planned(host, end("a", "b", altnames=("wan",)), end("b", "a"), prune=prune)
    if prune is True:
        assert ops(made) == ["delete", "create"]
        assert deleted(made)[0].why == "left behind by an interrupted create"
    else:
        assert made.operations == ()
        assert judged(made) == {"a": "FAILED: link-in-use", "b": "PENDING: peer-failed(a)"}


def test_a_second_link_of_the_same_interface_is_deleted_and_the_right_one_kept(host: Host) -> None:
    applied(host, VETH1, VETH2)
    copy = host.add(host.places["netns:ns1"], "copy", alias=alias_of(LABEL, VETH1))
    peer = host.add(HOME, "peer", alias=alias_of(LABEL, VETH2))
    host.connect(host.places["netns:ns1"], copy, HOME, peer)
    made = applied(host, VETH1, VETH2)
    assert ops(made) == ["delete"]
    assert deleted(made)[0].why == "veth1 has another pair"
    assert host["netns:ns1", "veth1"].peer is not None


def test_a_half_seen_pair_is_deleted_by_the_end_that_is_seen(host: Host) -> None:
    applied(host, VETH1, VETH2)
    observed = host.observe()
    record = recorded(host)
    seen = [one for one in observed.links if one.link.name == "veth1"]
    (delete,) = plan({}, Observed(observed.netns, seen), label=LABEL, prune=True, record=record).operations
    assert isinstance(delete, DeletePair)
    assert (delete.index, delete.name, delete.interface) == (seen[0].link.index, "veth1", "veth1")


# Prune, and not


def test_deleting_veth1_leaves_veth10_alone(host: Host) -> None:
    tens = [end("veth10", "veth20"), end("veth20", "veth10")]
    applied(host, VETH1, VETH2, *tens)
    (delete,) = applied(host, *tens).operations
    assert isinstance(delete, DeletePair)
    assert (delete.name, delete.why) == ("veth1", "veth1 is not configured")
    assert host["netns:ns1", "veth10"].up


def test_without_prune_what_is_not_given_stays(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = applied(host, end("c", "d"), end("d", "c"), prune=False)
    assert ops(made) == ["create"]
    assert len(host.links) == 4
    assert planned(host, prune=False).operations == ()


def test_without_prune_a_broken_requirement_takes_nothing_down(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, replace(VETH1, peer_if_name="veth3"), prune=False)
    assert made.operations == ()
    assert states(made) == {"veth1": "PENDING"}


def test_without_prune_one_end_of_a_right_pair_is_changed_in_place(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = applied(host, replace(VETH1, mtu=9000, host_if_name="eth0"), prune=False)
    assert list(change(made).changes) == ["name", "mtu"]
    assert made.verdicts == {"veth1": Verdict(State.CONFIGURED)}
    assert states(planned(host, replace(VETH1, mtu=9000), prune=True)) == {"veth1": "PENDING"}


def test_without_prune_one_end_alone_is_not_rebuilt(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, replace(VETH1, num_queues=8), prune=False)
    assert made.operations == ()
    assert judged(made) == {"veth1": "PENDING: peer-not-configured(veth2), needs-rebuild(num_queues)"}


def test_without_prune_one_end_alone_respects_a_taken_name(host: Host) -> None:
    applied(host, VETH1, VETH2, end("c", "d"), end("d", "c"))
    host.add(host.places["netns:ns1"], "eth0", kind="dummy")
    assert states(planned(host, replace(VETH1, host_if_name="eth0"), prune=False)) == {"veth1": "FAILED"}
    made = planned(host, replace(VETH1, host_if_name="c"), prune=False)
    assert judged(made) == {"veth1": "FAILED: link-in-use(c)"}


def test_without_prune_a_name_of_ours_that_is_not_given_is_respected(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = planned(host, end("a", "b", host_if_name="veth1"), end("b", "a"), prune=False)
    assert made.operations == ()
    assert judged(made, "a") == {"a": "FAILED: link-in-use(veth1)"}
    assert ops(planned(host, end("a", "b", host_if_name="veth1"), end("b", "a"))) == ["delete", "create"]


def test_without_prune_a_new_peer_rebuilds_and_the_old_one_loses_its_link(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = applied(
        host, replace(VETH1, peer_if_name="b"), end("b", "veth1", host_if_name="veth2", namespace=NS2), prune=False
    )
    assert ops(made) == ["delete", "create"]
    assert host["netns:ns2", "veth2"].alias == "vethlib label=vpp1 name=b"


def test_without_prune_a_name_that_one_end_alone_gives_up_can_be_taken(host: Host) -> None:
    applied(host, VETH1, VETH2)
    made = applied(
        host, replace(VETH1, host_if_name="eth0"), end("a", "b", host_if_name="veth1"), end("b", "a"), prune=False
    )
    assert ops(made) == ["change", "create"]


def test_a_link_in_the_way_says_whose_it_is(host: Host) -> None:
    at = host.places["netns:ns1"]
    host.add(at, "veth1", alias="vethlib label=other name=uplink")
    made = planned(host, VETH1, VETH2)
    assert judged(made, "veth1") == {"veth1": "FAILED: link-of-other-label(other)"}
    assert "uplink" in made.verdicts["veth1"].reason
    host["netns:ns1", "veth1"].alias = "lab"
    made = planned(host, VETH1, VETH2)
    assert judged(made, "veth1") == {"veth1": "FAILED: link-foreign(veth1)"}
    assert "'lab'" in made.verdicts["veth1"].reason
    host["netns:ns1", "veth1"].alias = alias_of(LABEL, VETH1)
    assert judged(planned(host, VETH1, VETH2), "veth1") == {"veth1": "FAILED: link-unrecorded(veth1)"}


@pytest.mark.parametrize("mtu", [0, 1400])
def test_freeing_alternative_names_of_twice_as_many_links_is_twice_the_work(
    mtu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    class CountedChange(ChangeLink):
        def __getattribute__(self, name: str) -> object:
            nonlocal read
            read += 1
            return super().__getattribute__(name)

    def reads(number: int) -> int:
        nonlocal read
        host = two_namespaces()
        names = [f"{number}" for number in range(number)]
        present = [each for name in names for each in (end(f"a{name}", f"b{name}"), end(f"b{name}", f"a{name}"))]
        applied(host, *present)
        for name in names:
            host["netns:ns1", f"a{name}"].altnames = (f"x{name}", "other")
        added = [each for name in names for each in (end(f"x{name}", f"y{name}"), end(f"y{name}", f"x{name}"))]
        read = 0
        applied(host, *(replace(each, mtu=mtu) for each in present), *added)
        assert all(list(host["netns:ns1", f"a{name}"].altnames) == ["other"] for name in names)
        assert not planned(host, *(replace(each, mtu=mtu) for each in present), *added).operations
        return read

    for module in (planner, compare):
        monkeypatch.setattr(module, "ChangeLink", CountedChange, raising=False)
    assert reads(60) <= 2.5 * reads(30)


def test_the_other_end_of_a_link_is_found_without_a_look_at_all_links() -> None:
    class CountedLinks(list[SeenLink]):
        read = 0

        def __iter__(self) -> Iterator[SeenLink]:
            self.read += 1
            return super().__iter__()

    host = two_namespaces()
    applied(host, *(each for n in range(3) for each in (end(f"a{n}", f"b{n}"), end(f"b{n}", f"a{n}"))))
    links = {seen.link.name: seen for seen in host.observe().links}
    alone = replace(links["a0"], peer=None)
    seen = CountedLinks([alone, links["b0"], replace(links["a1"], peer=None), links["b2"]])
    observed = Observed(host.observe().netns, seen)
    before = seen.read
    assert observed.ends(alone) == [alone, links["b0"]]  # the kernel reported the peer for one of them only
    assert [observed.ends(each) for each in seen[2:]] == [[seen[2]], [seen[3]]]
    assert seen.read == before
