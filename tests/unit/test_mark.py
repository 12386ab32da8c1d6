"""Ownership marks."""

from __future__ import annotations

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib.agent import Interface, Mark, alias_of, check_label, group_of, is_ours, read_alias
from vethlib.errors import InvalidValue
from vethlib.links import check_alias, check_group

# '.' and '..' are no labels: a label names a directory.
labels = st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True).filter(lambda label: label not in (".", ".."))


def test_the_group_of_a_label_never_changes() -> None:
    # After an upgrade, an agent has to recognise the pairs that were created before.
    assert group_of("vpp1") == 0x7684257A
    assert group_of("vpp1") != group_of("vpp2")


@given(labels)
def test_a_group_is_a_number_the_kernel_takes_and_nobody_picks_by_hand(label: str) -> None:
    assert check_group(group_of(label)) > 1_000_000_000


def test_an_alias_reads_well() -> None:
    plain = Interface("veth1", "veth2")
    with_mac = Interface("veth1", "veth2", phys_address="d2:74:8c:12:67:d2")
    assert alias_of("vpp1", plain) == "vethlib label=vpp1 name=veth1"
    assert alias_of("vpp1", with_mac) == "vethlib label=vpp1 name=veth1 mac"


@given(labels, st.from_regex(r"[^/:%\s\x00-\x1f]{1,40}", fullmatch=True), st.booleans())
def test_every_alias_fits_the_kernel_and_reads_back(label: str, name: str, mac: bool) -> None:
    try:
        interface = Interface(name, "p" * 63, host_if_name="eth0", phys_address="02:00:00:00:00:01" if mac else "")
    except InvalidValue:
        reject()
    alias = check_alias(alias_of(label, interface))
    assert len(alias.encode()) <= 150
    assert read_alias(alias) == Mark(label, name, mac)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uplink",
        "vethlib",
        "vethlib label=vpp1",
        "vethlib label=vpp1 name=a/b",
        "vethlib label=vpp/1 name=veth1",
        "vethlib label=vpp1 name=veth1 mac and more",
        "vethlib label=vpp1 name=veth1 ",
        " vethlib label=vpp1 name=veth1",
        "vethlib label=vpp1 name=veth1\n",
    ],
)
def test_any_other_text_is_not_an_alias_of_ours(text: str) -> None:
    assert read_alias(text) is None


def test_a_link_is_ours_by_its_alias_or_by_its_group_while_it_has_none() -> None:
    group = group_of("vpp1")
    assert is_ours(0, "vethlib label=vpp1 name=veth1", "vpp1")
    assert is_ours(group, "", "vpp1")
    assert not is_ours(0, "", "vpp1")
    assert not is_ours(group, "uplink", "vpp1")
    assert not is_ours(group, "vethlib label=vpp2 name=veth1", "vpp1")
    assert not is_ours(group_of("vpp2"), "", "vpp1")


@pytest.mark.parametrize("label", ["", "a b", "a/b", "x" * 64, "é", "a\n"])
def test_a_label_is_checked(label: str) -> None:
    with raises(InvalidValue, field="label", value=label):
        check_label(label)
