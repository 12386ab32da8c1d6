"""Answers that are cut, lost, or make no sense: what was asked is asked again, what was changed is not."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.unit.simulated_kernel import OVERRUN, Answer, Kernel, Play, ack, dump, look, object_of, reply, setting
from vethlib._nl.const import NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_NOOP, RTM_NEWLINK
from vethlib._nl.wire import READ_SIZE, messages
from vethlib.errors import Malformed


def test_bytes_that_make_no_sense_are_malformed(play: Play) -> None:
    with pytest.raises(Malformed):
        play(Kernel(lambda *_: [b"\1\2\3"])).exchange([setting()])


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
