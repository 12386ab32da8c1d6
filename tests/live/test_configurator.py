"""An agent at work, as its users see it: pairs are created when both ends are desired, changed, and deleted."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.applying import LABEL, example, interface, reaches
from tests.live.configuring import (
    by_file,
    by_label,
    by_pid,
    calm,
    configured,
    foreign,
    pair,
    placed,
    put,
    settle,
    state_of,
    states,
    until,
    without_ipv6,
)
from tests.live.configuring import requests as changing_requests
from tests.witness import addresses, ip, names, nothing_changes, poll, seen, settled
from vethlib import IfIndexCache, Session, ns
from vethlib._nl.const import RTM_DELLINK
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower, MemoryResolver
from vethlib.ns import Netns

MAC = "d2:74:8c:12:67:d2"


def connection(server_at: str, address: str, client_at: str) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection from one namespace to `address` in another."""
    with ns.entered(server_at):
        listener = socket.create_server((address, 0))
    with listener, ns.entered(client_at):
        client = socket.create_connection(listener.getsockname(), timeout=20)
        server, _ = listener.accept()
    server.settimeout(20)
    return client, server


def talks(client: socket.socket, server: socket.socket) -> bool:
    client.sendall(b"ping")
    heard = server.recv(16)
    server.sendall(b"pong")
    return (heard, client.recv(16)) == (b"ping", b"pong")


def counters(name: str, netns: str = "") -> int:
    packets: int = seen(name, netns)["stats64"]["tx"]["packets"]
    return packets


# --- one pair, from its first end to its last


def test_one_end_put_builds_nothing_and_says_what_it_waits_for(configurator: Configurator) -> None:
    configurator.put(interface("veth1", "veth2", "ns1"))
    with nothing_changes():
        told = settle(configurator)
    assert [str(status.state) for status in told.values() if status] == ["PENDING"]
    assert states(configurator) == {"veth1": "PENDING: peer-not-configured(veth2)"}
    assert ns.names() == []  # only creating a pair may create a namespace


def test_the_other_end_put_builds_both_with_mac_mtu_and_addresses_and_they_are_up(configurator: Configurator) -> None:
    veth1, veth2 = example("pair")
    for one in (veth1, veth2):
        configurator.put(one)
        told = settle(configurator)
    assert told.keys() == {"veth1", "veth2"}
    until(configurator, configured(configurator, "veth1", "veth2"))  # IPv6 addresses are checked for duplicates
    end, other = seen("veth1", "ns1"), seen("veth2", "ns2")
    assert (end["address"], end["mtu"], other["mtu"]) == (MAC, veth1.mtu, veth2.mtu)
    assert set(addresses("veth1", "ns1")) == set(veth1.ip_addresses)
    assert addresses("veth2", "ns2") == list(veth2.ip_addresses)
    assert "UP" in end["flags"]
    assert "UP" in other["flags"]
    until(configurator, lambda: configurator.status("veth1")[0].link.operstate == "up")  # type: ignore[union-attr]
    status, peer = configurator.status()
    assert status.link is not None
    assert peer.link is not None
    assert (status.link.index, status.peer_index) == (end["ifindex"], other["ifindex"])
    assert (peer.link.index, peer.peer_index) == (other["ifindex"], end["ifindex"])
    assert (status.link.mac, status.link.mtu, status.netns, status.host_name) == (MAC, 1500, "netns:ns1", "veth1")


@pytest.mark.parametrize("gone", ["a", "b"])
def test_one_end_deleted_takes_both_and_no_other_pair(configurator: Configurator, gone: str) -> None:
    put(configurator, *pair("a", "b", "ns1", "ns2"), *pair("x", "y", "ns1", "ns2"))
    settle(configurator)
    others = seen("x", "ns1"), seen("y", "ns2")
    configurator.delete(gone)
    told = settle(configurator)
    stays = "b" if gone == "a" else "a"
    assert told[gone] is None
    assert state_of(configurator, stays) == f"PENDING: peer-not-configured({gone})"
    assert state_of(configurator, gone) == ""
    assert (names("ns1"), names("ns2")) == ({"x"}, {"y"})
    assert [settled(link) for link in (seen("x", "ns1"), seen("y", "ns2"))] == [settled(link) for link in others]


