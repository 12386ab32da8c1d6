"""The text form of a wire's delay, loss and so on, the times at which packets leave, and the messages for netem."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib._nl.const import RTM_DELQDISC, RTM_NEWQDISC
from vethlib._nl.dependents.netem import Netem, delete_root, parse_netem, set_netem
from vethlib._nl.wire import messages
from vethlib.errors import InvalidValue, Malformed
from vethlib.topology.design.description import Description, Member, Port, Wire
from vethlib.topology.design.impairment import Impairment
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.text import parse
from vethlib.topology.impair.program import Direction

MS = 1_000_000


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("delay", "20ms", 0.02),
        ("delay", "150us", 0.00015),
        ("delay", "1.5s", 1.5),
        ("delay", 0.02, 0.02),
        ("delay", "0", 0.0),
        ("loss", "1%", 0.01),
        ("loss", "100%", 1.0),
        ("loss", ".5%", 0.005),
        ("loss", 0.25, 0.25),
        ("duplicate", "3%", 0.03),
        ("rate", "10mbit", 10_000_000),
        ("rate", "1.5gbit", 1_500_000_000),
        ("rate", 64_000, 64_000),
        ("limit", "50", 50),
        ("limit", 50, 50),
    ],
)
def test_values_are_texts_with_units_or_numbers(name: str, text: Any, value: float) -> None:
    assert getattr(Impairment.of(**{name: text}), name) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "cure"),
    [("delay=20", "delay=20ms"), ("loss=0.5", "loss=1%"), ("rate=1000000", "rate=10mbit")],
)
def test_a_number_without_a_unit_in_a_text_is_told_to_need_one(text: str, cure: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        parse(f"a -- b {text}")
    assert str(wrong.value).endswith(f"'{text.partition('=')[2]}': as text, needs a unit, as in {cure}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay", "20"),
        ("delay", "20m"),
        ("delay", "-1ms"),
        ("delay", "2h"),
        ("delay", -1),
        ("delay", True),
        ("delay", None),
        ("delay", float("nan")),
        ("delay", float("inf")),
        pytest.param("delay", 10**400, id="delay-huge"),
        ("loss", "1"),
        ("loss", "101%"),
        ("loss", 1.1),
        ("rate", "10MB"),
        ("rate", 7),
        ("rate", "99999gbit"),
        ("limit", 0),
        ("limit", "many"),
        ("limit", 1.5),
        ("jitter", "1ms"),
        ("reorder", "1%"),
        ("corrupt", "1%"),
    ],
)
def test_an_impossible_value_names_its_field(name: str, value: object) -> None:
    with pytest.raises(InvalidValue) as wrong:
        Impairment.of(**{name: value})
    assert wrong.value.field == name


@given(
    st.builds(
        Impairment,
        delay=st.floats(1e-6, 60).map(lambda seconds: round(seconds, 6)),
        jitter=st.floats(0, 60).map(lambda seconds: round(seconds, 6)),
        loss=st.integers(0, 1000).map(lambda thousandth: thousandth / 1000),
        rate=st.integers(8, 10**10),
        limit=st.integers(1, 10**6),
    )
)
def test_the_text_of_an_impairment_means_the_same(impairment: Impairment) -> None:
    again = Impairment.of(**dict(part.split("=") for part in str(impairment).split()))
    assert again.delay == pytest.approx(impairment.delay, abs=1e-9)
    assert again.jitter == pytest.approx(impairment.jitter, abs=1e-9)
    assert again.loss == pytest.approx(impairment.loss)
    assert (again.rate, again.limit) == (impairment.rate, impairment.limit)


def test_attributes_of_a_statement_apply_to_both_directions_or_to_each() -> None:
    (wire,) = parse("a -- b mtu=1400 delay=20ms/5ms loss=1%").wires
    there, back = Impairment.of(delay="20ms", loss="1%"), Impairment.of(delay="5ms", loss="1%")
    assert wire == Wire(Port("a"), Port("b"), mtu=1400, a_to_b=there, b_to_a=back)
    assert (wire.seen_from("b").a_to_b, wire.seen_from("b").b_to_a) == (wire.b_to_a, wire.a_to_b)
    first, second = parse("a -- b -- c rate=10mbit").wires
    assert first.a_to_b == second.b_to_a == Impairment.of(rate="10mbit")
    (plain,) = parse("a -- b").wires
    assert (plain.a_to_b, plain.b_to_a) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "a -- b delay=20",
        "a -- b delay=20ms/",
        "a -- b delay=/20ms",
        "a -- b delay=1ms/2ms/3ms",
        "a -- b delay=1ms delay=2ms",
        "a -- b jitter=1ms",
        "a -- b delay=1ms/0 jitter=1ms",
        "a -- b colour=red",
    ],
)
def test_a_wrong_attribute_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        parse(f"x -- y\n{text}")
    assert (wrong.value.field, wrong.value.value) == ("topology", text)
    assert wrong.value.hint.startswith("line 2: ")


def test_a_layout_keeps_and_checks_the_impairment() -> None:
    members = (Member("a"), Member("b"))
    impairment = Impairment.of(delay="20ms")
    assert lay_out(Description(members, (Wire(Port("a"), Port("b"), b_to_a=impairment),))).wires[0].b_to_a == impairment
    for bad in (Impairment(loss=2.0), Impairment(jitter=1.0), "delay=20ms"):
        with pytest.raises(InvalidValue):
            lay_out(Description(members, (Wire(Port("a"), Port("b"), a_to_b=bad),)))  # type: ignore[arg-type]


class Chances:
    """Random numbers that are known in advance."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self) -> float:
        return self.values.pop(0)


