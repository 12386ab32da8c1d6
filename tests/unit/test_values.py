"""What others write into a store: any value ends as an interface or as INVALID, in time and space for its size."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proportion import is_proportional
from vethlib.agent import Interface, InvalidInterface, Namespace, Parsed, load, read, read_one
from vethlib.agent.config import jsontext, northbound
from vethlib.agent.config.model import MoreProblems
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.contents import Contents
from vethlib.agent.stores.etcd.reading import prefix_of, read_key
from vethlib.errors import InvalidValue
from vethlib.links import End, check_addresses

GOOD: dict[str, Any] = {"name": "a", "veth": {"peer_if_name": "b"}}
PREFIX = prefix_of("here")


def read_fields(limits: Limits = DEFAULT, /, **fields: Any) -> Parsed:
    (parsed,) = read(json.dumps(GOOD | fields), "a.json", limits=limits)
    return parsed


def fields_of(parsed: Parsed) -> list[str]:
    assert parsed.interface is None
    return [problem.field for problem in parsed.problems]


def words_of(parsed: Parsed) -> str:
    """All that a status, which anybody may read, has of a value."""
    return " ".join([parsed.name, *(problem.public for problem in parsed.problems), *parsed.warnings])


# --- numbers


NUMBERS = [1 << 32, (1 << 32) + 1, 1 << 31, 1 << 63, 1 << 64, -1, -(1 << 32), 1e400, 0.5, True, "1" * 5000, [], {}]


@pytest.mark.parametrize("number", NUMBERS, ids=[str(number)[:30] for number in NUMBERS])
@pytest.mark.parametrize("field", ["type", "namespace.type", "namespace.pid", "mtu", "num_queues"])
def test_no_number_is_taken_for_another(field: str, number: Any) -> None:
    outer, _, inner = field.partition(".")
    assert fields_of(read_fields(**{outer: {inner: number} if inner else number})) == [field]


@pytest.mark.parametrize("digits", ["9" * 5000, "-" + "9" * 5000, "1" + "0" * 400, "4294967296", "-1", "NaN", "1e400"])
@pytest.mark.parametrize("field", ["type", "mtu", "num_queues"])
def test_digits_of_any_number_make_a_problem_of_that_field(field: str, digits: str) -> None:
    (parsed,) = read(f'{{"name": "a", "veth": {{"peer_if_name": "b"}}, "{field}": {digits}}}')
    assert fields_of(parsed) == [field]


def test_nought_may_have_a_sign() -> None:
    assert read_fields(mtu=-0.0).interface == read_fields().interface
    assert read('{"name": "a", "veth": {"peer_if_name": "b"}, "type": -0}')[0].interface is not None


@pytest.mark.parametrize("kind", [1 << 32, 2.0, None, "NAMED_NS", [2], {}, True + 3])
def test_a_namespace_made_by_a_program_is_of_a_type_that_there_is(kind: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        Namespace(kind, name="x")
    assert refused.value.field == "namespace.type"


@pytest.mark.parametrize("fields", [{"type": [0]}, {"type": 0.0}, {"ip_addresses": 5}, {"ip_addresses": "10.0.0.1/24"}])
def test_an_interface_made_by_a_program_names_the_field_of_another_type(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInterface) as refused:
        Interface("a", "b", **fields)
    assert [problem.field for problem in refused.value.problems] == list(fields)


def test_a_message_can_be_made_of_any_value() -> None:
    circle: list[Any] = []
    circle.append(circle)

    class Silent:
        def __repr__(self) -> str:
            raise ValueError

    for value in (10**5000, circle, Silent(), "x" * 10_000_000, ["y" * 1000] * 1000, b"\0" * 1000):
        assert len(str(InvalidValue("field", value, "hint"))) < 2000


# --- sizes


def test_what_is_beyond_a_limit_is_refused_and_what_is_not_is_read() -> None:
    limits = Limits(value_bytes=2000, file_bytes=6000, json_values=200, interfaces_per_file=3, addresses=2, queues=4)
    assert read_fields(limits, num_queues=4, ip_addresses=["10.0.0.1/24", "10.0.0.2/24"]).interface is not None
    assert fields_of(read_fields(limits, num_queues=5)) == ["num_queues"]
    assert fields_of(read_fields(limits, ip_addresses=["10.0.0.1/24"] * 3)) == ["ip_addresses"]
    assert fields_of(read_fields(limits, description="x" * 2000)) == ["interface"]
    long = GOOD | {"description": "x" * 2500}
    first, second = read(json.dumps([GOOD, long | {"name": "b"}]), limits=limits)
    assert first.interface is not None
    assert (fields_of(second), second.name) == (["interface"], "b")
    assert fields_of(read(json.dumps([{}] * 4), limits=limits)[0]) == ["file"]
    assert len(read(json.dumps([{}] * 3), limits=limits)) == 3
    for text in (
        " " * 6001,
        json.dumps([[]] * 201),
        "[" * 201,
        '{"a":' * 201,
        json.dumps({str(n): n for n in range(201)}),
    ):
        for raw in (text, text.encode()):
            (parsed,) = read(raw, limits=limits)
            assert isinstance(parsed.problems[0], jsontext.Undecodable)
    parsed = read_one(b"x" * 2001, "key", name="a", limits=limits)
    assert (parsed.name, fields_of(parsed)) == ("a", ["interface"])


@pytest.mark.parametrize("key", ["ip_addresses", "ipAddresses"])
def test_the_interfaces_of_a_file_have_so_many_addresses_together_and_those_beyond_are_refused(key: str) -> None:
    """Each address takes time, however many interfaces they are shared out among."""
    counts = [2, 2, 2, 1, 0, 1]
    listed = [
        GOOD | {"name": f"a{at}", key: [f"10.{at}.0.{one}/24" for one in range(count)]}
        for at, count in enumerate(counts)
    ]
    found = read(json.dumps(listed), limits=Limits(addresses_per_file=5))
    refused = {at: fields_of(one) for at, one in enumerate(found) if one.interface is None}
    assert refused == {2: ["ip_addresses"], 5: ["ip_addresses"]}
    assert [one.name for one in found] == [f"a{at}" for at in range(6)]
    assert all(one.interface is not None for one in read(json.dumps(listed)))


@pytest.mark.parametrize(
    "fields",
    [
        {"ip_addresses": ["x"] * 4000},
        {"ip_addresses": [7] * 4000},
        {f"key{number}": number for number in range(4000)},
        {"namespace": {f"key{number}": number for number in range(4000)}},
        {"k" * 1_000_000: 1},
        {"description": "\x1b" * 1_000_000},
        {"name": "x" * 1_000_000},
        {"namespace": {"type": 2, "name": "x" * 1_000_000}},
        {"namespace": {"type": 3, "filepath": "/" + "x" * 1_000_000}},
        {"namespace": {"type": 1, "microservice": "x" * 1_000_000}},
        {"ip_addresses": ["1" * 1_000_000], "phys_address": "2" * 1_000_000, "host_if_name": "3" * 1_000_000},
    ],
    ids=lambda fields: next(iter(fields))[:20],
)
def test_no_value_makes_a_long_reason(fields: dict[str, Any]) -> None:
    parsed = read_fields(Limits(value_bytes=16 << 20, problems=5), **fields)
    assert parsed.interface is None
    assert len(parsed.problems) <= 6
    assert len(words_of(parsed)) < 20_000
    assert sum(len(str(problem)) for problem in parsed.problems) < 20_000


def test_of_many_problems_a_few_are_listed_and_the_others_counted() -> None:
    parsed = read_fields(Limits(problems=5), ip_addresses=["x"] * 1000, mtu="many", foo=1)
    assert fields_of(parsed)[:2] == ["mtu", "foo"] or fields_of(parsed)[:2] == ["foo", "mtu"]
    *listed, more = parsed.problems
    assert (len(listed), isinstance(more, MoreProblems), more.value) == (5, True, 997)
    with pytest.raises(InvalidInterface) as refused:
        Interface("a", "b", ip_addresses=["x"] * 1000)  # type: ignore[arg-type]
    assert refused.value.problems[-1].value == 1000 - (len(refused.value.problems) - 1)


BAD: dict[str, dict[str, Any]] = {
    "unknown keys": {f"k{number}": 0 for number in range(30)},
    "wrong types": GOOD | {"mtu": "many", "ip_addresses": [1] * 30},
    "what checks refuse": GOOD | {"host_if_name": "x/y", "mtu": 3, "ip_addresses": ["1.2.3"] * 30},
    "namespace": GOOD | {"description": "x" * 200, "namespace": {"type": 2, "name": "x/y"}},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_list_of_bad_elements_is_told_in_space_for_its_size(bad: dict[str, Any]) -> None:
    text = json.dumps([bad] * 500)
    read(text)
    gc.disable()  # an agent looks for cycles seldom: reading makes none
    tracemalloc.start()
    try:
        parsed = read(text)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(parsed) == 500
    assert all(one.problems for one in parsed)
    assert (kept < 15 * len(text), peak < 20 * len(text)) == (True, True), f"{kept} and {peak} for {len(text)}"


@pytest.mark.parametrize("read_it", [read, lambda text: [read_one(text, "key")]], ids=["file", "key"])
def test_a_text_that_is_not_json_is_not_kept_with_its_problem(read_it: Callable[[str], list[Parsed]]) -> None:
    text = json.dumps([GOOD] * 5000) + "!"
    read_it(text)
    tracemalloc.start()
    try:
        parsed = read_it(text[:-1] + "?")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "extra data" in str(parsed[0].problems[0])
    assert kept < len(text) / 4


def many_names(count: int) -> str:
    return json.dumps([GOOD | {"name": f"a{number}"} for number in range(count)])


def contents_of(text: str, *earlier: str) -> Contents:
    contents = Contents()
    for one in (*earlier, text):
        contents.put("x.json", read(one, "conf/x.json"))
        contents.settle()
    return contents


WORK: list[tuple[Callable[[int], object], int]] = [
    (lambda n: contents_of(json.dumps([1] * n)), 250),
    (lambda n: contents_of(json.dumps([1] * n), many_names(n)), 250),
    (lambda n: contents_of(json.dumps([{"name": "x y"}] * n)), 100),
    (lambda n: contents_of(json.dumps([GOOD] * n)), 200),
    (lambda n: read_fields(**{f"key{number}": number for number in range(n)}), 500),
    (lambda n: read_fields(**{"k" * 4000 * n: 1}), 10),
    (lambda n: read("{" + '"name": "a", ' * n + '"mtu": 1}'), 2000),
    (lambda n: read("[" * n), 2000),
    (lambda n: read('{"a":' * n), 2000),
    (lambda n: read('{"mtu": ' + "9" * n + "}"), 20_000),
    (lambda n: read('{"mtu": 1.' + "9" * n + "}"), 20_000),
    (lambda n: read_fields(ip_addresses=["1." * n]), 20_000),
    (lambda n: read_fields(ip_addresses=["1:" * n]), 20_000),
    (lambda n: check_addresses([f"10.{i >> 8}.{i & 255}.1/24" for i in range(n)]), 200),
    (lambda n: check_addresses([f"2001:db8::{i:x}/64" for i in range(n)]), 200),
]


@pytest.mark.parametrize(("work", "size"), WORK)
def test_time_is_in_proportion_to_size(work: Callable[[int], object], size: int) -> None:
    assert is_proportional(work, size)


def test_files_that_all_name_one_interface_are_told_in_time_for_their_size(tmp_path: Path) -> None:
    def twins(count: int) -> None:
        file = tmp_path / "twins.json"
        file.write_text(json.dumps([GOOD] * count))
        found = load([file])
        assert len(found.invalid) == count
        assert max(len(str(problem)) for one in found.invalid for problem in one.problems) < 2000

    assert is_proportional(twins, 300)


# --- text


CONTROLS = ["\x1b[31mX", "\n", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u2028", "\u200f", "\r", "\t", "\x07", "\ufeff"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_name_has_what_a_terminal_obeys(control: str) -> None:
    name = f"n{control}"
    assert fields_of(read_fields(name=name)) == ["name"]
    assert fields_of(read_fields(veth={"peer_if_name": name})) == ["veth.peer_if_name"]
    assert fields_of(read_fields(host_if_name=name)) == ["host_if_name"]
    assert fields_of(read_fields(namespace={"type": 1, "microservice": name})) == ["namespace.microservice"]
    assert fields_of(read_fields(namespace={"type": 2, "name": name})) == ["namespace.name"]
    assert fields_of(read_fields(namespace={"type": 3, "filepath": f"/{name}"})) == ["namespace.filepath"]
    with pytest.raises(InvalidValue):
        End(name)
    if control not in "\n\t":
        assert fields_of(read_fields(description=name)) == ["description"]


@pytest.mark.parametrize("text", [chr(0xD800), chr(0xDCFF), chr(0xDFFF) + chr(0xD800), "a\0b"], ids=ascii)
def test_no_text_is_one_that_cannot_be_sent(text: str) -> None:
    for fields in (
        {"name": text},
        {"description": text},
        {"host_if_name": text},
        {"phys_address": text},
        {"ip_addresses": [text]},
        {"veth": {"peer_if_name": text}},
        {"namespace": {"type": 2, "name": text}},
        {text: 1},
    ):
        parsed = read_fields(**fields)
        assert parsed.interface is None
        for problem in parsed.problems:
            str(problem).encode()


def test_a_description_may_have_lines_and_any_script() -> None:
    for text in ("one\n\ttwo", "می‌خواهم", "👩‍🔬", "à"):
        assert read_fields(description=text).interface is not None


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"password": SECRET}),
        json.dumps({"data": {"token": SECRET}, "namespace": {"secret": SECRET}}),
        json.dumps({"kind": [SECRET], "veth": {"key": {"inner": SECRET}}}),
        json.dumps([SECRET, [SECRET], {"x": SECRET}]),
        json.dumps(SECRET),
        f'{{"password": "{SECRET}", "password": "{SECRET}"}}',
        f'{{"password": "{SECRET}"',
        f'{{"password": {SECRET}}}',
        f'{{"password": "{SECRET}\\x"}}',
        f'"{SECRET}',
    ],
)
def test_nothing_of_a_file_that_is_not_ours_is_repeated(text: str) -> None:
    for raw in (text, text.encode(), text.encode() + b"\xff"):
        for parsed in [*read(raw, "x.json"), read_one(raw, "key", name="a")]:
            assert parsed.interface is None
            assert SECRET not in words_of(parsed)


# --- keys


def test_a_key_of_any_length_is_told_shortly_and_no_two_as_one() -> None:
    told = [read_key(PREFIX + end * 1_000_000, b"{}", PREFIX) for end in (b"x", b"y", b"\x1b", b"\xff")]
    told += [read_key(PREFIX + b"x" * length, b"{}", PREFIX) for length in (64, 200, 201, 202, 999_999)]
    names = [name for name, _ in told]
    assert len(set(names)) == len(names)
    for name, parsed in told:
        assert name == parsed.name
        assert name.startswith("key:")
        assert max(map(len, (words_of(parsed), parsed.source, name))) < 3000


# --- what nobody foresaw


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError(), KeyError("x"), UnicodeEncodeError("a", "b", 0, 1, "c")]
)
def test_what_nobody_foresaw_is_one_values_own_and_its_traceback_is_logged_at_debug(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = northbound._from_fields

    def broken(fields: dict[str, Any], *more: Any) -> Any:
        if fields.get("description"):
            raise error
        return original(fields, *more)

    monkeypatch.setattr(northbound, "_from_fields", broken)
    values = [GOOD, GOOD | {"name": "bad", "description": "x"}, GOOD | {"name": "c"}]
    with caplog.at_level(logging.DEBUG, "vethlib.agent"):
        parsed = read(json.dumps(values), "x.json")
    assert [bool(one.interface) for one in parsed] == [True, False, True]
    assert [one.name for one in parsed] == ["a", "bad", "c"]
    assert type(error).__name__ in str(parsed[1].problems[0])
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None and record.exc_info[1]) == (logging.DEBUG, error)
    assert read_one(json.dumps(values[1]), "key", name="bad").name == "bad"


def test_a_decoder_that_fails_refuses_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(json, "loads", broken)
    assert fields_of(read("{}", "x.json")[0]) == ["value"]
    assert fields_of(read_one("{}", "key", name="a")) == ["value"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
known = st.sampled_from(["name", "type", "mtu", "num_queues", "ip_addresses", "namespace", "veth", "description", "x"])
inner = st.sampled_from(["type", "pid", "name", "filepath", "microservice", "peer_if_name"])


@given(st.dictionaries(known, json_values | st.dictionaries(inner, json_values, max_size=4)), st.integers(1, 5))
def test_every_value_ends_as_an_interface_or_with_problems(value: dict[str, Any], most: int) -> None:
    (parsed,) = read(json.dumps(value), "x", limits=Limits(problems=most))
    assert (parsed.interface is None) == bool(parsed.problems)
    assert len(parsed.problems) <= most + 1
    for problem in parsed.problems:
        assert problem.field != "value"  # nothing was left to the net
        str(problem).encode()
    (same,) = read(json.dumps(value), "x", limits=Limits(problems=most))
    assert northbound.same(parsed, same)
