"""A resolver whose other methods fail: changes, remarks, and who shares the home namespace."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import by_label, configured, is_state, pair, placed, put, settle, state_of, until
from tests.live.followers import nothing_more
from tests.patience import Patience
from tests.witness import ip, names, poll, seen
from vethlib import NetnsNotFound, Session, VethError, ns
from vethlib.agent import ReasonCode, State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower, MemoryResolver, ResolverDown
from vethlib.monitor import HostEvent, Monitor

VNF1 = "microservice:vnf1"
Fault = Callable[[], Any]


def _raises(error: Exception) -> Fault:
    def fail() -> Any:
        raise error

    return fail


def _stops() -> Iterator[str]:
    yield "vnf1"
    raise RuntimeError("in the middle")


class Failing(MemoryResolver):
    """A resolver whose `faults` are called instead of the methods of these names, after the next `after` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, Fault] = {}
        self.after = 0
        self.asked = 0

    def _fails(self, method: str) -> Fault | None:
        fault = self.faults.get(method)
        if fault is None or self.after > 0:
            self.after -= fault is not None
            return None
        self.asked += 1
        return fault

    def __call__(self, label: str) -> str:
        fault = self._fails("call")
        return super().__call__(label) if fault is None else fault()

    def remark(self, label: str) -> str:
        fault = self._fails("remark")
        return super().remark(label) if fault is None else fault()

    def changed(self) -> Any:
        fault = self._fails("changed")
        return super().changed() if fault is None else fault()

    def shares_home(self, _label: str) -> Any:
        fault = self._fails("shares_home")
        return False if fault is None else fault()


@pytest.fixture
def resolver() -> Iterator[Failing]:
    resolver = Failing()
    yield resolver
    resolver.close()


@pytest.fixture
def configurator(home: ns.Netns, resolver: Failing) -> Iterator[Configurator]:
    with Session(resolver=resolver) as session, Configurator(session, records="") as configurator:
        yield configurator


