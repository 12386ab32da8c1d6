"""vethctl on an etcd: put, get, del, list and dump, with etcdctl as the other one who reads and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_fixtures import MakeEtcd
from tests.backends.ports import free_port
from tests.commands import Vethctl, runner
from tests.live.applying import EXAMPLES, value
from vethlib.agent import load

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
    assert vethctl("put", str(EXAMPLES / "pair"), "--json").json == []
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
    assert "linux_namespace" in found["sample"]["problem"]
    dumped = vethctl("dump")
    assert dumped.json == [json.loads(OTHERS[name]) for name in sorted(OTHERS)]
    before = etcd.revision
    assert vethctl("put", "-", "--json", stdin=dumped.out).json == []
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
        said = vethctl(*argv, "--json")
        assert (said.code, said.out, said.error["code"]) == (1, "", "invalid-value")
        assert all(label in said.error["error"] for label in ("vpp1", "vpp2"))


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
    assert f"key '{KEY}a/b': " in lines[2]
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
    said = vethctl("dump", "--json")
    assert (said.code, [one["name"] for one in said.json]) == (1, ["veth1", "veth2"])
    assert [one["code"] for one in said.errors] == ["invalid-value"] * 2
    for error, place in zip(said.errors, ("bad: line 1, column 2: ", "other: name 'x': "), strict=True):
        assert f"{KEY}{place}" in error["error"]
    said = vethctl("get", "bad")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"vethctl: NAME 'bad': {KEY}bad: line 1, column 2: not JSON")
    assert vethctl("get", "other").json["name"] == "x"
    assert vethctl("put", "-", stdin=text(value("bad", "other"), value("other", "bad"))).out.splitlines()[0][0] == "~"
    assert vethctl("dump").code == 0


def test_a_dump_for_people_has_a_line_for_each_value(vethctl: Vethctl, etcd: Etcd, pair: None) -> None:
    etcd.put(f"{KEY}bad", "{")
    said = vethctl("dump", "--table")
    assert said.code == 1
    assert f"{KEY}bad: " in said.err
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
    assert (said.code, said.out) == (0, "")
    assert etcd.url in said.err
    assert vethctl("dump").json == []
    for name in ("veth1", "eth0@ns1"):
        said = vethctl("get", name, "--json")
        assert (said.code, said.error["code"], said.error["field"]) == (2, "not-stored", "NAME")
        assert (etcd.url in said.error["error"], name in said.error["error"]) == (True, True)
        assert f"vethctl list --store {etcd.url}" in said.error["hint"]
    etcd.kill()
    for argv in (["put", "-"], ["get", "a"], ["del", "a"], ["list"], ["dump"], ["status"], ["status", "--watch"]):
        said = vethctl(*argv, "--json", stdin=text(value("a", "b")))
        assert (said.code, said.out, said.error["code"]) == (2, "", "store-error")
        assert said.error["error"].startswith(f"{etcd.endpoint}: ")


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
    assert [code for _, _, code, _ in said.reasons] == ["wrong-password"]
    said = vethctl("list", "--store", url.split("vethlib")[0] + url.split("@")[1], "--json")
    assert [code for _, _, code, _ in said.reasons] == ["user-required"]


def test_certificates_are_shown_and_asked_for(vethctl: Vethctl, make_etcd: MakeEtcd, tls: Callable[..., Any]) -> None:
    server = make_etcd(tls=tls(asks=True))
    server.start()
    assert vethctl("put", str(EXAMPLES / "pair"), "--store", server.url).code == 0
    assert len(vethctl("dump", "--store", server.url).json) == 2
    said = vethctl("list", "--store", f"etcd://{server.endpoint}", "--json")
    assert said.code == 2
    assert [code for _, _, code, _ in said.reasons] == ["tls-required"]


def test_the_shell_is_offered_what_an_etcd_holds(vethctl: Vethctl, etcd: Etcd) -> None:
    etcd.put(f"{KEY}veth1", json.dumps(value("veth1", "veth2")))
    etcd.put(f"{KEY}wrong", '{"name": "wrong", "mtu": "big"}')  # which can be got and deleted, too
    assert vethctl("complete", "--", "del", "").out.split() == ["veth1", "wrong"]
