"""Addresses that other programs add to a link while a change is made or undone stay."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.live.sysctls import sysctl
from tests.needs import kernel_is
from tests.refusing import raises
from tests.witness import addresses, ip, seen
from vethlib import End, NetlinkError, Session, Veth
from vethlib.session.write.linksteps import LinkSteps

BEFORE = ["10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/64"]
FOREIGN = ["10.9.9.9/24", "10.0.0.9/24", "10.5.0.9/24", "2001:db8:9::9/64"]  # with subnets of ours, and of the new ones

CHANGES: dict[str, dict[str, Any]] = {
    "added": {"add_addresses": ["10.5.0.1/24", "2001:db8:5::1/64"]},
    "removed": {"remove_addresses": ["10.0.0.1/24", "2001:db8::1/64"]},
    "replaced": {"addresses": ["10.5.0.1/24", "10.0.0.2/24", "2001:db8:5::1/64"]},
    "in another order": {"addresses": ["10.0.0.2/24", "10.0.0.1/24"]},
    "with a lifetime": {"add_addresses": ["10.0.0.1/24 valid_lft 600", "2001:db8::1/64 valid_lft 600"]},
    "up": {"up": False},
    "ipv6": {"ipv6": False, "remove_addresses": ["2001:db8::1/64"]},
    "a name": {"new_name": "vx", "add_addresses": ["10.5.0.1/24"]},
    "a master": {"master": "br0", "add_addresses": ["10.5.0.1/24"]},
}


@pytest.fixture
def link(session: Session, blue: str) -> str:
    for name in ("dad_transmits", "accept_dad"):
        sysctl(blue, f"ipv6/conf/default/{name}", "0")
    ip("link", "add", "name", "br0", "type", "bridge", netns=blue)
    session.create(Veth(End("va", blue, addresses=BEFORE), End("vb", blue)))
    return "va"


def added(name: str, *texts: str) -> None:
    for text in texts:
        ip("address", "add", text, "dev", name, netns="blue")


@pytest.mark.parametrize("promote", ["0", "1"])
@pytest.mark.parametrize("change", CHANGES)
def test_they_stay_when_a_change_has_failed(
    session: Session, blue: str, link: str, monkeypatch: pytest.MonkeyPatch, change: str, promote: str
) -> None:
    sysctl(blue, f"ipv4/conf/{link}/promote_secondaries", promote)
    undo = LinkSteps.undo
    # Before Linux 6.2, a link has to be down to be renamed, and the kernel removes its IPv6 addresses then.
    loses_ipv6 = change == "ipv6" or (change == "a name" and not kernel_is("6.2"))
    foreign = FOREIGN[:3] if loses_ipv6 else FOREIGN

    def undo_later(self: LinkSteps, cause: BaseException | None) -> None:
        monkeypatch.setattr(LinkSteps, "undo", undo)
        added("vx" if change == "a name" else link, *foreign)
        undo(self, cause)

    monkeypatch.setattr(LinkSteps, "undo", undo_later)
    with raises(NetlinkError, errno=errno.ENOENT) as caught:
        session.set(link, blue, **CHANGES[change], sysctls={"no_such_setting": "1"})
    assert getattr(caught.value, "__notes__", []) == []
    assert sorted(addresses(link, blue)) == sorted([*BEFORE, *foreign])
    assert [one for one in addresses(link, blue) if one in BEFORE] == BEFORE
    assert all(one["valid_life_time"] == 0xFFFF_FFFF for one in seen(link, blue)["addr_info"])


def test_they_stay_when_a_link_is_given_a_master(
    session: Session, blue: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = LinkSteps.keep_addresses

    def keep_later(self: LinkSteps) -> None:
        added(link, *FOREIGN)
        keep(self)

    monkeypatch.setattr(LinkSteps, "keep_addresses", keep_later)
    session.set(link, blue, master="br0")
    assert sorted(addresses(link, blue)) == sorted([*BEFORE, *FOREIGN])
    assert [one for one in addresses(link, blue) if one in BEFORE] == BEFORE


def test_one_that_they_add_before_the_change_does_stays(
    session: Session, blue: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = LinkSteps._send

    def send_later(self: LinkSteps, steps: Any) -> Any:
        monkeypatch.setattr(LinkSteps, "_send", send)
        added(link, "10.7.0.1/24")
        return send(self, steps)

    monkeypatch.setattr(LinkSteps, "_send", send_later)
    with pytest.raises(NetlinkError):
        session.set(link, blue, add_addresses=["10.7.0.1/24", "10.7.0.2/24"], sysctls={"no_such_setting": "1"})
    assert sorted(addresses(link, blue)) == sorted([*BEFORE, "10.7.0.1/24"])


@pytest.fixture
def temporary(link: str) -> str:
    """A foreign address of which the kernel makes temporary ones; it has made one."""
    sysctl("blue", f"ipv6/conf/{link}/use_tempaddr", "2")
    ip("address", "add", "2001:db8:7::7/64", "dev", link, "mngtmpaddr", netns="blue")
    (made,) = made_of_it(link)
    return made


def made_of_it(name: str) -> list[str]:
    """Return the temporary addresses of a link; it has no other dynamic ones, and that of which they are made."""
    dynamic = [one for one in seen(name, "blue")["addr_info"] if one.get("dynamic")]
    assert all(one.get("temporary") for one in dynamic)
    assert [one["local"] for one in seen(name, "blue")["addr_info"] if one.get("mngtmpaddr")] == ["2001:db8:7::7"]
    return [one["local"] for one in dynamic]


@pytest.mark.parametrize("change", ["added", "removed", "up", "ipv6", "a name"])
def test_temporary_ones_are_left_to_the_kernel_when_a_change_has_failed(
    session: Session, blue: str, link: str, temporary: str, change: str
) -> None:
    with raises(NetlinkError, errno=errno.ENOENT) as caught:
        session.set(link, blue, **CHANGES[change], sysctls={"no_such_setting": "1"})
    assert getattr(caught.value, "__notes__", []) == []
    (now,) = made_of_it(link)
    if change == "added":
        assert now == temporary
    assert [one for one in addresses(link, blue) if one in BEFORE] == BEFORE


def test_temporary_ones_are_left_to_the_kernel_when_other_addresses_are_set(
    session: Session, blue: str, link: str, temporary: str
) -> None:
    session.set(link, blue, addresses=["2001:db8:7::7/64"])
    assert made_of_it(link) == [temporary]
    with raises(NetlinkError, errno=errno.ENOENT) as caught:
        session.set(link, blue, addresses=["2001:db8:7::7/64", "10.8.0.1/24"], sysctls={"no_such_setting": "1"})
    assert getattr(caught.value, "__notes__", []) == []
    assert made_of_it(link) == [temporary]


def test_temporary_ones_are_left_to_the_kernel_when_a_link_is_renamed_or_its_addresses_are_restored(
    session: Session, blue: str, link: str, temporary: str
) -> None:
    session.set(link, blue, new_name="vx")
    assert len(made_of_it("vx")) == 1
    before = session.lookup("vx", blue).ifaddrs
    session.set("vx", blue, addresses=[])
    session.restore_addresses("vx", blue, addresses=before)
    assert len(made_of_it("vx")) == 1
    assert addresses("vx", blue)[:2] == BEFORE[:2]
