"""Deleting while others delete, rename and replace, and where the kernel refuses or an interruption comes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.live.answers import refuse_all, replace_with_same_number
from tests.witness import host_state, ip, names, poll, seen
from vethlib import (
    BatchError,
    End,
    Link,
    NetlinkError,
    Netns,
    NotPermitted,
    Session,
    Veth,
    ns,
)
from vethlib._nl.batch import Outcome
from vethlib._nl.sock import RtnlSocket
from vethlib.links import NetnsRef
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.write import delete


@contextmanager
def after_the_look(monkeypatch: pytest.MonkeyPatch, *command: str) -> Iterator[None]:
    """Runs an ip command between a deletion's look and the deletion itself."""
    find_all = delete.Deletion._find_all

    def looked(self: delete.Deletion) -> Any:
        found = find_all(self)
        ip(*command)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(delete.Deletion, "_find_all", looked)
        yield


@pytest.mark.parametrize("missing_ok", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_link_that_vanishes_between_look_and_deletion_is_as_wanted(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch, missing_ok: bool, count: int
) -> None:
    for netns in ("", "blue"):
        session.create_many(Veth(End(f"a{n}", netns), End(f"b{n}", "red")) for n in range(count))
        with after_the_look(monkeypatch, *(["-n", netns] if netns else []), "link", "del", "dev", "a0"):
            session.delete_many([(f"a{n}", netns) for n in range(count)], missing_ok=missing_ok)
        assert host_state() == others


def test_a_namespace_that_vanishes_between_look_and_deletion_is_as_wanted(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Netns.create("gone").close()
    session.create_many(Veth(End(f"a{n}", "gone"), End(f"b{n}", "red")) for n in range(3))
    with after_the_look(monkeypatch, "netns", "del", "gone"):
        session.delete_many([(f"a{n}", "gone") for n in range(3)], missing_ok=False)
    assert poll(lambda: host_state() == others)


def test_a_namespace_that_was_replaced_between_look_and_deletion_is_left_alone(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Netns.create("gone").close()
    session.create_many(Veth(End(f"a{n}", "gone"), End(f"b{n}", "gone")) for n in range(3))
    find_all = delete.Deletion._find_all

    def replaced(self: delete.Deletion) -> Any:
        found = find_all(self)
        with ns.Netns.open("gone"):
            ip("netns", "del", "gone")
            Netns.create("gone").close()
        session.create_many(Veth(End(f"a{n}", "gone"), End(f"b{n}", "gone")) for n in range(3))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(delete.Deletion, "_find_all", replaced)
        session.delete_many([(f"a{n}", "gone") for n in range(3)], missing_ok=False)
    assert names("gone") == {f"{side}{n}" for side in "ab" for n in range(3)}


@pytest.mark.needs_kernel("5.14")
@pytest.mark.parametrize("count", [1, 3])
def test_a_namespace_that_got_the_number_of_the_one_that_was_looked_at_is_left_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    Netns.create("gone").close()
    wanted = [Veth(End(f"a{n}", "gone"), End(f"b{n}", "gone")) for n in range(count)]
    session.create_many(wanted)

    find_all = delete.Deletion._find_all

    def replaced(self: delete.Deletion) -> Any:
        found = find_all(self)
        replace_with_same_number("gone", monkeypatch)
        session.create_many(wanted)
        return found

    monkeypatch.setattr(delete.Deletion, "_find_all", replaced)
    session.delete_many([(f"a{n}", "gone") for n in range(count)], missing_ok=False)
    assert names("gone") == {f"{side}{n}" for side in "ab" for n in range(count)}


def scripted(session: Session, netns: str, monkeypatch: pytest.MonkeyPatch, fail: Any) -> None:
    """Sends the marks of a deletion, and then fails instead of deleting."""
    run = Namespaces.run

    def interrupted(self: Namespaces, place: OpenNetns, exchange: Any) -> None:
        exchange._requests = exchange._requests[:-1]
        run(self, place, exchange)
        groups = {link["group"] for link in ip("link", netns=netns) if link["ifname"].startswith("a")}
        assert len(groups) == 1
        assert int(groups.pop()) & 0xFFFF_FFFF >= 1 << 31
        fail(exchange)

    monkeypatch.setattr(Namespaces, "run", interrupted)


@pytest.mark.parametrize("netns", ["", "blue"])
def test_an_interruption_between_marking_and_deleting_puts_the_groups_back(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch, netns: str
) -> None:
    session.create_many(Veth(End(f"a{n}", netns, group=n), End(f"b{n}", "red")) for n in range(3))
    before = host_state()

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        scripted(session, netns, patch, interrupt)
        session.delete_many([(f"a{n}", netns) for n in range(3)])
    assert host_state() == before


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_deletion_that_is_refused_puts_the_groups_back_and_tells_each_item(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch, netns: str
) -> None:
    session.create_many(Veth(End(f"a{n}", netns, group=n), End(f"b{n}", "red")) for n in range(3))
    before = host_state()

    def refuse(exchange: Any) -> None:
        exchange.outcomes[-1] = Outcome(1, "because", ())

    with monkeypatch.context() as patch, pytest.raises(BatchError) as caught:
        scripted(session, netns, patch, refuse)
        session.delete_many([*((f"a{n}", netns) for n in range(3)), ("nope", netns)])
    assert [error.item for error in caught.value.exceptions] == [(f"a{n}", netns) for n in range(3)]
    first = caught.value.exceptions[0]
    assert isinstance(first, NotPermitted)
    assert (first.errno, first.extack) == (errno.EPERM, "because")
    assert host_state() == before


def test_a_look_that_fails_is_an_error_of_each_item(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(BatchError) as caught:
        refuse_all(patch, Outcome(105, "lost", ()))
        session.delete_many([("o1", ""), ("o2", "blue"), *((f"n{n}", "red") for n in range(20))])
    assert len(caught.value.exceptions) == 22
    assert {type(error) for error in caught.value.exceptions} == {NetlinkError}
    assert host_state() == others


def test_a_namespace_that_cannot_be_entered_fails_its_items_alone(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the look, and for the deletion."""
    veths = [Veth(End(f"{netns}{n}", netns), End(f"x{n}", netns)) for netns in ("blue", "red") for n in range(2)]
    items: list[tuple[str, NetnsRef]] = [(veth.a.name, veth.a.netns) for veth in veths]
    for allowed in (0, 1):
        session.create_many(veths)
        with monkeypatch.context() as patch, pytest.raises(BatchError) as caught:
            socket, looks = Namespaces.socket, [allowed]

            def refused(
                self: Namespaces, place: OpenNetns, socket: Any = socket, looks: list[int] = looks
            ) -> RtnlSocket:
                if place.ref == "blue" and place.socket is None:
                    looks[0] -= 1
                    if looks[0] < 0:
                        raise NetlinkError("no", netns="blue")
                got: RtnlSocket = socket(self, place)
                return got

            patch.setattr(Namespaces, "socket", refused)
            patch.setattr(Namespaces, "open_sockets", lambda *_: None)  # not all at once
            session.delete_many(items)
        assert [error.item for error in caught.value.exceptions] == items[:2]
        assert (names("blue") - {"br", "vx", "o2", "o4"}, names("red")) == (
            {"blue0", "blue1", "x0", "x1"},
            {"br", "vx", "o3"},
        )
        session.delete_many(items)
    assert host_state() == others


def test_a_namespace_that_cannot_be_opened_again_is_an_error(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(2))
    before = host_state()
    find_all = delete.Deletion._find_all

    def refuse(self: Namespaces, ref: NetnsRef) -> OpenNetns:
        raise NetlinkError("out of file descriptors")

    def looked(self: delete.Deletion) -> Any:
        found = find_all(self)
        monkeypatch.setattr(Namespaces, "__call__", refuse)
        return found

    monkeypatch.setattr(delete.Deletion, "_find_all", looked)
    with pytest.raises(BatchError) as caught:
        session.delete_many([("a0", "blue"), ("a1", "blue")])
    assert [str(error) for error in caught.value.exceptions] == ["out of file descriptors"] * 2
    assert host_state() == before


def test_a_link_that_was_looked_up_is_a_link(session: Session, others: dict[str, Any]) -> None:
    link = session.lookup("o1")
    assert isinstance(link, Link)
    assert link.index == seen("o1")["ifindex"]


@pytest.mark.parametrize("count", [1, 20])
def test_what_was_renamed_meanwhile_can_be_deleted_by_its_index(session: Session, blue: str, count: int) -> None:
    veths = [Veth(End(f"a{number}", "blue", up=False), End(f"b{number}", "blue", up=False)) for number in range(count)]
    seen = [(pair.a.name, "blue", pair.a.index) for pair in session.create_many(veths)]
    for name, netns, _ in seen:
        ip("link", "set", "dev", name, "name", f"x{name}", netns=netns)
    session.delete_many(seen)
    assert len(names("blue")) == 2 * count
    session.delete_many(seen, renamed_ok=True)
    assert names("blue") == set()
    session.delete_many(seen, renamed_ok=True)
