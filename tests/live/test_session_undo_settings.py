"""IPv6, settings and packet sizes of a link whose change fails are as they were, and those of other links, too."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.interrupted_exchanges import interrupt_after
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import End, IfIndexCache, LinkExists, NetlinkError, Route, Session, Veth, ns
from vethlib.session.write.linksteps import LinkSteps

IMPOSSIBLE = {"rp_filter": "99999999999999"}


def ipv6_settings(netns: str, name: str) -> dict[str, str]:
    found = {}
    with ns.entered(netns):
        for path in Path(f"/proc/sys/net/ipv6/conf/{name}").iterdir():
            try:
                found[path.name] = path.read_text().strip()
            except OSError:
                found[path.name] = "unreadable"
    return found


@pytest.mark.parametrize("default", ["0", "1"])
@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("given", [{"accept_ra": "0"}, {"ipv6.forwarding": "1", "ipv6.hop_limit": "9"}, {}])
@pytest.mark.parametrize("asked", [{"mtu": 1000}, {"mtu": 68, "new_name": "x", "up": False}])
def test_a_link_that_was_too_small_for_ipv6_for_a_moment_has_its_ipv6_settings_again(
    session: Session, blue: str, asked: dict[str, Any], given: dict[str, str], had: bool, default: str
) -> None:
    session.create(Veth(End("a", "blue", ipv6=had, sysctls=given), End("b", "blue")))
    before, link = ipv6_settings("blue", "a"), seen("a", "blue")
    assert before["disable_ipv6"] == ("0" if had else "1")
    sysctl("blue", "ipv6/conf/default/disable_ipv6", default)
    with pytest.raises(NetlinkError):
        session.set("a", "blue", **asked, sysctls=IMPOSSIBLE)
    assert ipv6_settings("blue", "a") == before
    assert seen("a", "blue")["mtu"] == link["mtu"]
    assert had or seen("a", "blue")["addr_info"] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"mtu": 8000},
        {"mtu": 9100, "up": True},
        # Before, the kernel may notice the carrier only when the link is as it was (linkwatch).
        pytest.param({"up": False}, marks=pytest.mark.needs_kernel("6.12")),
        {"ipv6": False},
        {"mtu": 1000},
        {"master": "br"},
        pytest.param({"master": "vrf"}, marks=pytest.mark.needs_module("vrf")),
    ],
)
def test_a_refused_change_leaves_the_mtu_that_another_program_has_given_ipv6(
    session: Session, blue: str, asked: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", mtu=9000), End("b", "blue", mtu=9000)), wait=60)
    if "master" in asked:
        kind = ("vrf", "table", "9") if asked["master"] == "vrf" else ("bridge",)
        ip("link", "add", "name", asked["master"], "type", *kind, netns="blue")
    sysctl("blue", "ipv6/conf/a/mtu", "1400")
    with pytest.raises(NetlinkError):
        session.set("a", "blue", **asked, sysctls=IMPOSSIBLE)
    session.lookup("a", "blue")
    assert sysctl("blue", "ipv6/conf/a/mtu") == "1400"
    assert seen("a", "blue")["mtu"] == 9000


@pytest.mark.parametrize("had", [True, False])
def test_what_is_restored_is_what_the_kernel_had_and_not_what_a_cache_knows(
    session: Session, blue: str, had: bool
) -> None:
    session.create(Veth(End("a", "blue", ipv6=not had), End("b", "blue")))
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        assert session.index("a", "blue")
        sysctl("blue", "ipv6/conf/a/disable_ipv6", "0" if had else "1")
        before = ipv6_settings("blue", "a")
        with pytest.raises(NetlinkError):
            session.set("a", "blue", mtu=1000, sysctls=IMPOSSIBLE)
    assert ipv6_settings("blue", "a") == before


def test_an_interruption_after_the_mtu_was_set_leaves_a_link_without_ipv6(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue", ipv6=False, sysctls={"ipv6.accept_ra": "0"}), End("b", "blue")))
    before = ipv6_settings("blue", "a")
    interrupt_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        session.set("a", "blue", mtu=1000)
    assert ipv6_settings("blue", "a") == before


def sizes(netns: str, name: str) -> list[int]:
    """Return IFLA_GSO_MAX_SIZE and IFLA_GSO_IPV4_MAX_SIZE (Linux 6.3), which `ip` does not show everywhere."""
    with ns.entered(netns), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asking:
        attribute = struct.pack("=HH16s", 20, 3, name.encode())
        asking.send(struct.pack("=IHHII", 32 + len(attribute), 18, 1, 1, 0) + bytes(16) + attribute)
        answer = asking.recv(65536)
    found, at = {}, 32
    while at < len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        found[kind] = answer[at + 4 : at + length]
        at += (length + 3) & ~3
    return [struct.unpack("=I", found[kind])[0] for kind in (41, 63) if kind in found]


@pytest.mark.parametrize("had", [65536, pytest.param(200_000, marks=pytest.mark.needs_kernel("5.19")), 60_000])
def test_the_largest_packet_of_ipv4_is_restored_with_that_of_all(session: Session, blue: str, had: int) -> None:
    session.create(Veth(End("a", "blue"), End("b", "blue")))
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    subprocess.run(["ip", "-n", "blue", "link", "set", "dev", "a", "gso_max_size", str(had)], check=True)
    before = sizes("blue", "a")
    with pytest.raises(LinkExists):
        session.set("a", "blue", gso_max_size=3000, new_name="taken")
    assert sizes("blue", "a") == before
    value = session.fields("a", "blue")["gso_max_size"]
    session.set("a", "blue", gso_max_size=3000)
    assert sizes("blue", "a") != before
    session.set("a", "blue", gso_max_size=value)
    assert sizes("blue", "a") == before


@pytest.mark.parametrize("asked", [{"sysctls": {"rp_filter": "0"}}, {"ipv6": False}, {"ipv6": False, "mtu": 1000}])
def test_the_settings_of_another_link_that_has_taken_the_name_meanwhile_stay(
    session: Session, blue: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue", sysctls={"rp_filter": "2"}), End("b", "blue")))
    session.create(Veth(End("z", "blue", sysctls={"rp_filter": "1"}), End("y", "blue")))
    reach_late = LinkSteps.reach_late

    def meddling(self: LinkSteps, wanted: dict[str, Any]) -> None:
        for arguments in (["z", "down"], ["z", "name", "a"], ["a", "up"]):
            ip("link", "set", "dev", *arguments, netns="blue")
        reach_late(self, wanted)

    monkeypatch.setattr(LinkSteps, "reach_late", meddling)
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", new_name="a2", **asked, routes=[Route("default", via="9.9.9.9")])
    assert names("blue") == {"a", "a2", "b", "y"}
    assert [sysctl("blue", f"ipv4/conf/{name}/rp_filter") for name in ("a", "a2")] == ["1", "2"]
    assert [sysctl("blue", f"ipv6/conf/{name}/disable_ipv6") for name in ("a", "a2")] == ["0", "0"]
    assert any("undo name" in text for text in getattr(caught.value, "__notes__", []))


def test_one_setting_that_cannot_be_restored_costs_no_other(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"arp_ignore": "1", "rp_filter": "2", "ipv6.accept_ra": "0", "ipv6.hop_limit": "9"}
    session.create(Veth(End("a", "blue", sysctls=given), End("b", "blue")))
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    wanted = {"arp_ignore": "0", "rp_filter": "0", "ipv6.accept_ra": "1", "ipv6.hop_limit": "8"}
    from vethlib.session.core import settings

    write = settings._write

    def refusing(name: str, setting: Any) -> None:
        if setting == ("ipv4.arp_ignore", "1"):
            raise PermissionError(1, "no")
        write(name, setting)

    monkeypatch.setattr(settings, "_write", refusing)
    with raises(NetlinkError):
        session.set("a", "blue", sysctls=wanted, routes=[Route("default", via="9.9.9.9")])
    now = [sysctl("blue", f"ipv{family}/conf/a/{name}") for family, name in ((4, "rp_filter"), (6, "accept_ra"))]
    assert now == ["2", "0"]
    assert sysctl("blue", "ipv6/conf/a/hop_limit") == "9"


@pytest.mark.parametrize("more", [{}, {"offload": False}, {"new_name": "c"}])
def test_the_only_note_of_a_secret_that_cannot_be_cleared_is_about_that(
    session: Session, blue: str, more: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", altnames=["first"]), End("b", "blue")))
    with pytest.raises(NetlinkError) as caught:
        asked = {"altnames": ["second", "third"], "sysctls": {"ipv6.stable_secret": "::1"}, **more}
        session.set("a", "blue", **asked, routes=[Route("default", via="9.9.9.9")])
    (note,) = caught.value.__notes__
    assert "stable_secret" in note
    assert seen("a", "blue")["altnames"] == ["first"]
