"""The lifecycle of a session: its permitted uses, what it keeps alive, and what it leaves behind."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.live.children import in_a_child
from tests.live.refusals import failing
from tests.refusing import raises
from tests.witness import ip, names, open_fds, poll
from vethlib import (
    BatchError,
    End,
    LinkExists,
    LinkNotFound,
    NetlinkError,
    Netns,
    NetnsNotFound,
    NotPermitted,
    Session,
    SessionClosed,
    Veth,
    VethError,
    WaitTimeout,
    ns,
)

CALLS: list[Callable[[Session], object]] = [
    lambda session: session.create(Veth(End("va"), End("vb", "blue"))),
    lambda session: session.create_many([Veth(End("va", "blue"), End("vb"))]),
    lambda session: session.create(Veth(End("va", addresses=["10.0.0.1/24"]), End("vb", "blue")), wait=0.01),
    lambda session: session.delete("peer", "blue"),
    lambda session: session.delete_many([("peer", "blue"), ("nope", "blue")]),
    lambda session: session.set("peer", "blue", mtu=1400, addresses=["10.0.0.1/24"]),
    lambda session: session.set("peer", "blue", new_name="taken", addresses=[]),
    lambda session: session.set("peer", "blue", up=True, wait=0.01),
    lambda session: session.move("peer", "blue", to=""),
    lambda session: session.lookup("peer", "blue"),
    lambda session: session.lookup("nope", "blue"),
    lambda session: session.links("blue"),
    lambda session: session.addresses("blue"),
    lambda session: session.stats("peer", "blue"),
    lambda session: session.details("peer", "blue"),
    lambda session: session.survey(["", "blue"]),
    lambda session: session.fingerprints(["", "blue"]),
    lambda session: session.set_many([("peer", "blue"), ("peer", "blue")], mtu=1400),
    lambda session: session.set_many([("peer", "blue"), ("peer", "blue")], mtu=1400, group=7),
    lambda session: session.set_many([("peer", "blue")]),
]


def test_a_closed_session_says_so(home: Netns, blue: str) -> None:
    session = Session()
    session.close()
    session.close()
    for call in CALLS:
        with raises(SessionClosed):
            call(session)
    with pytest.raises(SessionClosed), Session() as other:
        other.close()
        other.links()
    assert (names(), names("blue")) == (set(), set())


def test_links_outlive_the_session(home: Netns, blue: str) -> None:
    with Session() as session:
        session.create(Veth(End("va"), End("vb", "blue")))
    assert (names(), names("blue")) == ({"va"}, {"vb"})


def test_a_forked_child_cannot_use_the_session_and_the_parent_can(session: Session, blue: str) -> None:
    def child() -> None:
        for call in CALLS:
            with raises(SessionClosed, forked=True):
                call(session)
        session.close()
        with Session() as own:
            own.create(Veth(End("va"), End("vb", "blue")))

    assert in_a_child(child) == 0
    assert names() == {"va"}
    assert session.lookup("va").name == "va"


def test_whose_a_session_is_is_known_by_the_process_id(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with raises(SessionClosed, forked=True):
        session.links()


def test_a_child_that_forgets_the_session_warns_of_nothing(home: Netns) -> None:
    with Session() as session:
        sessions = [session]

        def child() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                sessions.clear()
                gc.collect()

        assert in_a_child(child) == 0


def test_an_unclosed_session_warns_and_is_closed(home: Netns) -> None:
    before = open_fds()
    session = Session()
    assert session.links()
    with pytest.warns(ResourceWarning, match="unclosed <.*Session"):
        del session
    assert open_fds() == before


def test_a_session_that_could_not_start_has_nothing_to_warn_of(home: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    for name, number, kind, text in (
        ("RtnlSocket", errno.EPROTONOSUPPORT, NetlinkError, r"start a session: .*\(EPROTONOSUPPORT\)"),
        ("RtnlSocket", errno.EACCES, NotPermitted, "start a session: Permission denied"),
        ("ns.current", errno.EMFILE, NetlinkError, r"start a session: .*\(EMFILE\) \(.*raise `ulimit -n`\)"),
    ):
        with monkeypatch.context() as patch, pytest.raises(kind, match=text):
            patch.setattr(f"vethlib.session.core.namespaces.{name}", failing(number))
            Session()
        assert open_fds() == before


@pytest.mark.parametrize("call", CALLS)
def test_no_call_keeps_a_foreign_namespace_alive(
    session: Session, blue: str, call: Callable[[Session], object]
) -> None:
    ip("link", "add", "name", "witness", "type", "veth", "peer", "name", "inside", "netns", "blue")
    ip("link", "add", "name", "peer", "type", "veth", "peer", "name", "other", netns="blue")
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    errors: list[BaseException] = []
    try:
        call(session)
    except VethError as error:
        errors.append(error)  # kept, traceback and all, as a caller may keep it
    ip("netns", "del", "blue")
    assert poll(lambda: "witness" not in names())


def test_no_descriptor_is_lost_over_many_calls(session: Session, blue: str, red: str) -> None:
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")

    def mixed() -> None:
        with Netns.open("red") as open_red:
            session.create_many(
                [
                    Veth(End("a", "blue"), End("b", open_red)),
                    Veth(End("c"), End("d", "path:/run/netns/blue")),
                    Veth(End("e"), End("f")),
                ]
            )
        session.set("a", "blue", mtu=1400, addresses=["10.0.0.1/24"])
        session.move("b", "red", to="blue")
        session.links("blue")
        session.stats("c")
        for call in (
            lambda: session.create(Veth(End("taken", "blue"), End("x", "red"))),
            lambda: session.create(Veth(End("y", "blue"), End("x", "nowhere"))),
            lambda: session.set("c", new_name="e"),
            lambda: session.lookup("nope", "red"),
            lambda: session.create_many([Veth(End("taken", "blue"), End("x"))], on_error="continue"),
            lambda: session.delete_many([("taken", "blue"), ("nope", "red")], missing_ok=False),
        ):
            with pytest.raises(VethError):
                call()
        session.delete_many([("a", "blue"), ("d", "blue"), ("e", "")], missing_ok=False)

    mixed()
    before = open_fds()
    for _ in range(15):
        mixed()
    assert open_fds() == before


def test_real_errors_survive_pickling(session: Session, blue: str) -> None:
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    veth = Veth(End("taken", "blue", addresses=["10.0.0.1/24"]), End("vb"))
    errors: list[Exception] = []
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: session.create(veth), LinkExists),
        (lambda: session.create_many([veth], on_error="continue"), BatchError),
        (lambda: session.lookup("nope", "blue"), LinkNotFound),
        (lambda: session.links("nowhere"), NetnsNotFound),
        (lambda: session.create(Veth(End("va"), End("vc", up=False)), wait=0), WaitTimeout),
        (lambda: session.delete("taken", "blue"), NetlinkError),
    ]
    for call, kind in calls:
        with pytest.raises(kind) as caught:
            call()
        errors.append(caught.value)
    for error in errors:
        again: Any = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.item) == (type(error), str(error), error.item)  # type: ignore[attr-defined]
        if isinstance(error, NetlinkError):
            assert (again.errno, again.request, again.netns) == (error.errno, error.request, error.netns)
        if isinstance(error, BatchError):
            assert [one.item for one in again.exceptions] == [veth]


def test_the_wire_trace_shows_every_message(home: Netns) -> None:
    code = """
