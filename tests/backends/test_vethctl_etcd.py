"""vethctl on an etcd: put, get, del, list, dump and status, with etcdctl as the other one who reads and writes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_fixtures import MakeEtcd
from tests.backends.ports import free_port
from tests.backends.proxy import Proxy
from tests.commands import Said, Vethctl, runner
from tests.live.applying import EXAMPLES, value
from tests.witness import poll, seen
from vethlib import ns
from vethlib.agent import State, load
from vethlib.agent.status import Status
from vethlib.agent.stores.etcd.store import EtcdStore

ROOT = Path(__file__).parents[2]
KEY = "/vnf-agent/vpp1/linux/config/v1/interface/"
STATUS = "/vnf-agent/vpp1/linux/status/v1/interface/"
ALIVE = "/vnf-agent/vpp1/check/status/v1/agent"
VETHCTL = [sys.executable, "-m", "vethlib"]

pytestmark = pytest.mark.usefixtures("nothing_open")


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, etcd: Etcd) -> Vethctl:
    monkeypatch.setenv("VETHLIB_STORE", etcd.url)
    return runner(capsys, monkeypatch)


@pytest.fixture
def pair(vethctl: Vethctl) -> None:
    assert vethctl("put", str(EXAMPLES / "pair")).code == 0


def text(*values: dict[str, Any]) -> str:
    return json.dumps(values[0] if len(values) == 1 else values)


def keys(etcd: Etcd) -> list[str]:
    """The ends of what is below the label's prefix."""
    return [found.decode().removeprefix(KEY) for found in etcd.values(KEY)]


# --- put, get, del, list, dump


def test_what_is_put_is_what_etcdctl_gets(vethctl: Vethctl, etcd: Etcd) -> None:
    said = vethctl("put", str(EXAMPLES / "pair"))
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"+ veth1  {KEY}veth1",
        f"+ veth2  {KEY}veth2",
        "stored: added 2 interfaces",
    ]
    assert etcd.ctl("get", f"{KEY}veth2", "--print-value-only") == (
        '{"name":"veth2","type":0,"enabled":true,"mtu":1500,"ip_addresses":["192.168.22.2/24"],'
        '"namespace":{"type":2,"name":"ns2"},"veth":{"peer_if_name":"veth1"}}\n'
    )
    before = etcd.revision
    assert vethctl("put", str(EXAMPLES / "pair")).out == "nothing to change: 2 interfaces already stored\n"
    assert etcd.revision == before
    said = vethctl("put", f"{KEY}veth1", "-", "--json", stdin=text(value("veth1", "veth2")))
    assert said.json == [{"op": "change", "name": "veth1", "source": f"{KEY}veth1"}]
    assert etcd.values(f"{KEY}veth1") == {
        f"{KEY}veth1".encode(): b'{"name":"veth1","enabled":true,"veth":{"peer_if_name":"veth2"}}'
    }


OTHERS = {
    "integers": '{"name":"integers","type":0,"enabled":true,"namespace":{"type":2,"name":"ns1"},'
    '"veth":{"peer_if_name":"peer"},"ip_addresses":["10.0.0.1/24",""]}',
    "names": '{"veth":{"peer_if_name":"peer"},"ip_addresses":["10.0.0.1/24"],"type":"VETH","enabled":true,'
    '"namespace":{"name":"ns1","type":"NAMED_NS"},"name":"names"}',
    "camel": '{"name":"camel","enabled":true,"namespace":{"type":2,"name":"ns1"},"veth":{"peerIfName":"peer"},'
    '"ipAddresses":["10.0.0.1/24"],"physAddress":"","hostIfName":""}',
    "sample": '{"name":"sample","enabled":true,"linux_namespace":{"type":2,"name":"ns1"},'
    '"veth":{"peer_if_name":"peer"},"ip_addresses":["10.0.0.1/24"]}',
}


