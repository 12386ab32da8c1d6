"""CONFIGURED means that the addresses can be used; obstacles are reported, and repaired."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, pair, put, settle, state_of, until
from tests.live.detection import ONE, TWO, can_bind
from tests.live.sysctls import sysctl
from tests.reasons import in_codes
from tests.witness import addresses, ip, poll, seen
from vethlib import Session
from vethlib.agent import State, StatusChange
from vethlib.agent.reconcile.configurator import Configurator

PATIENCE = 60.0  # seconds; detection takes one or two, and an emulated machine has much else to do


def given(name: str, netns: str, address: str) -> dict[str, Any]:
    """An address as ``ip`` shows it; {} if it is not there."""
    found = (one for one in seen(name, netns)["addr_info"] if one["local"] == address.partition("/")[0])
    return next(found, {})


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


@pytest.fixture
def _quick(configurator: Configurator) -> None:
    """Detection takes one second, not up to two."""
    for netns in ("", "blue"):
        sysctl(netns, "ipv6/conf/default/router_solicitation_delay", "0")


@pytest.fixture
def history(configurator: Configurator) -> Callable[[str], list[State]]:
    """The states that an interface has been in, without repetitions."""
    changes: list[StatusChange] = []
    configurator.subscribe(changes.append)

    def states(name: str) -> list[State]:
        found = [one.status.state for one in changes if one.name == name and one.status is not None]
        return [state for number, state in enumerate(found) if found[number - 1 : number] != [state]]

    return states


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("netns", ["", "blue"])
def test_an_interface_is_pending_until_its_address_can_be_used(
    configurator: Configurator, history: Callable[[str], list[State]], netns: str
) -> None:
    sysctl(netns, "ipv6/conf/default/dad_transmits", "4")  # seconds, so that a busy machine looks before they are over
    put(configurator, interface("a", "b", netns, ip_addresses=[ONE, "10.0.0.1/24"]), interface("b", "a"))
    settle(configurator, tentative=True)
    assert configured(configurator, "b")()
    assert not can_bind(ONE, netns)
    assert state_of(configurator, "a") == f"PENDING: address-tentative({ONE})"
    until(configurator, configured(configurator, "a"), PATIENCE)
    assert can_bind(ONE, netns)
    assert history("a") == [State.PENDING, State.CONFIGURED]
    assert history("b") == [State.CONFIGURED]


OVER = [{"dst": "2001:db8:7::/64", "via": "2001:db8::2", "src": "2001:db8::1"}, {"dst": "10.7.0.0/16"}]


def over(name: str, netns: str = "") -> set[tuple[str, str | None]]:
    """The routes of ours over a link, as (destination, source)."""
    found = [ip(family, "route", "show", "dev", name, "proto", "118", netns=netns) for family in ("-4", "-6")]
    return {(each["dst"], each.get("prefsrc")) for family in found for each in family}


WHOLE = {("2001:db8:7::/64", "2001:db8::1"), ("10.7.0.0/16", None)}


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("later", [False, True])
def test_a_route_from_an_address_is_added_when_the_address_can_be_used_and_nobody_waits_for_that(
    configurator: Configurator, history: Callable[[str], list[State]], later: bool
) -> None:
    sysctl("blue", "ipv6/conf/default/dad_transmits", "4")
    if later:
        put(configurator, interface("a", "b", "blue"), interface("b", "a"))
        until(configurator, configured(configurator, "a", "b"), PATIENCE)
    put(configurator, interface("a", "b", "blue", ip_addresses=[ONE, "10.0.0.1/24"], routes=OVER), interface("b", "a"))
    put(configurator, interface("c", "d", ip_addresses=["10.1.0.1/24"]), interface("d", "c"))
    settle(configurator, tentative=True)
    assert not can_bind(ONE, "blue")  # so that nothing has waited for it
    assert configured(configurator, "b", "c", "d")()
    assert state_of(configurator, "a") == "PENDING: address-tentative(2001:db8::1)"
    assert over("a", "blue") == {("10.7.0.0/16", None)}
    until(configurator, configured(configurator, "a"), PATIENCE)
    assert over("a", "blue") == WHOLE
    assert history("a") == [*([State.CONFIGURED] if later else []), State.PENDING, State.CONFIGURED]


PLAIN: dict[str, Any] = {"ip_addresses": [ONE, "10.0.0.1/24"], "routes": OVER}
CHECKED_AGAIN: list[dict[str, Any]] = [
    {"ip_addresses": ["2001:db8::1/48", "10.0.0.1/24"]},
    {"ip_addresses": ["2001:db8::1/48", "2001:db8::5/48", "10.0.0.1/24"], "mtu": 1400},
    {"ip_addresses": [ONE, "2001:db8:1::1/64", "10.0.0.1/24"]},  # ONE is added after it, to be listed before it
]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fields", CHECKED_AGAIN)
def test_nobody_waits_while_the_source_of_a_route_is_checked_again_because_the_address_is_replaced(
    configurator: Configurator, fields: dict[str, Any]
) -> None:
    _put_and_configured(configurator, {})
    _is_changed_without_waiting(configurator, fields)


@pytest.mark.usefixtures("_quick")
@pytest.mark.needs_module("vrf")
def test_nobody_waits_while_the_source_of_a_route_is_checked_again_because_the_link_joins_a_vrf(
    configurator: Configurator,
) -> None:
    ip("link", "add", "v", "up", "type", "vrf", "table", "254", netns="blue")
    _put_and_configured(configurator, {})
    for fields in ({"master": "v"}, {}):
        _is_changed_without_waiting(configurator, fields)


def _put_and_configured(configurator: Configurator, fields: dict[str, Any]) -> None:
    put(configurator, interface("a", "b", "blue", **(PLAIN | fields)), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert over("a", "blue") == WHOLE


def _is_changed_without_waiting(configurator: Configurator, fields: dict[str, Any]) -> None:
    sysctl("blue", "ipv6/conf/a/dad_transmits", "4")
    put(configurator, interface("a", "b", "blue", **(PLAIN | fields)))
    settle(configurator, tentative=True)
    assert not can_bind(ONE, "blue")  # so that nothing has waited for it
    assert state_of(configurator, "a") == "PENDING: address-tentative(2001:db8::1)"
    assert over("a", "blue") == {("10.7.0.0/16", None)}
    _put_and_configured(configurator, fields)


@pytest.mark.parametrize("address", [ONE, f"{ONE} nodad"])
def test_a_route_from_an_address_that_is_not_checked_is_added(configurator: Configurator, address: str) -> None:
    if address == ONE:
        for where in ("all", "default"):
            sysctl("blue", f"ipv6/conf/{where}/accept_dad", "0")
    fields = {"ip_addresses": [address, "10.0.0.1/24"], "routes": OVER}
    put(configurator, interface("a", "b", "blue", **fields), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert over("a", "blue") == WHOLE


@pytest.mark.usefixtures("_quick")
def test_a_route_waits_as_long_as_the_check_of_its_source_cannot_begin(configurator: Configurator) -> None:
    fields = {"ip_addresses": [ONE, "10.0.0.1/24"], "routes": OVER}
    put(configurator, interface("a", "b", "blue", **fields), interface("b", "a", enabled=False))
    settle(configurator, tentative=True)
    assert state_of(configurator, "a") == "PENDING: address-tentative(2001:db8::1)"
    assert over("a", "blue") == {("10.7.0.0/16", None)}
    put(configurator, interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert over("a", "blue") == WHOLE
    put(configurator, interface("a", "b", "blue", **fields, enabled=False))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    put(configurator, interface("a", "b", "blue", **fields))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert over("a", "blue") == WHOLE


@pytest.mark.parametrize("which", [["10.0.0.1/24"], [ONE]])
def test_without_detection_there_is_nothing_to_wait_for(
    configurator: Configurator, history: Callable[[str], list[State]], which: list[str]
) -> None:
    for where in ("all", "default"):
        sysctl("blue", f"ipv6/conf/{where}/accept_dad", "0")
    put(configurator, interface("a", "b", "blue", ip_addresses=which), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert can_bind(which[0], "blue")
    # Even so a new IPv6 address is tentative until a worker of the kernel gets to it (addrconf_dad_work).
    late = [State.PENDING] if which == [ONE] and len(history("a")) > 1 else []
    assert history("a") == [*late, State.CONFIGURED]


@pytest.mark.usefixtures("_quick")
def test_the_same_address_on_both_ends_is_retried_quietly_until_one_of_them_has_another(
    configurator: Configurator, history: Callable[[str], list[State]]
) -> None:
    put(configurator, *pair("a", "b", "blue", ip_addresses=[ONE]))
    until(configurator, lambda: {one.state for one in configurator.status()} == {State.CONFIGURED, State.RETRYING}, 20)
    (loser,) = [one for one in configurator.status() if one.state is State.RETRYING]
    winner = "b" if loser.name == "a" else "a"
    assert in_codes(loser) == f"RETRYING: duplicate-of-peer({ONE})"
    first = loser.attempt
    until(configurator, lambda: configurator.status(loser.name)[0].attempt > first + 1, PATIENCE)
    assert history(loser.name)[-1] is State.RETRYING
    assert history(loser.name).count(State.RETRYING) == 1
    assert history(winner)[-1] is State.CONFIGURED
    assert history(winner).count(State.CONFIGURED) == 1  # after PENDING, or after RETRYING, if at first both have lost
    assert len(addresses(winner, "blue" if winner == "a" else "")) == 1
    where = "blue" if winner == "a" else ""
    put(configurator, interface(winner, loser.name, where, ip_addresses=[TWO]))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    assert can_bind(ONE, loser.netns)
    assert can_bind(TWO, where)


@pytest.mark.usefixtures("_quick")
def test_a_duplicate_of_a_foreign_address_heals_when_that_is_gone(
    configurator: Configurator, history: Callable[[str], list[State]]
) -> None:
    put(configurator, interface("a", "b", ip_addresses=[TWO]), interface("b", "a", "blue"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    ip("addr", "add", ONE, "dev", "b", "nodad", netns="blue")
    put(configurator, interface("a", "b", ip_addresses=[ONE, TWO]))
    until(configurator, lambda: state_of(configurator, "a") == f"RETRYING: duplicate-address({ONE})", PATIENCE)
    assert can_bind(TWO)
    ip("addr", "del", ONE, "dev", "b", netns="blue")
    until(configurator, configured(configurator, "a"), 40)
    assert can_bind(ONE)
    assert history("a")[-1] == State.CONFIGURED
    assert history("a").count(State.RETRYING) == 1


def _duplicate_at_the_other_end(configurator: Configurator, at: str = ONE) -> None:
    """Have ONE at a, and the foreign address `at` at b."""
    put(configurator, interface("a", "b", ip_addresses=[TWO]), interface("b", "a", "blue"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    ip("addr", "add", at, "dev", "b", "nodad", netns="blue")
    put(configurator, interface("a", "b", ip_addresses=[ONE, TWO]))
    until(configurator, lambda: state_of(configurator, "a") == f"RETRYING: duplicate-address({ONE})", PATIENCE)


def _no_attempt_for_an_hour(configurator: Configurator, name: str) -> None:
    configurator._backoff.put_off([name], time.monotonic() + 3600)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("at", [ONE, "2001:db8::1/128"])
def test_a_duplicate_address_is_tried_again_as_soon_as_the_other_end_has_lost_it(
    configurator: Configurator, at: str
) -> None:
    _duplicate_at_the_other_end(configurator, at)
    settle(configurator)
    _no_attempt_for_an_hour(configurator, "a")
    ip("addr", "del", at, "dev", "b", netns="blue")
    until(configurator, configured(configurator, "a"), PATIENCE)
    assert can_bind(ONE)


@pytest.mark.usefixtures("_quick")
def test_ipv6_that_is_off_for_a_duplicate_mac_is_tried_again_as_soon_as_the_other_end_has_lost_the_address_of_its_mac(
    configurator: Configurator,
) -> None:
    sysctl("", "ipv6/conf/default/accept_dad", "2")
    for where in ("all", "default"):
        sysctl("blue", f"ipv6/conf/{where}/accept_dad", "0")
    mac = "02:00:00:00:00:01"
    put(configurator, interface("a", "b", ip_addresses=[ONE], phys_address=mac))
    put(configurator, interface("b", "a", "blue", phys_address=mac))
    until(configurator, lambda: state_of(configurator, "a") == f"RETRYING: duplicate-mac({ONE})", PATIENCE)
    settle(configurator)
    _no_attempt_for_an_hour(configurator, "a")
    ip("addr", "del", "fe80::ff:fe00:1/64", "dev", "b", netns="blue")
    until(configurator, configured(configurator, "a"), PATIENCE)
    assert can_bind(ONE)


FLAPS = 60


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("address", ["10.9.9.9/24", "2001:db8::9/64", "fe80::9/64"])
def test_another_address_that_flaps_at_the_other_end_is_no_failure_of_a_duplicate_address(
    configurator: Configurator, address: str
) -> None:
    _duplicate_at_the_other_end(configurator)
    settle(configurator)
    _no_attempt_for_an_hour(configurator, "a")
    changes: list[StatusChange] = []
    configurator.subscribe(changes.append)
    failed = configurator._backoff._attempts["a"].failed
    passes = _passes(configurator)
    for _ in range(FLAPS):
        nodad = ["nodad"] if ":" in address else []
        ip("addr", "add", address, "dev", "b", *nodad, netns="blue")
        ip("addr", "del", address, "dev", "b", netns="blue")
        configurator.poll(0)
    assert configurator._backoff._attempts["a"].failed == failed
    assert len([one for one in changes if one.name == "a"]) < FLAPS / 4
    assert _passes(configurator) - passes < FLAPS / 2


@pytest.mark.usefixtures("_quick")
def test_a_duplicate_address_that_flaps_at_the_other_end_is_tried_again_less_and_less_often(
    configurator: Configurator,
) -> None:
    _duplicate_at_the_other_end(configurator)
    settle(configurator)
    passes, begun = _passes(configurator), time.monotonic()
    for _ in range(FLAPS):
        ip("addr", "del", ONE, "dev", "b", netns="blue")
        configurator.poll(0)
        ip("addr", "add", ONE, "dev", "b", "nodad", netns="blue")
        configurator.poll(0)
    # Where it flaps slowly, because `ip` takes a second to start, there may be two passes a second.
    assert _passes(configurator) - passes < max(FLAPS / 2, 2 * (time.monotonic() - begun))
    ip("addr", "del", ONE, "dev", "b", netns="blue")
    until(configurator, configured(configurator, "a"), PATIENCE)


def _passes(configurator: Configurator) -> int:
    return sum(configurator.counters.durations["bout"].counts)


@pytest.mark.usefixtures("_quick")
def test_ipv6_that_the_kernel_has_switched_off_for_a_duplicate_mac_is_retried_and_heals(
    configurator: Configurator, history: Callable[[str], list[State]]
) -> None:
    for netns in ("", "blue"):
        sysctl(netns, "ipv6/conf/default/accept_dad", "2")
    ends = {
        "a": interface("a", "b", ip_addresses=[ONE], phys_address="02:00:00:00:00:01"),
        "b": interface("b", "a", "blue", ip_addresses=[TWO], phys_address="02:00:00:00:00:01"),
    }
    put(configurator, *ends.values())
    until(configurator, lambda: any(one.state is State.RETRYING for one in configurator.status()), PATIENCE)
    loser = next(one for one in configurator.status() if one.state is State.RETRYING)  # of one or both
    assert in_codes(loser) == f"RETRYING: duplicate-mac({ONE if loser.name == 'a' else TWO})"
    # Not that of the other end, which would keep the link-local address of its former MAC while it is up.
    put(configurator, replace(ends[loser.name], phys_address="02:00:00:00:00:02"))
    until(configurator, configured(configurator, "a", "b"), 40)
    assert can_bind(ONE)
    assert can_bind(TWO, "blue")


def test_addresses_of_an_end_whose_peer_is_to_be_down_are_not_waited_for(configurator: Configurator) -> None:
    put(configurator, interface("a", "b", "blue", ip_addresses=[ONE]), interface("b", "a", enabled=False))
    until(configurator, configured(configurator, "a", "b"))
    assert given("a", "blue", ONE)["tentative"]


@pytest.mark.parametrize("address", ["10.0.0.1/24", ONE])
@pytest.mark.parametrize(
    "lifetimes", [("valid_lft", "1000", "preferred_lft", "0"), ("valid_lft", "1000", "preferred_lft", "900")]
)
def test_an_address_that_is_deprecated_or_expires_is_made_permanent_where_it_is(
    configurator: Configurator, address: str, lifetimes: tuple[str, ...]
) -> None:
    sysctl("blue", "ipv6/conf/all/accept_dad", "0")
    sysctl("blue", "ipv6/conf/default/accept_dad", "0")
    both = [address, "10.0.0.9/24"] if "." in address else [address]
    put(configurator, interface("a", "b", "blue", ip_addresses=both), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"))
    ip("addr", "change", address, "dev", "a", *lifetimes, netns="blue")

    def is_permanent() -> bool:
        one = given("a", "blue", address)
        return bool(one) and "deprecated" not in one and one["valid_life_time"] == 2**32 - 1

    assert not is_permanent()
    until(configurator, is_permanent)
    until(configurator, configured(configurator, "a", "b"))
    assert addresses("a", "blue") == both


@pytest.mark.usefixtures("_quick")
def test_an_address_that_is_taken_over_and_over_is_not_given_back_without_a_pause(configurator: Configurator) -> None:
    """Though the interface is PENDING in between, until detection has finished."""
    put(configurator, interface("a", "b", "blue", ip_addresses=[ONE]), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"), PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while state_of(configurator, "a") != "RETRYING: changed-repeatedly(addresses)":
        assert time.monotonic() < deadline
        if given("a", "blue", ONE):
            ip("addr", "del", ONE, "dev", "a", netns="blue")
        configurator.poll(0.02)
    assert poll(lambda: not given("a", "blue", ONE))
