"""Deleting while others delete, rename and replace links, with refusals of the kernel, and with interruptions."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.live.answers import refuse_all, replace_with_same_number
from tests.witness import host_state, ip, names, peer_of, poll, seen
from vethlib import (
    BatchError,
    End,
    Link,
    LinkNotFound,
    NetlinkError,
    Netns,
    NetnsNotFound,
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
def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> Iterator[None]:
    """Do something between a deletion's look and the deletion itself."""
    find_all = delete.Deletion._find_all

    def looked(self: delete.Deletion) -> Any:
        found = find_all(self)
        action()
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
        with meanwhile(monkeypatch, partial(ip, "link", "del", "dev", "a0", netns=netns)):
            session.delete_many([(f"a{n}", netns) for n in range(count)], missing_ok=missing_ok)
        assert host_state() == others


def test_a_namespace_that_vanishes_between_look_and_deletion_is_as_wanted(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Netns.create("gone").close()
    session.create_many(Veth(End(f"a{n}", "gone"), End(f"b{n}", "red")) for n in range(3))
    with meanwhile(monkeypatch, partial(ip, "netns", "del", "gone")):
        session.delete_many([(f"a{n}", "gone") for n in range(3)], missing_ok=False)
    assert poll(lambda: host_state() == others)


@pytest.fixture(params=["kept open", "opened again"])
def is_kept_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a namespace stays open from the look to the deletion, or there are too many."""
    is_kept = bool(request.param == "kept open")
    if not is_kept:
        monkeypatch.setattr(delete, "_KEPT_OPEN", 0)
    return is_kept


@contextmanager
def lost_unless(is_kept_open: bool, *items: object) -> Iterator[None]:
    """The namespace of these items is not found if it was not kept open."""
    if is_kept_open:
        yield
        return
    with pytest.raises(BatchError) as caught:
        yield
    assert [error.item for error in caught.value.exceptions] == list(items)
    assert {type(error) for error in caught.value.exceptions} == {NetnsNotFound}


@pytest.mark.parametrize("missing_ok", [True, False])
def test_a_namespace_that_was_replaced_between_look_and_deletion_is_left_alone(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch, is_kept_open: bool, missing_ok: bool
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
        items = [(f"a{n}", "gone") for n in range(3)]
        with lost_unless(is_kept_open, *items):
            session.delete_many(items, missing_ok=missing_ok)
    assert names("gone") == {f"{side}{n}" for side in "ab" for n in range(3)}


@pytest.mark.needs_kernel("5.14")
@pytest.mark.parametrize("count", [1, 3])
def test_a_namespace_that_got_the_number_of_the_one_that_was_looked_at_is_left_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch, count: int, is_kept_open: bool
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
    items = [(f"a{n}", "gone") for n in range(count)]
    with lost_unless(is_kept_open, *items):
        session.delete_many(items, missing_ok=False)
    assert names("gone") == {f"{side}{n}" for side in "ab" for n in range(count)}


# --- links of others in the place of those that were looked at


def in_the_place_of(name: str, netns: str, peer_netns: str) -> None:
    """Delete a link; others create a veth with its ifindex and with the ifindex that its peer had."""
    link = seen(name, netns)
    index, peer = link["ifindex"], peer_of(link, netns)[0] if peer_netns != netns else 99
    ip("link", "del", "dev", name, netns=netns)
    theirs = ["name", "theirs", "index", str(index), "type", "veth"]
    ip("link", "add", *theirs, "peer", "name", "theirs2", "index", str(peer), "netns", peer_netns, netns=netns)


@pytest.mark.parametrize("peer_netns", ["green", "blue"])
@pytest.mark.parametrize("missing_ok", [True, False])
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_veth_of_others_in_the_place_of_one_that_was_looked_at_stays(
    session: Session,
    make_netns: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    asks: bool,
    missing_ok: bool,
    peer_netns: str,
) -> None:
    make_netns("blue", "red", "green")
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(count))
    asked: list[str] = []

    def is_ours(_item: object, link: Link, _birth: object) -> bool:
        asked.append(link.name)
        return True

    with meanwhile(monkeypatch, lambda: in_the_place_of("a0", "blue", peer_netns)):
        only_if = is_ours if asks else None
        session.delete_many([(f"a{n}", "blue") for n in range(count)], missing_ok=missing_ok, only_if=only_if)
    assert (names("blue") & {"theirs"}, names("red"), names(peer_netns) & {"theirs2"}) == (
        {"theirs"},
        set(),
        {"theirs2"},
    )
    assert names("blue") <= {"theirs", "theirs2"}
    assert "theirs" not in asked


def test_what_others_have_changed_about_a_link_meanwhile_is_no_reason_to_leave_it(
    session: Session, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_netns("blue", "red", "green")
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(2))

    def change() -> None:
        ip("link", "set", "dev", "a0", "address", "02:00:00:00:00:01", netns="blue")
        ip("link", "set", "dev", "b1", "netns", "green", netns="red")

    with meanwhile(monkeypatch, change):
        session.delete_many([("a0", "blue"), ("a1", "blue")])
    assert names("blue") == names("red") == names("green") == set()


@pytest.mark.parametrize("missing_ok", [True, False])
def test_the_caller_is_asked_about_a_link_as_it_is_just_before_the_deletion(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, missing_ok: bool
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(2))
    with meanwhile(monkeypatch, lambda: ip("link", "set", "dev", "a0", "alias", "theirs", netns="blue")):
        items = [("a0", "blue"), ("a1", "blue")]
        failed: Sequence[BaseException] = ()
        try:
            session.delete_many(items, missing_ok=missing_ok, only_if=lambda _item, link, _birth: not link.alias)
        except BatchError as batch:
            failed = batch.exceptions
    assert (names("blue"), names("red")) == ({"a0"}, {"b0"})
    assert [(type(error), error.item) for error in failed if isinstance(error, LinkNotFound)] == (
        [] if missing_ok else [(LinkNotFound, items[0])]
    )


# --- references that lead elsewhere meanwhile


def end(pid: int) -> None:
    """Kill a process, and leave it as a zombie, for the fixture that has started it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("missing_ok", [True, False])
@pytest.mark.parametrize("kind", ["process", "name", "Netns"])
def test_links_are_deleted_although_their_reference_has_ended(
    session: Session,
    blue: str,
    red: str,
    spawn: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
    is_kept_open: bool,
    kind: str,
    missing_ok: bool,
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(3))
    pid = spawn("blue")
    with Netns.open("blue") as kept, Netns.open("blue") as given:
        refs: dict[str, tuple[NetnsRef, Callable[[], object]]] = {
            "process": (f"pid:{pid}", partial(end, pid)),
            "name": ("blue", lambda: ns.remove("blue")),
            "Netns": (given, given.close),
        }
        ref, lose = refs[kind]
        items: list[tuple[str, NetnsRef]] = [("a0", ref), ("a1", ref)]
        with meanwhile(monkeypatch, lose), lost_unless(is_kept_open, *items):
            session.delete_many(items, missing_ok=missing_ok)
        assert names(kept) == ({"a2"} if is_kept_open else {"a0", "a1", "a2"})


def test_links_are_deleted_if_any_of_their_references_still_leads_there(
    session: Session,
    blue: str,
    red: str,
    spawn: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
    is_kept_open: bool,
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(2))
    pid = spawn("blue")
    with meanwhile(monkeypatch, partial(end, pid)):
        session.delete_many([("a0", f"pid:{pid}"), ("a1", "blue")], missing_ok=False)
    assert names("blue") == names("red") == set()


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
        exchange.outcomes[-1] = Outcome(1, "because")

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
        refuse_all(patch, Outcome(105, "lost"))
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
    monkeypatch.setattr(delete, "_KEPT_OPEN", 0)
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
