"""Many pairs are created as planned, and not looked at again if they are as they were created when they are watched.

Whatever happens to one of them meanwhile is noticed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, settle, until
from tests.witness import ip, rename, seen
from vethlib import Session, ns
from vethlib.agent import Interface
from vethlib.agent.host.execution import _Executor
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import CreatePair
from vethlib.agent.reconcile import configurator as configurator_module
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.observer import HostObserver
from vethlib.agent.reconcile.passes import choice
from vethlib.agent.reconcile.watches import Watches
from vethlib.ifindex import dumps, watching
from vethlib.ifindex.dumps import FirstLook

NEAR, FAR = "10.0.{}.1/24", "10.0.{}.2/24"


def wanted(numbers: Iterable[int] = range(4), **fields: Any) -> list[Interface]:
    """Return pairs that each have their far end in a separate namespace."""
    return [
        end
        for number in numbers
        for end in (
            interface(f"h{number}", f"b{number}", ip_addresses=[NEAR.format(number)], **fields),
            interface(f"b{number}", f"h{number}", f"at{number}", ip_addresses=[FAR.format(number)], **fields),
        )
    ]


NAMES = [each.name for each in wanted()]


@pytest.fixture
def room(make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four namespaces; and one pair is too many to be created by the pass that plans it."""
    make_netns(*(f"at{number}" for number in range(4)))
    monkeypatch.setattr(choice, "AT_ONCE", 0.25)


@pytest.fixture
def configurator(room: None, session: Session) -> Iterator[Configurator]:
    with Configurator(session, missing_netns="wait") as configurator:
        yield configurator


def start(configurator: Configurator, interfaces: Iterable[Interface] | None = None) -> None:
    configurator.resync(wanted() if interfaces is None else interfaces)
    until(configurator, configured(configurator, *NAMES))
    settle(configurator)


