"""One test for each promise of the library, which `make kernels` runs on every kernel in a minute."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.agent_process import Agent
from tests.live.applying import EXAMPLES, interface
from tests.live.children import in_a_child
from tests.live.configuring import by_pid, configured, is_state, pair, placed, until, without_detection
from tests.refusing import raises
from tests.witness import addresses, ip, names, poll, seen
from vethlib import End, IfIndexCache, Link, LinkExists, LinkNotFound, Netns, Session, Veth, ns
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator

MANY = 200
SOON = 10.0  # seconds for what takes less than one
MAC = "02:00:00:00:00:01"


@pytest.fixture
def references(blue: str, red: str) -> Iterator[list[Netns | str]]:
    """Every kind of reference to a namespace."""
    with ns.entered(blue):
        process = subprocess.Popen(["sleep", "1000"])
    pid = process.pid
    descriptor = os.open(f"/run/netns/{red}", os.O_RDONLY | os.O_CLOEXEC)
    with Netns.anonymous() as anonymous:
        yield ["", blue, f"pid:{pid}", f"path:/proc/{pid}/task/{pid}/ns/net", f"fd:{descriptor}", anonymous]
    os.close(descriptor)
    process.kill()
    process.wait()


def agrees(link: Link, name: str, netns: Netns | str, **fields: object) -> None:
    """Check that the returned link agrees with ip, and has these fields."""
    witness = seen(name, netns)
    assert (link.index, link.mac, link.mtu) == (witness["ifindex"], witness["address"], witness["mtu"])
    assert link.up == ("UP" in witness["flags"])
    assert (link.num_queues, link.alias) == (witness["num_tx_queues"], witness.get("ifalias", ""))
    given = [f"{one['local']}/{one['prefixlen']}" for one in witness["addr_info"]]
    assert [str(one) for one in link.addresses if not one.is_link_local] == [
        one for one in given if not one.startswith("fe80:")
    ]
    assert {field: getattr(link, field) for field in fields} == fields


def test_a_pair_is_created_in_place_wherever_its_ends_belong(session: Session, references: list[Netns | str]) -> None:
    for here, there in itertools.product(references, references):
        made = session.create(
            Veth(
                End("va", netns=here, mac=MAC, mtu=1400, addresses=["10.9.0.1/24", "2001:db8:9::1/64"], alias="one"),
                End("vb", netns=there, mtu=1300, addresses=["10.9.0.2/24"], num_queues=2, group=77),
            )
        )
        agrees(made.a, "va", here, mac=MAC, mtu=1400, alias="one", up=True, peer_index=made.b.index)
        agrees(made.b, "vb", there, mtu=1300, num_queues=2, group=77, up=True, peer_index=made.a.index)
        session.delete("va", netns=here)
    for netns in references:
        assert names(netns) == set()


@pytest.mark.parametrize(("a", "b"), [("x1", "new"), ("new", "y1"), ("x1", "y1")])
def test_a_name_that_is_taken_is_refused_and_nothing_is_left(session: Session, blue: str, a: str, b: str) -> None:
    session.create(Veth(End("x1"), End("y1", blue)))
    with pytest.raises(LinkExists):
        session.create(Veth(End(a), End(b, blue)))
    assert (names(), names(blue)) == ({"x1"}, {"y1"})


def test_a_link_is_changed_in_every_field(session: Session, blue: str) -> None:
    session.create(Veth(End("x1", addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("y1", blue)))
    wanted = ["10.0.0.2/24", "10.0.0.3/24", "2001:db8::2/64"]
    link = session.set("y1", netns=blue, mtu=9000, mac=MAC, alias="hello", group=5, addresses=wanted)
    agrees(link, "y1", blue, mtu=9000, mac=MAC, alias="hello", group=5)
    assert addresses("y1", blue) == wanted

    session.set("y1", netns=blue, up=False)
    assert "UP" not in seen("y1", blue)["flags"]
    agrees(session.set("y1", netns=blue, up=True, remove_addresses=["10.0.0.2/24"]), "y1", blue, up=True)
    assert "10.0.0.2/24" not in addresses("y1", blue)


def test_a_link_that_is_up_is_renamed_and_keeps_its_addresses(session: Session) -> None:
    session.create(Veth(End("x1", addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("y1")))
    agrees(session.set("x1", new_name="x2"), "x2", "", up=True)
    assert sorted(addresses("x2")) == ["10.0.0.1/24", "2001:db8::1/64"]
    assert names() == {"x2", "y1"}


def test_a_link_is_moved_there_and_back(session: Session, blue: str, red: str) -> None:
    session.create(Veth(End("x1"), End("y1", blue)))
    agrees(session.move("y1", netns=blue, to=red), "y1", red)
    agrees(session.move("y1", netns=red, to=""), "y1", "")
    assert (names(), names(blue), names(red)) == ({"x1", "y1"}, set(), set())


def test_many_pairs_are_created_looked_up_and_deleted_together(
    session: Session, make_netns: Callable[..., None]
) -> None:
    spaces = [f"m{number}" for number in range(20)]
    make_netns(*spaces)
    at = [spaces[number % 20] for number in range(MANY)]
    others = session.create(Veth(End("other"), End("other", "m3")))
    made = session.create_many(
        [
            Veth(End(f"h{n}", addresses=[f"10.1.{n}.1/30"]), End(f"e{n}", at[n], addresses=[f"10.1.{n}.2/30"]))
            for n in range(MANY)
        ]
    )
    indexes = {link["ifname"]: link["ifindex"] for link in ip("link")}
    assert [pair.a.index for pair in made] == [indexes[f"h{n}"] for n in range(MANY)]
    found = session.lookup_many([(f"e{n}", at[n]) for n in range(MANY)])
    assert [link.index for link in found] == [pair.b.index for pair in made]
    assert [[str(one) for one in link.addresses if one.version == 4] for link in found] == [
        [f"10.1.{n}.2/30"] for n in range(MANY)
    ]

    session.delete_many([(f"h{n}", "") for n in range(MANY)])
    assert (names(), names("m3"), names("m4")) == ({"other"}, {"other"}, set())
    assert seen("other")["ifindex"] == others.a.index


def test_a_survey_finds_every_peer(session: Session, blue: str, red: str) -> None:
    session.create_many(
        [Veth(End("x1"), End("y1", blue)), Veth(End("x2", red), End("y2", blue)), Veth(End("p"), End("q"))]
    )
    survey = session.survey(["", blue, red])
    by_place = {(one.at, one.link.index): one for one in survey.links}
    peers = {}
    for one in survey.links:
        if one.link.kind == "veth":
            assert one.peer is not None, one
            peers[one.ref, one.link.name] = (by_place[one.peer].ref, by_place[one.peer].link.name)
    ends = [(("", "x1"), (blue, "y1")), ((red, "x2"), (blue, "y2")), (("", "p"), ("", "q"))]
    assert peers == {a: b for pair in ends for a, b in (pair, pair[::-1])}


def test_a_cache_follows_what_other_programs_do(session: Session, blue: str, red: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch_all(["", blue, red])
        session.create(Veth(End("v1", blue), End("v2", red)))
        assert cache.index("v1", blue) == seen("v1", blue)["ifindex"]

        ip("link", "add", "w1", "netns", blue, "type", "veth", "peer", "name", "w2", "netns", red)
        ip("link", "set", "w1", "name", "w9", netns=blue)
        ip("link", "set", "v1", "mtu", "1400", netns=blue)
        cache.catch_up()
        assert cache.index("w2", red) == seen("w2", red)["ifindex"]
        assert cache.link("w9", blue).index == seen("w9", blue)["ifindex"]
        assert cache.link("v1", blue).mtu == 1400

        ip("link", "del", "w9", netns=blue)
        cache.catch_up()
        with raises(LinkNotFound, netns=red):
            cache.index("w2", red)


def test_a_cache_reports_a_namespace_that_ends(session: Session, blue: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch(blue)
        session.create(Veth(End("v1"), End("v2", blue)))
        cache.poll(0)
        ns.remove(blue)
        kinds: set[str] = set()
        deadline = time.monotonic() + SOON
        while "netns-gone" not in kinds:
            assert time.monotonic() < deadline, kinds
            kinds |= {event.kind for event in cache.poll(0.2)}


DESIRED = pair("veth1", "veth2", bt="blue", ip_addresses=["10.0.0.1/24"], mtu=1400)


def test_a_configurator_that_was_killed_knows_its_pair_again(home: Netns) -> None:
    def configure_and_die() -> None:
        with Session() as session, Configurator(session) as configurator:
            configurator.resync(DESIRED)
            until(configurator, configured(configurator, "veth1", "veth2"), SOON)
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(configure_and_die) == -signal.SIGKILL
    index = seen("veth1")["ifindex"]
    ip("address", "add", "192.0.2.1/32", "dev", "veth1")
    with Session() as session, Configurator(session) as configurator:
        configurator.resync(DESIRED)
        until(configurator, configured(configurator, "veth1", "veth2"), SOON)
        assert seen("veth1")["ifindex"] == index
        assert addresses("veth1") == ["10.0.0.1/24", "192.0.2.1/32"]

        configurator.resync([])
        until(configurator, lambda: names() == set(), SOON)


def test_a_configurator_repairs_what_other_programs_change(session: Session, blue: str) -> None:
    without_detection("", blue)
    with Configurator(session) as configurator:
        configurator.resync(DESIRED)
        until(configurator, configured(configurator, "veth1", "veth2"), SOON)

        ip("link", "set", "veth1", "mtu", "1280")
        ip("link", "set", "veth2", "down", netns=blue)
        until(configurator, lambda: seen("veth1")["mtu"] == 1400 and "UP" in seen("veth2", blue)["flags"], SOON)

        ip("link", "del", "veth1")
        until(configurator, lambda: names() == {"veth1"} and names(blue) == {"veth2"}, SOON)
        until(configurator, configured(configurator, "veth1", "veth2"), SOON)


def test_a_configurator_removes_an_address_that_has_left_the_configuration(session: Session, blue: str) -> None:
    with Configurator(session) as configurator:
        configurator.resync(DESIRED)
        until(configurator, configured(configurator, "veth1", "veth2"), SOON)
        ip("address", "add", "192.0.2.1/32", "dev", "veth1")
        configurator.put(replace(DESIRED[0], ip_addresses=("10.0.0.9/24",)))
        until(configurator, lambda: set(addresses("veth1")) == {"10.0.0.9/24", "192.0.2.1/32"}, SOON)


def test_a_configurator_waits_for_a_process_that_has_ended(session: Session, blue: str) -> None:
    without_detection("", blue)
    with ns.entered(blue):
        process = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    with Configurator(session) as configurator:
        configurator.resync([interface("p1", "p2"), placed("p2", "p1", by_pid(process))])
        until(configurator, configured(configurator, "p1", "p2"), SOON)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        until(configurator, is_state(configurator, State.PENDING, "p1", "p2"), SOON)


def test_an_agent_on_a_directory_is_killed_and_restarted(home: Netns, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "pair", tmp_path / "store")
    agent = Agent(tmp_path)
    try:
        agent.wait_until("READY")
        assert poll(lambda: "UP" in seen("veth1", "ns1")["flags"])
        index = seen("veth1", "ns1")["ifindex"]
        agent.end(signal.SIGKILL)

        agent = Agent(tmp_path)
        agent.wait_until("READY")
        assert seen("veth1", "ns1")["ifindex"] == index
        for file in agent.store.iterdir():
            if file.stem == "veth2":
                file.unlink()
        assert poll(lambda: "veth1" not in names("ns1"))
        assert agent.end() == 0
    finally:
        if agent.process.poll() is None:
            agent.end(signal.SIGKILL)
