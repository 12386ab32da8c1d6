"""An address as the kernel has it: its identity, its owner and its state."""

from __future__ import annotations

import os
import pickle
from ipaddress import ip_address, ip_interface
from types import SimpleNamespace

import pytest

import vethlib
from vethlib.addresses import Address, kernel_marks_owners
from vethlib.links import Address as PublicAddress

PERMANENT = 0x80


def address(text: str, flags: int = PERMANENT, proto: int = 0, peer: str = "") -> Address:
    return Address(1, ip_interface(text), flags, proto, peer=ip_address(peer) if peer else None)


def test_there_is_one_class_of_addresses() -> None:
    assert vethlib.Address is PublicAddress is Address


def test_an_address_with_a_peer_is_not_the_plain_one() -> None:
    plain, with_peer = address("10.0.0.1/32"), address("10.0.0.1/32", peer="10.0.0.2")
    assert plain != with_peer
    assert plain.is_exactly(ip_interface("10.0.0.1/32"))
    assert not plain.is_exactly(ip_interface("10.0.0.1/24"))
    assert not with_peer.is_exactly(ip_interface("10.0.0.1/32"))
    assert not plain.same(with_peer)
    assert (plain.is_plain("x"), with_peer.is_plain("x")) == (True, False)
    assert (str(plain), str(with_peer)) == ("10.0.0.1/32", "10.0.0.1 peer 10.0.0.2/32")


STATES = [
    (0x80, "usable", True, False),
    (0x81, "usable", True, False),
    (0x00, "expiring", True, True),
    (0x20, "deprecated", True, True),
    (0xA0, "deprecated", True, False),
    (0xC0, "tentative", False, False),
    (0x60, "tentative", False, True),
    (0xC4, "usable", True, False),  # optimistic
    (0xC8, "dadfailed", False, False),
    (0x88, "dadfailed", False, False),
    (0xCC, "dadfailed", False, False),
]


@pytest.mark.parametrize(("flags", "state", "usable", "expires"), STATES)
def test_an_address_says_what_state_it_is_in(flags: int, state: str, usable: bool, expires: bool) -> None:
    one = address("2001:db8::1/64", flags)
    assert (one.state, one.usable, one.expires, one.permanent) == (state, usable, expires, not expires)
    assert one.tentative == bool(flags & 0x40)
    assert one.dadfailed == bool(flags & 0x08)
    assert not one.secondary
    assert address("10.0.0.1/24", flags).secondary == bool(flags & 1)


def test_only_ipv6_has_temporary_addresses_and_the_kernel_makes_them_again() -> None:
    temporary, secondary = address("2001:db8::1/64", 1), address("10.0.0.1/24", 1)
    assert (temporary.temporary, temporary.comes_again) == (True, True)
    assert (secondary.temporary, secondary.comes_again) == (False, False)
    assert not address("2001:db8::1/64", 0x80).comes_again


@pytest.fixture
def new_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.addresses.kernel_marks_owners", lambda: True)


@pytest.mark.usefixtures("new_kernel")
def test_whose_an_address_is_depends_on_its_mark_and_not_on_its_range() -> None:
    for text in ("10.0.0.1/24", "169.254.1.1/16", "fe80::1/64", "fe80::1/128", "2001:db8::1/64"):
        assert not address(text).by_kernel
        assert not address(text, proto=0x76).by_kernel
        assert address(text, proto=3).by_kernel


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.15.0-91-generic"))
    monkeypatch.setattr("vethlib.addresses._is_loopback_marked", lambda: False)
    kernel_marks_owners.cache_clear()
    monkeypatch.setattr("vethlib.addresses.kernel_marks_owners", kernel_marks_owners.__wrapped__)


@pytest.mark.usefixtures("old_kernel")
def test_without_marks_what_looks_like_the_kernels_own_is_left_to_it() -> None:
    assert address("fe80::1/64").by_kernel
    for other in (
        address("169.254.1.1/16"),
        address("fe80::1/128"),
        address("fe80:1::1/64"),
        address("fe80::1/64", flags=0),
        address("fe80::1/64", peer="fe80::2"),
        address("2001:db8::1/64"),
    ):
        assert not other.by_kernel


@pytest.mark.parametrize(
    ("release", "marks"), [("5.17.9", False), ("5.18.0-rc1", True), ("6.1", True), ("4.20", False), ("10.0.1+", True)]
)
def test_which_kernels_mark_owners_is_read_from_their_release_without_a_marked_loopback(
    monkeypatch: pytest.MonkeyPatch, release: str, marks: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    monkeypatch.setattr("vethlib.addresses._is_loopback_marked", lambda: False)
    assert kernel_marks_owners.__wrapped__() == marks


def test_without_a_message_nothing_is_known_of_lifetimes_and_the_scope_follows_from_the_address() -> None:
    one = address("fe80::1/64")
    assert (one.valid, one.preferred, one.scope) == (None, None, 253)
    assert address("10.0.0.1/24").scope == address("2001:db8::1/64").scope == address("169.254.1.1/16").scope == 0


def test_an_address_outlives_a_pickle() -> None:
    one = address("10.0.0.1/32", peer="10.0.0.2")
    assert pickle.loads(pickle.dumps(one)) == one
