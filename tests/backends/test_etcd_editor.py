"""Editing configuration in a real etcd: what etcdctl then finds, and the news of a store that follows."""

from __future__ import annotations

import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.etcd import Cluster, Etcd
from tests.backends.etcd_consumer import LABEL, PREFIX, changes, key, many, text, wanted
from tests.backends.etcd_fixtures import Follow, MakeEtcd
from tests.backends.ports import free_port
from tests.backends.proxy import Proxy
from tests.live.applying import interface, value
from tests.refusing import raises
from vethlib.agent import Interface, Namespace, to_dict
from vethlib.agent.stores.etcd.connection import OPS
from vethlib.agent.stores.etcd.editor import EtcdEditor
from vethlib.agent.stores.protocol import Edit, Editor, StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.errors import InvalidValue

pytestmark = pytest.mark.usefixtures("nothing_open")

# The model of the agents whose keys these are, and what of it is ours.
FIELDS = {
    "name": str,
    "description": str,
    "type": int,
    "enabled": bool,
    "phys_address": str,
    "mtu": int,
    "ip_addresses": list,
    "namespace": dict,
    "host_if_name": str,
    "veth": dict,
}
OF_NAMESPACE = {"type": int, "pid": int, "microservice": str, "name": str, "filepath": str}
OURS = {"num_queues": int, "link_only": bool}


@pytest.fixture
def editor(etcd: Etcd) -> Editor:
    return EtcdEditor(etcd.url, LABEL)


def pairs(count: int, **fields: Any) -> list[Interface]:
    """The ends of so many pairs: first all of one side, then all of the other."""
    ones = [interface(f"a{number}", f"b{number}", **fields) for number in range(count)]
    return ones + [interface(f"b{number}", f"a{number}", **fields) for number in range(count)]


A, B = interface("a", "b"), interface("b", "a")


# --- put


def test_an_interface_is_stored_at_its_key_in_the_strict_form(etcd: Etcd, editor: Editor) -> None:
    assert editor.put(A, B) == [Edit("add", "a", key("a")), Edit("add", "b", key("b"))]
    assert (
        etcd.ctl("get", key("a"), "--print-value-only") == '{"name":"a","enabled":true,"veth":{"peer_if_name":"b"}}\n'
    )
    assert wanted(etcd) == {"a": to_dict(A), "b": to_dict(B)}


def test_what_is_written_has_the_fields_of_the_original_model_and_no_others(etcd: Etcd, editor: Editor) -> None:
    full = Interface(
        "veth1",
        "veth2",
        description="café",
        enabled=True,
        phys_address="d2:74:8c:12:67:d2",
        mtu=1500,
        ip_addresses=("10.0.0.1/24", "2001:db8::1/64"),
        host_if_name="eth0",
        namespace=Namespace(type=1, microservice="vnf1"),
    )
    others = [
        Interface("p", "veth2", namespace=Namespace(type=0, pid=42)),
        Interface("n", "veth2", namespace=Namespace(type=2, name="ns1")),
        Interface("f", "veth2", namespace=Namespace(type=3, filepath="/run/x")),
        Interface("bare", "veth2"),
    ]
    editor.put(full, *others, Interface("ours", "veth2", num_queues=2, link_only=True))
    written = wanted(etcd)
    assert written["ours"].keys() >= OURS.keys()
    for name, one in written.items():
        fields = FIELDS | (OURS if name == "ours" else {})
        assert one.keys() <= fields.keys()
        assert all(type(one[field]) is fields[field] for field in one)
        assert one["veth"] == {"peer_if_name": "veth2"}
        namespace = one.get("namespace", {})
        assert all(type(namespace[field]) is OF_NAMESPACE[field] for field in namespace)
    assert written["bare"] == {"name": "bare", "veth": {"peer_if_name": "veth2"}}
    assert list(written["veth1"]) == [field for field in FIELDS if field != "type"]
    assert written["veth1"]["namespace"] == {"type": 1, "microservice": "vnf1"}
    assert "café".encode() in etcd.values(key("veth1"))[key("veth1").encode()]
    assert editor.values()["veth1"].interface == full


