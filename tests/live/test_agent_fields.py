"""Fields that few interfaces have, as an agent keeps them: planned, put right on drift, taken back, others' left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.applying import applied, interface, planned
from tests.live.configuring import configured, put, settle, until, without_detection
from tests.live.end_fields import fields
from tests.live.offloads import set_offload
from tests.live.sysctls import sysctl
from tests.witness import ip, names, seen
from vethlib import Session
from vethlib.agent import ChangeLink, inverse
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe
from vethlib.agent.reconcile.configurator import Configurator

CONFIGURED: dict[str, Any] = {
    "txqlen": 500,
    "gso_max_size": 8192,
    "altnames": ["uplink"],
    "sysctls": {"rp_filter": "2", "ipv6.accept_ra": "0"},
    "offload": False,
}
OTHERS: dict[str, Any] = {
    "txqlen": 7,
    "gso_max_size": 4096,
    "altnames": ["wan"],
    "sysctls": {"rp_filter": "1"},
    "offload": True,
}


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


def ends(**given: Any) -> list[Any]:
    return [interface("a", "b", "blue", **given), interface("b", "a", "blue")]


def set_txqlen() -> None:
    ip("link", "set", "dev", "a", "txqueuelen", "77", netns="blue")


def set_gso() -> None:
    ip("link", "set", "dev", "a", "gso_max_size", "5000", netns="blue")


def take_altname() -> None:
    ip("link", "property", "del", "dev", "a", "altname", "uplink", netns="blue")


def switch_on() -> None:
    set_offload("a", "blue", "tx", on=True)


def set_sysctl() -> None:
    sysctl("blue", "ipv4/conf/a/rp_filter", "0")


def test_a_pair_is_created_with_its_fields_and_needs_nothing_more(session: Session, blue: str) -> None:
    applied(session, *ends(**CONFIGURED))
    assert fields("a", "blue") == CONFIGURED | {"altnames": ("uplink",)}


def test_a_pair_gets_and_changes_fields_in_place(session: Session, blue: str) -> None:
    applied(session, *ends())
    index = seen("a", "blue")["ifindex"]
    applied(session, *ends(**CONFIGURED))
    applied(session, *ends(**OTHERS))
    assert fields("a", "blue") == {
        "txqlen": 7,
        "gso_max_size": 4096,
        "altnames": ("uplink", "wan"),  # nothing tells whose it is
        "sysctls": {"rp_filter": "1", "ipv6.accept_ra": "0"},
        "offload": True,
    }
    assert seen("a", "blue")["ifindex"] == index


@pytest.mark.parametrize("before", [{}, CONFIGURED])
def test_what_was_planned_is_undone_to_the_letter(session: Session, blue: str, before: dict[str, Any]) -> None:
    applied(session, *ends(**before))
    ip("link", "property", "add", "dev", "a", "altname", "foreign", netns="blue")
    state = fields("a", "blue")
    tried = ends(**OTHERS)

    def look() -> Any:
        return observe(session, ["netns:blue"], interfaces=tried)

    first = look()
    changed = {name for name in OTHERS if name != "offload" or before}  # which is on from the start
    done = execute(session, planned(session, *tried)).done
    assert [set(each.changes) - {"alias"} for each in done if isinstance(each, ChangeLink)] == [changed]
    assert fields("a", "blue")["txqlen"] == 7
    second = look()
    undo = inverse(done, first, second, look())
    assert undo.left == ()
    assert execute(session, undo.plan).errors == []
    assert fields("a", "blue") == state


def test_a_renamed_end_keeps_its_former_name_as_an_alternative_one_until_that_is_undone(
    session: Session, blue: str
) -> None:
    applied(session, *ends(host_if_name="old"))
    before = seen("old", "blue")
    renamed = ends(host_if_name="new", altnames=["old", "wan"])

    def look() -> Any:
        return observe(session, ["netns:blue"], interfaces=renamed)

    first = look()
    done = applied(session, *renamed).done
    after = seen("new", "blue")
    assert (set(after["altnames"]), after["ifindex"]) == ({"old", "wan"}, before["ifindex"])
    second = look()
    undo = inverse(done, first, second, look())
    assert undo.left == ()
    ip("link", "property", "add", "dev", "new", "altname", "foreign", netns="blue")
    left_alone = inverse(done, first, second, look())  # another program may have added the former name as well
    assert [left for left in left_alone.left if "keeps its name: 'old' is an alternative name of it" in left]
    ip("link", "property", "del", "dev", "new", "altname", "foreign", netns="blue")
    assert execute(session, undo.plan).errors == []
    assert "altnames" not in seen("old", "blue")


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        put(configurator, *ends(**CONFIGURED))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        yield configurator


def right() -> bool:
    return fields("a", "blue") == CONFIGURED | {"altnames": ("uplink",)}


def test_an_agent_renames_an_end_that_keeps_its_former_name(configurator: Configurator) -> None:
    index = seen("a", "blue")["ifindex"]
    put(configurator, *ends(**CONFIGURED | {"altnames": ["uplink", "a"]}, host_if_name="new"))
    until(configurator, lambda: "new" in names("blue") and set(seen("new", "blue")["altnames"]) == {"uplink", "a"})
    until(configurator, configured(configurator, "a", "b"))
    assert seen("new", "blue")["ifindex"] == index


def switch_down_and_on() -> None:
    ip("link", "set", "dev", "a", "down", netns="blue")
    switch_on()


@pytest.mark.parametrize("meddle", [take_altname, set_txqlen, switch_on, switch_down_and_on])
def test_drift_that_an_event_announces_is_put_right_before_the_regular_look(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None]
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 1e9)
    configurator.resync(ends(**CONFIGURED))
    settle(configurator)
    monkeypatch.setattr(configurator._occasions._unseen, "_due", time.monotonic() + 1e9)
    for _ in range(2):
        meddle()
        assert not right()
        until(configurator, right)


@pytest.mark.parametrize("meddle", [set_gso, set_sysctl])
def test_drift_that_is_no_event_is_put_right_by_the_next_look(
    configurator: Configurator, meddle: Callable[[], None]
) -> None:
    meddle()
    assert not right()
    configurator.resync(ends(**CONFIGURED))
    until(configurator, right)


def test_an_interface_with_fields_without_events_is_looked_at_regularly(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 0.1)
    with Configurator(session) as configurator:
        put(configurator, *ends(**CONFIGURED))
        until(configurator, configured(configurator, "a", "b"))
        set_sysctl()
        until(configurator, right)
        put(configurator, *ends())
        until(configurator, lambda: configurator.due() is None)


def test_an_alternative_name_of_others_survives(configurator: Configurator) -> None:
    ip("link", "property", "add", "dev", "a", "altname", "foreign", netns="blue")
    take_altname()
    until(configurator, lambda: set(fields("a", "blue")["altnames"]) == {"foreign", "uplink"})
