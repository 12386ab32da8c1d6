"""Addresses that expire are made permanent in place, and IPv6 settings are read in the link's namespace."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from tests.live.refusals import refused
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import ip, nothing_changes, seen
from vethlib import End, LinkNotFound, NetlinkError, Session, Veth
from vethlib._nl.const import RTM_NEWADDR

EXPIRING = ["10.0.0.1/24", "2001:db8::1/64"]


@pytest.fixture
def link(session: Session, blue: str) -> int:
    """A link in blue, with addresses that expire, followed by an address that does not."""
    pair = session.create(Veth(End("va", blue), End("vb")))
    for text in EXPIRING:
        ip("address", "add", text, "dev", "va", "valid_lft", "600", "preferred_lft", "300", netns=blue)
    ip("address", "add", "10.0.1.1/24", "dev", "va", netns=blue)
    return pair.a.index


def lifetimes(blue: str) -> dict[str, bool]:
    """Whether each address expires, in the kernel's order."""
    addresses: list[dict[str, Any]] = seen("va", blue)["addr_info"]
    return {
        f"{one['local']}/{one['prefixlen']}": one["valid_life_time"] < 2**32 - 1
        for one in addresses
        if one["local"][:4] != "fe80"
    }


def test_those_that_expire_become_permanent_in_their_place(session: Session, blue: str, link: int) -> None:
    before = lifetimes(blue)
    assert [text for text, expires in before.items() if expires] == EXPIRING
    session.renew_addresses("va", blue, addresses=[*EXPIRING, "10.0.1.1/24", "10.9.9.9/32"], index=link)
    assert lifetimes(blue) == dict.fromkeys(before, False)
    assert list(lifetimes(blue)) == list(before)


def test_others_are_left_alone(session: Session, blue: str, link: int) -> None:
    session.renew_addresses("va", blue, addresses=EXPIRING[:1])
    assert [text for text, expires in lifetimes(blue).items() if expires] == EXPIRING[1:]


def test_another_link_of_that_name_is_left_alone(session: Session, blue: str, link: int) -> None:
    before = lifetimes(blue)
    with pytest.raises(LinkNotFound) as caught:
        session.renew_addresses("va", blue, addresses=EXPIRING, index=link + 1)
    assert (caught.value.index, caught.value.netns) == (link, "blue")
    assert lifetimes(blue) == before


def test_a_refusal_names_the_link(session: Session, blue: str, link: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(monkeypatch, errno.ENOBUFS, RTM_NEWADDR), pytest.raises(NetlinkError) as caught:
        session.renew_addresses("va", blue, addresses=EXPIRING)
    assert (caught.value.errno, caught.value.netns) == (errno.ENOBUFS, "blue")
    assert "'va'" in caught.value.request


def test_settings_of_ipv6_are_those_of_the_link_in_its_namespace(session: Session, blue: str, link: int) -> None:
    sysctl(blue, "ipv6/conf/all/accept_dad", "0")
    sysctl(blue, "ipv6/conf/va/accept_dad", "1")
    assert session.ipv6_settings("va", blue) == (False, 1)
    assert session.ipv6_settings("vb").disabled is False
    sysctl(blue, "ipv6/conf/va/disable_ipv6", "1")
    assert session.ipv6_settings("va", blue) == (True, 1)
    assert not session.ipv6_settings("va", blue).may_be_switched_off_for_a_duplicate
    sysctl(blue, "ipv6/conf/all/accept_dad", "2")
    assert session.ipv6_settings("va", blue).may_be_switched_off_for_a_duplicate


def test_settings_of_ipv6_are_found_by_an_alternative_name_and_a_link(session: Session, blue: str, link: int) -> None:
    sysctl(blue, "ipv6/conf/va/accept_dad", "2")
    found = session.set("va", blue, altnames=["an-alternative-name-of-30-bytes"])
    settings = session.ipv6_settings("va", blue)
    assert settings.accept_dad == 2
    assert session.ipv6_settings("an-alternative-name-of-30-bytes", blue) == settings
    assert session.ipv6_settings(found) == settings


@pytest.mark.parametrize("name", ["missing", "all", "default"])
def test_a_missing_link_has_no_settings_of_ipv6(session: Session, blue: str, name: str) -> None:
    with raises(LinkNotFound, netns="blue"):
        session.ipv6_settings(name, blue)


def test_a_link_without_ipv6_has_no_settings_of_it(session: Session, blue: str, link: int) -> None:
    ip("link", "set", "va", "mtu", "1000", netns=blue)
    with nothing_changes(), pytest.raises(NetlinkError) as caught:
        session.ipv6_settings("va", blue)
    assert (caught.value.errno, caught.value.netns) == (errno.ENOENT, "blue")
    assert os.strerror(errno.ENOENT) in str(caught.value)