from vethlib import End, Session, Veth
with Session() as session:
    session.create(Veth(End("va"), End("vb")))
    session.links()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VETHLIB_DEBUG": "nl"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stderr.splitlines()
    assert all(line.startswith(("nl → type ", "nl ← type ")) for line in lines)
    assert "nl → type 16" in done.stderr
    assert any("nl ← type 16" in line and "'IFLA_IFNAME', 'va'" in line for line in lines)


def test_the_calling_thread_stays_where_it_was(session: Session, blue: str, red: str) -> None:
    for netns in ("blue", "red"):
        with ns.entered(netns):
            here = os.stat("/proc/thread-self/ns/net").st_ino
            for call in CALLS:
                try:
                    call(session)
                except VethError:
                    pass
                assert os.stat("/proc/thread-self/ns/net").st_ino == here


class _Interrupted:
    """A socket: a signal comes between each request and its answer."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def send(self, data: bytes) -> int:
        sent: int = self._real.send(data)
        signal.raise_signal(signal.SIGUSR1)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def refused(session: Session) -> str:
    try:
        return session.lookup("none").name
    except LinkNotFound as error:
        return str(error)


def made_and_deleted(session: Session) -> str:
    pair = session.create(Veth(End("c"), End("d", "blue")))
    session.delete("c")
    return pair.a.name


USES: dict[str, Callable[[Session], object]] = {
    "lookup": lambda session: session.lookup("a").name,
    "links": lambda session: {link.name for link in session.links()} - {"c"},
    "refusal": refused,
    "set": lambda session: session.set("a", mtu=1400).mtu,
    "create": made_and_deleted,
}


@pytest.mark.parametrize(
    ("outer", "inner"),
    [pair for pair in product(USES, USES) if pair != ("create", "create")],  # of one name
)
def test_a_signal_handler_may_use_the_session_that_it_interrupts(
    session: Session, blue: str, outer: str, inner: str
) -> None:
    session.create(Veth(End("a"), End("b")))
    wanted = USES[outer](session), USES[inner](session)
    before = open_fds()
    seen: list[object] = []
    socket: Any = session._namespaces().home.socket
    socket._socket = _Interrupted(socket._socket)
    try:
        with handling(lambda: seen.append(USES[inner](session))):
            began = time.monotonic()
            result = USES[outer](session)
            took = time.monotonic() - began
    finally:
        socket._socket = socket._socket._real
    assert seen
    assert (result, seen) == (wanted[0], [wanted[1]] * len(seen))
    assert took < 5  # an answer that another call has taken is waited for ten seconds
    assert open_fds() == before


LOADING = """
import os, signal, sys
from itertools import count
from vethlib import End, Session, Veth, VethError

