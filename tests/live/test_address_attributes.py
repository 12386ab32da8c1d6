"""Addresses with a peer, a broadcast address, a label, a scope, flags and lifetimes: as given, as read, and undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.address_texts import OTHERS, TEXTS, by_hand, lasting, often, once, there
from tests.live.interrupted_exchanges import interrupted_after
from tests.live.sysctls import sysctl
from tests.witness import ip, seen
from vethlib import End, InvalidValue, LinkExists, Neighbour, NetlinkError, NewAddress, Route, Session, Veth
from vethlib._nl.addr import extras, parse_addr, relabelled
from vethlib._nl.counts import counts
from vethlib.addresses import PLAIN

WANTED = [
    "10.0.0.1/24 brd + label va:x",
    "10.0.1.1/24 brd 10.0.1.99 scope link",
    "10.1.0.1 peer 10.1.0.2/32",
    "10.2.0.1 peer 10.3.0.1/24 brd + scope host",
    "10.4.0.1/16 noprefixroute",
    "2001:db8::1/64 nodad noprefixroute",
    "2001:db8:1::1 peer 2001:db8:1::2/128",
    "2001:db8:2::1/64 nodad",
]
LIVING = ["10.5.0.1/24 valid_lft 1000 preferred_lft 500", "2001:db8:5::1/64 nodad valid_lft 1000 preferred_lft 700"]


@pytest.fixture
def pair(session: Session) -> None:
    session.create(Veth(End("va"), End("vb")))


def as_ip_gives(*texts: str, session: Session) -> list[dict[str, Any]]:
    """What `ip` itself makes of these texts, on a link of the same name."""
    session.delete("va")
    session.create(Veth(End("va"), End("vb")))
    by_hand(*texts)
    return lasting()


ZERO = [
    "10.0.0.1/24 brd 0.0.0.0",
    "0.0.0.1/8 brd -",
    "10.0.0.1 peer 0.0.0.2/24 brd -",
    "10.0.0.1/24 brd 0.0.0.0 label va:x",
]
"""With a broadcast address that the kernel takes for none (inet_fill_ifaddr, net/ipv4/devinet.c)."""


@pytest.mark.parametrize("text", [*WANTED, *LIVING, *ZERO])
def test_an_address_is_what_ip_makes_of_the_same_text(session: Session, text: str) -> None:
    session.create(Veth(End("va", addresses=[text]), End("vb")))
    created = lasting()
    session.set("va", addresses=[])
    session.set("va", add_addresses=[text])
    assert lasting() == created == as_ip_gives(text, session=session)


def test_all_of_them_are_given_in_a_message_each_and_in_order(session: Session) -> None:
    plain = [text.split()[0] for text in [*WANTED, *LIVING] if "peer" not in text]
    session.create(Veth(End("va"), End("vb")))
    requests = counts.requests
    session.set("va", addresses=plain)
    without = counts.requests - requests
    session.set("va", addresses=[])
    requests = counts.requests
    session.set("va", addresses=[text for text in [*WANTED, *LIVING] if "peer" not in text])
    assert counts.requests - requests == without
    session.set("va", addresses=[*WANTED, *LIVING])
    before = lasting()
    session.set("va", addresses=[*WANTED, *LIVING])
    assert lasting() == before


def test_a_value_is_given_as_its_text_is(session: Session) -> None:
    value = NewAddress("10.0.0.1/24", broadcast="+", label="va:x", scope="link")
    link = session.create(Veth(End("va", addresses=[value]), End("vb")), wait=60).a
    assert "10.0.0.1/24" in [str(address) for address in link.addresses]
    assert all(type(address) in PLAIN for address in link.addresses)
    (address,) = [each for each in session.lookup("va").ifaddrs if each.interface.version == 4]
    assert (str(address.broadcast), address.label, address.scope) == ("10.0.0.255", "va:x", 253)


def test_flags_and_peer_are_read(session: Session) -> None:
    session.create(Veth(End("va", addresses=WANTED), End("vb")), wait=60)
    flags = {str(one): (one.nodad, one.noprefixroute) for one in session.lookup("va").ifaddrs if not one.by_kernel}
    assert flags["2001:db8::1/64"] == (True, True)
    assert flags["2001:db8:2::1/64"] == (True, False)
    assert flags["10.4.0.1/16"] == (False, True)
    assert flags["10.1.0.1 peer 10.1.0.2/32"] == (False, False)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("how", ["addresses", "add_addresses"])
@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ("10.0.0.1/24", "10.0.0.1/24 brd +"),
        ("10.0.0.1/24 brd +", "10.0.0.1/24 brd 10.0.0.9 label va:y"),
        ("10.0.0.1/24 label va:x scope link", "10.0.0.1/24 label va:y"),
        ("10.0.0.1/24 noprefixroute", "10.0.0.1/24 label va:x"),
        ("10.0.0.1 peer 10.0.0.2/32", "10.0.0.1 peer 10.0.0.2/32 scope link"),
        ("2001:db8::1/64", "2001:db8::1/64 nodad noprefixroute"),
    ],
)
def test_an_address_that_differs_is_replaced(session: Session, how: str, present: str, wanted: str) -> None:
    by_hand(present)
    given: dict[str, Any] = {how: [wanted]}
    session.set("va", **given)
    assert lasting() == as_ip_gives(wanted, session=session)


@pytest.mark.usefixtures("pair")
def test_one_that_is_as_given_is_not_touched(session: Session) -> None:
    by_hand(*WANTED)
    before = [(one["local"], one.get("label")) for one in seen("va")["addr_info"]]
    requests = counts.requests
    session.set("va", add_addresses=WANTED)
    with_attributes = counts.requests - requests
    assert [(one["local"], one.get("label")) for one in seen("va")["addr_info"]] == before
    requests = counts.requests
    session.set("va", add_addresses=["10.4.0.1/16", "2001:db8::1/64"])
    assert counts.requests - requests == with_attributes


@pytest.mark.usefixtures("pair")
def test_a_plain_address_may_have_any_attributes(session: Session) -> None:
    by_hand("10.0.0.1/24 brd + label va:x", "2001:db8::1/64 nodad noprefixroute")
    before = lasting()
    session.set("va", addresses=["10.0.0.1/24", "2001:db8::1/64"])
    assert lasting() == before


@pytest.mark.usefixtures("pair")
def test_lifetimes_start_again_each_time_they_are_set_and_the_address_stays(session: Session) -> None:
    by_hand("10.0.0.9/24", "10.0.0.1/24 valid_lft 500 preferred_lft 400", "2001:db8::1/64 nodad")
    session.set(
        "va",
        add_addresses=["10.0.0.1/24 valid_lft 9000 preferred_lft 8000", "2001:db8::1/64 nodad valid_lft 7000"],
    )
    lives = {one["local"]: (one["valid_life_time"], one["preferred_life_time"]) for one in seen("va")["addr_info"]}
    assert 8900 < lives["10.0.0.1"][0] <= 9000
    assert 7900 < lives["10.0.0.1"][1] <= 8000
    assert 6900 < lives["2001:db8::1"][0] <= 7000
    assert there()[:2] == ["10.0.0.9/24", "10.0.0.1/24"]
    session.set("va", add_addresses=["10.0.0.1/24"])
    assert {one["valid_life_time"] for one in seen("va")["addr_info"] if one["local"] == "10.0.0.1"} == {2**32 - 1}


@pytest.mark.usefixtures("pair")
def test_what_is_refused_leaves_addresses_and_their_lifetimes_as_they_were(session: Session) -> None:
    by_hand("10.0.0.1/24 brd + label va:x", "10.0.0.2/24 valid_lft 500 preferred_lft 400", "2001:db8::1/64 nodad")
    before = lasting()
    with pytest.raises(NetlinkError):
        session.set(
            "va",
            new_name="vb",
            add_addresses=[
                "10.0.0.1/24 label va:y",
                "10.0.0.2/24 valid_lft 9000 preferred_lft 9000",
                "2001:db8::1/64 nodad noprefixroute",
                "10.0.0.3 peer 10.9.0.1/32",
            ],
        )
    assert lasting() == before
    assert max(one["valid_life_time"] for one in seen("va")["addr_info"] if one["local"] == "10.0.0.2") <= 500


@pytest.mark.usefixtures("pair")
def test_one_with_a_peer_is_removed_by_its_text_and_no_other(session: Session) -> None:
    by_hand("10.0.0.1 peer 10.0.0.2/32", "10.0.0.1 peer 10.0.0.3/32")
    session.set("va", remove_addresses=["10.0.0.1 peer 10.0.0.3/32"])
    assert there() == ["10.0.0.1 peer 10.0.0.2/32"]


@pytest.mark.usefixtures("pair")
def test_an_address_is_as_given_on_a_link_that_is_renamed_at_the_same_time(session: Session) -> None:
    session.set("va", add_addresses=["10.0.0.1/24 brd +", "10.0.0.2/24 label va:x"])
    wanted = ["10.0.0.1/24 brd +", "10.0.0.2/24 label new:y", "10.1.0.1 peer 10.1.0.2/32"]
    session.set("va", new_name="new", addresses=wanted)
    found = {one["local"]: one for one in seen("new")["addr_info"]}
    assert (found["10.0.0.1"]["broadcast"], found["10.1.0.1"]["address"]) == ("10.0.0.255", "10.1.0.2")
    assert found["10.0.0.2"]["label"] == "new:y"


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("promote", ["0", "1"])
@pytest.mark.parametrize(
    ("present", "replaced", "after"),
    [
        (["10.0.0.2/24 brd +", "10.0.0.1/24 brd + label va:x"], "10.0.0.2/24 label va:y", ["10.0.0.1", "10.0.0.2"]),
        (["10.0.0.2/24", "10.0.0.1/24", "10.0.0.3/24"], "10.0.0.2/24 scope link", []),  # of one scope in a subnet
        (["10.0.0.2/24", "10.0.0.1/24", "10.0.0.3/24"], "10.0.0.2/24 label va:y", ["10.0.0.1", "10.0.0.3", "10.0.0.2"]),
        (["10.0.0.2/24", "10.0.1.1/24", "10.0.0.1/24"], "10.0.0.2/24 brd +", ["10.0.1.1", "10.0.0.1", "10.0.0.2"]),
        (["10.0.0.2/24", "10.0.0.1/24", "10.0.0.3/24"], "10.0.0.3/24 brd +", ["10.0.0.2", "10.0.0.1", "10.0.0.3"]),
    ],
)
def test_the_secondaries_of_an_address_that_is_replaced_stay(
    session: Session, present: list[str], replaced: str, after: list[str], promote: str
) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    by_hand(*present)
    before = {one["local"]: one for one in lasting()}
    if not after:
        with pytest.raises(NetlinkError):
            session.set("va", add_addresses=[replaced])
        assert lasting() == list(before.values())
        return
    session.set("va", add_addresses=[replaced])
    assert [one["local"] for one in lasting()] == after
    changed = replaced.split("/")[0]
    for one in lasting():
        was = before[one["local"]]
        one.pop("secondary", None), was.pop("secondary", None)
        assert one == was or one["local"] == changed


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("how", ["addresses", "add_addresses"])
@pytest.mark.parametrize("up", [None, True, False])
@pytest.mark.parametrize(
    "given",
    [
        ["10.0.0.1/8 label x", "10.1.0.2/31"],
        ["10.0.0.1/24", "10.0.1.1/24 label x", "10.0.0.2/24 label new:2"],
        ["10.0.0.9/24 label x", "10.0.0.1/24 brd + label va", "10.0.0.2/24"],
        ["10.1.0.1 peer 10.1.0.2/32 label x:y", "10.0.0.1/16", "2001:db8::1/64 nodad", "2001:db8::2/64 nodad"],
    ],
)
def test_addresses_are_in_the_order_given_on_a_link_that_is_renamed_at_the_same_time(
    session: Session, given: list[str], up: bool | None, how: str
) -> None:
    link = session.set("va", new_name="new", up=up, **{how: given})  # type: ignore[arg-type]
    assert there("new") == [str(NewAddress(text).on(1, 0)) for text in given]
    exact = {NewAddress(text).identity: NewAddress(text) for text in given}
    assert all(exact[one.identity].is_met_by(one) for one in link.ifaddrs if not one.by_kernel)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("given", [["10.0.0.9/24 label x"], ["10.0.0.1/24 label va:y", "10.0.1.9/24 label x"]])
def test_an_address_that_is_there_has_the_label_that_is_given_with_a_new_name(
    session: Session, given: list[str]
) -> None:
    by_hand("10.0.0.1/24 label va:y", "10.0.0.9/24 label x", "10.0.1.9/24")
    present = there()
    session.set("va", new_name="new", add_addresses=given, address_order=present)
    labels = {one["local"]: one["label"] for one in seen("new")["addr_info"] if "label" in one}
    assert {text: labels[text.split("/")[0]] for text in given} == {text: text.split()[-1] for text in given}
    assert there("new") == present


@pytest.mark.needs_kernel("6.2")  # which renames a link that is up
@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("name", ["new", "fifteen_bytes_x"])
@pytest.mark.parametrize("labels", [["va:x", "va:y"], ["va", "va"], ["x", "other:8"], ["va", "va:2", "va:eleven_byte"]])
def test_the_kernel_changes_labels_along_with_the_name_as_foreseen(
    session: Session, labels: list[str], name: str
) -> None:
    by_hand("2001:db8::1/64 nodad", *(f"10.0.{n}.1/24 label {label}" for n, label in enumerate(labels)))
    four = [one for one in session.lookup("va").ifaddrs if one.interface.version == 4]
    foreseen = [extras(parse_addr(relabelled(one.message, name, n))).label for n, one in enumerate(four, 1)]
    ip("link", "set", "dev", "va", "name", name)
    found = [one["label"] for one in seen(name)["addr_info"] if one["family"] == "inet"]
    assert [label.decode() for label in foreseen] == found


DEPRECATED = ["10.0.0.5/24 preferred_lft 0", "10.0.0.6/24 brd + label va:x preferred_lft 0", "10.1.0.1/24"]
DEPRECATED += ["10.2.0.1 peer 10.2.0.2/32 valid_lft 900 preferred_lft 0", "2001:db8::1/64 nodad preferred_lft 0"]


@pytest.mark.usefixtures("pair")
def test_deprecated_addresses_are_restored_as_such(session: Session) -> None:
    by_hand(*DEPRECATED)
    before, link = lasting(), session.lookup("va")
    assert [one.get("deprecated", False) for one in before] == [True, False, True, True, True]
    session.set("va", addresses=["10.1.0.1/24"])
    session.restore_addresses("va", addresses=link.ifaddrs)
    assert lasting() == before
    session.set("va", addresses=["10.0.0.5/24", "10.0.0.6/24", "2001:db8::1/64"])
    assert not any("deprecated" in one for one in lasting())
    session.restore_addresses("va", addresses=link.ifaddrs)
    assert lasting() == before


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    "asked",
    [
        {"addresses": ["10.7.0.1/24"]},
        {"addresses": ["10.0.0.6/24", "10.0.0.5/24", "2001:db8::1/64"]},
        {"add_addresses": ["10.0.0.5/24 brd +"]},
        {"add_addresses": ["10.0.0.5/24"], "new_name": "vc"},
        {"remove_addresses": ["10.0.0.5/24"]},
        {"up": False},
    ],
)
def test_a_refused_change_leaves_deprecated_addresses_deprecated(session: Session, asked: dict[str, Any]) -> None:
    by_hand(*DEPRECATED)
    before = lasting()
    with pytest.raises(NetlinkError):
        session.set("va", **asked, sysctls={"rp_filter": "99999999999999"})
    assert lasting() == before


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    "asked",
    [
        {"sysctls": {"rp_filter": "99999999999999"}},
        {"routes": [Route("10.9.0.0/16", via="203.0.113.7")]},
        {"neighbours": [Neighbour("10.0.0.9", "02:00:00:00:00:09")], "mtu": 1400, "sysctls": {"no_such_setting": "1"}},
        {"altnames": ["va", "uplink"], "up": False, "sysctls": {"no_such_setting": "1"}},
        {"altnames": ["va", "vb"]},
    ],
)
@pytest.mark.parametrize(
    "present",
    [
        ["10.0.0.5/24 label x", "10.0.1.5/24"],
        ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24 brd + label va:3", "10.1.0.1/16 label va"],
        ["10.1.0.1 peer 10.1.0.2/32 label va:y", "2001:db8::1/64 nodad", "10.0.0.5/24 label y preferred_lft 0"],
    ],
)
def test_a_refused_change_of_the_name_leaves_all_labels(
    session: Session, present: list[str], asked: dict[str, Any]
) -> None:
    by_hand(*present)
    ip("route", "add", "10.77.0.0/16", "dev", "va", "proto", "static")
    before = lasting()
    with pytest.raises((NetlinkError, LinkExists)) as caught:
        session.set("va", new_name="vc", **asked)
    assert lasting() == before
    assert getattr(caught.value, "__notes__", []) == []
    assert [route["dev"] for route in ip("route", "show", "10.77.0.0/16")] == ["va"]


@pytest.mark.usefixtures("pair")
def test_the_secondary_of_a_removed_address_is_still_deprecated(session: Session) -> None:
    by_hand("10.0.0.1/24", "10.0.0.5/24 preferred_lft 0")
    session.set("va", remove_addresses=["10.0.0.1/24"])
    assert [(one["local"], one.get("deprecated")) for one in lasting()] == [("10.0.0.5", True)]


@pytest.mark.usefixtures("pair")
def test_an_ipv6_address_gets_another_peer_in_a_whole_set_only(session: Session) -> None:
    by_hand("2001:db8::1/64 nodad")
    with pytest.raises(NetlinkError):
        session.set("va", add_addresses=["2001:db8::1 peer 2001:db8::2/64 nodad"])
    assert there() == ["2001:db8::1/64"]
    session.set("va", addresses=["2001:db8::1 peer 2001:db8::2/64 nodad"])
    assert there() == ["2001:db8::1 peer 2001:db8::2/64"]


@pytest.mark.parametrize("attributes", [False, True])
def test_waiting_ends_with_one_that_has_a_peer(session: Session, attributes: bool) -> None:
    given = WANTED if attributes else ["10.0.0.1/24", "2001:db8::1/64"]
    a, _ = session.create(Veth(End("va", addresses=given), End("vb")), wait=60)
    assert len(a.addresses) >= len(given)
    session.set("va", add_addresses=["10.9.0.1 peer 10.9.0.2/32"], wait=60)


def test_ipv6_is_enabled_for_an_address_with_attributes(session: Session) -> None:
    sysctl("", "ipv6/conf/default/disable_ipv6", "1")
    session.create(Veth(End("va", addresses=["2001:db8::1/64 nodad noprefixroute"]), End("vb")))
    (one,) = [one for one in seen("va")["addr_info"] if one["local"] == "2001:db8::1"]
    assert (one["nodad"], one["noprefixroute"]) == (True, True)


@pytest.mark.parametrize("field", ["addresses", "add_addresses", "remove_addresses", "address_order"])
def test_what_is_wrong_is_named_with_its_field(session: Session, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        session.set("va", **{field: ["10.0.0.1/24 dev va"]})  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.value) == (field, "10.0.0.1/24 dev va")


def with_attributes() -> st.SearchStrategy[list[str]]:
    """Some addresses to be given, none of them twice."""
    texts = [*WANTED, *LIVING, *(f"{text} noprefixroute" for text in TEXTS), "10.0.0.1/24 brd +", *TEXTS[:4]]
    return st.lists(st.sampled_from(texts), max_size=5, unique=True).map(once)


@pytest.mark.needs_kernel("5.18")  # which tells fe80::1 from what it makes of the MAC
@pytest.mark.parametrize("promote", ["0", "1"])
def test_whatever_is_set_is_exact_and_what_is_undone_is_as_it_was(session: Session, promote: str) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    session.create(Veth(End("va"), End("vb")))

    @often
    @given(
        st.lists(st.sampled_from([*WANTED, *LIVING, *TEXTS, *OTHERS]), max_size=6), with_attributes(), st.integers(0, 3)
    )
    def holds(texts: list[str], wanted: list[str], after: int) -> None:
        session.set("va", addresses=[])
        for text in texts:
            try:
                session.set("va", add_addresses=[text.replace(" metric 7", "")])
            except (InvalidValue, NetlinkError):
                pass
        before = lasting()
        with interrupted_after(after) as interruption:
            session.set("va", addresses=wanted)
        assert lasting() == before or not interruption.came
        session.set("va", addresses=wanted)
        exact = {NewAddress(text).identity: NewAddress(text) for text in wanted if " " in text}
        link = session.lookup("va")
        assert {one.identity for one in link.ifaddrs if not one.by_kernel} == {
            NewAddress(text).identity for text in wanted
        }
        for one in link.ifaddrs:
            assert one.identity not in exact or exact[one.identity].is_met_by(one)

    holds()
