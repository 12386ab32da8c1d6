"""The socket's part of an exchange, with a simulated kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from tests.refusing import raises
from tests.unit.simulated_kernel import (
    OVERRUN,
    Answer,
    Kernel,
    Play,
    ack,
    acking,
    dump,
    look,
    object_of,
    reply,
    setting,
)
from vethlib._nl import sock as sock_module
from vethlib._nl import trace as trace  # before sockets are replaced: pyroute2 makes classes of them
from vethlib._nl.batch import DONE
from vethlib._nl.const import (
    NLM_F_ACK,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    RTM_NEWLINK,
    RTM_SETLINK,
    RTNLGRP_LINK,
)
from vethlib._nl.direct import ask_once
from vethlib._nl.dump import all_bodies, link_bodies
from vethlib._nl.link import dump_links, parse_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import READ_SIZE, messages
from vethlib._primitives import socket


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
        ask_once(look())
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


def test_a_dump_that_was_left_half_read_does_not_refuse_the_next(play: Play) -> None:
    def answers(_kind: int, _flags: int, sequence: int) -> list[Answer]:
        if kernel.queue:
            return [ack(sequence, errno.EBUSY)]
        return [reply(RTM_NEWLINK, sequence, b"here"), reply(NLMSG_DONE, sequence, bytes(4))]

    kernel = Kernel(answers)
    own = play(kernel)
    kernel.queue = [reply(RTM_NEWLINK, 0, b"old."), OVERRUN, reply(NLMSG_DONE, 0, bytes(4))]
    assert own.dump(dump(), bytes) == (0, "", [b"here"])


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
