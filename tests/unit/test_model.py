"""Interfaces and namespaces as configured: one canonical spelling, and every problem reported."""

from __future__ import annotations

import pickle
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any, get_args

import pytest

from vethlib import Neighbour, Route, links
from vethlib.agent import Interface, InvalidInterface, Namespace, NamespaceType
from vethlib.agent.config.model import IPv6Policy
from vethlib.errors import InvalidValue


def problems(**fields: Any) -> dict[str, str]:
    """Return the problems of an interface that is valid except for `fields`: field -> cure."""
    with pytest.raises(InvalidInterface) as caught:
        Interface(**{"name": "veth1", "peer_if_name": "veth2"} | fields)
    return {problem.field: problem.hint for problem in caught.value.problems}


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_a_problem_can_be_printed_whatever_the_name_is() -> None:
    names: list[Any] = [10**5000, Unprintable(), ["x" * 10**6]]
    for name in names:
        with pytest.raises(InvalidInterface) as caught:
            Interface(name, "veth2")
        assert 0 < len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("namespace", "ref"),
    [
        (Namespace(), ""),
        (Namespace(NamespaceType.NAMED_NS, name="blue"), "netns:blue"),
        (Namespace(0, pid=42), "pid:42"),
        (Namespace(3, filepath="/proc/42/task/43/ns/net"), "path:/proc/42/task/43/ns/net"),
        (Namespace(1, microservice="vnf1"), "microservice:vnf1"),
    ],
)
def test_a_namespace_has_one_reference(namespace: Namespace, ref: str) -> None:
    assert namespace.ref == ref
    assert Namespace.at(ref) == namespace


def test_a_path_may_have_so_many_names() -> None:
    assert Namespace(3, filepath="/a" * 128).ref == "path:" + "/a" * 128


def test_a_reference_that_no_configuration_can_have_is_none_of_a_namespace() -> None:
    assert Namespace.at("fd:7") == Namespace()


def test_every_way_to_say_the_home_namespace_is_the_same() -> None:
    ways = [Namespace(0, pid=0), Namespace(2, name=""), Namespace(3, filepath=""), Namespace(2, pid=0)]
    assert all(way == Namespace() and hash(way) == hash(Namespace()) and way.ref == "" for way in ways)


