"""The commands of vethctl that change links and namespaces, end to end: effects, output and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES
from tests.live.offloads import offloads
from tests.live.sysctls import sysctl
from tests.witness import addresses, ip, names, seen
from vethlib import ns
from vethlib.cli.arguments import COMMANDS

PAIR = str(EXAMPLES / "pair")


def test_create_makes_a_pair_with_all_that_was_given(vethctl: Vethctl, blue: str, spawn: Callable[[str], int]) -> None:
    pid = spawn("")
    addresses_given = ("--a-addr", "10.0.0.1/24", "--a-addr", "2001:db8::1/64", "--b-addr=10.0.0.2/24")
    said = vethctl(
        *("create", "a@blue", "--mtu", "1400", f"b@pid:{pid}", *addresses_given),
        *("--a-mac", "02:00:00:00:00:01", "--b-mac", "02:00:00:00:00:02", "--queues", "3", "--wait", "60"),
    )
    assert said.code == 0
    a, b = seen("a", "blue"), seen("b")
    assert said.out.splitlines() == [
        f"+ 'a' in netns:blue  index {a['ifindex']}  02:00:00:00:00:01",
        f"+ 'b' in pid:{pid}  index {b['ifindex']}  02:00:00:00:00:02",
    ]
    assert (a["mtu"], b["mtu"], a["num_tx_queues"], a["operstate"]) == (1400, 1400, 3, "UP")
    assert (addresses("a", "blue"), addresses("b")) == (["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.2/24"])


def test_create_down_leaves_both_ends_down_and_prints_json(vethctl: Vethctl, blue: str) -> None:
    said = vethctl("create", "a", "b@blue", "--down", "--json")
    a, b = said.json
    assert (a["netns"], a["name"], a["up"], a["operstate"], a["kind"]) == ("", "a", False, "down", "veth")
    assert a["peer"] == {"netns": "netns:blue", "name": "b", "index": seen("b", "blue")["ifindex"]}
    assert b["peer"] == {"netns": "", "name": "a", "index": seen("a")["ifindex"]}
    assert seen("b", "blue")["operstate"] == "DOWN"


@pytest.mark.parametrize(
    ("argv", "code", "field", "kind"),
    [
        (["a", "b", "--a-mac", "zz"], 1, "--a-mac", "invalid-value"),
        (["a", "b", "--b-addr", "10.0.0.1"], 1, "--b-addr", "invalid-value"),
        (["a", "b", "--mtu", "5"], 1, "--mtu", "invalid-value"),
        (["a", "b", "--queues", "0"], 1, "--queues", "invalid-value"),
        (["a/b", "b"], 1, "A", "invalid-value"),
        (["a", "@blue"], 1, "B", "invalid-value"),
        (["a", "b@bad:1"], 1, "B", "invalid-value"),
        (["a", "a"], 1, "name", "invalid-value"),
        (["a", "b@nowhere"], 2, "", "netns-not-found"),
        (["lo", "b"], 2, "", "link-exists"),
        (["a", "b", "--mtu", "many"], 1, "--mtu", "usage"),
        (["a", "b", "--wait", "-1"], 1, "--wait", "usage"),
        (["a", "b", "--down", "--wait", "9"], 1, "--wait", "usage"),
        (["a"], 1, "B[@NETNS]", "usage"),
        (["a", "b", "c"], 1, "c", "usage"),
    ],
)
def test_create_says_which_argument_is_wrong(
    vethctl: Vethctl, argv: list[str], code: int, field: str, kind: str
) -> None:
    said = vethctl("create", *argv, "--json")
    assert (said.code, said.error["field"], said.error["code"]) == (code, field, kind)
    assert said.out == ""
    assert names() == set()


def test_create_gives_up_waiting_with_the_reason(vethctl: Vethctl) -> None:
    said = vethctl("create", "a", "b", "--a-addr", "fd00::1/64", "--wait", "0.05", "--json")
    assert (said.code, said.error["code"]) == (2, "wait-timeout")


def test_move_takes_a_link_to_another_namespace_and_back(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b", "--a-mac", "02:00:00:00:00:01")
    said = vethctl("move", "a", "blue")
    assert said.out == f"~ 'a' in netns:blue  index {seen('a', 'blue')['ifindex']}  02:00:00:00:00:01  down\n"
    (a,) = vethctl("move", "a@blue", "", "--json").json
    assert (a["netns"], a["name"], a["peer"]["name"]) == ("", "a", "b")
    assert names() == {"a", "b"}


def test_offload_is_switched_by_create_and_set(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b@blue", "--b-offload", "off")
    assert (any(offloads("b", blue).values()), offloads("a")["tx"]) == (False, True)
    assert vethctl("set", "b@blue", "--offload", "on").code == 0
    assert vethctl("set", "a", "--offload", "off").code == 0
    assert (any(offloads("a").values()), offloads("b", blue)["tx"]) == (False, True)
    assert vethctl("set", "a", "--offload", "maybe").code == 1


def test_create_takes_free_names(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "veth0", "veth0@blue")
    assert vethctl("create", "veth*", "veth*@blue").code == 0
    pair = vethctl("create", "x", "veth*@blue", "--json").json
    assert [(link["name"], link["index"]) for link in pair] == [
        ("x", seen("x")["ifindex"]),
        ("veth2", seen("veth2", "blue")["ifindex"]),
    ]
    assert (names(), names("blue")) == ({"veth0", "veth1", "x"}, {"veth0", "veth1", "veth2"})
    assert vethctl("create", "*", "y", "--json").error["field"] == "A"


def test_move_renames(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b")
    (moved,) = vethctl("move", "a", "blue", "--name", "wan0", "--json").json
    assert (moved["name"], names(), names("blue")) == ("wan0", {"b"}, {"wan0"})
    assert vethctl("move", "b", "blue", "--name", "wan0", "--json").error["code"] == "link-exists"
    assert vethctl("move", "b", "blue", "--name", "a/b", "--json").error["field"] == "--name"


def test_move_says_what_is_wrong(vethctl: Vethctl, blue: str) -> None:
    assert vethctl("move", "a", "blue", "--json").error["code"] == "link-not-found"
    assert vethctl("move", "lo", "nowhere", "--json").error["code"] == "netns-not-found"
    assert vethctl("move", "a", "bad:1", "--json").error["field"] == "NETNS"


def test_delete_deletes_pairs_through_either_end(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b@blue")
    vethctl("create", "c", "d@blue")
    assert vethctl("delete", "a", "d@blue").out == ""
    assert (names(), names("blue")) == (set(), set())


def test_delete_does_all_it_can_and_names_what_it_could_not(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b@blue")
    said = vethctl("delete", "nope", "a", "lo", "x@nowhere", "--json")
    assert said.code == 2
    assert [one["code"] for one in said.errors] == ["link-not-found", "not-supported", "netns-not-found"]
    assert said.json == [{"netns": "", "name": "a"}]
    assert names() == set()
    vethctl("create", "a", "b@blue")
    said = vethctl("delete", "nope", "b@blue")
    assert (said.code, said.out) == (2, "- 'b' in netns:blue\n")


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        (["a", "a"], [("", "a")]),
        (["a", "b@blue"], [("", "a"), ("netns:blue", "b")]),
        (["other", "a"], [("", "other")]),
        (["b@blue", "b@netns:blue", "zz", "yy@blue", "x@nowhere"], [("netns:blue", "b")]),
        (["zz"], []),
    ],
)
def test_delete_lists_the_links_that_it_has_deleted_each_once(
    vethctl: Vethctl, blue: str, given: list[str], listed: list[tuple[str, str]]
) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b", "netns", "blue")
    ip("link", "property", "add", "dev", "a", "altname", "other")
    said = vethctl("delete", *given, "--missing-ok", "--json")
    assert (said.code, [(one["netns"], one["name"]) for one in said.json]) == (0, listed)
    assert bool(names() | names("blue")) is not bool(listed)


def test_delete_with_missing_ok_is_content_with_what_is_not_there(vethctl: Vethctl) -> None:
    said = vethctl("delete", "nope", "x@nowhere", "--missing-ok", "--json")
    assert (said.code, said.json) == (0, [])


def test_stats_shows_counters(vethctl: Vethctl, blue: str) -> None:
    vethctl("create", "a", "b@blue", "--a-addr", "10.0.0.1/24")
    said = vethctl("stats", "b@blue")
    lines = said.out.splitlines()
    assert lines[0] == "'b' in netns:blue"
    assert lines[1].split() == ["packets", "bytes", "errors", "dropped"]
    assert [line.split()[0] for line in lines[2:4]] == ["rx", "tx"]
    assert len({len(line) for line in lines[1:4]}) == 1
    counters = vethctl("stats", "b@blue", "--json").json
    assert (counters["netns"], counters["name"]) == ("netns:blue", "b")
    assert {"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "rx_dropped"} <= counters.keys()
    assert vethctl("stats", "nope", "--json").error["code"] == "link-not-found"


def test_stats_shows_rarer_counters_where_there_are_any(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import fields

    from vethlib import Session, Stats
    from vethlib.rates import Sample

    counters = Stats(**{one.name: int(one.name == "multicast") * 7 for one in fields(Stats)})
    monkeypatch.setattr(Session, "stats_many", lambda *_, **__: [Sample((0, 0), 1, 0.0, counters)])
    assert vethctl("stats", "lo").out.splitlines()[-1] == "multicast 7"


def test_netns_adds_lists_and_deletes(vethctl: Vethctl) -> None:
    assert vethctl("netns", "add", "n10", "n2").code == 0
    assert ns.names() == ["n10", "n2"]
    assert vethctl("netns", "list").out == "n2\nn10\n"
    assert vethctl("netns", "list", "--json").json == [{"name": "n2"}, {"name": "n10"}]
    assert vethctl("netns", "del", "n2", "--json").json == [{"name": "n2"}]
    assert ns.names() == ["n10"]


def test_netns_does_all_it_can_and_names_what_it_could_not(vethctl: Vethctl) -> None:
    said = vethctl("netns", "add", "n1", "n1", "a/b", "n2", "--json")
    assert said.code == 2
    assert [one["code"] for one in said.errors] == ["netns-exists", "invalid-value"]
    assert said.json == [{"name": "n1"}, {"name": "n2"}]
    assert ns.names() == ["n1", "n2"]
    said = vethctl("netns", "del", "n3", "n1", "n2", "--json")
    assert (said.code, said.error["code"], said.json) == (2, "netns-not-found", [{"name": "n1"}, {"name": "n2"}])
    assert "netns list" in said.error["hint"]
    assert "netns add" not in said.error["hint"]
    assert ns.names() == []
    assert vethctl("netns", "add", "a/b", "n1").out == "+ n1\n"
    assert vethctl("netns", "del", "n1", "n1").out == "- n1\n"


@pytest.mark.parametrize("argv", [["list", "n1"], ["add"], ["del"], ["drop", "n1"]])
def test_netns_says_how_it_is_to_be_called(vethctl: Vethctl, argv: list[str]) -> None:
    error = vethctl("netns", *argv, "--json").error
    assert (error["code"], error["hint"]) == ("usage", f"usage: vethctl {COMMANDS['netns'].usage}")


def test_flags_come_before_or_after_the_command_or_from_the_environment(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vethctl("--json", "netns", "list").json == []
    assert vethctl("netns", "--json", "list").json == []
    assert vethctl("netns", "list", "--json").json == []
    monkeypatch.setenv("VETHLIB_JSON", "1")
    assert vethctl("netns", "list").json == []
    monkeypatch.setenv("VETHLIB_JSON", "0")
    assert vethctl("netns", "list").out == ""


def test_settings_from_the_environment_yield_to_flags(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETHLIB_MISSING_NETNS", "wait")
    assert vethctl("apply", PAIR).code == 3
    monkeypatch.setenv("VETHLIB_DRY_RUN", "yes")
    assert vethctl("apply", PAIR, "--missing-netns=create").code == 0
    assert ns.names() == []
    monkeypatch.setenv("VETHLIB_DRY_RUN", "no")
    monkeypatch.setenv("VETHLIB_TIMEOUT", "0.1")
    monkeypatch.setenv("VETHLIB_PRUNE", "on")
    assert vethctl("apply", PAIR, "--missing-netns=create").code == 0
    assert vethctl("apply", "-", stdin="[]").out.splitlines()[0].startswith("- 'veth1'")


@pytest.mark.parametrize(
    "line",
    [
        ["set", "eth0@ns1", "--mtu", "1400"],
        ["set", "other", "--mtu", "1400"],
        ["move", "other", ""],
        ["set", "other", "--down"],
    ],
    ids=" ".join,
)
def test_a_command_in_a_hook_renames_no_link(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    """The variables of a hook are about an interface of the agent, not about the link that the command changes."""
    ns.Netns.create("ns1").close()
    ip("link", "add", "other", "type", "veth", "peer", "name", "eth0", "netns", "ns1")
    for name, text in {
        "NAME": "uplink",
        "PEER": "down",
        "STATE": "CONFIGURED",
        "NETNS": "netns:ns1",
        "UP": "1",
    }.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    said = vethctl(*line)
    assert (said.code, said.err) == (0, "")
    assert "uplink" not in {*names(), *names("ns1")}
    assert not {"other", "uplink"} & {link["ifname"] for link in ip("link") if "UP" in link["flags"]}
    assert vethctl("stats").code == 0


@pytest.mark.parametrize("name", ["-x", "--json", "--down", "-br"])
def test_a_link_whose_name_begins_with_a_hyphen_can_be_shown_set_moved_and_deleted(vethctl: Vethctl, name: str) -> None:
    ns.Netns.create("ns1").close()
    ip("link", "add", "name", name, "type", "veth", "peer", "name", "y")
    assert [link["name"] for link in vethctl("show", "--json", "--", name).json] == [name]
    assert vethctl("stats", "--json", "--", name).json["name"] == name
    assert vethctl("set", "--mtu", "1400", "--", name).code == 0
    assert (seen(name)["mtu"], seen("y")["mtu"]) == (1400, 1500)
    assert vethctl("move", "--", name, "ns1").code == 0
    assert (names(), names("ns1")) == ({"y"}, {name})
    assert vethctl("delete", "--", f"{name}@ns1").code == 0
    assert (names(), names("ns1")) == (set(), set())


def test_a_variable_of_a_flag_that_does_not_apply_is_no_error(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in {"JSON": "1", "STATUS_DIR": str(tmp_path), "STORE": f"dir:{tmp_path}", "LABEL": "x"}.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    for line in (["graph"], ["stats"], ["netns", "list"], ["top", "--once"], ["diff", PAIR]):
        said = vethctl(*line)
        assert said.code in (0, 1), line
        assert not said.err or said.error["code"] == "warning", line  # that no agent of the label runs
    assert vethctl("graph", "-o", str(tmp_path / "x.svg")).code == 0
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    assert vethctl("graph", "-o", str(tmp_path / "y.svg"), "--json").error["field"] == "--json"


def test_colours_are_for_terminals_or_who_asks(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    red = "\033[31mvethctl:\033[0m"
    assert red not in vethctl("delete", "x").err
    assert red in vethctl("delete", "x", "--color").err
    assert red in vethctl("--color", "delete", "x").err
    assert red in vethctl("--color", "always", "delete", "x").err
    assert red not in vethctl("--color=never", "delete", "x").err
    monkeypatch.setenv("VETHLIB_COLOR", "always")
    assert red in vethctl("delete", "x").err
    assert red not in vethctl("delete", "x", "--color", "never").err


def test_each_end_is_created_with_or_without_ipv6(vethctl: Vethctl, blue: str) -> None:
    a, b = vethctl("create", "a", "b@blue", "--a-ipv6", "off", "--b-ipv6", "on", "--json").json
    assert (a["ipv6"], b["ipv6"]) == (False, True)
    said = vethctl("create", "c", "d", "--a-addr", "fd00::1/64", "--a-ipv6", "off", "--json")
    assert (said.code, said.error["field"]) == (1, "--a-ipv6")
    assert vethctl("create", "c", "d", "--b-ipv6", "no").code == 1


def test_an_end_is_created_with_its_fields_and_set_to_others(vethctl: Vethctl, blue: str) -> None:
    given = ["--txqlen", "500", "--a-altname", "uplink", "--a-altname", "wan", "--b-sysctl", "rp_filter=2"]
    assert vethctl("create", "a", "b@blue", *given).code == 0
    a, b = seen("a"), seen("b", "blue")
    assert (a["txqlen"], b["txqlen"], sorted(a["altnames"])) == (500, 500, ["uplink", "wan"])
    assert sysctl("blue", "ipv4/conf/b/rp_filter") == "2"
    done = vethctl("set", "uplink", "--altname", "other", "--mtu", "1400", "--gso-max-size", "4096", "--down", "--json")
    assert (done.json[0]["name"], done.json[0]["mtu"], done.json[0]["up"]) == ("a", 1400, False)
    assert (seen("a")["altnames"], seen("a")["gso_max_size"]) == (["other"], 4096)
    assert "'c' in netns:blue" in vethctl("set", "b@blue", "--name", "c", "--sysctl", "ipv6.accept_ra=0").out
    assert sysctl("blue", "ipv6/conf/c/accept_ra") == "0"


def test_routes_are_given_in_the_words_of_ip(vethctl: Vethctl, blue: str) -> None:
    given = ["--b-addr", "10.0.0.2/24", "--b-route", "default via 10.0.0.1 metric 7", "--b-route", "10.3.0.0/16"]
    assert vethctl("create", "a", "b@blue", *given).code == 0
    assert {each["dst"] for each in ip("route", "show", "proto", "118", netns="blue")} == {"default", "10.3.0.0/16"}
    assert vethctl("set", "b@blue", "--route", "10.4.0.0/16 mtu 1400").code == 0
    assert {each["dst"] for each in ip("route", "show", "proto", "118", netns="blue")} == {"10.4.0.0/16"}
    said = vethctl("set", "b@blue", "--route", "10.4.0.0/16 dev eth0", "--json")
    assert (said.code, said.error["field"]) == (1, "--route")


def test_a_link_is_attached_to_a_bridge_and_detached(vethctl: Vethctl, blue: str) -> None:
    ip("link", "add", "br0", "type", "bridge", netns="blue")
    assert vethctl("create", "a", "b@blue", "--b-master", "br0").code == 0
    assert vethctl("set", "b@blue", "--mtu", "1400", "--json").json[0]["master"] == "br0"
    created = vethctl("create", "m", "n@blue", "--b-master", "br0", "--json").json
    assert [each["master"] for each in created] == ["", "br0"]
    assert seen("b", "blue")["master"] == "br0"
    assert vethctl("set", "b@blue", "--master", "").code == 0
    assert "master" not in seen("b", "blue")
    said = vethctl("set", "b@blue", "--master", "br9", "--json")
    assert (said.code, said.error["code"]) == (2, "link-not-found")
    said = vethctl("create", "c", "d", "--a-master", "a/b", "--json")
    assert (said.code, said.error["field"]) == (1, "--a-master")


def test_neighbours_are_given_in_the_words_of_ip(vethctl: Vethctl, blue: str) -> None:
    mac, other = "02:00:00:00:00:09", "02:00:00:00:00:0a"
    given = ["--b-neighbour", f"10.0.0.9 lladdr {mac}", "--b-neighbour", f"fd00::9 {mac}"]
    assert vethctl("create", "a", "b@blue", *given).code == 0
    there = ip("neighbour", "show", "nud", "permanent", netns="blue")
    assert {(each["dst"], each["lladdr"]) for each in there} == {("10.0.0.9", mac), ("fd00::9", mac)}
    assert vethctl("set", "b@blue", "--neighbour", f"10.0.0.9 lladdr {other}").code == 0
    there = ip("neighbour", "show", "nud", "permanent", netns="blue")
    assert {(each["dst"], each["lladdr"]) for each in there} == {("10.0.0.9", other)}
    said = vethctl("set", "b@blue", "--neighbour", "10.0.0.9 dev eth0", "--json")
    assert (said.code, said.error["field"]) == (1, "--neighbour")
    said = vethctl("create", "c", "d", "--a-neighbour", f"here {mac}", "--json")
    assert (said.code, said.error["field"]) == (1, "--a-neighbour")


LINKS = [("show",), ("show", "-d"), ("delete",), ("stats",), ("set", "--mtu", "1400"), ("move", "pid:1")]
"""Commands that take a link, and what follows it."""


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["set", "a"], "LINK"),
        (["set", "lo", "--altname", "x/y"], "--altname"),
        (["set", "a", "--gso-max-size", "0"], "--gso-max-size"),
        (["set", "a", "--name", "x/y"], "--name"),
        (["set", "a", "--sysctl", "rp_filter"], "--sysctl"),
        (["create", "a", "b", "--a-sysctl", "disable_ipv6=1"], "--a-sysctl"),
        (["create", "a", "b", "--b-altname", "x y"], "--b-altname"),
        (["create", "a", "b", "--a-addr", "10.0.0.1/24\tlabel"], "--a-addr"),
        *(([command, "x" * 128, *more], "LINK") for command, *more in LINKS),  # longer than any alternative name
        (["move", "lo", "pid:1", "--name", "x y"], "--name"),
        (["move", "lo", "pid:1", "--name", "x*"], "--name"),
    ],
)
def test_a_bad_value_of_a_field_is_reported_with_its_flag(vethctl: Vethctl, argv: list[str], field: str) -> None:
    said = vethctl(*argv, "--json")
    assert (said.code, said.error["field"]) == (1, field)