@pytest.mark.parametrize(
    "written",
    [
        '{"name":"a","veth":{"peer_if_name":"b"},"enabled":true,"type":0,"mtu":0,"description":""}',
        '{"veth":{"peerIfName":"b"}, "type":"VETH", "enabled":true, "name":"a"}',
        '{\n  "name": "a", "enabled": true, "namespace": {}, "veth": {"peer_if_name": "b"}, "ipAddresses": []\n}\n',
        '{"name":"a","enabled":true,"linux_namespace":{"type":"NAMED_NS"},"veth":{"peer_if_name":"b"}}',
    ],
)
def test_what_others_wrote_with_the_same_meaning_is_left_alone(etcd: Etcd, editor: Editor, written: str) -> None:
    etcd.put(key("a"), written)
    before = etcd.revision
    assert editor.put(A) == []
    assert etcd.revision == before
    assert etcd.values(PREFIX) == {key("a").encode(): written.encode()}
    assert editor.put(interface("a", "b", mtu=1400), B) == [Edit("change", "a", key("a")), Edit("add", "b", key("b"))]
    assert wanted(etcd)["a"] == value("a", "b", mtu=1400)


def test_a_broken_value_at_its_key_is_replaced(etcd: Etcd, editor: Editor) -> None:
    for broken in ("{", "7", '{"name":"x"}', b"\xff"):
        etcd.put(key("a"), broken)
        assert editor.put(A) == [Edit("change", "a", key("a"))]
        assert wanted(etcd) == {"a": to_dict(A)}


def test_another_label_s_keys_are_neither_read_nor_written(etcd: Etcd, editor: Editor) -> None:
    other = EtcdEditor(etcd.url, f"{LABEL}2")
    other.put(A)
    assert editor.values() == {}
    assert editor.delete("a") == []
    editor.put(interface("a", "c"))
    assert other.values()["a"].interface == A


def test_any_object_with_a_name_is_stored_as_it_is_written(etcd: Etcd, editor: Editor) -> None:
    tap = '{"name": "tap1", "tap": {"version": 2.50}}'
    assert editor.put_text({"tap1": f" {tap}\n"}) == [Edit("add", "tap1", key("tap1"))]
    assert etcd.values(PREFIX) == {key("tap1").encode(): tap.encode()}
    assert editor.put_text({"tap1": tap.replace(" ", "")}) == []
    for texts in ({"b": tap}, {"tap1": "{}"}, {"a/b": '{"name": "a/b"}'}):
        with pytest.raises(InvalidValue):
            editor.put_text(texts)
    assert len(etcd.values("")) == 1


def test_thousands_are_stored_in_as_few_transactions_as_etcd_takes(etcd: Etcd) -> None:
    told: list[tuple[str, int, int]] = []
    editor = EtcdEditor(etcd.url, LABEL, progress=lambda *progress: told.append(progress))
    before = etcd.revision
    edits = editor.put(*pairs(1000))
    assert [edit.name for edit in edits] == [one.name for one in pairs(1000)]
    assert etcd.revision - before == 2000 / OPS
    assert len(wanted(etcd)) == 2000
    assert told == [("store", done, 2000) for done in range(OPS, 2001, OPS)]
    before = etcd.revision
    assert editor.put(*pairs(1000)) == []
    assert etcd.revision == before
    # What is to be written is gathered, however thinly it is spread.
    changed = [interface(f"a{number}", f"b{number}", mtu=1400) for number in range(0, 1000, 20)]
    assert len(editor.put(*pairs(1000)[1000:], *changed)) == 50
    assert etcd.revision == before + 1
    assert len(editor.delete(*(one.name for one in pairs(1000)))) == 2000
    assert wanted(etcd) == {}


