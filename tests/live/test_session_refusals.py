"""Failures, and their errors. Each time, the host is afterwards exactly as it was."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.answers import edit_answers
from tests.live.older_kernel import without_echo
from tests.programs import runs
from tests.refusing import raises
from tests.witness import ip, names, nothing_changes, poll, seen
from vethlib import (
    BatchError,
    End,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetlinkError,
    Netns,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    Session,
    Veth,
    ns,
)
from vethlib._nl.batch import Outcome
from vethlib._nl.link import create_veth
from vethlib.session.core.namespaces import OpenNetns
from vethlib.session.write.creating import building, configuring, job

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("a", "b"), [("", ""), ("", "blue"), ("blue", ""), ("blue", "red"), ("blue", "blue")])
@pytest.mark.parametrize("taken_end", ["a", "b"])
def test_a_taken_name_is_named_on_whichever_end(
    session: Session, blue: str, red: str, a: str, b: str, taken_end: str
) -> None:
    netns = {"a": a, "b": b}[taken_end]
    ip("link", "add", "name", "taken", "type", "bridge", netns=netns)
    veth = Veth(End("taken", a), End("vb", b)) if taken_end == "a" else Veth(End("va", a), End("taken", b))
    with nothing_changes(), raises(LinkExists, errno=errno.EEXIST, item=veth) as caught:
        session.create(veth)
    assert ("netns:" + netns if netns else " home ") in str(caught.value).rpartition("'taken'")[2]
    assert isinstance(caught.value, FileExistsError)


def test_an_alternative_name_is_taken_too(session: Session) -> None:
    ip("link", "add", "name", "br0", "type", "bridge")
    ip("link", "property", "add", "dev", "br0", "altname", "other")
    with nothing_changes(), raises(LinkExists, netns=""):
        session.create(Veth(End("va"), End("other")))


def test_a_taken_name_that_is_free_again_when_looked_for_is_still_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "taken", "type", "bridge")
    monkeypatch.setattr(building, "holders", lambda *_: {})
    with nothing_changes(), raises(LinkExists, errno=errno.EEXIST, netns=""):
        session.create(Veth(End("taken"), End("vb")))


def test_a_name_whose_owner_cannot_be_looked_at_is_still_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "taken", "type", "bridge")

    def refuse(*_: object) -> None:
        raise NetlinkError("no")

    monkeypatch.setattr(building, "holders", refuse)
    with nothing_changes(), raises(LinkExists, errno=errno.EEXIST, netns=""):
        session.create(Veth(End("taken"), End("vb")))


@pytest.mark.parametrize("ref", ["nowhere", "netns:nowhere", "path:/run/netns/nowhere", "pid:2147483647", "fd:12345"])
def test_a_reference_that_leads_nowhere_is_not_found(session: Session, blue: str, ref: str) -> None:
    for veth in (Veth(End("va", ref), End("vb")), Veth(End("va", "blue"), End("vb", ref))):
        with nothing_changes(), pytest.raises(NetnsNotFound) as caught:
            session.create(veth)
        assert caught.value.item is veth
        assert caught.value.netns.endswith(ref)
    for call in (session.links, session.addresses):
        with pytest.raises(NetnsNotFound):
            call(ref)
    with pytest.raises(NetnsNotFound):
        session.stats("lo", ref)


def test_a_dead_process_and_a_zombie_have_no_namespace(session: Session) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert poll(lambda: not runs(child))
    with nothing_changes(), raises(NetnsNotFound, netns=f"pid:{child}"):
        session.create(Veth(End("va", f"pid:{child}"), End("vb")))
    os.waitpid(child, 0)
    with nothing_changes(), raises(NetnsNotFound, netns=f"pid:{child}"):
        session.create(Veth(End("va", f"pid:{child}"), End("vb")))


def test_a_microservice_needs_a_resolver_that_knows_it(session: Session) -> None:
    with nothing_changes(), raises(NetnsNotFound, netns="microservice:web"):
        session.create(Veth(End("va", "microservice:web"), End("vb")))

    def resolve(label: str) -> str:
        raise NetnsNotFound(f"microservice {label} is not running", netns=f"microservice:{label}")

    with Session(resolver=resolve) as own, raises(NetnsNotFound):
        own.create(Veth(End("va", "microservice:web"), End("vb")))


@pytest.mark.parametrize("outer", [True, False])
def test_a_namespace_that_vanishes_between_check_and_use_takes_the_pair_along(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, outer: bool
) -> None:
    send_creates = building._send_creates

    def removed(*args: Any) -> None:
        ip("netns", "del", "blue")
        send_creates(*args)

    monkeypatch.setattr(building, "_send_creates", removed)
    ends = End("va", "blue"), End("vb")
    session.create(Veth(*ends) if outer else Veth(*reversed(ends)))
    assert poll(lambda: names() == set())


def test_without_a_capability_it_is_named_and_nothing_happens(session: Session, blue: str) -> None:
    session.create(Veth(End("va"), End("vb", "blue")))
    here, there = Veth(End("x"), End("y")), Veth(End("x", "blue"), End("y", "blue"))
    with nothing_changes(), dropped():
        for call in (
            lambda: session.create(here),
            lambda: session.delete("va"),
            lambda: session.set("va", mtu=1400),
            lambda: session.set("va", addresses=["10.0.0.1/24"]),
        ):
            with raises(NotPermitted, errno=errno.EPERM, capability="CAP_NET_ADMIN") as caught:
                call()
            assert isinstance(caught.value, PermissionError)
        for other in (
            lambda: session.create(there),
            lambda: session.delete("vb", "blue"),
            lambda: session.set("vb", "blue", mtu=1400),
            lambda: session.links("blue"),
            lambda: session.lookup("vb", "blue"),
        ):
            with raises(NotPermitted, capability="CAP_SYS_ADMIN") as caught:
                other()
            assert caught.value.netns == "blue"
        with raises(NotPermitted, capability="CAP_SYS_ADMIN") as caught:
            session.create_many([there])
        assert caught.value.item is there
        with pytest.raises(BatchError) as many:
            session.create_many([here, there], on_error="continue")
        assert [error.item for error in many.value.exceptions] == [here, there]
        assert {type(error) for error in many.value.exceptions} == {NotPermitted}
        with raises(NotPermitted, errno=errno.EPERM):
            session.move("va", to="blue")
        assert session.lookup("va").name == "va"  # looking needs none
        assert len(session.links()) == 2
        assert session.stats("va").rx_errors == 0


def test_without_a_capability_a_session_can_be_made_and_can_look(home: Netns) -> None:
    with dropped(), Session() as session:
        assert [link.name for link in session.links()] == ["lo"]


def test_continue_goes_on_where_a_namespace_cannot_be_entered(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the creating, and for what follows it in the namespace of the other end."""
    call_in, map_in = ns.call_in, ns.map_in
    with Netns.open("blue") as place:
        forbidden = place.identity

    def entering(fd: int, function: Callable[[], Any]) -> Any:
        if ns.identity(fd) == forbidden:
            raise NotPermitted("entering a network namespace needs CAP_SYS_ADMIN", errno=1, netns=f"fd:{fd}")
        return call_in(fd, function)

    def mapping(fds: list[int], function: Callable[[], Any]) -> Any:
        if any(ns.identity(fd) == forbidden for fd in fds):
            raise NotPermitted("entering a network namespace needs CAP_SYS_ADMIN", errno=1, netns="fd:5")
        return map_in(fds, function)

    monkeypatch.setattr(ns, "call_in", entering)
    monkeypatch.setattr(ns, "map_in", mapping)
    veths = [
        Veth(End("va", "blue"), End("vb", "red")),
        Veth(End("vc", "red"), End("vd")),
        Veth(End("ve"), End("vf", "blue")),
        Veth(End("vg", "red"), End("vh", "red")),
    ]
    with pytest.raises(BatchError) as caught:
        session.create_many(veths, on_error="continue")
    assert [(error.item, error.netns) for error in caught.value.exceptions] == [  # type: ignore[attr-defined]
        (veths[0], "blue"),
        (veths[2], "blue"),
    ]
    assert (names(), names("red"), names("blue")) == ({"vd"}, {"vc", "vg", "vh"}, set())


