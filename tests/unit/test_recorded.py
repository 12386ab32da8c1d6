"""The record of built pairs: the meaning of its lines, and arbitrary other content."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent import Mark
from vethlib.agent.planning.recorded import PairRecord, RecordedEnd, RecordedPair

A = RecordedEnd("a", (4, 11), 101, 5, "eth0", "02:00:00:00:00:0a", True, "netns:blue")
B = RecordedEnd("b", (4, 12), 102, 7, "b", "02:00:00:00:00:0b", False, "pid:42")
PAIR = RecordedPair(A, B)


def lines(record: PairRecord) -> list[str]:
    return list(record.lines())


def test_a_pair_is_found_by_either_end_and_by_either_name() -> None:
    record = PairRecord()
    record.add(PAIR)
    assert record.at(A.id) == (A, B)
    assert record.at(B.id) == (B, A)
    assert [*record.of("a")] == [*record.of("b")] == [*record] == [PAIR]
    assert len(record) == 1
    assert record.at(((4, 11), 6)) is None
    assert A.mark("vpp1") == Mark("vpp1", "a", True)
    assert replace(A, name="").mark("vpp1") is None


def test_what_is_written_is_read_again() -> None:
    record, other = PairRecord(), PairRecord(adopts=False)
    facts = [record.add(PAIR)]
    facts.append(record.intend(RecordedPair(replace(A, name="ä\n", index=0), replace(B, name="d", index=0))))
    assert all(fact.endswith("\n") and fact.count("\n") == 1 for fact in facts)
    other.read(facts)
    assert lines(other) == lines(record) == facts
    assert [*other.intents()] == [*record.intents()]


def test_what_is_there_takes_the_place_of_what_was_to_be_and_of_what_was_there() -> None:
    record = PairRecord()
    record.intend(RecordedPair(replace(A, index=0), replace(B, index=0)))
    record.add(PAIR)
    assert [*record.intents()] == []
    moved = RecordedPair(A, replace(B, index=8, name="c"))
    record.add(moved)
    assert [*record] == [moved]
    assert [*record.of("b")] == []
    assert record.at(B.id) is None
    assert record.forget(A.id) != ""
    assert record.forget(moved.b.id) == ""
    assert len(record) == 0
    assert [*record.of("a")] == []


@pytest.mark.parametrize("taken", [replace(A, name="c"), replace(A, mac="02:00:00:00:00:0c")])
def test_a_pair_is_known_by_the_end_that_no_other_pair_was_found_at(taken: RecordedEnd) -> None:
    record = PairRecord()
    record.add(PAIR)
    other = RecordedPair(taken, replace(B, name="d", index=8))
    record.add(other)
    again = PairRecord(adopts=False)
    again.read(lines(record))
    for known in (record, again):
        assert [*known] == [PAIR, other]
        assert known.at(A.id) == (other.a, other.b)
        assert known.at(B.id) == (B, A)
        assert [*known.of("b")] == [PAIR]
        assert known.ends_of(next(iter(known))) == [B]
    record.add(RecordedPair(replace(A, index=9), B))
    assert [pair.a.index for pair in record] == [A.index, 9]
    assert record.forget(B.id) != ""
    assert [*record] == [other]
    assert [*record.of("b")] == []


def test_of_pairs_that_were_not_found_the_last_ones_are_remembered() -> None:
    record = PairRecord()
    for number in range(1000):
        pair = RecordedPair(replace(A, name=f"a{number}", index=number), replace(B, name=f"b{number}", index=number))
        record.add(pair)
        assert bool([*record.lose(pair)]) == (number >= 512)
    assert len(record) == 512
    assert [*record.of("a999")] != []
    assert [*record.of("a487")] == []


def test_a_pair_that_was_found_again_is_no_lost_one() -> None:
    record = PairRecord()
    record.add(PAIR)
    for number in range(100, 600):
        assert [*record.lose(PAIR)] == []
        record.add(PAIR)
        other = RecordedPair(replace(A, name=f"a{number}", index=number), replace(B, name=f"b{number}", index=number))
        record.add(other)
        assert [*record.lose(other)] == []
    assert len(record) == 501


def test_an_intent_that_came_to_nothing_is_forgotten() -> None:
    record = PairRecord()
    fact = record.intend(RecordedPair(replace(A, index=0), replace(B, index=0)))
    record.read([fact, record.void(frozenset("ab"))])
    assert [*record.intents()] == []
    assert record.void(frozenset("ab")) == ""


def test_more_than_is_known_may_follow_in_a_line() -> None:
    record = PairRecord()
    record.read([json.dumps(["pair", [*A._line(), {"given": ["10.0.0.1/24"]}], [*B._line(), 1], "more"]) + "\n"])
    assert [*record] == [PAIR]


@pytest.mark.parametrize(
    "line",
    ["", "\n", "null", "[]", "{}", '"pair"', "[1]", '["pair"]', '["pair",[],[]]', '["gone"]', '["gone",[1],2]',
     "[[", "\0", '["pair",["a",[4,11,1],"x","","",0,""],["b",[4,12,1],1,"","",0,""]]', '["new",1]', "[" * 100_000],
)  # fmt: skip
def test_a_line_that_is_not_understood_is_passed_over(line: str) -> None:
    record = PairRecord()
    record.read([record.add(PAIR), line, record.add(RecordedPair(replace(A, index=6), replace(B, index=9)))])
    assert len(record) == 2


@given(st.lists(st.text(max_size=60) | st.sampled_from([json.dumps(["pair", A._line(), B._line()])]), max_size=5))
def test_no_text_is_too_odd(texts: list[str]) -> None:
    PairRecord().read(texts)


def test_a_pair_that_is_where_it_was_is_no_lost_one() -> None:
    record = PairRecord()
    pairs = [
        RecordedPair(replace(A, name=f"a{number}", index=number), replace(B, name=f"b{number}", index=number))
        for number in range(1, 601)
    ]
    for pair in pairs:
        record.add(pair)
    for pair in pairs:
        assert [*record.lose(pair)] == []
        record.find(pair.b.id)
    assert len(record) == 600
    record.find(((9, 9), 9))
