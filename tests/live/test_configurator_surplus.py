"""A tenant that gives its link very many values with the agent's marks: they go, and nobody else waits for that."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, pair, put, settle, state_of, until
from tests.witness import addresses, ip, seen
from vethlib import Session
from vethlib.agent.reconcile.configurator import Configurator

pytestmark = pytest.mark.slow

MANY = 1500
AT_ONCE = 512
IPS = [f"11.{number >> 8}.{number & 255}.1" for number in range(MANY)]
MAC = "02:00:00:00:00:07"


def add_routes() -> None:
    _batch([f"route add {one} dev e proto 118" for one in IPS])


def add_neighbours() -> None:
    _batch([f"neighbour add {one} lladdr {MAC} dev e proto 118" for one in IPS])


def add_addresses() -> None:
    with Session() as tenant:
        tenant.set("e", "blue", add_addresses=[f"{one}/32" for one in IPS], address_proto=0x76)


def _batch(lines: list[str]) -> None:
    subprocess.run(["ip", "-n", "blue", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def routes() -> list[str]:
    return [one["dst"] for one in ip("route", "show", "proto", "118", netns="blue")]


def neighbours() -> list[str]:
    return [one["dst"] for one in ip("neighbour", "show", "nud", "permanent", netns="blue") if one["dev"] == "e"]


class Kind(NamedTuple):
    add: Callable[[], None]
    present: Callable[[], list[str]]
    wanted: str


KINDS = {
    "routes": Kind(add_routes, routes, "10.9.0.0/24"),
    "neighbours": Kind(add_neighbours, neighbours, "10.0.0.9"),
    "addresses": Kind(add_addresses, lambda: addresses("e", "blue"), "10.0.0.1/24"),
}


@pytest.mark.needs_kernel("5.18")  # which marks whose an address is
@pytest.mark.parametrize("field", KINDS)
def test_very_many_values_that_are_not_configured_go_a_few_at_a_time(
    configurator: Configurator, blue: str, field: str
) -> None:
    kind = KINDS[field]
    e = interface(
        "e",
        "f",
        blue,
        ipv6=False,
        ip_addresses=["10.0.0.1/24"],
        routes=[{"dst": "10.9.0.0/24"}],
        neighbours=[{"ip": "10.0.0.9", "mac": MAC}],
    )
    f = interface("f", "e", ipv6=False)
    put(configurator, e, f)
    until(configurator, configured(configurator, "e", "f"))
    kind.add()
    ip("link", "set", "e", "mtu", "1400", netns=blue)
    before = MANY + 1
    until(configurator, lambda: len(kind.present()) < before)
    assert len(kind.present()) >= before - AT_ONCE
    assert state_of(configurator, "e") == f"RETRYING: surplus-left({field})"
    assert seen("e", blue)["mtu"] == 1500
    put(configurator, *pair("x", "y"))
    until(configurator, configured(configurator, "x", "y"))
    assert len(kind.present()) > 1
    assert kind.wanted in kind.present()
    until(configurator, configured(configurator, "e", "f"))
    assert kind.present() == [kind.wanted]
    settle(configurator)


@pytest.mark.parametrize("surplus", [True, False])
def test_what_the_kernel_refuses_the_peer_is_reported_while_surplus_is_removed(
    configurator: Configurator, blue: str, surplus: bool
) -> None:
    e = interface("e", "f", blue, ipv6=False, ip_addresses=["10.0.0.1/24"], routes=[{"dst": "10.9.0.0/24"}])
    f = interface("f", "e", ipv6=False)
    put(configurator, e, f)
    until(configurator, configured(configurator, "e", "f"))
    if surplus:
        add_routes()
    put(configurator, e, interface("f", "e", ipv6=False, routes=[{"dst": "10.77.0.0/16", "via": "192.0.2.1"}]))
    until(configurator, lambda: state_of(configurator, "f") != "CONFIGURED")
    assert (len(routes()) > 1) == surplus
    states = set()

    def is_done() -> bool:
        states.add(state_of(configurator, "f"))
        return len(routes()) == 1 and configured(configurator, "e")()

    until(configurator, is_done)
    assert states == {"RETRYING: netlink-error(ENETUNREACH)"}
    put(configurator, f)
    until(configurator, configured(configurator, "e", "f"))