@pytest.mark.parametrize("count", [1, OPS // 2, OPS // 2 + 1, 333])
def test_both_ends_of_a_pair_are_written_and_deleted_in_one_transaction(etcd: Etcd, editor: Editor, count: int) -> None:
    def revisions() -> dict[str, int]:
        found = json.loads(etcd.ctl("get", "--prefix", PREFIX, "-w", "json"))["kvs"]
        return {json.loads(b64decode(one["value"]))["name"]: one["mod_revision"] for one in found}

    odd = interface("odd", "a0")  # whose peer points elsewhere
    editor.put(odd, *pairs(count))
    written = revisions()
    assert len(written) == 2 * count + 1
    assert all(written[f"a{number}"] == written[f"b{number}"] for number in range(count))
    before = etcd.revision
    editor.delete(*written)
    gone = _deleted_at(etcd, before)
    assert len(gone) == 2 * count + 1
    assert all(gone[f"a{number}"] == gone[f"b{number}"] for number in range(count))


def _deleted_at(etcd: Etcd, before: int) -> dict[str, int]:
    """At which revision each key went, by name: the last one at which it was still there."""
    gone: dict[str, int] = {}
    for revision in range(before + 1, etcd.revision + 1):
        there = {_name(one) for one in _keys(etcd, revision - 1)} - {_name(one) for one in _keys(etcd, revision)}
        gone |= dict.fromkeys(there, revision)
    return gone


def _keys(etcd: Etcd, revision: int) -> list[str]:
    return etcd.ctl("get", "--prefix", "--keys-only", "--rev", str(revision), PREFIX).split()


def _name(found: str) -> str:
    return found.removeprefix(PREFIX)


def test_a_store_that_follows_is_told_of_what_an_editor_does(etcd: Etcd, editor: Editor, follow: Follow) -> None:
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    editor.put(A, B)
    editor.put(interface("a", "b", mtu=1400), B)
    editor.delete("b")
    assert changes(consumer.come_to(etcd)) == ["a", "b", "a", "-b"]


# --- several editors


def _meanwhile(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Have each step happen after one reading of the keys, before what is written because of it."""
    from vethlib.agent.stores.etcd.connection import Connection

    left = list(steps)
    read = Connection.read

    def reading(self: Connection, prefix: bytes, **how: Any) -> Any:
        found = read(self, prefix, **how)
        if left:
            left.pop(0)()
        return found

    monkeypatch.setattr(Connection, "read", reading)


def test_an_edit_is_done_over_where_another_was_faster_and_says_what_came_of_it(
    etcd: Etcd, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(
        monkeypatch,
        lambda: etcd.put(key("a"), text("a", mtu=1300)),
        lambda: etcd.delete(key("a")),
        lambda: etcd.put(key("b"), text("b", "a")),
    )
    assert editor.put(A, B) == [Edit("add", "a", key("a"))]  # b is as it is wanted already
    assert wanted(etcd) == {"a": to_dict(A), "b": to_dict(B)}


def test_an_edit_that_cannot_be_done_over_says_what_was_done(
    etcd: Etcd, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise StoreError("gone")

    _meanwhile(monkeypatch, lambda: etcd.put(key("a"), text("a", mtu=1300)), refuse)
    with raises(StoreError, done=0, left=2):
        editor.put(A, B)


def test_a_value_that_is_written_again_while_it_is_deleted_is_deleted_and_one_that_went_is_not_told(
    etcd: Etcd, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor.put(A, B)

    def step() -> None:
        etcd.put(key("a"), text("a", mtu=1300))
        etcd.delete(key("b"))

    _meanwhile(monkeypatch, step)
    assert editor.delete("a", "b") == [Edit("delete", "a", key("a"))]
    assert wanted(etcd) == {}


def test_what_was_written_in_an_edit_is_not_written_again_over_what_came_after(
    etcd: Etcd,
) -> None:
    """The second transaction is done over; the values of the first one are others' by then."""
    ends = pairs(OPS)

    def interfere(_what: str, done: int, _total: int) -> None:
        if done == OPS:
            etcd.put(key("a0"), text("a0", "b0", mtu=1234))
            etcd.put(key(f"b{OPS - 1}"), text(f"b{OPS - 1}", "x"))

    edits = EtcdEditor(etcd.url, LABEL, progress=interfere).put(*ends)
    assert {edit.op for edit in edits if edit.name != f"b{OPS - 1}"} == {"add"}
    assert Edit("change", f"b{OPS - 1}", key(f"b{OPS - 1}")) in edits
    found = wanted(etcd)
    assert found["a0"]["mtu"] == 1234
    assert found[f"b{OPS - 1}"] == value(f"b{OPS - 1}", f"a{OPS - 1}")


def test_editors_at_once_lose_nothing(etcd: Etcd) -> None:
    told: list[Edit] = []

    def edit(number: int) -> None:
        editor = EtcdEditor(etcd.url, LABEL)
        for step in range(10):
            told.extend(
                editor.put(interface(f"v{number}-{step}", "peer"), interface("shared", "peer", mtu=1000 + number))
            )

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = wanted(etcd)
    assert len(found) == 41
    assert found["shared"]["mtu"] in range(1000, 1004)
    assert [edit.op for edit in told if edit.name == "shared"].count("add") == 1
    # One that is told as done is a revision of its key.
    (shared,) = json.loads(etcd.ctl("get", key("shared"), "-w", "json"))["kvs"]
    assert shared["version"] == sum(edit.name == "shared" for edit in told)


# --- delete, and what is there


def test_exactly_what_is_named_is_deleted(etcd: Etcd, editor: Editor) -> None:
    """Deleting veth1 by prefix also deleted veth10, once."""
    editor.put(*(interface(name, "x") for name in ("veth", "veth1", "veth10")))
    etcd.put(key("veth1/x"), "1")
    assert editor.delete("veth1", "nobody", "veth1") == [Edit("delete", "veth1", key("veth1"))]
    assert etcd.values(PREFIX).keys() == {key(name).encode() for name in ("veth", "veth10", "veth1/x")}


ODD = {"a/b": "key:a/b", "a b": "key:a b", "": "key:", "/": "key:/", "x" * 64: f"key:{'x' * 64}", "é:": "key:é:"}


def test_a_key_that_no_interface_can_have_is_told_and_can_be_deleted(etcd: Etcd, editor: Editor) -> None:
    for end in ODD:
        etcd.put(key(end), text("a"))
    values = editor.values()
    assert values.keys() == set(ODD.values())
    for end, name in ODD.items():
        assert values[name].interface is None
        assert values[name].source == key(end)
        assert values[name].problems[0].field == "key"
    assert {one.name: one.source for one in editor.stored()} == {name: key(end) for end, name in ODD.items()}
    assert all(one.problem is not None for one in editor.stored())
    for end, name in ODD.items():
        assert editor.delete(name) == [Edit("delete", name, key(end))]
    assert etcd.values("") == {}


def test_a_key_that_is_no_text_is_told_and_can_be_deleted(etcd: Etcd, editor: Editor) -> None:
    etcd.transact([{"requestPut": {"key": _encoded(PREFIX.encode() + b"a\xff"), "value": _encoded(b"{}")}}], 1)
    (name,) = editor.values()
    assert name == r"key:a\xff"
    assert editor.delete(name) == [Edit("delete", name, PREFIX + r"a\xff")]
    assert etcd.ctl("get", "--prefix", "") == ""


def test_a_key_that_looks_as_another_is_told_is_another(etcd: Etcd, editor: Editor) -> None:
    ends = {b"\xff/": r"key:\xff/", rb"\xff/": r"key:\\xff/"}
    requests = [{"requestPut": {"key": _encoded(PREFIX.encode() + end), "value": _encoded(b"{}")}} for end in ends]
    etcd.transact(requests, 1)
    assert editor.values().keys() == set(ends.values())
    assert {one.name for one in editor.stored()} == set(ends.values())
    for end, name in ends.items():
        assert [edit.name for edit in editor.delete(name)] == [name]
        assert PREFIX.encode() + end not in etcd.values(PREFIX)
    assert etcd.values("") == {}


def _encoded(raw: bytes) -> str:
    return b64encode(raw).decode()


def test_what_cannot_be_put_at_its_key_says_why(etcd: Etcd, editor: Editor) -> None:
    written = {
        "bad": "{",
        "list": "[]",
        "other": text("x"),
        "nameless": "{}",
        "good": text("good"),
        "tap": '{"name":"tap"}',
    }
    for name, raw in written.items():
        etcd.put(key(name), raw)
    stored = {one.name: one for one in editor.stored()}
    assert {name: one.text for name, one in stored.items()} == written
    problems = {name: str(one.problem) for name, one in stored.items() if one.problem is not None}
    assert problems.keys() == {"bad", "list", "other", "nameless"}
    assert "not JSON" in problems["bad"]
    assert problems["other"] == "name 'x': must be 'other', the name in the key"


@pytest.mark.parametrize("odd", ['"x"', '{"veth":7}', '{"veth":{"peer_if_name":"\\ud800"}}', '{"veth":{}}', "[1", "\0"])
def test_whatever_is_at_a_key_can_be_deleted(etcd: Etcd, editor: Editor, odd: str) -> None:
    etcd.put(key("a"), odd)
    assert editor.delete("a") == [Edit("delete", "a", key("a"))]
    assert etcd.values("") == {}


def test_values_are_what_an_agent_is_told(etcd: Etcd, editor: Editor, follow: Follow) -> None:
    etcd.fill(many(50))
    for name, raw in {
        "bad": "{",
        "a/b": "{}",
        "other": text("x"),
        "warned": text("warned", linux_namespace={}),
    }.items():
        etcd.put(key(name), raw)
    consumer = follow(etcd.url)
    consumer.hear()
    assert repr(editor.values()) == repr(consumer.values)  # two problems with the same words are not equal


# --- what goes wrong


def test_the_first_member_that_answers_is_taken(cluster: Cluster) -> None:
    gone = f"etcd://127.0.0.1:{free_port()},"
    editor = EtcdEditor(cluster.url.replace("etcd://", gone), LABEL)
    editor.put(A)
    cluster.members[0].kill()
    assert editor.values()["a"].interface == A
    editor.put(B)
    assert wanted(cluster.members[2]).keys() == {"a", "b"}


def test_no_member_answers_and_each_says_why() -> None:
    ports = free_port(), free_port()
    editor = EtcdEditor(f"etcd://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", LABEL)
    for call in (editor.values, editor.stored, lambda: editor.put(A), lambda: editor.delete("a")):
        with raises(StoreError, code=StoreCode.UNREACHABLE) as raised:
            call()
        assert all(f"127.0.0.1:{port}: " in str(raised.value) for port in ports)


def test_who_is_refused_is_not_refused_again_by_every_member(etcd_with_auth: Etcd) -> None:
    with Proxy(etcd_with_auth.address) as proxy:
        url = f"etcd://root:wr0ng@{etcd_with_auth.endpoint},{proxy.endpoint}"
        with raises(StoreError, code=StoreCode.WRONG_PASSWORD) as raised:
            EtcdEditor(url, LABEL).put(A)
        assert type(raised.value) is StoreError
        assert proxy.accepted == 0


def test_a_user_may_edit_what_its_role_allows(etcd_with_auth: Etcd) -> None:
    etcd_with_auth.add_user("editor", "p@ss", PREFIX)
    url = f"etcd://editor:p%40ss@{etcd_with_auth.endpoint}"
    assert len(EtcdEditor(url, LABEL).put(A, B)) == 2
    assert wanted(etcd_with_auth).keys() == {"a", "b"}
    with raises(StoreError, code="not-permitted"):
        EtcdEditor(url, "other").put(A)


def test_a_reader_reads_and_is_told_that_it_may_not_write(etcd_with_auth: Etcd) -> None:
    etcd_with_auth.add_user("reader", "pass", PREFIX, kind="read")
    editor = EtcdEditor(f"etcd://reader:pass@{etcd_with_auth.endpoint}", LABEL)
    assert editor.values() == {}
    with raises(StoreError, code=StoreCode.NOT_PERMITTED, names=("a", "b"), done=0, left=2):
        editor.put(A, B)
    with raises(StoreError, code=StoreCode.NOT_PERMITTED, done=0, left=2 * OPS):
        editor.put(*pairs(OPS))
    assert etcd_with_auth.values(PREFIX) == {}


def test_an_etcd_with_certificates_is_edited(make_etcd: MakeEtcd, tls: Callable[..., Any]) -> None:
    server = make_etcd(tls=tls(asks=True))
    server.start()
    EtcdEditor(server.url, LABEL).put(A)
    assert wanted(server) == {"a": to_dict(A)}


@pytest.mark.parametrize("size", [1_600_000, 3_000_000])
def test_a_value_that_is_too_large_is_named_and_what_was_stored_is_counted(
    etcd: Etcd, editor: Editor, size: int
) -> None:
    large = interface("large", "z", description="x" * size)
    with raises(StoreError, code=StoreCode.TOO_LARGE, names=("large",), done=0, left=1):
        editor.put(large)
    with raises(StoreError, code=StoreCode.TOO_LARGE, names=("large",), done=OPS, left=2):
        editor.put(*pairs(OPS // 2), large, interface("z1", "z2"))
    assert len(wanted(etcd)) == OPS


def test_values_that_are_large_together_are_stored_in_more_transactions(etcd: Etcd, editor: Editor) -> None:
    before = etcd.revision
    editor.put(
        *pairs(10, description="x" * 100_000), *(interface(name, "x", description="x" * 700_000) for name in "yz")
    )
    assert len(wanted(etcd)) == 22
    assert etcd.revision - before == 4


def test_what_was_done_before_a_connection_was_lost_is_told(etcd: Etcd) -> None:
    with Proxy(etcd.address) as proxy:

        def progress(_what: str, done: int, _total: int) -> None:
            if done == 3 * OPS:
                proxy.refuse()
                proxy.cut()

        editor = EtcdEditor(proxy.url, LABEL, progress=progress)
        with pytest.raises(StoreError) as raised:
            editor.put(*pairs(5 * OPS))
        message = str(raised.value)
        assert message.startswith(f"{proxy.endpoint}: ")
        assert message.endswith(
            f"; {3 * OPS} of {10 * OPS} were stored before the error; "
            "changes in progress may have been made, too: run the command again"
        )
        stored = len(wanted(etcd))
        assert stored in (3 * OPS, 4 * OPS)
        proxy.accept()
        assert len(EtcdEditor(proxy.url, LABEL).put(*pairs(5 * OPS))) == 10 * OPS - stored


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(etcd: Etcd, editor: Editor) -> None:
    etcd.pause()
    try:
        with raises(StoreError, code="no-answer"):
            editor.values()
    finally:
        etcd.resume()
    assert editor.values() == {}
