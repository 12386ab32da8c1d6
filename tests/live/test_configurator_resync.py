"""A resync does not touch what is right, deletes what is no longer desired, and leaves foreign links alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import LABEL, interface
from tests.live.configuring import (
    by_pid,
    configured,
    foreign,
    pair,
    placed,
    put,
    requests,
    settle,
    state_of,
    states,
    until,
    without_detection,
)
from tests.witness import host_state, ip, names, nothing_changes, poll, rename, seen
from vethlib import InvalidValue, Session
from vethlib._nl.const import RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK
from vethlib.agent import group_of
from vethlib.agent.planning import recorded
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.observer import HostObserver
from vethlib.agent.reconcile.passes import reconcilepass
from vethlib.ns import Netns

PAIR = pair("a", "b", "blue", ip_addresses=["2001:db8::1/64"])[:1] + pair("a", "b", "blue", mtu=1400)[1:]
BAD = [InvalidValue("mtu", 3, "an MTU is 68 to 65535")]


@pytest.fixture
def blue(blue: str) -> str:
    without_detection("", blue)
    return blue


@pytest.fixture
def red(red: str) -> str:
    without_detection(red)
    return red


@pytest.fixture
def left(session: Session, blue: str, red: str) -> dict[str, list[dict[str, Any]]]:
    """What an earlier run has left: a–b (blue, home) and x–y (blue, red); returns the state of the host with them."""
    with Configurator(session) as earlier:
        put(earlier, *PAIR, *pair("x", "y", "blue", "red"))
        settle(earlier)
    return host_state()


def test_with_nothing_to_do_it_sends_no_request_that_changes_anything(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with requests(monkeypatch) as sent, nothing_changes():
        configurator.resync([*PAIR, *pair("x", "y", "blue", "red")])
        settle(configurator)
        configurator.resync()
        settle(configurator)
        put(configurator, *PAIR)
        settle(configurator)
    assert sent == []
    assert configured(configurator, *"abxy")()


def test_it_changes_only_what_differs(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "set", "dev", "b", "mtu", "1300")
    before = host_state()
    with requests(monkeypatch) as sent:
        x = interface("x", "y", "blue", ip_addresses=["10.0.0.1/24"])
        configurator.resync([*PAIR, x, interface("y", "x", "red")])
        settle(configurator)
    assert sorted(sent) in ([RTM_SETLINK, RTM_NEWADDR], [RTM_NEWLINK, RTM_NEWADDR])
    after = host_state()
    assert [(n, o) for netns in before for n, o in zip(before[netns], after[netns], strict=True) if n != o] == [
        (seen_before, seen_after)
        for netns in ("", "blue")
        for seen_before, seen_after in zip(before[netns], after[netns], strict=True)
        if seen_before["ifname"] == {"": "b", "blue": "x"}[netns]
    ]
    assert seen("b")["mtu"] == 1400
    assert [one["ifindex"] for one in after["blue"]] == [one["ifindex"] for one in before["blue"]]


def test_pairs_that_nobody_wants_go_from_everywhere_and_others_stay(
    configurator: Configurator, left: object, session: Session
) -> None:
    """From namespaces, too, that no configuration mentions."""
    foreign("o1", "red", "o2")
    with Configurator(session, label="other") as other:
        put(other, *pair("theirs1", "theirs2", "blue", "red"))
        settle(other)
    ip("link", "add", "name", "d", "group", str(group_of(LABEL)), "type", "bridge", netns="red")  # not a veth
    configurator.resync(PAIR)
    settle(configurator)
    assert names("blue") == {"a", "theirs1"}
    assert names("red") == {"theirs2", "o1", "o2", "d"}
    assert names() == {"b"}
    configurator.resync([])
    settle(configurator)
    assert names("blue") == {"theirs1"}
    assert names() == set()
    assert states(configurator) == {}


def test_two_agents_of_different_labels_keep_their_own_and_neither_the_other_s(session: Session, blue: str) -> None:
    with Configurator(session, label="one") as one, Configurator(session, label="two") as two:
        one.resync(pair("a", "b", "blue"))
        settle(one)
        two.resync(pair("x", "y", "blue"))
        settle(two)
        two.put(interface("a", "b", "blue"))
        two.put(interface("b", "a"))
        with nothing_changes():
            for _ in range(3):
                settle(one)
                settle(two)
                one.resync()
                two.resync()
        assert state_of(two, "a") == "FAILED: link-of-other-label(one)"
        with nothing_changes():
            two.delete("a")
            two.delete("b")
            settle(two)
        one.resync([])
        settle(one)
        assert (names("blue"), names()) == ({"x"}, {"y"})
        ip("link", "set", "dev", "y", "down")
        settle(one)
        until(two, lambda: "UP" in seen("y")["flags"])


def test_pairs_where_only_the_configuration_had_led_are_found_by_it(
    session: Session, spawn: Callable[[str], int]
) -> None:
    with Netns.anonymous() as netns:
        pid = spawn(netns.ref)
    wanted = placed("a", "b", by_pid(pid)), interface("b", "a")
    with Configurator(session) as first:
        first.resync(wanted)
        settle(first)
        index = seen("a", f"pid:{pid}")["ifindex"]
    with Configurator(session) as second:
        second.resync(wanted)
        settle(second)
        assert seen("a", f"pid:{pid}")["ifindex"] == index
        second.resync([])
        settle(second)
        assert names(f"pid:{pid}") == names() == set()


def test_two_equal_pairs_of_ours_leave_one(session: Session, blue: str) -> None:
    """As after a crash in the middle of replacing one."""
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue"))
        settle(first)
    rename("b", "old")
    rename("a", "old", "blue")
    ip("link", "add", "name", "b", "group", str(group_of(LABEL)), "type", "veth", "peer", "name", "b2")
    ip("link", "set", "dev", "b2", "group", str(group_of(LABEL)))
    with Configurator(session) as second:
        second.resync(pair("a", "b", "blue"))
        settle(second)
        assert (names("blue"), names()) == ({"a"}, {"b"})
        assert configured(second, "a", "b")()


# --- values that are bad


def test_a_bad_value_keeps_the_last_good_one_in_force(configurator: Configurator, blue: str) -> None:
    configurator.resync(PAIR)
    settle(configurator)
    with nothing_changes():
        configurator.refuse("a", BAD)
        settle(configurator)
        assert state_of(configurator, "a") == "INVALID: invalid-value(mtu)"
        assert configurator.status("a")[0].host_name == "a"  # the last valid value stays in force
        assert configured(configurator, "b")()
    ip("link", "set", "dev", "a", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("a", "blue")["mtu"] == 1500)
    assert state_of(configurator, "a").startswith("INVALID")
    configurator.put(PAIR[0])
    settle(configurator)
    assert configured(configurator, "a", "b")()


def test_a_bad_value_shields_what_is_there_after_a_restart(configurator: Configurator, left: object) -> None:
    with nothing_changes():
        configurator.resync([PAIR[1], *pair("x", "y", "blue", "red")], refused={"a": BAD})
        settle(configurator)
        configurator.resync()
        settle(configurator)
    assert states(configurator) == {
        "a": "INVALID: invalid-value(mtu)",
        "b": "PENDING: peer-invalid(a)",
        "x": "CONFIGURED",
        "y": "CONFIGURED",
    }
    with nothing_changes():
        configurator.put(PAIR[0])
        settle(configurator)
    assert configured(configurator, *"abxy")()


def test_a_bad_value_that_is_deleted_shields_nothing_any_more(configurator: Configurator, left: object) -> None:
    configurator.resync([PAIR[1], *pair("x", "y", "blue", "red")], refused={"a": BAD})
    settle(configurator)
    configurator.delete("a")
    settle(configurator)
    assert (names("blue"), names()) == ({"x"}, set())
    assert states(configurator)["b"] == "PENDING: peer-not-configured(a)"


def test_a_bad_value_of_which_nothing_is_there_is_only_said(configurator: Configurator) -> None:
    with nothing_changes():
        configurator.refuse("a", [*BAD, InvalidValue("type", 7, "must be VETH (0), the only type")])
        told = settle(configurator)
    assert told.keys() == {"a"}
    assert states(configurator) == {"a": "INVALID: invalid-value(mtu), invalid-value(type)"}


# --- how much is known


def test_an_incomplete_configuration_deletes_nothing_it_does_not_mention(
    configurator: Configurator, left: object
) -> None:
    with nothing_changes():
        configurator.resync(PAIR, complete=False)
        settle(configurator)
        configurator.resync()
        settle(configurator)
        configurator.resync([], complete=False)
        settle(configurator)
    assert configured(configurator, "a", "b")()
    configurator.resync(PAIR)
    settle(configurator)
    assert (names("blue"), names("red"), names()) == ({"a"}, set(), {"b"})


def test_after_an_incomplete_configuration_what_comes_in_pieces_is_worked_on(
    configurator: Configurator, left: object
) -> None:
    configurator.resync([PAIR[0]], complete=False)
    settle(configurator)
    put(configurator, *pair("n", "m", "red"))
    settle(configurator)
    assert "x" in names("blue")
    assert names("red") == {"y", "n"}
    configurator.delete("x")
    settle(configurator)
    assert "y" not in names("red")


def test_deleted_names_are_forgotten_when_nothing_is_left_of_them(configurator: Configurator, left: object) -> None:
    configurator.resync([], complete=False)
    for number in range(200):
        put(configurator, *pair(f"n{number}", f"m{number}", "red"))
    settle(configurator)
    for number in range(200):
        configurator.delete(f"n{number}")
        configurator.delete(f"m{number}")
        configurator.delete(f"never{number}")
    settle(configurator)
    assert names("red") == {"y"}
    assert "x" in names("blue")
    assert configurator._desired.deleted.isdisjoint(f"never{number}" for number in range(200))
    configurator.resync()
    settle(configurator)
    assert configurator._desired.deleted == set()
    assert "x" in names("blue")


def test_however_many_names_are_deleted_few_are_remembered(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcilepass, "_MANY_DELETED", 50)
    monkeypatch.setattr(recorded, "_LOST", 10)
    configurator.resync([], complete=False)
    for number in range(150):
        put(configurator, *pair(f"n{number}", f"m{number}", "red"))
    settle(configurator)
    for number in range(150):
        configurator.delete(f"n{number}")
        configurator.delete(f"m{number}")
        settle(configurator)
    assert len(configurator._desired.deleted) <= 50
    assert names("red") == {"y"}


def test_before_any_resync_a_leftover_can_be_deleted_by_its_name_and_nothing_else_goes(
    configurator: Configurator, left: object
) -> None:
    configurator.delete("y")
    settle(configurator)
    assert (names("blue"), names("red"), names()) == ({"a"}, set(), {"b"})
    assert states(configurator) == {}


@pytest.mark.parametrize("incomplete", [False, True])
def test_before_the_configuration_is_known_to_be_whole_a_leftover_that_somebody_changes_stays(
    configurator: Configurator, left: object, incomplete: bool
) -> None:
    """That a link was changed is an occasion to look, not a reason to delete."""
    if incomplete:
        configurator.resync(pair("x", "y", "blue", "red"), complete=False)
    settle(configurator)
    index = seen("b")["ifindex"]
    ip("link", "set", "dev", "b", "mtu", "1300")
    settle(configurator)
    assert seen("b")["ifindex"] == index


def test_before_any_resync_a_put_of_what_is_there_touches_nothing(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with requests(monkeypatch) as sent, nothing_changes():
        put(configurator, *PAIR)
        settle(configurator)
    assert sent == []
    assert configured(configurator, "a", "b")()


def test_before_any_resync_one_end_put_of_a_pair_that_is_there_waits_for_the_other(
    configurator: Configurator, left: object
) -> None:
    """What becomes of the pair meanwhile is open; in the end both are there, and no other pair was touched."""
    others = [link for link in host_state()["blue"] if link["ifname"] == "x"]
    configurator.put(PAIR[0])
    settle(configurator)
    assert state_of(configurator, "a") == "PENDING: peer-not-configured(b)"
    configurator.put(PAIR[1])
    settle(configurator)
    assert configured(configurator, "a", "b")()
    assert [link for link in host_state()["blue"] if link["ifname"] == "x"] == others


def test_a_resync_forgets_what_it_does_not_mention(configurator: Configurator, blue: str) -> None:
    put(configurator, *PAIR, *pair("x", "y", "blue"))
    settle(configurator)
    configurator.resync(pair("x", "y", "blue"))
    told = settle(configurator)
    assert (told["a"], told["b"]) == (None, None)
    assert states(configurator) == {"x": "CONFIGURED", "y": "CONFIGURED"}
    assert (names("blue"), names()) == ({"x"}, {"y"})


def test_a_leftover_with_one_end_out_of_sight_goes_by_the_other(
    session: Session, spawn: Callable[[str], int], red: str
) -> None:
    with Netns.anonymous() as netns:
        pid = spawn(netns.ref)
    with Configurator(session) as first:
        put(first, placed("a", "b", by_pid(pid)), interface("b", "a", "red"))
        settle(first)
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert names("red") == names(f"pid:{pid}") == set()


# --- a resync of a host on which nothing has changed


def at_rest(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resync until it has noted that nothing is left to do, and nothing changes by itself any more.

    The kernel settles operstates a little later.
    """
    assert poll(lambda: looks(configurator, monkeypatch) == ["is_at_rest"])