def test_put_again_after_it_was_deleted_traffic_flows(configurator: Configurator) -> None:
    veth1, veth2 = example("pair")
    put(configurator, veth1, veth2)
    settle(configurator)
    for _ in range(2):
        configurator.delete("veth2")
        settle(configurator)
        assert names("ns1") == names("ns2") == set()
        configurator.put(veth2)
        settle(configurator)
        assert reaches("ns1", "192.168.22.2", "ns2")


@pytest.mark.parametrize(("order"), [("a", "b"), ("b", "a")])
def test_the_order_in_which_the_ends_arrive_does_not_matter(configurator: Configurator, order: tuple[str, str]) -> None:
    ends = dict(zip("ab", pair("a", "b", "ns1", mtu=1400), strict=True))
    for name in order:
        configurator.put(ends[name])
        settle(configurator)
    assert (seen("a", "ns1")["mtu"], seen("b")["mtu"]) == (1400, 1400)


def test_one_end_enabled_and_the_other_not_is_lowerlayerdown_and_down(configurator: Configurator) -> None:
    """In one namespace: default_operstate (net/core/link_watch.c) looks for the other end in the link's own."""
    put(configurator, interface("a", "b", "ns1"), interface("b", "a", "ns1", enabled=False))
    settle(configurator)
    assert states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"}
    assert poll(lambda: seen("a", "ns1")["operstate"] == "LOWERLAYERDOWN")
    assert seen("b", "ns1")["operstate"] == "DOWN"
    assert "UP" in seen("a", "ns1")["flags"]
    assert "UP" not in seen("b", "ns1")["flags"]
    configurator.put(interface("b", "a", "ns1"))
    settle(configurator)
    assert poll(lambda: seen("a", "ns1")["operstate"] == seen("b", "ns1")["operstate"] == "UP")


# --- a live pair


def test_mac_address_prefix_and_mtu_change_in_one_go_and_nothing_else(configurator: Configurator) -> None:
    put(configurator, *pair("x", "y", "ns1"))
    a, b = interface("a", "b", "ns1", ip_addresses=["10.0.0.1/24"]), interface("b", "a", "ns2", mtu=1400)
    put(configurator, a, b)
    settle(configurator)
    before = {place: {n: settled(seen(n, place)) for n in names(place)} for place in ("", "ns1", "ns2")}
    configurator.put(
        interface("a", "b", "ns1", phys_address=MAC, mtu=1300, ip_addresses=["10.0.1.1/16", "2001:db8::1/64"])
    )
    told = settle(configurator)
    # Both statuses have the warning that their MTUs differ.
    assert {name for name, status in told.items() if status and status.warnings} == {"a", "b"}
    after = {place: {n: settled(seen(n, place)) for n in names(place)} for place in ("", "ns1", "ns2")}
    was, now = before["ns1"].pop("a"), after["ns1"].pop("a")
    assert before == after
    assert now["ifindex"] == was["ifindex"]
    assert (now["address"], now["mtu"]) == (MAC, 1300)
    assert set(addresses("a", "ns1")) == {"10.0.1.1/16", "2001:db8::1/64"}


def test_a_kernel_name_changes_in_place(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "ns1"))
    settle(configurator)
    index = seen("a", "ns1")["ifindex"]
    configurator.put(interface("a", "b", "ns1", host_if_name="eth0"))
    settle(configurator)
    assert names("ns1") == {"eth0"}
    assert seen("eth0", "ns1")["ifindex"] == index
    assert configurator.status("a")[0].host_name == "eth0"


def test_one_end_of_a_home_pair_moves_and_the_mtu_of_the_other_changes_in_one_transaction(
    configurator: Configurator,
) -> None:
    put(configurator, *pair("a", "b"))
    settle(configurator)
    put(configurator, interface("a", "b", "ns1"), interface("b", "a", mtu=1400))
    settle(configurator)
    assert (names("ns1"), names()) == ({"a"}, {"b"})
    assert seen("b")["mtu"] == 1400
    assert states(configurator) == {"a": "CONFIGURED", "b": "CONFIGURED"}


