"""An outdated plan never changes or deletes a foreign link, even if identities have been reused.

A namespace that is removed and created again may get the same inode number, and the first links in it have the same
ifindexes. Each test runs with and without the cookies of namespaces, which Linux has since 5.14.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.applying import LABEL, applied, indexes, interface, planned
from tests.live.reused_identity import as_if_reused, foreign_link, replaced, with_inode_again, without_cookies
from tests.witness import ip, names, seen
from vethlib import Link, LinkNotFound, Netns, Session, ns
from vethlib.agent import Interface, Plan
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.host.recording import plan_and_note
from vethlib.agent.planning.undo.inversion import inverse

PAIR = (interface("a", "b", "ns1"), interface("b", "a", "ns2"))
TO_HOME = (interface("a", "b", "ns1"), interface("b", "a"))


@pytest.fixture(autouse=True, params=["cookies", "no cookies"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no cookies":
        without_cookies(monkeypatch)


def to_be_deleted(session: Session, *configured: Interface) -> tuple[int, Plan]:
    """Make these; returns the ifindex of a in ns1, and the plan that deletes them."""
    applied(session, *configured)
    (index,) = indexes(("a", "ns1"))
    return index, planned(session, prune=True)


def test_the_kernel_gives_the_number_again_and_the_foreign_link_stays(
    session: Session, make_netns: Callable[..., None]
) -> None:
    for _ in range(3):
        make_netns("ns1", "ns2")
        index, made = to_be_deleted(session, *PAIR)
        reused = with_inode_again("ns1")
        foreign_link("a", index, "ns1")
        execution = execute(session, made)
        assert names("ns1") == {"a", "theirs"}
        assert execution.done == list(made.operations)
        for name in ns.names():
            ns.remove(name)
        if reused:
            return  # otherwise another program was quicker, and the tests below have to do


@pytest.mark.parametrize("configured", [PAIR, TO_HOME], ids=["both elsewhere", "one at home"])
def test_a_foreign_link_in_the_place_of_one_to_be_deleted_stays(
    session: Session, make_netns: Callable[..., None], configured: tuple[Interface, ...]
) -> None:
    make_netns("ns1", "ns2")
    index, made = to_be_deleted(session, *configured)
    replaced("ns1")
    foreign_link("a", index, "ns1")
    execution = execute(session, as_if_reused(session, made))
    assert not execution.errors
    assert names("ns1") == {"a", "theirs"}


def test_a_foreign_link_of_that_ifindex_and_another_name_stays(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2")
    index, made = to_be_deleted(session, *PAIR)
    replaced("ns1")
    foreign_link("other", index, "ns1")
    execute(session, as_if_reused(session, made))
    assert names("ns1") == {"other", "theirs"}


def test_a_foreign_link_made_with_the_ifindex_of_ours_in_the_same_namespace_stays(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2")
    index, made = to_be_deleted(session, *PAIR)
    ip("link", "del", "dev", "a", netns="ns1")
    foreign_link("a", index, "ns1")
    execute(session, made)
    assert names("ns1") == {"a", "theirs"}


def test_a_foreign_link_made_with_the_ifindex_of_ours_at_home_stays(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1")
    applied(session, *TO_HOME)
    (index,) = indexes(("b", ""))
    made = planned(session, prune=True)
    ip("link", "del", "dev", "b")
    ip("link", "add", "name", "b", "index", str(index), "type", "veth", "peer", "name", "theirs")
    execute(session, made)
    assert names() == {"b", "theirs"}


def test_a_link_at_home_that_another_program_has_marked_as_its_own_stays(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1")
    applied(session, *TO_HOME)
    made = planned(session, prune=True)
    ip("link", "set", "dev", "b", "alias", "mine now")
    execute(session, made)
    assert names() == {"b"}


def test_a_pair_that_was_renamed_and_given_another_mac_is_deleted(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2")
    applied(session, *PAIR)
    made = planned(session, prune=True)
    ip("link", "set", "dev", "a", "down", netns="ns1")
    ip("link", "set", "dev", "a", "name", "renamed", "address", "02:00:00:00:00:77", netns="ns1")
    assert execute(session, made).errors == []
    assert names("ns1") == names("ns2") == set()


@pytest.mark.parametrize(
    "to",
    [{"mtu": 1400}, {"enabled": False}, {"ip_addresses": ["10.1.0.1/24"]}, {"host_if_name": "fresh"}],
    ids=["mtu", "up", "addresses", "name"],
)
def test_a_foreign_link_in_the_place_of_one_to_be_changed_stays_as_it_is(
    session: Session, make_netns: Callable[..., None], to: dict[str, object]
) -> None:
    make_netns("ns1", "ns2")
    applied(session, *PAIR)
    (index,) = indexes(("a", "ns1"))
    made = planned(session, interface("a", "b", "ns1", **to), PAIR[1])
    assert made.operations
    replaced("ns1")
    foreign_link("a", index, "ns1")
    before = seen("a", "ns1")
    ((_, error),) = execute(session, as_if_reused(session, made)).errors
    assert isinstance(error, LinkNotFound)
    assert seen("a", "ns1") == before


def test_a_trial_that_is_undone_leaves_a_foreign_link_in_the_place_of_a_created_one_alone(
    session: Session, make_netns: Callable[..., None], tmp_path: object
) -> None:
    for _ in range(3):
        make_netns("ns1", "ns2")
        refs = ["netns:ns1", "netns:ns2"]
        with RecordFile(session, LABEL, str(tmp_path)) as records:
            before = observe(session, refs)
            desired = {one.name: one for one in PAIR}
            made: Plan = plan_and_note(desired, before, records, label=LABEL, prune=False)
            execution = execute(session, made, records=records)
            after = observe(session, refs)
            (index,) = indexes(("a", "ns1"))
            reused = with_inode_again("ns1")
            foreign_link("a", index, "ns1")
            undo = inverse(execution.done, before, after, observe(session, refs), records.record)
            execute(session, undo.plan, records=records)
        assert names("ns1") == {"a", "theirs"}
        for name in ns.names():
            ns.remove(name)
        if reused:
            return  # otherwise another program was quicker, and the tests below have to do


def test_a_session_deletes_what_its_caller_takes_for_the_same_and_nothing_else(
    session: Session, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1")
    applied(session, *TO_HOME)
    link = session.lookup("a", "ns1")
    birth = session.identity("ns1"), session.cookie("ns1")
    asked: list[tuple[object, ...]] = []

    def refuse(*what: object) -> bool:
        asked.append(what)
        return False

    with Netns.open("ns1"):
        session.delete_many([link], only_if=refuse)
    assert names("ns1") == {"a"}
    ((item, now, then),) = asked
    assert isinstance(now, Link)
    assert (item, now.index, now.mac, then) == (link, link.index, link.mac, birth)
    session.delete_many([link], only_if=lambda _, now, then: (now.mac, then) == (link.mac, birth))
    assert names("ns1") == set()
