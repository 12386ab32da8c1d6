"""What vethctl says when something is wrong: the argument, its value, and advice that leads somewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.witness import ip, names, seen

ROOT = Path(__file__).parents[2]
LONE = {"name": "lone", "enabled": True, "veth": {"peer_if_name": "other"}}


@pytest.fixture
def store(tmp_path: Path) -> str:
    directory = tmp_path / "store"
    directory.mkdir()
    (directory / "lone.json").write_text(json.dumps(LONE))
    return f"dir:{directory}"


@pytest.mark.parametrize(
    ("command", "field"),
    [("validate", "PATH"), ("diff", "PATH"), ("apply", "PATH"), ("graph", "PATH"), ("put", "FILE")],
)
def test_a_file_that_cannot_be_read_is_reported_as_the_argument_it_is(
    vethctl: Vethctl, store: str, command: str, field: str
) -> None:
    for flags in ([], ["--no-validate"])[: 2 if command == "put" else 1]:
        said = vethctl(command, "nowhere.json", *(["--store", store] if command == "put" else []), *flags, "--json")
        assert (said.code, said.error["code"], said.error["field"]) == (1, "unreadable-path", field)


def test_a_store_in_place_of_files_is_answered_with_its_directory(vethctl: Vethctl) -> None:
    assert vethctl("apply", "dir:store", "--json").error["hint"] == "of a store, give the directory alone: store"


def test_a_value_that_the_dump_reports_is_named_by_its_field(vethctl: Vethctl, store: str) -> None:
    Path(store.removeprefix("dir:"), "bad.json").write_text(json.dumps(LONE | {"name": "bad", "mtu": 20}))
    said = vethctl("dump", "--store", store, "--json")
    assert (said.code, said.error["code"], said.error["field"]) == (1, "invalid-value", "mtu")


def test_describe_and_validate_report_the_same_problem_alike(vethctl: Vethctl, store: str) -> None:
    path = Path(store.removeprefix("dir:"), "bad.json")
    path.write_text(json.dumps(LONE | {"name": "bad", "mtu": 20}))
    (described,) = vethctl("describe", "bad", "--store", store, "--json").json["problems"]
    ((validated,),) = (one["problems"] for one in vethctl("validate", str(path), "--json").json)
    assert described == validated
    assert described["value"] == "20"


@pytest.mark.parametrize("command", ["get", "del"])
def test_the_advice_about_an_interface_that_is_not_stored_keeps_the_label(
    vethctl: Vethctl, store: str, command: str
) -> None:
    error = vethctl(command, "nope", "--store", store, "--label", "host1", "--json").error
    assert error["hint"] == f"to see all interfaces: vethctl list --store {store} --label host1"
    error = vethctl(command, "nope", "--store", store, "--json").error
    assert error["hint"] == f"to see all interfaces: vethctl list --store {store}"


def test_the_advice_about_an_unknown_interface_keeps_what_selects_the_agent(
    vethctl: Vethctl, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = f"to see all interfaces: vethctl status --label host1 --status-dir {tmp_path}"
    where = ("--label", "host1", "--status-dir", str(tmp_path), "--json")
    assert vethctl("status", "nope", *where).errors[0]["hint"] == status
    assert vethctl("status", "nope*", *where).errors[0]["hint"] == status
    assert vethctl("describe", "nope", *where).error["hint"] == f"{status}, or give --store or another --label"
    monkeypatch.setenv("VETHLIB_LABEL", "host1")
    error = vethctl("describe", "nope", "--store", store, "--json").error
    assert error["hint"] == f"to see all interfaces: vethctl status --store {store}"


def test_describe_says_how_to_start_an_agent_as_status_does(vethctl: Vethctl, store: str) -> None:
    where = ("--store", store, "--label", "none", "--json")
    error = vethctl("describe", "lone", *where).error
    assert (error["code"], error["hint"]) == ("not-running", f"start one: vethctl agent --store {store} --label none")
    assert vethctl("status", *where).error["hint"] == error["hint"]


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["top", "--once", "--status-dir", "/nowhere"], "--status-dir"),
        (["graph", "--limit", "queues=8"], "--limit"),
        (["describe", "lone", "--limit", "queues=8"], "--limit"),
        (["agent", "--once", "--hook-states", "FAILED"], "--hook-states"),
        (["agent", "--once", "--hook-timeout", "3"], "--hook-timeout"),
    ],
)
def test_a_flag_without_effect_causes_a_warning(vethctl: Vethctl, store: str, argv: list[str], field: str) -> None:
    where = ["--store", store, "--docker", "off"] if argv[0] == "agent" else []
    said = vethctl(*argv, *where, "--json")
    found = [(line.get("code"), line.get("field")) for line in map(json.loads, said.err.splitlines())]  # or a log
    assert ("warning", field) in found
    assert "usage" not in dict(found)


def test_a_label_is_checked_alike_by_every_command(vethctl: Vethctl, store: str) -> None:
    for argv in (["confirm"], ["status"], ["list", "--store", store], ["watch"], ["graph"], ["top", "--once"]):
        error = vethctl(*argv, "--label", "a b", "--json").error
        assert (error["code"], error["field"]) == ("invalid-value", "--label"), argv


def test_a_flag_is_quoted_as_it_was_given(vethctl: Vethctl) -> None:
    said = vethctl("create", "a", "b", "--a-ipv6", "off", "--a-addr", "2001:db8::1/64")
    assert (said.code, said.err.startswith("vethctl: --a-ipv6 'off': ")) == (1, True)
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    said = vethctl("set", "a", "--ipv6", "off", "--addr", "2001:db8::1/64")
    assert (said.code, said.err.startswith("vethctl: --ipv6 'off': ")) == (1, True)


def test_an_alternative_name_that_is_taken_is_reported_as_such_by_create_and_set(vethctl: Vethctl) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    ip("link", "property", "add", "dev", "a", "altname", "other")
    for argv in (["create", "e", "f", "--a-altname", "other"], ["set", "b", "--altname", "other"]):
        error = vethctl(*argv, "--json").error
        assert error["code"] == "link-exists"
        assert "'other': a link of that name already exists there" in error["error"]
    assert names() == {"a", "b"}


def test_the_link_that_has_a_taken_name_is_found_by_the_advice(vethctl: Vethctl) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    ip("link", "property", "add", "dev", "a", "altname", "other")
    assert vethctl("create", "other", "c", "--json").error["hint"] == "to see it: vethctl show --all"
    assert "\n       altname other\n" in vethctl("show", "--all").out
    assert {one["name"]: one["altnames"] for one in vethctl("show", "--json").json} == {"a": ["other"], "b": []}


def test_set_may_only_wait(vethctl: Vethctl) -> None:
    ip("link", "add", "name", "a", "up", "type", "veth", "peer", "name", "b")
    said = vethctl("set", "a", "--wait", "0.1", "--json")
    assert (said.code, said.error["code"]) == (2, "wait-timeout")
    ip("link", "set", "dev", "b", "up")
    assert (
        vethctl("set", "a", "--wait", "60").out == f"~ 'a'  index {seen('a')['ifindex']}  {seen('a')['address']}  up\n"
    )
    assert vethctl("set", "a").code == 1
    assert vethctl("set", "a", "--down", "--wait", "60", "--json").error["field"] == "--wait"
    assert seen("a")["flags"].count("UP") == 1


def test_a_namespace_is_printed_by_the_name_that_list_has(vethctl: Vethctl) -> None:
    assert vethctl("netns", "add", "netns:n1", "--json").json == [{"name": "n1"}]
    assert vethctl("netns", "del", "netns:n1", "--json").json == [{"name": "n1"}]
    assert vethctl("netns", "add", "netns:n1", "a/b").out == "+ n1\n"
    assert vethctl("netns", "del", "netns:n1", "a/b").out == "- n1\n"


@pytest.mark.parametrize("action", ["add", "del"])
@pytest.mark.parametrize("name", ["path:/run/netns/x", "/run/netns/x", "..", "", "pid:1"])
def test_a_name_that_no_namespace_can_have_is_named_by_its_argument(vethctl: Vethctl, action: str, name: str) -> None:
    error = vethctl("netns", action, name, "--json").error
    if (action, name) == ("del", "pid:1"):
        assert error["code"] == "netns-not-found"  # ip can create it
    else:
        assert (error["code"], error["field"]) == ("invalid-value", "NAME")
        assert "path:" not in error["hint"]


def test_a_namespace_given_as_a_target_of_show_is_recognised(vethctl: Vethctl, blue: str) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    error = vethctl("move", "a", f"@{blue}", "--json").error
    assert (error["code"], error["hint"].endswith(f"give the name without the '@': {blue}")) == (
        "netns-not-found",
        True,
    )


def test_what_is_in_order_has_no_cure(vethctl: Vethctl) -> None:
    found = vethctl("doctor", "--json").json
    assert [one["check"] for one in found if one["ok"] and one["cure"]] == []


def test_a_directory_in_the_place_of_a_namespace_is_removed_as_the_advice_has_it(vethctl: Vethctl, blue: str) -> None:
    os.mkdir("/run/netns/dir")
    for argv in (["show", "@dir"], ["create", "a", "b@dir"], ["netns", "add", "dir"]):
        error = vethctl(*argv, "--json").error
        assert error["hint"] == "remove it first: rmdir /run/netns/dir"
        assert "(a directory; rmdir /run/netns/dir removes it)" in error["error"] or argv[0] == "netns"
        assert "netns del" not in error["error"]
    os.rmdir("/run/netns/dir")
    assert vethctl("netns", "add", "dir").code == 0


def test_the_advice_about_an_existing_namespace_has_its_name(vethctl: Vethctl, blue: str) -> None:
    hint = vethctl("netns", "add", blue, "--json").error["hint"]
    assert hint == f"use it as it is, or delete it first: vethctl netns del {blue}"


def test_who_may_not_enter_other_namespaces_is_told_what_is_missing(blue: str) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b", "netns", blue)
    vethctl = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "vethlib"]

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*vethctl, *argv], cwd=ROOT, capture_output=True, text=True, check=False)

    watched = "warning: only this namespace is watched: watching others needs CAP_SYS_ADMIN, "
    for argv in ([], [f"a@{blue}"], ["@blu*"]):
        assert run("watch", *argv, "--timeout", "0.1").stderr.startswith(watched)
    for argv in (["a@"], ["--only", "state", "--label", "x"]):
        assert watched not in run("watch", *argv, "--timeout", "0.1").stderr
    assert f"a ⇄ index {seen('b', blue)['ifindex']} in another namespace" in run("show").stdout
    assert run("delete", "a").stderr.startswith("vethctl: delete 1 link: ")


def test_a_peer_whose_value_is_invalid_is_not_called_missing(vethctl: Vethctl, store: str) -> None:
    directory = Path(store.removeprefix("dir:"))
    (directory / "other.json").write_text(json.dumps({"name": "other", "mtu": 20, "veth": {"peer_if_name": "lone"}}))
    lone, _ = vethctl("list", "--store", store, "--json").json
    assert (lone["problem"], lone["reasons"]) == (
        "peer other is INVALID",
        [{"code": "peer-invalid", "about": "other"}],
    )
    said = vethctl("put", str(directory / "lone.json"), "--store", store, "--json")
    assert said.reasons == [("warning", "", "peer-invalid", "other")]
    said = vethctl("diff", "--store", store, "--json")
    assert said.reasons == [("pending", "lone", "peer-invalid", "other")]


def test_the_json_of_a_plan_has_every_field_of_a_new_end(vethctl: Vethctl) -> None:
    ip("link", "add", "name", "br9", "type", "bridge")
    fields = {"txqlen": 77, "gso_max_size": 6000, "altnames": ["x1"], "master": "br9", "offload": False}
    listed = {"sysctls": {"rp_filter": "2"}, "routes": [{"dst": "10.9.0.0/16", "via": "10.0.0.2"}]}
    listed |= {"neighbours": [{"ip": "10.0.0.7", "mac": "02:00:00:00:00:09"}]}
    pair = [LONE | fields | listed | {"ip_addresses": ["10.0.0.1/24"]}]
    pair.append({"name": "other", "enabled": True, "veth": {"peer_if_name": "lone"}})
    expected = {name: [None, value] for name, value in fields.items()} | {
        "sysctls": [None, ["ipv4.rp_filter=2"]],
        "routes": [None, ["10.9.0.0/16 via 10.0.0.2"]],
        "neighbours": [None, ["10.0.0.7 lladdr 02:00:00:00:00:09"]],
    }
    for command in (["diff", "-"], ["apply", "-", "--dry-run"], ["apply", "-"]):
        lone, other = (entry["changes"] for entry in vethctl(*command, "--json", stdin=json.dumps(pair)).json)
        assert {name: lone.get(name) for name in expected} == expected
        assert other.keys().isdisjoint(expected)


def test_the_advice_about_a_link_that_is_no_veth_is_how_to_delete_it(vethctl: Vethctl) -> None:
    ip("link", "add", "name", "br0", "type", "bridge")
    error = vethctl("delete", "br0", "--json").error
    assert (error["code"], error["hint"]) == ("not-supported", "to delete a link of another kind: ip link delete")


def test_the_advice_about_a_missing_master_names_its_namespace(vethctl: Vethctl, blue: str) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b", "netns", blue)
    for argv in (["create", "c", f"d@{blue}", "--b-master", "br9"], ["set", f"b@{blue}", "--master", "br9"]):
        assert f"create it first (ip -n {blue} link add br9 type bridge)" in vethctl(*argv).err
    said = vethctl("set", f"b@path:/run/netns/{blue}", "--master", "br9")
    assert "create it first (ip link add br9 type bridge, there)" in said.err
    said = vethctl("set", "a", "--master", "br9")
    assert "create it first (ip link add br9 type bridge)" in said.err


def test_a_namespace_in_place_of_a_link_is_recognised_by_show_and_stats(vethctl: Vethctl, blue: str) -> None:
    for argv in (["show", blue], ["stats", "lo", blue], ["stats", blue, "--peer"]):
        error = vethctl(*argv, "--json").error
        assert (error["code"], error["error"].endswith(f"; to show the namespace: @{blue}")) == ("link-not-found", True)
    assert "namespace: @" not in vethctl("stats", f"{blue}@{blue}").err


def test_a_wait_of_less_than_a_second_is_not_called_none(vethctl: Vethctl, blue: str) -> None:
    pair = [LONE, {"name": "other", "enabled": True, "veth": {"peer_if_name": "lone"}}]
    pair[0] = LONE | {"namespace": {"type": 2, "name": "absent"}}
    said = vethctl("apply", "-", "--missing-netns", "wait", "--timeout", "0.2", stdin=json.dumps(pair))
    assert said.code == 3
    assert said.err.startswith("waiting up to 1 s: ")