def test_what_the_type_does_not_read_makes_no_difference() -> None:
    assert Namespace(2, name="blue", pid=42, filepath="/x") == Namespace(2, name="blue")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"type": 4}, "namespace.type"),
        ({"type": 0, "pid": -1}, "namespace.pid"),
        ({"type": 0, "pid": 4_194_305}, "namespace.pid"),
        ({"type": 0, "pid": "42"}, "namespace.pid"),
        ({"type": 1, "microservice": ""}, "namespace.microservice"),
        ({"type": 1, "microservice": "a\0b"}, "namespace.microservice"),
        ({"type": 2, "name": "a/b"}, "namespace.name"),
        ({"type": 2, "name": ".."}, "namespace.name"),
        ({"type": 2, "name": "x" * 256}, "namespace.name"),
        ({"type": 3, "filepath": "ns/net"}, "namespace.filepath"),
        ({"type": 3, "filepath": "/run/\udc80"}, "namespace.filepath"),
        ({"type": 3, "filepath": "/a" * 129}, "namespace.filepath"),
        ({"type": 2, "name": 3}, "namespace.name"),
    ],
)
def test_a_reference_that_leads_nowhere_ever_names_its_field(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Namespace(**fields)
    assert caught.value.field == where


def test_two_spellings_of_an_interface_are_equal() -> None:
    one = Interface(
        "veth1",
        "veth2",
        phys_address="D2-74-8C-12-67-D2",
        ip_addresses=("", "10.0.0.1", "2001:DB8:0::1", "192.0.2.1/255.255.255.0"),
        host_if_name="veth1",
        namespace=Namespace(2, name=""),
    )
    other = Interface(
        "veth1",
        "veth2",
        phys_address="d2:74:8c:12:67:d2",
        ip_addresses=("10.0.0.1/32", "2001:db8::1/128", "192.0.2.1/24"),
    )
    assert one == other
    assert hash(one) == hash(other)


def test_addresses_without_a_prefix_are_host_addresses_and_empty_ones_are_skipped() -> None:
    interface = Interface("veth1", "veth2", ip_addresses=("", "10.0.0.1", "2001:db8::1", ""))
    assert interface.addresses == (ip_interface("10.0.0.1/32"), ip_interface("2001:db8::1/128"))


def test_the_kernel_name_is_the_name_unless_another_is_given() -> None:
    assert Interface("veth1", "veth2").kernel_name == "veth1"
    assert Interface("a-much-longer-name-than-a-link", "veth2", host_if_name="eth0").kernel_name == "eth0"


@pytest.mark.parametrize(
    ("fields", "where", "cure"),
    [
        ({"type": 1}, "type", "VETH"),
        ({"name": ""}, "name", "1 to 63 bytes"),
        ({"name": "a-much-longer-name"}, "name", "host_if_name"),
        ({"name": "x" * 64, "host_if_name": "eth0"}, "name", "1 to 63 bytes"),
        ({"name": "a/b", "host_if_name": "eth0"}, "name", "contain '/'"),
        ({"name": "veth*"}, "name", "whole name"),
        ({"name": "a", "host_if_name": "veth*"}, "host_if_name", "whole name"),
        ({"name": "a\x01b", "host_if_name": "eth0"}, "name", "control"),
        ({"name": "..", "host_if_name": "eth0"}, "name", "'..'"),
        ({"host_if_name": "a b"}, "host_if_name", "space"),
        ({"host_if_name": "x" * 16}, "host_if_name", "15 bytes"),
        ({"host_if_name": "lo"}, "host_if_name", "every namespace has"),
        ({"host_if_name": "all"}, "host_if_name", "the kernel has settings"),
        ({"name": "default"}, "name", "set host_if_name"),
        ({"peer_if_name": ""}, "veth.peer_if_name", "other end"),
        ({"peer_if_name": "veth1"}, "veth.peer_if_name", "own peer"),
        ({"peer_if_name": "a b"}, "veth.peer_if_name", "space"),
        ({"phys_address": "01:00:5e:00:00:01"}, "phys_address", "unicast"),
        ({"phys_address": "d2:74"}, "phys_address", "six pairs"),
        ({"mtu": 67}, "mtu", "68"),
        ({"mtu": 65536}, "mtu", "65535"),
        ({"mtu": 1279, "ip_addresses": ["2001:db8::1/64"]}, "mtu", "1280"),
        ({"ipv6": "off"}, "ipv6", "true or false"),
        ({"ipv6": 0}, "ipv6", "true or false"),
        ({"ipv6": False, "ip_addresses": ["10.0.0.1/24", "fd00::1/64"]}, "ipv6", "ip_addresses"),
        ({"ipv6": True, "mtu": 1000}, "mtu", "ipv6"),
        ({"ipv6": False, "routes": [{"dst": "10.0.0.0/8"}, {"dst": "fd00::/8"}]}, "ipv6", "routes"),
        ({"ipv6": False, "neighbours": [{"ip": "fd00::1", "mac": "02:00:00:00:00:01"}]}, "ipv6", "neighbours"),
        ({"mtu": 576, "routes": [{"dst": "::/0", "via": "fd00::1"}]}, "mtu", "routes"),
        ({"mtu": 1279, "neighbours": [{"ip": "fd00::1", "mac": "02:00:00:00:00:01"}]}, "mtu", "neighbours"),
        ({"mtu": 576, "sysctls": {"ipv6.accept_ra": "0"}}, "mtu", "sysctls"),
        ({"txqlen": -1}, "txqlen", "packets"),
        ({"gso_max_size": "big"}, "gso_max_size", "bytes"),
        ({"altnames": "uplink"}, "altnames", "list"),
        ({"altnames": ["a b"]}, "altnames", "space"),
        ({"altnames": ["uplink", "veth1"]}, "altnames", "itself"),
        ({"altnames": ["eth0"], "host_if_name": "eth0"}, "altnames", "itself"),
        ({"altnames": ["uplink", "lo"]}, "altnames", "every namespace"),
        ({"altnames": ["lo"], "host_if_name": "eth0"}, "altnames", "every namespace"),
        ({"sysctls": {"disable_ipv6": "1"}}, "sysctls", "ipv6"),
        ({"sysctls": {"mc_forwarding": "0"}}, "sysctls", "state"),
        ({"sysctls": {"rp_filter": "0", "ipv6.mc_forwarding": "1"}}, "sysctls", "state"),
        ({"mtu": 9000, "sysctls": {"ipv6.mtu": "1400"}}, "sysctls", "mtu"),
        ({"sysctls": {"rp_filter": 0.5}}, "sysctls", "number"),
        ({"routes": [{"dst": "10.0.0.1/8"}]}, "routes", "host bits"),
        ({"routes": [{"dst": "nonsense"}]}, "routes", "10.1.0.0/16"),
        ({"neighbours": [{"ip": "10.0.0.1/8", "mac": "02:00:00:00:00:09"}]}, "neighbours", "prefix"),
        ({"master": "a b"}, "master", "space"),
        ({"neighbours": [{"ip": "10.0.0.1"}]}, "neighbours", "mac"),
        ({"offload": "off"}, "offload", "true or false"),
        ({"offload": 0}, "offload", "true or false"),
        ({"num_queues": 5000}, "num_queues", "4096"),
        ({"enabled": 3}, "enabled", "true or false"),
        ({"link_only": None}, "link_only", "true or false"),
        ({"description": 5}, "description", "string"),
        ({"namespace": "netns:blue"}, "namespace", "Namespace"),
        ({"ip_addresses": ["10.0.0.1/24", "10.0.0.300"]}, "ip_addresses[1]", "must be an address"),
        ({"ip_addresses": ["", "", "10.0.0.1/33"]}, "ip_addresses[2]", "must be an address"),
        ({"ip_addresses": ["224.0.0.1/4"]}, "ip_addresses[0]", "multicast"),
        ({"ip_addresses": ["::1/128"]}, "ip_addresses[0]", "loopback"),
        ({"ip_addresses": ["fe80::1%eth0/64"]}, "ip_addresses[0]", "scope"),
        ({"ip_addresses": ["2001:db8::1/64", "2001:db8::1/48"]}, "ip_addresses[1]", "ip_addresses[0] has"),
    ],
)
def test_a_bad_value_names_its_field_and_the_cure(fields: dict[str, Any], where: str, cure: str) -> None:
    found = problems(**fields)
    assert list(found) == [where]
    assert cure in found[where]


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = problems(type=3, mtu=1, phys_address="x", peer_if_name="", ip_addresses=("a", "10.0.0.1/24", "b"))
    expected = ["type", "veth.peer_if_name", "phys_address", "mtu", "ip_addresses[0]", "ip_addresses[2]"]
    assert list(found) == expected


def test_an_ipv4_address_may_have_two_prefixes() -> None:
    assert len(Interface("a", "b", ip_addresses=("10.0.0.1/24", "10.0.0.1/16")).addresses) == 2


def test_a_small_mtu_is_fine_without_ipv6_addresses_of_ours() -> None:
    assert Interface("a", "b", mtu=576, ip_addresses=("10.0.0.1/24",)).mtu == 576
    assert Interface("a", "b", mtu=576, ip_addresses=("2001:db8::1/64",), link_only=True).mtu == 576


def test_link_only_with_addresses_is_worth_a_warning() -> None:
    assert Interface("a", "b", link_only=True).warnings == ()
    (warning,) = Interface("a", "b", link_only=True, ip_addresses=("10.0.0.1/24",)).warnings
    assert "link_only" in warning
    assert "ip_addresses" in warning


def test_an_invalid_interface_tells_all_in_one_message_and_pickles() -> None:
    with pytest.raises(InvalidValue) as caught:
        Interface("veth1", "", mtu=3)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    assert str(error).startswith("interface 'veth1': veth.peer_if_name '': ")
    assert [problem.field for problem in error.problems] == ["veth.peer_if_name", "mtu"]


def test_an_interface_becomes_an_end_with_its_marks() -> None:
    interface = Interface(
        "veth1",
        "veth2",
        enabled=True,
        phys_address="d2:74:8c:12:67:d2",
        mtu=1400,
        ip_addresses=("10.0.0.1/24",),
        namespace=Namespace(2, name="ns1"),
        host_if_name="eth0",
        num_queues=2,
    )
    expected = links.End(
        "eth0",
        "netns:ns1",
        mac="d2:74:8c:12:67:d2",
        mtu=1400,
        addresses=["10.0.0.1/24"],
        up=True,
        num_queues=2,
        alias="x",
        group=7,
        address_proto=0x76,
    )
    assert interface.end(group=7, alias="x", address_proto=0x76) == expected


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"phys_address": "D2-74-8C-12-67-D2", "mtu": 68, "num_queues": 3},
        {"ip_addresses": ["10.0.0.1/24 brd + label veth1:1", "10.0.0.2/24", "fd00::1/64 nodad"], "mtu": 1280},
        {"ip_addresses": ["fd00::1/64"], "link_only": True, "mtu": 1000},
        {"ipv6": False, "sysctls": {"ipv6.accept_ra": "0", "rp_filter": 1}},
        {"txqlen": 5, "gso_max_size": 4000, "altnames": ["other", "first"], "master": "br0"},
        {"routes": [Route("10.0.0.0/8")], "neighbours": [Neighbour("10.0.0.2", "02-00-00-00-00-01")]},
        {"offload": True},
        {"offload": False, "host_if_name": "veth2"},
    ],
    ids=str,
)
def test_the_end_of_an_interface_is_the_one_that_the_same_values_make(fields: dict[str, Any], enabled: bool) -> None:
    for policy in get_args(IPv6Policy):
        end = Interface("veth1", "veth3", enabled=enabled, **fields).with_ipv6_policy(policy).end(group=7, alias="x")
        again = replace(end)  # which checks everything
        assert again == end
        assert repr(again) == repr(end)
        assert [type(value) for value in again.__getstate__()] == [type(value) for value in end.__getstate__()]


