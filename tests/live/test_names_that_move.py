"""Names and alternative names that move among interfaces, or that other links have: apply, its undo, and an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.live.applying import applied, interface, planned
from tests.live.configuring import configured, put, settle, state_of, until
from tests.name_moves import MOVES, Names
from tests.reasons import in_codes
from tests.witness import ip, names, seen
from vethlib import Route, Session
from vethlib.agent import Interface, inverse
from vethlib.agent.config.mark import read_alias
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe
from vethlib.agent.reconcile.configurator import Configurator

# From one to the other, every interface sorts on the other side of those with which it exchanges names.
CALLED = [{"a": "a", "b": "b", "c": "c"}, {"a": "c", "b": "b", "c": "a"}]


def pairs(names: Names, called: Mapping[str, str], **more: Any) -> list[Interface]:
    made = []
    for each, text in names.items():
        name = called[each]
        kernel, *altnames = text.split()
        made.append(interface(name, f"{name}-peer", "blue", host_if_name=kernel, altnames=altnames, **more))
        made.append(interface(f"{name}-peer", name))
    return made


def as_called(names: Names, called: Mapping[str, str]) -> dict[str, set[str]]:
    return {called[each]: set(text.split()) for each, text in names.items()}


def there() -> dict[str, set[str]]:
    """The names of each link in blue, by its interface."""
    found = {}
    for link in ip("link", netns="blue"):
        if (mark := read_alias(link.get("ifalias", ""))) is not None:
            found[mark.name] = {link["ifname"], *link.get("altnames", ())}
    return found


def indexes() -> dict[str, int]:
    links = {link["ifname"]: link["ifindex"] for link in ip("link", netns="blue")}
    return {name: links[each] for name, held in there().items() for each in held if each in links}


def look(session: Session, wanted: list[Interface]) -> Any:
    return observe(session, ["netns:blue"], interfaces=wanted)


@pytest.mark.parametrize("called", CALLED, ids=["", "the other way round"])
@pytest.mark.parametrize("move", MOVES)
def test_names_move_at_once_and_go_back_when_that_is_undone(
    session: Session, blue: str, move: str, called: dict[str, str]
) -> None:
    was, wanted = (pairs(each, called) for each in MOVES[move])
    applied(session, *was, prune=True)
    before, first = indexes(), look(session, wanted)
    done = applied(session, *wanted, prune=True).done
    assert there() == as_called(MOVES[move][1], called)
    stay = {called[each] for each in MOVES[move][0].keys() & MOVES[move][1].keys()}
    assert {name: index for name, index in indexes().items() if name in stay} == {
        name: index for name, index in before.items() if name in stay
    }
    second = look(session, wanted)
    undo = inverse(done, first, second, second)
    assert undo.left == ()
    assert execute(session, undo.plan).errors == []
    assert there() == as_called(MOVES[move][0], called)
    assert planned(session, *was, prune=True).operations == ()


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


@pytest.mark.parametrize("called", CALLED, ids=["", "the other way round"])
@pytest.mark.parametrize("move", MOVES)
def test_an_agent_moves_names_whichever_interface_it_hears_of_first(
    configurator: Configurator, move: str, called: dict[str, str]
) -> None:
    was, wanted = (pairs(each, called) for each in MOVES[move])
    put(configurator, *was)
    until(configurator, configured(configurator, *(each.name for each in was)))
    for gone in {each.name for each in was} - {each.name for each in wanted}:
        configurator.delete(gone)
    for each in wanted:
        configurator.put(each)
        settle(configurator)
    until(configurator, configured(configurator, *(each.name for each in wanted)))
    assert there() == as_called(MOVES[move][1], called)


FOREIGN: dict[str, tuple[Callable[[], object], str, Callable[[], object]]] = {
    "name": (
        lambda: ip("link", "add", "name", "x", "type", "bridge", netns="blue"),
        "link-foreign(x)",
        lambda: ip("link", "set", "dev", "x", "name", "f", netns="blue"),
    ),
    "alternative name": (
        lambda: (
            ip("link", "add", "name", "f", "up", "type", "bridge", netns="blue"),
            ip("link", "property", "add", "dev", "f", "altname", "x", netns="blue"),
        ),
        "link-altname(f)",
        lambda: ip("link", "property", "del", "dev", "f", "altname", "x", netns="blue"),
    ),
    "long alternative name": (
        lambda: (
            ip("link", "add", "name", "f", "up", "type", "bridge", netns="blue"),
            ip("link", "property", "add", "dev", "f", "altname", "uplink-to-the-world", netns="blue"),
        ),
        "link-altname(f)",
        lambda: ip("link", "property", "del", "dev", "f", "altname", "uplink-to-the-world", netns="blue"),
    ),
}
CHANGES: list[dict[str, Any]] = [{}, {"mtu": 1400}, {"num_queues": 2}]


def ends(how: str, **given: Any) -> list[Interface]:
    altname = "uplink-to-the-world" if how.startswith("long") else "x"
    altnames = {"altnames": [altname]} if given.pop("wants", True) else {}
    return [interface("a", "b", "blue", **altnames, **given), interface("b", "a")]


@pytest.mark.parametrize("change", CHANGES, ids=["", "mtu", "rebuilt"])
@pytest.mark.parametrize("how", FOREIGN)
def test_a_pair_stays_as_it_is_while_a_foreign_link_has_an_alternative_name_of_it(
    session: Session, blue: str, how: str, change: dict[str, Any]
) -> None:
    take, code, free = FOREIGN[how]
    applied(session, *ends(how, wants=False, num_queues=1))
    take()
    made = planned(session, *ends(how, **{"num_queues": 1} | change), prune=True)
    assert made.operations == ()
    assert in_codes(made.verdicts["a"]) == f"FAILED: {code}"
    free()
    applied(session, *ends(how, **{"num_queues": 1} | change), prune=True)


@pytest.mark.parametrize("change", CHANGES, ids=["", "mtu", "rebuilt"])
@pytest.mark.parametrize("how", FOREIGN)
def test_an_agent_waits_for_an_alternative_name_that_a_foreign_link_has(
    configurator: Configurator, how: str, change: dict[str, Any]
) -> None:
    take, code, free = FOREIGN[how]
    put(configurator, *ends(how, wants=False, num_queues=1))
    until(configurator, configured(configurator, "a", "b"))
    take()
    index = seen("a", "blue")["ifindex"]
    put(configurator, *ends(how, **{"num_queues": 1} | change))
    settle(configurator)
    assert state_of(configurator, "a") == f"FAILED: {code}"
    assert seen("a", "blue")["ifindex"] == index
    free()
    until(configurator, configured(configurator, "a", "b"))
    assert set(seen("a", "blue")["altnames"]) == set(ends(how)[0].altnames)


def test_a_link_that_has_got_its_name_as_an_alternative_one_is_renamed_back(configurator: Configurator) -> None:
    put(configurator, interface("a", "b"), interface("b", "a"))
    until(configurator, configured(configurator, "a", "b"))
    index = seen("a")["ifindex"]
    ip("link", "set", "dev", "a", "down")
    ip("link", "set", "dev", "a", "name", "udev0")
    ip("link", "property", "add", "dev", "udev0", "altname", "a")
    ip("link", "set", "dev", "udev0", "up")
    until(configurator, lambda: "a" in names())
    until(configurator, configured(configurator, "a", "b"))
    assert seen("a")["ifindex"] == index


# An interface that claims the name of another one


FIELDS: dict[str, Any] = {
    "sysctls": {"rp_filter": "0"},
    "txqlen": 77,
    "routes": [{"dst": "10.7.0.0/24"}],
    "neighbours": [{"ip": "10.0.0.9", "mac": "02:00:00:00:00:09"}],
    "altnames": ["y"],
}
CLAIMS: list[dict[str, Any]] = [
    {"txqlen": 500},
    {"sysctls": {"arp_ignore": "2"}},
    {"routes": [{"dst": "10.8.0.0/24"}], "neighbours": []},
    {},
]


def claimed(netns: str, fields: dict[str, Any], claim: dict[str, Any]) -> list[Interface]:
    """An interface with these fields, and others, to both sides of it in the alphabet, which claim its name, too."""
    given: dict[str, Any] = {"ip_addresses": ["10.0.0.1/24"]} | fields
    made = [interface("v", "v-peer", netns, **given), interface("v-peer", "v")]
    for name in "aw":
        made += [interface(name, f"{name}-peer", netns, host_if_name="v", **claim), interface(f"{name}-peer", name)]
    return made


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("claim", CLAIMS, ids=[" ".join(claim) or "nothing" for claim in CLAIMS])
@pytest.mark.parametrize("field", FIELDS)
def test_who_only_claims_the_name_of_an_interface_does_not_change_what_is_seen_of_it(
    session: Session, blue: str, field: str, claim: dict[str, Any], netns: str
) -> None:
    wanted = claimed(netns, {field: FIELDS[field]}, claim)
    applied(session, *wanted)  # and nothing is left to do
    before = session.fields("v", netns, sysctls=["rp_filter"])
    tried = claimed(netns, {"txqlen": 99}, claim)
    refs = [f"netns:{netns}"] if netns else []
    first = observe(session, refs, interfaces=[*wanted, *tried])
    done = applied(session, *tried).done
    second = observe(session, refs, interfaces=[*wanted, *tried])
    undo = inverse(done, first, second, second)
    assert undo.left == ()
    assert execute(session, undo.plan).errors == []
    assert session.fields("v", netns, sysctls=["rp_filter"]) == before


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("claim", CLAIMS[:2], ids=["txqlen", "sysctls"])
def test_an_agent_finds_an_interface_as_configured_whoever_claims_its_name(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, netns: str, claim: dict[str, Any]
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    put(configurator, *claimed(netns, FIELDS, claim))
    until(configurator, configured(configurator, "v", "v-peer"))
    settle(configurator)
    index = seen("v", netns)["ifindex"]
    for _ in range(3):
        configurator.resync(claimed(netns, FIELDS, claim))
        assert settle(configurator).keys().isdisjoint({"v", "v-peer"})
    assert state_of(configurator, "w") == "FAILED: name-claimed(v)"
    assert seen("v", netns)["ifindex"] == index


def test_routes_that_only_somebody_else_configures_are_not_removed_for_a_claim(session: Session, blue: str) -> None:
    """Those of `vethctl set`, on a link whose interface has no routes."""
    wanted = claimed("blue", {}, {"routes": [{"dst": "10.8.0.0/24"}]})
    applied(session, *wanted)
    session.set("v", "blue", routes=[Route("10.7.0.0/24")])
    assert planned(session, *wanted).operations == ()
