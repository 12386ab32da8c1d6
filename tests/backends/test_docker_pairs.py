"""Pairs into containers, kept by a configurator: they start and end with the containers, and outlive the engine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backends.engine import Container, Engine
from tests.live.applying import interface, reaches
from tests.live.configuring import (
    by_label,
    configured,
    is_state,
    placed,
    put,
    requests,
    settle,
    state_of,
    states,
    until,
)
from tests.programs import freeze
from tests.reasons import in_codes
from tests.slack import slack
from tests.witness import addresses, names, poll, seen
from vethlib import End, Session, Veth, ns
from vethlib.agent import DockerResolver, Interface, State
from vethlib.agent.reconcile.configurator import Configurator

pytestmark = pytest.mark.slow

PROMPT = 0.1  # seconds from what the engine tells to what the kernel has


@pytest.fixture
def configurator(home: ns.Netns, resolver: DockerResolver) -> Iterator[Configurator]:
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        yield configurator


def port(label: str = "vnf1", number: int = 1) -> tuple[Interface, Interface]:
    """A pair between a microservice and home, with addresses: port1 is eth9 there, 10.9.1.1/24."""
    name, peer = f"port{number}", f"uplink{number}"
    return (
        placed(name, peer, by_label(label), host_if_name="eth9", ip_addresses=(f"10.9.{number}.1/24",)),
        interface(peer, name, ip_addresses=[f"10.9.{number}.2/24"]),
    )


def pending(configurator: Configurator, *interfaces: str) -> Callable[[], bool]:
    return is_state(configurator, State.PENDING, *interfaces)


def says(configurator: Configurator, text: str, name: str = "port1") -> Callable[[], bool]:
    def said() -> bool:
        return any(text in f"{in_codes(status)}{status.reason}{status.warning}" for status in configurator.status(name))

    return said


def while_it_happens(configurator: Configurator, act: Callable[[], object], condition: Callable[[], object]) -> float:
    """Keep the host until `condition` holds, while somebody else acts; returns when it did, in seconds since 1970."""
    acting = threading.Thread(target=act)
    acting.start()
    try:
        until(configurator, condition)
        return time.time()
    finally:
        acting.join()


def indexes(container: Container) -> tuple[int, int]:
    return seen("eth9", container.netns)["ifindex"], seen("uplink1")["ifindex"]


# --- coming and going


@pytest.mark.timing
def test_a_pair_is_up_within_100_ms_of_the_start_and_gone_within_100_ms_of_the_end(
    configurator: Configurator, engine: Engine
) -> None:
    put(configurator, *port())
    until(configurator, says(configurator, "microservice-not-running(microservice:vnf1)"))
    container = engine.create("vnf", "vnf1")
    starting, ending = [], []
    for _ in range(3):
        came = while_it_happens(configurator, container.start, lambda: "uplink1" in names())
        starting.append(came - engine.event(container, "start"))
        assert names(container.netns) == {"eth9"}
        settle(configurator)
        assert configured(configurator, "port1", "uplink1")()
        went = while_it_happens(configurator, container.kill, lambda: names() == set())
        ending.append(went - engine.event(container, "die"))
        until(configurator, says(configurator, "microservice-not-running(microservice:vnf1)"))
    print(f"after the start: {starting}, after the end: {ending}")
    assert min(starting) < PROMPT + slack()
    assert min(ending) < PROMPT + slack()


def test_stopped_and_started_twice_it_carries_traffic_each_time(configurator: Configurator, engine: Engine) -> None:
    put(configurator, *port())
    container = engine.create("vnf", "vnf1")
    for _ in range(2):
        container.start()
        until(configurator, configured(configurator, "port1", "uplink1"))
        assert reaches("", "10.9.1.1", container.netns)
        assert reaches(container.netns, "10.9.1.2", "")
        container.stop()
        until(configurator, pending(configurator, "port1", "uplink1"))
        assert states(configurator) == {
            "port1": "PENDING: microservice-not-running(microservice:vnf1)",
            "uplink1": "PENDING: microservice-not-running(microservice:vnf1)",
        }
        assert names() == set()


def test_both_ends_in_containers_as_two_vnfs_have_them(configurator: Configurator, engine: Engine) -> None:
    put(
        configurator,
        placed("port1", "vnf1_port1", by_label("vnf1"), ip_addresses=("10.9.1.1/24",)),
        placed("vnf1_port1", "port1", by_label("vswitch"), ip_addresses=("10.9.1.2/24",)),
    )
    vnf = engine.run("vnf", "vnf1")
    until(configurator, says(configurator, "microservice-not-running(microservice:vswitch)"))
    vswitch = engine.run("vswitch", labels={"microservice_label": "vswitch"})
    until(configurator, configured(configurator, "port1", "vnf1_port1"))
    assert reaches(vnf.netns, "10.9.1.2", vswitch.netns)
    vswitch.kill()
    until(configurator, pending(configurator, "port1", "vnf1_port1"))
    assert names(vnf.netns) == set()


def test_a_pair_is_made_again_in_a_container_restarted_in_place(configurator: Configurator, engine: Engine) -> None:
    put(configurator, *port())
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    for _ in range(3):
        before = container.pid
        while_it_happens(configurator, container.restart, lambda: container.pid not in (0, before))  # noqa: B023
        until(configurator, lambda: names() == {"uplink1"} and names(container.netns) == {"eth9"})
        until(configurator, configured(configurator, "port1", "uplink1"))
        assert reaches("", "10.9.1.1", container.netns)


def test_a_pair_is_made_again_in_a_container_started_again_before_anybody_looked(
    configurator: Configurator, engine: Engine
) -> None:
    """Within a second, and all its events are read at once."""
    put(configurator, *port())
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    container.kill()
    container.start()
    settle(configurator)
    until(configurator, lambda: names() == {"uplink1"} and names(container.netns) == {"eth9"})
    until(configurator, configured(configurator, "port1", "uplink1"))
    assert reaches("", "10.9.1.1", container.netns)


def test_a_paused_container_keeps_its_pair_untouched(
    configurator: Configurator, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *port())
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    before = indexes(container)
    with requests(monkeypatch) as sent:
        for act in (container.pause, container.unpause, lambda: container.rename("renamed")):
            act()
            settle(configurator)
            assert configured(configurator, "port1", "uplink1")()
    assert sent == []
    assert indexes(container) == before
    assert reaches("", "10.9.1.1", container.netns)


def test_a_container_replaced_by_one_with_another_label_loses_its_pair_to_that_label(
    configurator: Configurator, engine: Engine
) -> None:
    put(configurator, *port(), *port("vnf2", 2))
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    container.remove()
    replacement = engine.run("vnf", "vnf2")
    until(configurator, configured(configurator, "port2", "uplink2"))
    until(configurator, pending(configurator, "port1", "uplink1"))
    assert names() == {"uplink2"}
    assert names(replacement.netns) == {"eth9"}


# --- the engine


def test_an_engine_that_is_killed_and_started_again_touches_no_pair(
    configurator: Configurator, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *port(), *port("vnf2", 2))
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    before, netns = indexes(container), container.netns
    with requests(monkeypatch) as sent:
        for end in (engine.kill9, engine.stop):
            end()
            until(configurator, says(configurator, "Docker Engine"))
            until(configurator, says(configurator, "Docker Engine", "port2"))
            configurator.resync()
            settle(configurator)
            assert reaches("", "10.9.1.1", netns)
            engine.up()
            until(configurator, says(configurator, "microservice-not-running(microservice:vnf2)", "port2"))
            assert configured(configurator, "port1", "uplink1")()
            assert [status.warning for status in configurator.status("port1")] == [""]
    assert sent == []
    assert indexes(container) == before
    assert container.netns == netns
    assert reaches("", "10.9.1.1", netns)


def test_a_container_that_ends_while_the_engine_is_away_takes_its_pair_at_once(
    configurator: Configurator, engine: Engine
) -> None:
    """Its process is heard of, whoever started it."""
    put(configurator, *port(), *port("vnf2", 2))
    dies, lives = engine.run("dies", "vnf1"), engine.run("lives", "vnf2")
    until(configurator, configured(configurator, "port1", "port2"))
    pid, netns = dies.pid, lives.netns
    kept = seen("uplink2")["ifindex"]
    engine.kill9()
    until(configurator, says(configurator, "Docker Engine"))
    os.kill(pid, signal.SIGKILL)
    until(configurator, lambda: names() == {"uplink2"})
    settle(configurator)
    assert state_of(configurator, "port1") == "PENDING: microservice-not-running(microservice:vnf1)"
    engine.up()
    until(configurator, configured(configurator, "port2"))
    assert state_of(configurator, "port1") == "PENDING: microservice-not-running(microservice:vnf1)"
    assert (seen("uplink2")["ifindex"], lives.netns) == (kept, netns)
    dies.start()
    until(configurator, configured(configurator, "port1", "uplink1"))
    assert reaches("", "10.9.1.1", dies.netns)


def test_the_end_of_its_process_is_enough_though_the_engine_does_not_tell(
    configurator: Configurator, engine: Engine
) -> None:
    put(configurator, *port())
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    pid = container.pid
    freeze(engine.pid)
    try:
        os.kill(pid, signal.SIGKILL)
        until(configurator, lambda: names() == set())
        settle(configurator)
        assert state_of(configurator, "port1") == "PENDING: microservice-not-running(microservice:vnf1)"
        assert state_of(configurator, "uplink1") == "PENDING: microservice-not-running(microservice:vnf1)"
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    assert poll(lambda: container.pid == 0)
    container.start()
    until(configurator, configured(configurator, "port1", "uplink1"))


def test_an_engine_that_comes_late_has_its_containers_wired(make_engine: Callable[[], Engine]) -> None:
    engine = make_engine()
    resolver = DockerResolver(engine.socket)
    try:
        with Session(resolver=resolver) as session, Configurator(session) as configurator:
            put(configurator, *port())
            put(configurator, interface("a", "b"), interface("b", "a", "blue"))
            until(configurator, configured(configurator, "a", "b"))
            until(configurator, says(configurator, "resolver-down(microservice:vnf1)"))
            engine.up()
            until(configurator, says(configurator, "microservice-not-running(microservice:vnf1)"))
            container = engine.run("vnf", "vnf1")
            until(configurator, configured(configurator, "port1", "uplink1"))
            assert names(container.netns) == {"eth9"}
    finally:
        resolver.close()


def test_another_agent_after_this_one_touches_no_pair(
    home: ns.Netns, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins by not knowing what its labels stand for."""
    container = engine.run("vnf", "vnf1")
    before = None
    for _ in range(3):
        resolver = DockerResolver(engine.socket)
        with (
            requests(monkeypatch) as sent,
            Session(resolver=resolver) as session,
            Configurator(session) as configurator,
        ):
            configurator.resync(port())
            configurator.poll(0)
            until(configurator, configured(configurator, "port1", "uplink1"))
        resolver.close()
        assert before is None or sent == []
        assert before is None or before == indexes(container)
        before = indexes(container)


