"""Routes that wait for their source: an operation is carried out without them, and the cost of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.proportion import is_proportional
from tests.unit.host_model import Host
from tests.unit.planning import VETH1, VETH2, applied, change, planned, two_namespaces
from vethlib import End, Route, Veth
from vethlib.agent import CreatePair, Interface
from vethlib.agent.planning.later.sources import create_without_waiting_routes, without_waiting_routes

ONE = "2001:db8::1"
FROM_ONE = Route("2001:db8:7::/64", via="2001:db8::2", src=ONE)
OTHER = Route("2001:db8:8::/64", via="2001:db8::2")


def routes(number: int) -> tuple[Route, ...]:
    return tuple(Route(f"2001:db8:{each:x}::/64", src=ONE) for each in range(1, number + 1))


@pytest.fixture
def host() -> Host:
    host = two_namespaces()
    for kind in ("vrf", "bridge"):
        host.add(host.places["netns:ns1"], kind, kind=kind)
    return host


def end(name: str, peer: str, number: int = 0) -> Interface:
    return Interface(name, peer, enabled=True, ip_addresses=(f"{ONE}/64",), routes=routes(number))


def test_very_many_waiting_routes_are_left_out_of_a_creation_in_proportion_to_their_number() -> None:
    def work(number: int) -> None:
        veth = Veth(End("a", addresses=[f"{ONE}/64"], routes=each[number]), End("b"))
        assert not create_without_waiting_routes(CreatePair(a, b, veth)).veth.a.routes

    a, b = end("a", "b"), end("b", "a")
    each = {number: routes(number) for number in (512, 4096)}
    assert is_proportional(work, 512)


def test_very_many_waiting_routes_are_left_out_of_a_change_in_proportion_to_their_number(host: Host) -> None:
    def work(number: int) -> None:
        rest, reason = without_waiting_routes(operations[number], observed)
        assert reason is not None
        assert "routes" not in rest.changes

    applied(host, VETH1, VETH2)
    observed = host.observe()
    desired = {number: replace(VETH1, ip_addresses=(f"{ONE}/64",), routes=routes(number)) for number in (512, 4096)}
    operations = {number: change(planned(host, each, VETH2)) for number, each in desired.items()}
    assert is_proportional(work, 512)


def left(host: Host, before: dict[str, Any], after: dict[str, Any]) -> set[Route] | None:
    """Return the routes that a change sets; None if it sets none."""
    applied(host, replace(VETH1, **before), VETH2)
    operation = change(planned(host, replace(VETH1, **after), VETH2))
    rest, reason = without_waiting_routes(operation, host.observe())
    assert (reason is None) == (rest is operation)
    return set(rest.changes["routes"][1]) if "routes" in rest.changes else None


BOTH: dict[str, Any] = {"ip_addresses": [f"{ONE}/64"], "routes": [FROM_ONE, OTHER]}
TWO: dict[str, Any] = BOTH | {"ip_addresses": ["2001:db8::5/64", f"{ONE}/64"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BOTH | {"routes": []}, BOTH | {"ip_addresses": [f"{ONE}/48"]}),
        (BOTH, BOTH | {"ip_addresses": [f"{ONE}/48"]}),
        (BOTH, BOTH | {"ip_addresses": ["2001:db8::9/64", f"{ONE}/48"]}),
        (BOTH, BOTH | {"master": "vrf"}),
        (BOTH, BOTH | {"link_only": True, "ip_addresses": [], "master": "vrf"}),
        # The kernel lists the latest address first, so to put one at the end adds the others again.
        (TWO, TWO | {"ip_addresses": TWO["ip_addresses"][::-1]}),
        (BOTH | {"routes": []}, TWO | {"ip_addresses": TWO["ip_addresses"][::-1]}),
    ],
)
def test_routes_wait_if_the_change_itself_adds_their_source_again(
    host: Host, before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert left(host, before, after) == {OTHER}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BOTH | {"routes": []}, TWO),
        (TWO | {"ip_addresses": TWO["ip_addresses"][::-1]}, TWO),
        (BOTH | {"routes": []}, BOTH | {"ip_addresses": [f"{ONE}/64", "10.0.0.1/24"]}),
        (BOTH | {"routes": []}, BOTH | {"master": "bridge"}),
        (BOTH | {"ip_addresses": [f"{ONE}/64", "10.0.0.1/24"]}, BOTH | {"ip_addresses": [f"{ONE}/64", "10.0.0.1/16"]}),
        (BOTH | {"ip_addresses": [f"{ONE}/64", "2001:db8:1::1/64"]}, BOTH),
    ],
)
def test_routes_do_not_wait_if_their_source_stays(host: Host, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert left(host, before, after) == {FROM_ONE, OTHER}
