"""Fields that few ends have: as the kernel has them from creation on, changed, and undone."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import applied, interface
from tests.live.end_fields import GIVEN, WANTED, fields
from tests.live.sysctls import sysctl
from tests.witness import ip, names, poll, seen, settled
from vethlib import End, InvalidValue, LinkExists, NetlinkError, Session, Veth, ns


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize(("a", "b"), [("", "blue"), ("blue", "blue"), ("blue", "red")])
def test_an_end_has_all_its_fields_from_creation_and_its_peer_none(
    session: Session, blue: str, red: str, a: str, b: str, read: bool
) -> None:
    session.create(Veth(End("plain", "red"), End("plain2", "red")))
    untouched = fields("plain", "red")
    pair = session.create(Veth(End("va", a, **GIVEN), End("vb", b)), read=read)
    assert fields("va", a) == WANTED
    assert pair.a.altnames == GIVEN["altnames"]
    assert fields("vb", b) == untouched
    assert session.lookup("uplink", a).name == "va"


def test_they_can_be_read_back(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", **GIVEN), End("vb", "blue")))
    read = session.fields("va", "blue", sysctls=["rp_filter", "ipv6.accept_ra"])
    assert {**read, "sysctls": {name.removeprefix("ipv4."): value for name, value in read["sysctls"]}} == WANTED | {
        "master": "",
        "routes": (),
        "neighbours": (),
    }


@pytest.mark.parametrize(
    ("field", "value", "seen_as"),
    [
        ("txqlen", 0, 0),
        ("gso_max_size", 4096, 4096),
        ("altnames", ["wan"], ("wan",)),
        ("altnames", [], ()),
        ("sysctls", {"rp_filter": "1"}, {"rp_filter": "1", "ipv6.accept_ra": "0"}),
    ],
)
def test_one_field_is_set_and_nothing_else(session: Session, blue: str, field: str, value: Any, seen_as: Any) -> None:
    session.create(Veth(End("va", "blue", **GIVEN), End("vb", "blue")))
    link = session.set("va", "blue", **{field: value})
    assert fields("va", "blue") == WANTED | {field: seen_as}
    assert link.altnames == fields("va", "blue")["altnames"]


def test_a_change_that_is_refused_leaves_every_field_as_it_was(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", **GIVEN), End("vb", "blue")))
    other: dict[str, Any] = {"txqlen": 1, "gso_max_size": 5000, "altnames": ["uplink", "other"]}
    with pytest.raises(LinkExists):
        session.set("va", "blue", new_name="vb", **other)
    assert fields("va", "blue") == WANTED
    with pytest.raises(LinkExists):
        session.set("va", "blue", altnames=["new", "vb", "newer"])
    assert fields("va", "blue") == WANTED
    with pytest.raises(NetlinkError) as refused:
        session.set("va", "blue", sysctls={"arp_filter": "1", "rp_filter": "1", "no_such_setting": "1"}, **other)
    assert refused.value.errno == 2
    assert "no_such_setting" in str(refused.value)
    assert fields("va", "blue") == WANTED
    assert sysctl("blue", "ipv4/conf/va/arp_filter") == "0"


@pytest.mark.parametrize(
    ("before", "after"), [([], ["va"]), (["vnew"], ["va"]), (["vnew", "wan"], ["uplink", "va", "wan"])]
)
@pytest.mark.parametrize("up", [True, False])
def test_a_renamed_link_keeps_its_former_name_as_an_alternative_one(
    session: Session, blue: str, before: list[str], after: list[str], up: bool
) -> None:
    index = session.create(Veth(End("va", "blue", altnames=before, up=up), End("vb", "blue"))).a.index
    link = session.set("va", "blue", new_name="vnew", altnames=after)
    assert (link.name, link.index, set(link.altnames)) == ("vnew", index, set(after))
    assert set(seen("vnew", "blue")["altnames"]) == set(after)
    assert session.lookup("va", "blue") == link


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        ({"sysctls": {"no_such_setting": "1"}}, errno.ENOENT),  # when it has its new name
        ({"altnames": ["va", "vb"]}, errno.EEXIST),  # and before that
    ],
)
def test_it_has_its_name_and_alternative_names_back_if_anything_is_refused(
    session: Session, blue: str, refused: dict[str, Any], code: int
) -> None:
    session.create(Veth(End("va", "blue", altnames=["vnew", "wan"], addresses=["10.0.0.1/24"]), End("vb", "blue")))
    before = settled(seen("va", "blue"))
    with pytest.raises(NetlinkError) as caught:
        session.set("va", "blue", **{"new_name": "vnew", "altnames": ["va", "uplink"], **refused})
    assert caught.value.errno == code
    after = settled(seen("va", "blue"))
    assert {**after, "altnames": sorted(after["altnames"])} == {**before, "altnames": sorted(before["altnames"])}
    assert names("blue") == {"va", "vb"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("altnames", ["free", "taken"]), ("sysctls", {"no_such_setting": "1"})],
)
def test_a_pair_is_not_created_if_the_kernel_refuses_a_field(
    session: Session, blue: str, field: str, value: Any
) -> None:
    session.create(Veth(End("taken", "blue"), End("other", "blue")))
    with pytest.raises(NetlinkError) as refused:
        session.create_many([Veth(End("va", "blue", **{field: value}), End("vb"))])
    assert field.removesuffix("s") in str(refused.value) or "no_such_setting" in str(refused.value)
    assert names("blue") == {"taken", "other"}
    assert names("") == set()


SECRETS = ["2001:0db8:0000:0000:0000:0000:0000:0001", "fedc:ba98:7654:3210:0123:4567:89ab:cdef"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("mode", ["0", "2", "3"])
@pytest.mark.parametrize("order", [list, reversed])
def test_a_link_has_its_stable_secret_and_its_mode_however_they_are_ordered(
    session: Session, blue: str, secret: str, mode: str, order: Any
) -> None:
    given = list(order([("stable_secret", secret), ("addr_gen_mode", mode)]))
    session.create_many([Veth(End("va", "blue", sysctls=given), End("vb", "blue")), Veth(End("vc", "blue"), End("vd"))])
    session.set("vb", "blue", sysctls=given)
    session.set("vc", "blue", sysctls=dict(given), new_name="ve")
    for name in ("va", "vb", "ve"):
        assert sysctl("blue", f"ipv6/conf/{name}/stable_secret") == secret
        assert sysctl("blue", f"ipv6/conf/{name}/addr_gen_mode") == mode


@pytest.mark.parametrize("secret", SECRETS)
def test_a_link_without_a_stable_secret_is_read_and_can_be_given_one(session: Session, blue: str, secret: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    assert session.fields("va", "blue", sysctls=["stable_secret", "ipv6.accept_ra"])["sysctls"] == (
        ("ipv6.accept_ra", "1"),
        ("ipv6.stable_secret", ""),
    )
    with pytest.raises(LinkExists):
        session.set("va", "blue", new_name="vb", sysctls={"stable_secret": secret})
    session.set("va", "blue", sysctls={"stable_secret": secret})
    assert sysctl("blue", "ipv6/conf/va/stable_secret") == secret
    assert session.fields("va", "blue", sysctls=["stable_secret"])["sysctls"] == (("ipv6.stable_secret", secret),)


@pytest.mark.parametrize("mode", ["0", "1", "3"])
@pytest.mark.parametrize("had", [False, True])
def test_a_change_that_fails_leaves_how_addresses_are_generated(
    session: Session, blue: str, mode: str, had: bool
) -> None:
    given = [*([("stable_secret", SECRETS[1])] if had else []), ("addr_gen_mode", mode)]
    session.create(Veth(End("va", "blue", sysctls=given), End("vb", "blue")))
    had = had or mode == "3"  # for which the kernel makes a secret
    secret = sysctl("blue", "ipv6/conf/va/stable_secret") if had else ""
    with pytest.raises(NetlinkError) as caught:
        session.set("va", "blue", sysctls={"stable_secret": SECRETS[0], "rp_filter": "x"})
    assert sysctl("blue", "ipv6/conf/va/addr_gen_mode") == mode
    notes = getattr(caught.value, "__notes__", [])
    if had:
        assert sysctl("blue", "ipv6/conf/va/stable_secret") == secret
        assert notes == []
    else:
        assert len(notes) == 1
        assert "stable_secret" in notes[0]


@pytest.mark.parametrize("given", [{}, {"up": False}])
@pytest.mark.parametrize("mode", ["0", "1"])
def test_a_change_that_fails_leaves_the_link_local_addresses(
    session: Session, blue: str, mode: str, given: dict[str, Any]
) -> None:
    session.create(Veth(End("va", "blue", sysctls={"addr_gen_mode": mode}), End("vb", "blue")))
    assert poll(lambda: len(link_locals("vb")) == 1 and len(link_locals("va")) == (mode == "0"))
    before = link_locals("va")
    with pytest.raises(NetlinkError) as caught:
        session.set("va", "blue", new_name="vb", sysctls={"addr_gen_mode": 3}, **given)
    assert not hasattr(caught.value, "__notes__")
    assert sysctl("blue", "ipv6/conf/va/addr_gen_mode") == mode
    assert poll(lambda: link_locals("va") == before)


def test_a_change_that_fails_leaves_a_link_local_address_where_there_was_one_of_a_former_mac(
    session: Session, blue: str
) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    assert poll(lambda: len(link_locals("va")) == len(link_locals("vb")) == 1)
    ip("link", "set", "dev", "va", "address", "02:00:00:00:00:99", netns="blue")
    with pytest.raises(NetlinkError):
        session.set("va", "blue", up=False, new_name="vb", sysctls={"addr_gen_mode": 1})
    assert poll(lambda: link_locals("va") == ["fe80::ff:fe00:99"])


def link_locals(name: str) -> list[str]:
    return [one["local"] for one in seen(name, "blue")["addr_info"] if one["scope"] == "link"]


def test_an_agent_gives_a_link_a_stable_secret_later(session: Session, blue: str) -> None:
    applied(session, interface("va", "vb", "blue"), interface("vb", "va", "blue"))
    settings = {"stable_secret": SECRETS[0], "addr_gen_mode": "2"}
    applied(session, interface("va", "vb", "blue", sysctls=settings), interface("vb", "va", "blue"))
    assert sysctl("blue", "ipv6/conf/va/stable_secret") == SECRETS[0]


def test_settings_of_a_link_that_is_renamed_are_set_on_it(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", **GIVEN), End("vb", "blue")))
    session.set("va", "blue", new_name="vc", sysctls={"rp_filter": 1})
    assert fields("vc", "blue")["sysctls"]["rp_filter"] == "1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("txqlen", -1),
        ("txqlen", True),
        ("gso_max_size", 0),
        ("altnames", "uplink"),
        ("altnames", ["a/b"]),
        ("altnames", [""]),
        ("altnames", ["x" * 128]),
        ("altnames", ["a\u202eb"]),
        ("altnames", [1]),
        ("sysctls", "rp_filter=0"),
        ("sysctls", {"rp_filter": True}),
        ("sysctls", {"rp_filter": "0\n"}),
        ("sysctls", {"../../../kernel/panic": "1"}),
        ("sysctls", {"ipv5.rp_filter": "1"}),
        ("sysctls", {"disable_ipv6": "1"}),
        ("sysctls", {"ipv6.mtu": "1400"}),
        ("sysctls", [("mtu", 1280)]),
        ("sysctls", {"mc_forwarding": "1"}),
        ("sysctls", {"ipv4.mc_forwarding": "0"}),
        ("sysctls", {"ipv6.mc_forwarding": "1"}),
        ("sysctls", {"rp_filter": "1", "ipv4.rp_filter": "0"}),
        ("sysctls", {1: "1"}),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("va", **{field: value})
    assert refused.value.field == field


def test_the_mtu_of_ipv6_is_read_but_not_set_because_the_kernel_keeps_none(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", mtu=9000), End("vb", "blue", mtu=9000)))
    with pytest.raises(InvalidValue) as refused:
        session.set("va", "blue", sysctls={"rp_filter": "1", "ipv6.mtu": "1400"})
    assert refused.value.field == "sysctls"
    sysctl("blue", "ipv6/conf/va/mtu", "1300")
    assert session.fields("va", "blue", sysctls=["ipv6.mtu"])["sysctls"] == (("ipv6.mtu", "1300"),)


def test_every_setting_of_a_link_can_be_set_or_is_refused_by_its_name(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", mtu=9000), End("vb", "blue", mtu=9000)))
    with ns.entered(blue):
        files = {family: Path(f"/proc/sys/net/{family}/conf/va").iterdir() for family in ("ipv4", "ipv6")}
        read_only = {
            f"{family}.{file.name}" for family in files for file in files[family] if not file.stat().st_mode & 0o222
        }
    assert read_only
    for name in read_only:
        with pytest.raises(InvalidValue) as refused:
            session.set("va", "blue", sysctls={name: "0"})
        assert refused.value.field == "sysctls"
        assert session.fields("va", "blue", sysctls=[name])["sysctls"] == ((name, "0"),)


def test_the_settings_in_which_a_link_differs_from_new_ones_are_read_without_their_names(
    session: Session, blue: str
) -> None:
    pair = session.create(Veth(End("va", "blue", sysctls={"rp_filter": "2"}), End("vb", "blue")))
    sysctl("blue", "ipv6/conf/va/hop_limit", "77")
    sysctl("blue", "ipv6/conf/va/mtu", "1300")  # which the kernel keeps no longer than it likes
    asked = [("netns:blue", index, {"sysctls": None}) for index in (pair.a.index, pair.b.index, 9999)]
    given = (("ipv4.rp_filter", "2"), ("ipv6.hop_limit", "77"))
    assert session.fields_many(asked) == [{"sysctls": given}, {"sysctls": ()}, None]


def test_ends_with_these_fields_are_values() -> None:
    one, same = (End("va", sysctls=given) for given in ({"rp_filter": 0}, [("ipv4.rp_filter", "0")]))
    assert one == same
    assert hash(one) == hash(same)
    assert End("va", altnames=["x"]) != End("va")
