"""Deleting many links at once: their addresses before them, and pairs that were created to be deleted together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.witness import addresses, host_state, ip, names, seen
from vethlib import BatchError, End, InvalidValue, LinkExists, Session, Veth
from vethlib._nl.addr import delete_same
from vethlib._nl.batch import Outcome
from vethlib._nl.link import set_group
from vethlib._nl.sock import RtnlSocket
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.write import grouped

PRIVATE = 1 << 31


@pytest.fixture(autouse=True)
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "MANY", 2)


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The links that are put into a group, in order."""
    marked: list[int] = []

    def noted(index: int, group: int) -> bytes:
        marked.append(index)
        return set_group(index, group)

    monkeypatch.setattr(grouped, "set_group", noted)
    return marked


def pairs(netns: str, count: int = 4, **fields: Any) -> list[Veth]:
    return [Veth(End(f"a{n}", netns, **fields), End(f"b{n}", "red")) for n in range(count)]


def group_of(name: str, netns: str = "") -> int:
    return int(seen(name, netns)["group"].replace("default", "0")) & 0xFFFF_FFFF


def test_addresses_go_before_their_links_and_those_of_others_stay(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("address", "add", "10.9.0.1/24", "dev", "o1")
    before = host_state()
    removed: list[bytes] = []

    def noted(body: bytes) -> bytes:
        removed.append(body)
        return delete_same(body)

    monkeypatch.setattr(grouped, "delete_same", noted)
    for netns in ("", "blue"):
        session.create_many(pairs(netns, addresses=["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]))
        session.delete_many([(f"a{n}", netns) for n in range(4)])
        assert len(removed) == 8
        removed.clear()
    assert host_state() == before


def stopped(patch: pytest.MonkeyPatch, fail: Any) -> None:
    """Sends what comes before the deletion, and then fails instead of deleting."""
    run = Namespaces.run

    def failing(self: Namespaces, place: OpenNetns, exchange: Any) -> None:
        deletes = int.from_bytes(exchange._requests[-1][4:6], "little") == 17
        exchange._requests = exchange._requests[:-1] if deletes else exchange._requests
        run(self, place, exchange)
        if deletes:
            fail(exchange)

    patch.setattr(Namespaces, "run", failing)


def _interrupt(_: Any) -> None:
    raise KeyboardInterrupt


def _refuse(exchange: Any) -> None:
    exchange.outcomes[-1] = Outcome(1, "because")


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize(("fail", "error"), [(_interrupt, KeyboardInterrupt), (_refuse, BatchError)])
def test_addresses_are_as_before_if_their_links_are_not_deleted(
    session: Session,
    others: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    netns: str,
    fail: Any,
    error: type[BaseException],
) -> None:
    session.create_many(pairs(netns, addresses=["10.0.0.1/24", "10.0.0.2/24"], address_proto=7))
    ip("address", "add", "10.0.0.9/24", "dev", "a1", "label", "a1:x", "broadcast", "+", netns=netns)
    ip("address", "add", "10.7.0.9", "peer", "10.7.0.1/24", "dev", "a2", netns=netns)
    before = host_state()
    with monkeypatch.context() as patch, pytest.raises(error):
        stopped(patch, fail)
        session.delete_many([(f"a{n}", netns) for n in range(4)])
    assert host_state() == before


@pytest.mark.parametrize("netns", ["", "blue"])
def test_pairs_that_were_created_together_are_deleted_without_marks(
    session: Session, others: dict[str, Any], marks: list[int], netns: str
) -> None:
    created = session.create_many(pairs(netns), together=True)
    (group,) = {pair.a.group for pair in created}
    assert {group_of(f"a{n}", netns) for n in range(4)} == {group}
    assert group >= PRIVATE
    assert {group_of(f"b{n}", "red") for n in range(4)} == {0}
    session.delete_many([(f"b{n}", "red") for n in range(4)] if not netns else [(f"a{n}", netns) for n in range(4)])
    assert marks == []
    assert host_state() == others


def test_each_call_has_a_group_of_its_own_and_a_given_group_counts(session: Session, red: str) -> None:
    one = session.create_many(pairs("", 2, group=5), together=True)
    other = session.create_many([Veth(End("x"), End("y", "red"))], together=True)
    third = session.create_many([Veth(End("z"), End("u", "red"))], together=True)
    assert [pair.a.group for pair in one] == [5, 5]
    assert other[0].a.group != third[0].a.group
    with pytest.raises(InvalidValue):
        session.create_many([], together="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_foreign_link_that_has_got_into_the_group_is_not_deleted(
    session: Session, red: str, marks: list[int], kind: str
) -> None:
    created = session.create_many(pairs(""), together=True)
    ip("link", "add", "foreign", "type", kind)
    rtnl = RtnlSocket()
    try:  # the ip program refuses such a number
        (outcome,) = rtnl.exchange([set_group(seen("foreign")["ifindex"], created[0].a.group)])
    finally:
        rtnl.close()
    assert not outcome.errno
    session.delete_many([(f"a{n}", "") for n in range(4)])
    assert "foreign" in names()
    assert not names() & {f"a{n}" for n in range(4)}
    assert len(marks) == (1 if kind == "veth" else 4)


def test_links_with_a_group_that_others_may_use_are_marked(session: Session, red: str, marks: list[int]) -> None:
    session.create_many(pairs("", group=7))
    session.delete_many([(f"a{n}", "") for n in range(4)])
    assert len(marks) == 4


@pytest.mark.parametrize(("deleted", "marked"), [(3, 1), (2, 2), (1, 0)])
def test_of_a_part_of_a_group_the_smaller_part_is_marked_and_the_rest_stays(
    session: Session, red: str, marks: list[int], deleted: int, marked: int
) -> None:
    created = session.create_many(pairs("", addresses=["10.0.0.1/24"]), together=True)
    session.delete_many([(f"a{n}", "") for n in range(deleted)])
    assert len(marks) == marked
    rest = [f"a{n}" for n in range(deleted, 4)]
    assert names() == set(rest)
    assert {tuple(addresses(name)) for name in rest} == {("10.0.0.1/24",)}
    # What stays can still be deleted together.
    (group,) = {group_of(name) for name in rest}
    assert (group != created[0].a.group) == (deleted == 3)
    assert group >= PRIVATE
    marks.clear()
    session.delete_many([(name, "") for name in rest])
    assert names() == set()
    assert marks == []


@pytest.mark.parametrize(("fail", "error"), [(_interrupt, KeyboardInterrupt), (_refuse, BatchError)])
def test_a_part_that_is_not_deleted_leaves_all_in_their_group(
    session: Session, red: str, monkeypatch: pytest.MonkeyPatch, fail: Any, error: type[BaseException]
) -> None:
    session.create_many(pairs("", addresses=["10.0.0.1/24"]), together=True)
    before = host_state()
    with monkeypatch.context() as patch, pytest.raises(error):
        stopped(patch, fail)
        session.delete_many([(f"a{n}", "") for n in range(3)])
    assert host_state() == before


def test_if_the_others_cannot_be_marked_the_links_themselves_are(
    session: Session, red: str, monkeypatch: pytest.MonkeyPatch, marks: list[int]
) -> None:
    session.create_many(pairs(""), together=True)
    regrouped = grouped.GroupDeletion._regrouped
    monkeypatch.setattr(
        grouped.GroupDeletion, "_regrouped", lambda self, rest, group: regrouped(self, rest, group) and False
    )
    session.delete_many([(f"a{n}", "") for n in range(3)])
    assert names() == {"a3"}


def test_links_are_marked_if_no_dump_is_whole(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch, marks: list[int]
) -> None:
    session.create_many(pairs("", addresses=["10.0.0.1/24"]), together=True)
    dump = Namespaces.dump

    def torn(self: Namespaces, place: OpenNetns, request: bytes, parse: Any, attempts: int = 1) -> Outcome:
        return dump(self, place, request, parse, attempts)._replace(errno=11)

    with monkeypatch.context() as patch:
        patch.setattr(Namespaces, "dump", torn)
        session.delete_many([(f"a{n}", "") for n in range(4)])
    assert len(marks) == 4
    assert host_state() == others


def test_a_rollback_deletes_what_was_created_together(session: Session, others: dict[str, Any]) -> None:
    with pytest.raises(LinkExists):
        session.create_many([*pairs(""), Veth(End("o1"), End("x"))], together=True)
    assert host_state() == others