INVALID: list[tuple[Callable[[], object], str, object]] = [
    (lambda: End(""), "name", ""),
    (lambda: End("x" * 16), "name", "x" * 16),
    (lambda: End("a/b"), "name", "a/b"),
    (lambda: End("a:b"), "name", "a:b"),
    (lambda: End("a%d"), "name", "a%d"),
    (lambda: End("a b"), "name", "a b"),
    (lambda: End("."), "name", "."),
    (lambda: End("x", mac="01:00:00:00:00:01"), "mac", "01:00:00:00:00:01"),
    (lambda: End("x", mtu=67), "mtu", 67),
    (lambda: End("x", mtu=65536), "mtu", 65536),
    (lambda: End("x", num_queues=0), "num_queues", 0),
    (lambda: End("x", group=-1), "group", -1),
    (lambda: End("x", addresses=["10.0.0.1"]), "addresses", "10.0.0.1"),
    (lambda: End("x", address_proto=256), "address_proto", 256),
]


@pytest.mark.parametrize(("make", "field", "value"), INVALID)
def test_a_value_that_cannot_work_is_refused_before_anything_is_sent(
    make: Callable[[], object], field: str, value: object
) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert (caught.value.field, caught.value.value) == (field, value)
    assert str(caught.value).startswith(f"{field} {value!r}: ")


@pytest.mark.parametrize(
    "name", ["x" * 15, "é" * 7, "a-b_c.d@e", "...", "-", "$(x)", "'\"\\", "\udcff\udce9", "'%'".strip("'%") or "q"]
)
def test_every_name_the_kernel_takes_is_taken(session: Session, blue: str, name: str) -> None:
    pair = session.create(Veth(End(name, addresses=["10.0.0.1/24", "2001:db8::1/64"]), End(name, "blue")))
    assert (pair.a.name, pair.b.name) == (name, name)
    assert (seen(name)["ifindex"], seen(name, "blue")["ifindex"]) == (pair.a.index, pair.b.index)
    session.set(name, mtu=1400)
    session.delete(name, "blue")
    assert names() == set()