def test_what_other_clients_write_is_read_in_every_spelling(vethctl: Vethctl, etcd: Etcd) -> None:
    for name, raw in OTHERS.items():
        etcd.put(KEY + name, raw)
        assert vethctl("get", name).json == json.loads(raw)
    found = {one["name"]: one for one in vethctl("list", "--json").json}
    assert found.keys() == OTHERS.keys()
    for name, one in found.items():
        assert (one["valid"], one["netns"], one["peer"]) == (True, "netns:ns1", "peer")
        assert (one["addresses"], one["enabled"], one["source"]) == (["10.0.0.1/24"], True, KEY + name)
    assert "linux_namespace is a former name of namespace" in found["sample"]["problem"]
    dumped = vethctl("dump")
    assert dumped.json == [json.loads(OTHERS[name]) for name in sorted(OTHERS)]
    before = etcd.revision
    assert vethctl("put", "-", stdin=dumped.out).out == "nothing to change: 4 interfaces already stored\n"
    assert etcd.revision == before
    etcd.delete_prefix(KEY)
    assert vethctl("put", "-", stdin=dumped.out).code == 0
    namespace = '"namespace":{"type":2,"name":"ns1"}'
    strict = f'"enabled":true,"ip_addresses":["10.0.0.1/24"],{namespace}'
    # Defaults that were written out are so again.
    written = {"integers": f'"type":0,{strict}', "names": f'"type":0,{strict}', "sample": strict}
    written["camel"] = f'"enabled":true,"phys_address":"","ip_addresses":["10.0.0.1/24"],{namespace},"host_if_name":""'
    for name in OTHERS:
        raw = f'{{"name":"{name}",{written[name]},"veth":{{"peer_if_name":"peer"}}}}'
        assert etcd.values(KEY + name) == {(KEY + name).encode(): raw.encode()}


def test_a_dump_restores_also_in_a_directory_and_back(vethctl: Vethctl, etcd: Etcd, tmp_path: Path) -> None:
    assert vethctl("put", str(EXAMPLES / "star")).code == 0
    before = etcd.values(KEY)
    assert len(before) == 40
    directory = f"dir:{tmp_path / 'conf'}"
    assert vethctl("put", "-", "--store", directory, stdin=vethctl("dump").out).code == 0
    assert load([tmp_path / "conf"]).interfaces == load([EXAMPLES / "star"]).interfaces
    assert vethctl("del", "--prefix", *{name[:2] for name in keys(etcd)}).code == 0
    assert etcd.values(KEY) == {}
    assert vethctl("put", "-", stdin=vethctl("dump", "--store", directory).out).code == 0
    assert etcd.values(KEY) == before


def test_names_and_full_keys_mean_the_same_everywhere(vethctl: Vethctl, etcd: Etcd, pair: None) -> None:
    assert vethctl("get", "veth1").json == vethctl("get", f"{KEY}veth1").json
    assert vethctl("del", f"{KEY}veth1").out.splitlines()[0] == f"- veth1  {KEY}veth1"
    assert vethctl("del", "veth2").code == 0
    assert etcd.values("") == {}
    other = KEY.replace("vpp1", "vpp2")
    for argv in (
        ["get", f"{other}veth1"],
        ["del", f"{other}veth1"],
        ["del", "--prefix", other],
        ["status", f"{other}a"],
    ):
        said = vethctl(*argv)
        assert (said.code, said.out) == (1, "")
        assert "the key belongs to label vpp2, not vpp1" in said.err


def test_del_deletes_exactly_what_is_named_and_by_prefix_only_when_told_to(vethctl: Vethctl, etcd: Etcd) -> None:
    vethctl("put", "-", stdin=text(*(value(name, "x") for name in ("a1", "veth", "veth1", "veth10", "veth2"))))
    etcd.put(f"{KEY}veth1/x", "1")
    assert vethctl("del", "veth1").code == 0
    assert keys(etcd) == ["a1", "veth", "veth1/x", "veth10", "veth2"]
    assert vethctl("del", "--prefix", f"{KEY}veth1").code == 0
    assert keys(etcd) == ["a1", "veth", "veth2"]
    assert vethctl("del", "--prefix", "ve").code == 0
    for argv in (["del", "--prefix", KEY], ["del", "--prefix", ""], ["del", "--prefix", "/vnf-agent/"]):
        assert vethctl(*argv).code == 1
    assert keys(etcd) == ["a1"]


def test_diff_takes_what_is_stored(vethctl: Vethctl, etcd: Etcd, pair: None) -> None:
    said = vethctl("diff", "--json")
    assert said.code == 1
    assert {one["interface"] for one in said.json if one["op"] == "create"} == {"veth1", "veth2"}
    etcd.put(f"{KEY}veth1", "no JSON")
    said = vethctl("diff", "--json")
    assert (said.code, said.json, said.errors[0]["code"]) == (1, [], "invalid-value")


