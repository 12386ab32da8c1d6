"""Links with an "@" in their names, and names as `ip` prints them, as arguments of vethctl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.commands import Vethctl, runner
from tests.witness import ip, names
from vethlib import ns


@pytest.fixture
def vethctl(home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Vethctl]:
    ip("link", "add", "eth0@mine", "type", "veth", "peer", "name", "v2")
    yield runner(capsys, monkeypatch)
    monkeypatch.undo()


def mtu_of(name: str, netns: str = "") -> int:
    return int(next(link["mtu"] for link in ip("link", netns=netns) if link["ifname"] == name))


def test_a_link_of_this_namespace_is_found_by_its_whole_name(vethctl: Vethctl) -> None:
    for text in ("eth0@mine", "eth0@mine@"):
        assert [one["name"] for one in vethctl("show", text, "--json").json] == ["eth0@mine"]
        assert vethctl("stats", text, "--json").json["name"] == "eth0@mine"
    assert vethctl("set", "eth0@mine", "--mtu", "1400").code == 0
    assert mtu_of("eth0@mine") == 1400
    ns.Netns.create("other").close()
    assert vethctl("move", "eth0@mine", "other").code == 0
    assert (names(), names("other")) == ({"v2"}, {"eth0@mine"})


def test_such_a_link_is_deleted_by_its_whole_name(vethctl: Vethctl) -> None:
    assert vethctl("delete", "eth0@mine", "--json").json == [{"netns": "", "name": "eth0@mine"}]
    assert names() == set()


def test_a_namespace_comes_before_such_a_link_which_then_has_another_at(vethctl: Vethctl) -> None:
    ns.Netns.create("mine").close()
    ip("link", "add", "eth0", "netns", "mine", "type", "veth", "peer", "name", "other", "netns", "mine")
    assert vethctl("set", "eth0@mine", "--mtu", "1300").code == 0
    assert vethctl("set", "eth0@mine@", "--mtu", "1400").code == 0
    assert (mtu_of("eth0", "mine"), mtu_of("eth0@mine")) == (1300, 1400)
    assert vethctl("delete", "eth0@mine").code == 0
    assert names() == {"eth0@mine", "v2"}


@pytest.mark.parametrize("text", ["v2@eth0", "veth1@if5", "a@@b", "eth0@v2"])
@pytest.mark.parametrize("command", [["show"], ["stats"], ["delete"], ["set", "--mtu", "1400"]], ids=lambda c: c[0])
def test_what_ip_prints_is_no_reason_to_create_a_namespace(vethctl: Vethctl, text: str, command: list[str]) -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    said = vethctl(*command, text, "--json")
    assert (said.code, said.error["code"]) == (2, "netns-not-found")
    assert said.error["hint"]
    assert "netns add" not in said.error["hint"]
    assert names() == {"eth0@mine", "v2", "eth0", "eth1"}


def test_what_does_not_exist_in_a_missing_namespace_is_still_no_error_with_missing_ok(vethctl: Vethctl) -> None:
    assert vethctl("delete", "eth0@yours", "--missing-ok").code == 0
    assert vethctl("delete", "eth0@mine@mine", "--missing-ok").code == 0
    assert names() == {"eth0@mine", "v2"}


def test_a_new_end_is_in_a_namespace_whatever_is_called_so(vethctl: Vethctl) -> None:
    said = vethctl("create", "eth0@mine", "b", "--json")
    assert (said.code, said.error["code"]) == (2, "netns-not-found")
    assert "netns add mine" in said.error["hint"]
