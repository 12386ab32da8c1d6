"""A kernel without IPv6 answers a request for its routes with those of all families that it has.

Such a kernel has no handler for AF_INET6, so rtnetlink takes that of PF_UNSPEC. No kernel has one for AF_X25, so that
every kernel answers a request of that family in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from socket import AF_INET, AF_INET6

import pytest

from tests.witness import ip
from vethlib import End, Route, Session, Veth
from vethlib.session.read import dependents, further
from vethlib.topology import Topology
from vethlib.topology.live import state

AF_X25 = 9


@pytest.fixture(autouse=True)
def _without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(dump: Callable[..., bytes]) -> Callable[..., bytes]:
        return lambda family, *over: dump(AF_X25 if family == AF_INET6 else family, *over)

    for module, name in ((dependents, "dump_routes_over"), (further, "dump_routes_over"), (state, "dump_routes")):
        monkeypatch.setattr(module, name, without(getattr(module, name)))


def test_the_routes_of_a_link_are_read_once(session: Session, blue: str) -> None:
    routes = (Route("10.5.0.0/16", via="10.0.0.2"), Route("10.6.0.0/16", via="10.0.0.2"))
    pair = session.create(Veth(End("a", blue, addresses=["10.0.0.1/24"], routes=routes), End("b", blue)))
    assert session.fields("a", blue)["routes"] == routes
    session.set("a", blue, routes=routes[:1])
    assert session.fields("a", blue)["routes"] == routes[:1]
    listed = ip("-j", "route", "show", "dev", "a", "proto", "118", netns=blue)
    assert [route["dst"] for route in listed] == ["10.5.0.0/16"]
    ip("route", "add", "10.9.0.0/24", "via", "10.0.0.2", "dev", "a", netns=blue)
    assert [each.routes for each in session.dependents([(blue, pair.a.index)])] == [1]


def test_the_routes_of_a_node_are_listed_once() -> None:
    with Topology.build("a -- r -- b", routes=True) as net:
        routes = state._routes(net["a"])
        listed = json.loads(net["a"].run(["ip", "-j", "route"], capture_output=True, text=True).stdout)
        assert len([route for route in routes if route.family == AF_INET]) == len(listed) == 2
        assert len(set(routes)) == len(routes)