def test_a_key_that_no_interface_can_have_is_listed_and_deleted_by_what_is_shown_of_it(
    vethctl: Vethctl, etcd: Etcd, pair: None
) -> None:
    for end in ("a/b", "a b", "c/d"):
        etcd.put(KEY + end, "{}")
    lines = vethctl("list").out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["key:a b", "key:a/b", "key:c/d"]
    assert f"key '{KEY}a/b': must not contain '/'" in lines[2]
    assert vethctl("get", f"{KEY}a/b").json == {}
    assert vethctl("del", f"{KEY}a/b", "key:a b").code == 0
    assert vethctl("del", "--prefix", f"{KEY}c/").code == 0
    assert keys(etcd) == ["veth1", "veth2"]


def test_a_value_that_is_no_value_is_listed_and_not_dumped_as_if_it_were(
    vethctl: Vethctl, etcd: Etcd, pair: None
) -> None:
    etcd.put(f"{KEY}bad", "{")
    etcd.put(f"{KEY}other", text(value("x", "y")))
    listed = {one["name"]: one for one in vethctl("list", "--json").json}
    assert {name: one["valid"] for name, one in listed.items()} == {
        "bad": False,
        "other": False,
        "veth1": True,
        "veth2": True,
    }
    said = vethctl("dump")
    assert (said.code, [one["name"] for one in said.json]) == (1, ["veth1", "veth2"])
    assert said.err.splitlines() == [
        f"vethctl: not in the dump: {KEY}bad: line 1, column 2: not JSON: "
        "expecting property name enclosed in double quotes",
        f"vethctl: not in the dump: {KEY}other: name 'x': the key is for 'other': name and key have to agree",
    ]
    said = vethctl("get", "bad")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"vethctl: NAME 'bad': {KEY}bad: line 1, column 2: not JSON")
    assert vethctl("get", "other").json["name"] == "x"
    assert vethctl("put", "-", stdin=text(value("bad", "other"), value("other", "bad"))).out.splitlines()[0][0] == "~"
    assert vethctl("dump").code == 0


def test_a_dump_for_people_has_a_line_for_each_value(vethctl: Vethctl, etcd: Etcd, pair: None) -> None:
    etcd.put(f"{KEY}bad", "{")
    said = vethctl("dump", "--table")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == ["NAME", "SOURCE", "VALUE"]
    assert lines[1].split(maxsplit=2)[:2] == ["bad", f"{KEY}bad"]
    assert "not JSON" in lines[1]
    name, source, shown = lines[3].split(maxsplit=2)
    assert (name, source, json.loads(shown)["veth"]) == ("veth2", f"{KEY}veth2", {"peer_if_name": "veth1"})
    assert [one["name"] for one in vethctl("dump", "--table", "--json").json] == ["veth1", "veth2"]


def test_what_this_version_does_not_know_is_stored_unchecked(vethctl: Vethctl, etcd: Etcd) -> None:
    tap = '{"name": "tap1", "tap": {"version": 2}}'
    assert vethctl("put", "tap1", "-", stdin=tap).code == 1
    assert etcd.values("") == {}
    assert vethctl("put", "tap1", "-", "--no-validate", stdin=tap).code == 0
    assert etcd.ctl("get", f"{KEY}tap1", "--print-value-only") == f"{tap}\n"
    assert vethctl("get", "tap1").json == json.loads(tap)
    assert vethctl("put", f"{KEY}a/b", "-", "--no-validate", stdin='{"name":"a/b"}').code == 1
    assert keys(etcd) == ["tap1"]


def test_an_empty_etcd_is_no_error_and_one_that_is_not_there_is(vethctl: Vethctl, etcd: Etcd) -> None:
    said = vethctl("list")
    assert (said.code, said.out, said.err) == (0, "", f"no interfaces in {etcd.url}\n")
    assert vethctl("dump").json == []
    said = vethctl("get", "veth1")
    assert (said.code, said.err.splitlines()) == (
        2,
        [
            f"vethctl: {etcd.url}: there is no interface 'veth1'",
            f"  to see all interfaces: vethctl list --store {etcd.url}",
        ],
    )
    assert vethctl("get", "eth0@ns1").err.splitlines()[0] == f"vethctl: {etcd.url}: there is no interface 'eth0@ns1'"
    etcd.kill()
    for argv in (["put", "-"], ["get", "a"], ["del", "a"], ["list"], ["dump"], ["status"], ["status", "--watch"]):
        said = vethctl(*argv, "--json", stdin=text(value("a", "b")))
        assert (said.code, said.out, said.error["code"]) == (2, "", "store-error")
        assert said.error["error"] == f"{etcd.endpoint}: connection refused: no etcd listens there"


