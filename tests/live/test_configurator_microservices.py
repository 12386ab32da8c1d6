"""Interfaces in the namespaces of microservices, whose resolver may not answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.live.applying import interface, reaches
from tests.live.configuring import (
    SOON,
    by_label,
    calm,
    configured,
    pending,
    placed,
    put,
    settle,
    state_of,
    until,
    without_ipv6,
)
from tests.slack import slack
from tests.witness import ip, names, nothing_changes
from vethlib import Session
from vethlib.agent import ReasonCode
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import MemoryResolver


@pytest.mark.timing
def test_a_microservice_comes_goes_and_changes_within_50_ms(resolver: MemoryResolver, blue: str, red: str) -> None:
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, placed("port1", "port2", by_label("vnf1")), interface("port2", "port1"))
        settle(configurator)
        took = []
        for netns in ("blue", "red", "blue"):
            resolver.set("vnf1", netns)
            took.append(until(configurator, lambda netns=netns: names(netns) == {"port1"}))  # type: ignore[misc]
            settle(configurator)
            assert names("blue" if netns == "red" else "red") == set()
            assert names() == {"port2"}
            assert configured(configurator, "port1", "port2")()
        resolver.remove("vnf1")
        took.append(until(configurator, pending(configurator, "port1", "port2")))
        assert state_of(configurator, "port1") == "PENDING: microservice-not-running(microservice:vnf1)"
        assert names() == names("blue") == set()
        assert min(took) < SOON + slack()


def test_a_resolver_that_does_not_answer_takes_nothing_down(resolver: MemoryResolver, blue: str, red: str) -> None:
    without_ipv6("blue", "red")
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, placed("port1", "port2", by_label("vnf1"), ip_addresses=("10.0.0.1/24",)))
        put(configurator, interface("port2", "port1", "red", ip_addresses=["10.0.0.2/24"]))
        put(configurator, placed("x", "y", by_label("vnf2")), interface("y", "x"))
        calm(configurator)
        before = [status for status in configurator.status() if status.name.startswith("port")]
        with nothing_changes():
            resolver.down("the engine does not answer")
            settle(configurator)
            configurator.resync()
            settle(configurator)
            configurator.resync(
                [
                    placed("port1", "port2", by_label("vnf1"), ip_addresses=("10.0.0.1/24",)),
                    interface("port2", "port1", "red", ip_addresses=["10.0.0.2/24"]),
                    placed("x", "y", by_label("vnf2")),
                    interface("y", "x"),
                ]
            )
            settle(configurator)
        after = [status for status in configurator.status() if status.name.startswith("port")]
        assert [status.warning_code for status in after] == [ReasonCode.UNCHECKED] * 2
        assert [replace(status, warning="", warning_code="") for status in after] == before
        assert before[0].link is not None
        assert configurator.indexes.index("port1") == before[0].link.index
        assert state_of(configurator, "x") == "PENDING: resolver-down(microservice:vnf2)"
        assert reaches("blue", "10.0.0.2", "red")
        with nothing_changes():
            resolver.up()
            settle(configurator)
        assert configured(configurator, "port1", "port2")()
        assert state_of(configurator, "x") == "PENDING: microservice-not-running(microservice:vnf2)"


def lose_the_resolver(configurator: Configurator, resolver: MemoryResolver) -> None:
    """Once port1, in a microservice, and port2, in red, are configured."""
    put(configurator, placed("port1", "port2", by_label("vnf1")), interface("port2", "port1", "red"))
    settle(configurator)
    resolver.down("away")
    settle(configurator)


def test_what_stopped_while_the_resolver_was_down_is_taken_down_afterwards(
    resolver: MemoryResolver, blue: str, red: str
) -> None:
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        lose_the_resolver(configurator, resolver)
        assert configured(configurator, "port1", "port2")()
        resolver.remove("vnf1")
        settle(configurator)
        assert names("red") == {"port2"}
        resolver.up()
        settle(configurator)
        assert names("red") == names("blue") == set()


@pytest.mark.parametrize("command", ["set port1 mtu 1400", "set port1 down", "del port1"])
def test_a_link_that_others_change_while_the_resolver_is_down_is_not_said_to_stand(
    resolver: MemoryResolver, blue: str, red: str, command: str
) -> None:
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        lose_the_resolver(configurator, resolver)
        ip("link", *command.split(), netns="blue")
        until(configurator, lambda: state_of(configurator, "port1") == "PENDING: resolver-down(microservice:vnf1)")
        resolver.up()
        settle(configurator)
        assert configured(configurator, "port1", "port2")()
        assert names("blue") == {"port1"}


def test_what_is_wanted_otherwise_while_the_resolver_is_down_is_not_said_to_stand(
    resolver: MemoryResolver, blue: str, red: str
) -> None:
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        lose_the_resolver(configurator, resolver)
        configurator.put(placed("port1", "port2", by_label("vnf1"), ip_addresses=("10.0.0.1/24",)))
        settle(configurator)
        assert state_of(configurator, "port1") == "PENDING: resolver-down(microservice:vnf1)"
        assert state_of(configurator, "port2") == "PENDING: resolver-down(microservice:vnf1)"


def test_a_pair_deleted_while_the_resolver_is_down_is_gone_at_the_latest_when_it_answers(
    resolver: MemoryResolver, blue: str, red: str
) -> None:
    """Both its ends are where nobody can say how to get there."""
    resolver.set("vnf1", "blue")
    resolver.set("vnf2", "red")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, placed("p1", "p2", by_label("vnf1")), placed("p2", "p1", by_label("vnf2")))
        put(configurator, placed("x", "y", by_label("vnf1")), placed("y", "x", by_label("vnf2")))
        settle(configurator)
        resolver.down("away")
        settle(configurator)
        configurator.delete("p1")
        configurator.delete("p2")
        settle(configurator)
        resolver.up()
        settle(configurator)
        assert names("blue") == {"x"}
        assert names("red") == {"y"}
