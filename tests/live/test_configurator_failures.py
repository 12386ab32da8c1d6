"""Refusals, shortages and interruptions are reported exactly, tried again, and do not affect other interfaces."""

from __future__ import annotations

import errno
import gc
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    by_pid,
    configured,
    is_state,
    pair,
    placed,
    put,
    quickly,
    settle,
    state_of,
    states,
    until,
)
from tests.live.descriptors import descriptors_left
from tests.live.refusals import refused, tiny_buffers
from tests.reasons import in_codes
from tests.witness import ip, names, open_fds, seen
from vethlib import NetlinkError, NotPermitted, Session, VethError
from vethlib._nl.const import RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower

# --- the kernel refuses


def test_a_create_that_is_refused_is_tried_again_until_it_is_not(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *pair("x", "y"))
    settle(configurator)
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWLINK) as refusals:
        put(configurator, *pair("afails", "b"))
        before = time.time()
        settle(configurator)
        after = time.time()
        assert states(configurator) == {
            "afails": "RETRYING: netlink-error(ENOMEM)",
            "b": "RETRYING: netlink-error(ENOMEM)",
            "x": "CONFIGURED",
            "y": "CONFIGURED",
        }
        status = configurator.status("afails")[0]
        assert status.attempt == 1
        assert before + 0.3 <= status.due <= after + 0.5  # 0.4 seconds later, give or take a quarter
        assert status.link is None
        until(configurator, lambda: configurator.status("afails")[0].attempt == 3)
        assert len(refusals) >= 3
        assert names() == {"x", "y"}
    until(configurator, configured(configurator, "afails", "b"))
    status = configurator.status("afails")[0]
    assert (status.attempt, status.due, configurator.due()) == (0, 0.0, None)
    assert names() == {"afails", "b", "x", "y"}


def test_each_attempt_waits_twice_as_long(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.attempts.JITTER", 0.0)
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", 0.5)
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWLINK):
        put(configurator, *pair("a", "b"))
        settle(configurator)
        dues = []
        for attempt in (1, 2, 3):
            until(configurator, lambda attempt=attempt: configurator.status("a")[0].attempt == attempt)  # type: ignore[misc]
            due = configurator.due()
            assert due is not None
            dues.append(due)
    assert [due / 0.5 for due in dues] == pytest.approx([1, 2, 4], abs=0.5)


def test_a_put_tries_again_at_once(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", 30.0)
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWLINK):
        put(configurator, *pair("a", "b"))
        settle(configurator)
        assert is_state(configurator, State.RETRYING, "a", "b")()
    settle(configurator)
    assert names() == set()
    configurator.put(interface("b", "a"))
    settle(configurator)
    assert configured(configurator, "a", "b")()


def test_a_change_that_is_refused_leaves_the_rest_of_the_pair_alone(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *pair("a", "b"), *pair("x", "y"))
    settle(configurator)
    index = seen("a")["ifindex"]
    with refused(monkeypatch, errno.EBUSY, RTM_SETLINK, RTM_NEWLINK):
        configurator.put(interface("a", "b", mtu=1400))
        settle(configurator)
        assert state_of(configurator, "a") == "RETRYING: netlink-error(EBUSY)"
        assert configured(configurator, "b", "x", "y")()
        status = configurator.status("a")[0]
        assert status.link is not None  # it is there, and not right
        assert status.link.mtu == 1500
    until(configurator, configured(configurator, "a"))
    assert (seen("a")["ifindex"], seen("a")["mtu"]) == (index, 1400)


