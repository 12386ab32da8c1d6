"""Layouts: reading a message by a learnt layout has the same result as reading it attribute by attribute."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib._nl import layout
from vethlib._nl.layout import Differing, Layouts
from vethlib._nl.wire import attribute, attributes
from vethlib._nl.wire import message as whole
from vethlib.errors import Malformed

FORMS = {3: "s", 4: "I", 16: "B", 20: "s"}
SIZES = {4: 4, 16: 1}

some_attributes = st.lists(
    st.tuples(st.sampled_from([3, 4, 5, 16, 20, 99]), st.binary(max_size=6) | st.binary(min_size=30, max_size=70)),
    max_size=6,
    unique_by=lambda one: one[0],
)


def long_way(body: bytes) -> list[bytes | int | None]:
    found: dict[int, bytes | int] = {}
    for kind, start, end in attributes(body, 4, len(body)):
        payload = body[start:end]
        if kind in SIZES and len(payload) == SIZES[kind]:
            found[kind] = int.from_bytes(payload, "little")
        elif kind in FORMS and kind not in SIZES:
            found[kind] = payload
    return [found.get(kind) for kind in FORMS]


@given(st.lists(some_attributes, max_size=12))
def test_whatever_was_learnt_before_every_message_is_read_right(
    messages: list[list[tuple[int, bytes]]],
) -> None:
    layouts = Layouts("=4x", FORMS)
    for message in messages:
        body = b"head" + b"".join(attribute(kind, payload) for kind, payload in message)
        assert list(layouts.read(body)) == long_way(body)


NESTED = {3: "s", (26, 10, 2): "4xI+", 20: "s", (26, 10, 4): "I"}
leaves = st.binary(max_size=12)
nests = st.recursive(
    leaves,
    lambda inner: st.lists(st.tuples(st.sampled_from([2, 3, 4, 10, 26]), inner), max_size=4).map(
        lambda found: b"".join(attribute(kind, payload) for kind, payload in found)
    ),
    max_leaves=8,
)


def nested_long_way(body: bytes) -> list[bytes | int | None]:
    found: dict[object, bytes | int] = {}

    def walk(start: int, end: int, path: tuple[int, ...]) -> None:
        for kind, first, last in attributes(body, start, end):
            here = (*path, kind)
            if here in ((26,), (26, 10)) and is_chain(first, last):
                walk(first, last, here)
            elif here in ((26, 10, 2), (26, 10, 4)) and (last - first >= 8 if kind == 2 else last - first == 4):
                at = first + (4 if kind == 2 else 0)
                found.setdefault(here, int.from_bytes(body[at : at + 4], "little"))
            elif here in ((3,), (20,)):
                found.setdefault(kind, body[first:last])

    def is_chain(start: int, end: int) -> bool:
        try:
            ends = [last for _, _, last in attributes(body, start, end)]
        except Malformed:
            return False
        return bool(ends) and (end - start) % 4 == 0 and -(-ends[-1] // 4) * 4 == end

    walk(4, len(body), ())
    return [found.get(key) for key in NESTED]


@given(st.lists(st.lists(st.tuples(st.sampled_from([3, 20, 26, 99]), nests), max_size=4), max_size=8))
def test_what_is_in_nests_is_read_alike_whatever_was_learnt_and_however_they_are_broken(
    messages: list[list[tuple[int, bytes]]],
) -> None:
    layouts = Layouts("=4x", NESTED)
    for message in messages:
        body = b"head" + b"".join(attribute(kind, payload) for kind, payload in message)
        assert [list(layouts.read(body)) for _ in range(3)] == [nested_long_way(body)] * 3


def test_messages_of_one_length_and_different_attributes_are_told_apart() -> None:
    layouts = Layouts("=4x", FORMS)
    one = b"head" + attribute(3, b"abcd") + attribute(4, b"\1\0\0\0")
    other = b"head" + attribute(3, b"abcd") + attribute(5, b"\1\0\0\0")
    assert layouts.read(one) == (b"abcd", 1, None, None)
    assert layouts.read(other) == (b"abcd", None, None, None)
    assert layouts.read(one) == (b"abcd", 1, None, None)


def test_of_several_attributes_of_a_type_the_first_counts_however_often_the_message_comes() -> None:
    layouts = Layouts("=4x", FORMS)
    body = b"head" + b"".join(attribute(kind, bytes([kind] * 4)) for kind in (3, 4, 4, 3, 20, 20, 4))
    assert [layouts.read(body) for _ in range(5)] == [(b"\3" * 4, 0x04040404, None, b"\x14" * 4)] * 5


def test_layouts_without_end_are_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither if each message has another layout, nor if two of one length alternate; learning takes 60 µs or more."""
    learnt: list[bytes] = []

    class Counting(layout.Layout):
        def __init__(self, body: bytes, *rest: Any) -> None:
            learnt.append(body)
            super().__init__(body, *rest)

    monkeypatch.setattr(layout, "Layout", Counting)
    layouts = Layouts("=4x", {3: "s", 20: "s"})
    for size in range(3 * layout._MOST):
        layouts.read(b"head" + attribute(3, b"eth0") + attribute(20, bytes(4 * size)))
    assert learnt == []
    turns = [b"head" + attribute(3, b"abcd") + attribute(kind, b"abcd") for kind in (20, 21)]
    for number in range(1000):
        assert layouts.read(turns[number % 2])[1] == (None if number % 2 else b"abcd")
    assert len(learnt) <= 10


