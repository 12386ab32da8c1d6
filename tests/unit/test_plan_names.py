"""Planning: names and alternative names that are given up, taken, exchanged, and held by others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations

import pytest

from tests.name_moves import IN_PLACE, MOVES, Names
from tests.unit.host_model import Host, HostLink
from tests.unit.planning import NS2, applied, end, judged, ops, planned, states, two_namespaces, undone
from vethlib.agent import ChangeLink, Interface, Namespace, Plan, inverse
from vethlib.agent.config.mark import read_alias

LABEL = "vpp1"
AS_THEY_ARE = {name: name for name in "abc"}


def pairs(names: Names, called: Mapping[str, str], *, lone: bool = False) -> list[Interface]:
    """A pair for each of these interfaces, which are called otherwise: nothing may depend on the alphabet."""
    made = []
    for each, text in names.items():
        kernel, *altnames = text.split()
        name = called[each]
        made.append(end(name, f"{name}-peer", host_if_name=kernel, altnames=tuple(altnames)))
        if not lone:
            made.append(end(f"{name}-peer", name, namespace=NS2))
    return made


def there(host: Host) -> dict[str, str]:
    """The names of each link in ns1, by its interface."""
    return {name: " ".join([link.name, *sorted(link.altnames)]) for name, link in _links(host)}


def indexes(host: Host) -> dict[str, int]:
    return {name: link.index for name, link in _links(host)}


def _links(host: Host) -> Iterator[tuple[str, HostLink]]:
    place = host.places["netns:ns1"]
    for (where, _), link in host.links.items():
        if where == place and (mark := read_alias(link.alias)) is not None:
            yield mark.name, link


def as_called(names: Names, called: Mapping[str, str]) -> dict[str, str]:
    return {
        called[each]: " ".join([kernel, *sorted(altnames)])
        for each, (kernel, *altnames) in ((each, text.split()) for each, text in names.items())
    }


def callings(*names: Names) -> Iterable[dict[str, str]]:
    each = sorted({name for one in names for name in one})
    return (dict(zip(each, order, strict=True)) for order in permutations(each))


@pytest.mark.parametrize("move", MOVES)
def test_names_move_in_one_plan_whatever_the_interfaces_are_called_and_back(move: str) -> None:
    was, wanted = MOVES[move]
    for called in callings(was, wanted):
        host = two_namespaces()
        applied(host, *pairs(was, called))
        before, links = host.observe(), indexes(host)
        made = applied(host, *pairs(wanted, called))
        assert set(states(made).values()) == {"CONFIGURED"}
        assert there(host) == as_called(wanted, called)
        stay = {called[each] for each in was.keys() & wanted.keys()}
        assert {name: index for name, index in indexes(host).items() if name in stay} == {
            name: index for name, index in links.items() if name in stay
        }
        assert planned(host, *pairs(wanted, called)).operations == ()
        undone(host, made, before)
        assert there(host) == as_called(was, called)


@pytest.mark.parametrize("move", IN_PLACE)
def test_names_of_lone_ends_move_in_one_plan_and_back(move: str) -> None:
    was, wanted = IN_PLACE[move]
    for called in callings(was, wanted):
        host = two_namespaces()
        applied(host, *pairs(was, called))
        before, links = host.observe(), indexes(host)
        made = applied(host, *pairs(wanted, called, lone=True), prune=False)
        assert set(states(made).values()) == {"CONFIGURED"}
        assert (there(host), indexes(host)) == (as_called(wanted, called), links)
        assert planned(host, *pairs(wanted, called, lone=True), prune=False).operations == ()
        undone(host, made, before)
        assert there(host) == as_called(was, called)


def test_only_links_that_wait_for_each_other_are_changed_in_several_steps() -> None:
    for move, number in (("each is passed on", 3), ("two are exchanged", 4), ("an alternative name moves", 2)):
        host = two_namespaces()
        applied(host, *pairs(MOVES[move][0], AS_THEY_ARE))
        made = planned(host, *pairs(MOVES[move][1], AS_THEY_ARE))
        assert ops(made) == ["change"] * number


# Names that others have


def foreign(host: Host, **fields: object) -> None:
    host.add(host.places["netns:ns1"], **{"name": "br0", "kind": "bridge", **fields})  # type: ignore[arg-type]


def of_another_label(host: Host) -> None:
    applied(host, end("x", "x-peer"), end("x-peer", "x", namespace=NS2), prune=False, label="other")


HOLDERS: dict[str, tuple[Callable[[Host], object], str]] = {
    "the name of a foreign link": (lambda host: foreign(host, name="x"), "link-foreign(x)"),
    "an alternative name of a foreign link": (lambda host: foreign(host, altnames=("x",)), "link-altname(br0)"),
    "the name of another label": (of_another_label, "link-of-other-label(other)"),
}
WANTING: dict[str, tuple[Interface, Interface]] = {
    "changed in place": (end("a", "a-peer"), end("a", "a-peer", mtu=1400, altnames=("x",))),
    "rebuilt": (end("a", "a-peer"), end("a", "a-peer", num_queues=7, altnames=("y", "x"))),
}


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("wanting", WANTING)
@pytest.mark.parametrize("holder", HOLDERS)
def test_an_alternative_name_that_a_foreign_link_has_is_refused_before_anything_is_changed(
    holder: str, wanting: str, prune: bool
) -> None:
    host = two_namespaces()
    (was, wanted), (hold, code) = WANTING[wanting], HOLDERS[holder]
    peer = end("a-peer", "a", namespace=Namespace())
    applied(host, was, peer)
    hold(host)
    made = planned(host, wanted, peer, prune=prune)
    assert made.operations == ()
    assert judged(made) == {"a": f"FAILED: {code}", "a-peer": "PENDING: peer-failed(a)"}


def test_a_pair_of_an_interface_that_is_not_among_the_desired_ones_keeps_its_names() -> None:
    host = two_namespaces()
    applied(host, *pairs({"a": "eth0", "b": "eth1 x"}, AS_THEY_ARE))
    made = planned(host, *pairs({"a": "eth0 x"}, AS_THEY_ARE), prune=False)
    assert (made.operations, judged(made, "a")) == ((), {"a": "FAILED: link-altname(eth1)"})
    made = planned(host, *pairs({"a": "eth0 eth1"}, AS_THEY_ARE), prune=False)
    assert (made.operations, judged(made, "a")) == ((), {"a": "FAILED: link-in-use(b)"})


def test_an_interface_that_fails_still_gives_up_alternative_names_that_are_not_its_own() -> None:
    host = two_namespaces()
    applied(host, *pairs({"a": "eth0", "b": "eth1 x"}, AS_THEY_ARE))
    foreign(host)
    made = applied(host, *pairs({"a": "eth0 x", "b": "br0"}, AS_THEY_ARE))
    assert judged(made, "a", "b") == {"a": "CONFIGURED", "b": "FAILED: link-foreign(br0)"}
    assert there(host) == {"a": "eth0 x", "b": "eth1"}


@pytest.mark.parametrize("prune", [True, False])
def test_a_link_that_cannot_be_renamed_keeps_its_name_and_its_pair(prune: bool) -> None:
    was, wanted = {"a": "eth0", "b": "eth1"}, {"a": "eth0 eth1", "b": "br0"}
    for called in callings(was):
        host = two_namespaces()
        applied(host, *pairs(was, called))
        foreign(host)
        made = planned(host, *pairs(wanted, called), prune=prune)
        a, b = called["a"], called["b"]
        assert judged(made, a, b) == {a: f"FAILED: link-in-use({b})", b: "FAILED: link-foreign(br0)"}
        assert made.operations == ()


def test_a_lone_end_that_gets_no_new_name_is_not_deleted_for_an_alternative_name_of_another() -> None:
    was = {"a": "eth0", "b": "eth1", "c": "eth2"}
    for called in callings(was):
        host = two_namespaces()
        applied(host, *pairs(was, called))
        wanted = pairs({"a": "eth0 eth1", "c": "eth2"}, called)
        lone = pairs({"b": "eth2"}, called, lone=True)
        made = applied(host, *wanted, *lone, prune=False)
        assert len(indexes(host)) == 3
        assert judged(made)[called["a"]] != "CONFIGURED" or there(host)[called["a"]] == "eth0 eth1"


def test_an_interface_that_fails_takes_no_name_from_others() -> None:
    host = two_namespaces()
    applied(host, *pairs({"a": "eth0", "b": "eth1 x"}, AS_THEY_ARE))
    foreign(host)
    made = applied(host, *pairs({"a": "eth0 x br0", "b": "eth1"}, AS_THEY_ARE))
    assert judged(made, "a", "b") == {"a": "FAILED: link-foreign(br0)", "b": "CONFIGURED"}
    assert there(host) == {"a": "eth0", "b": "eth1 x"}


# Undoing, when others have taken names meanwhile


TAKEN: dict[str, tuple[Names, Names, str, Names]] = {
    "the name of a deleted link": ({"a": "eth0", "b": "eth1 x"}, {"a": "eth0"}, "eth1", {"a": "eth0"}),
    "an alternative name of a deleted link": (
        {"a": "eth0", "b": "eth1 x y"},
        {"a": "eth0"},
        "x",
        {"a": "eth0", "b": "eth1 y"},
    ),
    "the name of a renamed link": ({"a": "eth0 x"}, {"a": "x"}, "eth0", {"a": "x"}),
    "the name of a link that another one waits for": (
        {"a": "eth0", "b": "eth1 x"},
        {"a": "x", "b": "eth1"},
        "eth0",
        {"a": "x", "b": "eth1"},
    ),
    "the name of a link that has exchanged names": (
        {"a": "eth0 x", "b": "eth1 y"},
        {"a": "y", "b": "x"},
        "eth1",
        {"a": "eth0", "b": "x y"},
    ),
    "the name of a deleted link whose alternative one a new link has": ({"a": "eth0 x"}, {"b": "eth1 x"}, "eth0", {}),
}


@pytest.mark.parametrize("taken", TAKEN)
def test_a_name_that_another_program_has_taken_meanwhile_is_not_given_back_and_all_others_are(taken: str) -> None:
    was, wanted, name, back = TAKEN[taken]
    for called in callings(was, wanted):
        host = two_namespaces()
        applied(host, *pairs(was, called))
        before = host.observe()
        made = applied(host, *pairs(wanted, called))
        after = host.observe()
        foreign(host, name=name)
        undo = inverse(made.operations, before, after, host.observe())
        host.apply(undo.plan)
        assert there(host) == as_called(back, called)
        assert [name for note in undo.left if repr(name) in note]


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("move", IN_PLACE)
def test_a_move_that_ends_half_way_is_undone_whether_or_not_its_last_step_was_made(move: str, is_made: bool) -> None:
    was, wanted = IN_PLACE[move]
    number = 1
    while True:
        host = two_namespaces()
        applied(host, *pairs(was, AS_THEY_ARE))
        before = host.observe()
        made = planned(host, *pairs(wanted, AS_THEY_ARE)).operations
        if number > len(made):
            return
        host.apply(Plan(made[: number if is_made else number - 1], {}))
        after = host.observe()
        undo = inverse(made[: number - 1], before, after, after, begun=made[number - 1 : number])
        assert undo.left == ()
        host.apply(undo.plan)
        assert there(host) == as_called(was, AS_THEY_ARE)
        number += 1


@pytest.mark.parametrize("move", IN_PLACE)
def test_steps_are_undone_in_whichever_order_they_were_noted(move: str) -> None:
    was, wanted = IN_PLACE[move]
    host = two_namespaces()
    applied(host, *pairs(was, AS_THEY_ARE))
    before = host.observe()
    made = applied(host, *pairs(wanted, AS_THEY_ARE))
    undone(host, Plan(made.operations[::-1], {}), before)
    assert there(host) == as_called(was, AS_THEY_ARE)


def test_steps_of_a_link_that_keeps_its_name_are_made_under_that_name() -> None:
    host = two_namespaces()
    was, wanted = MOVES["names and alternative names of two are exchanged"]
    applied(host, *pairs(was, AS_THEY_ARE))
    before = host.observe()
    made = applied(host, *pairs(wanted, AS_THEY_ARE))
    after = host.observe()
    host.links[host.places["netns:ns1"], indexes(host)["a"]].altnames = ()
    foreign(host, name="eth1")
    undo = inverse(made.operations, before, after, host.observe())
    for change in undo.plan.operations:
        assert isinstance(change, ChangeLink)
        assert host.at(change.place, change.name) is host.links[change.place, change.index]
        host.apply(Plan((change,), {}))
    assert there(host)["b"].split()[0] == "x"
    assert undo.left
