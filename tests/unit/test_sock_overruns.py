"""Overruns and interruptions: what was answered counts, and the rest is accounted for as lost or unsent."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.unit.simulated_kernel import OVERRUN, Answer, Kernel, Play, ack, acking, dump, reply, setting
from vethlib._nl.batch import DONE, LOST, UNSENT
from vethlib._nl.const import NLM_F_ACK, NLMSG_DONE, NLMSG_NOOP, RTM_NEWLINK, RTM_SETLINK


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
