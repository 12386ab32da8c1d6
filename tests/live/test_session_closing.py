"""A session that is closed by another thread, or by a signal handler, while a call is in progress."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest

from tests.live.interrupting import Interrupting
from tests.witness import ip, names, open_fds
from vethlib import End, LinkNotFound, Netns, Session, SessionClosed, Veth, VethError, ns
from vethlib._nl.batch import Exchange
from vethlib._nl.sock import RtnlSocket
from vethlib.session.core import features, namespaces


def opened(netns: Netns) -> int:
    """How many descriptors of this process are of that namespace."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the directory
            found = os.stat(f"/proc/self/fd/{name}")
            count += (found.st_dev, found.st_ino) == netns.identity
    return count


class Closer:
    """A resolver that closes its session, and opens `red` until it has every descriptor that became free."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.close: Callable[[Session], object] = Session.close
        self.opened: list[ns.Descriptor] = []

    def __call__(self, label: str) -> str:
        if self.session is not None:
            self.close(self.session)
            self.opened = [ns.open_owned("red") for _ in range(32)]
        return label


def in_another_thread(session: Session) -> None:
    thread = Thread(target=session.close)
    thread.start()
    thread.join()


@pytest.fixture
def closer(blue: str, red: str) -> Iterator[Closer]:
    closer = Closer()
    yield closer
    for descriptor in closer.opened:
        descriptor.close()


CALLS: dict[str, Callable[[Session], Any]] = {
    "move": lambda session: session.move("b", "microservice:blue", to=""),
    "move and rename": lambda session: session.move("b", "microservice:blue", to="", name="c"),
    "create": lambda session: session.create(Veth(End("c", "microservice:blue"), End("d"))),
    "create many": lambda session: session.create_many([Veth(End("c", "microservice:blue"), End("d"))]),
    "inspect": lambda session: session.inspect([("microservice:blue", "b"), ("", "a")], ends_at_home=True),
    "set": lambda session: session.set("b", "microservice:blue", mtu=1400),
    "delete": lambda session: session.delete("b", "microservice:blue"),
}


@pytest.mark.parametrize("close", [Session.close, in_another_thread], ids=["handler", "thread"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_in_progress_reaches_no_other_namespace(
    closer: Closer, call: Callable[[Session], Any], close: Callable[[Session], None]
) -> None:
    session = Session(resolver=closer)
    session.create(Veth(End("a"), End("b", "blue")))
    closer.session, closer.close = session, close
    with suppress(VethError):
        call(session)
    assert names("red") == set()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_home_namespace_is_closed_with_the_last_call(
    home: Netns, closer: Closer, call: Callable[[Session], Any]
) -> None:
    before = opened(home)
    session = Session(resolver=closer)
    session.create(Veth(End("a"), End("b", "blue")))
    closer.session = session
    kept: list[VethError] = []
    try:
        call(session)
    except VethError as error:
        kept.append(error)  # with the frames of the call
    assert opened(home) == before


def test_the_home_namespace_is_closed_at_once_if_no_call_is_in_progress(home: Netns, blue: str) -> None:
    before = opened(home)
    session = Session()
    with pytest.raises(LinkNotFound) as kept:
        session.delete("missing", "blue")
    session.close()
    assert (opened(home), kept.value.netns) == (before, "blue")


SIZE = 80  # pairs, and more than one slab


def pairs() -> list[Veth]:
    return [Veth(End(f"a{number}", mtu=1400), End(f"b{number}", "blue", mtu=1400)) for number in range(SIZE)]


def closing_first(session: Session, monkeypatch: pytest.MonkeyPatch, close: Callable[[Session], object]) -> list[int]:
    """Have the session closed when its home's socket is about to send, and `red` take the free descriptors."""
    taken: list[int] = []
    send = RtnlSocket._send

    def closing(self: RtnlSocket, data: bytes) -> None:
        if not taken:
            close(session)
            taken.extend(os.dup(0) for _ in range(8))
        send(self, data)

    monkeypatch.setattr(RtnlSocket, "_send", closing)
    return taken


