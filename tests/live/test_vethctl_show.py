"""vethctl show: its output for people and for programs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.commands import Vethctl
from tests.witness import ip, poll, seen
from vethlib import ns
from vethlib._nl import trace


@pytest.fixture
def pair(vethctl: Vethctl, blue: str) -> None:
    """a at home and b in blue, both with an address."""
    vethctl("create", "a", "b@blue", "--a-addr", "10.0.0.1/24", "--b-addr", "10.0.0.2/24")
    assert poll(lambda: seen("a")["operstate"] == seen("b", "blue")["operstate"] == "UP")


def test_every_link_stands_under_its_namespace_with_its_peer(vethctl: Vethctl, pair: None) -> None:
    a, b = seen("a"), seen("b", "blue")
    ip("link", "set", "dev", "a", "alias", "uplink")
    lines = vethctl("show").out.splitlines()
    lines = [line for line in lines if "fe80:" not in line]
    assert lines == [
        "home",
        f"  {a['ifindex']}: a ⇄ b@blue  UP  mtu 1500  {a['address']}",
        "       10.0.0.1/24",
        "       uplink",
        "blue",
        f"  {b['ifindex']}: b ⇄ a@home  UP  mtu 1500  {b['address']}",
        "       10.0.0.2/24",
    ]


def test_brief_is_a_line_for_each_link(vethctl: Vethctl, pair: None) -> None:
    lines = [line.split()[:6] for line in vethctl("show", "-br").out.splitlines()]
    assert lines == [
        ["home", "a", "UP", "⇄", "b@blue", "10.0.0.1/24"],
        ["blue", "b", "UP", "⇄", "a@home", "10.0.0.2/24"],
    ]


def test_json_has_one_schema_for_every_link(vethctl: Vethctl, pair: None) -> None:
    a, b = vethctl("show", "--json").json
    assert list(a) == [
        *("netns", "name", "index", "kind", "mac", "mtu", "up", "operstate", "carrier", "addresses", "address_info"),
        *("alias", "peer", "ipv6", "master", "altnames"),
    ]
    witness = seen("a")
    assert (a["netns"], a["name"], a["index"], a["mac"]) == ("", "a", witness["ifindex"], witness["address"])
    assert (a["up"], a["operstate"], a["mtu"], a["kind"], a["alias"]) == (True, "up", 1500, "veth", "")
    assert a["addresses"][0] == "10.0.0.1/24"
    assert a["peer"] == {"netns": "netns:blue", "name": "b", "index": b["index"]}
    assert b["peer"] == {"netns": "", "name": "a", "index": a["index"]}
    assert [one.keys() for one in vethctl("show", "--json", "--all").json] == [a.keys()] * 4


def test_other_kinds_of_links_are_shown_with_all_or_by_name(vethctl: Vethctl, pair: None) -> None:
    assert "lo" not in vethctl("show", "-br").out
    rows = [line.split() for line in vethctl("show", "-br", "--all").out.splitlines()]
    assert ["home", "lo", "DOWN"] in rows
    assert "1: lo  DOWN" in vethctl("show", "lo").out
    ip("link", "set", "dev", "lo", "up")
    assert "1: lo  UP" in vethctl("show", "lo").out
    (lo,) = vethctl("show", "lo", "--json").json
    assert (lo["kind"], lo["peer"]) == ("", None)


def test_targets_are_links_or_namespaces_and_nothing_is_shown_twice(vethctl: Vethctl, pair: None) -> None:
    assert [one["name"] for one in vethctl("show", "@blue", "--json").json] == ["b"]
    assert [one["name"] for one in vethctl("show", "b@blue", "a", "b@netns:blue", "@", "--json").json] == ["b", "a"]
    assert [one["name"] for one in vethctl("show", "@blue", "-a", "--json").json] == ["lo", "b"]


def test_an_alternative_name_names_a_link(vethctl: Vethctl, pair: None) -> None:
    ip("link", "property", "add", "dev", "a", "altname", "uplink-to-the-world-at-large")
    assert vethctl("show", "uplink-to-the-world-at-large", "--json").json[0]["name"] == "a"


def test_a_state_that_is_neither_up_nor_down_is_named(vethctl: Vethctl) -> None:
    vethctl("create", "a", "b", "--down")
    ip("link", "set", "dev", "a", "up")
    assert poll(lambda: seen("a")["operstate"] == "LOWERLAYERDOWN")  # which the kernel finds a little later (linkwatch)
    states = {one["name"]: one["operstate"] for one in vethctl("show", "--json").json}
    assert states["a"] != "up"
    assert f"a ⇄ b  {states['a'].upper()}" in vethctl("show").out
    assert "b ⇄ a  DOWN" in vethctl("show").out


@pytest.mark.parametrize("peer", ["b", "b@blue"])
def test_an_end_that_was_set_down_and_one_without_a_carrier_have_different_states(
    vethctl: Vethctl, blue: str, peer: str
) -> None:
    vethctl("create", "a", peer, "--down")
    ip("link", "set", "dev", "a", "up")
    assert poll(lambda: seen("a")["operstate"] in ("LOWERLAYERDOWN", "DOWN"))  # found a little later (linkwatch)
    if peer == "b":
        assert poll(lambda: seen("a")["operstate"] == "LOWERLAYERDOWN")
    shown = {one["name"]: (one["up"], one["carrier"]) for one in vethctl("show", "--json").json}
    assert shown == {"a": (True, False), "b": (False, None)}
    states = {line.split()[1]: line.split()[2] for line in vethctl("show", "-br").out.splitlines()}
    assert states["b"] == "DOWN"
    assert states["a"] == ("LOWERLAYERDOWN" if peer == "b" else "NO-CARRIER")
    [edge] = vethctl("graph", "--json").json["edges"]
    drawn = {end["name"]: end["state"] for end in (edge["a"], edge["b"])}
    assert drawn == {"a": states["a"].lower(), "b": "down"}
    ip("link", "set", "dev", "b", "up", netns="blue" if "@" in peer else "")
    assert poll(lambda: {one["carrier"] for one in vethctl("show", "--json").json} == {True})


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "10.0.0.1/24 brd 10.0.0.255 label a:x": {"broadcast": "10.0.0.255", "label": "a:x"},
    "10.1.0.1 peer 10.1.0.2/32": {"peer": "10.1.0.2"},
    "10.2.0.1/16 scope link noprefixroute": {"scope": "link", "noprefixroute": True},
    "2001:db8::1/64 nodad": {"label": "", "nodad": True},
}


def test_addresses_are_shown_with_their_attributes(vethctl: Vethctl) -> None:
    given = [word for text in ATTRIBUTES for word in ("--a-addr", text)]
    vethctl("create", "a", "b", *given)
    ip("addr", "add", "10.3.0.1/24", "label", "no:such/name", "dev", "a")
    ip("addr", "add", "10.4.0.1/24", "valid_lft", "1000", "preferred_lft", "500", "dev", "a")
    lines = [line.strip() for line in vethctl("show", "a").out.splitlines()]
    assert ATTRIBUTES.keys() <= set(lines)
    assert "10.3.0.1/24 label no:such/name" in lines
    (expiring,) = [line for line in lines if line.startswith("10.4.0.1/24 valid_lft ")]
    assert expiring.split()[3] == "preferred_lft"
    info = {one["address"].split("/")[0]: one for one in vethctl("show", "a", "--json").json[0]["address_info"]}
    plain: dict[str, Any] = {
        "peer": None,
        "broadcast": None,
        "label": "a",
        "scope": "global",
        "nodad": False,
        "noprefixroute": False,
    }
    for text, attributes in ATTRIBUTES.items():
        one = info[text.split("/")[0].split()[0]]
        assert {name: one[name] for name in plain} == plain | attributes


def test_a_link_is_shown_with_what_it_is_attached_to_and_its_routes_and_neighbours(vethctl: Vethctl) -> None:
    ip("link", "add", "br0", "up", "type", "bridge")
    route, neighbour = "10.9.0.0/16 via 10.0.0.2 metric 7", "10.0.0.2 lladdr 02:00:00:00:00:02"
    more = ("--a-master", "br0", "--a-route", route, "--a-neighbour", neighbour, "--a-offload", "off")
    vethctl("create", "a", "b", "--a-addr", "10.0.0.1/24", *more)
    a, b = vethctl("show", "--json").json
    assert (a["master"], b["master"]) == ("br0", "")
    shown = {line.split()[1]: line for line in vethctl("show").out.splitlines() if "mtu" in line}
    assert shown["a"].endswith("  master br0")
    assert "master" not in shown["b"]
    lines = [line.strip() for line in vethctl("show", "-d", "a").out.splitlines()]
    assert {"master br0  offload off", route, neighbour} <= set(lines)
    fields = vethctl("show", "-d", "a", "--json").json[0]["fields"]
    assert (fields["master"], fields["routes"], fields["neighbours"]) == ("br0", [route], [neighbour])
    assert (fields["offload"], fields["altnames"]) == (False, [])


def test_each_address_has_its_state(vethctl: Vethctl, blue: str) -> None:
    with open("/proc/sys/net/ipv6/conf/default/dad_transmits", "w") as setting:
        setting.write("100")  # tentative for as long as the test lasts
    vethctl("create", "a", "b@blue", "--a-addr", "10.0.0.1/24")
    ip("addr", "add", "2001:db8::1/64", "dev", "b", "nodad", netns="blue")
    ip("addr", "add", "10.0.1.1/24", "dev", "a", "valid_lft", "1000", "preferred_lft", "500")
    ip("addr", "add", "10.0.2.1/24", "dev", "a", "valid_lft", "1000", "preferred_lft", "0")
    ip("addr", "add", "2001:db8::1/64", "dev", "a")
    ip("addr", "add", "2001:db8::2/64", "dev", "a")
    assert poll(lambda: "dadfailed" in vethctl("show", "a").out)
    (a,) = vethctl("show", "a", "--json").json
    states = {one["address"]: one["state"] for one in a["address_info"] if not one["address"].startswith("fe80")}
    assert states == {
        "10.0.0.1/24": "usable",
        "10.0.1.1/24": "expiring",
        "10.0.2.1/24": "deprecated",
        "2001:db8::1/64": "dadfailed",
        "2001:db8::2/64": "tentative",
    }
    lifetimes = {one["address"]: (one["preferred"], one["valid"]) for one in a["address_info"]}
    assert lifetimes["10.0.0.1/24"] == (None, None)
    assert 900 < lifetimes["10.0.2.1/24"][1] <= 1000
    text, brief = vethctl("show", "a").out.splitlines(), vethctl("show", "-br", "a").out
    for address, state in states.items():
        (line,) = [line for line in text if address in line]
        assert line.strip() == address if state == "usable" else line.endswith(state) or state == "dadfailed"
        assert f"{address} ({state})" in brief or state == "usable"
    [edge] = vethctl("graph", "--json").json["edges"]
    drawn = next(end for end in (edge["a"], edge["b"]) if end["name"] == "a")
    assert set(states) == set(drawn["addresses"])
    assert drawn["address_states"] == {address: state for address, state in states.items() if state != "usable"}


def test_namespaces_are_in_the_order_people_count(vethctl: Vethctl) -> None:
    vethctl("netns", "add", "n10", "n2")
    vethctl("create", "a@n10", "b@n2")
    assert [one["netns"] for one in vethctl("show", "--json").json] == ["netns:n2", "netns:n10"]


def test_a_peer_in_a_namespace_without_a_name_is_known_by_its_index(vethctl: Vethctl) -> None:
    with ns.Netns.anonymous() as nameless:
        vethctl("create", "a", f"b@{nameless}")
        (a,) = vethctl("show", "--json").json
        index = seen("b", nameless)["ifindex"]
        assert a["peer"] == {"netns": None, "name": None, "index": index}
        assert f"a ⇄ index {index} in an unnamed namespace" in vethctl("show").out


def test_a_namespace_called_home_is_not_taken_for_home(vethctl: Vethctl) -> None:
    vethctl("netns", "add", "home")
    vethctl("create", "a@home", "b")
    assert "netns:home\n" in vethctl("show").out
    assert "b ⇄ a@netns:home" in vethctl("show").out


def test_where_there_is_nothing_it_says_so_beside_the_result(vethctl: Vethctl) -> None:
    said = vethctl("show")
    assert (said.code, said.out) == (0, "")
    assert "--all" in said.err
    assert vethctl("show", "-br").out == ""
    vethctl("netns", "add", "n1")
    assert " 1 named " in vethctl("show").err
    vethctl("netns", "add", "n2")
    assert " 2 named " in vethctl("show").err
    assert "--all" in vethctl("show", "@n1").err
    said = vethctl("show", "--json")
    assert (said.json, said.err) == ([], "")


def test_what_is_not_there_is_an_error_with_a_way_on(vethctl: Vethctl, pair: None) -> None:
    said = vethctl("show", "nope@blue", "--json")
    assert (said.code, said.error["code"]) == (2, "link-not-found")
    assert ": @blue" in vethctl("show", "blue").err
    said = vethctl("show", "@nowhere", "--json")
    assert (said.code, said.error["code"]) == (2, "netns-not-found")
    assert vethctl("show", "@bad:1", "--json").error["field"] == "@NETNS"


def test_details_are_all_that_could_be_decoded_and_nothing_else(vethctl: Vethctl, pair: None) -> None:
    out = vethctl("show", "-d", "b@blue").out
    assert out.startswith("'b' in netns:blue\n  index ")
    assert "flags UP,BROADCAST,RUNNING,MULTICAST,LOWER_UP" in out
    assert "qdisc noqueue" in out
    assert "  linkinfo\n    info_kind veth\n" in out
    assert "  stats64\n    rx_packets " in out
    assert "unknown" not in out
    assert "header" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert vethctl("show", "-d", "b@blue", "--json").json[0]["name"] == "b"
    assert len(vethctl("show", "-d").out) > 2 * len(out) - 200


def vanishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the link a and its peer deleted when the survey is made, but its details are not read."""
    monkeypatch.setattr("vethlib.cli.commands.host.show.View.warn", lambda *_: ip("link", "del", "dev", "a"))


def undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pyroute2 fail at the messages of the link a."""
    decode = trace.decode

    def fail(data: bytes) -> list[Any]:
        if b"\x03\x00a\x00" in data:  # IFLA_IFNAME
            raise ValueError("odd")
        return decode(data)

    monkeypatch.setattr(trace, "decode", fail)


@pytest.mark.parametrize("happens", [vanishing, undecodable])
def test_a_link_whose_details_cannot_be_read_keeps_no_other_from_being_shown(
    vethctl: Vethctl, pair: None, monkeypatch: pytest.MonkeyPatch, happens: Callable[[pytest.MonkeyPatch], None]
) -> None:
    vethctl("create", "c", "d@blue")
    with monkeypatch.context() as patch:
        happens(patch)
        said = vethctl("show", "-d")
    lost = {"'a'", "'b' in netns:blue"} if happens is vanishing else {"'a'"}
    headings = {line for line in said.out.splitlines() if not line.startswith(" ")}
    assert headings == {"'a'", "'b' in netns:blue", "'c'", "'d' in netns:blue"} - lost
    warnings = said.err.splitlines()
    assert len(warnings) == len(lost)
    assert all(any(line.startswith(f"warning: {link} ") for line in warnings) for link in lost)
    assert said.code == 0


@pytest.mark.parametrize("target", ["@", "@blue", ""])
def test_json_has_no_link_that_vanished_before_its_details_were_read(
    vethctl: Vethctl, pair: None, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    vethctl("create", "c", "d@blue")
    with monkeypatch.context() as patch:
        vanishing(patch)
        said = vethctl("show", "-d", "--json", *filter(None, [target]))
    assert [one["name"] for one in said.json] == {"@": ["c"], "@blue": ["d"], "": ["c", "d"]}[target]
    assert {error["code"] for error in said.errors} == {"warning"}
    assert said.code == 0


@pytest.mark.parametrize("happens", [vanishing, undecodable])
def test_the_details_of_a_link_that_is_named_are_shown_or_an_error(
    vethctl: Vethctl, pair: None, monkeypatch: pytest.MonkeyPatch, happens: Callable[[pytest.MonkeyPatch], None]
) -> None:
    ip("link", "property", "add", "dev", "a", "altname", "uplink")
    with monkeypatch.context() as patch:
        happens(patch)
        said = vethctl("show", "-d", "@", "uplink")
    assert (said.code, said.out) == (2, "")


@pytest.mark.parametrize("name", [b"a\xff\x9b2J", b"\x1b[8mhidden", b"\x1b]0;title\x07", b"\xe2\x80\xaeevil"])
def test_a_name_can_do_no_harm_to_a_terminal(vethctl: Vethctl, name: bytes) -> None:
    ip("link", "add", "name", name, "type", "veth", "peer", "name", "b")
    text = os.fsdecode(name)
    for form in ((), ("-br",), ("-d",), ("--color",)):
        out = vethctl("show", *form).out
        assert text not in out
        harmless = out.replace("\n", "")
        for code in ("\033[36m", "\033[35m", "\033[32m", "\033[31m", "\033[2m", "\033[1m", "\033[1;35m", "\033[0m"):
            harmless = harmless.replace(code, "")
        assert harmless.isprintable()
    assert text in {one["name"] for one in vethctl("show", "--json").json}
    assert vethctl("show", text, "-br").out.count("\n") == 1
    assert vethctl("delete", text).code == 0


def test_a_user_who_may_not_enter_others_sees_at_least_home(vethctl: Vethctl, pair: None) -> None:
    with dropped():
        said = vethctl("show", "--json")
    assert [one["name"] for one in said.json] == ["a"]
    assert said.error["code"] == "warning"
    with dropped():
        said = vethctl("show", "@blue", "--json")
    assert (said.code, said.error["code"]) == (2, "not-permitted")
    assert said.reasons == [("not-permitted", "", "missing-capability", "CAP_SYS_ADMIN")]


def test_a_system_error_is_reported_with_what_it_is_about(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise OSError(errno.EIO, "Input/output error", "/run/netns")

    with monkeypatch.context() as patch:
        patch.setattr("vethlib.cli.host.view.ns.names", fail)
        patch.setattr("vethlib.cli.abandon_stdout", lambda: None)
        said = vethctl("show", "--json")
    assert (said.code, said.error["code"], said.error["error"]) == (
        2,
        "os-error",
        f"/run/netns: {os.strerror(errno.EIO)}",
    )
