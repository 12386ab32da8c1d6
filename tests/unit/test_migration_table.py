"""The tables of differences from the linuxplugin: vethlib behaves as each row of the page describes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.planning import applied, change, ops, planned, recorded, two_namespaces
from vethlib.agent import Interface, Namespace, Parsed, State, plan, read, read_one
from vethlib.agent.planning.plausibility import warnings_of

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-linuxplugin.md").read_text()
BASE: dict[str, Any] = {
    "name": "veth1",
    "enabled": True,
    "ip_addresses": ["10.0.0.1/24"],
    "veth": {"peer_if_name": "veth2"},
}
PEER = Interface("veth2", "veth1", enabled=True, ip_addresses=("10.0.0.2/24",))


def rows(name: str) -> list[tuple[str, str]]:
    """The first and the last cell of each row of a table of the page."""
    table = PAGE.partition(f"<!-- {name}: ")[2].partition(f"<!-- end of {name} -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert all(len(row) == 3 for row in cells), cells
    return [(row[0].strip("| "), row[-1].strip("| ")) for row in cells]


def parsed(members: str) -> Parsed:
    """What is read of an interface with these members in the place of its own."""
    given = {key.lower().replace("_", "") for key in json.loads(f"{{{members}}}")}
    own = {key: one for key, one in BASE.items() if key.replace("_", "") not in given}
    (found,) = read(f"{json.dumps(own)[:-1]}{', ' if own else ''}{members}}}")
    return found


@pytest.mark.parametrize(("value", "outcome"), rows("values"))
def test_a_value_is_read_as_the_table_says(value: str, outcome: str) -> None:
    members, codes = value.strip("`"), re.findall("`([^`]+)`", outcome)
    found = parsed(members)
    if outcome.startswith("the same as "):
        same = parsed(codes[0])
        assert found.interface == same.interface
        assert found.interface is not None
        if outcome.endswith(", with a warning"):
            assert found.warnings
        else:
            assert found.warnings == ()
    elif outcome.startswith("INVALID"):
        assert found.interface is None
        assert [problem.field for problem in found.problems] == [codes[0]]
        assert all(problem.hint for problem in found.problems)
    else:
        assert outcome.startswith("a warning, ")
        assert found.interface is not None
        assert [one.code for one in warnings_of({"veth1": found.interface, "veth2": PEER})] == codes


def test_the_table_is_the_whole_and_the_plain_value_needs_no_warning() -> None:
    assert len(rows("values")) >= 40
    plain = parsed('"description": ""').interface
    assert plain is not None
    assert warnings_of({"veth1": plain, "veth2": PEER}) == []


# --- behaviour

TEXT = json.dumps(BASE)
VETH1 = replace(
    PEER, name="veth1", peer_if_name="veth2", ip_addresses=("10.0.0.1/24",), namespace=Namespace(2, name="ns1")
)


def key_and_name() -> None:
    found = read_one(TEXT, name="other")
    assert (found.interface, found.name) == (None, "other")
    assert found.problems[0].field == "name"


def undecodable() -> None:
    found = read_one("{", "the key", name="veth1")
    assert (found.interface, found.name, found.source) == (None, "veth1", "the key")
    host = two_namespaces()
    applied(host, VETH1, PEER)
    record = recorded(host, VETH1, PEER)
    left = plan({"veth2": PEER}, host.observe(), label="vpp1", prune=True, leave={"veth1"}, record=record)
    assert left.operations == ()  # an agent leaves those alone whose value is bad


def byte_order_mark() -> None:
    assert read_one(b"\xef\xbb\xbf" + TEXT.encode()).interface == read_one(TEXT).interface is not None


def text_behind() -> None:
    (problem,) = read_one(TEXT + " x").problems
    assert problem.field.startswith("line 1, column ")


def no_utf8() -> None:
    (problem,) = read_one(TEXT.encode()[:-1] + b',"description":"\xff"}').problems
    assert problem.field.startswith("line 1, column ")


def cleared_mac() -> None:
    host = two_namespaces()
    applied(host, replace(VETH1, phys_address="02:00:00:00:00:01"), PEER)
    assert set(ops(applied(host, VETH1, PEER))) <= {"change"}
    assert host["netns:ns1", "veth1"].mac == "02:00:00:00:00:01"


def cleared_mtu() -> None:
    host = two_namespaces()
    applied(host, replace(VETH1, mtu=1400), PEER)
    assert change(applied(host, VETH1, PEER)).changes == {"mtu": (1400, 1500)}


def respelt_address() -> None:
    host = two_namespaces()
    applied(host, replace(VETH1, ip_addresses=("2001:db8::1/64",)), PEER)
    assert planned(host, replace(VETH1, ip_addresses=("2001:DB8:0::1/64", "2001:db8::1/64")), PEER).operations == ()


def another_pid() -> None:
    assert Namespace(pid=7) != Namespace(pid=8)
    host = two_namespaces()
    host.add_netns("pid:7")
    host.add_netns("pid:8")
    applied(host, replace(VETH1, namespace=Namespace(pid=7)), PEER)
    assert ops(planned(host, replace(VETH1, namespace=Namespace(pid=8)), PEER)) == ["delete", "create"]


def respelt_namespace() -> None:
    ways: list[dict[str, Any]] = [{}, {"pid": 0}, {"type": 2}, {"type": 3, "filepath": ""}, {"type": 2, "name": ""}]
    found = [read_one(json.dumps(BASE | {"namespace": way})).interface for way in ways]
    assert all(one == read_one(TEXT).interface for one in found)


def other_peer() -> None:
    for order in ([VETH1, replace(PEER, peer_if_name="x")], [replace(PEER, peer_if_name="x"), VETH1]):
        verdict = planned(two_namespaces(), *order).verdicts["veth1"]
        assert verdict.state is State.PENDING
        assert verdict.reason


BEHAVIOUR: dict[str, Callable[[], None]] = {
    "the last part of the key is not the `name` in the value": key_and_name,
    "a value cannot be decoded": undecodable,
    "a byte order mark before the value": byte_order_mark,
    "text after the value": text_behind,
    "bytes that are not valid UTF-8": no_utf8,
    "a `phys_address` is cleared": cleared_mac,
    "an `mtu` is cleared": cleared_mtu,
    "an address is spelled differently": respelt_address,
    "the pid of a namespace changes": another_pid,
    "a namespace is spelled differently, such as `{}` instead of none": respelt_namespace,
    "the peer names another interface": other_peer,
}


@pytest.mark.parametrize("what", [what for what, _ in rows("behaviour")])
def test_it_behaves_as_the_table_says(what: str) -> None:
    BEHAVIOUR[what]()


def test_every_behaviour_that_is_tried_is_in_the_table() -> None:
    assert [what for what, _ in rows("behaviour")] == list(BEHAVIOUR)