def test_messages_of_one_length_that_differ_only_in_the_padding_of_an_attribute_are_all_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the links of an agent do, whose aliases contain the names of interfaces."""
    layouts = Layouts("=4x", {3: "s", 20: "s", 4: "I"})
    aliases = [b"a", b"ab", b"abc", b"abcd"]
    bodies = [b"head" + attribute(3, b"eth0") + attribute(20, alias) + attribute(4, b"\1\0\0\0") for alias in aliases]
    assert len({len(body) for body in bodies}) == 1

    def read_all() -> None:
        for alias, body in zip(aliases, bodies, strict=True):
            assert layouts.read(body) == (b"eth0", alias, 1)

    for _ in range(16):
        read_all()
    monkeypatch.delattr(Layouts, "_read_long_way")
    read_all()


def test_what_comes_again_is_learnt_unless_it_is_long() -> None:
    layouts = Layouts("=4x", {3: "s", 20: "s"})
    for size in (10, 2000, 5000, 70_000):
        body = b"head" + attribute(3, b"abcd") + attribute(20, bytes(min(size, 60_000))) * (1 + size // 60_000)
        assert layouts.read(body) == layouts.read(body) == layouts.read(body) == (b"abcd", bytes(min(size, 60_000)))
    assert len(layouts._known) == 2


def test_a_message_shorter_than_its_family_is_malformed() -> None:
    with pytest.raises(Malformed):
        Layouts("=4x", FORMS).read(b"hea")


def test_a_message_without_attributes_has_none() -> None:
    assert Layouts("=4x", FORMS).read(b"head") == (None, None, None, None)


def test_the_memory_for_layouts_is_bounded() -> None:
    layouts = Layouts("=4x", {3: "s", 20: "s"})
    for size in range(3 * layout._MOST):
        assert layouts.read(b"head" + attribute(20, bytes(size)))[1] == bytes(size)
    assert len(layouts._known) <= layout._MOST


def test_messages_are_not_read_on_by_the_layout_of_another_message() -> None:
    layouts = Layouts("=4xi", {3: "s", 4: "I"}, Differing(4, (3,), ()))
    usual = bytes(8) + attribute(3, b"abcd") + attribute(4, bytes(4))
    other = bytes(8) + attribute(4, bytes(4)) + attribute(3, b"abcd")
    for body, read in ((usual, [(0,) * 3, (b"abcd",) * 3]), (other, [])):
        layouts.read(usual), layouts.read(usual)
        layouts.read(body)  # its layout is not learnt yet
        size = len(whole(16, 0, body))
        assert layouts.read_alike(4 * whole(16, 0, body), 0, size) == read
