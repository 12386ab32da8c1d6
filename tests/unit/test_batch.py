"""The account of an exchange, against a kernel that the test writes out byte by byte."""

from __future__ import annotations

import errno
from struct import pack, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib._nl.batch import DONE, DUMP_ATTEMPTS, LOST, UNSENT, Exchange, Limits, Outcome
from vethlib._nl.const import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from vethlib._nl.wire import attribute, message, messages
from vethlib.errors import Malformed

ROOMY = Limits(send=200_000, receive=4_000_000)


def setting(body: bytes = b"\0" * 16) -> bytes:
    return message(RTM_SETLINK, NLM_F_REQUEST, body)


def creation() -> bytes:
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO, b"\0" * 16)


def dump() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, b"\0" * 16)


def look() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST, b"\0" * 16)


def reply(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 7) + body + b"\0" * (-len(body) % 4)


def ack(sequence: int, error: int = 0) -> bytes:
    return reply(NLMSG_ERROR, sequence, pack("=i", -error) + bytes(16), NLM_F_CAPPED)


def sent(chunk: bytearray | None) -> list[tuple[int, int, int]]:
    """(type, flags, sequence) of each message of a chunk."""
    assert chunk is not None
    return [(kind, flags, sequence) for kind, flags, sequence, _, _ in messages(bytes(chunk))]


def test_only_the_last_message_of_a_chunk_asks_for_an_ack() -> None:
    exchange = Exchange([setting(), setting(), setting()], ROOMY)
    assert sent(exchange.next_chunk(50)) == [
        (RTM_SETLINK, NLM_F_REQUEST, 50),
        (RTM_SETLINK, NLM_F_REQUEST, 51),
        (RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 52),
    ]


def test_the_ack_of_the_last_message_says_that_the_silent_ones_are_done() -> None:
    exchange = Exchange([setting(), setting(), setting()], ROOMY)
    exchange.next_chunk(1)
    before = exchange.awaiting
    exchange.feed(ack(3))
    assert (before, exchange.awaiting) == (True, False)
    assert exchange.outcomes == [DONE, DONE, DONE]
    assert exchange.next_chunk(4) is None


def test_every_refusal_is_matched_to_its_own_request() -> None:
    exchange = Exchange([setting() for _ in range(5)], ROOMY)
    exchange.next_chunk(10)
    exchange.feed(ack(11, errno.ENODEV) + ack(13, errno.EINVAL))
    exchange.feed(ack(14, errno.EPERM))
    assert [outcome.errno for outcome in exchange.outcomes] == [0, errno.ENODEV, 0, errno.EINVAL, errno.EPERM]