def test_two_pairs_swap_their_peers(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "ns1"), *pair("c", "d", "ns2"))
    settle(configurator)
    put(configurator, *pair("a", "d", "ns1"), *pair("c", "b", "ns2"))
    settle(configurator)
    assert set(states(configurator).values()) == {"CONFIGURED"}
    assert seen("a", "ns1")["link_index"] == seen("d")["ifindex"]
    assert seen("c", "ns2")["link_index"] == seen("b")["ifindex"]


def test_a_name_goes_from_one_interface_to_another_when_the_first_is_deleted(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "ns1", host_if_name="eth0")[:1], interface("b", "a"))
    put(configurator, interface("c", "d", "ns1", host_if_name="eth0"), interface("d", "c"))
    settle(configurator)
    assert state_of(configurator, "c") == "FAILED: name-claimed(a)"
    assert state_of(configurator, "d") == "PENDING: peer-failed(c)"
    configurator.delete("a")
    settle(configurator)
    assert [state_of(configurator, name) for name in "cd"] == ["CONFIGURED"] * 2
    assert seen("eth0", "ns1")["link_index"] == seen("d")["ifindex"]


@pytest.mark.parametrize("how", ["deleted", "renamed", "elsewhere"])
def test_a_name_that_a_waiting_interface_gives_up_is_given_to_the_next(configurator: Configurator, how: str) -> None:
    """No link is deleted then, so no event of the kernel reports it."""
    configurator.put(interface("a", "nobody", "ns1", host_if_name="eth0"))
    put(configurator, interface("c", "d", "ns1", host_if_name="eth0"), interface("d", "c"))
    settle(configurator)
    Netns.create("ns1").close()
    settle(configurator)
    assert state_of(configurator, "c").startswith("FAILED")
    if how == "deleted":
        configurator.delete("a")
    elif how == "renamed":
        configurator.put(interface("a", "nobody", "ns1", host_if_name="eth1"))
    else:
        configurator.put(interface("a", "nobody", "ns2", host_if_name="eth0"))
    settle(configurator)
    assert [state_of(configurator, name) for name in "cd"] == ["CONFIGURED"] * 2


# --- a chain, and another run of the agent

CHAIN = (
    interface("a1", "b1", "nsa", ip_addresses=["10.0.1.1/24"]),
    interface("b1", "a1", "nsb", ip_addresses=["10.0.1.2/24"]),
    interface("b2", "c2", "nsb", ip_addresses=["10.0.2.2/24"]),
    interface("c2", "b2", "nsc", ip_addresses=["10.0.2.3/24"]),
)
PLACES = {"a1": "nsa", "b1": "nsb", "b2": "nsb", "c2": "nsc"}


