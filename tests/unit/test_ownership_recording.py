"""What belongs to an agent that was killed between intent and record, and what a look leaves in the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.host_model import HOME, Host, HostLink
from tests.unit.owning import GROUP, A, B, C, D, intent, planned
from tests.unit.planning import LABEL, applied, deleted, ops, recorded, two_namespaces
from vethlib.agent import Interface, Mark, Namespace, SeenNetns, State, plan
from vethlib.agent.host.recording import ends_missing, facts_of_look
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.recorded import PairRecord, RecordedEnd, RecordedPair


@pytest.fixture
def host() -> Host:
    return two_namespaces()


# --- killed between intent and record


def created(host: Host, *, names: tuple[str, str] = ("c", "d"), groups: tuple[int, int] = (GROUP, GROUP)) -> None:
    places = host.places["netns:ns1"], host.places["netns:ns2"]
    left, right = (host.add(p, n, group=g, up=False) for p, n, g in zip(places, names, groups, strict=True))
    host.connect(places[0], left, places[1], right)


@pytest.mark.parametrize(
    ("names", "groups", "ours"),
    [
        (("c", "d"), (GROUP, GROUP), True),
        (("c", "d"), (GROUP, 0), True),  # one tenant was quick
        (("c", "d"), (0, GROUP), True),
        (("zz", "d"), (GROUP, GROUP), True),
        (("zz", "d"), (0, GROUP), False),
        (("c", "d"), (0, 0), False),  # of others, by chance
        (("x", "y"), (0, 0), False),
    ],
)
def test_what_was_about_to_be_created_is_ours_if_it_is_what_was_created(
    host: Host, names: tuple[str, str], groups: tuple[int, int], ours: bool
) -> None:
    created(host, names=names, groups=groups)
    assert ops(planned(host, intent(host))) == (["delete"] if ours else [])
    assert ops(planned(host, PairRecord(adopts=False))) == []


def test_a_group_alone_is_no_claim_where_a_tenant_can_set_it(host: Host) -> None:
    created(host)
    made = planned(host, PairRecord(adopts=False), C, D)
    assert made.operations == ()
    assert {one.state for one in made.verdicts.values()} == {State.FAILED}


def elsewhere(host: Host, *, moved: str, alias: bool, groups: tuple[int, int] = (GROUP, GROUP)) -> None:
    """The intended pair, of which somebody has moved the ends `moved` away since it was created."""
    places = {"c": host.places["netns:ns1"], "d": host.places["netns:ns2"]}
    places.update((name, host.add_netns(f"netns:to-{name}")) for name in moved)
    ends = []
    for name, group in zip("cd", groups, strict=True):
        ends.append(host.add(places[name], name, group=group, up=False))
        if alias:
            ends[-1].alias = str(Mark(LABEL, name, False))
    host.connect(places["c"], ends[0], places["d"], ends[1])


@pytest.mark.parametrize(
    ("moved", "alias", "ours"),
    [("c", False, True), ("d", False, True), ("c", True, True), ("d", True, True), ("cd", True, True),
     ("cd", False, False)],
)  # fmt: skip
def test_what_was_created_and_moved_away_before_it_was_recorded_is_ours(
    host: Host, moved: str, alias: bool, ours: bool
) -> None:
    elsewhere(host, moved=moved, alias=alias)
    assert ops(planned(host, intent(host))) == (["delete"] if ours else [])
    assert planned(host, PairRecord(adopts=False)).operations == ()


@pytest.mark.parametrize("moved", ["c", "d"])
@pytest.mark.parametrize("groups", [(GROUP, 0), (0, GROUP)])
def test_a_pair_elsewhere_of_which_one_end_bears_nothing_is_not_the_intended_one(
    host: Host, moved: str, groups: tuple[int, int]
) -> None:
    elsewhere(host, moved=moved, alias=False, groups=groups)
    assert planned(host, intent(host)).operations == ()


# --- what a look leaves in the record


def look(host: Host, record: PairRecord, *interfaces: Interface, whole: bool = True) -> list[str]:
    wanted = {one.name: one for one in interfaces}
    observed = host.observe()
    owned = OwnedPairs(observed, LABEL, record, wanted)
    found = plan(wanted, observed, label=LABEL, prune=True, owned=owned).found
    missing = ends_missing(record, observed, {})
    return facts_of_look(
        record, owned, observed, found=found, desired=wanted, missing=missing, names=None if whole else set(wanted)
    )


def test_a_look_that_finds_what_is_recorded_has_nothing_to_write(host: Host) -> None:
    applied(host, A, B, C, D)
    record = PairRecord()
    assert len(look(host, record, A, B, C, D)) == len(record) == 2
    assert look(host, record, A, B, C, D) == []
    host["netns:ns1", "a"].alias = host["netns:ns1", "c"].alias = "mine"
    host["netns:ns1", "a"].name = "zz"
    assert look(host, record, A, B, C, D) == []
    host["netns:ns1", "c"].mac = "02:00:00:00:00:77"
    assert len(look(host, record, A, B, C, D)) == 1


def test_a_pair_that_was_missed_once_and_found_again_stays_recorded(host: Host) -> None:
    applied(host, A, B)
    record = recorded(host, A, B)
    links = dict(host.links)
    host.links.clear()
    assert look(host, record, A, B, whole=False) == []
    host.links.update(links)
    look(host, record, A, B, whole=False)
    (built,) = record
    for number in range(600):
        ends = (replace(end, name=f"x{number}", index=1000 + number) for end in built.ends)
        lost = RecordedPair(*ends)
        record.add(lost)
        for _ in record.lose(lost):
            pass
    assert [pair.names for pair in record.of("a")] == [{"a", "b"}]


def test_a_pair_that_is_gone_leaves_the_record(host: Host) -> None:
    applied(host, A, B, C, D)
    record = recorded(host, A, B, C, D)
    applied(host, C, D)
    assert len(look(host, record, C, D)) == 1
    assert [pair.names for pair in record] == [{"c", "d"}]


@pytest.mark.parametrize("taken", ["c", "d", "cd"])
@pytest.mark.parametrize("cookie", [7, 0], ids=["cookies", "no cookies"])
def test_a_foreign_link_in_a_namespace_with_the_number_of_an_ended_one_is_no_end_of_the_recorded_pair(
    host: Host, taken: str, cookie: int
) -> None:
    host.cookies = dict.fromkeys(host.places.values(), cookie)
    applied(host, C, D)
    record = PairRecord()
    look(host, record, C, D)
    (pair,) = record
    host.links.clear()
    for known in pair.ends:
        host.cookies[known.place] = cookie and 8
        if known.name in taken:
            host.links[known.id] = HostLink(known.index, "eth0")
    look(host, record)
    assert len(record) == (0 if cookie else 1)  # without cookies, nobody knows


def test_however_often_a_pair_is_deleted_the_record_does_not_grow(host: Host) -> None:
    record = PairRecord()
    for _ in range(20):
        applied(host, C, D)
        look(host, record, C, D, whole=False)
        host.delete(next(iter(host.links)))
    assert len(record) <= 3
    look(host, record, C, D)
    assert len(record) == 0


@pytest.mark.parametrize("whole", [True, False])
def test_an_intent_that_came_to_nothing_is_forgotten_by_a_look_at_its_namespaces(host: Host, whole: bool) -> None:
    record = intent(host)
    host.absent["netns:ns2"] = SeenNetns("netns:ns2", None, "nobody knows", unknown=True)
    look(host, record, C, D, whole=whole)
    assert len([*record.intents()]) == 1
    del host.absent["netns:ns2"]
    look(host, record, C, D, whole=whole)
    assert [*record.intents()] == []


def test_what_was_created_by_half_is_found_by_the_next_look(host: Host) -> None:
    record = intent(host)
    created(host)
    look(host, record, C, D, whole=False)
    assert [pair.names for pair in record] == [{"c", "d"}]
    assert [*record.intents()] == []


@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_created_and_of_which_one_end_is_out_of_sight_is_ours_until_it_is_gone(
    host: Host, seen: int, whole: bool
) -> None:
    record = intent(host)
    created(host)
    ends = list(host.links)
    del host.links[ends[1 - seen]]
    look(host, record, whole=whole)
    assert len([*record.intents()]) == 1
    assert ops(planned(host, record)) == ["delete"]
    del host.links[ends[seen]]
    look(host, record, C, D, whole=whole)
    assert [*record.intents()] == []


@pytest.mark.parametrize("moved", ["c", "d"])
@pytest.mark.parametrize("known", [True, False])
def test_what_was_created_at_home_by_half_and_is_moved_after_a_look_is_ours(
    host: Host, moved: str, known: bool
) -> None:
    places = {"c": HOME, "d": host.places["netns:ns2"]}
    record = PairRecord(adopts=False)
    if known:
        record.intend(RecordedPair(*(RecordedEnd(name, place, 0, link=name) for name, place in places.items())))
    left, right = (host.add(place, name, group=GROUP, up=False) for name, place in places.items())
    right.alias = str(Mark(LABEL, "d", False))
    host.connect(HOME, left, places["d"], right)
    look(host, record)
    assert [pair.names for pair in record] == [{"c", "d"} if known else {""}]
    other = host.add_netns("netns:other")
    link = host.links.pop((places[moved], (left if moved == "c" else right).index))
    host.links[other, link.index] = link
    places[moved] = other
    host.connect(places["c"], left, places["d"], right)
    right.mac = "02:00:00:00:00:77"
    assert ops(planned(host, record)) == ["delete"]


def test_pairs_within_home_need_no_record(host: Host) -> None:
    both = [replace(one, namespace=Namespace()) for one in (A, B)]
    applied(host, *both)
    assert look(host, PairRecord(), *both) == []


def test_the_end_that_names_a_pair_need_not_be_the_one_it_is_deleted_by(host: Host) -> None:
    applied(host, A, B)
    (delete,) = deleted(planned(host, recorded(host, A, B)))
    assert (delete.interface, delete.ref, delete.name) == ("a", "netns:ns1", "a")
    assert delete.at_home == ("b", host["", "b"].index)
    assert {mark.name for _, mark in delete.marks} == {"a", "b"}