@pytest.fixture
def sleeper(home: ns.Netns) -> Iterator[int]:
    """The pid of a process in the home namespace."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


RAISED: dict[str, Fault] = {
    "RuntimeError": _raises(RuntimeError("no")),
    "ConnectionError": _raises(ConnectionError("the engine")),
    "ResolverDown": _raises(ResolverDown("away")),
    "NetnsNotFound": _raises(NetnsNotFound("not running", netns=VNF1)),
    "VethError": _raises(VethError("no")),
}
CHANGED: dict[str, Fault] = RAISED | {
    "a label": lambda: "vnf1",
    "no labels": lambda: [5, None],
    "a number": lambda: 7,
    "some": _stops,
}
REMARKS: dict[str, Fault] = RAISED | {"None": lambda: None, "a number": lambda: 5}
FAULTS = [
    *(("changed", fault) for fault in CHANGED.values()),
    *(("remark", fault) for fault in REMARKS.values()),
]
IDS = [*(f"changed: {name}" for name in CHANGED), *(f"remark: {name}" for name in REMARKS)]


def want(configurator: Configurator) -> None:
    put(configurator, placed("port1", "port2", by_label("vnf1")), interface("port2", "port1"))
    put(configurator, *pair("other1", "other2", "", "blue"))


@pytest.mark.parametrize(("method", "fault"), FAULTS, ids=IDS)
def test_whatever_else_a_resolver_fails_at_links_are_repaired_and_follow_its_answers(
    configurator: Configurator, resolver: Failing, blue: str, red: str, method: str, fault: Fault
) -> None:
    resolver.set("vnf1", "blue")
    want(configurator)
    until(configurator, configured(configurator, "port1", "port2", "other1", "other2"))
    resolver.faults[method] = fault
    before = seen("other1")["ifindex"]
    ip("link", "del", "other1")
    resolver.set("vnf1", "red")
    until(configurator, lambda: names("red") == {"port1"} and names("blue") == {"other2"})
    assert seen("other1")["ifindex"] != before
    until(configurator, configured(configurator, "port1", "port2", "other1", "other2"))
    assert resolver.asked > 0


@pytest.mark.parametrize("fault", RAISED.values(), ids=RAISED)
def test_a_remark_that_cannot_be_made_is_a_remark_unless_the_resolver_raised_that_on_purpose(
    configurator: Configurator, resolver: Failing, blue: str, fault: Fault
) -> None:
    resolver.faults["remark"] = fault
    resolver.set("vnf1", "blue")
    want(configurator)
    until(configurator, configured(configurator, "port1", "port2", "other1", "other2"))
    is_foreign = fault in (RAISED["RuntimeError"], RAISED["ConnectionError"])
    (port1,), (other1,) = configurator.status("port1"), configurator.status("other1")
    assert port1.warning_code == (ReasonCode.RESOLVER_REMARK if is_foreign else "")
    assert other1.warning_code == ""


@pytest.mark.parametrize(
    ("method", "after"), [("shares_home", 0), ("call", 0), ("call", 1), ("call", 2), ("call", 3)], ids=str
)
@pytest.mark.parametrize("fault", RAISED.values(), ids=RAISED)
def test_if_it_is_unknown_who_shares_the_home_namespace_only_that_interface_waits(
    configurator: Configurator, resolver: Failing, blue: str, sleeper: int, method: str, after: int, fault: Fault
) -> None:
    """A look asks for one label several times: the answers may end at any of these questions."""
    resolver.set("vnf1", "blue")
    want(configurator)
    until(configurator, configured(configurator, "port1", "port2", "other1", "other2"))
    resolver.faults[method], resolver.after = fault, after
    resolver.set("vnf1", f"pid:{sleeper}")
    before = seen("other1")["ifindex"]
    ip("link", "del", "other1")
    until(configurator, lambda: resolver.asked and configured(configurator, "other1", "other2")())
    settle(configurator)
    assert seen("other1")["ifindex"] != before
    assert "port1" not in names()  # it is not known to belong there
    assert "cannot-look" not in state_of(configurator, "port1")
    resolver.faults.clear()
    resolver.set("vnf1", "blue")
    until(configurator, configured(configurator, "port1", "port2", "other1", "other2"))


def test_a_label_of_which_it_is_unknown_whether_it_shares_the_home_namespace_is_tried_again(
    configurator: Configurator, resolver: Failing, blue: str, sleeper: int
) -> None:
    resolver.faults["shares_home"] = RAISED["ConnectionError"]
    resolver.set("vnf1", f"pid:{sleeper}")
    want(configurator)
    until(configurator, is_state(configurator, State.RETRYING, "port1"))
    assert configured(configurator, "other1", "other2")()
    resolver.faults["shares_home"] = lambda: True
    until(configurator, configured(configurator, "port1", "port2"))
    assert names() == {"port1", "port2", "other1"}


@pytest.mark.parametrize("fault", CHANGED.values(), ids=CHANGED)
def test_a_monitor_goes_on_beside_a_resolver_that_cannot_report_changes(
    home: ns.Netns, resolver: Failing, blue: str, red: str, fault: Fault
) -> None:
    resolver.set("vnf1", "blue")
    with Session(resolver=resolver) as session, Monitor(session, [VNF1]) as monitor:
        monitor.poll()
        resolver.faults["changed"] = fault
        resolver.set("vnf1", "red")
        ip("link", "add", "new1", "type", "veth", "peer", "name", "new2")
        events: list[HostEvent] = []
        patience = Patience(60.0)
        while not {("link", "new1"), ("netns", VNF1)} <= {(event.what, event.name or event.netns) for event in events}:
            assert not patience.is_over(), events
            events += monitor.poll(0.5)


@pytest.mark.parametrize("closes", [False, True], ids=["stays open", "closes"])
def test_a_resolver_that_cannot_report_changes_is_asked_again_at_intervals(
    home: ns.Netns, resolver: Failing, blue: str, red: str, closes: bool
) -> None:
    """Its descriptor stays readable, as that of a connection that has ended does."""
    resolver.set("vnf1", "blue")
    with Follower(resolver) as follower:
        follower.follow([VNF1])
        nothing_more(follower)
        resolver.faults["changed"] = RAISED["ConnectionError"]
        resolver.set("vnf1", "blue")
        began, told = time.monotonic(), []
        while resolver.asked < 3:
            select.select([follower], [], [], follower.due())
            told.append(follower.changed())
            if closes:
                resolver.close()
        assert time.monotonic() - began > 1.0
        assert len(told) < 20
        assert {VNF1} in told
        if not closes:
            resolver.faults.clear()
            nothing_more(follower)
            resolver.set("vnf1", "red")
            assert select.select([follower], [], [], 60)[0]
            assert follower.changed() == {VNF1}


def test_a_closed_resolver_of_the_memory_reports_nothing_more(home: ns.Netns, blue: str) -> None:
    resolver = MemoryResolver()
    with Session(resolver=resolver) as session, Monitor(session) as monitor:
        resolver.set("vnf1", "red")
        resolver.close()
        resolver.close()
        resolver.set("vnf1", "blue")
        resolver.set("vnf2", "blue")
        resolver.remove("vnf2")
        resolver.down("away")
        resolver.up()
        resolver.changed()
        assert resolver.fileno() == -1
        assert resolver("vnf1") == "blue"
        assert session.links(VNF1)
        ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
        assert poll(lambda: any(event.name == "veth1" for event in monitor.poll()))


@pytest.mark.parametrize("reason", ["no power", ""])
def test_a_resolver_is_down_whatever_the_reason_is(reason: str) -> None:
    resolver = MemoryResolver()
    resolver.set("vnf1", "pid:1", "a remark")
    resolver.down(reason)
    with pytest.raises(ResolverDown) as down:
        resolver("vnf1")
    assert (str(down.value), resolver.remark("vnf1")) == (reason, "")
    resolver.up()
    assert (resolver("vnf1"), resolver.remark("vnf1")) == ("pid:1", "a remark")
    resolver.close()