def test_three_namespaces_chained_by_two_pairs_reach_their_neighbours_before_and_after_a_restart(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Configurator(session) as first:
        first.resync(CHAIN)
        settle(first)
        assert reaches("nsa", "10.0.1.2", "nsb")
        assert reaches("nsc", "10.0.2.2", "nsb")
        client, server = connection("nsb", "10.0.1.2", "nsa")
        assert talks(client, server)
        before = {name: settled(seen(name, netns)) for name, netns in PLACES.items()}
        sent = {name: counters(name, netns) for name, netns in PLACES.items()}
    assert {name: settled(seen(name, netns)) for name, netns in PLACES.items()} == before
    with Configurator(session) as second, client, server:
        with changing_requests(monkeypatch) as changes:
            second.resync(CHAIN)
            settle(second)
        assert changes == []
        assert set(states(second).values()) == {"CONFIGURED"}
        assert {name: settled(seen(name, netns)) for name, netns in PLACES.items()} == before
        assert all(counters(name, netns) >= sent[name] for name, netns in PLACES.items())
        assert talks(client, server)
        assert reaches("nsb", "10.0.2.3", "nsc")


def test_a_connection_lives_through_puts_of_the_same_and_resyncs(configurator: Configurator) -> None:
    configurator.resync(CHAIN)
    settle(configurator)
    client, server = connection("nsb", "10.0.1.2", "nsa")
    with client, server:
        put(configurator, *CHAIN)
        settle(configurator)
        configurator.resync(CHAIN)
        configurator.resync()
        settle(configurator)
        assert talks(client, server)


# --- microservices


def test_a_microservice_stopped_and_started_twice_has_traffic_each_time(
    home: ns.Netns, blue: str, spawn: Callable[[str], int]
) -> None:
    resolver = MemoryResolver()
    port = placed("port1", "vswitch1", by_label("vnf1"), ip_addresses=("10.0.0.1/24",))
    other = interface("vswitch1", "port1", "blue", ip_addresses=["10.0.0.2/24"])
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(configurator, port, other)
        settle(configurator)
        for _ in range(3):
            assert states(configurator) == {
                "port1": "PENDING: microservice-not-running(microservice:vnf1)",
                "vswitch1": "PENDING: microservice-not-running(microservice:vnf1)",
            }
            assert names("blue") == set()
            with Netns.anonymous() as container:
                pid = spawn(container.ref)
                resolver.set("vnf1", f"pid:{pid}")
            until(configurator, configured(configurator, "port1", "vswitch1"))
            assert reaches(f"pid:{pid}", "10.0.0.2", "blue")
            assert names(f"pid:{pid}") == {"port1"}
            resolver.remove("vnf1")
            settle(configurator)
            assert names(f"pid:{pid}") == set()
    resolver.close()


# --- what is there already


def test_a_stale_pair_of_ours_is_adopted_after_a_crash(session: Session) -> None:
    with Configurator(session) as crashed:
        put(crashed, *pair("a", "b", "ns1"))
        settle(crashed)
    before = seen("a", "ns1")["ifindex"], seen("b")["ifindex"]
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "ns1", mtu=1400))
        settle(configurator)
        assert (seen("a", "ns1")["ifindex"], seen("b")["ifindex"]) == before
        assert seen("a", "ns1")["mtu"] == seen("b")["mtu"] == 1400


def test_a_pair_that_a_crash_left_without_its_aliases_is_adopted(session: Session) -> None:
    with Configurator(session) as crashed:
        put(crashed, *pair("a", "b", "ns1"))
        settle(crashed)
    before = seen("a", "ns1")["ifindex"], seen("b")["ifindex"]
    for name, netns in (("a", "ns1"), ("b", "")):
        ip("link", "set", "dev", name, "alias", "", netns=netns)
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "ns1"))
        settle(configurator)
        assert (seen("a", "ns1")["ifindex"], seen("b")["ifindex"]) == before
        assert seen("b")["ifalias"] == f"vethlib label={LABEL} name=b"


def test_a_stale_pair_of_ours_with_another_peer_is_replaced(session: Session) -> None:
    with Configurator(session) as crashed:
        put(crashed, *pair("a", "old", "ns1"))
        settle(crashed)
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "ns1"))
        settle(configurator)
        assert (names("ns1"), names()) == ({"a"}, {"b"})


@pytest.mark.parametrize("netns", ["", "ns1"])
def test_a_foreign_link_of_the_name_is_refused_and_left_alone_until_it_goes(
    configurator: Configurator, make_netns: Callable[..., None], netns: str
) -> None:
    make_netns("ns1")
    foreign("b", netns)
    put(configurator, *pair("a", "b", "ns1", netns))
    with nothing_changes():
        settle(configurator)
    assert states(configurator) == {"a": "PENDING: peer-failed(b)", "b": "FAILED: link-foreign(b)"}
    ip("link", "del", "dev", "b", netns=netns)
    until(configurator, configured(configurator, "a", "b"))
    assert "b" in names(netns)


# --- what is not there