def test_a_label_has_its_own_keys(vethctl: Vethctl, etcd: Etcd, pair: None) -> None:
    assert vethctl("list", "--json", "--label", "vpp2").json == []
    assert vethctl("put", "-", "--label", "vpp2", stdin=text(value("veth1", "x"))).code == 0
    assert vethctl("del", "veth1", "--label", "vpp2").code == 0
    assert keys(etcd) == ["veth1", "veth2"]


# --- who may


SECRET = "s3c:r@t/cr3t"
ENCODED = "s3c%3Ar%40t%2Fcr3t"


@pytest.fixture
def url(etcd_with_auth: Etcd) -> str:
    etcd_with_auth.add_user("vethlib", SECRET, "/vnf-agent/")
    return f"etcd://vethlib:{ENCODED}@{etcd_with_auth.endpoint}"


def test_a_password_opens_an_etcd_from_the_url_or_from_a_file(vethctl: Vethctl, url: str, tmp_path: Path) -> None:
    assert vethctl("put", str(EXAMPLES / "pair"), "--store", url).code == 0
    (tmp_path / "pw").write_text(f"{SECRET}\n")
    by_file = f"{url.replace(f':{ENCODED}@', '@')}?password-file={tmp_path}/pw"
    assert len(vethctl("dump", "--store", by_file).json) == 2


def test_no_password_is_ever_printed(vethctl: Vethctl, url: str, etcd_with_auth: Etcd) -> None:
    bad = [
        url,
        url.replace("s3c", "s3cx"),
        url.replace("vethlib:", "nobody:"),
        url.replace(etcd_with_auth.endpoint, f"127.0.0.1:{free_port()}"),
        f"{url}?x=1",
        f"{url}?lease=x",
        f"{url}?cacert=/nowhere",
        f"{url}x",
        url.replace("etcd://", "etcd:"),
        url.replace("etcd://", ""),
        url.replace("etcd://", "http://"),
        f"etcd://vethlib:{SECRET}",
        f"etcd://vethlib:{SECRET}@",
        f"etcd://vethlib:?{SECRET}@h",
    ]
    commands = (
        ["put", "-"],
        ["put", "-", "--no-validate"],
        ["get", "a"],
        ["del", "a"],
        ["del", "a", "--prefix"],
        ["list"],
        ["dump"],
        ["dump", "--table"],
        ["status"],
        ["status", "--all-labels"],
    )
    for store in bad:
        for argv in commands:
            for form in ([], ["--json"]):
                said = vethctl(*argv, *form, "--store", store, stdin=text(value("b", "c")))
                shown = said.out + said.err
                assert "s3c" not in shown, shown
                assert "cr3t" not in shown, shown
                assert "Traceback" not in shown
    for argv in (
        ["list", url],
        ["get", url],
        ["put", url],
        [url],
        ["list", f"--stor={url}"],
        ["del", url],
        ["status", url],
    ):
        said = vethctl(*argv)
        assert said.code in (1, 2)
        assert "s3c" not in said.out + said.err


def test_an_agent_does_not_print_the_password_either(url: str, etcd_with_auth: Etcd) -> None:
    wrong = url.replace("s3c", "s3cx")
    for store in (url, wrong, f"{url}?x=1", f"{url}?cacert=/nowhere"):
        done = _agent_once(store)
        assert "s3c" not in done.stdout + done.stderr
        assert "cr3t" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def _agent_once(store: str) -> subprocess.CompletedProcess[str]:
    # With a timeout of its own for a store that cannot be read.
    command = ["timeout", "5", *VETHCTL, "agent", "--once", "--docker", "off", "--label", "pw", "--store", store]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_what_is_not_allowed_is_told_with_the_cure(vethctl: Vethctl, url: str) -> None:
    said = vethctl("list", "--store", url.replace("s3c", "s3cx"), "--json")
    assert (said.code, said.error["code"]) == (2, "store-error")
    assert said.error["error"].endswith(": wrong user or password")
    said = vethctl("list", "--store", url.split("vethlib")[0] + url.split("@")[1])
    assert "it requires a user and a password" in said.err


