"""The socket's owner against answers that no kernel gives on demand."""

from __future__ import annotations

import errno
import importlib
import socket
from collections.abc import Iterable, Iterator
from struct import pack, unpack_from
from typing import Any

import pytest

from vethlib._nl import sock
from vethlib._nl.batch import DONE, LOST
from vethlib._nl.const import (
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import message, messages

SETTING = message(RTM_SETLINK, NLM_F_REQUEST, bytes(16))
DUMP = message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, bytes(16))


class Scripted:
    """A socket that answers as the test says: bytes to receive, an errno or an exception to raise."""

    def __init__(self, *steps: bytes | int | BaseException) -> None:
        self.steps: Iterator[bytes | int | BaseException] = iter(steps)
        self.sent: list[bytes] = []
        self.options: list[tuple[int, ...]] = []
        self.refuse: dict[tuple[int, int], int] = {}
        self.bound = self.closed = False
        self.timeout: float | None = None

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options.append((level, name))
        if number := self.refuse.get((level, name)):
            raise OSError(number, "refused")

    def getsockopt(self, level: int, name: int) -> int:
        return 200_000

    def bind(self, address: object) -> None:
        self.bound = True

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        self.closed = True

    def send(self, data: bytes | bytearray) -> None:
        self.sent.append(bytes(data))

    def recv(self, size: int, flags: int = 0) -> bytes:
        step = next(self.steps, errno.EAGAIN)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, int):
            raise OSError(step, "scripted")
        return step


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(scripted: Scripted, groups: Iterable[int] = ()) -> RtnlSocket:
        monkeypatch.setattr(socket, "socket", lambda *_: scripted)
        return RtnlSocket(tuple(groups))

    return make


def reply(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 7) + body


def ack(sequence: int, error: int = 0) -> bytes:
    return reply(NLMSG_ERROR, sequence, pack("=i", -error) + bytes(16), NLM_F_CAPPED)


def sequences(data: bytes) -> list[int]:
    return [sequence for _, _, sequence, _, _ in messages(data)]


def test_a_batch_goes_out_as_one_datagram_and_comes_back_as_outcomes(plug: Any) -> None:
    scripted = Scripted(ack(1, errno.ENODEV) + ack(2))
    outcomes = plug(scripted).exchange([SETTING, SETTING])
    assert [outcome.errno for outcome in outcomes] == [errno.ENODEV, 0]
    assert [sequences(data) for data in scripted.sent] == [[1, 2]]


def test_sequence_numbers_are_not_used_twice(plug: Any) -> None:
    scripted = Scripted(ack(1))
    rtnl = plug(scripted)
    rtnl.exchange([SETTING])
    number = rtnl._sequence
    scripted.steps = iter([ack(1, errno.EPERM), ack(number)])
    assert rtnl.exchange([SETTING]) == [DONE]


def test_an_overrun_is_recovered_from_and_what_was_lost_is_said(plug: Any) -> None:
    barrier = 1 + 4
    scripted = Scripted(ack(1, errno.EEXIST), errno.ENOBUFS, errno.ENOBUFS, ack(7), ack(barrier))
    outcomes = plug(scripted).exchange([SETTING, SETTING, SETTING])
    assert outcomes[0].errno == errno.EEXIST
    assert outcomes[1:] == [LOST, LOST]
    assert [kind for kind, *_ in messages(scripted.sent[1])] == [NLMSG_NOOP]


def test_an_overrun_that_lost_nothing_of_ours_is_no_loss(plug: Any) -> None:
    scripted = Scripted(errno.ENOBUFS, ack(1) + ack(3))
    assert plug(scripted).exchange([SETTING]) == [DONE]


def test_a_failure_while_recovering_is_raised(plug: Any) -> None:
    scripted = Scripted(errno.ENOBUFS, errno.EIO)
    with pytest.raises(OSError, match="scripted") as caught:
        plug(scripted).exchange([SETTING])
    assert caught.value.errno == errno.EIO


