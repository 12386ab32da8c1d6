"""Addresses with attributes, as text and as value."""

from __future__ import annotations

import json
import pickle
from copy import copy, deepcopy
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

import pytest

from vethlib import End, InvalidValue, NewAddress
from vethlib._nl.addr import new_addr
from vethlib.addresses import PLAIN, Address, IPInterface, as_address, identity_of, plain_of
from vethlib.agent import Interface, read_value, to_json
from vethlib.endfields.newaddress import as_given
from vethlib.session.write.addressing import Goal
from vethlib.session.write.creating.configuring import _address_request

TEXTS = [
    "10.0.0.1/24 brd 10.0.0.255 label a:x",
    "10.0.0.1 peer 10.0.0.2/32 scope link",
    "10.0.0.1/24 scope 100 noprefixroute",
    "2001:db8::1/64 nodad noprefixroute",
    "2001:db8::1 peer 2001:db8::2/128",
    "10.0.0.1/24 valid_lft 600 preferred_lft 300",
    "10.0.0.1/24",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_is_written_as_it_is_read_and_can_be_pickled_and_copied(text: str) -> None:
    value = NewAddress(text)
    assert str(value) == text
    for other in (NewAddress(str(value)), pickle.loads(pickle.dumps(value)), copy(value), deepcopy(value)):
        assert other == value
        assert hash(other) == hash(value)
    assert issubclass(type(value), IPv6Interface if ":" in text.split()[0] else IPv4Interface)
    assert str(value.plain.ip) == text.replace("/", " ").split()[0]
    assert eval(repr(value), {"NewAddress": NewAddress}) == value


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("10.0.0.1/24 broadcast + label a:x", TEXTS[0]),
        ("10.0.0.1/24 brd 10.0.0.9 label a", "10.0.0.1/24 label a brd 10.0.0.9"),
        ("10.0.0.1/24 brd -", "10.0.0.1/24 brd 10.0.0.0"),
        ("10.0.0.1 scope 253 peer 10.0.0.2/32", TEXTS[1]),
        ("10.0.0.1/24 scope global", "10.0.0.1/24 scope 0"),
        ("10.0.0.1/24 valid_lft 600sec", "10.0.0.1/24 preferred_lft 600 valid_lft 600"),
        ("10.0.0.1/24 valid_lft forever preferred_lft forever brd +", "10.0.0.1/24 brd +"),
        ("fe80::1/64 scope link nodad", "fe80::1/64 nodad"),
        ("10.1.0.1 peer 10.2.0.1/24 brd +", "10.1.0.1 peer 10.2.0.1/24 brd 10.2.0.255"),
        (" 2001:db8::1/64  nodad ", "2001:db8::1/64 nodad"),
        ("2001:db8::1/64\tnodad", "2001:db8::1/64 nodad"),
        ("10.0.0.1/24 brd 0.0.0.0", "10.0.0.1/24 scope global"),
        ("0.0.0.1/8 brd -", "0.0.0.1/8 scope global"),
        ("10.0.0.1 peer 0.0.0.2/24 brd -", "10.0.0.1 peer 0.0.0.2/24"),
        ("10.0.0.1/24 broadcast 0.0.0.0 label a:x", "10.0.0.1/24 label a:x"),
        ("10.0.0.1/24\tlabel\ta:x", "10.0.0.1/24 label a:x"),
        ("\n10.0.0.1/24 label a:x", "10.0.0.1/24 label a:x"),
    ],
)
def test_different_texts_mean_the_same(text: str, same: str) -> None:
    assert NewAddress(text) == NewAddress(same)
    assert type(NewAddress(text)) is type(NewAddress(same))
    assert End("a", addresses=[text]) == End("a", addresses=[same])


def test_arguments_mean_the_same_as_words() -> None:
    assert NewAddress("10.0.0.1/24", broadcast="+", label="a:x") == NewAddress(TEXTS[0])
    assert NewAddress("10.0.0.1", peer="10.0.0.2/32", scope="link") == NewAddress(TEXTS[1])
    assert NewAddress("2001:db8::1/64 nodad", noprefixroute=True) == NewAddress(TEXTS[3])
    assert NewAddress(ip_interface("10.0.0.1/24"), valid=600, preferred=300) == NewAddress(TEXTS[5])
    assert NewAddress(NewAddress(TEXTS[0]), scope="link") == NewAddress(f"{TEXTS[0]} scope link")


def test_it_is_equal_to_no_other_and_to_no_plain_one() -> None:
    values = [NewAddress(text) for text in TEXTS]
    assert len(set(values)) == len(TEXTS)
    plain = ip_interface("10.0.0.1/24")
    assert NewAddress("10.0.0.1/24") != plain
    assert plain != NewAddress("10.0.0.1/24")
    assert End("a", addresses=["10.0.0.1/24"]) != End("a", addresses=["10.0.0.1/24 label x"])
    first, second = End("a", addresses=TEXTS[:1]).interfaces + End("a", addresses=TEXTS[1:2]).interfaces
    assert identity_of(first) == identity_of(plain) == (plain, None)
    assert identity_of(second) == (ip_interface("10.0.0.1/32"), ip_address("10.0.0.2"))


