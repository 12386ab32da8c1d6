"""What the kernel refuses, what runs out, what interrupts: said exactly, tried again, and no trouble for the rest."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Any

import pytest

import vethlib.agent.reconcile.configurator as module
from tests.live.applying import interface
from tests.live.configuring import (
    by_file,
    by_pid,
    configured,
    is_state,
    pair,
    placed,
    put,
    quickly,
    readable,
    settle,
    state_of,
    states,
    until,
)
from tests.live.descriptors import descriptors_left
from tests.live.refusals import refused, tiny_buffers
from tests.reasons import in_codes
from tests.slack import slack
from tests.witness import ip, names, nothing_changes, open_fds, poll, seen
from vethlib import InvalidValue, NetlinkError, Session, SessionClosed, VethError, ns
from vethlib._nl.const import RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.ns import Netns


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


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
        assert before + 0.03 < status.due < after + 0.1
        assert status.link is None
        until(configurator, lambda: configurator.status("afails")[0].attempt == 3)
        assert len(refusals) >= 3
        assert names() == {"x", "y"}
    until(configurator, configured(configurator, "afails", "b"))
    status = configurator.status("afails")[0]
    assert (status.attempt, status.due, configurator.due()) == (0, 0.0, None)
    assert names() == {"afails", "b", "x", "y"}


def test_each_attempt_waits_twice_as_long(configurator: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.backoff.JITTER", 0.0)
    monkeypatch.setattr("vethlib.agent.reconcile.backoff.FIRST_DELAY", 0.5)
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
    monkeypatch.setattr("vethlib.agent.reconcile.backoff.FIRST_DELAY", 30.0)
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


def test_a_put_looks_again_at_once_though_looking_was_refused(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.backoff.FIRST_DELAY", 30.0)
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


# --- interruptions


class Interrupting:
    """Raises KeyboardInterrupt at the n-th place of the agent's own code where CPython may run a signal handler.

    Those are the first instruction of a function and the return of a C call (see vethlib/ns/entering.py).
    """

    OWN = tuple(
        str(Path(module.__file__).parent / f"{name}.py")
        for name in (
            "configurator",
            "occasions",
            "events",
            "reconcilepass",
            "choice",
            "reporter",
            "observer",
            "watches",
            "statuses",
        )
    )

    def __init__(self, at: int) -> None:
        self._left = at
        self.fired = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename in self.OWN:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                self.fired = True
                raise KeyboardInterrupt

    def poll(self, configurator: Configurator) -> None:
        sys.setprofile(self)
        try:
            configurator.poll(0)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)


def interrupted_everywhere(
    configurator: Configurator, begin: Callable[[int], None], check: Callable[[int], None], step: int
) -> int:
    """Interrupt one poll at one place after the other; returns how many places there were."""
    for at in itertools.count(1, step):
        begin(at)
        interrupting = Interrupting(at)
        interrupting.poll(configurator)
        settle(configurator)
        check(at)
        if not interrupting.fired:
            return at
    raise AssertionError


def test_an_interruption_anywhere_in_a_poll_that_repairs_loses_nothing(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)

    def begin(_: int) -> None:
        configurator.put(interface("b", "a"))  # ends any hold
        settle(configurator)
        with Session() as other:
            other.set("a", "blue", mtu=1300)

    def check(at: int) -> None:
        with Session() as other:
            assert other.lookup("a", "blue").mtu == 1500, at
        assert configured(configurator, "a", "b")(), (at, states(configurator))

    assert interrupted_everywhere(configurator, begin, check, 3) > 50


def test_an_interruption_anywhere_in_a_poll_that_builds_loses_nothing(configurator: Configurator) -> None:
    settle(configurator)

    def begin(_: int) -> None:
        put(configurator, *pair("a", "b"))

    def check(at: int) -> None:
        assert configured(configurator, "a", "b")(), (at, states(configurator))
        with Session() as other:
            assert {link.name for link in other.links()} == {"lo", "a", "b"}, at
        configurator.delete("a")
        configurator.delete("b")
        settle(configurator)
        assert states(configurator) == {}, at

    assert interrupted_everywhere(configurator, begin, check, 11) > 50


def test_an_interruption_anywhere_in_a_poll_that_hears_of_a_namespace_loses_nothing(session: Session) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, *pair("a", "b", "blue"))
        settle(configurator)

        def begin(_: int) -> None:
            ns.Netns.create("blue").close()

        def check(at: int) -> None:
            until(configurator, configured(configurator, "a", "b"), 1.0)
            ns.remove("blue")
            until(configurator, is_state(configurator, State.PENDING, "a", "b"), 1.0)

        assert interrupted_everywhere(configurator, begin, check, 17) > 50


def test_a_signal_that_raises_interrupts_a_wait_and_leaves_it_usable(configurator: Configurator) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    settle(configurator)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            configurator.poll(None)
    finally:
        signal.signal(signal.SIGALRM, before)
    put(configurator, *pair("a", "b"))
    settle(configurator)
    assert names() == {"a", "b"}


# --- waiting


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
        deadline = time.monotonic() + 2
        while not configured(configurator, "a", "b")():
            assert time.monotonic() < deadline
            configurator.poll(None)
    assert names() == {"a", "b"}


def test_the_descriptor_is_readable_exactly_when_there_is_something(configurator: Configurator, blue: str) -> None:
    assert readable(configurator)  # the first look
    settle(configurator)
    steps: list[Callable[[], object]] = [
        lambda: put(configurator, *pair("a", "b", "blue")),
        lambda: configurator.resync(),
        lambda: configurator.refuse("z", [InvalidValue("mtu", 3, "no")]),
        lambda: configurator.delete("z"),
        lambda: ip("link", "set", "dev", "a", "down", netns="blue"),
        lambda: ip("link", "add", "name", "foreign", "type", "bridge"),
        lambda: configurator.delete("a"),
    ]
    for number, step in enumerate(steps):
        assert not readable(configurator), number
        step()
        assert readable(configurator, 1), number
        settle(configurator)
        assert configurator.due() is None or number == 0


def test_the_descriptor_works_in_another_epoll(configurator: Configurator) -> None:
    settle(configurator)
    with select.epoll() as outer:
        outer.register(configurator.fileno(), select.EPOLLIN)
        for _ in range(2):
            put(configurator, *pair("a", "b"))
            assert outer.poll(1)
            settle(configurator)
            assert outer.poll(0) == []
            configurator.delete("a")
            settle(configurator)


def test_nothing_is_due_while_all_is_well_or_waits_for_events(configurator: Configurator, blue: str) -> None:
    settle(configurator)
    put(configurator, *pair("a", "b", "blue"), interface("x", "y"))
    settle(configurator)
    until(configurator, lambda: configurator.due() is None, 1.0)


# --- the end


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
        configurator.resync,
        lambda: configurator.put(interface("a", "b")),
        lambda: configurator.delete("a"),
        lambda: configurator.refuse("a", []),
    ):
        with pytest.raises(SessionClosed, match="this configurator is closed"):
            call()
    assert configurator.status() == []


def test_unclosed_it_warns_and_leaks_nothing(session: Session) -> None:
    with Configurator(session):
        pass
    fds = open_fds()
    configurator = Configurator(session)
    with pytest.warns(ResourceWarning, match=r"unclosed <.*Configurator.*close it, or use `with Configurator"):
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


def test_an_error_of_the_session_ends_neither_wait_nor_state(session: Session) -> None:
    """A session that was closed too early is said, and is no endless loop."""
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