def direction(*chances: float, **values: float) -> Direction:
    made = Direction(Chances(*chances))
    made.change(values)
    return made


@pytest.mark.parametrize(
    "values",
    [
        {"delay": "20ms"},
        {"delay": "20ms", "jitter": "3ms", "reorder": "25%"},
        {"loss": "1%", "duplicate": "2%"},
        {"rate": "10mbit"},
        {"rate": 1e6},
        {"limit": "50"},
    ],
)
@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_texts_in_an_impairment_are_numbers_in_the_layout(values: dict[str, Any], direction: str) -> None:
    impaired: dict[str, Any] = {direction: Impairment(**values)}
    wire = Wire(Port("a"), Port("b"), **impaired)
    (laid_out,) = lay_out(Description((Member("a"), Member("b")), (wire,))).wires
    impairment = getattr(laid_out, direction)
    assert impairment == Impairment.of(**values)
    assert {name: type(getattr(impairment, name)) for name in values} == {
        name: int if name in ("rate", "limit") else float for name in values
    }


def test_a_packet_leaves_at_once_unless_something_is_asked_for() -> None:
    assert direction().admit(5, 100) == [5]


def test_a_packet_is_delayed_with_jitter_in_both_directions() -> None:
    assert direction(delay=0.02).admit(0, 100) == [20 * MS]
    assert direction(0.0, 1.0, delay=0.02, jitter=0.003).admit(0, 100) == [17 * MS]
    assert direction(1.0, delay=0.02, jitter=0.003).admit(0, 100) == [23 * MS]
    assert direction(0.0, delay=0.001, jitter=0.003).admit(0, 100) == [0]


def test_a_packet_is_lost_or_duplicated_by_chance() -> None:
    assert direction(0.09, loss=0.1).admit(0, 1) == []
    assert direction(0.1, loss=0.1).admit(0, 1) == [0]
    assert direction(0.09, duplicate=0.1).admit(0, 1) == [0, 0]
    assert direction(0.09, 0.09, duplicate=0.1, loss=0.1).admit(0, 1) == [0]


def test_a_packet_overtakes_by_chance() -> None:
    assert direction(0.1, delay=0.02, reorder=0.25).admit(7, 1) == [7]
    assert direction(0.3, delay=0.02, reorder=0.25).admit(7, 1) == [7 + 20 * MS]


def test_a_rate_spaces_packets_and_the_delay_of_those_that_wait_has_begun() -> None:
    slow = direction(rate=8_000, delay=0.5)  # a byte per millisecond
    assert slow.admit(0, 100) == [600 * MS]
    assert slow.admit(0, 100) == [700 * MS]
    assert slow.admit(650 * MS, 100) == [650 * MS + 600 * MS]


def test_more_than_the_limit_does_not_wait() -> None:
    full = direction(limit=2, delay=1)
    assert [len(full.admit(0, 1)) for _ in range(4)] == [1, 1, 0, 0]
    full.waiting -= 1
    assert len(full.admit(0, 1)) == 1


def test_losses_are_as_frequent_as_they_should_be() -> None:
    lossy = Direction(random.Random(7).random)
    lossy.change({"loss": 0.1, "limit": 10**6})
    arrived = sum(len(lossy.admit(0, 1)) for _ in range(20_000))
    assert 17_700 < arrived < 18_300


@given(
    st.builds(
        Netem,
        latency=st.integers(0, 2**40),
        jitter=st.integers(0, 2**40),
        loss=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
        duplicate=st.sampled_from([0.0, 0.3, 1.0]),
        reorder=st.sampled_from([0.0, 0.25]),
        rate=st.integers(0, 2**40),
        limit=st.integers(1, 2**31),
    ),
    st.integers(1, 2**31 - 1),
)
def test_what_is_sent_to_netem_is_read_back(netem: Netem, index: int) -> None:
    request = set_netem(index, netem)
    ((kind, _flags, _sequence, start, end),) = messages(request)
    assert kind == RTM_NEWQDISC
    read = parse_netem(request[start:end], index)
    assert read is not None
    assert read._replace(loss=0, duplicate=0, reorder=0) == netem._replace(loss=0, duplicate=0, reorder=0)
    assert (read.loss, read.duplicate, read.reorder) == pytest.approx((netem.loss, netem.duplicate, netem.reorder))
    assert parse_netem(request[start:end], index + 1) is None


def test_other_disciplines_are_not_netem_and_broken_ones_are_malformed() -> None:
    request = delete_root(3)
    ((kind, _flags, _sequence, start, end),) = messages(request)
    assert (kind, parse_netem(request[start:end], 3)) == (RTM_DELQDISC, None)
    with pytest.raises(Malformed):
        parse_netem(b"short", 3)
    whole = set_netem(3, Netem())[16:]
    with pytest.raises(Malformed):
        parse_netem(whole[: 20 + 12] + b"\x08\0\x02\0\0\0\0\0", 3)