WRONG = [
    ("10.0.0.1/24 brd", "10.0.0.1/24 brd"),
    ("10.0.0.1/24 dev x", "10.0.0.1/24 dev x"),
    ("10.0.0.1/24 brd + broadcast -", "10.0.0.1/24 brd + broadcast -"),
    ("10.0.0.1/24 nodad nodad", "10.0.0.1/24 nodad nodad"),
    ("10.0.0.1/31 brd +", "brd +"),
    ("10.0.0.1/24 brd x", "brd x"),
    ("2001:db8::1/64 brd +", "brd +"),
    ("10.0.0.1/24 peer 10.0.0.2", "10.0.0.1/24 peer 10.0.0.2"),
    ("10.0.0.1/24 peer 10.0.0.2/32", "10.0.0.1/24 peer 10.0.0.2/32"),
    ("10.0.0.1 peer 2001:db8::1/32", "2001:db8::1/32"),
    ("10.0.0.1 brd +", "10.0.0.1"),
    ("10.0.0.1/24 nodad", "10.0.0.1/24"),
    ("2001:db8::1/64 label x", "label x"),
    ("10.0.0.1/24 label sixteen_bytes_ab", "label sixteen_bytes_ab"),
    ("10.0.0.1/24 label :x", "label :x"),
    ("10.0.0.1/24 label a/b", "label a/b"),
    ("10.0.0.1/24 scope nowhere", "scope nowhere"),
    ("10.0.0.1/24 scope 255", "scope 255"),
    ("2001:db8::1/64 scope link", "scope link"),
    ("10.0.0.1/24 valid_lft 0", "valid_lft 0"),
    ("10.0.0.1/24 valid_lft 4294967295", "valid_lft 4294967295"),
    ("10.0.0.1/24 valid_lft soon", "10.0.0.1/24 valid_lft soon"),
    ("10.0.0.1/24 valid_lft 5 preferred_lft 6", "preferred_lft 6"),
    ("10.0.0.1/24 " + "x" * 400, None),
    ("nonsense/24 brd +", "nonsense/24"),
    (" 10.0.0.1/24", " 10.0.0.1/24"),
]


@pytest.mark.parametrize(("text", "value"), WRONG)
def test_a_wrong_word_is_named_with_the_field(text: str, value: str | None) -> None:
    with pytest.raises(InvalidValue) as caught:
        End("a", addresses=[text])
    assert caught.value.field == "addresses"
    assert caught.value.value == (text if value is None else value)


@pytest.mark.parametrize(
    "given",
    [
        {"nodad": "yes"},
        {"valid": True},
        {"preferred": -1},
        {"label": 7},
        {"scope": 2.5},
        {"peer": "10.0.0.2"},
    ],
)
def test_a_wrong_argument_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        NewAddress("10.0.0.1/24", **given)


def test_an_attribute_in_the_text_and_as_argument_is_refused() -> None:
    with pytest.raises(InvalidValue):
        NewAddress("10.0.0.1/24 label x", label="y")


@pytest.mark.parametrize(
    "texts",
    [
        ["10.0.0.1/24", "10.0.0.1/24 brd +"],
        ["10.0.0.1/24 label x", "10.0.0.1/24 label y"],
        ["10.0.0.1/24", "10.0.0.1 peer 10.0.0.2/24"],
        ["10.0.0.1 peer 10.9.0.1/24", "10.0.0.1 peer 10.9.0.2/24"],
        ["2001:db8::1/64", "2001:db8::1 peer 2001:db8::2/128"],
    ],
)
def test_what_is_one_address_to_the_kernel_is_given_once(texts: list[str]) -> None:
    with pytest.raises(InvalidValue):
        End("a", addresses=texts)


def test_addresses_with_different_peers_are_different() -> None:
    assert len(End("a", addresses=["10.0.0.1/32", "10.0.0.1 peer 10.0.0.2/32"]).interfaces) == 2


@pytest.mark.parametrize(
    "text", ["10.0.0.1/24", "10.0.0.1/24 brd + label a:x", "fd00::1/64 nodad", "fd00::1/64 peer fd01::1/64"]
)
@pytest.mark.parametrize("number", [1, -1])
def test_the_sum_of_an_address_and_a_number_is_a_plain_address(text: str, number: int) -> None:
    plain = ip_interface(text.split()[0])
    given: Any = NewAddress(text)
    assert repr(given + number) == repr(plain + number)
    assert repr(given - number) == repr(plain - number)


