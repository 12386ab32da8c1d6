"""Parts of a dump without any of the marks are not divided into messages; the others are read as without marks."""

from __future__ import annotations

import errno
from struct import pack
from typing import Any

import pytest

from vethlib._nl import direct
from vethlib._nl.batch import Outcome
from vethlib._nl.const import NLM_F_DUMP_INTR, NLMSG_DONE, RTM_NEWROUTE

NUMBER = 7
MARK = b"\x08\x00\x07\x00\x0a\x00\x00\x01"
OTHER = b"\x08\x00\x07\x00\x0a\x00\x00\x02"
PLAIN = b"a route of 24 bytes     "


def one_message(body: bytes, kind: int = RTM_NEWROUTE, flags: int = 2) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, NUMBER, 42) + body


END = one_message(bytes(4), NLMSG_DONE)
PART = 5 * one_message(PLAIN)


class Answered:
    """A socket that answers a dump with these datagrams."""

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = datagrams.copy()

    def send(self, request: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self._datagrams.pop(0)

    def recv_into(self, buffer: bytearray, size: int, flags: int) -> int:
        return len(self._datagrams[0])


def dumped(*datagrams: bytes, marks: tuple[bytes, ...] = (MARK, OTHER), most: int | None = None) -> Outcome:
    answered: Any = Answered(list(datagrams))
    outcome = direct.dump(answered, NUMBER, bytes(16), bytes, None, most, marks)
    assert outcome is not None
    return outcome


def test_a_part_without_a_mark_is_passed_over() -> None:
    assert list(dumped(PART, PART, END).bodies) == []


@pytest.mark.parametrize("mark", [MARK, OTHER])
def test_a_part_with_a_mark_is_read_as_a_whole(mark: bytes) -> None:
    marked = one_message(PLAIN) + one_message(PLAIN + mark) + one_message(PLAIN)
    assert list(dumped(PART, marked, PART, END).bodies) == [PLAIN, PLAIN + mark, PLAIN]


def test_without_marks_all_are_read() -> None:
    assert list(dumped(PART, PART, END, marks=()).bodies) == 10 * [PLAIN]


def test_a_dump_can_end_in_a_part_without_a_mark() -> None:
    assert dumped(PART, PART + END).errno == 0


def test_an_error_at_the_end_is_reported() -> None:
    assert dumped(PART, PART + one_message(pack("=i", -errno.ENODEV), NLMSG_DONE)).errno == errno.ENODEV


@pytest.mark.parametrize("position", [0, 2, 5])
def test_a_dump_is_torn_wherever_that_is_noted(position: int) -> None:
    flag = 2 | NLM_F_DUMP_INTR
    torn = position * one_message(PLAIN) + one_message(PLAIN, flags=flag) + (5 - position) * one_message(PLAIN)
    assert dumped(PART, torn, PART, END).errno == errno.EAGAIN
    assert dumped(PART, 3 * one_message(PLAIN, flags=flag), PART, END).errno == errno.EAGAIN


def test_a_route_that_looks_like_the_header_of_others_hides_no_end() -> None:
    forged = one_message(PLAIN + one_message(b"")[4:16])
    assert dumped(PART, forged + END).errno == 0


@pytest.mark.parametrize(("plain", "marked"), [(0, 16), (128, 0), (64, 8)])
def test_an_eighth_of_those_that_are_passed_over_counts_for_the_limit(plain: int, marked: int) -> None:
    parts = [one_message(PLAIN + MARK)] * marked + [8 * one_message(PLAIN)] * (plain // 8)
    assert dumped(*parts, END, most=16).errno == 0
    assert dumped(*parts, END, most=15).errno == errno.EFBIG


def test_a_part_of_another_dump_is_not_passed_over() -> None:
    stale: Any = Answered([pack("=IHHII", 16 + len(PLAIN), RTM_NEWROUTE, 2, NUMBER - 1, 42) + PLAIN, END])
    assert direct.dump(stale, NUMBER, bytes(16), bytes, None, None, (MARK,)) is None
