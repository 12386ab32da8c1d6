"""Running out of descriptors and buffers, lost answers, and signals: the errors, and that nothing stays behind."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.live.descriptors import descriptors_left
from tests.refusing import raises
from tests.witness import host_state, ip, names, nothing_changes, seen
from vethlib import (
    BatchError,
    End,
    LinkExists,
    NetlinkError,
    Netns,
    NetnsNotFound,
    Session,
    Veth,
    VethError,
)
from vethlib._nl.batch import LOST
from vethlib._nl.link import dump_links, set_up
from vethlib._nl.sock import RtnlSocket
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.slabs import SLAB

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("left", range(7))
def test_out_of_descriptors_is_said_wherever_it_happens(session: Session, blue: str, red: str, left: int) -> None:
    veth = Veth(End("va", "blue"), End("vb", "red"))
    session.create(Veth(End("vc", "blue"), End("vd", "red")))
    before = host_state()
    for call in (
        lambda: session.create(veth),
        lambda: session.create_many([veth, veth]),
        lambda: session.delete("vc", "blue"),
        lambda: session.set("vc", "blue", mtu=1400),
        lambda: session.links("red"),
        Session,
    ):
        failure: VethError | None = None
        result: object = None
        with descriptors_left(left):
            try:
                result = call()
            except BatchError as error:
                failure = error
            except LinkExists:
                pass  # there were enough, and create_many meant the name twice
            except VethError as error:
                failure = error
        if failure is None:
            if isinstance(result, Session):
                result.close()
            session.delete_many([("va", "blue"), ("vc", "blue")])
            session.create(Veth(End("vc", "blue"), End("vd", "red")))
        else:
            assert isinstance(failure, NetlinkError)
            assert failure.errno == errno.EMFILE
    session.delete_many([("vc", "blue")])
    session.create(Veth(End("vc", "blue"), End("vd", "red")))
    assert {netns: len(links) for netns, links in host_state().items()} == {
        netns: len(links) for netns, links in before.items()
    }


FIRST_CALLS = (
    'session.create(Veth(End("va"), End("vb")))',
    'session.create_many([Veth(End("va"), End("vb"))], wait=5)',
    'session.delete("vx")',
    'session.delete_many(["vx"])',
    'session.set("vx", mtu=1400, up=True)',
    'session.set("vx", up=True, wait=5)',
    'session.move("vx", to="", name="vz")',
    'session.fields("vx")',
    'session.stats_many(["vx"])',
    'session.survey([""])',
)


@pytest.mark.parametrize("call", FIRST_CALLS)
def test_out_of_descriptors_is_said_by_the_first_call_of_a_process_too(session: Session, call: str) -> None:
    """Some modules are imported when they are first needed, and their file may be the one that cannot be opened."""
    session.create(Veth(End("vx"), End("vy")))
    script = f"""if True:
        from tests.live.descriptors import no_descriptor_left
        from vethlib import End, NetlinkError, Session, Veth
        with Session() as session:
            with no_descriptor_left():
                try:
                    {call}
                except NetlinkError as error:
                    print(error.errno)
    """
    with nothing_changes():
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == (f"{errno.EMFILE}\n", "")


@pytest.mark.parametrize("left", [2, 3, 6, 9, 12, 40])
def test_out_of_descriptors_continue_does_what_can_be_done(session: Session, left: int) -> None:
    for number in range(12):
        Netns.create(f"n{number}").close()
    veths = [Veth(End("va", f"n{n}"), End("vb", f"n{(n + 1) % 12}")) for n in range(12)]
    failed: list[VethError] = []
    with descriptors_left(left):
        try:
            session.create_many(veths, on_error="continue")
        except BatchError as error:
            failed = list(error.exceptions)
    assert bool(failed) == (left < 6)
    assert all(isinstance(error, NetlinkError) and error.errno == errno.EMFILE for error in failed)
    items = [error.item for error in failed]
    for veth in veths:
        assert ("va" in names(str(veth.a.netns))) == (veth not in items)
        assert ("vb" in names(str(veth.b.netns))) == (veth not in items)


@pytest.mark.parametrize("many", [SLAB // 2, SLAB, SLAB + 30, 2 * SLAB])
def test_deleting_in_many_namespaces_takes_descriptors_for_some_at_a_time(session: Session, many: int) -> None:
    for number in range(many):
        Netns.create(f"n{number}").close()
    Netns.create("hub").close()
    session.create_many([Veth(End("va", f"n{number}"), End(f"v{number}", "hub")) for number in range(many)])
    with descriptors_left(2 * min(many, SLAB) + 8):  # a descriptor and a socket for each of a slab
        session.delete_many([("va", f"n{number}") for number in range(many)], missing_ok=False)
    assert names("hub") == set()


SYSCTLS = {"rp_filter": "0"}  # a file is written for it
MANY_CALLS: dict[str, tuple[Callable[[Session, list[str]], object], Callable[[list[str]], bool]]] = {
    "create_many": (
        lambda session, refs: session.create_many(
            [Veth(End(f"h{ref}"), End("e", ref, sysctls=SYSCTLS)) for ref in refs]
        ),
        lambda refs: names() == {f"h{ref}" for ref in refs} and all(names(ref) == {"e"} for ref in refs),
    ),
    "create_many continue": (
        lambda session, refs: session.create_many(
            [Veth(End(f"h{ref}*"), End("e", ref, mtu=1400)) for ref in refs], on_error="continue"
        ),
        lambda refs: names() == {f"h{ref}0" for ref in refs} and all(seen("e", ref)["mtu"] == 1400 for ref in refs),
    ),
    "lookup_many": (lambda session, refs: session.lookup_many([("b", ref) for ref in refs]), bool),
    "lookup_many of two": (
        lambda session, refs: session.lookup_many(product(("lo", "b"), refs), addresses=False),
        bool,
    ),
    "stats_many": (lambda session, refs: session.stats_many([("b", ref) for ref in refs]), bool),
    "set_many": (
        lambda session, refs: session.set_many([("b", ref) for ref in refs], alias="x"),
        lambda refs: all(seen("b", ref)["ifalias"] == "x" for ref in refs),
    ),
    "delete_many": (
        lambda session, refs: session.delete_many([("b", ref) for ref in refs], missing_ok=False),
        lambda refs: not any(names(ref) for ref in refs),
    ),
    "delete_many of pairs without an end in home": (
        lambda session, refs: session.delete_many([("b", ref) for ref in refs], missing_ok=False),
        lambda refs: not any(names(ref) for ref in refs),
    ),
}


@pytest.mark.parametrize("left", [8, 19, 20, 45, 59, 60])
@pytest.mark.parametrize("call", MANY_CALLS)
def test_few_descriptors_suffice_for_many_namespaces(session: Session, call: str, left: int) -> None:
    refs = [f"n{number}" for number in range(30)]
    for ref in refs:
        Netns.create(ref).close()
    if "create" not in call:
        home = "home" in call
        session.create_many([Veth(End("a", ref) if home else End(f"a{ref}"), End("b", ref)) for ref in refs])
    do, is_done = MANY_CALLS[call]
    with descriptors_left(left):
        do(session, refs)
    assert is_done(refs)


def test_what_is_refused_among_many_is_said_once_with_few_descriptors(session: Session) -> None:
    refs = [f"n{number}" for number in range(20)]
    for ref in refs[1:]:
        Netns.create(ref).close()
    session.create(Veth(End("taken"), End("e", refs[7])))
    progress: list[int] = []
    with descriptors_left(10), pytest.raises(BatchError) as caught:
        session.create_many(
            veths := [Veth(End(f"h{ref}"), End("e", ref)) for ref in refs],
            on_error="continue",
            progress=lambda done, _: progress.append(done),
        )
    assert [(type(each), each.item) for each in caught.value.exceptions] == [
        (NetnsNotFound, veths[0]),
        (LinkExists, veths[7]),
    ]
    assert [pair.a.name for pair in caught.value.created] == [f"h{ref}" for ref in refs if ref not in ("n0", "n7")]
    assert progress == sorted(progress)
    assert progress[-1] == 20
    assert names() == {"taken", *(f"h{ref}" for ref in refs if ref not in ("n0", "n7"))}


def test_what_was_made_with_few_descriptors_is_taken_back_if_a_later_pair_is_refused(session: Session) -> None:
    refs = [f"n{number}" for number in range(20)]
    for ref in refs:
        Netns.create(ref).close()
    session.create(Veth(End("taken"), End("e", refs[-1])))
    with nothing_changes(), descriptors_left(10), pytest.raises(LinkExists):
        session.create_many([Veth(End(f"h{ref}"), End("e", ref)) for ref in refs])


@pytest.fixture
def tiny_buffers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None, int | None], None]:
    """Set the socket buffers of every future session socket."""

    def set_sizes(send: int | None, receive: int | None) -> None:
        read_limits = RtnlSocket._read_limits

        def lowered(self: RtnlSocket) -> Any:
            if send is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)
            if receive is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            return read_limits(self)

        monkeypatch.setattr(RtnlSocket, "_read_limits", lowered)

    return set_sizes


@pytest.mark.parametrize(("send", "receive"), [(1, None), (None, 1), (1, 1), (20_000, 20_000)])
def test_small_buffers_only_make_for_more_datagrams(
    home: Netns, blue: str, red: str, tiny_buffers: Callable[[int | None, int | None], None], send: int, receive: int
) -> None:
    with nothing_changes():
        tiny_buffers(send, receive)
        with Session() as session:
            veths = [
                Veth(End(f"a{n}", "blue", addresses=[f"10.0.{n}.1/24"], alias="x"), End(f"b{n}", "red"))
                for n in range(100)
            ]
            session.create_many(veths)
            assert len(session.links("blue")) == 101
            assert session.set("a7", "blue", mtu=1400, alias="y", addresses=["10.0.7.2/24"]).mtu == 1400
            session.delete_many([(f"a{n}", "blue") for n in range(100)], missing_ok=False)


@pytest.mark.parametrize("on_error", ["rollback", "continue"])
def test_what_was_made_before_a_send_failed_is_kept_or_taken_back(
    home: Netns, tiny_buffers: Callable[..., None], monkeypatch: pytest.MonkeyPatch, on_error: Any
) -> None:
    tiny_buffers(1, None)
    send, sent = RtnlSocket._send, [0]

    def fails_once(self: RtnlSocket, data: bytes | bytearray) -> None:
        sent[0] += 1
        if sent[0] == 2:
            raise OSError(errno.ENOMEM, "no")
        send(self, data)

    veths = [Veth(End(f"a{n}"), End(f"b{n}")) for n in range(60)]
    with Session() as session:
        monkeypatch.setattr(RtnlSocket, "_send", fails_once)
        with pytest.raises(NetlinkError if on_error == "rollback" else BatchError) as caught:
            session.create_many(veths, on_error=on_error)
        if on_error == "rollback":
            assert names() == set()
        else:
            assert isinstance(caught.value, BatchError)
            failed = [error.item for error in caught.value.exceptions]
            assert 0 < len(failed) < 60
            assert failed == veths[-len(failed) :]
            assert names() == {end.name for veth in veths[: -len(failed)] for end in (veth.a, veth.b)}


def test_lost_answers_are_said_and_do_not_spoil_the_next(session: Session) -> None:
    """The receive buffer shrinks behind our back, so that the answers of a chunk do not fit it."""
    assert session._home.socket is not None
    session._home.socket._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with pytest.raises(NetlinkError) as caught:
        session.create_many([Veth(End("x", addresses=["::1/128"]), End("y"))] * 60)
    assert caught.value.errno in (errno.ENOBUFS, errno.EEXIST, errno.EADDRNOTAVAIL)
    assert session.links()[0].name == "lo"


def test_changes_whose_errors_were_lost_are_not_taken_for_made(session: Session) -> None:
    """The parts of a dump need no room in the receive buffer, so its end arrives although errors before it are lost."""
    own = session._home.socket
    assert own is not None
    own.begin([b""] * 9)  # for limits that are those of a larger buffer
    own._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    *refused, dump = own.exchange([*[set_up(1 << 30)] * 60, dump_links()])
    assert {outcome.errno for outcome in refused} == {errno.ENODEV, errno.ENOBUFS}
    assert (dump.errno, len(dump.bodies)) == (0, 1)


def test_a_create_whose_answer_was_lost_says_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Namespaces.run

    def losing(self: Namespaces, place: Any, exchange: Any) -> None:
        run(self, place, exchange)
        exchange.outcomes[0] = LOST

    monkeypatch.setattr(Namespaces, "run", losing)
    with raises(NetlinkError, errno=errno.ENOBUFS):
        session.create(Veth(End("va"), End("vb")))


def test_signals_that_do_not_raise_do_no_harm(session: Session, blue: str) -> None:
    ticks: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    with nothing_changes():
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        try:
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                session.create_many(
                    Veth(End(f"a{n}", addresses=["10.0.0.1/24"]), End(f"b{n}", "blue")) for n in range(9)
                )
                session.set("b1", "blue", mtu=1400)
                session.delete_many([(f"a{n}", "") for n in range(9)], missing_ok=False)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
    assert ticks


SEND_FAILS = """
import sys
from vethlib import End, Session, Veth
with Session() as session:
    veths = [Veth(End(f"a{n}"), End(f"b{n}", "blue")) for n in range(3)]
    try:
        match sys.argv[1]:
            case "create":
                session.create_many(veths)
            case "create, continue":
                session.create_many(veths, on_error="continue")
            case "delete":
                session.delete_many([("o1", ""), ("o2", "")])
            case "set":
                session.set("o1", new_name="x", addresses=["10.0.0.2/24"], mtu=1000)
    except OSError as error:
        print(error.errno, error)
    except ExceptionGroup as group:
        print(*[f"{error.errno} {error}" for error in group.exceptions], sep="; ")
    else:
        print("fine")
"""


@pytest.mark.parametrize("when", ["1", "2", "3", "4", "5", "1+"])
# Without an echo, indexes are looked up pair by pair, so that a lost request concerns one pair only.
@pytest.mark.parametrize(
    "what", ["create", pytest.param("create, continue", marks=pytest.mark.needs_kernel("6.2")), "delete", "set"]
)
def test_a_send_that_fails_is_said_and_nothing_has_changed(session: Session, blue: str, what: str, when: str) -> None:
    for number in (1, 2):
        ip("link", "add", "name", f"o{number}", "mtu", "1400", "type", "veth", "peer", "name", f"p{number}")
    ip("address", "add", "10.0.0.1/24", "dev", "o1")
    before = host_state()
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto"]
    done = subprocess.run(
        [*strace, "-e", f"inject=sendto:error=ENOMEM:when={when}", sys.executable, "-c", SEND_FAILS, what],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    if "fine" in done.stdout:
        assert when in "345"
        assert host_state() != before
    else:
        assert done.stdout.startswith(f"{errno.ENOMEM} "), done.stdout + done.stderr
        assert "the kernel is out of memory" in done.stdout
        assert host_state() == before
