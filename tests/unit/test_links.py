"""Desired and observed links: valid and invalid values."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from ipaddress import IPv4Interface, ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib import Neighbour, Route
from vethlib.errors import InvalidValue
from vethlib.links import (
    End,
    Link,
    Pair,
    Veth,
    check_addresses,
    check_alias,
    check_group,
    check_lookup_name,
    check_mac,
    check_mtu,
    check_name,
    check_proto,
    check_queues,
    describe,
)

BAD: list[tuple[Callable[..., Any], object, str]] = [
    (check_name, "", "this one has 0"),
    (check_name, "x" * 16, "this one has 16"),
    (check_name, "é" * 8, "this one has 16"),
    (check_name, 7, "must be a string"),
    (check_name, None, "must be a string"),
    (check_name, b"eth0", "must be a string"),
    (check_name, "\ud800", "cannot be encoded"),
    *((check_name, f"a{bad}b", "no '/', ':', '%' or space") for bad in "/:% \t\n\r\x0b\x0c\0"),
    (check_name, "à", "a byte 0xa0"),
    (check_name, "\udca0", "a byte 0xa0"),
    (check_name, ".", "cannot be called"),
    (check_name, "..", "cannot be called"),
    (check_lookup_name, "x" * 128, "this one has 128"),
    (check_lookup_name, "", "this one has 0"),
    (check_lookup_name, None, "must be a string"),
    (check_mac, "", "six pairs"),
    (check_mac, "02:00:00:00:00", "six pairs"),
    (check_mac, "02:00:00:00:00:0g", "six pairs"),
    (check_mac, "02:00:00:00:00:01\n", "six pairs"),
    (check_mac, 2, "six pairs"),
    (check_mac, "01:00:00:00:00:01", "unicast"),
    (check_mac, "ff:ff:ff:ff:ff:ff", "unicast"),
    (check_mac, "00:00:00:00:00:00", "all-zero"),
    *((check_mtu, value, "68 to 65535") for value in (67, 65536, -1, True, "1500", 1500.0, None)),
    *((check_queues, value, "1 to 4096") for value in (0, 4097, "1", False)),
    *((check_group, value, "0 to 2147483647") for value in (-1, 1 << 31, "default")),
    *((check_proto, value, "0 to 255") for value in (-1, 256, None)),
    (check_alias, "x" * 256, "at most 255 bytes"),
    (check_alias, "é" * 128, "at most 255 bytes"),
    (check_alias, "a\0b", "at most 255 bytes"),
    (check_alias, 7, "must be a string"),
    (check_alias, "\ud800", "cannot be encoded"),
    (check_addresses, "10.0.0.1/24", "must be a list of addresses"),
]


@pytest.mark.parametrize(("check", "value", "hint"), BAD)
def test_a_bad_value_is_named_with_its_field(check: Callable[..., Any], value: object, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint) as caught:
        check(value, "what")
    assert (caught.value.field, caught.value.value) == ("what", value)
    assert str(caught.value).startswith(f"what {value!r}: ")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("10.0.0.1", "must have a prefix length"),
        ("10.0.0.256/24", "address with a prefix length"),
        ("10.0.0.1/33", "address with a prefix length"),
        ("/24", "address with a prefix length"),
        ("2001:db8::1/129", "address with a prefix length"),
        ("0.0.0.0/0", "unspecified or a multicast"),
        ("::/64", "unspecified or a multicast"),
        ("224.0.0.1/24", "unspecified or a multicast"),
        ("ff02::1/64", "unspecified or a multicast"),
        ("fe80::1%eth0/64", "no %scope"),
        (7, "must be a string or an ipaddress interface"),
        (None, "must be a string or an ipaddress interface"),
    ],
)
def test_a_bad_address_is_named(address: Any, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint) as caught:
        check_addresses(["10.0.0.1/24", address])
    assert caught.value.field == "addresses"
    assert caught.value.value == address


def test_an_address_is_given_once() -> None:
    with raises(InvalidValue, field="addresses"):
        check_addresses(["10.0.0.1/24", IPv4Interface("10.0.0.1/24")])
    with raises(InvalidValue, field="addresses"):
        check_addresses(["2001:db8::1/64", "2001:db8:0::1/128"])
    assert len(check_addresses(["10.0.0.1/24", "10.0.0.1/32"])) == 2


def test_addresses_become_interfaces() -> None:
    given = ["10.0.0.1/24", ip_interface("2001:db8::1/64")]
    assert check_addresses(iter(given)) == (ip_interface("10.0.0.1/24"), ip_interface("2001:db8::1/64"))
    assert check_addresses([]) == ()


@pytest.mark.parametrize("name", ["x", "x" * 15, "eth0.5@7", "...", "é" * 7, "\udcff"])
def test_a_good_name_is_itself(name: str) -> None:
    assert check_name(name) == name


def test_an_alternative_name_may_be_longer_and_have_any_character() -> None:
    for name in ("x", "x" * 16, "x" * 127, "a b", "a/b", "a:b", "%", ".", "\n", "\udcff"):
        assert check_lookup_name(name) == name


def test_a_mac_is_written_in_one_way() -> None:
    assert check_mac("02-AB-cd-00-00-01") == check_mac("02:ab:CD:00:00:01") == "02:ab:cd:00:00:01"


@given(st.text(max_size=20))
def test_whatever_is_called_a_name_is_one_or_is_refused(name: str) -> None:
    try:
        encoded = check_name(name).encode("utf-8", "surrogateescape")
    except InvalidValue:
        return
    assert 1 <= len(encoded) <= 15
    # dev_valid_name, with isspace as lib/ctype.c has it
    assert not set(encoded) & set(b"/:\t\n\v\f\r \xa0")


def test_an_end_has_the_values_it_was_given_in_one_form() -> None:
    end = End("eth0", "blue", mac="02-00-00-00-00-0A", mtu=1280, addresses=["2001:db8::1/64"], alias="x", group=1)
    assert (end.mac, end.interfaces) == ("02:00:00:00:00:0a", (ip_interface("2001:db8::1/64"),))
    assert end.addresses == end.interfaces
    assert (End("x").netns, End("x").up, End("x").interfaces) == ("", True, ())
    assert End("x", addresses=[]).interfaces == ()


@pytest.mark.parametrize(
    "values",
    [
        {"mac": "x"},
        {"mtu": 1},
        {"addresses": ["x"]},
        {"num_queues": 0},
        {"alias": "\0"},
        {"group": -1},
        {"address_proto": 256},
        {"altnames": ["uplink", "x"]},
    ],
)
def test_an_end_with_a_bad_value_cannot_be_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        End("x", **values)
    assert caught.value.field == next(iter(values))


def test_an_end_is_where_a_reference_leads_and_nowhere_else() -> None:
    with open("/proc/self/ns/net") as opened:
        for netns in (None, "", "blue", "pid:42", opened):
            assert End("a", netns).netns is netns
    wrong: Any
    for wrong in (5, 10**5000, b"blue", ["blue"], object(), float("nan")):
        with raises(InvalidValue, field="netns"):
            End("a", wrong)


def test_ipv6_needs_an_mtu_of_1280() -> None:
    with raises(InvalidValue, field="mtu", value=1279):
        End("x", mtu=1279, addresses=["10.0.0.1/24", "2001:db8::1/64"])
    assert End("x", mtu=1279, addresses=["10.0.0.1/24"]).mtu == 1279
    assert End("x", mtu=1280, addresses=["2001:db8::1/64"]).mtu == 1280


IPV6: list[dict[str, Any]] = [
    {"routes": [Route("10.0.0.0/8"), Route("fd00::/8")]},
    {"neighbours": [Neighbour("10.0.0.1", "02:00:00:00:00:01"), Neighbour("fd00::1", "02:00:00:00:00:01")]},
    {"sysctls": {"rp_filter": "0", "ipv6.accept_ra": "0"}},
]


@pytest.mark.parametrize("fields", IPV6)
def test_an_end_without_ipv6_has_no_routes_and_neighbours_of_it(fields: dict[str, Any]) -> None:
    with raises(InvalidValue, field="mtu", value=1279):
        End("x", mtu=1279, **fields)
    assert End("x", mtu=1280, ipv6=True, **fields).mtu == 1280
    if "sysctls" in fields:  # which can be set while it is disabled
        assert End("x", ipv6=False, **fields).ipv6 is False
    else:
        with raises(InvalidValue, field="ipv6", value=False):
            End("x", ipv6=False, **fields)
    for name, values in fields.items():
        only_four: dict[str, Any] = {name: values[:1] if isinstance(values, list) else {"rp_filter": "0"}}
        assert End("x", mtu=576, ipv6=False, **only_four).mtu == 576


def test_values_do_not_change() -> None:
    for value in (End("x"), Veth(End("x"), End("y"))):
        field = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, 1)
        with pytest.raises((AttributeError, TypeError)):
            value.other = 1  # type: ignore[union-attr]


def test_values_pickle_and_compare() -> None:
    veth = Veth(End("x", addresses=["10.0.0.1/24"]), End("y", "blue", up=False))
    assert pickle.loads(pickle.dumps(veth)) == veth
    assert hash(veth) == hash(Veth(veth.a, veth.b))


def test_the_ends_of_a_pair_need_two_names_in_one_namespace() -> None:
    with raises(InvalidValue, field="name", value="x"):
        Veth(End("x", "blue"), End("x", "blue"))
    assert Veth(End("x"), End("x", "blue")).b.netns == "blue"


def test_ends_and_pairs_read_well_in_messages() -> None:
    assert str(End("x")) == describe("x", None) == "'x'"
    assert str(End("x", "blue")) == describe("x", "netns:blue") == "'x' in netns:blue"
    assert str(Veth(End("eth0", "blue"), End("vb0", "pid:42"))) == "'eth0' in netns:blue ⇄ 'vb0' in pid:42"


def test_a_pair_unpacks_into_its_ends() -> None:
    link = Link(1, "x", "", "veth", "", 1500, True, "up", (), 2, None, "", 0, 1)
    pair = Pair(link, dataclasses.replace(link, name="y"))
    a, b = pair
    assert (a.name, b.name, a.altnames) == ("x", "y", ())