def is_right(name: str, netns: str = "", mtu: int = 1500) -> bool:
    try:
        link = seen(name, netns)
    except KeyError:
        return False
    address = (FAR if netns else NEAR).format(name[1:])
    has = [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["family"] == "inet"]
    return link["mtu"] == mtu and "UP" in link["flags"] and has == [address]


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What is looked at from now on, except by the look at everything."""
    looks: list[set[str]] = []
    look = HostObserver.look

    def noted(self: HostObserver, desired: Desired, names: Iterable[str]) -> Observed:
        looks.append(set(names))
        return look(self, desired, names)

    monkeypatch.setattr(HostObserver, "look", noted)
    return looks


def test_what_is_as_it_was_created_is_not_looked_at_again(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = looked_at(monkeypatch)
    start(configurator)
    assert not set().union(*looks) & {"b1", "h1", "b2", "h2", "b3", "h3"}
    for number in range(4):
        assert is_right(f"h{number}")
        assert is_right(f"b{number}", f"at{number}")


def test_its_status_has_the_link_and_the_addresses_that_it_has(configurator: Configurator) -> None:
    start(configurator, wanted(ipv6=False))
    until(configurator, lambda: all(each.link and each.link.operstate == "up" for each in configurator.status()))
    for status in configurator.status():
        assert status.link is not None
        link = configurator.session.lookup(status.link.name, status.netns)
        assert status.link == link
        assert status.peer_index == link.peer_index


def far_mtu() -> None:
    ip("link", "set", "dev", "b2", "mtu", "1300", netns="at2")


def near_mtu() -> None:
    ip("link", "set", "dev", "h2", "mtu", "1300")


def far_address() -> None:
    ip("address", "del", FAR.format(2), "dev", "b2", netns="at2")


def near_address() -> None:
    ip("address", "del", NEAR.format(2), "dev", "h2")


def far_down() -> None:
    ip("link", "set", "dev", "b2", "down", netns="at2")


def deleted() -> None:
    ip("link", "del", "dev", "b2", netns="at2")


def renamed() -> None:
    rename("b2", "another", "at2")


def moved() -> None:
    ip("link", "set", "dev", "b2", "netns", "at0", netns="at2")


def renewed() -> None:
    ns.remove("at2")
    ns.Netns.create("at2").close()


def replaced() -> None:
    """Make the name that of another namespace; that with the pair lives on under another name."""
    Path("/run/netns/at2-old").touch()
    subprocess.run(["mount", "--bind", "/run/netns/at2", "/run/netns/at2-old"], check=True)
    renewed()


def alias() -> None:
    ip("link", "set", "dev", "h2", "alias", "")


MEDDLING = [far_mtu, near_mtu, far_address, near_address, far_down, deleted, renamed, moved, renewed, replaced, alias]


@pytest.mark.parametrize("meddle", MEDDLING)
def test_whatever_happens_to_a_pair_before_its_namespace_is_watched_is_noticed(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None]
) -> None:
    watch, left = Watches.watch_more, [meddle]

    def meddled(self: Watches, refs: set[str]) -> dict[str, FirstLook]:
        if left and "netns:at2" in refs:
            left.pop()()
        return watch(self, refs)

    monkeypatch.setattr(Watches, "watch_more", meddled)
    assert_right_in_the_end(configurator, left)


@pytest.mark.parametrize("meddle", MEDDLING)
def test_whatever_happens_to_a_pair_after_its_namespace_was_read_is_noticed(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None]
) -> None:
    read, left = dumps.everything_in, [meddle]

    def meddled(fds: list[int]) -> list[FirstLook | None]:
        looks = read(fds)
        if left and any(link.name == "b2" for look in looks if look is not None for link in look.links.values()):
            left.pop()()
        return looks

    monkeypatch.setattr(watching, "everything_in", meddled)
    assert_right_in_the_end(configurator, left)


def assert_right_in_the_end(configurator: Configurator, left: list[Callable[[], None]]) -> None:
    configurator.resync(wanted())
    until(configurator, lambda: not left)
    assert not any(reason.code == "unforeseen" for each in configurator.status() for reason in each.reasons)
    settle(configurator)
    until(configurator, configured(configurator, *NAMES))
    until(configurator, lambda: is_right("h2") and is_right("b2", "at2"), 20)
    assert configurator.status("h2")[0].state == "CONFIGURED"
    assert seen("h2")["ifalias"] == "vethlib label=vpp1 name=h2"


def _is_created() -> bool:
    try:
        return "UP" in seen("b2", "at2")["flags"] and "UP" in seen("h2")["flags"]
    except KeyError:
        return False


def test_a_pair_whose_configuration_changes_while_the_others_are_created_gets_the_new_one(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, left = _Executor._create, [*wanted([1, 3], mtu=1400)]

    def and_put(executor: _Executor, operations: Sequence[CreatePair]) -> None:
        create(executor, operations)
        if _is_created():
            while left:
                configurator.put(left.pop())

    monkeypatch.setattr(_Executor, "_create", and_put)
    configurator.resync(wanted())
    until(configurator, lambda: not left)
    settle(configurator)
    for number, mtu in enumerate([1500, 1400, 1500, 1400]):
        assert is_right(f"h{number}", mtu=mtu)
        assert is_right(f"b{number}", f"at{number}", mtu=mtu)


def test_a_pair_that_was_refused_is_reported_and_the_others_are_not_looked_at(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, left = _Executor._create, [1]

    def first_taken(executor: _Executor, operations: Sequence[CreatePair]) -> None:
        if left and [each.a.name for each in operations] == ["b2"]:
            left.pop()
            ip("link", "add", "h2", "type", "veth", "peer", "name", "theirs")
        create(executor, operations)

    monkeypatch.setattr(_Executor, "_create", first_taken)
    looks = looked_at(monkeypatch)
    configurator.resync(wanted())
    until(configurator, configured(configurator, "h0", "b0", "h1", "b1", "h3", "b3"))
    settle(configurator)
    assert configurator.status("h2")[0].state == "FAILED"
    assert {"h2", "b2"} <= set().union(*looks)
    assert not set().union(*looks) & {"h1", "b1", "h3", "b3"}


@pytest.mark.parametrize("at_once", [1, 8])
def test_pairs_that_a_pass_has_left_are_created_although_there_is_always_something_urgent(
    session: Session, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(choice, "AT_ONCE", at_once)
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)  # one step in each poll
    with Configurator(session) as configurator:
        configurator.resync([interface("p", "q"), interface("q", "p")])
        settle(configurator)
        for number in range(30):
            configurator.put(interface(f"a{number}", f"b{number}"))
            configurator.put(interface(f"b{number}", f"a{number}"))
        for _ in range(300):
            configurator._occasions.mark(["p"], "its link was changed")
            configurator.poll(0)
        assert {link["ifname"] for link in ip("link")} >= {f"{end}{number}" for end in "ab" for number in range(30)}
        settle(configurator)
        assert all(status.state == "CONFIGURED" for status in configurator.status())