@pytest.mark.parametrize("close", [Session.close, in_another_thread], ids=["handler", "thread"])
@pytest.mark.parametrize("settings", [{"mtu": 1500}, {"mtu": 1500, "group": 7}])
def test_what_changes_many_links_ends_its_work(
    blue: str, monkeypatch: pytest.MonkeyPatch, close: Callable[[Session], object], settings: dict[str, int]
) -> None:
    session = Session()
    session.create_many(pairs())
    with monkeypatch.context() as patches:
        taken = closing_first(session, patches, close)
        session.set_many([(f"a{number}", "") for number in range(SIZE)], **settings)  # type: ignore[arg-type]
        for number in taken:
            os.close(number)
    assert taken
    assert {link["mtu"] for link in ip("link") if link["ifname"] != "lo"} == {1500}
    with pytest.raises(SessionClosed):
        session.links()


@pytest.mark.parametrize("close", [Session.close, in_another_thread], ids=["handler", "thread"])
def test_what_creates_or_deletes_ends_its_work(
    blue: str, monkeypatch: pytest.MonkeyPatch, close: Callable[[Session], object]
) -> None:
    before = open_fds()
    for work, wanted in (
        (lambda session: session.create_many(pairs()), {f"a{number}" for number in range(SIZE)}),
        (lambda session: session.delete_many([(f"a{number}", "") for number in range(SIZE)]), set()),
    ):
        session = Session()
        with monkeypatch.context() as patches:
            taken = closing_first(session, patches, close)
            work(session)
            for number in taken:
                os.close(number)
        assert taken
        assert names() == wanted
        with pytest.raises(SessionClosed):
            session.links()
    assert open_fds() == before


@pytest.mark.parametrize("step", range(1, 5))
def test_what_is_ended_by_the_handler_that_closed_the_session_is_undone(
    blue: str, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before, steps, run = open_fds(), 0, RtnlSocket.run
    session = Session()

    def ending(self: RtnlSocket, exchange: Exchange) -> None:
        nonlocal steps
        run(self, exchange)
        steps += 1
        if steps == step:
            session.close()
            raise SystemExit

    with monkeypatch.context() as patches:
        patches.setattr(RtnlSocket, "run", ending)
        with pytest.raises(SystemExit):
            session.create_many(pairs())
    assert names() == names("blue") == set()
    assert open_fds() == before


def existing(session: Session) -> None:
    session.create(Veth(End("taken"), End("b")))


FAILING: list[Callable[[Session], object]] = [
    existing,
    lambda session: session.create_many([Veth(End("a"), End("c", "blue")), Veth(End("taken"), End("d"))]),
    lambda session: session.create_many([Veth(End("taken"), End("d"))], on_error="continue"),
    lambda session: session.create(Veth(End("e"), End("f", up=False)), wait=0.01),
    lambda session: session.delete("no", "blue"),
    lambda session: session.delete_many([("no", "blue"), ("no", "")], missing_ok=False),
]


@pytest.mark.parametrize("call", FAILING)
def test_an_error_that_is_kept_keeps_nothing_of_a_closed_session_open(
    blue: str, call: Callable[[Session], object]
) -> None:
    before = open_fds()
    with Session() as session:
        existing(session)
        with pytest.raises(VethError) as kept:
            call(session)
    assert open_fds() == before
    assert kept.value.__traceback__ is not None


def test_offload_is_switched_at_home_and_nowhere_else(blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    session.create_many([Veth(End("a"), End("p")), Veth(End("a", blue), End("p", blue))])
    usual = session.fields("a", blue)["offload"]
    switch, sockets = features._Features.switch, list[socket.socket]()

    def closing(self: Any, *args: Any, **more: Any) -> Any:
        session.close()
        with ns.entered(blue):
            sockets.extend(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8))
        return switch(self, *args, **more)

    with monkeypatch.context() as patches:
        patches.setattr(features._Features, "switch", closing)
        session.set("a", offload=False)
    for each in sockets:
        each.close()
    assert usual is not False
    with Session() as other:
        assert [other.fields("a", netns)["offload"] for netns in ("", blue)] == [False, usual]


def test_an_interruption_while_a_session_starts_leaves_no_descriptor_and_causes_no_other_error(
    home: ns.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    Session().close()
    before, at, fired = len(os.listdir("/proc/self/fd")), 0, True
    while fired:
        interrupting = Interrupting(at := at + 1, {namespaces.__file__})
        interrupting.run(lambda: Session().close())
        fired = interrupting.fired
        assert len(os.listdir("/proc/self/fd")) == before
        assert set(reported) <= {ResourceWarning, KeyboardInterrupt}  # of a socket, and of a finalizer itself
    assert at > 3
