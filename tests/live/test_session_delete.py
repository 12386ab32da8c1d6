"""Deleting links, one or many for the price of one, and never one that was not named."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_session_create_many import Alarm
from tests.witness import RTM_DELLINK, host_state, ip, names, poll, seen
from vethlib import (
    BatchError,
    End,
    InvalidValue,
    Link,
    LinkNotFound,
    NetlinkError,
    Netns,
    NetnsNotFound,
    NotSupported,
    Session,
    Veth,
    ns,
)
from vethlib._nl.batch import Outcome
from vethlib._nl.sock import RtnlSocket
from vethlib.links import NetnsRef
from vethlib.session import delete
from vethlib.session.places import Place, Places

Sent = list[tuple[int, int]]


@pytest.fixture
def unregistrations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every RTM_DELLINK that is sent."""
    sent: list[int] = []
    send = RtnlSocket._send

    def recorded(self: RtnlSocket, data: bytes | bytearray) -> None:
        offset = 0
        while offset < len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == RTM_DELLINK:
                sent.append(kind)
            offset += (length + 3) & ~3
        send(self, data)

    monkeypatch.setattr(RtnlSocket, "_send", recorded)
    return sent


@pytest.fixture
def others(session: Session, blue: str, red: str) -> dict[str, list[dict[str, Any]]]:
    """Links of all sorts that nobody names, some of them in groups; returns the state of the host with them alone."""
    session.create(Veth(End("o1", group=7), End("o2", "blue", group=7)))
    session.create(Veth(End("o3", "red", group=1 << 30), End("o4", "blue", group=(1 << 31) - 1)))
    for netns in ("", "blue", "red"):
        ip("link", "add", "name", "br", "group", "7", "type", "bridge", netns=netns)
        ip("link", "add", "name", "vx", "type", "vxlan", "id", "3", "dstport", "4789", netns=netns)
    ip("link", "add", "link", "o1", "name", "mv", "type", "macvlan")
    return host_state()


@pytest.mark.parametrize("netns", ["", "blue", "netns:blue"])
@pytest.mark.parametrize("name", ["va", "vb"])
def test_one_is_deleted_by_either_end(
    session: Session, others: dict[str, Any], unregistrations: list[int], name: str, netns: str
) -> None:
    place = {"va": "", "vb": netns}
    session.create(Veth(End("va"), End("vb", netns)))
    session.delete(name, place[name])
    assert host_state() == others
    assert len(unregistrations) == 1


def test_many_at_home_go_at_once(session: Session, others: dict[str, Any], unregistrations: list[int]) -> None:
    session.create_many(Veth(End(f"a{n}", group=n), End(f"b{n}", "blue" if n % 2 else "")) for n in range(100))
    told: list[tuple[int, int]] = []
    session.delete_many([(f"a{n}", "") for n in range(100)], progress=lambda *now: told.append(now))
    assert host_state() == others
    assert len(unregistrations) == 1
    assert told == [(100, 100), (100, 100)]


def test_many_whose_other_ends_are_at_home_go_at_once(
    session: Session, others: dict[str, Any], unregistrations: list[int]
) -> None:
    session.create_many(Veth(End(f"a{n}"), End(f"b{n}", "blue" if n % 2 else "red")) for n in range(40))
    session.delete_many([(f"b{n}", "blue" if n % 2 else "red") for n in range(40)], missing_ok=False)
    assert host_state() == others
    assert len(unregistrations) == 1


def test_a_pair_named_by_both_its_ends_is_one(
    session: Session, others: dict[str, Any], unregistrations: list[int]
) -> None:
    places = [("", ""), ("", "blue"), ("blue", "blue"), ("blue", "red")]
    session.create_many(Veth(End(f"a{n}", a), End(f"b{n}", b)) for n, (a, b) in enumerate(places))
    ends: list[tuple[str, NetnsRef]] = []
    for number, (a, b) in enumerate(places):
        ends += [(f"a{number}", a), (f"b{number}", b)]
    session.delete_many(ends, missing_ok=False)
    assert host_state() == others
    assert len(unregistrations) <= 3  # home, blue, red


def test_a_ring_of_namespaces_goes(session: Session, others: dict[str, Any], unregistrations: list[int]) -> None:
    ring = [f"ring{n}" for n in range(70)]  # more than a slab
    for name in ring:
        Netns.create(name).close()
    before = host_state()
    session.create_many(Veth(End("right", ring[n]), End("left", ring[(n + 1) % 70])) for n in range(70))
    told: list[tuple[int, int]] = []
    session.delete_many([("right", name) for name in ring], missing_ok=False, progress=lambda *now: told.append(now))
    assert host_state() == before
    assert len(unregistrations) == 70
    assert told == [(0, 70), (70, 70)]