def test_certificates_are_shown_and_asked_for(vethctl: Vethctl, make_etcd: MakeEtcd, tls: Callable[..., Any]) -> None:
    server = make_etcd(tls=tls(asks=True))
    server.start()
    assert vethctl("put", str(EXAMPLES / "pair"), "--store", server.url).code == 0
    assert len(vethctl("dump", "--store", server.url).json) == 2
    said = vethctl("list", "--store", f"etcd://{server.endpoint}")
    assert said.code == 2
    assert "it may require TLS" in said.err


# --- status


def status(name: str, state: State = State.CONFIGURED, reason: str = "", peer: str = "") -> Status:
    return Status(name, state, reason, time.time(), "netns:ns1", name, peer)


@pytest.fixture
def store(etcd: Etcd) -> Iterator[EtcdStore]:
    """What an agent of the label vpp1 publishes with."""
    store = EtcdStore(etcd.url, "vpp1")
    yield store
    store.close()


def publish(etcd: Etcd, store: EtcdStore, *statuses: Status) -> None:
    """Publish these, and wait for them to be there."""
    store.publish({one.name: one for one in statuses})

    def is_there(one: Status) -> bool:
        return str(one.state) in etcd.ctl("get", STATUS + one.name)

    assert poll(lambda: all(map(is_there, statuses)), 5)


def settled(etcd: Etcd, store: EtcdStore) -> None:
    """Wait until what is said is of all that is configured."""

    def is_so() -> bool:
        store.read()
        store.publish({})
        return _of(etcd, "config") == _of(etcd, "status")

    assert poll(is_so, 5)


def _of(etcd: Etcd, what: str) -> dict[str, int]:
    found = json.loads(etcd.ctl("get", "--prefix", KEY.replace("config", what), "-w", "json")).get("kvs", ())
    revisions = {}
    for one in found:
        name = b64decode(one["key"]).decode().rpartition("/")[2]
        said = json.loads(b64decode(one["value"]))
        revisions[name] = one["mod_revision"] if what == "config" else said["config_revision"]
    return revisions


def test_status_says_what_the_agent_of_the_label_has_published(
    vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore
) -> None:
    publish(etcd, store, status("veth2", peer="veth1"), status("veth1", State.PENDING, "waits", "veth2"))
    settled(etcd, store)
    said = vethctl("status")
    assert (said.code, said.err) == (3, "")
    assert [line.split() for line in said.out.splitlines()] == [
        ["INTERFACE", "NETNS", "LINK", "PEER", "STATE", "SINCE", "REASON"],
        ["veth1", "ns1", "veth1", "veth2", "PENDING", *said.out.splitlines()[1].split()[5:7], "waits"],
        ["veth2", "ns1", "veth2", "veth1", "CONFIGURED", *said.out.splitlines()[2].split()[5:7]],
        ["2", "interfaces:", "1", "PENDING,", "1", "CONFIGURED"],
    ]
    entries = vethctl("status", "--json").json
    revision = _of(etcd, "config")["veth1"]
    assert [(one["name"], one["config_revision"], one["stored_revision"]) for one in entries] == [
        ("veth1", revision, revision),
        ("veth2", revision, revision),
    ]
    assert vethctl("status", "veth2").code == 0
    assert [one["name"] for one in vethctl("status", f"{KEY}veth2", "--json").json] == ["veth2"]
    said = vethctl("status", "nope", "--json")
    assert (said.code, said.json, said.error["code"]) == (1, [], "no-such-interface")


