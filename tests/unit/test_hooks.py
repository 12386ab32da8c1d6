"""Hooks, the pure parts: which report goes to which hook in which order, and what the log may contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.refusing import raises
from vethlib.agent.hooks import CommandTarget, Event, Hooks, UrlTarget, event_of, read_target
from vethlib.agent.hooks.policy import Complaints, spread
from vethlib.agent.hooks.waiting import Waiting
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue


def status(name: str, state: State, reason: str = "") -> Status:
    return Status(name, state, reason, 1_700_000_000.0, netns="netns:ns1", host_name="eth0", peer="veth2")


def event(name: str, state: State = State.FAILED, old: State = State.CONFIGURED) -> Event:
    change = StatusChange(name, status(name, state), status(name, old))
    found = event_of(change, at=0.0, label="vpp1", host="h")
    assert found is not None
    return found


def test_an_event_is_a_status_and_what_it_was_before() -> None:
    change = StatusChange("veth1", status("veth1", State.FAILED, "no\0room"), status("veth1", State.CONFIGURED))
    found = event_of(change, at=1_700_000_001.5, label="vpp1", host="h1")
    assert found is not None
    told = json.loads(found.json())
    assert [told[key] for key in ("name", "state", "old_state", "netns", "ifindex", "label", "host", "missed")] == [
        "veth1", "FAILED", "CONFIGURED", "netns:ns1", None, "vpp1", "h1", 0,
    ]  # fmt: skip
    assert told["at"] == "2023-11-14T22:13:21.500Z"
    environment = found.environment()
    assert environment["VETHLIB_STATE"] == "FAILED"
    assert environment["VETHLIB_IFINDEX"] == ""
    assert environment["VETHLIB_REASON"] == "noroom"
    assert environment["VETHLIB_REASON_CODE"] == ""
    assert all(key.startswith("VETHLIB_") for key in environment)


def test_what_is_no_change_of_the_state_is_no_event() -> None:
    now, before = status("a", State.PENDING, "x"), status("a", State.PENDING, "y")
    assert event_of(StatusChange("a", now, before), at=0, label="", host="") is None
    assert event_of(StatusChange("a", None, None), at=0, label="", host="") is None


def test_what_is_new_and_what_is_removed_are_events() -> None:
    new = event_of(StatusChange("a", status("a", State.PENDING)), at=0, label="", host="")
    gone = event_of(StatusChange("a", None, status("a", State.CONFIGURED)), at=0, label="", host="")
    assert new is not None
    assert gone is not None
    assert (new.old_state, new.state) == ("", "PENDING")
    assert (gone.old_state, gone.as_dict()["state"]) == ("CONFIGURED", "removed")


def test_the_newest_state_of_an_interface_takes_the_place_of_the_one_that_waits() -> None:
    waiting = Waiting(10)
    waiting.put(event("a", State.FAILED, State.CONFIGURED))
    waiting.put(event("b"))
    waiting.put(event("a", State.RETRYING, State.FAILED))
    waiting.put(event("a", State.PENDING, State.RETRYING))
    first = waiting.take()
    assert first is not None
    assert (first.name, first.old_state, first.state, first.missed) == ("a", "CONFIGURED", "PENDING", 2)
    assert waiting.coalesced == 2


def test_one_that_is_given_up_for_something_newer_counts_there_as_missed() -> None:
    waiting = Waiting(10)
    waiting.put(event("a", State.FAILED, State.CONFIGURED))
    first = waiting.take()
    assert first is not None
    assert not waiting.gives_way(first)
    waiting.put(event("a", State.PENDING, State.FAILED))
    assert waiting.gives_way(first)
    waiting.done("a")
    newer = waiting.take()
    assert newer is not None
    assert (newer.old_state, newer.state, newer.missed) == ("CONFIGURED", "PENDING", 1)


def test_one_interface_is_told_in_order() -> None:
    waiting = Waiting(10)
    waiting.put(event("a"))
    assert waiting.take() is not None
    waiting.put(event("a", State.CONFIGURED, State.FAILED))
    assert waiting.take() is None
    assert not waiting.idle
    waiting.done("a")
    assert waiting.take() is not None
    waiting.done("a")
    assert waiting.idle


def test_a_full_queue_drops_what_has_waited_longest() -> None:
    waiting = Waiting(2)
    assert [waiting.put(event(name)) for name in "abc"] == [False, False, True]
    assert not waiting.put(event("c"))
    taken = [one.name for one in (waiting.take(), waiting.take()) if one is not None]
    assert (taken, waiting.dropped) == (["b", "c"], 1)
    waiting.put(event("d"))
    assert (waiting.drop_all(), waiting.dropped, len(waiting)) == (1, 2, 0)


def test_a_hook_that_goes_on_failing_is_complained_of_once_a_minute() -> None:
    complaints = Complaints()
    assert [complaints.failed(now) for now in (0.0, 1.0, 59.0, 61.0, 62.0)] == [0, None, None, 2, None]
    assert complaints.worked()
    assert not complaints.worked()
    assert complaints.failed(63.0) == 0


def test_attempts_are_spread_a_little() -> None:
    assert all(0.75 <= spread(1.0) <= 1.25 for _ in range(100))


def test_a_target_is_a_command_or_a_url() -> None:
    assert read_target("exec:/bin/notify --to 'the ops'") == CommandTarget(("/bin/notify", "--to", "the ops"))
    assert read_target("https://h/a?b=c") == UrlTarget(True, "h", 443, "/a?b=c", "")
    assert read_target("http://u%40x:p@[::1]:8080") == UrlTarget(False, "::1", 8080, "/", "Basic dUB4OnA=")


@pytest.mark.parametrize("host", ["a.example.", "a" * 63, "xn--bcher-kva.example", "1.2.3.4", "[fe80::1%25eth0]"])
def test_a_host_is_whatever_can_be_resolved(host: str) -> None:
    assert isinstance(read_target(f"http://{host}/x"), UrlTarget)


def test_a_url_can_be_kept_in_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/url"
    with open(path, "w") as file:
        file.write("https://h/secret\n")
    assert read_target(f"url-file:{path}") == UrlTarget(True, "h", 443, "/secret", "")
    with raises(InvalidValue, field="--hook", value=f"url-file:{path}x"):
        read_target(f"url-file:{path}x")


@pytest.mark.parametrize(
    "text",
    ["", "notify", "exec:", "exec:notify", "exec:/bin/x 'y", "ftp://h/secret", "https:///secret", "https://h:x/secret",
     "https://h/a secret", "https://h/ä-secret", "mailto:x", "http://a..example/secret", "http://.example/secret",
     f"http://{'a' * 64}.example/secret", f"https://h.{'a' * 64}:8443/secret"],
)  # fmt: skip
def test_what_is_no_target_is_refused_without_telling_secrets(text: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        read_target(text)
    assert refused.value.field == "--hook"
    assert "secret" not in str(refused.value)


def test_a_log_has_neither_password_nor_path_of_a_url_nor_the_arguments_of_a_command() -> None:
    for text in ("https://user:secret@h:8443/secret?secret=1#secret", "exec:/bin/notify --token secret"):
        target = read_target(text)
        assert "secret" not in target.shown
    assert read_target("https://user:x@h:8443/y").shown == "https://h:8443/…"
    assert "secret" not in repr(read_target("https://secret@h/secret"))


WRONG: list[tuple[str, Any]] = [
    *[("targets", value) for value in ("https://h/secret", 5, None, [5], [None], [["exec:/bin/true"]])],
    *[("capacity", value) for value in (0, -1, 1.5, "1", None, True)],
    *[("concurrency", value) for value in (0, -1, 1.5, "1", None, True)],
    *[("delays", value) for value in (1.0, None, ["x"], [-1.0], [None], [float("nan")], "12")],
    *[("label", value) for value in (5, None)],
    *[("status_dir", value) for value in (5, None)],
    *[("--hook-states", value) for value in (5, [5], [None], [b"FAILED"])],
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_values_that_hooks_cannot_have_are_refused_at_once(field: str, value: Any) -> None:
    given: dict[str, Any] = {"targets": ["exec:/bin/true"]} | {field.removeprefix("--hook-"): value}
    with raises(InvalidValue, field=field) as refused:
        Hooks(**given)
    assert "secret" not in str(refused.value)


def test_the_directory_of_the_statuses_may_be_a_path(tmp_path: Path) -> None:
    with Hooks(["exec:/bin/true"], status_dir=tmp_path) as hooks:
        assert hooks._environment == {"VETHLIB_STATUS_DIR": str(tmp_path)}


def test_states_that_there_are_not_are_refused_with_those_there_are() -> None:
    with raises(InvalidValue, field="--hook-states", value="FIALED"):
        Hooks(["exec:/bin/true"], states=["FIALED"])


@pytest.mark.parametrize(
    ("url", "host", "authority"),
    [
        ("http://h/", "h", "h"),
        ("http://h:80/", "h", "h"),
        ("https://h:443/", "h", "h"),
        ("http://h:443/", "h", "h:443"),
        ("https://h:80/", "h", "h:80"),
        ("http://[::1]:8080/", "::1", "[::1]:8080"),
        ("https://[::1]/", "::1", "[::1]"),
        ("http://[fe80::1%eth0]:8080/", "fe80::1%eth0", "[fe80::1]:8080"),
        ("http://[fe80::1%25eth0]/", "fe80::1%eth0", "[fe80::1]"),
    ],
)
def test_a_server_gets_its_host_with_the_port_if_it_is_not_the_usual_one(url: str, host: str, authority: str) -> None:
    target = read_target(url)
    assert isinstance(target, UrlTarget)
    assert (target.host, target.authority) == (host, authority)
