"""Values that others write below a label's keys are reported by key, valid or not, and never affect others."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import LABEL, PREFIX, Consumer, changes, key, many, put, text
from tests.backends.etcd_fixtures import Follow
from vethlib.agent import Parsed, to_dict
from vethlib.agent.stores.etcd import mirror
from vethlib.agent.stores.etcd.arrivals import Arrivals
from vethlib.agent.stores.etcd.etcd_pb2 import WatchResponse
from vethlib.agent.stores.etcd.reading import read_key
from vethlib.agent.stores.protocol import Change, Snapshot


@pytest.fixture
def consumer(etcd: Etcd, follow: Follow) -> Consumer:
    """One who knows v0 to v2."""
    etcd.fill(many(3))
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    return consumer


def told(consumer: Consumer, name: str) -> Parsed | None:
    """The value of the one change that is the news, which is of this name."""
    (change,) = consumer.hear()
    assert isinstance(change, Change)
    assert change.name == name
    return change.value


def refused(consumer: Consumer, name: str) -> str:
    """With what problem a value is refused; all others are as they were."""
    parsed = told(consumer, name)
    assert parsed is not None
    assert parsed.interface is None
    assert {one: consumer.known[one] for one in ("v0", "v1", "v2") if one != name} == (  # type: ignore[index]
        {one: json.loads(text(one)) for one in ("v0", "v1", "v2") if one != name}
    )
    return "; ".join(map(str, parsed.problems))


# --- bad values


UNREADABLE = {
    b"\xff\xfe\0\1": "UTF-8",
    b"{": "JSON",
    b"": "JSON",
    b"[" * 100_000: "nested too deeply",
    b"[]": "object",
    b"null": "object",
    b'"v1"': "object",
    b'{"name": "v1", "name": "v1"}': "twice",
    b'{"name": "v2", "veth": {"peer_if_name": "p"}}': "the name in the key",
    b'{"name": "v1", "nonsense": 1, "veth": {"peer_if_name": "p"}}': "nonsense",
    b'{"name": "v1", "mtu": "x", "veth": {"peer_if_name": "p"}}': "mtu",
    b'{"name": "v1"}': "veth",
    b'{"name": "v1", "namespace": {"type": 4294967296}, "veth": {"peer_if_name": "p"}}': "namespace.type",
    b'{"name": "v1", "ip_addresses": [' + b'"x",' * 100_000 + b'"x"], "veth": {"peer_if_name": "p"}}': "ip_addresses",
    b'{"name": "v1", "description": "' + b"x" * 1_100_000 + b'"}': "value_bytes",
    b"[" + b"1," * 500_000 + b"1]": "object",
}


def test_a_value_that_cannot_be_read_is_told_on_its_key_until_it_is_a_good_one(etcd: Etcd, consumer: Consumer) -> None:
    for raw, problem in UNREADABLE.items():
        etcd.fill({key("v1"): raw})
        assert problem in refused(consumer, "v1")
        etcd.put(key("v0"), text("v0", mtu=1400))
        assert told(consumer, "v0") is not None
        etcd.fill({key("v0"): text("v0"), key("v1"): text("v1")})
        consumer.come_to(etcd)


def test_bad_values_that_are_there_from_the_start_are_in_the_snapshot(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(3))
    etcd.put(key("bad"), b"\xff")
    etcd.put(key("other"), text("v1"))
    (snapshot,) = follow(etcd.url).hear()
    assert isinstance(snapshot, Snapshot)
    assert snapshot.complete
    assert {name: parsed.interface is not None for name, parsed in snapshot.values.items()} == {
        "bad": False,
        "other": False,
        "v0": True,
        "v1": True,
        "v2": True,
    }
    assert snapshot.values["bad"].source == key("bad")


def test_a_bad_value_that_is_deleted_is_gone(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("bad"), "{")
    refused(consumer, "bad")
    etcd.delete(key("bad"))
    assert told(consumer, "bad") is None
    consumer.come_to(etcd)


def test_a_bad_value_for_another_bad_one_is_told_with_its_own_problem(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("v1"), "{")
    assert "JSON" in refused(consumer, "v1")
    etcd.put(key("v1"), text("v1", mtu=-1))
    assert "mtu" in refused(consumer, "v1")


def test_a_value_of_a_megabyte_is_read_as_any_other(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("v1"), text("v1", description="x" * 1_000_000))
    consumer.come_to(etcd)


# --- bad keys


def test_a_key_that_is_no_interfaces_is_told_and_touches_no_other(etcd: Etcd, consumer: Consumer) -> None:
    for name in ("a/b", "v1/", "/v1", "", "a b", "x" * 300, "ä/ö", ".", ".."):
        etcd.fill({PREFIX + name: text("v1", mtu=1400)})
        (change,) = consumer.hear()
        assert isinstance(change, Change)
        assert change.name not in ("v0", "v1", "v2")
        assert change.value is not None
        assert change.value.interface is None
        assert change.value.source == PREFIX + name
        etcd.empty([PREFIX + name])
        assert consumer.hear() == [Change(change.name, None)]
    consumer.come_to(etcd)


def test_keys_that_are_no_text_are_told_apart(etcd: Etcd, consumer: Consumer) -> None:
    names = [b"\xff", b"\xfe", rb"\xff", b"a\0b"]
    etcd.fill({PREFIX.encode() + name: text("v1") for name in names})
    found = consumer.wait(lambda: len(consumer.values or ()) == 3 + len(names))
    assert len({one.name for one in found if isinstance(one, Change)}) == len(names)
    etcd.empty([PREFIX.encode() + name for name in names])
    consumer.come_to(etcd)


def test_what_is_beside_the_keys_of_a_label_is_nothing_of_it(etcd: Etcd, consumer: Consumer) -> None:
    others = (
        f"/vnf-agent/{LABEL}2/linux/config/v1/interface/v1",
        f"/vnf-agent/{LABEL}/linux/config/v1/interface",
        f"/vnf-agent/{LABEL}/linux/config/v1/interfaces/v1",
        f"/vnf-agent/{LABEL}/linux/config/v1/interface0",
        f"/vnf-agent/{LABEL}/linux/status/v1/interface/v1",
        f"vnf-agent/{LABEL}/linux/config/v1/interface/v1",
        f"/VNF-agent/{LABEL}/linux/config/v1/interface/v1",
    )
    for other in others:
        etcd.put(other, text("v1", mtu=1400))
    etcd.put(key("last"), text("last"))
    assert changes(consumer.come_to(etcd)) == ["last"]


def test_veth1_goes_and_veth10_stays(etcd: Etcd, consumer: Consumer) -> None:
    etcd.txn(put("veth1"), put("veth10"), put("veth100"))
    consumer.come_to(etcd)
    etcd.delete(key("veth1"))
    assert changes(consumer.come_to(etcd)) == ["-veth1"]
    etcd.delete_prefix(key("veth10"))
    assert changes(consumer.come_to(etcd)) == ["-veth10", "-veth100"]


# --- as other clients write them


WRITTEN = (
    # in any order; with numbers; with names and in camel case; in the words of older clients; with spaces and nulls
    '{"veth":{"peer_if_name":"p"},"mtu":1500,"enabled":true,"name":"v1","namespace":{"name":"ns1","type":2}}',
    '{"name":"v1","type":0,"enabled":true,"mtu":1500,"namespace":{"type":2,"name":"ns1"},"veth":{"peer_if_name":"p"}}',
    '{"name":"v1","type":"VETH","enabled":true,"mtu":1500,"namespace":{"type":"NAMED_NS","name":"ns1"},'
    '"veth":{"peerIfName":"p"},"ipAddresses":[],"physAddress":""}',
    '{"name":"v1","description":"","enabled":true,"mtu":1500,"linux_namespace":{"type":2,"name":"ns1"},'
    '"veth":{"peer_if_name":"p"},"ip_addresses":[]}',
    '\n{ "name" : "v1" , "enabled" : true , "mtu" : 1.5e3 , "namespace" : { "type" : 2 , "name" : "ns1" ,'
    ' "pid" : 0 , "microservice" : null } , "veth" : { "peer_if_name" : "p" } }\n',
)


def test_one_interface_can_be_written_in_many_ways(etcd: Etcd, consumer: Consumer) -> None:
    strict = {"name": "v1", "enabled": True, "mtu": 1500, "namespace": {"type": 2, "name": "ns1"}}
    for written in WRITTEN:
        etcd.put(key("v1"), written)
        parsed = told(consumer, "v1")
        assert parsed is not None
        assert parsed.interface is not None, parsed.problems
        plain = replace(parsed.interface, explicit=frozenset())  # whatever was written out though it is at its default
        assert to_dict(plain) == strict | {"veth": {"peer_if_name": "p"}}
        etcd.put(key("v1"), text("v1"))
        consumer.come_to(etcd)


def test_a_value_written_again_in_other_words_is_no_news(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("v1"), json.dumps({"veth": {"peer_if_name": "peer"}, "enabled": True, "name": "v1", "type": 0}))
    etcd.put(key("last"), text("last"))
    assert changes(consumer.wait(lambda: "last" in (consumer.known or ()))) == ["last"]


def test_of_a_key_that_is_rewritten_faster_than_it_is_read_the_last_value_is_read_and_others_do_not_wait(
    etcd: Etcd, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, arrived, go_on, read = threading.Event(), threading.Event(), threading.Event(), 0
    keep = Arrivals._keep

    def arrive(arrivals: Arrivals, answer: WatchResponse) -> bool:
        kept = keep(arrivals, answer)
        if any(event.kv.key.endswith(b"/v1") for event in answer.events):
            arrived.set()
        return kept

    def read_slowly(key: bytes, *args: Any) -> tuple[str, Parsed]:
        nonlocal read
        if key.endswith(b"/rewritten"):
            read += 1
            reading.set()
            go_on.wait(30)
        return read_key(key, *args)

    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    monkeypatch.setattr(mirror, "read_key", read_slowly)
    monkeypatch.setattr(Arrivals, "_keep", arrive)
    etcd.put(key("rewritten"), text("rewritten", mtu=1000))
    assert reading.wait(30)
    for number in range(50):
        etcd.put(key("rewritten"), text("rewritten", mtu=1001 + number))
    etcd.delete(key("rewritten"))
    etcd.put(key("rewritten"), text("rewritten", mtu=1400))
    etcd.put(key("v1"), text("v1"))
    assert arrived.wait(30)
    go_on.set()
    assert changes(consumer.come_to(etcd)) == ["rewritten", "rewritten", "v1"]
    assert read == 2