def test_an_address_that_is_refused_is_named(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    put(configurator, *pair("a", "b"))
    settle(configurator)
    with refused(monkeypatch, errno.ENOBUFS, RTM_NEWADDR):
        configurator.put(interface("a", "b", ip_addresses=["10.0.0.1/24"]))
        settle(configurator)
        assert state_of(configurator, "a") == "RETRYING: netlink-error(ENOBUFS)"
        assert "10.0.0.1/24" in configurator.status("a")[0].reason
    until(configurator, configured(configurator, "a"))


def test_a_delete_that_is_refused_is_said_and_tried_again(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *pair("a", "b"), *pair("x", "y"))
    settle(configurator)
    with refused(monkeypatch, errno.EBUSY, RTM_DELLINK):
        configurator.delete("a")
        settle(configurator)
        assert "RETRYING: netlink-error(EBUSY)" in states(configurator).values()
        assert names() == {"a", "b", "x", "y"}
    until(configurator, lambda: names() == {"x", "y"})
    settle(configurator)
    assert state_of(configurator, "a") == ""
    assert state_of(configurator, "b") == "PENDING: peer-not-configured(a)"


def test_a_rebuild_whose_deletion_is_refused_says_so(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that the name is taken, which is only what follows from it."""
    put(configurator, *pair("a", "b"))
    settle(configurator)
    with refused(monkeypatch, errno.EBUSY, RTM_DELLINK):
        configurator.put(interface("a", "b", num_queues=9))  # the default may be 1
        settle(configurator)
        assert state_of(configurator, "a") == "RETRYING: netlink-error(EBUSY)"
    until(configurator, configured(configurator, "a", "b"))
    assert seen("a")["num_tx_queues"] == 9


def test_the_deletion_of_an_unmarked_leftover_is_tried_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with Configurator(session) as crashed:
        put(crashed, *pair("a", "b"))
        settle(crashed)
    for name in "ab":
        ip("link", "set", "dev", name, "alias", "")
    with Configurator(session) as configurator:
        with refused(monkeypatch, errno.EBUSY, RTM_DELLINK):
            configurator.resync([])
            settle(configurator)
            assert names() == {"a", "b"}
        until(configurator, lambda: names() == set())


def test_looking_that_is_refused_is_said_and_tried_again(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *pair("a", "b"))
    settle(configurator)
    with refused(monkeypatch, errno.ENOMEM, RTM_GETLINK):
        put(configurator, *pair("x", "y"))
        settle(configurator)
        for name in "xy":
            status = configurator.status(name)[0]
            assert in_codes(status) == "RETRYING: netlink-error(ENOMEM)"
            assert status.attempt >= 1
        assert names() == {"a", "b"}
        until(configurator, lambda: configurator.status("x")[0].attempt >= 2)
    until(configurator, configured(configurator, *"abxy"))
    assert configurator.due() is None


def test_a_host_at_rest_that_could_not_be_observed_is_configured_again_once_it_can(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NetlinkError("cannot list /run/netns", errno=errno.EMFILE)

    put(configurator, *pair("a", "b"))
    for _ in range(2):  # the second one finds that nothing is left to do
        configurator.resync()
        settle(configurator)
    with monkeypatch.context() as patch:
        patch.setattr("vethlib.agent.reconcile.observer.fingerprints", fail)
        configurator.resync()
        until(configurator, is_state(configurator, State.RETRYING, "a", "b"))
    until(configurator, configured(configurator, "a", "b"))


def test_a_put_looks_again_at_once_though_looking_was_refused(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", 30.0)
    with refused(monkeypatch, errno.ENOMEM, RTM_GETLINK):
        put(configurator, *pair("a", "b"))
        settle(configurator)
        assert is_state(configurator, State.RETRYING, "a")()
    configurator.put(interface("a", "b"))
    settle(configurator)
    assert configured(configurator, "a", "b")()


def test_what_the_kernel_does_not_support_is_failed_until_the_configuration_changes(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(monkeypatch, errno.EOPNOTSUPP, RTM_NEWLINK) as refusals:
        put(configurator, *pair("a", "b"))
        settle(configurator)
        assert states(configurator) == dict.fromkeys("ab", "FAILED: not-supported(ENOTSUP)")
        assert configurator.due() is None
        before = len(refusals)
        until(configurator, lambda: True, 0.1)
        settle(configurator)
        assert len(refusals) == before
    settle(configurator)
    assert is_state(configurator, State.FAILED, "a", "b")()
    configurator.put(interface("a", "b"))
    settle(configurator)
    assert configured(configurator, "a", "b")()


def test_a_name_taken_between_look_and_create_fails_its_pair_until_it_goes(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(configurator)
    create_many = Session.create_many
    taken: list[int] = []

    def meanwhile(self: Session, *args: Any, **how: Any) -> Any:
        if not taken:
            taken.append(1)
            ip("link", "add", "name", "b", "type", "bridge")
        return create_many(self, *args, **how)

    monkeypatch.setattr(Session, "create_many", meanwhile)
    put(configurator, *pair("a", "b"), *pair("x", "y"))
    settle(configurator)
    assert state_of(configurator, "b") == "FAILED: link-foreign(b)"
    assert configured(configurator, "x", "y")()
    assert names() == {"b", "x", "y"}
    ip("link", "del", "dev", "b")
    until(configurator, configured(configurator, *"abxy"))


# --- things run out


@pytest.mark.parametrize("left", range(0, 16, 3))
def test_out_of_descriptors_it_says_so_and_goes_on_when_there_are_some(
    configurator: Configurator, blue: str, red: str, left: int
) -> None:
    put(configurator, *pair("a", "b", "blue", "red"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    with descriptors_left(left):
        put(configurator, *pair("x", "y", "blue", "red"))
        configurator.poll(0)
        state = state_of(configurator, "x")
    if left == 0:
        assert state.startswith("RETRYING: netlink-error(")
        assert "EMFILE" in state
    until(configurator, configured(configurator, *"abxy"))
    assert (names("blue"), names("red")) == ({"a", "x"}, {"b", "y"})
    assert seen("a", "blue")["ifindex"] == index


@pytest.mark.parametrize("left", range(16))
def test_out_of_descriptors_none_is_made_and_none_leaks(session: Session, left: int) -> None:
    with Configurator(session):
        pass  # what is imported on demand
    fds = open_fds()
    failure: VethError | None = None
    with descriptors_left(left):
        try:
            Configurator(session).close()
        except VethError as error:
            failure = error
    assert failure is not None or left > 8
    assert failure is None or (isinstance(failure, NetlinkError) and failure.errno == errno.EMFILE)
    gc.collect()
    assert open_fds() == fds


def test_a_process_that_cannot_be_followed_for_want_of_descriptors_is_followed_later(
    configurator: Configurator, spawn: Callable[[str], int], blue: str
) -> None:
    pid = spawn("blue")
    with descriptors_left(0):
        put(configurator, placed("a", "b", by_pid(pid)), interface("b", "a"))
        configurator.poll(0)
    until(configurator, configured(configurator, "a", "b"))
    os.kill(pid, 9)
    until(configurator, is_state(configurator, State.PENDING, "a", "b"))
    assert state_of(configurator, "a") == f"PENDING: process-gone(pid:{pid})"
    assert names("blue") == names() == set()


@pytest.mark.parametrize(
    "error", [NotPermitted("hidden", errno=errno.EPERM), NetlinkError("no watch", errno=errno.ENOSPC)], ids=repr
)
def test_a_process_that_can_never_be_followed_keeps_no_other_from_being_followed(
    configurator: Configurator,
    spawn: Callable[[str], int],
    blue: str,
    red: str,
    monkeypatch: pytest.MonkeyPatch,
    error: NetlinkError,
) -> None:
    never, later = spawn("blue"), spawn("red")
    refused = {f"pid:{never}", f"pid:{later}"}
    follow = Follower.follow

    def refusing(follower: Follower, refs: Iterable[str]) -> None:
        refs = list(refs)
        if not refused.isdisjoint(refs):
            raise error
        follow(follower, refs)

    monkeypatch.setattr(Follower, "follow", refusing)
    put(configurator, placed("a", "b", by_pid(never)), interface("b", "a"))
    put(configurator, placed("c", "d", by_pid(later)), interface("d", "c"))
    settle(configurator)
    assert [configurator.status(name)[0].warning_code for name in "abcd"] == ["events-missed", "", "events-missed", ""]
    refused.remove(f"pid:{later}")
    until(configurator, lambda: not configurator.status("c")[0].warning)
    os.kill(later, 9)
    until(configurator, is_state(configurator, State.PENDING, "c", "d"))
    assert configurator.status("a")[0].warning_code == "events-missed"
    for name in "abcd":
        configurator.delete(name)
    until(configurator, lambda: configurator.due() is None)  # nothing is left to be followed
    assert names("blue") == names("red") == names() == set()


def test_events_that_overflow_lead_to_a_full_look(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def right() -> bool:
        links = [link for link in ip("link", netns="blue") if link["ifname"] != "lo"]
        return len(links) == 30 and all(link["mtu"] == 1500 and "UP" in link["flags"] for link in links)

    with tiny_buffers(monkeypatch) as resyncs, Configurator(session) as configurator:
        for number in range(30):
            put(configurator, *pair(f"a{number}", f"b{number}", "blue"))
        settle(configurator)
        assert right()
        before = len(resyncs)
        quickly(
            *[f"link set dev a{number} mtu {mtu}" for mtu in (1300, 1301) for number in range(30)],
            *[f"link set dev a{number} down" for number in range(30)],
            "link del dev a7",
            netns="blue",
        )
        until(configurator, right)
        settle(configurator)
        assert len(resyncs) > before
        assert configured(configurator, *(f"{end}{number}" for number in range(30) for end in "ab"))()


def test_a_route_that_another_link_has_is_tried_once_and_then_again_later(configurator: Configurator) -> None:
    put(configurator, *pair("c", "d", ip_addresses=["10.1.0.1/24"]))
    put(configurator, *pair("a", "b"))
    settle(configurator)
    ip("route", "add", "default", "via", "10.1.0.2", "dev", "c")
    fields: dict[str, Any] = {"ip_addresses": ["10.0.0.1/24"], "routes": [{"dst": "default", "via": "10.0.0.2"}]}
    put(configurator, interface("a", "b", **fields))
    configurator.poll()
    assert state_of(configurator, "a") == "RETRYING: netlink-error(EEXIST)"
    assert "another route has this destination" in configurator.status("a")[0].reason
    assert configurator.counters.failed["change"] == 1
    ip("route", "del", "default", "dev", "c")
    until(configurator, configured(configurator, "a"))
