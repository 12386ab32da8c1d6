"""A tenant that changes its links as fast as possible takes neither the time of other tenants nor that of the agent."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flapping import flapping, give_addresses
from tests.live.agents import started
from tests.live.applying import value
from tests.live.configuring import configured, pair, put, quickly, settle, state_of, until
from tests.live.floods import address, burst, mtu
from tests.witness import cpu_of, ip, poll, seen
from vethlib import Session, ns
from vethlib.agent.reasons import ReasonCode
from vethlib.agent.reconcile import configurator as configurator_module
from vethlib.agent.reconcile import observer, occasions, watches
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.passes import choice

pytestmark = pytest.mark.slow

SOON = 0.5 if (os.cpu_count() or 1) > 1 else 5.0  # the tenant has half of the only CPU
AT_ALL = 10 * SOON  # on a machine that has much else to do


def is_up(name: str, netns: str) -> bool:
    links = [link for link in ip("link", netns=netns) if link["ifname"] == name]
    return bool(links) and "UP" in links[0]["flags"]


def wait_for(condition: Callable[[], object], within: float) -> float:
    began = time.monotonic()
    assert poll(lambda: bool(condition()), within), f"not within {within} s"
    return time.monotonic() - began


def cpu_until_its_end(pid: int, within: float) -> float:
    """Seconds of CPU time that a child has used in all, once it has ended."""
    deadline = time.monotonic() + within
    while not (done := os.wait4(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.005)
    return done[2].ru_utime + done[2].ru_stime


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


# --- an agent, one tenant who flaps and one who does not


@pytest.fixture
def store(home: ns.Netns, tmp_path: Path, make_netns: Callable[..., None]) -> Path:
    """The pairs fa ⇄ fb and ha ⇄ hb, whose far ends are in the namespaces `flapper` and `honest`."""
    make_netns("flapper", "honest")
    there = tmp_path / "store"
    there.mkdir()
    for a, b, netns in (("fa", "fb", "flapper"), ("ha", "hb", "honest")):
        (there / f"{a}.json").write_text(json.dumps(value(a, b)))
        (there / f"{b}.json").write_text(json.dumps(value(b, a, netns)))
    return there


@pytest.fixture
def agent(store: Path) -> Iterator[int]:
    pid = started(store)
    try:
        wait_for(lambda: is_up("fb", "flapper") and is_up("hb", "honest"), 60)
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def repaired() -> float:
    """Seconds until the honest tenant's pair is back, of which an end was deleted."""
    ip("link", "del", "dev", "hb", netns="honest")
    return wait_for(lambda: is_up("hb", "honest"), 10 * AT_ALL)


@pytest.mark.parametrize(
    ("kind", "resident"), [("addresses", 3000), ("state", 0), ("values", 0), ("altnames", 0), ("name", 0), ("links", 0)]
)
def test_another_tenant_is_repaired_and_sigterm_obeyed_while_one_flaps(
    store: Path, agent: int, kind: str, resident: int
) -> None:
    if resident:
        give_addresses("/run/netns/flapper", "fb", resident)
    at_rest = max(repaired() for _ in range(3))  # as long as this machine takes, with all else that it has to do
    with flapping("flapper", "fb", kind, seconds=2000):
        took = []
        for pause in (0.3, 0.3, 0.3):
            time.sleep(pause)
            took.append(repaired())
        os.kill(agent, signal.SIGTERM)
        stopped = wait_for(lambda: ended(agent), 10 * AT_ALL)
    print(f"{kind}: repaired after {', '.join(f'{one:.3f}' for one in took)} s, stopped after {stopped:.3f} s")
    assert min(took) < SOON + 10 * at_rest
    assert max(took) < AT_ALL + 50 * at_rest
    assert stopped < AT_ALL + 50 * at_rest


