"""A relay that lost events of its links, is stopped, or has ended: a wire's ends agree, other wires are unharmed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from tests.interrupts import Interrupt, boundaries, distinct, interrupted
from tests.programs import attended, children, freeze
from tests.refusing import raises
from tests.witness import ip, names, open_fds, poll
from vethlib import End, LinkNotFound, NetlinkError, Session, Veth, VethError, ns
from vethlib.topology import Topology
from vethlib.topology.impair import relay
from vethlib.topology.keep import keep

COUNTS = [1, 2, 40]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_relay_that_is_interrupted_at_any_bytecode_while_it_starts_leaves_nothing() -> None:
    def belongs(code: CodeType) -> bool:
        return code.co_filename == relay.__file__ and code.co_qualname in ("Relay.__init__", "Relay._start", "_begin")

    with relay.relay_netns() as netns, Session() as session, Topology.build("node a; node b") as net:
        ends = [End("w0", net["a"]), End("w1", net["b"])]
        a, b = session.create_many(Veth(end, End(end.name, netns)) for end in ends)

        def start() -> None:
            relay.Relay(netns, {0: (a, b)}, ()).close()

        start()
        before, others = open_fds(), children()
        for boundary in distinct(boundaries(start, belongs))[:-1]:  # the last is the return
            assert interrupted(start, boundary), boundary
            assert poll(lambda: open_fds() == before), boundary
            assert children() <= others, boundary


def test_an_interruption_at_the_beginning_or_end_of_a_command_leaves_the_relay_usable() -> None:
    def belongs(code: CodeType) -> bool:
        return code.co_filename == contextlib.__file__ or code.co_qualname == "Relay._alone"

    with Topology.build("a -- b delay=1ms", impair="userspace") as net:

        def use() -> None:
            try:
                net.wire("a", "b").set(delay="2ms")
            except Interrupt:
                net.wire("a", "b").set(delay="3ms")  # while the traceback is there
                raise

        each = boundaries(use, belongs)
        assert each
        for boundary in each:
            interrupted(use, boundary)


@pytest.mark.parametrize("command", ["keep", "look"])
def test_a_relay_whose_owner_has_hung_up_before_the_answer_ends_only_if_it_is_not_kept(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        its_relay = net._relay
        assert its_relay is not None
        freeze(its_relay._process.pid)
        its_relay._control.send(json.dumps({"number": 1, command: True}).encode())
        its_relay._control.close()
        os.kill(its_relay._process.pid, signal.SIGCONT)
        if command == "keep":
            its_relay._is_kept = True
            assert net["a"].ping(net["b"], count=20)
        else:
            assert its_relay._process.wait(60) == 0
    if command == "keep":
        assert its_relay._process.wait(60) == 0
    assert capfd.readouterr().err == ""


class Hub:
    """A hub with leaves on relayed wires; the relay is stopped at first, and its buffer holds an event or two."""

    def __init__(self, net: Topology, netns: ns.Netns) -> None:
        assert net._relay is not None
        self.net = net
        self._netns = netns  # of the relay
        self.pid = net._relay._process.pid
        self.leaves = [node.netns for name, node in net.items() if name != "hub"]
        self.stop()

    def stop(self) -> None:
        freeze(self.pid)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)  # not by the Popen object, which knows nothing of a relay that was let go

    def halves(self) -> list[bool]:
        """Whether each half of a wire to the hub that exists in the relay has the carrier."""
        links = ip("link", netns=self._netns)
        return ["LOWER_UP" in link["flags"] for link in links if link["ifname"].endswith("b")]

    def carriers(self) -> set[bool | None]:
        """Whether the leaves have the carrier; None for a wire that does not exist any more."""
        seen = [{link["ifname"]: link["flags"] for link in ip("link", netns=leaf)} for leaf in self.leaves]
        return {"LOWER_UP" in flags["eth0"] if "eth0" in flags else None for flags in seen}

    def set(self, state: str) -> None:
        """Set all ends in the hub up or down."""
        for number in range(len(self.leaves)):
            ip("link", "set", f"eth{number}", state, netns=self.net["hub"].netns)


@pytest.fixture(params=COUNTS)
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made: list[ns.Netns] = []

    def relay_netns() -> ns.Netns:
        netns = make()
        made.append(ns.Netns.open(netns))
        return netns

    make = relay.relay_netns
    monkeypatch.setattr(relay, "relay_netns", relay_netns)
    monkeypatch.setattr(relay, "_EVENTS_BUFFER", 2048)
    wires = "; ".join(f"leaf{number} -- hub delay=0ms" for number in range(request.param))
    with Topology.build(wires, impair="userspace", ipv6=False) as net, made[0]:
        yield Hub(net, made[0])


def test_wires_are_deleted_at_both_ends_though_events_were_lost(hub: Hub) -> None:
    hub.net["hub"].close()
    assert poll(lambda: not hub.halves())
    hub.go_on()
    assert poll(lambda: hub.carriers() == {None})


def test_the_carrier_is_lost_and_returns_at_both_ends_though_events_were_lost(hub: Hub) -> None:
    hub.set("down")
    assert poll(lambda: set(hub.halves()) == {False})
    hub.go_on()
    assert poll(lambda: hub.carriers() == {False})
    hub.stop()
    hub.set("up")
    assert poll(lambda: set(hub.halves()) == {True})
    hub.go_on()
    assert poll(lambda: hub.carriers() == {True})


def test_wires_set_down_are_down_at_once_though_events_were_lost(hub: Hub) -> None:
    hub.set("down")
    assert poll(lambda: not any(hub.halves()))
    hub.go_on()
    hub.net.down("leaf0", "hub")
    assert hub.carriers() == {False}


def test_the_relay_of_kept_nodes_ends_with_them_though_events_were_lost(hub: Hub) -> None:
    kept = keep(hub.net.values())
    hub.go_on()
    ended = os.pidfd_open(hub.pid)
    try:
        hub.net.let_go()
        hub.stop()
        os.kill(kept.pid, signal.SIGTERM)
        assert poll(lambda: not hub.halves())
        hub.go_on()
        assert select.select([ended], [], [], 60)[0], "the relay does not end"
    finally:
        os.close(ended)


def test_a_signal_handler_cannot_use_a_relay_that_the_interrupted_code_is_using(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = relay.Relay._ask
    errors: list[BaseException] = []

    def interrupted(self: relay.Relay, command: dict[str, object]) -> dict[str, Any] | None:
        monkeypatch.setattr(relay.Relay, "_ask", usual)
        signal.raise_signal(signal.SIGUSR1)
        return usual(self, command)

    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        wire = net.wire("a", "b")

        def handle(*_: object) -> None:
            try:
                wire.set(loss="100%")
            except VethError as error:
                errors.append(error)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            monkeypatch.setattr(relay.Relay, "_ask", interrupted)
            wire.set(delay="0ms")
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert len(errors) == 1
        assert net["a"].ping(net["b"])
        handle()
        assert len(errors) == 1
        assert not net["a"].ping(net["b"], timeout=0.1)


def flags(net: Topology, node: str, link: str) -> list[str]:
    (found,) = ip("link", "show", link, netns=net[node].netns)
    assert isinstance(found["flags"], list)
    return found["flags"]


def routes(net: Topology, node: str) -> set[str]:
    return {route["dst"] for route in ip("-4", "route", netns=net[node].netns)}


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process has ended, but leave its exit status to others."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is not None


@pytest.fixture
def ended() -> Iterator[Topology]:
    """A topology whose only relayed wire, and with it the relay, has ended with its node a."""
    with Topology.build("a -- b delay=0ms; b -- c -- d", routes=True, ipv6=False, impair="userspace") as net:
        assert net._relay is not None
        net["a"].close()
        assert has_ended(net._relay._process)
        yield net


def test_other_wires_are_set_down_and_up_when_the_relay_has_ended_with_its_last_wire(ended: Topology) -> None:
    before = routes(ended, "b")
    ended.down("c", "d")
    assert "UP" not in flags(ended, "c", "eth1") + flags(ended, "d", "eth0")
    ended.down("b", "c")
    assert routes(ended, "b") < before
    ended.up("b", "c")
    assert "LOWER_UP" in flags(ended, "b", "eth1")
    assert routes(ended, "b") == before


def test_nodes_are_let_go_when_the_relay_has_ended_with_its_last_wire(ended: Topology) -> None:
    ended.let_go()
    assert ended.closed


def test_a_relayed_wire_that_has_gone_with_the_relay_is_not_found(ended: Topology) -> None:
    assert names(ended["b"].netns) == {"eth1"}
    wire = ended.wire("a", "b")
    for change in (lambda: wire.set(loss="1%"), wire.clear):
        with raises(LinkNotFound, errno=errno.ENODEV) as raised:
            change()
        assert "the wire between a and b" in str(raised.value)


def test_a_relayed_wire_that_has_gone_is_not_found_while_the_relay_has_others() -> None:
    with Topology.build("a -- b delay=0ms; b -- c delay=0ms", impair="userspace") as net:
        net["a"].close()
        assert poll(lambda: names(net["b"].netns) == {"eth1"})
        with raises(LinkNotFound, errno=errno.ENODEV) as raised:
            net.wire("b", "a").set(loss="1%")
        assert "the wire between a and b" in str(raised.value)
        net.wire("b", "c").set(loss="100%")
        assert not net["b"].ping(net["c"], timeout=0.1)
        net.wire("b", "c").clear()
        assert net["b"].ping(net["c"])


def test_a_relay_that_was_killed_does_not_answer_for_its_wires_but_others_are_set_down_and_up() -> None:
    with Topology.build("a -- b delay=0ms; b -- c", ipv6=False, impair="userspace") as net:
        assert net._relay is not None
        net._relay._process.kill()
        assert has_ended(net._relay._process)
        with raises(NetlinkError, errno=errno.EPIPE):
            net.wire("a", "b").set(loss="1%")
        net.down("b", "c")
        net.up("b", "c")
        assert net["b"].ping(net["c"])


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stopped_relay_does_not_delay_the_end_of_its_topology(interrupted: bool) -> None:
    net = Topology.build("a -- b delay=1ms", impair="userspace")
    assert net._relay is not None
    process = net._relay._process
    freeze(process.pid)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                net.close()
        else:
            net.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 20
    assert net.closed
    assert not os.path.exists(f"/proc/{process.pid}")


def test_nodes_are_released_though_their_relay_has_ended() -> None:
    net = Topology.build("a -- b delay=1ms", impair="userspace")
    assert net._relay is not None
    net._relay._process.kill()
    net._relay._process.wait()
    with pytest.raises(NetlinkError):
        net.let_go()
    assert net.closed


def test_the_relay_ends_with_its_topology_and_its_death_is_an_error() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        process = net._relay._process
        assert process.poll() is None
    assert process.returncode == 0
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        net._relay._process.kill()
        net._relay._process.wait()
        with pytest.raises(NetlinkError):
            net.wire("a", "b").set(delay="2ms")


def test_the_relay_ends_with_its_owner_however_that_ends() -> None:
    script = (
        "import time; from vethlib.topology import Topology\n"
        "net = Topology.build('a -- b delay=1ms', impair='userspace')\n"
        "print(net._relay._process.pid, flush=True); time.sleep(60)"
    )
    with attended(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        ended = os.pidfd_open(pid)
        owner.send_signal(signal.SIGKILL)
    try:
        assert poll(lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
    finally:
        os.close(ended)