# --- two with one label, and two in one namespace


def test_the_status_says_that_two_have_one_label_while_it_lasts(configurator: Configurator, engine: Engine) -> None:
    def warning() -> str:
        (status,) = configurator.status("port1")
        return status.warning

    put(configurator, *port())
    first, second = engine.run("first", "vnf1"), engine.create("second", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    before = indexes(first)
    assert warning() == ""
    second.start()
    until(configurator, warning)
    assert [name in warning() for name in ("vnf1", "first", "second")] == [True] * 3
    (status,) = configurator.status("port1")
    assert status.warning_code == "resolver-remark"
    assert (status.state, status.reason, status.as_dict()["warning"]) == (State.CONFIGURED, "", warning())
    assert indexes(first) == before
    assert names(second.netns) == set()
    first.kill()
    until(configurator, lambda: names() == {"uplink1"} and names(second.netns) == {"eth9"})
    until(configurator, lambda: configured(configurator, "port1")() and not warning())
    assert "warning" not in configurator.status("port1")[0].as_dict()
    assert reaches("", "10.9.1.1", second.netns)


def test_a_second_one_that_ends_leaves_no_warning_and_the_pair_untouched(
    configurator: Configurator, engine: Engine
) -> None:
    put(configurator, *port())
    first, second = engine.run("first", "vnf1"), engine.run("second", "vnf1")
    until(configurator, lambda: [one for one in configurator.status("port1") if one.warning])
    until(configurator, configured(configurator, "port1", "uplink1"))
    before = indexes(first)
    second.kill()
    until(configurator, lambda: not configurator.status("port1")[0].warning)
    assert indexes(first) == before
    assert configured(configurator, "port1", "uplink1")()


def test_two_labels_may_stand_for_one_namespace(configurator: Configurator, engine: Engine) -> None:
    first = engine.run("first", "vnf1")
    second = engine.run("second", "vnf2", network=f"container:{first.id}")
    assert first.pid != second.pid
    put(configurator, placed("a", "b", by_label("vnf1")), placed("b", "a", by_label("vnf2")))
    put(configurator, *port())
    until(configurator, configured(configurator, "a", "b", "port1", "uplink1"))
    assert names(first.netns) == {"a", "b", "eth9"}
    assert seen("a", second.netns)["link"] == "b"
    second.kill()  # the namespace lives on, and so does what only the first is named for
    until(configurator, pending(configurator, "a", "b"))
    assert configured(configurator, "port1", "uplink1")()
    assert names(first.netns) == {"eth9"}


def test_a_container_in_the_network_of_the_host_is_at_home(make_engine: Callable[[], Engine]) -> None:
    engine = make_engine()
    engine.up()
    container = engine.run("vnf", "vnf1", network="host")
    resolver = DockerResolver(engine.socket)
    try:
        with Session(resolver=resolver) as session, Configurator(session) as configurator:
            put(configurator, *port())
            until(configurator, configured(configurator, "port1", "uplink1"))
            assert session.identity("microservice:vnf1") == session.identity("")
            assert names() == {"eth9", "uplink1"}
            assert addresses("eth9") == ["10.9.1.1/24"]
            container.kill()
            until(configurator, pending(configurator, "port1", "uplink1"))
            assert names() == set()
    finally:
        resolver.close()


# --- nothing is kept


def test_the_namespace_of_a_stopped_container_ends_though_an_agent_was_in_it(
    configurator: Configurator, engine: Engine
) -> None:
    """Its links go with it: also one that nobody manages."""
    put(configurator, *port())
    container = engine.run("vnf", "vnf1")
    until(configurator, configured(configurator, "port1", "uplink1"))
    with Session() as other:
        other.create(Veth(End("theirs"), End("theirs2", container.netns)))
    settle(configurator)
    assert names() == {"uplink1", "theirs"}
    container.kill()
    assert poll(lambda: names() == set())
    until(configurator, pending(configurator, "port1", "uplink1"))