def test_an_agent_that_has_much_to_do_obeys_sigterm_and_leaves_nothing_half_made(
    home: ns.Netns, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for number in range(1500):
        (store / f"a{number}.json").write_text(json.dumps(value(f"a{number}", f"b{number}")))
        (store / f"b{number}.json").write_text(json.dumps(value(f"b{number}", f"a{number}")))
    pid = started(store)
    try:
        wait_for(lambda: len(os.listdir("/proc/thread-self/net/dev_snmp6")) > 50, 60)
        os.kill(pid, signal.SIGTERM)
        before = cpu_of(pid)
        used = cpu_until_its_end(pid, 10 * AT_ALL) - before
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    links = {link["ifname"]: link for link in ip("-d", "link")}
    made = [name for name in links if name[0] in "ab"]
    assert 50 < len(made) < 3000
    assert all("UP" in links[name]["flags"] and links[name]["ifalias"] for name in made)
    assert used < AT_ALL  # seconds of CPU time: how long it waits for a processor is not its doing


# --- what it rests on: looking, and working


@pytest.fixture
def configurator(session: Session, blue: str, red: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "", "blue"), *pair("x", "y", "", "red"))
        settle(configurator)
        yield configurator


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The interfaces of every look."""
    made: list[set[str]] = []
    look = observer.HostObserver.look

    def counted(self: observer.HostObserver, desired: Any, names: Any) -> Any:
        made.append(set(names))
        return look(self, desired, made[-1])

    monkeypatch.setattr(observer.HostObserver, "look", counted)
    return made


@pytest.mark.parametrize("count", [200, 2000])
def test_ten_times_the_addresses_are_not_ten_times_the_looks_and_statuses(
    configurator: Configurator, looks: list[set[str]], count: int
) -> None:
    with configurator.subscribe() as told:
        told.take()
        for start in range(0, count, 100):
            burst("blue", "b", address, 100, first=start)
            configurator.poll(0)
        until(configurator, lambda: len(configurator.status("b")[0].link.addresses) >= count)  # type: ignore[union-attr]
        assert len(looks) < 25
        assert len(told.take()) < 25
    assert configured(configurator, "a", "b")()


def test_an_address_that_is_wanted_comes_back_though_thousands_of_others_went_too(
    configurator: Configurator,
) -> None:
    put(configurator, *pair("a", "b", "", "blue", ip_addresses=["10.0.0.1/24"]))
    settle(configurator)
    burst("blue", "b", address, 300)
    settle(configurator)
    quickly("addr flush dev b", netns="blue")
    until(configurator, lambda: [one["local"] for one in seen("b", "blue")["addr_info"] if one["family"] == "inet"])
    assert [one["local"] for one in seen("b", "blue")["addr_info"] if one["family"] == "inet"] == ["10.0.0.1"]


def test_links_of_others_in_a_namespace_cost_no_look(configurator: Configurator, looks: list[set[str]]) -> None:
    ip("link", "add", "mine", "type", "veth", "peer", "name", "mine2", netns="blue")
    burst("blue", "mine", mtu, 1000)
    settle(configurator)
    assert looks == []


def test_an_interface_in_a_namespace_that_is_too_noisy_is_still_put_right(
    easily_disturbed: None, configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "REST", 1.5)
    burst("blue", "b", address, 400)
    until(configurator, lambda: configurator.status("b")[0].warning_code == ReasonCode.EVENTS_IGNORED)
    assert configured(configurator, "a", "b", "x", "y")()
    assert configurator.status("x")[0].warning == ""
    ip("link", "set", "dev", "b", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("b", "blue")["mtu"] == 1500)
    # As many rests as it takes for duplicate address detection to be through with 200 addresses, each twice as long.
    until(configurator, lambda: not configurator.status("b")[0].warning, 40)
    ip("link", "set", "dev", "b", "down", netns="blue")
    until(configurator, lambda: is_up("b", "blue"), 15)


def test_one_who_was_hurt_comes_before_those_who_are_new(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occasions, "AT_ONCE", 4)
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    for number in range(30):
        put(configurator, *pair(f"n{number}", f"m{number}"))
    configurator.poll(0)
    assert configurator.due() == 0
    ip("link", "del", "dev", "y", netns="red")
    polls = 0
    while not is_up("y", "red"):
        configurator.poll(0)
        polls += 1
    assert polls <= 3
    assert configurator.due() == 0
    settle(configurator)
    assert configured(configurator, *(f"{end}{number}" for end in "nm" for number in range(30)))()


def test_what_is_found_at_a_look_at_everything_is_done_part_by_part(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    monkeypatch.setattr(choice, "AT_ONCE", 4)
    with Configurator(session) as configurator:
        wanted = [one for number in range(20) for one in pair(f"n{number}", f"m{number}", "", "blue")]
        configurator.resync(wanted)
        configurator.poll(0)
        assert len(ip("link", netns="blue")) == 1 + 4
        assert {state_of(configurator, one.name) for one in wanted} == {"", "CONFIGURED"}
        settle(configurator)
        assert configured(configurator, *(one.name for one in wanted))()
        configurator.resync(wanted[:2])
        settle(configurator)
        assert len(ip("link", netns="blue")) == 1 + 1
        assert {status.name for status in configurator.status()} == {"n0", "m0"}
