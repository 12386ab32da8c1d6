"""The socket's part of an exchange, with a simulated kernel."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from tests.refusing import raises
from vethlib._nl import sock as sock_module
from vethlib._nl import trace as trace  # before sockets are replaced: pyroute2 makes classes of them
from vethlib._nl.batch import DONE, LOST, UNSENT
from vethlib._nl.const import (
    NLM_F_ACK,
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
    RTNLGRP_LINK,
)
from vethlib._nl.direct import ask_once
from vethlib._nl.dump import all_bodies, link_bodies
from vethlib._nl.link import dump_links, parse_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import READ_SIZE, message, messages
from vethlib._primitives import socket
from vethlib.errors import Malformed

Answer = bytes | BaseException


def reply(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 7) + body


def ack(sequence: int, error: int = 0) -> bytes:
    return reply(NLMSG_ERROR, sequence, pack("=i", -error) + bytes(16), NLM_F_CAPPED)


def question() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST, bytes(16))


def setting() -> bytes:
    return message(RTM_SETLINK, NLM_F_REQUEST, bytes(16))


def dump() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, bytes(16))


class Kernel:
    """Takes the place of the socket. `answers` says what (type, flags, sequence) is answered with."""

    def __init__(
        self, answers: Callable[[int, int, int], list[Answer]], *, refused: dict[int, int] | None = None
    ) -> None:
        self.answers = answers
        self.refused = refused or {}
        self.queue: list[Answer] = []
        self.sent: list[bytes] = []
        self.options: list[tuple[int, int]] = []
        self.timeouts: list[float | None] = []
        self.closed = False
        self.port = 0  # of the sender of events
        self.connected: list[tuple[int, int]] = []

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options.append((level, name))
        if name in self.refused:
            raise OSError(self.refused[name], os.strerror(self.refused[name]))

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        return bytes(size) if size else 200_000

    def connect(self, address: tuple[int, int]) -> None:
        self.connected.append(address)

    def settimeout(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)

    def close(self) -> None:
        self.closed = True

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))
        for kind, flags, sequence, _, _ in messages(bytes(data)):
            self.queue += self.answers(kind, flags, sequence)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        answer = self.queue.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer[:size]

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        return self.recv(size), (self.port, 1)

    def recv_into(self, buffer: bytearray, size: int, flags: int) -> int:
        """Only ever to measure: MSG_PEEK and MSG_TRUNC."""
        assert flags & socket.MSG_PEEK
        assert flags & socket.MSG_TRUNC
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        if isinstance(self.queue[0], BaseException):
            raise self.queue.pop(0)  # type: ignore[misc]
        return len(self.queue[0])


def acking(kind: int, flags: int, sequence: int) -> list[Answer]:
    return [ack(sequence)] if flags & NLM_F_ACK else []


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], RtnlSocket]:
    def play(kernel: Kernel, groups: tuple[int, ...] = ()) -> RtnlSocket:
        monkeypatch.setattr(socket, "SocketType", lambda *_: kernel)
        return RtnlSocket(groups)

    return play


Play = Callable[..., RtnlSocket]

OVERRUN = OSError(errno.ENOBUFS, "No buffer space available")


def test_what_is_asked_is_answered(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    assert own.exchange([setting(), setting()]) == [DONE, DONE]
    assert own.exchange([]) == []
    own.close()
    own.close()
    assert (len(kernel.sent), kernel.closed) == (1, True)


def test_sequence_numbers_are_never_used_twice(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    for _ in range(3):
        own.exchange([setting(), setting()])
    numbers = [sequence for data in kernel.sent for _, _, sequence, _, _ in messages(data)]
    assert len(set(numbers)) == 6


@pytest.mark.parametrize("number", [10, 11, 12])
def test_an_old_kernel_may_lack_any_of_the_netlink_options(play: Play, number: int) -> None:
    own = play(Kernel(acking, refused={number: errno.ENOPROTOOPT}))
    assert own.exchange([setting()]) == [DONE]


def test_an_option_that_fails_otherwise_closes_the_socket(play: Play) -> None:
    kernel = Kernel(acking, refused={11: errno.EINVAL})
    with raises(OSError, errno=errno.EINVAL):
        play(kernel)
    assert kernel.closed


def test_without_privilege_the_receive_buffer_is_what_the_host_allows(play: Play) -> None:
    kernel = Kernel(acking, refused={33: errno.EPERM})  # SO_RCVBUFFORCE
    play(kernel).begin([setting()] * 9)
    assert (socket.SOL_SOCKET, socket.SO_RCVBUF) in kernel.options


@pytest.mark.parametrize("groups", [(), (RTNLGRP_LINK,)])
def test_a_socket_is_connected_to_the_kernel_before_anything_else(play: Play, groups: tuple[int, ...]) -> None:
    kernel = Kernel(acking)
    play(kernel, groups)
    assert kernel.connected == [(0, 0)]
    assert ((270, 1) in kernel.options) == bool(groups)


def test_no_socket_begins_with_the_number_of_another(play: Play) -> None:
    kernel = Kernel(acking)
    for _ in range(300):
        play(kernel).exchange([setting()])
        play(kernel)
        ask_once(question())
    numbers = [sequence for data in kernel.sent for _, _, sequence, _, _ in messages(data)]
    assert len(set(numbers)) == len(numbers) == 600
    assert max(numbers) > 1 << 30


@pytest.mark.parametrize("take", [link_bodies, lambda: (all_bodies() or ((), ()))[1]])
def test_a_dump_consists_of_the_answers_to_its_own_question(play: Play, take: Callable[[], list[bytes]]) -> None:
    def answers(_kind: int, _flags: int, sequence: int) -> list[Answer]:
        others = [reply(kind, sequence ^ 1, bytes(4)) for kind in (RTM_NEWLINK, NLMSG_ERROR, NLMSG_DONE)]
        return [*others, reply(RTM_NEWLINK, sequence, b"part"), reply(NLMSG_DONE, sequence, bytes(4))]

    play(Kernel(answers))
    assert take() == [b"part"]


def test_no_answer_is_an_error_in_the_end(play: Play) -> None:
    own = play(Kernel(lambda *_: []))
    with raises(TimeoutError, errno=errno.ETIMEDOUT):
        own.exchange([setting()])


def test_a_receive_that_fails_is_an_error(play: Play) -> None:
    own = play(Kernel(lambda *_: [OSError(errno.ENOMEM, "no memory")]))
    with raises(OSError, errno=errno.ENOMEM):
        own.exchange([setting()])


def test_a_torn_dump_is_repeated(play: Play) -> None:
    turns = iter([NLM_F_DUMP_INTR, NLM_F_DUMP_INTR, 0])

    def answers(_kind: int, _flags: int, sequence: int) -> list[Answer]:
        return [reply(RTM_NEWLINK, sequence, b"part"), reply(NLMSG_DONE, sequence, bytes(4), next(turns))]

    kernel = Kernel(answers)
    (outcome,) = play(kernel).exchange([dump()])
    assert (list(outcome.bodies), len(kernel.sent)) == ([b"part"], 3)


def test_what_survived_an_overrun_counts_and_the_rest_is_lost(play: Play) -> None:
    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        return [OVERRUN] if flags & NLM_F_ACK else [ack(sequence, errno.ENODEV)]

    kernel = Kernel(answers)
    first, second, third = play(kernel).exchange([setting(), setting(), setting()])
    assert (first.errno, second.errno, third) == (errno.ENODEV, errno.ENODEV, LOST)
    assert len(kernel.sent) == 2


def test_the_buffer_is_emptied_before_the_barrier_is_sent(play: Play) -> None:
    """Its ack would not fit into a full one."""
    kernel: Kernel

    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [] if kernel.queue else [ack(sequence)]
        return [OVERRUN, ack(sequence, errno.ENODEV)] if not flags & NLM_F_ACK else []

    kernel = Kernel(answers)
    first, second = play(kernel).exchange([setting(), setting()])
    assert (first.errno, second) == (errno.ENODEV, LOST)


def test_after_an_overrun_only_what_was_acknowledged_itself_is_done(play: Play) -> None:
    """It may have been the error of an earlier request that was lost."""
    kernel = Kernel(lambda _kind, flags, sequence: [OVERRUN, ack(sequence)] if flags & NLM_F_ACK else [])
    assert play(kernel).exchange([setting(), setting()]) == [LOST, DONE]


def test_after_an_overrun_the_end_of_a_dump_does_not_mean_that_the_changes_before_it_are_made(play: Play) -> None:
    def answers(kind: int, _flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        end = reply(NLMSG_DONE, sequence, bytes(4))
        return [OVERRUN] if kind == RTM_SETLINK else [reply(RTM_NEWLINK, sequence, b"here"), end]

    changed, dumped = play(Kernel(answers)).exchange([setting(), dump()])
    assert (changed, list(dumped.bodies)) == (LOST, [b"here"])


def test_an_interruption_does_not_make_an_overrun_forgotten(play: Play) -> None:
    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [KeyboardInterrupt(), ack(sequence)]
        return [OVERRUN, ack(sequence)] if flags & NLM_F_ACK else []

    own = play(Kernel(answers))
    exchange = own.begin([setting(), setting()])
    with pytest.raises(KeyboardInterrupt):
        own.run(exchange)
    assert exchange.outcomes == [LOST, DONE]


def test_overruns_may_come_one_after_the_other(play: Play) -> None:
    numbers: list[int] = []

    def answers(_kind: int, _flags: int, sequence: int) -> list[Answer]:
        numbers.append(sequence)
        return [OVERRUN, *map(ack, numbers)] if len(numbers) == 2 else [OVERRUN, OVERRUN]

    assert play(Kernel(answers)).exchange([setting()]) == [DONE]


def test_a_barrier_without_an_ack_is_an_error(play: Play) -> None:
    own = play(Kernel(lambda kind, *_: [] if kind == NLMSG_NOOP else [OVERRUN]))
    with pytest.raises(BlockingIOError):
        own.exchange([setting()])


@pytest.mark.parametrize("interrupted", range(1, 4))
def test_after_an_interruption_what_was_sent_is_accounted_for(play: Play, interrupted: int) -> None:
    """Whether it arrives during the wait, or instead of the answer or of the report of an overrun."""

    def answers(_kind: int, flags: int, sequence: int) -> list[Answer]:
        given: list[Answer] = [ack(sequence, 0 if flags & NLM_F_ACK else errno.ENODEV)]
        if flags & NLM_F_ACK:
            given.insert(0, KeyboardInterrupt())
            if interrupted == 2:
                given.insert(1, OVERRUN)
        return given if interrupted != 3 or flags & NLM_F_ACK else []

    kernel = Kernel(answers)
    own = play(kernel)
    exchange = own.begin([setting(), setting()])
    with pytest.raises(KeyboardInterrupt):
        own.run(exchange)
    assert [outcome.errno for outcome in exchange.outcomes] == [0 if interrupted == 3 else errno.ENODEV, 0]
    assert kernel.queue == []
    kernel.answers = acking
    assert own.exchange([setting()]) == [DONE]


def look() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST, bytes(16))


def test_one_question_has_one_answer(play: Play) -> None:
    own = play(Kernel(lambda _kind, flags, sequence: [reply(RTM_NEWLINK, sequence, bytes([flags]))]))
    assert [list(own.ask(look()).bodies) for _ in range(2)] == [[bytes([NLM_F_REQUEST])]] * 2


@pytest.mark.parametrize("first", [reply(RTM_NEWLINK, 0, b"stale"), OVERRUN, BlockingIOError(errno.EAGAIN, "late")])
def test_a_question_whose_answer_does_not_come_at_once_is_asked_again(play: Play, first: Answer) -> None:
    answers = iter([[first], []])
    kernel = Kernel(lambda _kind, _flags, sequence: [*next(answers, []), reply(RTM_NEWLINK, sequence, b"here")])
    own = play(kernel)
    assert own.ask(look()) == (0, "", [b"here"])
    assert own.exchange([look()])[0] == (0, "", [b"here"])


def test_a_question_that_is_refused_has_an_error(play: Play) -> None:
    own = play(Kernel(lambda _kind, _flags, sequence: [ack(sequence, errno.ENODEV)]))
    assert own.ask(look()).errno == errno.ENODEV


def both(change: list[Answer], question: list[Answer]) -> Callable[[int, int, int], list[Answer]]:
    """Return the answers to a change and a question; an error and an object have the number of their request."""

    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        given = change if kind == RTM_SETLINK else question
        del answered[:-9]
        answered.append(kind)
        return (
            [one(sequence) if callable(one) else one for one in given]
            if answered.count(kind) == 1
            else [reply(RTM_NEWLINK, sequence, b"again")]
        )

    answered: list[int] = []
    return answers


def refusal(sequence: int) -> bytes:
    return ack(sequence, errno.EBUSY)


def answer(sequence: int) -> bytes:
    return reply(RTM_NEWLINK, sequence, b"here")


def huge(sequence: int) -> bytes:
    return object_of(sequence, READ_SIZE)


@pytest.mark.parametrize(
    ("first", "last", "errors"),
    [
        ([], [ack], [0, 0]),
        ([refusal], [ack], [errno.EBUSY, 0]),
        ([], [refusal], [0, errno.EBUSY]),
        ([refusal], [refusal], [errno.EBUSY, errno.EBUSY]),
        ([], [OVERRUN], [errno.ENOBUFS, errno.ENOBUFS]),
        ([], [OVERRUN, ack], [errno.ENOBUFS, 0]),
        ([b"\1\2\3"], [ack], [errno.ENOBUFS, errno.ENOBUFS]),
        ([reply(RTM_NEWLINK, 0, b"stale")], [ack], [0, 0]),
    ],
)
def test_changes_without_an_account_have_an_outcome_each(
    play: Play, first: list[Any], last: list[Any], errors: list[int]
) -> None:
    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        given = [ack] if kind == NLMSG_NOOP else last if flags & NLM_F_ACK else first
        return [one(sequence) if callable(one) else one for one in given]

    kernel = Kernel(answers)
    own = play(kernel)
    assert [outcome.errno for outcome in own.change([setting(), setting()])] == errors
    kernel.answers = acking
    assert own.change([setting()] * 2) == [DONE] * 2
    assert own.change([setting()] * 20) == [DONE] * 20
    assert own.change([]) == []


@pytest.mark.parametrize(
    ("change", "question", "outcomes"),
    [
        ([], [answer], [(0, [b"here"])]),
        ([refusal], [answer], [(errno.EBUSY, []), (0, [b"here"])]),
        ([refusal], [refusal], [(errno.EBUSY, []), (errno.EBUSY, [])]),
        ([], [refusal], [(0, []), (errno.EBUSY, [])]),
        ([], [OVERRUN], [(errno.ENOBUFS, []), (0, [b"again"])]),
        ([], [OVERRUN, answer], [(errno.ENOBUFS, []), (0, [b"here"])]),
        ([], [huge], [(0, []), (0, [b"again"])]),
        ([b"\1\2\3"], [answer], [(errno.ENOBUFS, []), (0, [b"here"])]),
        ([reply(RTM_NEWLINK, 0, b"stale")], [answer], [(0, []), (0, [b"here"])]),
    ],
)
def test_a_change_and_a_question_have_an_outcome_each(
    play: Play, change: list[Any], question: list[Any], outcomes: list[tuple[int, list[bytes]]]
) -> None:
    kernel = Kernel(both(change, question))
    own = play(kernel)
    found = own.change_and_ask(setting(), look())
    assert [(outcome.errno, list(outcome.bodies)) for outcome in found][-len(outcomes) :] == outcomes
    assert sum(kind == RTM_SETLINK for data in kernel.sent for kind, *_ in messages(data)) == 1
    assert kernel.queue == []
    kernel.answers = acking
    assert own.exchange([setting()]) == [DONE]


def test_an_interruption_in_the_middle_of_accounting_loses_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_kind: int, flags: int, sequence: int) -> list[Answer]:
        return [ack(sequence)] if flags & NLM_F_ACK else [reply(RTM_NEWLINK, sequence, b"echo")]

    own = play(Kernel(answers))
    for moment in range(3):
        exchange = own.begin([setting(), setting(), setting()])
        account_for = type(exchange)._account_for
        calls: list[int] = []

        def interrupt(
            self: Any, datagram: bytes, moment: int = moment, calls: list[int] = calls, account_for: Any = account_for
        ) -> None:
            calls.append(1)
            if len(calls) == moment + 1:
                account_for(self, datagram)
                raise KeyboardInterrupt
            account_for(self, datagram)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(type(exchange), "_account_for", interrupt)
            own.run(exchange)
        assert [list(outcome.bodies) for outcome in exchange.outcomes] == [[b"echo"], [b"echo"], []]
        assert [outcome.errno for outcome in exchange.outcomes] == [0, 0, 0]


def test_what_was_not_sent_before_an_interruption_stays_unsent(play: Play) -> None:
    def answers(_kind: int, _flags: int, _sequence: int) -> list[Answer]:
        raise KeyboardInterrupt

    own = play(Kernel(answers))
    exchange = own.begin([setting()])
    with pytest.raises(KeyboardInterrupt):
        own.run(exchange)
    assert exchange.outcomes == [UNSENT]


def test_bytes_that_make_no_sense_are_malformed(play: Play) -> None:
    with pytest.raises(Malformed):
        play(Kernel(lambda *_: [b"\1\2\3"])).exchange([setting()])


def object_of(sequence: int, size: int) -> bytes:
    return reply(RTM_NEWLINK, sequence, bytes(range(256)) * (size // 256) + bytes(size % 256))


@pytest.mark.parametrize("size", [READ_SIZE - 17, READ_SIZE - 16, READ_SIZE - 15, 2 * READ_SIZE, 1 << 20])
@pytest.mark.parametrize("way", ["ask", "exchange"])
def test_an_answer_of_any_size_is_received_whole(play: Play, size: int, way: str) -> None:
    kernel = Kernel(lambda kind, _, seq: [ack(seq)] if kind == NLMSG_NOOP else [object_of(seq, size)])
    own = play(kernel)
    for _ in range(2):
        outcome = own.ask(look()) if way == "ask" else own.exchange([look()])[0]
        assert (outcome.errno, len(outcome.bodies[0])) == (0, size)
        assert kernel.queue == []


@pytest.mark.parametrize("huge", range(5))
def test_of_many_questions_only_the_one_whose_answer_was_cut_is_asked_again(play: Play, huge: int) -> None:
    def answers(kind: int, _flags: int, sequence: int) -> list[Answer]:
        asked.append(kind)
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        again = NLMSG_NOOP in asked[-2:]
        return [object_of(sequence, 200_000 if again or len(asked) == huge + 1 else 9)]

    asked: list[int] = []
    kernel = Kernel(answers)
    outcomes = play(kernel).exchange([look()] * 5)
    assert [len(outcome.bodies[0]) for outcome in outcomes] == [200_000 if n == huge else 9 for n in range(5)]
    assert len(asked) == 7  # five, the barrier, and the one again
    assert kernel.queue == []


@pytest.mark.parametrize("parsed", [False, True])
@pytest.mark.parametrize("where", range(4))
def test_a_dump_of_which_a_part_was_cut_is_read_to_its_end_and_then_repeated(
    play: Play, where: int, parsed: bool
) -> None:
    """Also if it is cut between two messages, or if its end (DONE) was cut off."""

    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        if flags & NLM_F_DUMP != NLM_F_DUMP:
            return [reply(RTM_NEWLINK, sequence, b"other")]
        end = reply(NLMSG_DONE, sequence, bytes(4))
        huge = object_of(sequence, READ_SIZE - 16)  # fills the buffer, and no more of the datagram fits
        parts: list[Answer] = [reply(RTM_NEWLINK, sequence, b"a..."), reply(RTM_NEWLINK, sequence, b"b...")]
        parts.insert(min(where, 2), huge + (end if where == 3 else reply(RTM_NEWLINK, sequence, b"c...")))
        return parts if where == 3 else [*parts, end]

    kernel = Kernel(answers)
    own = play(kernel)
    outcome = own.dump(dump(), bytes) if parsed else own.exchange([dump()])[0]
    found = sorted(body[:4] for body in outcome.bodies)
    assert found == sorted([b"a...", b"b...", bytes(range(4)), *([] if where == 3 else [b"c..."])])
    assert kernel.queue == []
    assert own.exchange([look()])[0].bodies == [b"other"]


def test_a_change_whose_echo_was_cut_is_done(play: Play) -> None:
    def answers(kind: int, flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        return [object_of(sequence, 300_000), *([ack(sequence)] if flags & NLM_F_ACK else [])]

    kernel = Kernel(answers)
    first, second = play(kernel).exchange([setting(), setting()])
    assert (first.errno, list(first.bodies), second.errno) == (0, [], 0)
    assert sum(len(list(messages(data))) for data in kernel.sent) == 3  # no change is sent twice


def test_questions_whose_answers_were_lost_are_asked_again_one_by_one(play: Play) -> None:
    numbers: list[int] = []

    def answers(kind: int, _flags: int, sequence: int) -> list[Answer]:
        if kind == NLMSG_NOOP:
            return [ack(sequence)]
        numbers.append(sequence)
        return [OVERRUN] if len(numbers) in (2, 3) else [reply(RTM_NEWLINK, sequence, b"here")]

    own = play(Kernel(answers))
    assert [list(outcome.bodies) for outcome in own.exchange([look()] * 3)] == [[b"here"]] * 3


def test_a_question_that_is_never_answered_whole_is_given_up(play: Play) -> None:
    kernel = Kernel(lambda kind, _, seq: [ack(seq) if kind == NLMSG_NOOP else reply(RTM_NEWLINK, seq, b"long")[:-2]])
    own = play(kernel)
    unknown, bad = own.exchange([setting(), look()])
    assert (unknown.errno, bad.errno) == (errno.ENOBUFS, errno.EBADMSG)
    assert len(kernel.sent) < 12
    assert kernel.queue == []


@pytest.mark.parametrize("raised", [Malformed("no"), IndexError("no"), struct.error("no"), ValueError("no")])
def test_a_dump_with_a_message_that_cannot_be_read_is_read_to_its_end_and_refused(
    play: Play, raised: Exception
) -> None:
    def answers(_kind: int, flags: int, sequence: int) -> list[Answer]:
        parts = [reply(RTM_NEWLINK, sequence, body) for body in (b"good", b"bad.", b"good")]
        return [parts[0] + parts[1], parts[2], reply(NLMSG_DONE, sequence, bytes(4))]

    def parse(body: bytes) -> bytes:
        if body == b"bad.":
            raise raised
        return body

    kernel = Kernel(answers)
    outcome = play(kernel).dump(dump(), parse)
    assert (outcome.errno, list(outcome.bodies), kernel.queue) == (errno.EBADMSG, [], [])


def test_a_dump_that_was_left_half_read_does_not_refuse_the_next(play: Play) -> None:
    def answers(_kind: int, _flags: int, sequence: int) -> list[Answer]:
        if kernel.queue:
            return [ack(sequence, errno.EBUSY)]
        return [reply(RTM_NEWLINK, sequence, b"here"), reply(NLMSG_DONE, sequence, bytes(4))]

    kernel = Kernel(answers)
    own = play(kernel)
    kernel.queue = [reply(RTM_NEWLINK, 0, b"old."), OVERRUN, reply(NLMSG_DONE, 0, bytes(4))]
    assert own.dump(dump(), bytes) == (0, "", [b"here"])


@pytest.mark.parametrize("cut", range(1, 21))
def test_an_acknowledgement_that_is_cut_anywhere_leaves_a_socket_that_works(play: Play, cut: int) -> None:
    short = iter([True])

    def answers(_kind: int, flags: int, sequence: int) -> list[Answer]:
        whole = ack(sequence, errno.ENODEV)
        return [whole[:cut] if next(short, False) else whole] if flags & NLM_F_ACK else []

    kernel = Kernel(answers)
    own = play(kernel)
    (outcome,) = own.exchange([setting()])
    assert outcome.errno == errno.ENOBUFS
    assert own.exchange([setting()])[0].errno == errno.ENODEV
    assert kernel.queue == []


def test_interrupted_while_an_echo_was_cut_what_was_made_is_known(play: Play) -> None:
    def answers(_kind: int, flags: int, sequence: int) -> list[Answer]:
        return [object_of(sequence, 300_000), KeyboardInterrupt()] if flags & NLM_F_ACK else []

    own = play(Kernel(answers))
    exchange = own.begin([setting(), setting()])
    with pytest.raises(KeyboardInterrupt):
        own.run(exchange)
    assert [outcome.errno for outcome in exchange.outcomes] == [0, 0]


def test_events_are_messages_and_a_timeout_brings_none(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel, (RTNLGRP_LINK,))
    kernel.queue = [reply(RTM_NEWLINK, 0, b"one.") + reply(RTM_NEWLINK, 0, b"two.") + reply(NLMSG_DONE, 0, bytes(4))]
    assert own.events(1.5) == [(RTM_NEWLINK, b"one."), (RTM_NEWLINK, b"two.")]
    assert own.events(0) == []
    kernel.queue = [TimeoutError()]
    assert own.events(0.5) == []
    assert kernel.timeouts == [1.5, None, 0, None, 0.5, None]


def test_events_without_a_timeout_are_waited_for_as_long_as_it_takes(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.queue = [BlockingIOError(), BlockingIOError(), reply(RTM_NEWLINK, 0, b"late")]
    assert own.events(None) == [(RTM_NEWLINK, b"late")]


def test_events_that_are_not_from_the_kernel_are_none(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.port, kernel.queue = 77, [reply(RTM_NEWLINK, 0, b"link"), b"no message"]
    assert own.events(1) == own.events(1) == []


def test_lost_events_are_an_error(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.queue = [OVERRUN]
    with pytest.raises(OSError) as caught:
        own.events(1)
    assert caught.value.errno == errno.ENOBUFS
    assert kernel.timeouts[-1] is None


def test_what_goes_over_the_wire_can_be_traced(play: Play, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sock_module, "_TRACE", True)
    own = play(Kernel(acking))
    own.exchange([setting()])
    sent, received = capsys.readouterr().err.splitlines()
    assert sent.startswith("nl → type 19 flags 0x5 ")
    assert received.startswith("nl ← type 2 ")


def test_a_real_socket_needs_no_privilege_to_look() -> None:
    own = RtnlSocket()
    (outcome,) = own.exchange([dump_links()])
    assert "lo" in {parse_link(body).name for body in outcome.bodies}
    assert own.fileno() > 0
    own.close()
