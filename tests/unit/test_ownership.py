"""Who owns a pair, for every combination of the marks of its ends, their places and the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.host_model import HOME, Host, HostLink
from tests.unit.owning import A, B, C, D, intent, planned
from tests.unit.planning import LABEL, NS2, applied, deleted, end, ops, recorded, states, two_namespaces
from vethlib.agent import Interface, Mark, Namespace, SeenNetns, State, inverse, irreversible
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.recorded import ForeignRecord, PairRecord, RecordedPair


@pytest.fixture
def host() -> Host:
    return two_namespaces()


# What a tenant's end may have become.


def honest(host: Host, link: HostLink) -> None:
    pass


def rewritten(host: Host, link: HostLink) -> None:
    link.alias, link.group = "mine", 7


def cleared(host: Host, link: HostLink) -> None:
    link.alias, link.group = "", 0


def forged(host: Host, link: HostLink) -> None:
    link.alias = str(Mark(LABEL, "qa", True))


def of_another_label(host: Host, link: HostLink) -> None:
    link.alias = str(Mark("other", "a", False))


def renamed(host: Host, link: HostLink) -> None:
    link.name, link.alias = "zz", "mine"


def given_another_mac(host: Host, link: HostLink) -> None:
    link.mac, link.alias = "02:00:00:00:00:77", "mine"


def moved(host: Host, link: HostLink) -> None:
    """Move it into its own namespace, completely changed, with another index."""
    old = next(key for key, one in host.links.items() if one is link)
    del host.links[old]
    place = host.add_netns("netns:hidden")
    link.index, link.alias, link.group, link.mac = 99, "mine", 7, "02:00:00:00:00:77"
    host.links[place, 99] = link
    assert link.peer is not None
    host.links[link.peer].peer = (place, 99)


CHANGES: list[Callable[[Host, HostLink], None]] = [
    honest, rewritten, cleared, forged, of_another_label, renamed, given_another_mac, moved,
]  # fmt: skip
changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


def wipe(host: Host, record: PairRecord) -> PairRecord | None:
    return None


def keep(host: Host, record: PairRecord) -> PairRecord:
    return record


def empty(host: Host, record: PairRecord) -> PairRecord:
    return PairRecord(adopts=False)


def stale(host: Host, record: PairRecord) -> PairRecord:
    """Of namespaces that had these inode numbers before."""
    older = PairRecord(adopts=False)
    for pair in record:
        older.add(RecordedPair(*(replace(one, cookie=1) for one in pair.ends)))
    host.cookies = dict.fromkeys(host.places.values(), 2)
    return older


# --- an end at home


@changes
@pytest.mark.parametrize("known", [keep, wipe, empty, stale], ids=lambda known: known.__name__)
def test_with_an_end_at_home_that_one_decides(
    host: Host,
    change: Callable[[Host, HostLink], None],
    known: Callable[[Host, PairRecord], PairRecord | None],
) -> None:
    applied(host, A, B)
    record = known(host, recorded(host, A, B))
    change(host, host["netns:ns1", "a"])
    assert ops(planned(host, record)) == ["delete"]
    made = planned(host, record, A, B)
    assert {one.state for one in made.verdicts.values()} == {State.CONFIGURED}
    assert (ops(made) == ["delete", "create"]) == (change is moved)
    host.apply(planned(host, record))
    assert host.links == {}


@changes
@pytest.mark.parametrize("known", [keep, wipe, empty, stale], ids=lambda known: known.__name__)
@pytest.mark.parametrize("alias", ["", "uplink", str(Mark("other", "b", False))])
def test_what_is_not_marked_at_home_is_foreign_whatever_its_other_end_says(
    host: Host,
    change: Callable[[Host, HostLink], None],
    known: Callable[[Host, PairRecord], PairRecord | None],
    alias: str,
) -> None:
    """A container engine's link, whose other end is in the tenant's namespace and has our marks."""
    applied(host, A, B)
    record = known(host, recorded(host, A, B))
    host["", "b"].alias, host["", "b"].group = alias, 0
    host["", "b"].name = "theirs"
    change(host, host["netns:ns1", "a"])
    before = host.snapshot()
    assert planned(host, record).operations == ()
    made = planned(host, record, A, B)
    assert deleted(made) == []
    if change not in (moved, renamed):
        assert made.operations == ()
        assert made.verdicts["a"].state is State.FAILED
    host.apply(made)
    assert {key: host.links[key] for key in before} == before


def test_a_forged_name_does_not_make_the_end_another_interfaces(host: Host) -> None:
    applied(host, A, B, end("qa", "qb"), end("qb", "qa", namespace=NS2))
    wanted = [A, B, end("qa", "qb"), end("qb", "qa", namespace=NS2)]
    record = recorded(host, *wanted)
    for link in (host["netns:ns1", "a"], host["netns:ns1", "qa"]):
        link.alias = str(Mark(LABEL, "qb", True))
    assert planned(host, record, *wanted).operations == ()
    assert planned(host, None, A, B).verdicts["a"].state is State.CONFIGURED


@pytest.mark.parametrize("change", [one for one in CHANGES if one not in (moved, renamed)])
def test_what_a_tenant_says_is_not_put_right(host: Host, change: Callable[[Host, HostLink], None]) -> None:
    applied(host, A, B, C, D)
    record = recorded(host, A, B, C, D)
    for name in ("a", "c"):
        change(host, host["netns:ns1", name])
    assert planned(host, record, A, B, C, D).operations == ()


# --- no end at home


@changes
@pytest.mark.parametrize("both", [False, True])
def test_with_no_end_at_home_the_record_decides(
    host: Host, change: Callable[[Host, HostLink], None], both: bool
) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    change(host, host["netns:ns1", "c"])
    if both and change is not moved:
        change(host, host["netns:ns2", "d"])
    assert ops(planned(host, record)) == ["delete"]
    made = planned(host, record, C, D)
    assert {one.state for one in made.verdicts.values()} == {State.CONFIGURED}
    assert ("create" in ops(made)) == (change is moved)
    host.apply(planned(host, record))
    assert host.links == {}


@changes
@pytest.mark.parametrize("known", [empty, stale], ids=lambda known: known.__name__)
def test_what_is_not_recorded_is_never_deleted_for_being_unwanted(
    host: Host,
    change: Callable[[Host, HostLink], None],
    known: Callable[[Host, PairRecord], PairRecord | None],
) -> None:
    applied(host, C, D)
    record = known(host, recorded(host, C, D))
    change(host, host["netns:ns1", "c"])
    before = host.snapshot()
    assert planned(host, record).operations == ()
    made = planned(host, record, C, D)
    if change is honest:
        assert made.operations == ()
        assert {one.state for one in made.verdicts.values()} == {State.CONFIGURED}
    else:
        assert {key: host.links[key] for key in before} == before
        assert deleted(made) == []
        assert State.CONFIGURED not in {one.state for one in made.verdicts.values()}


@changes
def test_without_any_record_marks_on_both_ends_decide(host: Host, change: Callable[[Host, HostLink], None]) -> None:
    applied(host, C, D)
    change(host, host["netns:ns1", "c"])
    marked = change in (honest, forged)
    assert ops(planned(host, None)) == (["delete"] if marked else [])


# --- the record is lost: other agents of the label may have built what is there

OTHER_HOME = (4, 4242)


def lost(*foreign: ForeignRecord) -> PairRecord:
    """What is left after the loss of a record, beside the records of agents with other home namespaces."""
    record = PairRecord()
    record.foreign = foreign
    return record


def theirs(host: Host, record: PairRecord | None = None, home: NetnsId = OTHER_HOME, cookie: int = 0) -> ForeignRecord:
    return ForeignRecord(home, cookie, PairRecord(adopts=False) if record is None else record)


@changes
@pytest.mark.parametrize("place", [NS2, Namespace()], ids=["in one of its namespaces", "at home only"])
def test_without_its_record_a_pair_is_adopted_if_an_interface_is_configured_in_one_of_its_namespaces(
    host: Host, change: Callable[[Host, HostLink], None], place: Namespace
) -> None:
    applied(host, C, D)
    change(host, host["netns:ns1", "c"])
    wanted = end("x", "y", namespace=place), end("y", "x", namespace=Namespace())
    adopted = change in (honest, forged) and place == NS2
    assert ops(planned(host, lost(), *wanted)) == (["delete", "create"] if adopted else ["create"])
    assert planned(host, lost()).operations == ()
    kept = planned(host, lost(), C, D)
    assert (set(states(kept).values()) == {"CONFIGURED"}) == (change in (honest, forged) or ops(kept) == ["create"])
    assert (deleted(kept) == []) or change is forged


@pytest.mark.parametrize("wanted", [(), (C, D), (end("x", "y"), end("y", "x", namespace=NS2))])
@pytest.mark.parametrize("which", ["recorded", "intended", "at home", "stale", "at a former home", "of other pairs"])
def test_without_its_record_a_pair_that_another_agent_has_built_is_left_alone_unless_it_is_configured(
    host: Host, which: str, wanted: tuple[Interface, ...]
) -> None:
    applied(host, C, D)
    host.cookies = dict.fromkeys(host.places.values(), 2)
    pairs = recorded(host, C, D)
    if which == "intended":
        other = theirs(host, intent(host))
    elif which in ("at home", "at a former home"):
        other = theirs(host, home=host.places["netns:ns2"], cookie=2 if which == "at home" else 1)
    elif which == "of other pairs":
        other = theirs(host, PairRecord(adopts=False))
    elif which == "stale":
        other = theirs(host, stale(host, pairs))
    else:
        other = theirs(host, pairs)
    before = host.snapshot()
    made = planned(host, lost(theirs(host), other), *wanted)
    adopts = bool(wanted) and which in ("stale", "at a former home", "of other pairs")
    if wanted == (C, D):
        assert made.operations == ()
        assert set(states(made).values()) == {"CONFIGURED"}
    else:
        assert (len(deleted(made)) == 1) == adopts
    host.apply(made)
    assert adopts or {key: host.links[key] for key in before} == before


def test_a_pair_that_may_be_anothers_is_counted_and_named_in_the_way_of_a_configured_one(host: Host) -> None:
    applied(host, C, D)
    other = theirs(host, recorded(host, C, D))
    wanted = end("c", "y"), end("y", "c", namespace=Namespace())
    desired = {one.name: one for one in wanted}
    owned = OwnedPairs(host.observe(), LABEL, lost(other), desired)
    assert (owned.pairs, len(owned.unrecorded)) == ([], 1)
    made = planned(host, lost(other), *wanted)
    assert made.operations == ()
    assert [reason.code for reason in made.verdicts["c"].reasons] == ["link-unrecorded"]


def test_a_pair_that_both_tenants_have_moved_is_known_by_what_it_was(host: Host) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    hidden = host.add_netns("netns:hidden")
    for place, name, index in ((host.places["netns:ns1"], "c", 98), (host.places["netns:ns2"], "d", 99)):
        link = host.at(place, name)
        assert link is not None
        del host.links[place, link.index]
        link.index = index
        host.links[hidden, index] = link
    host.connect(hidden, host.links[hidden, 98], hidden, host.links[hidden, 99])
    assert ops(planned(host, record)) == ["delete"]
    host.links[hidden, 98].mac = "02:00:00:00:00:77"
    assert planned(host, record).operations == ()


def moved_to(host: Host, hidden: NetnsId) -> tuple[HostLink, HostLink]:
    """Move both ends of the pair of c and d to a namespace; return its links."""
    ends = []
    for place, name, index in ((host.places["netns:ns1"], "c", 98), (host.places["netns:ns2"], "d", 99)):
        link = host.at(place, name)
        assert link is not None
        del host.links[place, link.index]
        link.index = index
        host.links[hidden, index] = link
        ends.append(link)
    host.connect(hidden, ends[0], hidden, ends[1])
    return ends[0], ends[1]


@pytest.mark.parametrize("alias", ["mine", "", f"vethlib label={LABEL} name=x"])
@pytest.mark.parametrize("both", [True, False])
def test_a_pair_that_was_moved_is_known_by_the_macs_that_the_kernel_chose_whatever_is_written_on_it(
    host: Host, alias: str, both: bool
) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    ends = moved_to(host, host.add_netns("netns:hidden"))
    for number, link in enumerate(ends if both else ends[:1]):
        link.alias, link.group, link.name = alias, 0, f"x{number}"
    assert ops(planned(host, record)) == ["delete"]


def test_a_pair_with_the_macs_of_another_one_is_not_taken_for_it_as_long_as_that_one_is_where_it_was(
    host: Host,
) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    hidden = host.add_netns("netns:hidden")
    copies = []
    for index, (place, name) in ((98, ("netns:ns1", "c")), (99, ("netns:ns2", "d"))):
        link = HostLink(index, f"x{index}", mac=host[place, name].mac)
        host.links[hidden, index] = link
        copies.append(link)
    host.connect(hidden, copies[0], hidden, copies[1])
    assert planned(host, record, C, D).operations == ()


@pytest.mark.parametrize("refused", [True, False])
def test_a_pair_with_the_macs_of_another_one_is_not_taken_for_it_if_that_one_cannot_be_seen(
    host: Host, refused: bool
) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    for link in moved_to(host, host.add_netns("netns:hidden")):
        link.alias, link.group = "mine", 0
    for ref in ("netns:ns1", "netns:ns2"):
        host.absent[ref] = SeenNetns(ref, None, "nobody knows", unknown=not refused, refused=refused)
    assert planned(host, record, C, D).operations == ()


def test_configured_macs_may_be_those_of_any_pair(host: Host) -> None:
    wanted = (replace(C, phys_address="02:00:00:00:00:0c"), replace(D, phys_address="02:00:00:00:00:0d"))
    applied(host, *wanted)
    record = recorded(host, *wanted)
    for link in moved_to(host, host.add_netns("netns:hidden")):
        link.alias, link.group = "mine", 0
    assert planned(host, record).operations == ()


def test_a_link_that_came_to_where_ours_was_is_not_taken_for_it(host: Host) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    a, b = next((end, link.peer) for end, link in host.links.items())
    assert b is not None
    host.delete(a)
    for mine, theirs in ((a, (HOME, 3)), (a, (b[0], 55))):
        host.links = {mine: HostLink(mine[1], "c", mac="02:01:02:03:04:05"), theirs: HostLink(theirs[1], "x")}
        host.links[mine].peer, host.links[theirs].peer = theirs, mine
        before = host.snapshot()
        assert planned(host, record).operations == ()
        assert deleted(planned(host, record, C, D)) == []
        assert host.links == before


def test_a_peer_at_home_that_is_not_ours_protects_the_pair_whatever_else_agrees(host: Host) -> None:
    applied(host, C, D)
    record = recorded(host, C, D)
    link = host["netns:ns1", "c"]
    place = host.places["netns:ns1"]
    assert link.peer is not None
    del host.links[link.peer]
    theirs = host.add(HOME, "veth1234567")
    host.connect(place, link, HOME, theirs)
    before = host.snapshot()
    assert planned(host, record).operations == ()
    assert deleted(planned(host, record, C, D)) == []
    assert host.links == before


# --- taking a trial back


@changes
def test_a_trial_is_taken_back_whatever_a_tenant_has_written_meanwhile(
    host: Host, change: Callable[[Host, HostLink], None]
) -> None:
    before = host.observe()
    made = planned(host, None, A, B, C, D)
    host.apply(made)
    record = recorded(host, A, B, C, D)
    host["netns:ns1", "c"].name = "quick"  # before anybody looked
    after = host.observe()
    for link in (host["netns:ns1", "a"], host["netns:ns1", "quick"]):
        if change is not moved or link.name == "a":
            change(host, link)
    undo = inverse(made.operations, before, after, host.observe(), record)
    host.apply(undo.plan)
    assert host.links == {}


@changes
def test_a_pair_that_a_trial_deleted_comes_back_whatever_a_tenant_had_written(
    host: Host, change: Callable[[Host, HostLink], None]
) -> None:
    applied(host, A, B)
    record = recorded(host, A, B)
    change(host, host["netns:ns1", "a"])
    before = host.observe()
    made = planned(host, record)
    assert irreversible(made, before, {}) == ()
    old = {(link.name, link.alias) for link in host.links.values()}
    host.apply(made)
    host.apply(inverse(made.operations, before, host.observe(), host.observe(), record).plan)
    assert {(link.name, link.alias) for link in host.links.values()} == old


def test_a_pair_that_was_taken_over_at_home_is_not_taken_back(host: Host) -> None:
    before = host.observe()
    made = planned(host, None, A, B)
    host.apply(made)
    record, after = recorded(host, A, B), host.observe()
    host["", "b"].alias = "uplink"
    undo = inverse(made.operations, before, after, host.observe(), record)
    assert (undo.plan.operations, len(undo.left)) == ((), 1)
