"""Configurations that are valid but hardly intended: each rule, with cases that it must not warn about."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.applying import interface
from tests.proportion import is_proportional
from vethlib.agent import Interface, Namespace, read_value
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.plausibility import ConfigWarning, lookalike, warnings_of


def warned(*given: Interface) -> list[tuple[str, tuple[str, ...]]]:
    """The code and the interfaces of each warning."""
    return [(one.code, one.interfaces) for one in warnings_of({one.name: one for one in given})]


def pair(a: dict[str, Any], b: dict[str, Any]) -> list[Interface]:
    return [interface("a", "b", "ns1", **a), interface("b", "a", "ns2", **b)]


def addresses(a: list[str], b: list[str]) -> list[str]:
    return [code for code, _ in warned(*pair({"ip_addresses": a}, {"ip_addresses": b}))]


@pytest.mark.parametrize(
    ("a", "b", "codes"),
    [
        (["10.0.0.1/24"], ["10.0.0.2/24"], []),
        (["10.0.0.1/24"], ["10.0.0.1/24"], ["same-address"]),
        (["10.0.0.1/24"], ["10.0.0.1/16"], ["same-address"]),
        (["10.0.0.1"], ["10.0.0.1/32"], ["same-address"]),
        (["2001:db8::1/64"], ["2001:DB8:0::1/64"], ["same-address"]),
        (["fe80::1/64"], ["fe80::1/64"], ["same-address"]),
        (["10.0.0.1/24", "10.0.0.3/24"], ["10.0.0.2/24", "10.0.0.3/24"], ["same-address"]),
        (["10.0.0.1/24"], ["10.0.1.2/24"], ["no-common-subnet"]),
        (["10.0.0.1"], ["10.0.0.2"], ["no-common-subnet"]),  # a prefix was forgotten
        (["10.0.0.1/24"], ["10.0.0.2/16"], []),  # each is in the other's subnet
        (["10.0.0.1/24"], ["10.0.1.2/16"], ["no-common-subnet"]),  # only one is in the other's
        (["10.0.0.1/31"], ["10.0.0.0/31"], []),
        (["10.0.0.1/24", "10.1.0.1/24"], ["10.2.0.1/24", "10.1.0.2/24"], []),
        (["2001:db8::1/64"], ["2001:db8:1::2/64"], ["no-common-subnet"]),
        (["2001:db8::1/64"], ["2001:db8::2/64"], []),
        (["10.0.0.1/24", "2001:db8::1/64"], ["10.0.1.1/24", "2001:db8:1::1/64"], ["no-common-subnet"] * 2),
        (["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.2/24"], []),
        (["10.0.0.1/24"], ["2001:db8::1/64"], []),
        (["10.0.0.1/24"], [], []),
        (["fe80::1/64"], ["fe80::2/64"], []),
        (["fe80::1/64"], ["2001:db8::1/64"], []),
        (["169.254.1.1/16"], ["169.254.1.2/16"], []),
        (["169.254.1.1/16"], ["10.0.0.1/24"], ["no-common-subnet"]),
    ],
)
def test_addresses_of_both_ends(a: list[str], b: list[str], codes: list[str]) -> None:
    assert addresses(a, b) == addresses(b, a) == codes


def test_the_addresses_of_an_end_that_leaves_addresses_alone_are_no_clash() -> None:
    a, b = pair({"ip_addresses": ["10.0.0.1/24"], "link_only": True}, {"ip_addresses": ["10.0.0.1/24"]})
    assert warned(a, b) == []
    desired = Desired()
    desired.put(a)
    assert [(one.code, one.interfaces) for one in desired.warnings("a")] == [("addresses-ignored", ("a",))]


@pytest.mark.parametrize(
    ("a", "b", "codes"),
    [
        ({}, {}, []),
        ({"mtu": 1500}, {}, []),  # the default
        ({"mtu": 9000}, {"mtu": 9000}, []),
        ({"mtu": 9000}, {}, ["mtu-mismatch"]),
        ({"mtu": 9000}, {"mtu": 1500}, ["mtu-mismatch"]),
        ({"enabled": False}, {}, ["not-enabled"]),
        ({"enabled": None}, {"enabled": None}, ["not-enabled"]),  # forgotten
        ({"enabled": False}, {"enabled": None}, ["not-enabled"]),
        ({"enabled": False}, {"enabled": False}, []),  # both say so
        ({"phys_address": "02:00:00:00:00:01"}, {"phys_address": "0200.0000.0001"}, ["same-mac"]),
        ({"phys_address": "02:00:00:00:00:01"}, {"phys_address": "02:00:00:00:00:02"}, []),
    ],
)
def test_mtu_state_and_mac_of_both_ends(a: dict[str, Any], b: dict[str, Any], codes: list[str]) -> None:
    assert [code for code, _ in warned(*pair(a, b))] == codes
    assert [code for code, _ in warned(*pair(b, a))] == codes


def test_a_warning_about_a_pair_is_there_once_with_both_names_and_its_fields() -> None:
    (found,) = warnings_of({one.name: one for one in pair({"mtu": 9000}, {})})
    assert (found.interfaces, found.fields) == (("a", "b"), ("mtu",))
    assert found.as_dict() == {
        "code": "mtu-mismatch",
        "interfaces": ["a", "b"],
        "fields": ["mtu"],
        "message": found.message,
    }


def test_ends_that_do_not_name_each_other_are_no_pair() -> None:
    a = pair({"mtu": 9000}, {})[0]
    assert warned(a) == []
    assert warned(a, interface("b", "c", "ns2"), interface("c", "b", "ns2")) == []


def test_the_name_of_a_peer_that_is_wrong_by_a_letter_is_found_by_who_names_this_one() -> None:
    a, b = interface("veth1", "vteh2", "ns1"), interface("veth2", "veth1", "ns2")
    assert warned(a, b) == [("similar-peer", ("veth1", "veth2"))]
    assert warned(interface("veth1", "veth2"), interface("vteh2", "veth1")) == [("similar-peer", ("veth1", "vteh2"))]
    assert warned(interface("veth1", "veth3"), interface("veth2", "veth1")) == []  # a number is no letter
    assert warned(interface("left-x", "right"), interface("rihgt", "left-x")) == [("similar-peer", ("left-x", "rihgt"))]


def test_a_namespace_that_few_use_and_whose_name_is_nearly_that_of_another_is_doubted() -> None:
    many = [interface(f"v{number}", f"w{number}", "blue") for number in range(4)]
    assert warned(*many, interface("x", "y", "bleu")) == [("similar-netns", ("x",))]
    assert warned(*many, interface("x", "y", "bleu"), interface("z", "u", "bleu")) == [("similar-netns", ("x", "z"))]
    others = [interface(f"x{number}", f"y{number}", "bleu") for number in range(3)]
    assert warned(*many, *others) == []  # used so often that it must be intended
    either = warned(interface("a", "b", "blue"), interface("b", "a", "bleu"))
    assert either == [("similar-netns", ("a", "b"))]  # it is unclear which one is wrong
    numbered = [interface(f"n{number}", f"m{number}", f"blue{number}") for number in range(9)]
    assert warned(*numbered, interface("x", "y", "bleu7")) == [("similar-netns", ("x",))]


def test_numbered_families_are_never_doubted() -> None:
    values = [interface(f"veth{number}", f"veth{number ^ 1}", f"ns{number // 3}") for number in range(60)]
    assert warned(*values) == []


def test_what_a_host_has_is_compared_with_what_is_to_be_created() -> None:
    assert lookalike("bleu", ["green", "blue"]) == "blue"
    assert lookalike("blue2", ["blue1"]) == lookalike("blue", ["blue"]) == lookalike("blue", []) == ""
    assert lookalike("bleu", ["blue" + "x" * number for number in range(5000)]) in ("", "blue")


def test_an_agent_judges_those_again_whom_another_name_concerns() -> None:
    desired = Desired()
    desired.put(interface("x", "y", "bleu"))
    assert desired.warnings("x") == ()
    assert "x" in desired.put(interface("a", "b", "blue"))
    assert desired.put(interface("c", "d", "blue")) == {"c", "d"}  # nothing new
    assert [one.code for one in desired.warnings("x")] == ["similar-netns"]
    desired.delete("a")
    assert "x" in desired.delete("c")
    assert desired.warnings("x") == ()
    assert desired.warnings("nobody") == ()


def test_what_a_value_gives_alone_is_told_of_the_interface_too() -> None:
    value = {"name": "x", "veth": {"peer_if_name": "y"}, "linux_namespace": {"type": 2, "name": "n", "pid": 7}}
    parsed = read_value(value)
    assert parsed.interface is not None
    desired = Desired()
    desired.put(parsed.interface)
    found = {one.code: one for one in desired.warnings("x")}
    assert {code: one.fields for code, one in found.items()} == {
        "former-key": ("namespace",),
        "unread-field": ("namespace.pid",),
    }
    assert [one.message.removeprefix("x: ") for one in found.values()] == list(parsed.warnings)


def test_many_interfaces_take_proportional_time() -> None:
    def work(count: int) -> list[ConfigWarning]:
        return warnings_of(
            {
                f"veth{number}": Interface(
                    f"veth{number}",
                    f"veth{number ^ 1}",
                    ip_addresses=(f"10.{number >> 14}.{number >> 8 & 63}.{number & 255}/32",),
                    namespace=Namespace(2, name=f"ns-{number}"),
                )
                for number in range(count)
            }
        )

    assert len(work(1000)) == 1000  # two for each pair
    assert is_proportional(work, 250)


def test_many_addresses_take_proportional_time() -> None:
    def work(count: int) -> None:
        ends = [
            [f"10.{side}.{number >> 8}.{number & 255}/{9 + number % 24}" for number in range(count)] for side in (1, 2)
        ]
        addresses(*ends)

    assert is_proportional(work, 400)


def test_a_peer_with_an_invalid_value_is_no_typing_error() -> None:
    interfaces = {each.name: each for each in (interface("a", "uplink"), interface("uplnk", "a"))}
    assert [warning.code for warning in warnings_of(interfaces)] == ["similar-peer"]
    assert warnings_of(interfaces, {"uplink"}) == []
