"""Links without IPv6, from creation or by a change, never have an address or a route; and enabling it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.live.applying import applied, interface
from tests.live.sysctls import sysctl
from tests.witness import addresses, ip, names, poll, seen
from vethlib import (
    End,
    InvalidValue,
    LinkNotFound,
    Neighbour,
    NetlinkError,
    NotPermitted,
    Route,
    Session,
    Veth,
)
from vethlib.endfields.table import Step
from vethlib.session.core import ipv6
from vethlib.session.write.linksteps import LinkSteps

PLACES = [("", ""), ("", "blue"), ("blue", ""), ("blue", "red")]


def is_off(name: str, netns: str) -> bool:
    """Return whether the kernel has no IPv6 on a link, by its setting, its addresses and its routes."""
    off = sysctl(netns, f"ipv6/conf/{name}/disable_ipv6") == "1"
    if off:
        assert ip("-6", "route", "show", "table", "all", "dev", name, netns=netns) == []
        assert not [one for one in seen(name, netns)["addr_info"] if one["family"] == "inet6"]
    return off


@pytest.mark.parametrize(("a", "b"), PLACES)
def test_an_end_without_ipv6_has_none_and_its_peer_has_it(
    session: Session, blue: str, red: str, a: str, b: str
) -> None:
    pair = session.create(Veth(End("va", a, addresses=["10.0.0.1/24"], ipv6=False), End("vb", b)))
    assert (is_off("va", a), is_off("vb", b)) == (True, False)
    assert (pair.a.ipv6, pair.b.ipv6) == (False, True)
    assert addresses("va", a) == ["10.0.0.1/24"]
    assert [session.lookup(*end).ipv6 for end in (("va", a), ("vb", b))] == [False, True]


def test_many_ends_in_many_namespaces_have_it_as_requested(session: Session, blue: str, red: str) -> None:
    veths = [
        Veth(End(f"a{i}", "blue" if i % 2 else "red", ipv6=bool(i % 3), up=False), End(f"b{i}", "", ipv6=not i % 3))
        for i in range(9)
    ]
    for pair, veth in zip(session.create_many(veths), veths, strict=True):
        for link, end in zip(pair, (veth.a, veth.b), strict=True):
            assert link.ipv6 == end.ipv6 == (not is_off(end.name, str(end.netns)))


def test_an_end_with_ipv6_has_it_where_new_links_have_none(session: Session, blue: str) -> None:
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    pair = session.create(Veth(End("va", "blue", ipv6=True), End("vb", "blue")))
    assert (pair.a.ipv6, pair.b.ipv6) == (True, False)
    assert (is_off("va", "blue"), is_off("vb", "blue")) == (False, True)


def test_ipv6_addresses_and_small_mtus_are_refused_with_the_names_of_both_fields() -> None:
    with pytest.raises(InvalidValue) as refused:
        End("va", addresses=["10.0.0.1/24", "fd00::1/64"], ipv6=False)
    assert refused.value.field == "ipv6"
    assert "addresses" in refused.value.hint
    assert "fd00::1/64" in refused.value.hint
    with pytest.raises(InvalidValue) as refused:
        End("va", mtu=1000, ipv6=True)
    assert refused.value.field == "ipv6"
    assert "mtu" in refused.value.hint
    with pytest.raises(InvalidValue) as refused:
        End("va", ipv6="off")  # type: ignore[arg-type]
    assert refused.value.field == "ipv6"
    assert End("va", mtu=1000, ipv6=False).ipv6 is False


def test_an_end_too_small_for_ipv6_may_be_without_it(session: Session) -> None:
    pair = session.create(Veth(End("va", mtu=1000, ipv6=False), End("vb", mtu=1000)))
    assert (pair.a.ipv6, pair.b.ipv6) == (False, False)


def test_a_pair_is_not_created_if_the_kernel_does_not_take_the_setting(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, on: bool) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ipv6, "_write", refuse)
    with pytest.raises(NetlinkError) as refused:
        session.create_many([Veth(End(f"va{i}", ipv6=False), End(f"vb{i}", "blue", ipv6=True)) for i in range(3)])
    assert refused.value.errno == 30
    assert "net.ipv6.conf.va0.disable_ipv6" in str(refused.value)
    assert names("") == names("blue") == set()


def test_a_pair_is_not_created_if_another_program_enables_it_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipv6, "_write", lambda name, on: None)
    with pytest.raises(NetlinkError) as refused:
        session.create(Veth(End("va", ipv6=False), End("vb")))
    assert "va" in str(refused.value)
    assert names("") == set()


def test_a_link_is_set_without_ipv6_and_back(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", addresses=["10.0.0.1/24", "fd00::1/64"]), End("vb", "blue")))
    link = session.set("va", "blue", ipv6=False)
    assert (link.ipv6, is_off("va", "blue")) == (False, True)
    assert addresses("va", "blue") == ["10.0.0.1/24"]
    link = session.set("va", "blue", ipv6=True, add_addresses=["fd00::1/64"])
    assert (link.ipv6, is_off("va", "blue")) == (True, False)
    assert "fd00::1/64" in addresses("va", "blue")


def test_a_link_is_set_without_ipv6_together_with_its_name_and_mtu(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", mtu=1000), End("vb", "blue")))
    link = session.set("va", "blue", ipv6=False, new_name="vc", mtu=1500)
    assert (link.name, link.mtu, link.ipv6, is_off("vc", "blue")) == ("vc", 1500, False, True)
    link = session.set("vb", "blue", ipv6=True, mtu=1400)
    assert (link.mtu, link.ipv6, is_off("vb", "blue")) == (1400, True, False)


@pytest.mark.parametrize("before", [True, False])
def test_a_change_that_is_refused_leaves_ipv6_as_it_was(session: Session, blue: str, before: bool) -> None:
    given = ["10.0.0.1/24", "fd00::1/64"] if before else ["10.0.0.1/24"]
    session.create(Veth(End("va", "blue", addresses=given, ipv6=before), End("vb", "blue")))
    with pytest.raises(NetlinkError):
        session.set("va", "blue", ipv6=not before, new_name="vb")
    assert is_off("va", "blue") is not before
    assert [each for each in addresses("va", "blue") if not each.startswith("fe80")] == given


def test_addresses_are_restored_if_ipv6_is_disabled_in_vain(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", "blue", addresses=["10.0.0.1/24", "fd00::1/64"]), End("vb", "blue")))
    write = ipv6._write
    written: list[bool] = []

    def write_and_turn(name: str, on: bool) -> None:
        write(name, on)
        if not written:
            write(name, True)
        written.append(on)

    monkeypatch.setattr(ipv6, "_write", write_and_turn)
    with pytest.raises(NetlinkError) as refused:
        session.set("va", "blue", ipv6=False)
    assert refused.value.errno
    assert written == [False, True]
    assert not is_off("va", "blue")
    assert [each for each in addresses("va", "blue") if not each.startswith("fe80")] == ["10.0.0.1/24", "fd00::1/64"]


@pytest.mark.parametrize("given", [[], ["10.0.0.1/24", "fd00::1/64"]], ids=str)
def test_a_link_that_gets_ipv6_by_its_mtu_generates_no_address_against_its_settings(
    session: Session, blue: str, given: list[str]
) -> None:
    session.create(Veth(End("va", "blue", mtu=576), End("vb", "blue")))
    link = session.set("va", "blue", mtu=1500, ipv6=True, sysctls={"ipv6.addr_gen_mode": "1"}, addresses=given)
    assert not is_off("va", "blue")
    assert addresses("va", "blue") == given == [str(each) for each in link.addresses]


def test_a_change_names_the_field_that_contradicts_ipv6(session: Session) -> None:
    session.create(Veth(End("va"), End("vb", mtu=1000)))
    for changes in ({"addresses": ["fd00::1/64"]}, {"add_addresses": ["fd00::1/64"]}):
        with pytest.raises(InvalidValue) as refused:
            session.set("va", ipv6=False, **changes)  # type: ignore[arg-type]
        assert refused.value.field == "ipv6"
    with pytest.raises(InvalidValue) as refused:
        session.set("vb", ipv6=True)
    assert refused.value.field == "ipv6"
    assert not is_off("va", "")


MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:77"
WITHOUT_IPV6: list[dict[str, Any]] = [{"ipv6": False}, {"mtu": 576}, {"mtu": 576, "ipv6": False}, {"up": False}]
IMPOSSIBLE = {"rp_filter": "99999999999999"}


def made_of_macs(name: str, netns: str = "") -> list[str]:
    """Return the addresses that the kernel has made of MACs."""
    found = [one["local"] for one in seen(name, netns)["addr_info"] if one["family"] == "inet6"]
    return [one for one in found if one.startswith("fe80::ff:fe00:")]


@pytest.mark.parametrize("before", WITHOUT_IPV6)
@pytest.mark.parametrize("more", [{}, {"add_addresses": ["2001:db8::1/64 nodad"]}, {"new_name": "c", "alias": "x"}])
def test_a_link_that_gets_ipv6_and_a_mac_has_the_address_made_of_that(
    session: Session, blue: str, before: dict[str, Any], more: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", mac=MAC, **before), End("b", "blue")))
    session.set("a", "blue", mac=OTHER, mtu=1500, ipv6=True, up=True, **more)
    name = more.get("new_name", "a")
    assert poll(lambda: made_of_macs(name, "blue") != [])
    assert made_of_macs(name, "blue") == ["fe80::ff:fe00:77"]


@pytest.mark.parametrize(("before", "given"), [({"ipv6": False}, {"ipv6": True}), ({"mtu": 576}, {"mtu": 1500})])
def test_it_has_that_also_if_nothing_else_is_given(
    session: Session, blue: str, before: dict[str, Any], given: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", mac=MAC, **before), End("b", "blue")), wait=60)
    session.set("a", "blue", mac=OTHER, **given)
    assert made_of_macs("a", "blue") == ["fe80::ff:fe00:77"]


@pytest.mark.parametrize(
    "asked",
    [{"mtu": 1000}, {"up": False}, {"ipv6": False}, {"mtu": 1000, "ipv6": False, "new_name": "c"}, {"mtu": 1400}],
)
def test_a_change_that_is_refused_leaves_the_address_made_of_its_mac(
    session: Session, blue: str, asked: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", mac=MAC), End("b", "blue")), wait=60)
    assert made_of_macs("a", "blue") == ["fe80::ff:fe00:1"]
    with pytest.raises(NetlinkError):
        session.set("a", "blue", mac=OTHER, **asked, sysctls=IMPOSSIBLE)
    assert seen("a", "blue")["address"] == MAC
    assert poll(lambda: made_of_macs("a", "blue") == ["fe80::ff:fe00:1"])


@pytest.mark.parametrize("before", WITHOUT_IPV6)
def test_a_link_that_gets_ipv6_refused_has_no_address(session: Session, blue: str, before: dict[str, Any]) -> None:
    session.create(Veth(End("a", "blue", mac=MAC, **before), End("b", "blue")))
    with pytest.raises(NetlinkError):
        session.set("a", "blue", mac=OTHER, mtu=1500, ipv6=True, up=True, sysctls=IMPOSSIBLE)
    assert seen("a", "blue")["address"] == MAC
    assert made_of_macs("a", "blue") == []


@pytest.mark.parametrize("before", WITHOUT_IPV6)
def test_a_link_that_gets_ipv6_generates_addresses_as_given(
    session: Session, blue: str, before: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", mac=MAC, **before), End("b", "blue")))
    session.set("a", "blue", mtu=1500, ipv6=True, up=True, sysctls={"ipv6.addr_gen_mode": "1"})
    assert made_of_macs("a", "blue") == []


@pytest.mark.parametrize("before", [{"ipv6": False}, {"mtu": 576}, {"enabled": False}])
def test_an_interface_that_gets_ipv6_and_a_mac_has_the_address_made_of_that(
    session: Session, blue: str, before: dict[str, Any]
) -> None:
    b = interface("b", "a", "blue")
    applied(session, interface("a", "b", "blue", phys_address=MAC, **before), b)
    applied(session, interface("a", "b", "blue", phys_address=OTHER, mtu=1500, ipv6=True), b)
    assert poll(lambda: made_of_macs("a", "blue") == ["fe80::ff:fe00:77"])


@pytest.mark.parametrize("before", [{"ipv6": False}, {"mtu": 576}, {}])
@pytest.mark.parametrize(
    "given",
    [
        {"routes": [Route("10.7.0.0/16"), Route("fd07::/48")]},
        {"neighbours": [Neighbour("fd00::9", "02:00:00:00:00:09")]},
    ],
)
def test_a_link_without_ipv6_is_given_no_routes_and_neighbours_of_it(
    session: Session, blue: str, before: dict[str, Any], given: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", **before), End("b", "blue")))
    for without, field in ({"ipv6": False}, "ipv6"), ({"mtu": 1279}, "mtu"):
        with pytest.raises(InvalidValue) as invalid:
            session.set("a", "blue", **without, **given)
        assert invalid.value.field == field
    if before:
        with pytest.raises((NetlinkError, InvalidValue)) as refused:
            session.set("a", "blue", **given)
        assert not isinstance(refused.value, LinkNotFound | NotPermitted)
        assert ip("route", "show", "table", "all", "proto", "118", netns="blue") == []
    session.set("a", "blue", mtu=1500, ipv6=True, **given)
    fields = session.fields("a", "blue")
    assert all(set(values) <= set(fields[name]) for name, values in given.items())


@pytest.mark.parametrize(
    ("given", "successor"),
    [
        ({"routes": [Route("192.168.7.0/24")]}, False),
        ({"routes": [Route("fd07::/48")]}, False),
        ({"routes": [Route("fd07::/48")]}, True),
        ({"neighbours": [Neighbour("10.0.0.9", "02:00:00:00:00:09")]}, False),
        ({"neighbours": [Neighbour("fd00::9", "02:00:00:00:00:09")]}, False),
    ],
)
def test_a_link_that_is_deleted_while_its_routes_or_neighbours_are_set_is_not_found(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], successor: bool
) -> None:
    link = session.create(Veth(End("a", "blue", addresses=["10.0.0.1/24"]), End("b", "blue"))).a
    send = LinkSteps.send

    def meddling(self: LinkSteps, steps: Sequence[Step]) -> None:
        if any(step.what.startswith(("route ", "neighbour ")) for step in steps):
            ip("link", "del", "dev", "a", netns="blue")
            if successor:  # with its ifindex, and without IPv6, which is another reason for ENODEV
                ip("link", "add", "c", "index", str(link.index), "mtu", "576", "type", "bridge", netns="blue")
        send(self, steps)

    monkeypatch.setattr(LinkSteps, "send", meddling)
    with pytest.raises(LinkNotFound):
        session.set("a", "blue", **given)