def test_a_plain_address_is_as_before() -> None:
    given = End("a", addresses=["10.0.0.1/24", "2001:db8::1/64"]).interfaces
    assert all(type(each) in PLAIN for each in given)
    assert plain_of(given) is given
    for each in given:
        assert _address_request(7, each, 118) == new_addr(7, each.packed, each.network.prefixlen, 118)
    present = [Address(7, each, 0x80, 118) for each in given]
    goal = Goal.of(present, 7, 118, whole=given, add=(), remove=(), order=())
    assert goal.first(present) == ([], [])
    assert goal.unmet(present) == []
    before, after = Goal.of([], 7, 118, whole=given, add=(), remove=(), order=()).first([])
    assert [step.request for step in before] == [
        new_addr(7, each.packed, each.network.prefixlen, 118) for each in given
    ]
    assert after == []


def test_links_are_given_as_plain_addresses() -> None:
    given = End("a", addresses=TEXTS[1:2]).interfaces
    assert plain_of(given) == (ip_interface("10.0.0.1/32"),)


def test_an_address_that_was_not_read_has_no_attributes() -> None:
    one = Address(1, ip_interface("10.0.0.1/24"), 0x80, 0)
    assert (one.broadcast, one.label, one.nodad, one.noprefixroute) == (None, "", False, False)
    assert NewAddress("10.0.0.1/24").is_met_by(one)
    assert not NewAddress("10.0.0.1/24 noprefixroute").is_met_by(one)
    assert not NewAddress("10.0.0.1/24 noprefixroute").is_met_by(Address(1, ip_interface("10.0.0.2/24"), 0x80, 0))


def given(text: str) -> IPInterface:
    return End("a", addresses=[text]).interfaces[0]


@pytest.mark.parametrize("text", [text for text in TEXTS if "lft" not in text])
def test_what_was_given_is_known_from_what_is_read(text: str) -> None:
    one = as_address(given(text), 7, 118)
    assert as_given(one, "a") == given(text)
    assert one.can_be_given
    assert one.is_bare("a") == (text == TEXTS[-1] or text == TEXTS[4])


def test_a_label_that_the_kernel_makes_when_it_renames_a_link_is_none() -> None:
    long = "a_long_name_15b"
    for name, label in [("new", "new"), ("new", "new:2"), ("new", "new:13"), (long, "a_long_name_1:2")]:
        one = NewAddress("10.0.0.1/24", label=label).on(7, 0)
        assert one.is_bare(name), label
        assert as_given(one, name) == ip_interface("10.0.0.1/24")
    for label in ["new:0", "new:1", "new:x", "old:y", "old", "old:2", "n:2"]:
        one = NewAddress("10.0.0.1/24", label=label).on(7, 0)
        assert not one.is_bare("new"), label
        assert as_given(one, "new") == NewAddress("10.0.0.1/24", label=label)


def test_an_address_like_the_header_of_an_attribute_is_bare() -> None:
    # Its bytes are those of a broadcast attribute: 8 bytes long, of type 4.
    one = NewAddress("8.0.4.0/8", label="a").on(7, 0)
    assert one.is_bare("a")
    assert not NewAddress("8.0.4.0/8", label="a", broadcast="+").on(7, 0).is_bare("a")


def interface(*texts: str) -> Interface:
    parsed = read_value({"name": "a", "veth": {"peer_if_name": "b"}, "ip_addresses": list(texts)})
    assert parsed.interface is not None, parsed.problems
    return parsed.interface


def test_a_configuration_has_them_as_text_and_is_written_as_it_is_read() -> None:
    one = interface("10.0.0.1/24 brd + label a:x", "10.1.0.1 scope link peer 10.1.0.2/32", "10.2.0.1/24 scope global")
    assert one.ip_addresses == (
        "10.0.0.1/24 brd 10.0.0.255 label a:x",
        "10.1.0.1 peer 10.1.0.2/32 scope link",
        "10.2.0.1/24",
    )
    assert read_value(json.loads(to_json(one))).interface == one
    assert one != interface("10.0.0.1/24", "10.1.0.1 scope link peer 10.1.0.2/32", "10.2.0.1/24")
    assert one.end().interfaces == one.addresses
    assert type(one.addresses[2]) in PLAIN


def test_the_same_address_may_be_listed_twice_but_not_with_other_attributes() -> None:
    assert interface("10.0.0.1/24 brd +", "10.0.0.1/24 brd 10.0.0.255").ip_addresses == ("10.0.0.1/24 brd 10.0.0.255",)
    value = {"name": "a", "veth": {"peer_if_name": "b"}, "ip_addresses": ["10.0.0.1/24 brd +", "10.0.0.1/24"]}
    assert [problem.field for problem in read_value(value).problems] == ["ip_addresses[1]"]


def test_a_text_that_is_too_long_is_not_cut() -> None:
    with pytest.raises(InvalidValue):
        NewAddress("10.0.0.1/24" + " " * 300 + "brd +")
