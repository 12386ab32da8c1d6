"""Messages of any size are read, whatever the owner of a namespace does to its links, and nobody else pays for it."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterator

import pytest

from tests.live.configuring import configured, pair, put, quickly, settle, until
from tests.live.following import told
from tests.live.large import MOST_ALTNAMES, altnames, give_altnames, give_macs
from tests.live.looking import counted_looks
from tests.witness import ip, names, seen
from vethlib import BatchError, End, LinkNotFound, Malformed, Session, Veth, ns
from vethlib._nl import link as link_module
from vethlib._nl.dump import link_bodies
from vethlib._nl.link import parse_link
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.cli import main
from vethlib.ifindex import IfIndexCache, noise, reader, watching

SIZES = [130, 495, MOST_ALTNAMES]


@pytest.fixture
def pair_of(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb")))


@pytest.fixture(params=SIZES)
def large(request: pytest.FixtureRequest, pair_of: None) -> int:
    """How many alternative names va in blue has."""
    count: int = request.param
    give_altnames("va", altnames(count), netns="blue")
    return count


def test_a_link_with_hundreds_of_names_is_read_in_every_way(session: Session, large: int) -> None:
    link = session.lookup("va", "blue")
    assert link.altnames == tuple(altnames(large))
    assert session.lookup(link.altnames[-1], "blue") == link
    assert session.index(link.altnames[0], "blue") == link.index
    assert [one.name for one in session.links("blue") if one.altnames] == ["va"]
    assert session.lookup_many([("va", "blue"), ("lo", "blue"), (link.altnames[7], "blue")])[2] == link
    found = session.survey(["blue", ""])
    assert {one.link.name: one.peer for one in found.links if one.link.kind == "veth"}.keys() == {"va", "vb"}
    assert all(one.peer for one in found.links if one.link.kind == "veth")
    (inspected,) = session.inspect([("blue", "va"), ("blue", link.index)]).links
    assert inspected.link == link
    assert session.details("va", "blue")["IFLA_IFNAME"] == "va"
    assert session.dependents([("blue", link.index)])[0].fixed[0].startswith("its alternative name")
    assert session.stats_many([(link.altnames[3], "blue")])[0] is not None


def test_many_large_answers_in_one_exchange_are_all_received(session: Session, pair_of: None) -> None:
    """More than the receive buffer holds, and any of them more than any number of small ones."""
    links = [f"v{number}" for number in range(6)]
    session.create_many([Veth(End(name, "blue"), End(f"p{name}", "blue")) for name in links])
    for name in links:
        give_altnames(name, altnames(MOST_ALTNAMES, name), netns="blue")
    found = session.lookup_many([(name, "blue") for name in links for _ in range(2)])
    assert [len(link.altnames) for link in found] == [MOST_ALTNAMES] * 12
    assert {len(link.altnames) for link in session.links("blue")} == {0, MOST_ALTNAMES}
    session.delete_many([(name, "blue") for name in links])
    assert names("blue") == {"va"}


def test_such_a_link_is_changed_waited_for_and_deleted(session: Session, large: int) -> None:
    assert session.set("va", "blue", mtu=1400, add_addresses=["10.0.0.1/24"], up=True, wait=30).mtu == 1400
    assert session.set("va", "blue", new_name="vc", alias="mine").alias == "mine"
    assert seen("vc", "blue")["mtu"] == 1400
    session.delete_many([("vc", "blue"), ("vb", "")])
    assert (names("blue"), names()) == (set(), set())


def test_no_change_of_a_session_depends_on_what_else_is_in_the_namespace(session: Session, large: int) -> None:
    session.create_many([Veth(End(f"x{n}", "blue"), End(f"y{n}", "blue")) for n in range(20)])
    session.delete_many([(f"x{n}", "blue") for n in range(20)])
    assert names("blue") == {"va"}


@pytest.mark.parametrize("count", [1000, 5400, 5461, 5500, 6000, 8000])
def test_a_link_whose_message_the_kernel_garbles_is_a_link(session: Session, pair_of: None, count: int) -> None:
    """Above 64 KiB the length of a nest is modulo 2^16, and behind it any bytes may pass for attributes."""
    give_macs("va", count, netns="blue")
    for link in (session.lookup("mv", "blue"), *(one for one in session.links("blue") if one.name == "mv")):
        assert (link.kind in ("macvlan", ""), link.mtu, link.up) == (True, 1500, False)
    assert session.dependents([("blue", session.index("mv", "blue"))])
    found = session.survey(["blue", ""])
    assert {one.link.name for one in found.links} == {"lo", "va", "vb", "mv"}
    with pytest.raises(LinkNotFound):
        session.lookup("nothing", "blue")
    assert session.set("mv", "blue", mtu=1400).mtu == 1400


def test_a_dump_in_passing_reads_what_fills_its_buffer(session: Session, pair_of: None) -> None:
    give_macs("va", 12_000, netns="blue")
    with ns.entered("blue"):
        assert {parse_link(body).name for body in link_bodies()} == {"lo", "va", "mv"}
    assert {link.name for link in session.links("blue")} == {"lo", "va", "mv"}
    assert session.lookup("mv", "blue").mtu == 1500


def test_the_command_line_shows_all_others_beside_such_a_link(large: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--json"]) == 0
    assert '"vb"' in capsys.readouterr().out


# --- the cache


@pytest.fixture
def cache(session: Session, pair_of: None, red: str) -> Iterator[IfIndexCache]:
    session.create(Veth(End("honest", "red"), End("other", "red")))
    with IfIndexCache(session) as cache:
        cache.watch_all(["blue", "red", ""])
        cache.poll()
        yield cache


def test_every_event_of_such_a_link_is_received_and_none_makes_anything_be_read_anew(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        noise, "NOISY", 1 << 40
    )  # megabytes within two seconds would set the namespace apart: a "resync"
    give_altnames("va", altnames(MOST_ALTNAMES), netns="blue")
    while cache.poll():
        pass
    quickly(*(f"link set va mtu {1400 + number}" for number in range(20)), netns="blue")
    cache.catch_up()  # poll() reads for 50 ms at most
    events = told(cache.poll())
    assert {kind for kind, *_ in events} == {"changed"}
    assert {netns for _, netns, *_ in events} == {"blue"}
    assert cache.link("va", "blue").mtu == 1419
    assert cache.index(altnames(MOST_ALTNAMES)[-1], "blue") == cache.index("va", "blue")


def test_an_event_too_long_to_be_received_costs_a_look_at_its_own_namespace(cache: IfIndexCache) -> None:
    events = told(cache.poll())
    give_macs("va", 11_500, netns="blue")
    while new := told(cache.poll()):
        events += new
    assert {netns for kind, netns, *_ in events if kind == "resync"} <= {"blue", None}
    ip("link", "set", "mv", "mtu", "1300", netns="blue")
    cache.poll()
    ip("link", "set", "mv", "mtu", "1299", netns="blue")
    assert told(cache.poll()) == [("changed", "blue", "mv", "mv")]
    assert cache.link("mv", "blue").mtu == 1299
    assert {link.name for link in cache.links("red")} == {"lo", "honest", "other"}


# --- the agent


def test_an_agent_keeps_the_pairs_of_others_beside_such_a_namespace(session: Session, blue: str, red: str) -> None:
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "blue"), *pair("c", "d", "red"))
        settle(configurator)
        assert configured(configurator, "a", "b", "c", "d")()
        give_altnames("a", altnames(MOST_ALTNAMES), netns="blue")
        give_macs("a", 6000, netns="blue")
        ip("link", "del", "dev", "c", netns="red")
        until(configurator, lambda: "c" in names("red"))
        until(configurator, configured(configurator, "a", "b", "c", "d"))
        ip("link", "del", "dev", "a", netns="blue")
        until(configurator, lambda: "a" in names("blue"))
        configurator.resync()
        settle(configurator)
        assert configured(configurator, "a", "b", "c", "d")()


# --- what cannot be understood


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches whether a link with the alternative name "evil" has a message that makes no sense."""
    altnames_of, on = link_module._altnames, [True]

    def read(properties: bytes) -> tuple[str, ...]:
        if on[0] and b"evil" in properties:
            raise Malformed("an attribute of 3 bytes in 7")
        return altnames_of(properties)

    monkeypatch.setattr(link_module, "_altnames", read)
    return lambda value: on.__setitem__(0, value)


