"""The northbound model as JSON: generous in spelling, strict in meaning, and nothing dropped silently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.strategies import FIELDS
from vethlib.agent import (
    Interface,
    InvalidInterface,
    Namespace,
    NamespaceType,
    Parsed,
    Undecodable,
    read,
    read_one,
    read_value,
    to_dict,
    to_json,
)
from vethlib.agent.config.jsontext import decode

VETH1 = {
    "name": "veth1",
    "type": 0,
    "enabled": True,
    "phys_address": "d2:74:8c:12:67:d2",
    "mtu": 1500,
    "ip_addresses": ["192.168.22.1/24", "2001:db8::ff00:89e3:bb42/48"],
    "namespace": {"type": 2, "name": "ns1"},
    "veth": {"peer_if_name": "veth2"},
}
INTERFACE = Interface(
    "veth1",
    "veth2",
    enabled=True,
    phys_address="d2:74:8c:12:67:d2",
    mtu=1500,
    ip_addresses=("192.168.22.1/24", "2001:db8::ff00:89e3:bb42/48"),
    namespace=Namespace(2, name="ns1"),
)


def problems_of(value: object) -> dict[str, str]:
    parsed = read_value(value)
    assert parsed.interface is None
    return {problem.field: problem.hint for problem in parsed.problems}


def changed(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in (VETH1 | fields).items() if value is not ...}


def test_the_documented_example_is_read() -> None:
    (parsed,) = read(json.dumps(VETH1), "veth1.json")
    assert parsed == Parsed(INTERFACE, "veth1", source="veth1.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "VETH"},
        {"type": ...},
        {"type": None},
        {"phys_address": ..., "physAddress": "D2:74:8C:12:67:D2"},
        {"ip_addresses": ..., "ipAddresses": VETH1["ip_addresses"]},
        {"veth": {"peerIfName": "veth2"}},
        {"namespace": {"type": "NAMED_NS", "name": "ns1"}},
        {"mtu": "1500"},
        {"mtu": 1500.0},
        {"num_queues": 0, "linkOnly": False, "hostIfName": "", "description": None},
    ],
)
def test_every_accepted_spelling_reads_the_same(fields: dict[str, Any]) -> None:
    assert read_value(changed(**fields)) == Parsed(INTERFACE, "veth1")


@pytest.mark.parametrize("key", ["linux_namespace", "linuxNamespace"])
def test_the_namespace_key_of_older_samples_is_understood_with_a_warning(key: str) -> None:
    parsed = read_value(changed(namespace=..., **{key: VETH1["namespace"]}))
    assert parsed.interface == INTERFACE
    assert parsed.warnings == (f"{key} is a former name of namespace: write namespace",)


@pytest.mark.parametrize(
    ("fields", "where", "cure"),
    [
        ({"enable": True}, "enable", "did you mean enabled?"),
        ({"desc": "x"}, "desc", "did you mean description?"),
        ({"netns": "x"}, "netns", "unknown key; the known keys are name, "),
        ({"x": 1}, "x", "unknown key; the known keys are name, "),
        ({"physAddr": "x"}, "physAddr", "did you mean phys_address?"),
        ({"namespace": {"type": 2, "nmae": "ns1"}}, "namespace.nmae", "did you mean namespace.name?"),
        ({"veth": {"peer_if_name": "veth2", "peer": 1}}, "veth.peer", "did you mean veth.peer_if_name?"),
        ({"k" * 500: 1}, "k" * 77 + "...", "unknown key; the known keys are name, "),
        ({"a\ud800": 1}, "'a\\ud800'", "unknown key; the known keys are"),
        ({"é": 1}, "é", "unknown key; the known keys are"),
        ({"mtu": "abc"}, "mtu", "whole number"),
        ({"mtu": -1}, "mtu", "whole number"),
        ({"mtu": 1.5}, "mtu", "whole number"),
        ({"mtu": 1 << 32}, "mtu", "whole number"),
        ({"mtu": float("nan")}, "mtu", "whole number"),
        ({"mtu": float("inf")}, "mtu", "whole number"),
        ({"mtu": True}, "mtu", "whole number"),
        ({"mtu": []}, "mtu", "whole number"),
        ({"enabled": 3}, "enabled", "true or false"),
        ({"enabled": "true"}, "enabled", "true or false"),
        ({"type": 1}, "type", "must be VETH (0)"),
        ({"type": "vet"}, "type", "must be VETH (0)"),
        ({"type": True}, "type", "must be VETH (0)"),
        ({"type": [1]}, "type", "must be VETH (0)"),
        ({"type": 10**30}, "type", "must be VETH (0)"),
        ({"namespace": {"type": 9, "name": "x"}}, "namespace.type", "NAMED_NS (2)"),
        ({"namespace": []}, "namespace", "an object, not a list"),
        ({"namespace": {"type": 2, "name": "a/b"}}, "namespace.name", "without '/'"),
        ({"veth": "veth2"}, "veth", "an object, not a string"),
        ({"veth": 2}, "veth", "an object, not a number"),
        ({"veth": True}, "veth", "an object, not true or false"),
        ({"veth": ...}, "veth.peer_if_name", "other end"),
        ({"veth": None}, "veth.peer_if_name", "other end"),
        ({"veth": {}}, "veth.peer_if_name", "other end"),
        ({"description": "\ud800"}, "description", "string"),
        ({"ip_addresses": "10.0.0.1/24"}, "ip_addresses", "a list, not a string"),
        ({"ip_addresses": ["10.0.0.1/24", 3]}, "ip_addresses[1]", "string"),
        ({"ip_addresses": [None]}, "ip_addresses[0]", "string"),
        ({"ip_addresses": [["10.0.0.1/24"]]}, "ip_addresses[0]", "string"),
        ({"physAddress": "d2:74:8c:12:67:d2"}, "physAddress", "also given as phys_address"),
        ({"linux_namespace": {}}, "linux_namespace", "also given as namespace"),
        ({"name": 3}, "name", "string"),
        ({"routes": ["10.1.0.0/16"]}, "routes[0]", "an object, not a string"),
        ({"routes": [{"dst": "10.1.0.0/16"}, None]}, "routes[1]", "an object, not null"),
        ({"neighbours": [1]}, "neighbours[0]", "an object, not a number"),
        ({"altnames": ["x", 1]}, "altnames[1]", "string"),
    ],
)
def test_a_problem_names_the_key_and_the_cure(fields: dict[str, Any], where: str, cure: str) -> None:
    found = problems_of(changed(**fields))
    assert list(found) == [where]
    assert cure in found[where]


def test_an_element_after_a_bad_one_keeps_its_number() -> None:
    assert list(problems_of(changed(ip_addresses=[3, "", "10.0.0.300"]))) == ["ip_addresses[0]", "ip_addresses[2]"]


def test_problems_of_spelling_and_of_meaning_are_told_together() -> None:
    found = problems_of({"name": "veth1", "mtu": "abc", "foo": 1, "phys_address": "x"})
    assert set(found) == {"mtu", "foo", "phys_address", "veth.peer_if_name"}


def test_the_name_is_told_however_bad_the_rest_is() -> None:
    assert read_value({"mtu": "abc", "name": "veth1"}).name == "veth1"


def test_a_field_the_namespace_type_does_not_read_is_warned_of_with_both_names() -> None:
    parsed = read_value(changed(namespace={"name": "ns1", "pid": 42}))
    assert parsed.interface is not None
    assert parsed.interface.namespace.ref == "pid:42"
    (warning,) = parsed.warnings
    assert "namespace.name" in warning
    assert "namespace.pid" in warning
    assert "PID_REF_NS" in warning


def test_link_only_with_addresses_is_warned_of() -> None:
    interface = read_value(changed(link_only=True)).interface
    assert interface is not None
    assert [remark.code for remark in interface.remarks] == ["addresses-ignored"]


def test_a_list_is_read_one_by_one_and_each_tells_its_place() -> None:
    good, bad, worse = read(json.dumps([VETH1, {"name": "x"}, 7]), "all.json")
    assert (good.interface, good.source) == (INTERFACE, "all.json[0]")
    assert (bad.interface, bad.name, bad.source) == (None, "x", "all.json[1]")
    assert (worse.interface, worse.problems[0].field, worse.source) == (None, "interface", "all.json[2]")


def test_a_comma_too_many_is_reported_at_its_place_or_behind_it() -> None:
    (parsed,) = read('{"name": "veth1",\n}', "broken.json")
    (problem,) = parsed.problems
    assert isinstance(problem, Undecodable)
    assert (problem.line, problem.column) in ((1, 17), (2, 1))  # since Python 3.13, and before


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ('{\n  "name": veth1}', 2, 11),
        ('{"name": "veth1",\n7}', 2, 1),
        ('{"name": "veth1"} {}', 1, 19),
        (b'{\n"name": "\xff"}', 2, 10),
        ("[" * 100_000, 0, 0),
    ],
)
def test_a_text_that_is_not_json_is_reported_with_its_place(text: str | bytes, line: int, column: int) -> None:
    (parsed,) = read(text, "broken.json")
    (problem,) = parsed.problems
    assert isinstance(problem, Undecodable)
    assert (parsed.source, problem.line, problem.column) == ("broken.json", line, column)
    if line:
        assert f"line {line}, column {column}" in str(problem)


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read("\ufeff" + json.dumps(VETH1))[0].interface == INTERFACE
    assert read(b"\xef\xbb\xbf" + json.dumps(VETH1).encode())[0].interface == INTERFACE


def test_a_key_given_twice_is_a_problem_at_any_depth() -> None:
    (parsed,) = read('{"name":"a","mtu":1,"mtu":1500,"veth":{"peer_if_name":"b","peer_if_name":"b"}}')
    assert [problem.field for problem in parsed.problems] == ["mtu", "veth.peer_if_name"]
    assert "twice" in parsed.problems[0].hint


@pytest.mark.parametrize(
    "text", ["9" * 5000, "-" + "9" * 5000, "1e999", "NaN", "-Infinity", '[{"mtu":' + "9" * 5000 + "}]"]
)
def test_numbers_of_any_size_are_only_a_problem(text: str) -> None:
    assert read(text)[0].problems


def nested(levels: int) -> str:
    """An object with this many levels of objects and lists; brackets and quotes in strings do not count."""
    opening = "".join('["]", ' if level % 2 else '{"{\\\\\\"[": ' for level in range(levels))
    return opening + "0" + "".join("]" if level % 2 else "}" for level in reversed(range(levels)))


@pytest.mark.parametrize("levels", [101, 990, 1200, 20_000])
def test_a_value_is_nested_too_deeply_for_every_python_at_the_same_level(levels: int) -> None:
    for text in (nested(levels), f"[{nested(levels)}]"):
        with pytest.raises(Undecodable, match="at most 100 levels"):
            decode(text)


def test_a_value_of_a_hundred_levels_can_be_printed_alone_and_in_a_list() -> None:
    for text in (nested(100), f"[{nested(100)}, {nested(3)}]"):
        assert json.loads(json.dumps(decode(text), indent=2)) == json.loads(text)


def test_a_value_under_a_key_has_to_bear_its_name() -> None:
    assert read_one(json.dumps(VETH1), "/interface/veth1", name="veth1").interface == INTERFACE
    parsed = read_one(json.dumps(VETH1), "/interface/veth10", name="veth10")
    assert (parsed.interface, parsed.name) == (None, "veth10")
    assert [problem.field for problem in parsed.problems] == ["name"]
    assert read_one(json.dumps(VETH1)).interface == INTERFACE


def test_an_undecodable_value_is_reported_on_its_key() -> None:
    parsed = read_one(b"\xff", "/interface/veth1", name="veth1")
    assert (parsed.interface, parsed.name, parsed.source) == (None, "veth1", "/interface/veth1")
    assert "not UTF-8" in str(parsed.problems[0])


def test_a_list_is_no_single_value() -> None:
    assert read_one("[]", name="veth1").problems[0].hint == "must be an object, not a list"


def test_writing_is_snake_case_with_numbers_and_without_defaults() -> None:
    assert to_dict(INTERFACE) == {key: value for key, value in VETH1.items() if key != "type"}
    assert list(to_dict(INTERFACE)) == [key for key in VETH1 if key != "type"]
    assert to_json(Interface("a", "b")) == '{"name":"a","veth":{"peer_if_name":"b"}}'
    assert to_json(Interface("a", "b"), indent=2).startswith('{\n  "name": "a"')


names = st.from_regex(r"[A-Za-z0-9_.é-]{1,12}", fullmatch=True).filter(lambda name: name.strip("."))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
namespaces = st.one_of(
    st.just(Namespace()),
    st.builds(Namespace, st.just(NamespaceType.PID_REF_NS), pid=st.integers(0, 4_194_304)),
    st.builds(Namespace, st.just(NamespaceType.MICROSERVICE_REF_NS), microservice=texts.filter(bool)),
    st.builds(Namespace, st.just(NamespaceType.NAMED_NS), name=names),
    st.builds(Namespace, st.just(NamespaceType.FILE_REF_NS), filepath=texts.map("/{}".format)),
)
with_prefix = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map("{0[0]}/{0[1]}".format)
addresses = st.one_of(st.just(""), st.ip_addresses().map(str), with_prefix)


@st.composite
def interfaces(draw: st.DrawFn) -> Interface:
    try:
        return Interface(
            draw(names),
            draw(names),
            description=draw(texts),
            enabled=draw(st.booleans()),
            phys_address=draw(st.sampled_from(["", "02:00:00:00:00:01", "FE-00-00-00-00-01"])),
            mtu=draw(st.sampled_from([0, 68, 1500, 65535])),
            ip_addresses=tuple(draw(st.lists(addresses, max_size=4))),
            namespace=draw(namespaces),
            host_if_name=draw(st.one_of(st.just(""), st.from_regex(r"[a-z0-9]{1,15}", fullmatch=True))),
            num_queues=draw(st.sampled_from([0, 1, 4096])),
            ipv6=draw(st.sampled_from([None, True, False])),
            **draw(FIELDS),
            link_only=draw(st.booleans()),
        )
    except InvalidInterface:
        return Interface("veth1", "veth2")


@given(interfaces())
def test_what_is_written_reads_back(interface: Interface) -> None:
    parsed = read_one(to_json(interface))
    assert parsed.interface == interface
    assert parsed.problems == ()
    assert to_json(interface) == to_json(read_value(to_dict(interface)).interface or interface)


keys = st.text() | st.sampled_from(list(VETH1))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*VETH1, "linux_namespace", "hostIfName"]), json_values) | json_values)
def test_no_json_value_is_too_strange_to_be_reported(value: Any) -> None:
    for parsed in read(json.dumps(value), "x"):
        assert (parsed.interface is None) == bool(parsed.problems)
        for problem in parsed.problems:
            str(problem).encode()


@given(st.binary() | st.text())
def test_no_text_is_too_strange_to_be_reported(text: str | bytes) -> None:
    for parsed in read(text, "x"):
        assert parsed.problems


def test_what_was_written_out_though_it_is_a_default_is_written_out_again() -> None:
    given = {"name": "a", "type": 0, "mtu": 0, "ip_addresses": [], "namespace": {"type": 0, "pid": 42}}
    given |= {"veth": {"peer_if_name": "b"}, "link_only": False}
    parsed = read_value(given)
    assert parsed.interface is not None
    assert to_dict(parsed.interface) == given
    bare = read_value({"name": "a", "namespace": {"pid": 42}, "veth": {"peer_if_name": "b"}}).interface
    assert parsed.interface == bare
    assert bare is not None
    assert list(to_dict(bare)) == ["name", "namespace", "veth"]
