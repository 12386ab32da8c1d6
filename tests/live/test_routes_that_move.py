"""Routes that an agent moves between interfaces, and those whose source is an address of another interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, put, settle, until, without_detection
from tests.witness import ip
from vethlib import Session
from vethlib.agent import Configurator, Interface

Moved = Callable[..., list[Interface]]


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    without_detection(blue)
    with Configurator(session) as configurator:
        yield configurator


def pairs(routes: dict[str, list[dict[str, Any]]], addresses: dict[str, list[str]]) -> list[Interface]:
    """The pairs a/aa and b/bb, with these routes and further addresses."""
    found = []
    for number, name in enumerate("ab", 1):
        given = [f"10.0.{number}.1/24", f"fd00:{number}::1/64", *addresses.get(name, ())]
        found.append(interface(name, 2 * name, "blue", ip_addresses=given, routes=routes.get(name, [])))
        found.append(interface(2 * name, name, "blue"))
    return found


def routes() -> list[tuple[str, str]]:
    found = [each for family in ("-4", "-6") for each in ip(family, "route", "show", "proto", "118", netns="blue")]
    return sorted((each["dst"], each["dev"]) for each in found)


DEFAULT = {name: [{"dst": "default", "via": f"10.0.{n}.9"}, {"dst": "fd77::/48"}] for n, name in ((1, "a"), (2, "b"))}


@pytest.mark.parametrize(("before", "after"), ["ab", "ba"])
def test_an_agent_moves_a_route_without_a_refusal(configurator: Configurator, before: str, after: str) -> None:
    put(configurator, *pairs({before: DEFAULT[before]}, {}))
    until(configurator, configured(configurator, "a", "b", "aa", "bb"))
    settle(configurator)
    assert routes() == [("default", before), ("fd77::/48", before)]
    put(configurator, *pairs({after: DEFAULT[after]}, {}))
    until(configurator, lambda: routes() == [("default", after), ("fd77::/48", after)])
    settle(configurator)
    assert configured(configurator, "a", "b", "aa", "bb")()
    assert not configurator.counters.failed


@pytest.mark.parametrize(("route", "source"), ["ab", "ba"])
@pytest.mark.parametrize("exist", [False, True])
@pytest.mark.parametrize(("network", "address"), [("10.5.0.0/16", "10.9.9.9/24"), ("fd55::/48", "fd99::9/64 nodad")])
def test_an_agent_adds_a_route_whose_source_another_interface_gets(
    configurator: Configurator, route: str, source: str, exist: bool, network: str, address: str
) -> None:
    if exist:
        put(configurator, *pairs({}, {}))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
    given = [{"dst": network, "src": address.partition("/")[0]}]
    put(configurator, *pairs({route: given}, {source: [address]}))
    until(configurator, lambda: routes() == [(network, route)])
    settle(configurator)
    assert configured(configurator, "a", "b", "aa", "bb")()
    # An IPv6 address is tentative for a moment, even if it is not checked.
    assert ":" in network or not configurator.counters.failed
    put(configurator, *pairs({}, {}))
    until(configurator, lambda: routes() == [])