@pytest.fixture
def evil(session: Session, pair_of: None, red: str, mark: Callable[[bool], None]) -> None:
    session.create(Veth(End("honest", "red"), End("other", "red")))
    give_altnames("va", ["evil"], netns="blue")


def test_a_message_that_makes_no_sense_is_an_error_that_names_the_namespace(session: Session, evil: None) -> None:
    for ask in (
        lambda: session.lookup("va", "blue"),
        lambda: session.links("blue"),
        lambda: session.lookup_many([("honest", "red"), ("va", "blue")]),
        lambda: session.dependents([("blue", 2)]),
    ):
        with pytest.raises(Malformed) as caught:
            ask()
        assert (caught.value.netns, caught.value.errno) == ("blue", errno.EBADMSG)
        assert pickle.loads(pickle.dumps(caught.value)).netns == "blue"
        assert session.lookup("honest", "red").up


def test_a_cache_keeps_what_it_knew_of_a_namespace_that_makes_no_sense(
    cache: IfIndexCache, mark: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = counted_looks(monkeypatch)
    for module, pause in ((reader, "FIRST_PAUSE"), (watching, "FIRST_PAUSE"), (watching, "_LONGEST_PAUSE")):
        monkeypatch.setattr(module, pause, 0.0)
    give_altnames("va", ["evil"], netns="blue")
    quickly(*(f"link set va mtu {1400 + number}" for number in range(20)), netns="blue")
    ip("link", "set", "honest", "mtu", "1300", netns="red")
    events = told(cache.poll())
    assert {one for one in events if one[0] == "resync"} == {("resync", "blue", None, None)}
    assert ("changed", "red", "honest", "honest") in events
    assert len(looks) == 1
    assert (cache.link("va", "blue").mtu, cache.link("honest", "red").mtu) == (1500, 1300)
    with pytest.raises(LinkNotFound):
        cache.index("nothing", "red")
    mark(False)
    cache.catch_up()
    assert cache.link("va", "blue").mtu == 1419
    count = len(looks)
    cache.catch_up()
    assert len(looks) == count


def test_a_namespace_that_makes_no_sense_is_not_watched_and_the_error_names_it(
    session: Session, evil: None, mark: Callable[[bool], None]
) -> None:
    with IfIndexCache(session) as cache:
        with pytest.raises(Malformed) as caught:
            cache.watch_all(["red", "blue"])
        assert caught.value.netns == "blue"
        assert cache.netns() == []
        cache.watch_all(["red", ""])
        mark(False)
        cache.watch("blue")
        assert cache.index("evil", "blue") == cache.index("va", "blue")


def test_a_namespace_that_makes_no_sense_costs_the_others_nothing(session: Session, evil: None) -> None:
    for found in (
        session.survey(["", "blue", "red", "netns:blue"]),
        session.inspect([("", "vb"), ("blue", "va"), ("red", "honest"), ("red", "other")], ["netns:blue"]),
    ):
        assert isinstance(found.places["blue"], Malformed)
        assert isinstance(found.places["netns:blue"], Malformed)
        assert {one.link.name for one in found.links} >= {"vb", "honest", "other"}
        assert [one.peer for one in found.links if one.link.name == "honest"] != [None]
    with pytest.raises(BatchError) as caught:
        session.delete_many([("va", "blue"), ("honest", "red")])
    assert [(type(one), one.item) for one in caught.value.exceptions] == [(Malformed, ("va", "blue"))]
    assert names("red") == set()


def test_an_agent_waits_for_a_namespace_that_makes_no_sense_and_works_in_the_others(
    session: Session, blue: str, red: str, mark: Callable[[bool], None]
) -> None:
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "blue"), *pair("c", "d", "red"))
        settle(configurator)
        give_altnames("a", ["evil"], netns="blue")
        ip("link", "set", "dev", "a", "mtu", "1300", netns="blue")
        ip("link", "del", "dev", "c", netns="red")
        until(configurator, lambda: "c" in names("red"))
        until(configurator, configured(configurator, "c", "d"))
        configurator.resync([*pair("a", "b", "blue"), *pair("c", "d", "red"), *pair("e", "f", "red")])
        until(configurator, configured(configurator, "c", "d", "e", "f"))
        (status,) = configurator.status("a")
        assert "EBADMSG" in status.warning  # as far as events tell, it is as it was
        mark(False)
        until(configurator, lambda: not configurator.status("a")[0].warning)
        assert configured(configurator, "a", "b", "c", "d", "e", "f")()
    with Configurator(session) as configurator:
        mark(True)
        configurator.resync([*pair("a", "b", "blue"), *pair("c", "d", "red")])
        until(configurator, configured(configurator, "c", "d"))
        until(configurator, lambda: "e" not in names("red"))