def call(name):
    %s

class Finder:
    at, found = 0, ""

    @classmethod
    def find_spec(cls, name, *_):
        if name.startswith("vethlib."):
            cls.at -= 1
            if cls.at == 0:
                signal.raise_signal(signal.SIGUSR1)

def handler(*_):
    try:
        call(f"h{number}")
        Finder.found = "done"
    except VethError as error:
        Finder.found = str(error)

signal.signal(signal.SIGUSR1, handler)
sys.meta_path.insert(0, Finder)
for number in count(1):
    if not os.fork():
        Finder.at = number
        with Session() as session:
            call(f"a{number}")
        print(Finder.found, flush=True)
        os._exit(not Finder.found)
    _, status = os.wait()
    if status:
        break
"""
BEING_LOADED = r"load a module of vethlib: 'vethlib[.\w]+' is being loaded by this thread, which a signal handler .*"


@pytest.mark.parametrize(
    "call",
    [
        "session.create(Veth(End(name), End(name + 'p')), wait=60)",
        "session.set(name, alias='x', mtu=1400)",
        "session.delete(name)",
    ],
    ids=["create", "set", "delete"],
)
def test_a_signal_handler_that_needs_what_is_being_loaded_fails_with_an_error_of_vethlib(
    session: Session, blue: str, call: str
) -> None:
    before = {f"{prefix}{number}" for prefix in "ah" for number in range(60)}
    if "create" not in call:
        session.create_many([Veth(End(name), End(f"{name}p")) for name in before], read=False)
    done = subprocess.run([sys.executable, "-c", LOADING % call], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    *found, last = done.stdout.splitlines()
    assert last == ""  # no module was left to be loaded
    refused = {number for number, text in enumerate(found, 1) if text != "done"}
    assert refused
    for number in refused:
        assert re.fullmatch(BEING_LOADED, found[number - 1])
    changed = {f"a{number}" for number in range(1, len(found) + 2)}
    changed |= {f"h{number}" for number in range(1, len(found) + 1) if number not in refused}
    links = [link for link in ip("link") if link["ifname"] in before]
    if "set" in call:
        assert {link["ifname"] for link in links if link.get("ifalias") == "x"} == changed
    else:
        left = {link["ifname"] for link in links}
        assert left == (changed if "create" in call else before - changed)