def test_status_tells_what_the_agent_has_yet_to_see(vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    settled(etcd, store)
    assert vethctl("status").code == 0
    vethctl("put", "-", stdin=text(value("veth1", "veth2", mtu=1400), value("new", "x")))
    said = vethctl("status")
    assert said.code == 3
    rows = [line.split(maxsplit=2) for line in said.out.splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["new", "veth1", "veth2"]
    assert rows[0][1:] == ["PENDING", "the agent has not read it yet"]
    assert rows[1][2].endswith("the agent has not read its last change yet")
    assert "yet" not in rows[2][2]
    assert (vethctl("status", "veth1").code, vethctl("status", "veth2").code, vethctl("status", "new").code) == (
        3,
        0,
        3,
    )
    new = vethctl("status", "new", "--json").json[0]
    assert (new["state"], new["since"], new["netns"], new["ifindex"]) == ("PENDING", None, None, None)
    publish(etcd, store, status("new"))
    settled(etcd, store)
    assert vethctl("status").code == 0
    vethctl("del", "new")
    said = vethctl("status", "new")
    assert (said.code, said.out.rstrip().endswith("the agent has not read its deletion yet")) == (3, True)


def test_no_agent_is_told_with_what_waits_for_one(vethctl: Vethctl, etcd: Etcd, store: EtcdStore) -> None:
    store.close()
    said = vethctl("status")
    assert said.code == 2
    told = f"no agent with the label vpp1 is alive in {etcd.url}"
    assert said.err.splitlines() == [
        f"vethctl: {told}",
        f"  start one: vethctl agent --store {etcd.url} --label vpp1",
    ]
    vethctl("put", str(EXAMPLES / "pair"))
    said = vethctl("status")
    assert (said.code, said.out, said.err.splitlines()[0]) == (
        2,
        "",
        f"vethctl: {told}; existing pairs stay, and the state of 2 interfaces is unknown",
    )
    said = vethctl("status", "veth1", "--json")
    assert (said.code, said.json, said.error["code"]) == (2, [], "not-running")


JUNK: tuple[dict[str, Any], ...] = (
    {"state": []},
    {"since": 5},
    {"since": "yesterday"},
    {"config_revision": "a"},
    {"reason": 5},
    {"netns": 7},
    {"peer": None},
    {"name": "veth1"},
)


def test_a_status_that_no_agent_writes_is_shown_as_none(
    vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    settled(etcd, store)
    vethctl("put", "-", "--label", "other", stdin=text(value("a", "b")))
    for junk in JUNK:
        etcd.put(STATUS + "veth2", json.dumps(status("veth2").as_dict() | {"config_revision": 1} | junk))
        etcd.put(STATUS.replace("vpp1", "other") + "a", json.dumps(status("a").as_dict() | junk))
        said = vethctl("status")
        assert (said.code, said.err) == (3, "")
        assert [line.split()[0] for line in said.out.splitlines()[1:-1]] == ["veth1", "veth2"]
        assert said.out.splitlines()[-2].endswith("the agent has not read it yet")
        found = {one["label"]: one for one in vethctl("status", "--all-labels", "--json").json}
        assert (found["vpp1"]["states"], found["vpp1"]["untold"]) == ({"CONFIGURED": 1}, 1)
        assert (found["other"]["states"], found["other"]["untold"]) == ({}, 1)
        assert "1 unknown" in vethctl("status", "--all-labels").out


@pytest.mark.parametrize("since", ["1e30", "1700000000000000000", "-1", "NaN", "true", '"x"', "253402300799.9999999"])
def test_an_agent_that_is_alive_since_a_time_that_is_none_is_alive(vethctl: Vethctl, etcd: Etcd, since: str) -> None:
    etcd.put(ALIVE, f'{{"pid": true, "host": "h", "start_time": {since}}}')
    assert vethctl("status").code == 0
    assert vethctl("status", "--all-labels").out.splitlines()[1].split() == ["vpp1", "h"]
    (found,) = vethctl("status", "--all-labels", "--json").json
    assert found["agent"] == {"host": "h", "pid": 0, "since": None}


def test_what_is_none_of_an_agents_is_passed_over(vethctl: Vethctl, etcd: Etcd, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"))
    odd: tuple[str | bytes, ...] = ("{", "[]", "{}", b"\xff", "[" * 100_000)
    for name, raw in zip("abcde", odd, strict=True):
        etcd.put(STATUS + name, raw)
    assert [one["name"] for one in vethctl("status", "--json").json] == ["veth1"]
    for raw in ("{", "[]", "[" * 100_000, '{"state":1}', '{"pid":"x","host":7,"start_time":"?"}'):
        etcd.put(ALIVE, raw)
        assert vethctl("status").code == 0
        assert vethctl("status", "--all-labels").code == 0


def test_who_may_only_look_at_statuses_is_shown_them(vethctl: Vethctl, etcd_with_auth: Etcd) -> None:
    etcd_with_auth.add_user("eye", "pass", STATUS, ALIVE, kind="read")
    etcd_with_auth.put(ALIVE, '{"pid":7,"host":"h"}')
    entry = status("veth1").as_dict() | {"config_revision": 1}
    etcd_with_auth.put(STATUS + "veth1", json.dumps(entry))
    etcd_with_auth.put(KEY + "veth1", text(value("veth1", "x")))
    said = vethctl("status", "--json", "--store", f"etcd://eye:pass@{etcd_with_auth.endpoint}")
    assert (said.code, said.json) == (0, [entry])
    said = vethctl("list", "--store", f"etcd://eye:pass@{etcd_with_auth.endpoint}")
    assert (said.code, "this user is not permitted to do that" in said.err) == (2, True)


def test_status_is_that_of_this_host_where_no_etcd_is_named(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "veth1.json").write_text(json.dumps(status("veth1").as_dict()))
    for store in (f"dir:{tmp_path}/conf", ""):
        said = vethctl("status", "--store", store, "--status-dir", str(tmp_path), "--json")
        assert [one["name"] for one in said.json] == ["veth1"]
        assert "runs on this host; shown are the statuses of the last one" in said.err
    # What is named exactly is looked at, whatever the environment says.
    assert len(vethctl("status", "--status-dir", str(tmp_path), "--json").json) == 1


def test_all_labels_are_shown_a_line_each(vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2", State.FAILED, "no such device"))
    settled(etcd, store)
    vethctl("put", "-", "--label", "other", stdin=text(value("a", "b"), value("b", "a")))
    etcd.put("/vnf-agent/x y/linux/config/v1/interface/a", "{}")
    etcd.put("/vnf-agent/third/vpp/config/v2/interfaces/a", "{}")
    etcd.put("/vnf-agent/vpp10/check/status/v1/agent", '{"pid":42,"host":"h2"}')
    said = vethctl("status", "--all-labels")
    assert said.code == 2
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0] == "LABEL AGENT SINCE INTERFACES WORST"
    assert lines[1] == "other no agent 2 unknown"
    assert lines[2].startswith(f"vpp1 {os.uname().nodename} {os.getpid()} ")
    assert lines[2].endswith(" 1 CONFIGURED, 1 FAILED veth2: no such device")
    assert lines[3:] == ["vpp10 h2 42"]
    found = {one["label"]: one for one in vethctl("status", "--all-labels", "--json").json}
    assert found["other"] == {"label": "other", "agent": None, "states": {}, "untold": 2, "worst": None}
    assert found["vpp1"]["states"] == {"CONFIGURED": 1, "FAILED": 1}
    assert found["vpp1"]["worst"] == {"name": "veth2", "state": "FAILED", "reason": "no such device"}
    assert found["vpp10"]["agent"] == {"host": "h2", "pid": 42, "since": None}
    etcd.delete_prefix("/vnf-agent/other/")
    publish(etcd, store, status("veth2"))
    assert vethctl("status", "--all-labels").code == 0
    for argv in (["veth1"], ["--watch"], ["--store", "dir:/x"]):
        said = vethctl("status", "--all-labels", *argv, "--json")
        assert (said.code, said.error["code"], said.error["field"]) == (1, "usage", "--all-labels")


# --- status --watch


class Watching:
    """vethctl status --watch, whose lines are read as they come."""

    def __init__(self, url: str, *options: str) -> None:
        command = [*VETHCTL, "status", "--watch", "--store", url, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.out: list[str] = []
        self.err: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._threads = [threading.Thread(target=_collect, args=pipe) for pipe in pipes]
        for thread in self._threads:
            thread.start()

    def wait_for(self, *lines: str) -> None:
        """Wait for so many lines more, and for them to be these."""
        assert poll(lambda: len(self.out) >= len(lines), 10), (self.out, self.err)
        assert self.out[: len(lines)] == list(lines)
        del self.out[: len(lines)]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        for thread in self._threads:
            thread.join()
        return code


def _collect(pipe: IO[str], lines: list[str]) -> None:
    with pipe:
        for line in pipe:
            lines.append(line.rstrip("\n"))


@pytest.fixture
def watch() -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def begin(url: str, *options: str) -> Watching:
        made.append(Watching(url, *options))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_watch_writes_a_line_for_each_change(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    watching = watch(etcd.url)
    watching.wait_for("veth1 CONFIGURED", "veth2 CONFIGURED")
    publish(etcd, store, status("veth1", State.PENDING, "waits"))
    watching.wait_for("veth1 PENDING waits")
    store.publish({"veth2": None})
    watching.wait_for("veth2 removed")
    store.close()
    watching.wait_for("veth1 removed")
    assert (watching.end(), watching.out, watching.err) == (130, [], [])


def test_watch_of_one_interface_as_json_tells_of_no_other(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    watching = watch(etcd.url, f"{KEY}veth2", "--json")
    assert poll(lambda: len(watching.out) == 1, 10)
    publish(etcd, store, status("veth1", State.PENDING), status("veth2", State.PENDING))
    assert poll(lambda: len(watching.out) == 2, 10)
    assert [json.loads(line)["state"] for line in watching.out] == ["CONFIGURED", "PENDING"]
    assert {json.loads(line)["name"] for line in watching.out} == {"veth2"}


def test_watch_goes_on_when_the_connection_was_lost_and_says_so(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    with Proxy(etcd.address) as proxy:
        watching = watch(proxy.url)
        watching.wait_for("veth1 CONFIGURED", "veth2 CONFIGURED")
        proxy.refuse()
        proxy.cut()
        assert poll(lambda: any("no etcd listens there; trying again" in line for line in watching.err), 10)
        publish(etcd, store, status("veth2", State.RETRYING, "once more"))
        etcd.compact()
        proxy.accept()
        watching.wait_for("veth2 RETRYING once more")
        assert poll(lambda: watching.err[-1] == "connected again")
        assert watching.err[0].startswith(f"warning: {proxy.endpoint}: ")
        assert watching.end() == 130


def test_watch_draws_a_terminal_anew_with_who_is_alive(etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    ours, theirs = pty.openpty()
    command = [*VETHCTL, "status", "--watch", "--store", etcd.url]
    seen_so_far = b""
    with subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=os.environ | {"TERM": "xterm"}) as watching:
        os.close(theirs)
        while b"veth2" not in seen_so_far:
            seen_so_far += os.read(ours, 65536)
        store.close()
        while b"no agent is running" not in seen_so_far:
            seen_so_far += os.read(ours, 65536)
        watching.send_signal(signal.SIGTERM)
    os.close(ours)
    assert f"agent {os.getpid()} on {os.uname().nodename}".encode() in seen_so_far
    assert seen_so_far.count(b"\x1b[H\x1b[J") >= 2


# --- the whole way


def test_what_is_put_is_built_and_told(vethctl: Vethctl, etcd: Etcd, tmp_path: Path) -> None:
    """vethctl put, an agent, and vethctl status that waits for it."""
    command = [*VETHCTL, "agent", "--docker", "off", "--status-dir", str(tmp_path), "--store", etcd.url]
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen(command, stderr=log, cwd=ROOT) as agent:
        try:
            assert vethctl("put", str(EXAMPLES / "pair")).code == 0
            assert poll(lambda: vethctl("status").code == 0, 10), (tmp_path / "log").read_text()
            assert seen("veth1", "ns1")["mtu"] == 1500
            changed = text(value("veth1", "veth2", "ns1", mtu=1400), value("veth2", "veth1", "ns2", mtu=1400))
            assert vethctl("put", "-", stdin=changed).code == 0
            assert poll(lambda: vethctl("status", "veth1").code == 0, 10)
            assert seen("veth1", "ns1")["mtu"] == 1400
            for again in (value("veth1", "veth2", "ns1", mtu=1400, description="x"), value("veth9", "veth2", mtu=5)):
                etcd.put(KEY + again["name"], text(again))
                assert poll(lambda: _of(etcd, "config") == _of(etcd, "status"), 5)
            assert vethctl("status", "veth1").code == 0
            assert "yet to see" not in vethctl("status").out
            assert vethctl("del", "veth1").code == 0
            assert poll(lambda: "peer veth1 is not configured" in vethctl("status").out, 10)
        finally:
            agent.terminate()
            agent.wait(10)
            for netns in ("ns1", "ns2"):
                ns.remove(netns)
    said: Said = vethctl("status")
    assert said.code == 2
    assert said.err.splitlines()[0].endswith("; existing pairs stay, and the state of 2 interfaces is unknown")


def test_the_shell_is_offered_what_an_etcd_holds(vethctl: Vethctl, etcd: Etcd) -> None:
    etcd.put(f"{KEY}veth1", json.dumps(value("veth1", "veth2")))
    etcd.put(f"{KEY}wrong", '{"name": "wrong", "mtu": "big"}')  # which can be got and deleted, too
    assert vethctl("complete", "--", "del", "").out.split() == ["veth1", "wrong"]
