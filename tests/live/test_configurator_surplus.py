"""If a tenant gives its link very many values with the agent's marks, they are removed, and nobody else has to wait."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.live.applying import applied, interface, planned
from tests.live.configuring import configured, pair, put, settle, state_of, until
from tests.witness import addresses, ip, seen
from vethlib import Session
from vethlib._nl.dependents.neighbour import parse_neighbour
from vethlib._nl.dependents.route import parse_route
from vethlib.agent.config.model import Interface
from vethlib.agent.host.execution import execute
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.session.read import further

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


FAR_MORE = 20_000
MANY_FOREIGN = 5000  # more than an agent reads
EIGHT_TIMES = 8 * (AT_ONCE + 1) + 2000  # what is read of a namespace, and a datagram of each table


@pytest.fixture
def most_parsed(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many routes and neighbours have been parsed in each call for the fields of links."""
    parsed = [0]
    fields_many = Session.fields_many

    def counting(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def counted(body: bytes) -> object:
            parsed[-1] += 1
            return parse(body)

        return counted

    def noted(session: Session, *args: Any, **options: Any) -> object:
        parsed.append(0)
        return fields_many(session, *args, **options)

    monkeypatch.setattr(Session, "fields_many", noted)
    for parse in (parse_route, parse_neighbour):
        monkeypatch.setattr(further, parse.__name__, counting(parse))
    return parsed


@pytest.mark.needs_kernel("4.20")
@pytest.mark.parametrize("is_configured", [True, False])
def test_far_more_values_are_not_read_to_their_end(
    configurator: Configurator, blue: str, most_parsed: list[int], is_configured: bool
) -> None:
    field: dict[str, Any] = {"routes": [{"dst": "10.9.0.0/24"}]} if is_configured else {}
    e = interface("e", "f", blue, ipv6=False, ip_addresses=["10.0.0.1/24"], **field)
    put(configurator, e, interface("f", "e", ipv6=False), *pair("x", "y"))
    until(configurator, configured(configurator, "e", "f", "x", "y"))
    _batch([f"route add 12.{n >> 16}.{n >> 8 & 255}.{n & 255} dev e proto 118" for n in range(FAR_MORE)])
    ip("link", "set", "e", "alias", f"vethlib label={configurator.label} name=e more=routes", netns=blue)
    ip("link", "set", "e", "mtu", "1400", netns=blue)
    until(configurator, lambda: state_of(configurator, "e") == "RETRYING: surplus-left(routes)")
    until(configurator, lambda: len(routes()) <= FAR_MORE - AT_ONCE)
    assert AT_ONCE < max(most_parsed) < EIGHT_TIMES
    assert configured(configurator, "x", "y")()
    subprocess.run(["ip", "-n", blue, "route", "flush", "root", "12.0.0.0/8"], check=True)
    until(configurator, configured(configurator, "e", "f"))
    assert routes() == ["10.9.0.0/24"] * is_configured


@pytest.mark.needs_kernel("5.0")
def test_far_more_neighbours_of_another_program_are_reported_for_that_link_only(
    configurator: Configurator, blue: str, most_parsed: list[int]
) -> None:
    neighbours = [{"ip": "10.0.0.9", "mac": MAC}]
    e = interface("e", "f", blue, ipv6=False, ip_addresses=["10.0.0.1/24"], neighbours=neighbours)
    put(configurator, e, interface("f", "e", ipv6=False), *pair("x", "y", blue))
    until(configurator, configured(configurator, "e", "f", "x", "y"))
    _batch([f"neighbour add 12.{n >> 16}.{n >> 8 & 255}.{n & 255} lladdr {MAC} dev e" for n in range(FAR_MORE)])
    ip("link", "set", "e", "mtu", "1400", netns=blue)
    until(configurator, lambda: state_of(configurator, "e") == "RETRYING: netlink-error(netns:blue EFBIG)")
    assert max(most_parsed) < EIGHT_TIMES
    ip("link", "set", "x", "mtu", "1400", netns=blue)
    until(configurator, lambda: seen("x", blue)["mtu"] == 1500)
    assert configured(configurator, "x", "y")()
    put(configurator, *pair("v", "w", blue))
    until(configurator, configured(configurator, "v", "w"))
    subprocess.run(["ip", "-n", blue, "neighbour", "flush", "to", "12.0.0.0/8", "nud", "all"], check=True)
    until(configurator, configured(configurator, "e", "f"))


def foreign_routes() -> int:
    return len(ip("route", "show", "proto", "bird", netns="blue"))


@pytest.mark.needs_kernel("4.20")
def test_a_change_that_may_cost_too_many_routes_of_another_program_is_reported_and_costs_none(
    configurator: Configurator, blue: str
) -> None:
    e = interface("e", "f", blue, ip_addresses=["10.0.0.1/24"], routes=[{"dst": "10.9.0.0/24"}])
    put(configurator, e, interface("f", "e"), *pair("x", "y", blue))
    until(configurator, configured(configurator, "e", "f", "x", "y"))
    _batch([f"route add 12.{n >> 16}.{n >> 8 & 255}.{n & 255} dev e proto bird" for n in range(MANY_FOREIGN)])
    refused = [{"dst": "10.9.0.0/24"}, {"dst": "10.8.0.0/24", "via": "99.0.0.9"}]
    put(configurator, interface("e", "f", blue, ip_addresses=["10.0.0.2/24"], routes=refused))
    until(configurator, lambda: state_of(configurator, "e") == "RETRYING: netlink-error(netns:blue EFBIG)")
    assert (addresses("e", blue), routes(), foreign_routes()) == (["10.0.0.1/24"], ["10.9.0.0/24"], MANY_FOREIGN)
    ip("link", "set", "x", "mtu", "1400", netns=blue)
    until(configurator, lambda: seen("x", blue)["mtu"] == 1500)
    put(configurator, interface("e", "f", blue, ip_addresses=["10.0.0.2/24"], routes=[{"dst": "10.9.0.0/24"}]))
    subprocess.run(["ip", "-n", blue, "route", "flush", "root", "12.0.0.0/8"], check=True)
    until(configurator, configured(configurator, "e", "f"))
    assert addresses("e", blue) == ["10.0.0.2/24"]


def test_apply_restores_any_number_of_routes_of_another_program(session: Session, blue: str) -> None:
    def ends(address: str, *more: dict[str, str]) -> list[Interface]:
        fields: dict[str, Any] = {"ip_addresses": [address], "routes": [{"dst": "10.9.0.0/24"}, *more]}
        return [interface("e", "f", blue, **fields), interface("f", "e")]

    applied(session, *ends("10.0.0.1/24"))
    _batch([f"route add 12.{n >> 16}.{n >> 8 & 255}.{n & 255} dev e proto bird" for n in range(MANY_FOREIGN)])
    refused = execute(session, planned(session, *ends("10.0.0.2/24", {"dst": "10.8.0.0/24", "via": "99.0.0.9"})))
    assert [getattr(error, "errno", 0) for _, error in refused.errors] == [errno.ENETUNREACH]
    assert (addresses("e", blue), routes(), foreign_routes()) == (["10.0.0.1/24"], ["10.9.0.0/24"], MANY_FOREIGN)
    applied(session, *ends("10.0.0.2/24"))
    assert (addresses("e", blue), routes(), foreign_routes()) == (["10.0.0.2/24"], ["10.9.0.0/24"], MANY_FOREIGN)
