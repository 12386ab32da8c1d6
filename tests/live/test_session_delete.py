"""Deleting links: one, or many for the price of one, and never a link that was not named."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live.threads import in_threads
from tests.refusing import raises
from tests.witness import RTM_DELLINK, host_state, ip
from vethlib import (
    BatchError,
    End,
    InvalidValue,
    LinkNotFound,
    Netns,
    NetnsNotFound,
    NotSupported,
    Session,
    Veth,
)
from vethlib._nl.sock import RtnlSocket
from vethlib.links import NetnsRef, check_group
from vethlib.session.write import grouped


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
    with pytest.raises(BatchError) as caught:
        session.delete_many([pair.a, ("vb", "blue", pair.b.index)], missing_ok=False)
    assert [error.item for error in caught.value.exceptions] == [pair.a, ("vb", "blue", pair.b.index)]
    assert host_state() == between
    session.delete_many([session.lookup("va"), ("vb", "blue", session.lookup("vb", "blue").index)], missing_ok=False)
    assert host_state() == others


def test_nothing_is_deleted_for_nothing(session: Session, others: dict[str, Any], unregistrations: list[int]) -> None:
    session.delete_many([])
    assert (host_state(), unregistrations) == (others, [])


def test_what_is_missing_may_be_an_error(session: Session, others: dict[str, Any]) -> None:
    with raises(LinkNotFound, netns="blue") as one:
        session.delete("nope", "blue")
    assert one.value.item == ("nope", "blue")
    with raises(NetnsNotFound, netns="netns:nowhere"):
        session.delete("nope", "nowhere")
    session.delete("nope", "blue", missing_ok=True)
    session.delete("nope", "nowhere", missing_ok=True)
    session.create(Veth(End("va"), End("vb")))
    items: list[tuple[str, NetnsRef]] = [("nope", ""), ("x", "nowhere"), ("va", ""), ("y", "nowhere"), ("z", "red")]
    session.delete_many(items)
    assert host_state() == others
    session.create(Veth(End("va"), End("vb")))
    with pytest.raises(BatchError) as caught:
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
    with raises(NotSupported, errno=errno.EOPNOTSUPP, request=f"delete '{name}'"):
        session.delete(name, missing_ok=missing_ok)
    session.create(Veth(End("va"), End("vb")))
    with pytest.raises(BatchError) as caught:
        session.delete_many([(name, ""), ("va", "")], missing_ok=missing_ok)
    assert [error.item for error in caught.value.exceptions] == [(name, "")]
    assert host_state() == others


@pytest.mark.parametrize(("name", "netns"), [("", ""), ("x" * 128, ""), ("a\0b", "blue")])
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


def test_the_group_is_one_that_no_link_can_be_given() -> None:
    for _ in range(100):
        group = grouped.random_group()
        assert 1 << 31 <= group < 1 << 32
        with pytest.raises(InvalidValue):
            check_group(group)


def test_threads_may_delete_in_one_namespace_at_once(session: Session, others: dict[str, Any]) -> None:
    session.create_many(Veth(End(f"a{n}", "blue"), End(f"b{n}", "red")) for n in range(80))
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        # Overlapping: each end is named by two threads, once as one end and once as the other.
        session.delete_many([(f"a{n}", "blue") for n in range(number * 20, number * 20 + 20)])
        session.delete_many([(f"b{n}", "red") for n in range(80) if n % 4 == number])

    in_threads(4, work)
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


def test_a_bare_name_is_not_taken_apart_into_a_link_and_a_namespace(session: Session, home: Netns) -> None:
    with Netns.create("b"):
        session.create(Veth(End("a", netns="b"), End("peer")))
        for call in (session.delete_many, session.lookup_many, session.stats_many):
            with raises(InvalidValue, field="items", value="ab"):
                call(["ab"])  # type: ignore[list-item]
        assert session.lookup("a", "b").name == "a"
