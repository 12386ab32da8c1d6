"""Waiting for a configurator in any loop, and its end."""

from __future__ import annotations

import errno
import gc
import os
import select
import time
import warnings
from collections.abc import Callable
from threading import Timer
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    by_file,
    by_pid,
    configured,
    pair,
    placed,
    put,
    readable,
    settle,
    state_of,
    until,
)
from tests.live.refusals import refused
from tests.refusing import raises
from tests.slack import slack
from tests.witness import ip, names, nothing_changes, open_fds, poll, seen
from vethlib import InvalidValue, Link, Session, SessionClosed
from vethlib._nl.const import RTM_NEWLINK
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.ns import Netns


@pytest.mark.timing
def test_poll_waits_as_long_as_it_is_told_and_no_longer(configurator: Configurator) -> None:
    settle(configurator)
    began = time.monotonic()
    assert configurator.poll(0) == {}
    assert time.monotonic() - began < 0.02 + slack()
    assert configurator.poll(0.05) == {}
    assert 0.05 <= time.monotonic() - began < 0.2 + slack()


def test_poll_waits_for_an_event_and_tells_what_came_of_it(configurator: Configurator) -> None:
    put(configurator, *pair("a", "b"))
    settle(configurator)
    for timeout in (5.0, None):
        before = seen("a")["ifindex"]
        timer = Timer(0.02, ip, ("link", "del", "dev", "a"))
        timer.start()
        told: dict[str, Any] = {}
        while "a" not in told:
            told = configurator.poll(timeout)
        timer.join()
        assert told["a"].state is State.CONFIGURED
        assert told["a"].link.index == seen("a")["ifindex"] != before
        settle(configurator)


def test_poll_waits_for_the_next_attempt(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWLINK, times=3):
        put(configurator, *pair("a", "b"))
        deadline = time.monotonic() + 30
        while not configured(configurator, "a", "b")():
            assert time.monotonic() < deadline
            configurator.poll(None)
    assert names() == {"a", "b"}


def test_the_descriptor_is_readable_exactly_when_there_is_something(configurator: Configurator, blue: str) -> None:
    assert readable(configurator)  # the first look
    settle(configurator)
    steps: list[Callable[[], object]] = [
        lambda: put(configurator, *pair("a", "b", "blue", enabled=False)),  # up, it would have news whenever it likes
        lambda: configurator.resync(),
        lambda: configurator.refuse("z", [InvalidValue("mtu", 3, "no")]),
        lambda: configurator.delete("z"),
        lambda: ip("link", "set", "dev", "a", "up", netns="blue"),
        lambda: ip("link", "add", "name", "foreign", "type", "bridge"),
        lambda: configurator.delete("a"),
    ]
    regular = 5.0  # links that are down are looked at every ten seconds
    for number, step in enumerate(steps):
        assert not readable(configurator), number
        step()
        assert readable(configurator, 20), number
        settle(configurator)
        due = configurator.due()
        assert due is None or due > regular or number == 0


def test_the_descriptor_works_in_another_epoll(configurator: Configurator) -> None:
    settle(configurator)
    with select.epoll() as outer:
        outer.register(configurator.fileno(), select.EPOLLIN)
        for _ in range(2):
            put(configurator, *pair("a", "b", enabled=False))
            assert outer.poll(20)
            settle(configurator)
            assert outer.poll(0) == []
            configurator.delete("a")
            settle(configurator)


def test_nothing_is_due_while_all_is_well_or_waits_for_events(configurator: Configurator, blue: str) -> None:
    settle(configurator)
    put(configurator, *pair("a", "b", "blue"), interface("x", "y"))
    settle(configurator)
    until(configurator, lambda: configurator.due() is None)


def test_closing_leaves_the_host_and_no_descriptor(session: Session, blue: str, spawn: Callable[[str], int]) -> None:
    pid = spawn("blue")
    with Configurator(session):
        pass
    fds = open_fds()
    configurator = Configurator(session)
    put(configurator, *pair("a", "b", "blue"), placed("c", "d", by_pid(pid)), placed("d", "c", by_file("/run/x")))
    settle(configurator)
    assert configured(configurator, "a", "b")()
    with nothing_changes():
        configurator.close()
        configurator.close()
    assert open_fds() == fds


def test_a_namespace_that_is_managed_ends_when_its_last_user_goes(
    configurator: Configurator, spawn: Callable[[str], int]
) -> None:
    """The agent keeps none alive: a foreign link in there goes, too."""
    with Netns.anonymous() as netns:
        pid = spawn(netns.ref)
    put(configurator, placed("a", "b", by_pid(pid)), interface("b", "a"))
    settle(configurator)
    ip("link", "add", "name", "foreign", "type", "veth", "peer", "name", "far", "netns", str(pid))
    settle(configurator)
    assert names() == {"b", "foreign"}
    os.kill(pid, 9)
    assert poll(lambda: names() == set())
    settle(configurator)
    assert state_of(configurator, "a") == f"PENDING: process-gone(pid:{pid})"


