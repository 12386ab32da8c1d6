"""The sentences of the core's errors, all in this table: other tests ask for class, fields and errno."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.capabilities import CAP_SYS_ADMIN, dropped
from tests.needs import kernel_is
from vethlib import (
    BatchError,
    End,
    IfIndexCache,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetlinkError,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    Session,
    SessionClosed,
    Veth,
    VethError,
    WaitTimeout,
    ns,
)
from vethlib._nl.batch import Outcome
from vethlib._nl.link import create_veth
from vethlib.agent.registry.indexes import Indexes
from vethlib.links import check_addresses, check_mac, check_name
from vethlib.session.core.refusal import refusal
from vethlib.session.write.creating import building, job

Provoke = Callable[[Session], object]


# Before Linux 6.12, the state of a new link is unknown until linkwatch runs, up to a second later, and then final.
FOR_A_STATE, DOWN = (0.2, "down") if kernel_is("6.12") else (3, "lowerlayerdown")


class Sentence(NamedTuple):
    """An action, and the exception that it raises: the class, its fields, and the message."""

    provoke: Provoke
    error: type[VethError]
    fields: dict[str, Any]
    text: str


@pytest.fixture
def session(session: Session, blue: str, red: str) -> Session:
    """A session on a host where va in blue and vb in red are a pair, and the name taken exists in home and in blue."""
    session.create(Veth(End("va", "blue"), End("vb", "red")))
    session.create(Veth(End("taken"), End("taken", "blue")))
    return session


def on_a_closed_one(call: Callable[[Session], object]) -> Provoke:
    def closed(_: Session) -> object:
        other = Session()
        other.close()
        return call(other)

    return closed


def a_leftover_file(_: Session) -> object:
    Path("/run/netns/left").touch()
    try:
        return ns.open_fd("netns:left")
    finally:
        Path("/run/netns/left").unlink()


def without_rights(call: Callable[[], object]) -> Provoke:
    def unprivileged(_: Session) -> object:
        with dropped(CAP_SYS_ADMIN):
            return call()

    return unprivileged


def a_kind_that_this_kernel_does_not_have(session: Session) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "create_veth", lambda *args: create_veth(*args).replace(b"veth\0", b"vith\0"))
        return session.create(Veth(End("x"), End("y")))


def a_name_that_was_taken(session: Session) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "holders", lambda *_: {})
        return session.create(Veth(End("taken"), End("y")))


def an_answer_that_was_lost(_: Session) -> object:
    raise refusal(Outcome(errno.ENOBUFS), "create veth 'x' ⇄ 'y'", "blue")


def a_cache_that_does_not_watch_it(session: Session) -> object:
    with IfIndexCache(session) as cache:
        return cache.links("blue")


def in_another_process(session: Session) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        return session.links()


SENTENCES = {
    # values, refused before anything is sent
    "a name that is too long": Sentence(
        lambda _: check_name("x" * 16),
        InvalidValue,
        {"field": "name"},
        "name 'xxxxxxxxxxxxxxxx': a link name has 1 to 15 bytes, but this one has 16",
    ),
    "no name": Sentence(
        lambda _: check_name(""),
        InvalidValue,
        {"field": "name"},
        "name '': a link name has 1 to 15 bytes, but this one has 0",
    ),
    "a bad MAC address": Sentence(
        lambda _: check_mac("02:00"),
        InvalidValue,
        {"field": "mac"},
        "mac '02:00': must be six pairs of hex digits, such as 02:00:00:00:00:01",
    ),
    "an address twice": Sentence(
        lambda _: check_addresses(["10.0.0.1/24", "10.0.0.1/24"]),
        InvalidValue,
        {"field": "addresses"},
        "addresses '10.0.0.1/24': the same address is given twice",
    ),
    "an IPv6 address in two networks": Sentence(
        lambda _: check_addresses(["2001:db8::1/64", "2001:db8::1/128"]),
        InvalidValue,
        {"field": "addresses"},
        "addresses '2001:db8::1/128': a link has an IPv6 address once, with one prefix length",
    ),
    "too small an MTU for IPv6": Sentence(
        lambda _: End("x", mtu=1279, addresses=["2001:db8::1/64"]),
        InvalidValue,
        {"field": "mtu", "value": 1279},
        "mtu 1279: IPv6 needs 1280 bytes: raise the MTU or leave out the IPv6 addresses",
    ),
    "both ends with one name": Sentence(
        lambda _: Veth(End("x", "blue"), End("x", "blue")),
        InvalidValue,
        {"field": "name", "value": "x"},
        "name 'x': both ends of the pair have this name in one namespace",
    ),
    "an item that is no pair of names": Sentence(
        lambda session: session.delete_many(["ab"]),  # type: ignore[list-item]
        InvalidValue,
        {"field": "items"},
        "items 'ab': a link is a name and a namespace: write ('ab', '') for home",
    ),
    "on_error that is neither": Sentence(
        lambda session: session.create_many([], on_error="ignore"),  # type: ignore[arg-type]
        InvalidValue,
        {"field": "on_error", "value": "ignore"},
        'on_error \'ignore\': must be "rollback" or "continue"',
    ),
    # references to namespaces
    "a name that is not there": Sentence(
        lambda _: ns.open_fd("netns:ns1"),
        NetnsNotFound,
        {"netns": "netns:ns1", "taken": False},
        "/run/netns/ns1 does not exist",
    ),
    "a file that is not there": Sentence(
        lambda _: ns.open_fd("path:/no/such/file"),
        NetnsNotFound,
        {"netns": "path:/no/such/file"},
        "/no/such/file does not exist",
    ),
    "a file that is no namespace": Sentence(
        lambda _: ns.open_fd("path:/dev/null"),
        NetnsNotFound,
        {"netns": "path:/dev/null"},
        "/dev/null is not a namespace",
    ),
    "a leftover file in the place of a name": Sentence(
        a_leftover_file,
        NetnsNotFound,
        {"netns": "netns:left", "taken": True},
        "/run/netns/left is not a namespace (a leftover file; ip netns del left removes it)",
    ),
    "a namespace of another kind": Sentence(
        lambda _: ns.open_fd("path:/proc/self/ns/mnt"),
        NetnsNotFound,
        {"netns": "path:/proc/self/ns/mnt"},
        "/proc/self/ns/mnt is a namespace, but not a network namespace",
    ),
    "a process that never was": Sentence(
        lambda _: ns.open_fd("pid:2147483647"), NetnsNotFound, {"netns": "pid:2147483647"}, "process 2147483647 is gone"
    ),
    "a descriptor that is not open": Sentence(
        lambda _: ns.open_fd("fd:2147483647"), NetnsNotFound, {"netns": "fd:2147483647"}, "fd 2147483647 is not open"
    ),
    "a label without a resolver": Sentence(
        lambda _: ns.open_fd("microservice:vnf1"),
        NetnsNotFound,
        {"netns": "microservice:vnf1"},
        "microservice vnf1 cannot be resolved without a resolver: "
        "use Session(resolver=…), or `vethctl agent`, which asks the Docker Engine",
    ),
    "a name that exists": Sentence(
        lambda _: ns.Netns.create("blue"), NetnsExists, {"unusable": False}, "/run/netns/blue already exists"
    ),
    "the removal of what is not there": Sentence(
        lambda _: ns.remove("ns1"), NetnsNotFound, {"netns": "netns:ns1"}, "/run/netns/ns1 does not exist"
    ),
    "the creation of a name without rights": Sentence(
        without_rights(lambda: ns.Netns.create("ns1")),
        NotPermitted,
        {"capability": "CAP_SYS_ADMIN", "errno": errno.EPERM},
        "cannot create /run/netns/ns1: it needs root, or CAP_SYS_ADMIN and write access there",
    ),
    "the removal of a name without rights": Sentence(
        without_rights(lambda: ns.remove("red")),
        NotPermitted,
        {"capability": "CAP_SYS_ADMIN", "errno": errno.EPERM},
        "cannot remove /run/netns/red: it needs root, or CAP_SYS_ADMIN and write access there",
    ),
    "entering without rights": Sentence(
        without_rights(lambda: ns.entered("blue").__enter__()),
        NotPermitted,
        {"capability": "CAP_SYS_ADMIN", "errno": errno.EPERM},
        "entering a network namespace needs CAP_SYS_ADMIN in its owner and in the caller's user namespace",
    ),
    "making one without rights": Sentence(
        without_rights(lambda: ns.call_in_new(os.getpid)),
        NotPermitted,
        {"capability": "CAP_SYS_ADMIN", "errno": errno.EPERM},
        "creating a network namespace needs CAP_SYS_ADMIN",
    ),
    # links
    "a link that is not there": Sentence(
        lambda session: session.lookup("nope", "blue"),
        LinkNotFound,
        {"netns": "blue"},
        "look up 'nope' in netns:blue: there is no link 'nope' in netns:blue",
    ),
    "a link that is not there, at home": Sentence(
        lambda session: session.lookup("nope"), LinkNotFound, {"netns": ""}, "look up 'nope': there is no link 'nope'"
    ),
    "a change of it": Sentence(
        lambda session: session.set("nope", "blue", up=True),
        LinkNotFound,
        {"netns": "blue"},
        "set 'nope' in netns:blue: there is no link 'nope' in netns:blue",
    ),
    "its deletion": Sentence(
        lambda session: session.delete("nope", "blue", missing_ok=False),
        LinkNotFound,
        {"netns": "blue"},
        "delete 'nope' in netns:blue: there is no link 'nope' in netns:blue",
    ),
    "a link in a namespace that is not there": Sentence(
        lambda session: session.lookup("va", "nowhere"),
        NetnsNotFound,
        {"netns": "netns:nowhere"},
        "/run/netns/nowhere does not exist",
    ),
    "a name that is taken": Sentence(
        lambda session: session.create(Veth(End("x", "blue"), End("taken"))),
        LinkExists,
        {"netns": ""},
        "create veth 'x' in netns:blue ⇄ 'taken': 'taken' already exists in the home namespace",
    ),
    "names that are both taken": Sentence(
        lambda session: session.create(Veth(End("taken"), End("taken", "blue"))),
        LinkExists,
        {},
        "create veth 'taken' ⇄ 'taken' in netns:blue: 'taken' already exists in the home namespace and "
        "'taken' already exists in netns:blue",
    ),
    "a name that was taken, but is not any more": Sentence(
        a_name_that_was_taken,
        LinkExists,
        {"netns": ""},
        "create veth 'taken' ⇄ 'y': a link of one of these names already exists",
    ),
    "a kind of link that the kernel does not have": Sentence(
        a_kind_that_this_kernel_does_not_have,
        NotSupported,
        {"errno": errno.EOPNOTSUPP},
        "create veth 'x' ⇄ 'y': this kernel has no veth (try: modprobe veth): Unknown device type",
    ),
    "text that cannot be encoded": Sentence(
        lambda session: session.lookup("\ud800"),
        InvalidValue,
        {"field": "name"},
        "name '\\ud800': this text cannot be encoded",
    ),
    "some of many": Sentence(
        lambda session: session.delete_many(
            [("va", "blue"), ("nope", ""), ("none", "")],
            missing_ok=False,
        ),
        BatchError,
        {},
        "2 of 3 links could not be deleted (2 sub-exceptions)",
    ),
    "a link that is down": Sentence(
        lambda session: session.set("va", "blue", alias="x", up=False, wait=0),
        WaitTimeout,
        {"awaited": "up", "name": "va", "netns": "blue", "seconds": 0},
        "'va' in netns:blue is not usable after 0 s: the link is down",
    ),
    "a link whose other end is down": Sentence(
        lambda session: session.create(Veth(End("x"), End("y", "blue", up=False)), wait=FOR_A_STATE),
        WaitTimeout,
        {"awaited": "carrier", "name": "x", "netns": "", "seconds": FOR_A_STATE},
        f"'x' is not usable after {FOR_A_STATE} s: its state is {DOWN} (is the other end up?)",
    ),
    "a process that stays where it is": Sentence(
        lambda _: ns.Netns.of_process(os.getpid(), timeout=0),
        WaitTimeout,
        {"awaited": "move", "name": "", "netns": f"pid:{os.getpid()}", "seconds": 0},
        f"process {os.getpid()} has not moved to another network namespace within 0 s",
    ),
    "the deletion of what is no pair": Sentence(
        lambda session: session.delete("lo"),
        NotSupported,
        {"errno": errno.EOPNOTSUPP, "request": "delete 'lo'"},
        "delete 'lo': it is a physical or loopback link, and only veth links are deleted",
    ),
    "a pair whose master is missing": Sentence(
        lambda session: session.create(Veth(End("x"), End("y", "blue", master="br9"))),
        LinkNotFound,
        {"errno": errno.ENODEV, "request": "create veth 'x' ⇄ 'y' in netns:blue", "netns": "blue"},
        "create veth 'x' ⇄ 'y' in netns:blue: its master 'br9' in netns:blue does not exist: "
        "create it first (ip -n blue link add br9 type bridge)",
    ),
    "a link whose new master is missing": Sentence(
        lambda session: session.set("va", "blue", master="br9"),
        LinkNotFound,
        {"errno": errno.ENODEV, "request": "set 'va' in netns:blue", "netns": "blue"},
        "set 'va' in netns:blue: its master 'br9' in netns:blue does not exist: "
        "create it first (ip -n blue link add br9 type bridge)",
    ),
    "an answer that was lost": Sentence(
        an_answer_that_was_lost,
        NetlinkError,
        {"errno": errno.ENOBUFS, "request": "create veth 'x' ⇄ 'y'", "netns": "blue"},
        "create veth 'x' ⇄ 'y': No buffer space available (ENOBUFS) "
        "(the kernel was short of memory, or its answer was lost: check before trying again)",
    ),
    # what is known without asking
    "a namespace that is not watched": Sentence(
        a_cache_that_does_not_watch_it,
        NetnsNotFound,
        {"netns": "blue"},
        "netns:blue is not watched: cache.watch('blue') first",
    ),
    "an ifindex that nobody has": Sentence(
        lambda _: Indexes((4, 1)).name(7),
        LinkNotFound,
        {"errno": errno.ENODEV, "request": "look up ifindex 7 in the home namespace", "netns": ""},
        "look up ifindex 7 in the home namespace: no such link is known",
    ),
    "an ifindex where no interface is": Sentence(
        lambda _: Indexes((4, 1)).name(5, "blue"),
        LinkNotFound,
        {"errno": errno.ENODEV, "netns": "blue"},
        "look up ifindex 5 in netns:blue: no interface is known there",
    ),
    # what is over, or belongs to another process
    "a closed session": Sentence(
        on_a_closed_one(lambda session: session.links()), SessionClosed, {"forked": False}, "this session is closed"
    ),
    "the session of a parent": Sentence(
        in_another_process,
        SessionClosed,
        {"forked": True},
        f"this session belongs to process {os.getpid()}: after a fork, the child must create its own session",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_refusal_has_its_class_its_fields_and_its_sentence(session: Session, case: str) -> None:
    sentence = SENTENCES[case]
    with pytest.raises(sentence.error) as caught:
        sentence.provoke(session)
    assert type(caught.value) is sentence.error
    assert {name: getattr(caught.value, name) for name in sentence.fields} == sentence.fields
    assert str(caught.value) == sentence.text