def looks(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Resync; return the parts of the work that were done."""
    done = []
    with monkeypatch.context() as patch:
        for part in ("look_everywhere", "look", "is_at_rest"):
            known = getattr(HostObserver, part)

            def noting(*args: Any, part: str = part, known: Callable[..., Any] = known) -> Any:
                done.append(part)
                return known(*args)

            patch.setattr(HostObserver, part, noting)
        configurator.resync()
        settle(configurator)
    return done


def test_a_host_that_is_exactly_as_it_was_is_compared_and_not_judged_again(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *PAIR, *pair("x", "y", "blue", "red"))
    at_rest(configurator, monkeypatch)
    before = states(configurator)
    outcomes, resyncs = configurator.counters.outcomes.copy(), configurator.counters.resyncs["resync"]
    with requests(monkeypatch) as sent, nothing_changes():
        assert looks(configurator, monkeypatch) == ["is_at_rest"]
    assert sent == []
    assert states(configurator) == before
    assert configurator.counters.outcomes - outcomes == {"done": 4}
    assert configurator.counters.resyncs["resync"] == resyncs + 1


def test_a_change_without_an_event_is_found_by_a_resync_at_rest(
    configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sends none for the alias of a link that is down."""
    down = [replace(one, enabled=False) for one in PAIR]
    put(configurator, *down)
    at_rest(configurator, monkeypatch)
    alias = seen("b")["ifalias"]
    ip("link", "set", "dev", "b", "alias", "somebody else's")
    assert settle(configurator) == {}
    configurator.resync()
    settle(configurator)
    assert state_of(configurator, "b").startswith("FAILED")
    ip("link", "set", "dev", "b", "alias", alias)
    configurator.resync()
    settle(configurator)
    assert state_of(configurator, "b") == "CONFIGURED"


def test_after_any_work_the_next_resync_judges_everything(
    configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *PAIR)
    at_rest(configurator, monkeypatch)
    ip("link", "set", "dev", "b", "mtu", "1300")
    until(configurator, lambda: seen("b")["mtu"] == 1400)
    settle(configurator)
    assert looks(configurator, monkeypatch) == ["is_at_rest", "look_everywhere"]
    at_rest(configurator, monkeypatch)


def test_a_resync_at_rest_writes_a_record_again_that_was_removed(
    configurator: Configurator, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *PAIR, *pair("x", "y", "blue", "red"))
    at_rest(configurator, monkeypatch)
    path = Path(configurator.pairs.path)
    path.unlink()
    configurator.resync()
    settle(configurator)
    assert '"x"' in path.read_text()
    at_rest(configurator, monkeypatch)


def test_what_waits_for_a_namespace_is_judged_again_once_it_exists(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, *pair("a", "b", "later"))
        at_rest(configurator, monkeypatch)
        assert state_of(configurator, "a").startswith("PENDING")
        Netns.create("later").close()
        configurator.resync()
        until(configurator, configured(configurator, "a", "b"))


def test_another_completeness_of_the_configuration_is_judged_again(
    configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not configured is only deleted once the configuration is known to be complete."""
    put(configurator, *PAIR)
    settle(configurator)
    with Configurator(configurator.session, label="vpp1") as later:
        later.resync([], complete=False)
        settle(later)
        at_rest(later, monkeypatch)
        assert "b" in names()
        later.resync([])
        settle(later)
        assert "b" not in names()


@pytest.mark.parametrize("first", ["valid", "invalid"])
def test_a_peer_with_an_invalid_value_is_not_called_missing(configurator: Configurator, first: str) -> None:
    a, b = pair("a", "b", "red")
    steps = [lambda: put(configurator, a), lambda: configurator.refuse("b", BAD)]
    for step in steps if first == "valid" else reversed(steps):
        step()
        settle(configurator)
    assert states(configurator) == {"a": "PENDING: peer-invalid(b)", "b": "INVALID: invalid-value(mtu)"}
    configurator.delete("b")
    settle(configurator)
    assert states(configurator) == {"a": "PENDING: peer-not-configured(b)"}
    configurator.refuse("b", BAD)
    put(configurator, b)
    settle(configurator)
    assert set(states(configurator).values()) == {"CONFIGURED"}