def test_both_namespaces_unavailable_are_waited_for_and_nothing_is_half_built(session: Session) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, *pair("a", "b", "ns1", "ns2"))
        settle(configurator)
        assert states(configurator) == {
            "a": "PENDING: netns-not-found(netns:ns1), netns-not-found(netns:ns2)",
            "b": "PENDING: netns-not-found(netns:ns2), netns-not-found(netns:ns1)",
        }
        with nothing_changes():
            settle(configurator)
        ip("netns", "add", "ns1")
        until(configurator, lambda: "ns1" not in state_of(configurator, "a"))
        assert states(configurator) == {
            "a": "PENDING: netns-not-found(netns:ns2)",
            "b": "PENDING: netns-not-found(netns:ns2)",
        }
        assert names("ns1") == names() == set()
        ip("netns", "add", "ns2")
        until(configurator, configured(configurator, "a", "b"))
        assert (names("ns1"), names("ns2")) == ({"a"}, {"b"})


def test_the_reasons_for_waiting_are_exact(home: ns.Netns) -> None:
    resolver = MemoryResolver()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with Session(resolver=resolver) as session, Configurator(session, missing_netns="wait") as configurator:
        put(
            configurator,
            interface("veth1", "veth2"),
            interface("x", "y"),
            interface("y", "z"),
            *(interface("named", "n"), interface("n", "named", "ns1")),
            *(interface("service", "s"), placed("s", "service", by_label("vnf1"))),
            *(interface("process", "p"), placed("p", "process", by_pid(dead.pid))),
            *(interface("file", "f"), placed("f", "file", by_file("/run/nowhere"))),
        )
        settle(configurator)
        assert states(configurator) == {
            "veth1": "PENDING: peer-not-configured(veth2)",
            "x": "PENDING: peer-points-elsewhere(y)",
            "y": "PENDING: peer-not-configured(z)",
            "n": "PENDING: netns-not-found(netns:ns1)",
            "named": "PENDING: netns-not-found(netns:ns1)",
            "s": "PENDING: microservice-not-running(microservice:vnf1)",
            "service": "PENDING: microservice-not-running(microservice:vnf1)",
            "p": f"PENDING: process-gone(pid:{dead.pid})",
            "process": f"PENDING: process-gone(pid:{dead.pid})",
            "f": "PENDING: netns-not-found(path:/run/nowhere)",
            "file": "PENDING: netns-not-found(path:/run/nowhere)",
        }
        assert names() == set()
        assert ns.names() == []
    resolver.close()


def test_a_named_namespace_is_made_for_a_pair_unless_it_is_to_be_waited_for(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "ns1", "ns2"))
    settle(configurator)
    assert ns.names() == ["ns1", "ns2"]
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    assert ns.names() == ["ns1", "ns2"]  # never deleted


# --- the whole of it


def test_every_status_is_told_once_by_poll_and_is_none_when_the_interface_is_no_more(
    configurator: Configurator,
) -> None:
    without_ipv6("")
    put(configurator, *pair("a", "b"))
    told = configurator.poll(0)
    assert {name: status.state for name, status in told.items() if status} == dict.fromkeys("ab", State.CONFIGURED)
    calm(configurator)
    assert configurator.poll(0) == {}
    configurator.delete("a")
    told = configurator.poll(0)
    assert told.pop("a") is None
    assert told["b"] == configurator.status("b")[0]
    assert configurator.status("a") == []
    assert [status.name for status in configurator.status()] == ["b"]


def test_links_of_others_in_home_are_shown_as_unmanaged_after_ours(configurator: Configurator) -> None:
    foreign("o1", peer="o2")
    put(configurator, *pair("a", "b", "", "ns1"))
    settle(configurator)
    found = configurator.lookup_interfaces()
    assert [(one.name, str(one.state)) for one in found[:2]] == [("a", "CONFIGURED"), ("b", "CONFIGURED")]
    others = {one.name: one.link.index for one in found[2:] if one.link and one.state is State.UNMANAGED}
    assert others == {link["ifname"]: link["ifindex"] for link in ip("link") if link["ifname"] != "a"}