def test_what_is_left_open_is_the_kernels_choice_and_link_only_gives_no_address() -> None:
    end = Interface("veth1", "veth2", ip_addresses=("10.0.0.1/24",), link_only=True).end()
    assert end == links.End("veth1", "", up=False)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, (None, False, False)),
        ({"namespace": Namespace(2, name="blue")}, (None, None, False)),
        ({"ip_addresses": ["10.0.0.1/24"]}, (None, False, False)),
        ({"ip_addresses": ["10.0.0.1/24", "fd00::1/64"]}, (None, None, None)),
        ({"link_only": True}, (None, None, None)),
        ({"routes": [Route("10.0.0.0/8")]}, (None, False, False)),
        ({"routes": [Route("10.0.0.0/8"), Route("fd00::/8")]}, (None, None, None)),
        ({"neighbours": [Neighbour("fd00::1", "02:00:00:00:00:01")]}, (None, None, None)),
        ({"sysctls": {"ipv6.accept_ra": "0"}}, (None, False, False)),
        ({"ipv6": True}, (True, True, True)),
        ({"ipv6": False, "namespace": Namespace(2, name="blue")}, (False, False, False)),
    ],
)
def test_the_policy_for_ipv6_decides_where_the_configuration_does_not(
    fields: dict[str, Any], wanted: tuple[bool | None, ...]
) -> None:
    interface = Interface("a", "b", **fields)
    settled = [interface.with_ipv6_policy(policy) for policy in get_args(IPv6Policy)]
    assert tuple(each.wants_ipv6 for each in settled) == wanted
    assert tuple(each.end().ipv6 for each in settled) == wanted
    assert settled == [interface] * 3  # it is no other configuration
    assert interface.wants_ipv6 == fields.get("ipv6")