def test_after_its_end_it_refuses_everything(session: Session) -> None:
    configurator = Configurator(session)
    configurator.close()
    for call in (
        configurator.poll,
        configurator.fileno,
        configurator.due,
        configurator.load,
        configurator.lookup_interfaces,
        configurator.resync,
        lambda: configurator.put(interface("a", "b")),
        lambda: configurator.delete("a"),
        lambda: configurator.refuse("a", []),
    ):
        with raises(SessionClosed, forked=False):
            call()
    assert configurator.status() == []


WRONG: list[tuple[str, Any]] = [
    ("records", "a\0b"),
    ("records", "\ud800"),
    ("records", 5),
    ("records", b"/run"),
    ("records", ["/run"]),
    ("limits", None),
    ("limits", ""),
    ("limits", {}),
]


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_what_it_cannot_be_created_with_is_refused(session: Session, field: str, wrong: Any) -> None:
    before = open_fds()
    with raises(InvalidValue, field=field):
        Configurator(session, **{field: wrong})
    assert open_fds() == before


def test_a_subscriber_is_a_function(configurator: Configurator) -> None:
    wrong: Any = "x"
    for subscribe in (configurator.subscribe, configurator.indexes.subscribe):
        with raises(InvalidValue, field="callback"):
            subscribe(wrong)


def test_unclosed_it_warns_and_leaks_nothing(session: Session) -> None:
    with Configurator(session):
        pass
    fds = open_fds()
    configurator = Configurator(session)
    with pytest.warns(ResourceWarning, match="unclosed <.*Configurator"):
        configurator.__del__()
    del configurator
    gc.collect()
    assert open_fds() == fds


@pytest.mark.parametrize("bad", [{"label": "no spaces"}, {"label": ""}, {"missing_netns": "maybe"}])
def test_bad_arguments_are_refused_and_leak_nothing(session: Session, bad: dict[str, Any]) -> None:
    fds = open_fds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidValue, match="^(label|missing_netns) "):
            Configurator(session, **bad)
        gc.collect()
    assert open_fds() == fds


PROBLEM = InvalidValue("mtu", 1, "too small")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.refuse("q", "abc"), "problems"),
        (lambda c: c.refuse("q", ["text"]), "problems"),
        (lambda c: c.refuse("q", [PROBLEM, None]), "problems"),
        (lambda c: c.refuse("q", PROBLEM), "problems"),
        (lambda c: c.refuse("q", None), "problems"),
        (lambda c: c.refuse(5, [PROBLEM]), "name"),
        (lambda c: c.refuse(None, [PROBLEM]), "name"),
        (lambda c: c.resync([], refused={"q": "abc"}), "refused"),
        (lambda c: c.resync([], refused={"p": [PROBLEM], "q": ["text"]}), "refused"),
        (lambda c: c.resync([], refused={"q": None}), "refused"),
        (lambda c: c.resync([], refused={5: [PROBLEM]}), "refused"),
        (lambda c: c.resync([], refused="abc"), "refused"),
        (lambda c: c.resync([], refused=["q"]), "refused"),
        (lambda c: c.resync("abc"), "interfaces"),
        (lambda c: c.resync(5), "interfaces"),
        (lambda c: c.put("abc"), "interface"),
        (lambda c: c.attach(_Dependant(5, "")), "host_if_name"),
        (lambda c: c.attach(_Dependant(None, "")), "host_if_name"),
        (lambda c: c.attach(_Dependant(["veth1"], "")), "host_if_name"),
        (lambda c: c.attach(_Dependant("", "")), "host_if_name"),
        (lambda c: c.attach(_Dependant("veth1", 5)), "netns"),
        (lambda c: c.attach(_Dependant("veth1", None)), "netns"),
        (lambda c: c.attach(_Dependant("veth1", ["blue"])), "netns"),
        (lambda c: c.attach(_Dependant("veth1", "no:kind")), "netns"),
    ],
)
def test_what_it_cannot_work_with_is_refused_and_changes_nothing(
    configurator: Configurator, call: Callable[[Any], object], field: str
) -> None:
    put(configurator, *pair("veth1", "veth2"))
    until(configurator, configured(configurator, "veth1", "veth2"))
    settle(configurator)
    with raises(InvalidValue, field=field):
        call(configurator)
    configurator.resync()
    settle(configurator)
    assert configured(configurator, "veth1", "veth2")()
    assert [status.name for status in configurator.status()] == ["veth1", "veth2"]


class _Dependant:
    """A dependant whose link has no name, or is nowhere."""

    def __init__(self, host_if_name: Any, netns: Any) -> None:
        self.host_if_name, self.netns = host_if_name, netns

    def attached(self, link: Link) -> None:
        """Attach."""

    def detached(self, link: Link) -> None:
        """Detach."""


def test_an_error_of_the_session_ends_neither_wait_nor_state(session: Session) -> None:
    """A session that was closed too early is reported, and does not cause an endless loop."""
    other = Session()
    with Configurator(other) as configurator:
        put(configurator, *pair("a", "b"))
        settle(configurator)
        other.close()
        configurator.put(interface("a", "b", mtu=1400))
        with pytest.raises(SessionClosed):
            for _ in range(3):
                configurator.poll(0)
                raise_if_retrying(configurator)


def raise_if_retrying(configurator: Configurator) -> None:
    if state_of(configurator, "a") == "RETRYING: refused":
        raise SessionClosed("said by the status, which is as good")