def test_a_torn_dump_is_repeated_until_it_is_whole(plug: Any) -> None:
    scripted = Scripted()
    rtnl = plug(scripted)

    class Answering(Scripted):
        def send(self, data: bytes | bytearray) -> None:
            super().send(data)
            (number,) = unpack_from("=I", data, 8)
            torn = NLM_F_DUMP_INTR if len(self.sent) < 3 else 0
            name = f"try{len(self.sent)}".encode()
            self.steps = iter([reply(RTM_NEWLINK, number, name, torn), reply(NLMSG_DONE, number, pack("=i", 0))])

    rtnl._socket = Answering()
    (outcome,) = rtnl.exchange([DUMP])
    assert list(outcome.bodies) == [b"try3"]


def test_a_kernel_that_never_answers_is_a_timeout(plug: Any) -> None:
    with pytest.raises(TimeoutError, match="did not answer"):
        plug(Scripted(BlockingIOError())).exchange([SETTING])


def test_any_other_failure_of_the_socket_is_raised(plug: Any) -> None:
    with pytest.raises(OSError, match="scripted") as caught:
        plug(Scripted(errno.EIO)).exchange([SETTING])
    assert caught.value.errno == errno.EIO


def test_an_interrupted_exchange_still_learns_what_was_done(plug: Any) -> None:
    scripted = Scripted(KeyboardInterrupt(), errno.ENOBUFS, ack(1, errno.EEXIST), ack(2))
    rtnl = plug(scripted)
    exchange = rtnl.begin([SETTING, SETTING])
    with pytest.raises(KeyboardInterrupt):
        rtnl.run(exchange)
    assert [outcome.errno for outcome in exchange.outcomes] == [errno.EEXIST, 0]


def test_options_that_an_old_kernel_lacks_are_done_without(plug: Any) -> None:
    scripted = Scripted()
    scripted.refuse = {(270, 12): errno.ENOPROTOOPT, (270, 11): errno.ENOPROTOOPT}
    assert plug(scripted).fileno() == 99


def test_an_option_refused_for_another_reason_closes_the_socket(plug: Any) -> None:
    scripted = Scripted()
    scripted.refuse = {(270, 11): errno.EIO}
    with pytest.raises(OSError, match="refused"):
        plug(scripted)
    assert scripted.closed


def test_without_privilege_the_receive_buffer_is_what_the_host_allows(plug: Any) -> None:
    scripted = Scripted()
    scripted.refuse = {(socket.SOL_SOCKET, 33): errno.EPERM}
    plug(scripted)
    assert (socket.SOL_SOCKET, socket.SO_RCVBUF) in scripted.options


def test_a_socket_that_hears_groups_is_bound(plug: Any) -> None:
    scripted = Scripted(reply(RTM_NEWLINK, 0, b"link") + reply(NLMSG_NOOP, 0, b""))
    rtnl = plug(scripted, [1, 5])
    assert scripted.bound
    assert rtnl.events(1.5) == [(RTM_NEWLINK, b"link")]
    assert scripted.timeout is None


def test_no_event_in_time_is_an_empty_list(plug: Any) -> None:
    assert plug(Scripted(TimeoutError()), [1]).events(0.1) == []
    assert plug(Scripted(BlockingIOError()), [1]).events(0) == []


def test_without_a_timeout_an_event_is_waited_for(plug: Any) -> None:
    scripted = Scripted(BlockingIOError(), reply(RTM_NEWLINK, 0, b"link"))
    assert plug(scripted, [1]).events(None) == [(RTM_NEWLINK, b"link")]


def test_the_trace_shows_what_is_sent_and_what_comes(
    plug: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("vethlib._nl.trace")  # before the socket class is replaced: pyroute2 derives from it
    monkeypatch.setattr(sock, "_TRACE", True)
    plug(Scripted(ack(1))).exchange([SETTING])
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("nl → type 19 flags 0x5 seq 1")
    assert shown[1].startswith("nl ← type 2 flags 0x100 seq 1")