@pytest.mark.parametrize("name", ["à", "a\xa0", "a\tb", "a\nb", "a\x0bb"])
def test_a_name_is_refused_by_us_exactly_if_it_is_refused_by_the_kernel(session: Session, name: str) -> None:
    done = subprocess.run(["ip", "link", "add", "name", name, "type", "bridge"], capture_output=True, check=False)
    if done.returncode:
        with pytest.raises(InvalidValue):
            End(name)
    else:
        assert session.lookup(name).name == name
        End(name)


@pytest.mark.parametrize("name", ["a\x85b", "a\x1bb", "a\u202eb"])
def test_a_name_that_a_terminal_would_obey_can_be_read_but_not_given(session: Session, name: str) -> None:
    subprocess.run(["ip", "link", "add", "name", name, "type", "bridge"], check=True)
    assert session.lookup(name).name == name
    with pytest.raises(InvalidValue) as raised:
        End(name)
    assert raised.value.field == "name"


def test_a_name_that_is_not_utf8_is_found_changed_and_deleted(session: Session, blue: str) -> None:
    raw = b"\xff\xe9-v"
    ip("link", "add", "name", raw, "type", "veth", "peer", "name", b"\xff\xe8", netns="blue")
    name = os.fsdecode(raw)
    assert name in {link.name for link in session.links("blue")}
    assert session.lookup(name, "blue").index == seen(name, "blue")["ifindex"]
    session.set(name, "blue", up=True, addresses=["10.0.0.1/24"], alias="\udcfe")
    assert seen(name, "blue")["ifalias"] == "\udcfe"
    with raises(LinkExists, errno=errno.EEXIST):
        session.create(Veth(End(name, "blue"), End("vb")))
    session.delete(name, "blue")
    assert names("blue") == set()


def test_bytes_that_no_file_name_can_be_are_an_invalid_name(session: Session) -> None:
    for name in ("\ud800", "\ud800" * 20):
        with raises(InvalidValue, field="name", value=name):
            session.lookup(name)
    with pytest.raises(InvalidValue):
        session.lookup("x" * 128)


def test_an_address_the_kernel_refuses_is_named_with_its_link(session: Session, blue: str) -> None:
    veth = Veth(End("va", "blue", addresses=["10.0.0.1/24", "::1/128"], alias="x"), End("vb"))
    with nothing_changes(), raises(NetlinkError, errno=errno.EADDRNOTAVAIL, netns="blue", item=veth):
        session.create(veth)


# Without an echo, a pair is read once more before that.
@pytest.mark.parametrize("what", ["alias", "up", pytest.param("read", marks=pytest.mark.needs_kernel("6.2"))])
def test_each_step_that_is_refused_after_the_creation_is_named(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    said = {"alias": "alias", "up": " up:", "read": "read"}[what]
    number = {"alias": 1, "up": 2, "read": 0}[what]

    def refusing(place: OpenNetns, requests: Sequence[bytes], outcomes: list[Outcome]) -> list[Outcome]:
        if len(requests) == (1 if what == "read" else 3) and str(place) == "netns:blue":
            outcomes[number] = Outcome(errno.EACCES)
        return outcomes

    edit_answers(monkeypatch, refusing)
    veth = Veth(End("va", "blue", addresses=["10.0.0.1/24"], alias="x"), End("vb"))
    with nothing_changes(), raises(NetlinkError, errno=errno.EACCES, netns="blue", item=veth) as one:
        session.create(veth)
    assert type(one.value) is NetlinkError
    assert said in str(one.value)
    with nothing_changes(), pytest.raises(BatchError):
        session.create_many([veth], on_error="continue")


def test_an_address_refused_the_second_time_too_is_an_error(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where switching IPv6 on did not help."""
    with ns.entered("blue"), open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as switch:
        switch.write("1")
    monkeypatch.setattr(configuring, "enable_ipv6", lambda *_: {})
    with nothing_changes(), raises(NetlinkError, errno=errno.EACCES, netns="blue"):
        session.create(Veth(End("va", "blue", addresses=["2001:db8::1/64"]), End("vb")))


def test_a_kernel_without_veth_is_told_of(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "create_veth", lambda *args: create_veth(*args).replace(b"veth\0", b"vith\0"))
    with nothing_changes(), raises(NotSupported, errno=errno.EOPNOTSUPP):
        session.create(Veth(End("va"), End("vb")))


def test_a_pair_that_is_gone_before_it_was_looked_at_is_an_error(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise LinkNotFound("gone", errno=errno.ENODEV)

    without_echo(monkeypatch)
    monkeypatch.setattr(building, "find", gone)
    veth = Veth(End("va"), End("vb", "blue"))
    with raises(LinkNotFound, errno=errno.ENODEV, item=veth):
        session.create(veth)
