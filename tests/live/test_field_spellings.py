"""Values of fields that can be written in several ways: they are compared as the kernel returns them."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

import pytest

from tests.live.applying import applied, interface
from tests.live.sysctls import sysctl
from tests.witness import ip
from vethlib import End, InvalidValue, Neighbour, Route, Session, Veth

SETTINGS = [
    ("rp_filter", "01", "1"),
    ("rp_filter", "0x2", "2"),
    ("rp_filter", "0X2", "2"),
    ("rp_filter", "00", "0"),
    ("rp_filter", "-0", "0"),
    ("rp_filter", 1, "1"),
    ("medium_id", "-01", "-1"),
    ("arp_announce", "02", "2"),
    ("tag", "010", "8"),  # octal, to the kernel
    ("ipv6.hop_limit", "0x40", "64"),
    ("stable_secret", "2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001"),
    ("stable_secret", "FEDC::A", "fedc:0000:0000:0000:0000:0000:0000:000a"),
]


@pytest.mark.parametrize(("name", "given", "read"), SETTINGS)
def test_a_setting_is_compared_as_the_kernel_returns_it(
    session: Session, blue: str, name: str, given: Any, read: str
) -> None:
    session.create(Veth(End("va", "blue", sysctls={name: given}), End("vb", "blue")))
    session.set("vb", "blue", sysctls={name: given})
    family, _, rest = session.fields("va", "blue", sysctls=[name])["sysctls"][0].name.partition(".")
    for link in ("va", "vb"):
        assert sysctl("blue", f"{family}/conf/{link}/{rest}") == read
    assert session.fields("va", "blue", sysctls=[name])["sysctls"] == End("x", sysctls={name: given}).sysctls
    assert End("x", sysctls={name: given}) == End("x", sysctls={name: read})
    session.delete("va", "blue")
    applied(session, interface("a", "b", "blue", sysctls={name: str(given)}), interface("b", "a", "blue"))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rp_filter", "08"),
        ("rp_filter", "+1"),
        ("rp_filter", " 1"),
        ("rp_filter", "1\n"),
        ("rp_filter", "1,"),
        ("rp_filter", "1\t2"),
        ("rp_filter", ""),
        ("rp_filter", True),
        pytest.param("rp_filter", 10**5000, id="huge"),
        ("stable_secret", "1"),
        ("stable_secret", "2001:db8:::1"),
    ],
)
def test_a_value_that_the_kernel_would_not_read_is_refused(name: str, given: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("a", sysctls={name: given})
    assert refused.value.field == "sysctls"


@pytest.mark.parametrize("milliseconds", ["1", "999", "1001", "1003"])
def test_a_time_that_the_kernel_rounds_is_no_drift(session: Session, blue: str, milliseconds: str) -> None:
    settings = {"mldv1_unsolicited_report_interval": milliseconds, "mldv2_unsolicited_report_interval": milliseconds}
    applied(session, interface("a", "b", "blue", sysctls=settings), interface("b", "a", "blue"))
    read = int(sysctl("blue", "ipv6/conf/a/mldv2_unsolicited_report_interval"))
    assert 0 <= read - int(milliseconds) < 10
    sysctl("blue", "ipv6/conf/a/mldv2_unsolicited_report_interval", "2000")
    applied(session, interface("a", "b", "blue", sysctls=settings), interface("b", "a", "blue"))
    assert int(sysctl("blue", "ipv6/conf/a/mldv2_unsolicited_report_interval")) == read


@pytest.mark.parametrize(
    ("dst", "fields"),
    [
        ("2001:db8:7::%x/64", {}),
        ("2001:db8:7::1%x", {}),
        ("fe80::/64", {"src": "fe80::1%x"}),
        ("fd07::/64", {"via": "fe80::1%x"}),
        ("10.7.0.0/16", {"via": "0.0.0.0"}),
        ("10.7.0.0/16", {"src": "0.0.0.0"}),
        ("fd07::/64", {"src": "::"}),
        ("fd07::/64", {"via": "::"}),
    ],
)
def test_a_part_of_a_route_that_the_kernel_leaves_out_is_refused(dst: str, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidValue) as refused:
        Route(dst, **fields)  # type: ignore[arg-type]
    assert refused.value.field == "routes"
    with pytest.raises(InvalidValue):
        End("a", routes=[{"dst": dst, **fields}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "given",
    [
        Route("10.7.0.0/16", mtu=65535),
        Route("10.7.0.0/16", mtu=65521),
        Route("10.7.0.0/16", via=IPv4Interface("10.0.0.2/24")),
        Route("FD07::/64", via="FD00:0::2"),
        Route("fd07::/64", via=IPv6Interface("fd00::2/64"), src=IPv6Interface("fd00::1/64"), mtu=65530),
        Route("10.7.0.0/255.255.0.0", table=255),
    ],
)
def test_a_route_is_compared_as_the_kernel_returns_it(session: Session, blue: str, given: Route) -> None:
    addresses = ["10.0.0.1/24", "fd00::1/64 nodad"]
    session.create(Veth(End("va", "blue", addresses=addresses, routes=[given]), End("vb", "blue")))
    assert session.fields("va", "blue")["routes"] == (given,)
    family = "-4" if given.network.version == 4 else "-6"
    (seen,) = ip(family, "route", "show", "dev", "va", "proto", "118", "table", "all", netns="blue")
    assert (seen["dst"], seen.get("gateway")) == (str(given.network), None if given.via is None else str(given.via))
    assert [each["mtu"] for each in seen.get("metrics", [])] == ([given.mtu] if given.mtu else [])


def test_a_neighbour_is_compared_as_the_kernel_returns_it(session: Session, blue: str) -> None:
    given: list[Any] = [
        Neighbour(IPv4Interface("10.0.0.9/24"), "02-00-00-00-00-0A"),
        Neighbour("FD00::9", "0200.0000.000b"),
    ]
    session.create(Veth(End("va", "blue", neighbours=given), End("vb", "blue")))
    assert session.fields("va", "blue")["neighbours"] == tuple(given)
    assert [str(each.address) for each in given] == ["10.0.0.9", str(IPv6Address("fd00::9"))]