def test_many_in_one_foreign_namespace_go_at_once(
    session: Session, others: dict[str, Any], unregistrations: list[int]
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(20))
    with Netns.open("blue") as blue:
        refs: list[NetnsRef] = ["blue", "netns:blue", "path:/run/netns/blue", f"fd:{blue.fd}", blue]
        session.delete_many([(f"a{n}", refs[n % 5]) for n in range(20)], missing_ok=False)
    assert host_state() == others
    assert len(unregistrations) == 1


def test_the_same_end_named_twice_is_deleted_once(session: Session, others: dict[str, Any]) -> None:
    session.create(Veth(End("va"), End("vb", "blue")))
    session.create(Veth(End("vc", "blue"), End("vd", "red")))
    session.delete_many([("va", ""), ("va", None), ("vb", "blue"), ("vc", "blue"), ("vc", "netns:blue")])
    assert host_state() == others


def test_an_alternative_name_will_do(session: Session, others: dict[str, Any]) -> None:
    session.create_many(Veth(End(f"a{n}"), End(f"b{n}")) for n in range(20))
    for number in range(20):
        ip("link", "property", "add", "dev", f"a{number}", "altname", f"other{number}")
    session.delete("other0")
    session.delete_many([(f"other{n}", "") for n in range(1, 20)], missing_ok=False)
    assert host_state() == others


def test_a_link_that_was_seen_is_deleted_only_if_it_is_still_that_one(session: Session, others: dict[str, Any]) -> None:
    pair = session.create(Veth(End("va"), End("vb", "blue")))
    session.delete("va")
    session.create(Veth(End("va"), End("vb", "blue")))
    between = host_state()
    session.delete_many([pair.a, pair.b, ("va", "", pair.a.index)])
    with pytest.raises(BatchError, match="2 of 2 links") as caught:
        session.delete_many([pair.a, ("vb", "blue", pair.b.index)], missing_ok=False)
    assert [error.item for error in caught.value.exceptions] == [pair.a, ("vb", "blue", pair.b.index)]
    assert host_state() == between
    session.delete_many([session.lookup("va"), ("vb", "blue", session.lookup("vb", "blue").index)], missing_ok=False)
    assert host_state() == others


def test_nothing_is_deleted_for_nothing(session: Session, others: dict[str, Any], unregistrations: list[int]) -> None:
    session.delete_many([])
    assert (host_state(), unregistrations) == (others, [])


def test_what_is_missing_may_be_an_error(session: Session, others: dict[str, Any]) -> None:
    with pytest.raises(LinkNotFound, match="delete 'nope' in netns:blue: there is no link 'nope' in netns:blue") as one:
        session.delete("nope", "blue")
    assert one.value.item == ("nope", "blue")
    with pytest.raises(NetnsNotFound, match="/run/netns/nowhere does not exist"):
        session.delete("nope", "nowhere")
    session.delete("nope", "blue", missing_ok=True)
    session.delete("nope", "nowhere", missing_ok=True)
    session.create(Veth(End("va"), End("vb")))
    items: list[tuple[str, NetnsRef]] = [("nope", ""), ("x", "nowhere"), ("va", ""), ("y", "nowhere"), ("z", "red")]
    session.delete_many(items)
    assert host_state() == others
    session.create(Veth(End("va"), End("vb")))
    with pytest.raises(BatchError, match="4 of 5 links could not be deleted") as caught:
        session.delete_many(items, missing_ok=False)
    assert [error.item for error in caught.value.exceptions] == [item for item in items if item[0] != "va"]
    assert [type(error) for error in caught.value.exceptions] == [
        LinkNotFound,
        NetnsNotFound,
        NetnsNotFound,
        LinkNotFound,
    ]
    assert host_state() == others


@pytest.mark.parametrize(
    ("name", "what"),
    [("br", "bridge"), ("mv", "macvlan"), ("vx", "vxlan"), ("lo", "physical or loopback")],
)
@pytest.mark.parametrize("missing_ok", [False, True])
def test_what_is_no_veth_is_refused(
    session: Session, others: dict[str, Any], name: str, what: str, missing_ok: bool
) -> None:
    with pytest.raises(NotSupported, match=f"delete '{name}': it is a {what} link, and only veth links are deleted"):
        session.delete(name, missing_ok=missing_ok)
    session.create(Veth(End("va"), End("vb")))
    with pytest.raises(BatchError) as caught:
        session.delete_many([(name, ""), ("va", "")], missing_ok=missing_ok)
    assert [error.item for error in caught.value.exceptions] == [(name, "")]
    assert host_state() == others


@pytest.mark.parametrize(("name", "netns"), [("", ""), ("x" * 16, ""), ("a/b", "blue"), ("a b", "")])
def test_a_name_that_no_link_can_have_is_refused(
    session: Session, others: dict[str, Any], name: str, netns: str
) -> None:
    with pytest.raises(InvalidValue):
        session.delete(name, netns)
    with pytest.raises(InvalidValue):
        session.delete_many([("o1", ""), (name, netns)])
    assert host_state() == others


