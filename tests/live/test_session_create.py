"""Creating one pair, in any namespaces, judged by the ip program."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.older_kernel import without_echo
from tests.live.threads import in_threads
from tests.refusing import raises
from tests.witness import (
    RTM_GETADDR,
    RTM_NEWLINK,
    Listener,
    addresses,
    decoded,
    ip,
    names,
    peer_of,
    raw_dump,
    seen,
)
from vethlib import End, InvalidValue, Link, Netns, Session, Veth, ns
from vethlib.links import NetnsRef

PLACES = [("", ""), ("", "blue"), ("blue", ""), ("blue", "red"), ("blue", "blue")]


def check(link: Link, name: str, netns: Netns | str) -> dict[str, Any]:
    """Compare the returned pair with the output of ip."""
    told = seen(name, netns)
    assert told["linkinfo"]["info_kind"] == link.kind == "veth"
    assert (link.index, link.name, link.mac, link.mtu) == (told["ifindex"], name, told["address"], told["mtu"])
    assert (link.peer_index, link.peer_netnsid) == peer_of(told, netns)
    assert link.num_queues == told["num_tx_queues"]
    assert link.alias == told.get("ifalias", "")
    assert str(link.group) == told["group"].replace("default", "0")
    assert [str(one) for one in link.addresses] == addresses(name, netns)
    assert link.up == ("UP" in told["flags"])
    return told


@pytest.mark.parametrize(("a", "b"), PLACES)
def test_a_pair_is_where_it_was_wanted_and_both_ends_are_returned(
    session: Session, blue: str, red: str, a: str, b: str
) -> None:
    pair = session.create(Veth(End("veth1", a), End("veth2", b)))
    check(pair.a, "veth1", a)
    check(pair.b, "veth2", b)
    assert (pair.a.peer_index, pair.b.peer_index) == (pair.b.index, pair.a.index)
    assert (pair.a.netns, pair.b.netns) == (a, b)
    for netns in {"", "blue", "red"} - {a, b}:
        assert names(netns) == set()


@pytest.mark.parametrize(("a", "b"), PLACES)
def test_every_field_is_as_it_was_wanted(session: Session, blue: str, red: str, a: str, b: str) -> None:
    pair = session.create(
        Veth(
            End(
                "veth1",
                a,
                mac="d2:74:8c:12:67:d2",
                mtu=1400,
                addresses=["192.168.22.1/24", "10.9.8.7/8", ipaddress.ip_interface("2001:db8::1/64")],
                num_queues=3,
                alias="left, or=so",
                group=77,
            ),
            End("veth2", b, mac="D2-74-8C-12-67-D3", mtu=9000, addresses=["2001:db8::2/127"], up=False, num_queues=1),
        )
    )
    left, right = check(pair.a, "veth1", a), check(pair.b, "veth2", b)
    assert (left["address"], left["mtu"], left["group"], left["ifalias"]) == (
        "d2:74:8c:12:67:d2",
        1400,
        "77",
        "left, or=so",
    )
    # Only a kernel for several CPUs (CONFIG_RPS) reports the other direction.
    assert (left["num_tx_queues"], left.get("num_rx_queues", 3)) == (3, 3)
    assert addresses("veth1", a) == ["192.168.22.1/24", "10.9.8.7/8", "2001:db8::1/64"]
    assert "UP" in left["flags"]
    assert (right["address"], right["mtu"], right["num_tx_queues"]) == ("d2:74:8c:12:67:d3", 9000, 1)
    assert addresses("veth2", b) == ["2001:db8::2/127"]
    assert "UP" not in right["flags"]


@pytest.mark.needs_kernel("5.18")
def test_whose_an_address_is_goes_with_it(session: Session) -> None:
    session.create(Veth(End("veth1", addresses=["10.0.0.1/24", "2001:db8::1/64"], address_proto=99), End("veth2")))
    told = [message for raw in raw_dump(RTM_GETADDR) for message in decoded(raw)]
    protos = {message.get_attr("IFA_ADDRESS"): message.get_attr("IFA_PROTO") for message in told}
    assert (protos["10.0.0.1"], protos["2001:db8::1"]) == (99, 99)
    assert {one.proto for one in session.addresses() if not one.interface.is_link_local} == {99}


def references(spawn: Callable[[str], int]) -> dict[str, NetnsRef]:
    fd = ns.open_fd("blue")
    pid = spawn("blue")
    return {
        "name": "blue",
        "netns": "netns:blue",
        "pid": f"pid:{pid}",
        "path": "path:/run/netns/blue",
        "task": f"path:/proc/{pid}/task/{pid}/ns/net",
        "fd": f"fd:{fd}",
        "Netns": Netns.open("blue"),
        "unnamed Netns": Netns.open(f"fd:{fd}"),
        "microservice": "microservice:web",
    }


def close(references: dict[str, NetnsRef]) -> None:
    for ref in references.values():
        if isinstance(ref, Netns):
            ref.close()
    os.close(int(str(references["fd"]).partition(":")[2]))


def test_every_kind_of_reference_leads_there(home: Netns, blue: str, spawn: Callable[[str], int]) -> None:
    refs = references(spawn)
    with Session(resolver=lambda label: {"web": "netns:blue"}[label]) as session:
        for number, ref in enumerate(refs.values()):
            pair = session.create(Veth(End(f"home{number}"), End(f"blue{number}", ref)))
            assert pair.b.netns == ref
            check(pair.b, f"blue{number}", "blue")
            # Outer and inner: the other way round it goes another way into the message.
            pair = session.create(Veth(End(f"both{number}", ref), End(f"ways{number}", ref)))
            check(pair.a, f"both{number}", "blue")
    close(refs)


def test_two_spellings_of_one_namespace_are_one(home: Netns, blue: str, spawn: Callable[[str], int]) -> None:
    refs = references(spawn)
    with Session(resolver=lambda label: "blue") as session:
        for number, ref in enumerate(refs.values()):
            pair = session.create(Veth(End(f"a{number}", "blue"), End(f"b{number}", ref)))
            assert (pair.a.peer_netnsid, pair.b.peer_netnsid) == (None, None)
            with raises(InvalidValue, field="name", value="same"):
                session.create(Veth(End("same", "netns:blue"), End("same", ref)))
    close(refs)
    assert "same" not in names("blue")


def test_a_spelling_of_home_is_home(session: Session, home: Netns) -> None:
    refs: list[NetnsRef] = ["", None, home, f"path:/proc/self/task/{threading.get_native_id()}/ns/net"]
    for number, ref in enumerate(refs):
        pair = session.create(Veth(End(f"a{number}", ref), End(f"b{number}")))
        assert (pair.a.peer_netnsid, pair.b.peer_netnsid) == (None, None)
        assert check(pair.a, f"a{number}", "")


def test_a_namespace_without_a_name_serves_too(session: Session) -> None:
    with Netns.anonymous() as one, Netns.anonymous() as other:
        pair = session.create(Veth(End("veth1", one), End("veth2", other)))
        check(pair.a, "veth1", one)
        check(pair.b, "veth2", other)
        pair = session.create(Veth(End("veth3"), End("veth4", other)))
        check(pair.a, "veth3", "")
        check(pair.b, "veth4", other)


def test_home_is_where_the_session_was_made_wherever_the_thread_is(session: Session, blue: str, red: str) -> None:
    with ns.entered("blue"):
        session.create(Veth(End("veth1"), End("veth2", "red")))
        assert {link.name for link in session.links()} == {"lo", "veth1"}
    assert (names(), names("blue"), names("red")) == ({"veth1"}, set(), {"veth2"})


def test_threads_may_share_a_session(session: Session, blue: str, red: str) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            a, b = PLACES[(number + turn) % len(PLACES)]
            left, right = f"l{number}x{turn}", f"r{number}x{turn}"
            pair = session.create(Veth(End(left, a, addresses=[f"10.{number}.{turn}.1/24"]), End(right, b)))
            assert session.lookup(left, a).index == pair.a.index
            assert session.lookup(right, b).peer_index == pair.a.index

    in_threads(6, work)
    assert sum(len(names(netns)) for netns in ("", "blue", "red")) == 120


@pytest.mark.parametrize(("a", "b"), PLACES)
def test_nothing_is_ever_moved(session: Session, blue: str, red: str, a: str, b: str) -> None:
    with Listener() as at_home:
        with ns.entered("blue"):
            in_blue = Listener()
        with ns.entered("red"):
            in_red = Listener()
        with in_blue, in_red:
            session.create(Veth(End("veth1", a), End("veth2", b)))
            for netns, listener in (("", at_home), ("blue", in_blue), ("red", in_red)):
                belong = {name for name, place in (("veth1", a), ("veth2", b)) if place == netns}
                heard = set(listener.heard())
                assert {name for _, name in heard} == belong
                assert {kind for kind, _ in heard} <= {RTM_NEWLINK}


@pytest.mark.parametrize(("a", "b"), PLACES)
def test_a_kernel_that_does_not_echo_is_asked_for_the_indexes(
    session: Session, blue: str, red: str, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_echo(monkeypatch)
    pair = session.create(Veth(End("veth1", a, addresses=["10.0.0.1/24"]), End("veth2", b)))
    check(pair.a, "veth1", a)
    check(pair.b, "veth2", b)


def test_a_link_called_default_or_all_does_not_touch_the_settings_of_that_name(session: Session, blue: str) -> None:
    with ns.entered("blue"):
        for name in ("default", "all"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as switch:
                switch.write("1")
    for name in ("default", "all"):
        with pytest.raises(InvalidValue) as refused:
            session.create(Veth(End(name, "blue", addresses=["2001:db8::1/64"]), End("x" + name)))
        assert refused.value.field == "name"
    with ns.entered("blue"):
        for name in ("default", "all"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") as switch:
                assert switch.read() == "1\n"
    assert names("blue") == set()
    assert ip("link", netns="blue")[0]["ifname"] == "lo"
