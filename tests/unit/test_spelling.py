"""Keys and values in every unambiguous spelling are accepted, and converted to one form."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from tests.proportion import is_proportional
from vethlib import End
from vethlib.agent import Interface, Limits, Namespace, NamespaceType, read, read_value, to_dict
from vethlib.agent.config.namespace import FIELD_READ
from vethlib.agent.stores.texts import name_in
from vethlib.errors import InvalidValue
from vethlib.links import check_mac

PLAIN: dict[str, Any] = {
    "name": "veth1",
    "enabled": True,
    "phys_address": "d2:74:8c:12:67:d2",
    "ip_addresses": ["192.168.22.1/24"],
    "namespace": {"type": 2, "name": "ns1"},
    "veth": {"peer_if_name": "veth2"},
}


def fields_of(value: object) -> list[str]:
    """Return the fields in which a value is wrong."""
    parsed = read_value(value)
    assert parsed.interface is None
    return [problem.field for problem in parsed.problems]


def respelt(value: Any, spell: Any) -> Any:
    return {spell(key): respelt(one, spell) for key, one in value.items()} if isinstance(value, dict) else value


def camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(map(str.capitalize, rest))


def of_go(key: str) -> str:
    return "".join(map(str.capitalize, key.split("_")))


@pytest.mark.parametrize(
    "spell", [str.upper, str.title, str.swapcase, camel, of_go, lambda key: camel(key).upper(), str.capitalize]
)
def test_keys_are_read_in_any_letter_case(spell: Any) -> None:
    parsed = read_value(respelt(PLAIN, spell))
    assert parsed == read_value(PLAIN)
    assert to_dict(parsed.interface) == to_dict(read_value(PLAIN).interface)  # type: ignore[arg-type]


def test_every_key_of_the_model_is_read_in_any_letter_case() -> None:
    full = PLAIN | {"description": "x", "mtu": 1400, "host_if_name": "eth0", "num_queues": 2, "link_only": True}
    assert respelt(full, str.upper) != full
    assert read_value(respelt(full, str.upper)).interface == read_value(full).interface is not None


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (PLAIN | {"Name": "veth1"}, "Name"),
        (PLAIN | {"NAME": "other"}, "NAME"),
        (PLAIN | {"physaddress": ""}, "physaddress"),
        (PLAIN | {"namespace": {"type": 2, "name": "ns1", "Name": "ns2"}}, "namespace.Name"),
        (PLAIN | {"veth": {"peer_if_name": "veth2", "peerIFname": "veth2"}}, "veth.peerIFname"),
        (PLAIN | {"Linux_Namespace": {"type": 2, "name": "ns1"}}, "Linux_Namespace"),
    ],
)
def test_one_key_in_two_letter_cases_is_ambiguous_whatever_the_values(value: object, field: str) -> None:
    assert fields_of(value) == [field]


@pytest.mark.parametrize("key", ["ıp_addresses", "phyſ_address", "lin\u212a_only", "mtu ", "phys-address", "n\u0430me"])
def test_only_ascii_letters_have_another_case(key: str) -> None:
    assert len(fields_of(PLAIN | {key: None})) == 1


@pytest.mark.parametrize("key", ["linux_namespace", "LinuxNamespace", "LINUX_NAMESPACE", "linuxnamespace"])
def test_the_key_of_older_samples_is_read_in_any_letter_case_with_a_warning(key: str) -> None:
    value = {one: PLAIN[one] for one in PLAIN if one != "namespace"} | {key: PLAIN["namespace"]}
    parsed = read_value(value)
    assert parsed.interface == read_value(PLAIN).interface
    assert len(parsed.warnings) == 1


@pytest.mark.parametrize("kind", [2, "NAMED_NS", "named_ns", "Named_Ns", "2", 2.0])
def test_an_enumeration_is_a_number_or_a_name_in_any_letter_case(kind: object) -> None:
    parsed = read_value(PLAIN | {"namespace": {"type": kind, "name": "ns1"}, "type": "veth"})
    assert parsed.interface == read_value(PLAIN).interface


@pytest.mark.parametrize("kind", [4, "4", 2.5, "named", "NAMED NS", "", True, [2], 1 << 32, "4294967298", "²", -1])
def test_what_is_no_value_of_an_enumeration_is_refused_by_its_field(kind: object) -> None:
    assert fields_of(PLAIN | {"namespace": {"type": kind, "name": "ns1"}}) == ["namespace.type"]


@pytest.mark.parametrize(
    "mac",
    [
        "D2:74:8C:12:67:D2",
        "d2-74-8c-12-67-d2",
        "d274.8c12.67d2",
        "D274.8C12.67D2",
        "d274-8c12-67d2",
        "d274:8c12:67d2",
        "d2748c1267d2",
        "D2748C1267D2",
        "d2748c-1267d2",
        "d2.74.8c.12.67.d2",
    ],
)
def test_a_mac_is_read_in_every_way_that_it_is_written(mac: str) -> None:
    assert check_mac(mac) == "d2:74:8c:12:67:d2"
    assert End("a", mac=mac).mac == "d2:74:8c:12:67:d2"
    parsed = read_value(PLAIN | {"phys_address": mac})
    assert parsed.interface == read_value(PLAIN).interface


@pytest.mark.parametrize(
    "mac",
    [
        "d2:74:8:12:67:d2",  # a digit was forgotten, or a zero left out
        "d274.8c12-67d2",
        "d2.74:8c.12:67.d2",
        "d274.8c12.67d",
        "d2748c1267d",
        "d2748c1267d2d",
        ".d274.8c12.67d2",
        "d2:74:8c:12:67:d2:00:01",  # EUI-64
        " d2:74:8c:12:67:d2",
        "d2:74:8c:12:67:d２",
        "0xd2748c1267d2",
        "01005e000001",
        "0000.0000.0000",
        "1" * 1_000_000,
    ],
)
def test_what_is_not_one_mac_of_a_link_is_refused(mac: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_mac(mac, "phys_address")
    assert caught.value.field == "phys_address"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["10.0.0.1/24", "10.0.0.1/24"], ["10.0.0.1/24"]),
        (["10.0.0.1", "10.0.0.1/32"], ["10.0.0.1/32"]),
        (["10.0.0.1/24", "", "10.0.0.2/24", "10.0.0.1/255.255.255.0"], ["10.0.0.1/24", "10.0.0.2/24"]),
        (["2001:DB8::1/64", "2001:db8:0:0::1/64", "2001:db8::1/64"], ["2001:db8::1/64"]),
        (["10.0.0.1/24", "10.0.0.1/16"], ["10.0.0.1/24", "10.0.0.1/16"]),  # two addresses to the kernel
    ],
)
def test_an_address_given_twice_is_there_once_and_in_its_first_place(given: list[str], kept: list[str]) -> None:
    parsed = read_value(PLAIN | {"ip_addresses": given})
    assert parsed.interface is not None
    assert list(parsed.interface.ip_addresses) == kept
    assert [str(one) for one in parsed.interface.addresses] == kept


def test_an_ipv6_address_with_two_prefix_lengths_is_no_repetition() -> None:
    assert fields_of(PLAIN | {"ip_addresses": ["2001:db8::1/64", "2001:db8::1/128"]}) == ["ip_addresses[1]"]


def test_the_name_is_told_in_whatever_letter_case_its_key_is() -> None:
    assert read_value({"NAME": "veth1", "mtu": "x"}).name == "veth1"
    assert name_in({"Name": "veth1"}) == "veth1"
    assert name_in({"Name": "veth1", "name": "veth2"}) == ""
    assert name_in({"Name": 3}) == name_in([]) == name_in({}) == ""


def test_a_limit_holds_in_whatever_letter_case_the_key_is() -> None:
    most = Limits(addresses_per_file=3)
    values = [
        {"Name": name, "IP_Addresses": ["10.0.0.1/24", "10.0.0.2/24"], "VETH": {"Peer_If_Name": "x"}} for name in "abc"
    ]
    found = read(json.dumps(values), limits=most)
    assert [one.interface is not None for one in found] == [True, False, False]
    assert {one.problems[0].field for one in found[1:]} == {"ip_addresses"}


LISTS: dict[str, Any] = {
    "ip_addresses": [f"10.0.0.{number}/24" for number in range(1, 5)],
    "routes": [{"dst": f"10.{number}.0.0/16"} for number in range(4)],
    "neighbours": [{"ip": f"10.0.0.{number}", "mac": "02:00:00:00:00:01"} for number in range(1, 5)],
    "altnames": ["a", "b", "c", "d"],
    "sysctls": {"rp_filter": "0", "arp_filter": "0", "tag": "1", "ipv6.accept_ra": "0"},
}


@pytest.mark.parametrize(("field", "values"), LISTS.items())
def test_an_interface_has_no_more_values_of_a_field_than_the_limit(field: str, values: Any) -> None:
    limit = "addresses" if field == "ip_addresses" else field
    plain = {name: value for name, value in PLAIN.items() if name != "ip_addresses"}
    assert read_value(plain | {field: values}, limits=Limits(**{limit: 4})).interface is not None
    assert read_value(plain | {field.upper(): values}, limits=Limits(**{limit: 4})).interface is not None
    (problem,) = read_value(plain | {field.upper(): values}, limits=Limits(**{limit: 3})).problems
    assert (problem.field, problem.value) == (field, 4)
    assert f"(limit {limit})" in problem.hint
    interface = read_value(plain | {field: values}).interface
    assert interface is not None
    assert [beyond.field for beyond in interface.beyond(Limits(**{limit: 3}))] == [field]
    assert interface.beyond(Limits(**{limit: 4})) == []


@pytest.mark.parametrize(("field", "values"), LISTS.items())
def test_the_interfaces_of_a_file_have_no_more_values_together_than_the_limit(field: str, values: Any) -> None:
    interfaces = [{"name": name, "veth": {"peer_if_name": "x"}, field: values} for name in "efg"]
    found = read(json.dumps(interfaces), limits=Limits(addresses_per_file=8))
    assert [one.interface is not None for one in found] == [True, True, False]
    assert [one.field for one in found[2].problems] == [field]


@pytest.mark.parametrize("field", LISTS)
@pytest.mark.parametrize("value", [5, "x", None, True, 1.5, [[]], {"a": []}])
def test_a_field_of_many_values_may_be_anything_and_is_refused(field: str, value: Any) -> None:
    (one,) = read(json.dumps([PLAIN | {field: value}]), limits=Limits(addresses_per_file=8))
    assert one.interface is None or value is None
    assert all(problem.field.startswith(field) for problem in one.problems)


# --- a namespace

FILLED = {"pid": 42, "microservice": "vnf1", "name": "ns1", "filepath": "/proc/1/ns/net"}
REFS = {"pid": "pid:42", "microservice": "microservice:vnf1", "name": "netns:ns1", "filepath": "path:/proc/1/ns/net"}
EMPTY = {"pid": 0, "microservice": "", "name": "", "filepath": ""}


def namespaces() -> list[tuple[dict[str, Any], NamespaceType, set[str]]]:
    """Every type, written out or not, with every combination of fields: absent, or filled in."""
    kinds: list[tuple[dict[str, Any], NamespaceType]] = [({"type": int(kind)}, kind) for kind in NamespaceType]
    kinds.append(({}, NamespaceType.PID_REF_NS))
    return [
        (given | {name: FILLED[name] for name in chosen}, kind, set(chosen))
        for given, kind in kinds
        for flags in product([False, True], repeat=4)
        for chosen in [[name for name, flag in zip(FILLED, flags, strict=True) if flag]]
    ]


@pytest.mark.parametrize("written_out", [False, True])
def test_a_namespace_means_what_its_type_reads_and_is_invalid_where_that_is_empty_and_another_is_not(
    written_out: bool,
) -> None:
    assert len(namespaces()) == 80
    for given, kind, chosen in namespaces():
        value = (EMPTY | given) if written_out else given
        parsed = read_value(PLAIN | {"namespace": value})
        read_field = FIELD_READ[kind]
        if read_field in chosen:
            assert parsed.interface is not None, value
            assert parsed.interface.namespace.ref == REFS[read_field]
            assert len(parsed.warnings) == len(chosen) - 1  # one for each field that is not read
        elif chosen:
            assert parsed.interface is None, value
            (problem,) = parsed.problems
            assert problem.field.removeprefix("namespace.") in chosen
            assert f"namespace.{read_field}" in problem.hint
        elif kind is NamespaceType.MICROSERVICE_REF_NS:  # as ever: there is no container without a label
            assert fields_of(PLAIN | {"namespace": value}) == ["namespace.microservice"]
        else:
            assert parsed.interface is not None, value
            assert parsed.interface.namespace == Namespace()


def test_an_embedder_cannot_build_one_either() -> None:
    with pytest.raises(InvalidValue) as caught:
        Interface("a", "b", namespace=Namespace(name="x"))
    assert caught.value.field == "namespace.name"
    assert Namespace(2).ref == Namespace(NamespaceType.FILE_REF_NS).ref == ""


def test_a_namespace_of_the_wrong_type_has_one_problem_and_no_second_for_what_it_does_not_read() -> None:
    assert fields_of(PLAIN | {"namespace": {"type": 9, "name": "x"}}) == ["namespace.type"]
    assert fields_of(PLAIN | {"namespace": {"type": 2, "name": 5, "pid": 3}}) == ["namespace.name"]
    assert fields_of(PLAIN | {"namespace": {"nmae": "x", "pid": 0, "filepath": "/x"}}) == ["namespace.nmae"]


def test_many_spellings_and_long_keys_cost_what_they_weigh() -> None:
    def work(count: int) -> object:
        return read_value(PLAIN | {("K" * 200) + str(number): 1 for number in range(count)})

    assert is_proportional(work, 200)