def test_a_reference_that_is_none_is_an_error_of_its_item(session: Session, others: dict[str, Any]) -> None:
    with pytest.raises(BatchError) as caught:
        session.delete_many([("x", "color:blue"), ("y", "color:blue")])
    assert [(type(error), error.item) for error in caught.value.exceptions] == [
        (InvalidValue, ("x", "color:blue")),
        (InvalidValue, ("y", "color:blue")),
    ]
    assert host_state() == others


def test_the_group_is_never_one_in_use(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(3))
    (used,) = [int(link["group"]) for link in others["blue"] if link["ifname"] == "o4"]
    offers = iter([used, 7, used, (1 << 30) + 1])
    monkeypatch.setattr(delete._random, "randrange", lambda *_: next(offers))
    session.delete_many([(f"a{n}", "blue") for n in range(3)])
    assert host_state() == others
    assert next(offers, None) is None


def test_the_group_is_chosen_from_numbers_nobody_uses_by_chance() -> None:
    assert all(1 << 30 <= delete.unused_group([]) < 1 << 31 for _ in range(100))


def test_threads_may_delete_in_one_namespace_at_once(session: Session, others: dict[str, Any]) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(80))
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            start.wait()
            # Overlapping: each end is named by two threads, once as one end and once as the other.
            session.delete_many([(f"a{n}", "blue") for n in range(number * 20, number * 20 + 20)])
            session.delete_many([(f"b{n}", "red") for n in range(80) if n % 4 == number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert host_state() == others


def test_processes_may_delete_in_one_namespace_at_once(session: Session, others: dict[str, Any]) -> None:
    session.create_many(Veth(End(f"a{n}"), End(f"b{n}", "red")) for n in range(60))
    code = """
import sys
from vethlib import Session
with Session() as session:
    print(flush=True)
    sys.stdin.read()
    session.delete_many([(f"{sys.argv[1]}{n}", sys.argv[2]) for n in range(int(sys.argv[3]), 60)])
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for arguments in (("a", "", "0"), ("b", "red", "10"))
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    for process in started:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 0
    assert host_state() == others


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


def scripted(session: Session, netns: str, monkeypatch: pytest.MonkeyPatch, fail: Any) -> None:
    """Sends the marks of a deletion, and then fails instead of deleting."""
    run = Places.run

    def interrupted(self: Places, place: Place, exchange: Any) -> None:
        exchange._requests = exchange._requests[:-1]
        run(self, place, exchange)
        groups = {link["group"] for link in ip("link", netns=netns) if link["ifname"].startswith("a")}
        assert len(groups) == 1
        assert int(groups.pop()) >= 1 << 30
        fail(exchange)

    monkeypatch.setattr(Places, "run", interrupted)


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
    assert "Operation not permitted (EPERM): because" in str(caught.value.exceptions[0])
    assert host_state() == before


def test_a_look_that_fails_is_an_error_of_each_item(
    session: Session, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: Places, place: Place, requests: Any) -> list[Outcome]:
        return [Outcome(105, "lost", ()) for _ in requests]

    with monkeypatch.context() as patch, pytest.raises(BatchError) as caught:
        patch.setattr(Places, "exchange", lost)
        session.delete_many([("o1", ""), ("o2", "blue"), *((f"n{n}", "red") for n in range(20))])
    assert len(caught.value.exceptions) == 22
    assert {type(error) for error in caught.value.exceptions} == {NetlinkError}
    assert host_state() == others


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_at_any_moment_leaves_no_link_in_a_strange_group(
    session: Session, others: dict[str, Any]
) -> None:
    veths = [Veth(End(f"a{n}", "blue", group=5), End(f"b{n}", "red", group=6)) for n in range(10)]
    for turn in range(25):
        session.create_many(veths)
        try:
            with Alarm(0.0003 + 0.0002 * turn):
                session.delete_many([(f"a{n}", "blue") for n in range(10)])
        except KeyboardInterrupt:
            pass
        left = [*session.links("blue"), *session.links("red")]
        assert {link.group for link in left if link.name[0] in "ab" and link.name != "br"} <= {5, 6}
        session.delete_many([(f"a{n}", "blue") for n in range(10)])
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
            socket, looks = Places.socket, [allowed]

            def refused(self: Places, place: Place, socket: Any = socket, looks: list[int] = looks) -> RtnlSocket:
                if place.ref == "blue" and place.socket is None:
                    looks[0] -= 1
                    if looks[0] < 0:
                        raise NetlinkError("no", netns="blue")
                got: RtnlSocket = socket(self, place)
                return got

            def one_by_one(self: Places, places: Any) -> None:
                raise NetlinkError("not all at once")

            patch.setattr(Places, "socket", refused)
            patch.setattr(Places, "open_sockets", one_by_one)
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

    def refuse(self: Places, ref: NetnsRef) -> Place:
        raise NetlinkError("out of file descriptors")

    def looked(self: delete.Deletion) -> Any:
        found = find_all(self)
        monkeypatch.setattr(Places, "__call__", refuse)
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