def test_an_echo_belongs_to_the_request_of_its_sequence_number() -> None:
    exchange = Exchange([creation(), creation()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(reply(RTM_NEWLINK, 1, b"first...") + reply(RTM_NEWLINK, 2, b"second..") + ack(2))
    assert [list(outcome.bodies) for outcome in exchange.outcomes] == [[b"first..."], [b"second.."]]


def test_answers_of_an_earlier_exchange_are_dropped() -> None:
    exchange = Exchange([setting()], ROOMY)
    exchange.next_chunk(20)
    exchange.feed(ack(19, errno.EPERM) + ack(21, errno.EPERM) + reply(RTM_NEWLINK, 5, b"stale..."))
    assert exchange.awaiting
    exchange.feed(ack(20))
    assert exchange.outcomes == [DONE]


def test_sequence_numbers_wrap_at_32_bits() -> None:
    exchange = Exchange([setting(), setting(), setting()], ROOMY)
    assert [sequence for _, _, sequence in sent(exchange.next_chunk(0xFFFF_FFFF))] == [0xFFFF_FFFF, 0, 1]
    exchange.feed(ack(0, errno.EBUSY) + ack(1))
    assert [outcome.errno for outcome in exchange.outcomes] == [0, errno.EBUSY, 0]


def test_the_kernels_words_come_with_the_error_when_acks_are_capped() -> None:
    exchange = Exchange([setting()], ROOMY)
    exchange.next_chunk(1)
    body = pack("=i", -errno.EACCES) + bytes(16) + attribute(1, b"IPv6 is disabled on this device\0")
    exchange.feed(reply(NLMSG_ERROR, 1, body, NLM_F_CAPPED | NLM_F_ACK_TLVS))
    assert exchange.outcomes == [Outcome(errno.EACCES, "IPv6 is disabled on this device")]


def test_the_kernels_words_are_found_behind_the_whole_request_too() -> None:
    exchange = Exchange([setting()], ROOMY)
    exchange.next_chunk(1)
    body = pack("=i", -errno.EINVAL) + setting(b"x" * 18) + attribute(2, bytes(4)) + attribute(1, b"no\0")
    exchange.feed(reply(NLMSG_ERROR, 1, body, NLM_F_ACK_TLVS))
    assert exchange.outcomes[0].extack == "no"


def test_an_error_without_text_has_an_empty_one() -> None:
    exchange = Exchange([setting()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(reply(NLMSG_ERROR, 1, pack("=i", -22) + bytes(16), NLM_F_CAPPED | NLM_F_ACK_TLVS))
    assert exchange.outcomes == [Outcome(errno.EINVAL)]


def test_a_chunk_ends_where_the_datagram_is_full() -> None:
    exchange = Exchange([setting() for _ in range(5)], Limits(send=2 * len(setting()), receive=1 << 20))
    sizes = []
    number = 1
    while (chunk := exchange.next_chunk(number)) is not None:
        sizes.append(len(sent(chunk)))
        number += sizes[-1]
        exchange.feed(ack(number - 1))
    assert sizes == [2, 2, 1]
    assert exchange.outcomes == [DONE] * 5


def test_a_chunk_ends_where_its_answers_would_no_longer_fit() -> None:
    exchange = Exchange([creation() for _ in range(20)], Limits(send=1 << 20, receive=50_000))
    assert len(sent(exchange.next_chunk(1))) == 10


def test_a_request_larger_than_every_limit_is_sent_alone() -> None:
    exchange = Exchange([setting(bytes(900)), setting()], Limits(send=100, receive=100))
    assert len(sent(exchange.next_chunk(1))) == 1


def test_a_dump_ends_its_chunk_and_asks_for_no_ack() -> None:
    exchange = Exchange([setting(), dump(), setting()], ROOMY)
    assert sent(exchange.next_chunk(1)) == [
        (RTM_SETLINK, NLM_F_REQUEST, 1),
        (RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 2),
    ]
    exchange.feed(reply(RTM_NEWLINK, 2, b"one.") + reply(RTM_NEWLINK, 2, b"two."))
    before = exchange.awaiting
    exchange.feed(reply(NLMSG_DONE, 2, pack("=i", 0)))
    assert (before, exchange.awaiting) == (True, False)
    assert len(sent(exchange.next_chunk(3))) == 1
    exchange.feed(ack(3))
    assert [list(outcome.bodies) for outcome in exchange.outcomes] == [[], [b"one.", b"two."], []]


def test_a_dumps_error_is_the_number_in_its_done_message() -> None:
    exchange = Exchange([dump()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(reply(NLMSG_DONE, 1, pack("=i", -errno.EOPNOTSUPP) + attribute(1, b"why\0"), NLM_F_ACK_TLVS))
    assert exchange.outcomes == [Outcome(errno.EOPNOTSUPP, "why")]


def test_a_torn_dump_is_sent_again_and_what_it_had_brought_is_forgotten() -> None:
    exchange = Exchange([setting(), dump(), setting()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(reply(RTM_NEWLINK, 2, b"old.", NLM_F_DUMP_INTR) + reply(NLMSG_DONE, 2, pack("=i", 0)))
    assert exchange.outcomes[0] is DONE
    assert exchange.outcomes[1] is UNSENT
    assert sent(exchange.next_chunk(3)) == [(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 3)]
    exchange.feed(reply(RTM_NEWLINK, 3, b"new.") + reply(NLMSG_DONE, 3, pack("=i", 0)))
    assert list(exchange.outcomes[1].bodies) == [b"new."]
    assert len(sent(exchange.next_chunk(4))) == 1


def test_a_parsed_dump_has_what_was_made_of_each_message() -> None:
    exchange = Exchange([dump()], ROOMY, bytes.upper)
    exchange.next_chunk(1)
    exchange.feed(reply(RTM_NEWLINK, 1, b"one.") + reply(RTM_NEWLINK, 1, b"two."))
    exchange.feed(reply(NLMSG_DONE, 1, pack("=i", 0)))
    assert list(exchange.outcomes[0].bodies) == [b"ONE.", b"TWO."]
    assert exchange.inbox == []


def test_a_parsed_dump_that_was_read_in_part_is_sent_again() -> None:
    """The received part is not kept, so it cannot be determined what is missing."""
    exchange = Exchange([dump()], ROOMY, bytes.upper)
    exchange.next_chunk(1)
    exchange.feed(reply(RTM_NEWLINK, 1, b"one."))
    exchange.reread()
    exchange.feed(reply(RTM_NEWLINK, 1, b"two.") + reply(NLMSG_DONE, 1, pack("=i", 0)))
    assert exchange.outcomes == [UNSENT]
    assert sent(exchange.next_chunk(2)) == [(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 2)]
    exchange.feed(reply(RTM_NEWLINK, 2, b"one.") + reply(RTM_NEWLINK, 2, b"two."))
    exchange.feed(reply(NLMSG_DONE, 2, pack("=i", 0)))
    assert list(exchange.outcomes[0].bodies) == [b"ONE.", b"TWO."]


def test_a_request_for_an_object_is_done_with_its_answer() -> None:
    exchange = Exchange([setting(), look()], ROOMY)
    assert sent(exchange.next_chunk(1)) == [(RTM_SETLINK, NLM_F_REQUEST, 1), (RTM_GETLINK, NLM_F_REQUEST, 2)]
    exchange.feed(ack(1, errno.EPERM))
    before = exchange.awaiting
    exchange.feed(reply(RTM_NEWLINK, 2, b"here"))
    assert (before, exchange.awaiting) == (True, False)
    assert [outcome.errno for outcome in exchange.outcomes] == [errno.EPERM, 0]
    assert list(exchange.outcomes[1].bodies) == [b"here"]


def test_an_object_that_is_not_there_is_an_error_of_its_request() -> None:
    exchange = Exchange([look()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(ack(1, errno.ENODEV))
    assert (exchange.awaiting, exchange.outcomes[0].errno) == (False, errno.ENODEV)


def test_a_dump_that_is_torn_every_time_fails_in_the_end() -> None:
    exchange = Exchange([dump()], ROOMY)
    attempts = 0
    while (chunk := exchange.next_chunk(attempts + 1)) is not None:
        attempts += 1
        (number,) = unpack_from("=I", chunk, 8)
        exchange.feed(reply(NLMSG_DONE, number, pack("=i", 0), NLM_F_DUMP_INTR))
    assert attempts == DUMP_ATTEMPTS
    assert exchange.outcomes[0].errno == errno.EAGAIN


def test_after_an_overrun_what_was_answered_counts_and_the_rest_is_lost() -> None:
    exchange = Exchange([setting(), setting(), setting()], ROOMY)
    exchange.next_chunk(1)
    exchange.feed(ack(1, errno.ENODEV))
    assert sent(bytearray(exchange.barrier(9))) == [(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 9)]
    exchange.feed(ack(9))
    exchange.lost()
    assert exchange.outcomes == [Outcome(errno.ENODEV), LOST, LOST]
    assert not exchange.awaiting


def test_an_acknowledgement_too_short_for_its_number_is_malformed() -> None:
    exchange = Exchange([setting()], ROOMY)
    exchange.next_chunk(1)
    with pytest.raises(Malformed):
        exchange.feed(reply(NLMSG_ERROR, 1, b"\0"))


pieces = st.tuples(
    st.sampled_from([NLMSG_ERROR, NLMSG_DONE, NLMSG_NOOP, RTM_NEWLINK]),
    st.sampled_from([0, NLM_F_DUMP_INTR, NLM_F_ACK_TLVS, NLM_F_CAPPED | NLM_F_ACK_TLVS]),
    st.integers(0, 6),
    st.binary(max_size=40),
)


@given(
    st.lists(st.sampled_from(["set", "get", "dump"]), min_size=1, max_size=4),
    st.lists(st.tuples(st.lists(pieces, max_size=3), st.none() | st.integers(0, 100)), max_size=8),
    st.booleans(),
)
def test_whatever_is_received_each_request_has_an_outcome_in_the_end(
    kinds: list[str], datagrams: list[tuple[list[tuple[int, int, int, bytes]], int | None]], cut: bool
) -> None:
    """Nothing but Malformed is raised, and spoilt questions are repeated no more than a few times."""
    requests = [{"set": setting, "get": look, "dump": dump}[kind]() for kind in kinds]
    exchange = Exchange(requests, ROOMY)
    waiting = iter(datagrams)
    rounds = sequence = 0
    while exchange.next_chunk(sequence) is not None:
        rounds += 1
        assert rounds < 100
        for parts, length in waiting:
            datagram = b"".join(reply(kind, sequence + at, body, flags) for kind, flags, at, body in parts)
            try:
                exchange.feed(datagram[:length])
            except Malformed:
                assert exchange.spoilt
            if not exchange.awaiting:
                break
        if exchange.awaiting:
            exchange.received() if cut else exchange.garbled()
        sequence += len(requests) + 1
    assert UNSENT not in exchange.outcomes