def test_a_status_says_for_json_what_is_documented(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "", "ns1", mtu=1400, ip_addresses=[]))
    before = time.time()
    settle(configurator)
    entry = configurator.status("a")[0].as_dict()
    expected: dict[str, Any] = {
        "name": "a",
        "state": "CONFIGURED",
        "reason": "",
        "code": "",
        "reasons": [],
        "netns": "",
        "host_name": "a",
        "ifindex": seen("a")["ifindex"],
        "peer": "b",
        "peer_ifindex": seen("b", "ns1")["ifindex"],
        "mac": seen("a")["address"],
        "mtu": 1400,
        "up": True,
    }
    assert {key: entry[key] for key in expected} == expected
    assert entry["since"].endswith("Z")
    assert abs(configurator.status("a")[0].since - before) < 5


def test_the_addresses_in_a_status_are_those_of_the_kernel(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b", "", "ns1", ip_addresses=[]))
    configurator.put(interface("a", "b", ip_addresses=["10.0.0.1/24"]))
    settle(configurator)
    entry = configurator.status("a")[0].as_dict()
    assert "10.0.0.1/24" in entry["addresses"]
    ip("address", "add", "10.9.9.9/24", "dev", "a")
    configurator.put(interface("a", "b", ip_addresses=["10.0.0.2/24"]))
    settle(configurator)
    assert [one for one in configurator.status("a")[0].as_dict()["addresses"] if ":" not in one] == addresses("a")


def test_hundreds_of_ends_put_one_by_one_are_built_and_deleted_together(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        put(configurator, *pair(f"a{number}", f"b{number}", "ns1", "ns2"))
    told = configurator.poll(0)
    assert len(told) == 200
    assert {str(status.state) for status in told.values() if status} == {"CONFIGURED"}
    assert len(names("ns1")) == len(names("ns2")) == 100
    for number in range(100):
        configurator.delete(f"a{number}")
    with changing_requests(monkeypatch) as sent:
        settle(configurator)
    assert sent.count(RTM_DELLINK) == 1
    assert names("ns1") == names("ns2") == set()


def test_an_embedder_waits_by_the_descriptor_alone(configurator: Configurator) -> None:
    settle(configurator)
    assert not select.select([configurator.fileno()], [], [], 0)[0]
    put(configurator, *pair("a", "b"))
    assert select.select([configurator.fileno()], [], [], 0)[0]
    settle(configurator)
    ip("link", "del", "dev", "a")
    assert select.select([configurator.fileno()], [], [], 20)[0]
    settle(configurator)
    assert names() == {"a", "b"}


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of events that a configurator has asked, in order."""
    asked: list[str] = []
    for source, method in ((Follower, "changed"), (IfIndexCache, "changes")):
        ask = getattr(source, method)

        def counted(self: Any, ask: Callable[[Any], Any] = ask, name: str = source.__name__) -> Any:
            asked.append(name)
            return ask(self)

        monkeypatch.setattr(source, method, counted)
    return asked


def begin_calm(configurator: Configurator, netns: str, readings: list[str]) -> None:
    """Build a pair, wait until nothing happens any more, and forget what was read until then."""
    without_ipv6("", netns)
    put(configurator, *pair("a", "b", netns))
    calm(configurator)
    readings.clear()


def test_a_change_of_the_configuration_alone_asks_no_source_of_events(
    configurator: Configurator, blue: str, readings: list[str]
) -> None:
    begin_calm(configurator, blue, readings)
    put(configurator, *pair("c", "d", blue))
    configurator.poll()
    assert readings == []
    assert configured(configurator, "c", "d")()


def test_a_change_of_the_configuration_does_not_put_off_an_event(
    configurator: Configurator, blue: str, readings: list[str]
) -> None:
    begin_calm(configurator, blue, readings)
    put(configurator, *pair("c", "d", blue))
    ip("link", "set", "dev", "a", "mtu", "1300", netns=blue)
    configurator.poll()
    assert readings[:2] == ["Follower", "IfIndexCache"]
    settle(configurator)
    assert configured(configurator, *"abcd")()
    assert seen("a", blue)["mtu"] == 1500
