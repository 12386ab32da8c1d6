"""The requirements of a pair appear and vanish, and are noticed: names held by foreign links or other interfaces."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    SOON,
    best_of,
    configured,
    foreign,
    is_state,
    pair,
    put,
    quickly,
    renaming,
    settle,
    state_of,
    states,
    until,
)
from tests.slack import slack
from tests.witness import ip, names, seen
from vethlib import Session
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator

# --- foreign links


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("way", ["del", "name", "netns", "altname"])
@pytest.mark.timing
def test_a_foreign_link_in_the_way_that_goes_lets_the_pair_be_built_within_50_ms(
    configurator: Configurator, blue: str, red: str, netns: str, way: str
) -> None:
    def once() -> float:
        if way == "altname":
            foreign("f", netns)
            ip("link", "set", "dev", "f", "up", netns=netns)  # of a link that is down, no event tells of its names
            ip("link", "property", "add", "dev", "f", "altname", "b", netns=netns)
        else:
            foreign("b", netns)
        put(configurator, *pair("a", "b", "red", netns))
        settle(configurator)
        reason = "link-altname(f)" if way == "altname" else "link-foreign(b)"
        assert state_of(configurator, "b") == f"FAILED: {reason}"
        assert names("red") == set()
        command = {
            "del": ("link", "del", "dev", "b"),
            "name": ("link", "set", "dev", "b", "name", "f"),
            "netns": ("link", "set", "dev", "b", "netns", "red", "name", "f"),
            "altname": ("link", "property", "del", "dev", "f", "altname", "b"),
        }[way]
        ip(*command, netns=netns)
        took = until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        assert seen("b", netns)["link_index"] == seen("a", "red")["ifindex"]
        configurator.delete("a")
        configurator.delete("b")
        settle(configurator)
        for place in ("", "blue", "red"):
            for left in ("f", "theirs"):
                if left in names(place):
                    ip("link", "del", "dev", left, netns=place)
        settle(configurator)
        return took

    assert best_of(3, once) < SOON + slack()


def test_a_foreign_link_that_takes_the_name_of_a_renamed_end_is_left_alone(
    configurator: Configurator, blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    quickly(*renaming("a", "moved"), "link add name a type bridge", netns="blue")
    until(configurator, is_state(configurator, State.FAILED, "a"))
    assert names("blue") == {"moved", "a"}
    assert seen("moved", "blue")["ifindex"] == index  # what is there of a FAILED pair stays
    ip("link", "del", "dev", "a", netns="blue")
    until(configurator, configured(configurator, "a", "b"))
    assert names("blue") == {"a"}


# --- links that are down, of which there are no events


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_name_that_a_link_gives_up_while_it_is_down_is_taken(
    session: Session, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    ip("link", "add", "name", "f", "type", kind)
    ip("link", "property", "add", "dev", "f", "altname", "b")
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b"))
        until(configurator, is_state(configurator, State.FAILED, "b"))
        assert state_of(configurator, "b") == "FAILED: link-altname(f)"
        ip("link", "property", "del", "dev", "f", "altname", "b")
        until(configurator, configured(configurator, "a", "b"))
        until(configurator, lambda: configurator.due() is None)
    assert seen("b")["ifname"] == "b"


def test_the_takeover_of_a_link_that_is_down_is_noticed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN_RARE", 0.1)
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", enabled=False))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        ip("link", "set", "dev", "a", "alias", "of another program")
        until(configurator, is_state(configurator, State.FAILED, "a"))
        assert state_of(configurator, "a") == "FAILED: link-foreign(a)"
    assert seen("a")["ifalias"] == "of another program"


def test_interfaces_that_are_not_enabled_are_rarely_looked_at(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    put(configurator, *pair("a", "b", enabled=False))
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    due = configurator.due()
    assert due is not None
    assert due > 30
    sysctls = {"ipv4.rp_filter": "2"}  # whose changes are no events either
    put(configurator, *pair("a", "b", enabled=False, sysctls=sysctls))
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    due = configurator.due()
    assert due is not None
    assert due < 1
    put(configurator, *pair("a", "b"))
    until(configurator, lambda: configurator.due() is None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host_if_name": "br"}, "FAILED: link-foreign(br)"),
        ({"altnames": ["br"]}, "FAILED: link-foreign(br)"),
        ({"master": "br9"}, "PENDING: master-not-found(br9)"),
    ],
)
def test_a_link_that_stays_while_its_interface_waits_is_in_the_status(
    configurator: Configurator, fields: dict[str, Any], reason: str
) -> None:
    ip("link", "add", "name", "br", "type", "bridge")
    put(configurator, *pair("a", "b"))
    settle(configurator)
    put(configurator, interface("a", "b", **fields))
    settle(configurator)
    assert state_of(configurator, "a") == reason
    (status,) = configurator.status("a")
    assert status.as_dict()["ifindex"] == configurator.indexes.index("a") == seen("a")["ifindex"]
    assert status.host_name == "a"
    unmanaged = {one.name for one in configurator.lookup_interfaces() if one.state is State.UNMANAGED}
    assert unmanaged == {"lo", "br"}
    ip("link", "del", "dev", "a")
    settle(configurator)
    (status,) = configurator.status("a")
    assert (state_of(configurator, "a"), status.link) == (reason, None)


# --- alternative names of interfaces


@pytest.mark.parametrize("first", ["a", "b"])
def test_an_alternative_name_never_keeps_an_interface_from_its_own_name(configurator: Configurator, first: str) -> None:
    a, a2 = interface("a", "a2", altnames=["b"]), interface("a2", "a")
    pairs = {"a": (a, a2), "b": pair("b", "b2")}
    put(configurator, *pairs[first])
    settle(configurator)
    put(configurator, *pairs["a"], *pairs["b"])
    settle(configurator)
    assert state_of(configurator, "a") == "FAILED: name-claimed(b)"
    assert state_of(configurator, "b") == state_of(configurator, "b2") == "CONFIGURED"
    assert names() == {"a", "a2", "b", "b2"} if first == "a" else {"b", "b2"}
    put(configurator, interface("a", "a2"))
    settle(configurator)
    assert set(states(configurator).values()) == {"CONFIGURED"}
    assert "altnames" not in seen("a")


def test_the_second_of_two_interfaces_with_one_alternative_name_gets_it_when_the_first_is_gone(
    configurator: Configurator,
) -> None:
    put(configurator, interface("a", "a2", altnames=["x"]), interface("a2", "a"))
    put(configurator, interface("c", "c2", altnames=["x"]), interface("c2", "c"))
    settle(configurator)
    assert (state_of(configurator, "a"), state_of(configurator, "c")) == ("CONFIGURED", "FAILED: name-claimed(a)")
    configurator.delete("a")
    configurator.delete("a2")
    settle(configurator)
    assert state_of(configurator, "c") == "CONFIGURED"
    assert seen("c")["altnames"] == ["x"]
