"""Changing a link: only what is given, and all of it or nothing; and moving a link."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from tests.live.interrupted_exchanges import interrupt_after
from tests.live.older_kernel import with_einval_for_a_taken_name
from tests.live.refusals import with_names_free_at_first
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import addresses, host_state, ip, names, seen, settled
from vethlib import End, InvalidValue, LinkExists, LinkNotFound, NetlinkError, NetnsNotFound, Session, Veth, ns
from vethlib._nl.batch import LOST, Exchange, Outcome
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.write import linksteps


@pytest.fixture
def pair(session: Session, blue: str) -> dict[str, list[dict[str, Any]]]:
    """va in blue, vb at home, with a bit of everything; returns the state of the host."""
    session.create(
        Veth(
            End("va", "blue", addresses=["10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16", "2001:db8::1/64"], alias="old"),
            End("vb", addresses=["10.0.0.3/24"]),
        )
    )
    ip("address", "add", "10.0.0.9/24", "broadcast", "10.0.0.255", "label", "va:x", "dev", "va", netns="blue")
    return host_state()


CHANGES = [
    ({"mac": "02:00:00:00:00:07"}, {"address": "02:00:00:00:00:07"}),
    ({"mtu": 1400}, {"mtu": 1400}),
    ({"mtu": 9000}, {"mtu": 9000}),
    ({"alias": "new, text"}, {"ifalias": "new, text"}),
    ({"group": 42}, {"group": "42"}),
    ({"new_name": "vx"}, {"ifname": "vx"}),
    ({"new_name": "va"}, {}),
    ({"up": True}, {}),
    ({"addresses": ["10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16", "2001:db8::1/64", "10.0.0.9/24"]}, {}),
    ({"remove_addresses": ["10.99.0.1/24", "2001:db8::99/64"]}, {}),
    ({"add_addresses": ["10.0.0.2/24"]}, {}),
    ({}, {}),
]


@pytest.mark.parametrize(("asked", "changed"), CHANGES, ids=lambda value: ",".join(value) or "nothing")
def test_what_is_given_changes_and_nothing_else(
    session: Session, pair: dict[str, Any], asked: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = settled(seen("va", "blue"))
    link = session.set("va", "blue", **asked)
    after = settled(seen(changed.get("ifname", "va"), "blue"))
    if "new_name" in asked:
        for one in [*before["addr_info"], *after["addr_info"]]:
            one.pop("label", None)  # the kernel renames those along
    assert after == before | changed
    assert link.index == before["ifindex"]
    assert (link.name, link.mac, link.mtu, link.alias, link.netns) == (
        after["ifname"],
        after["address"],
        after["mtu"],
        after["ifalias"],
        "blue",
    )
    others = host_state()
    assert [settled(one) for one in others[""] if one["ifname"] != "vb"] == [
        one for one in pair[""] if one["ifname"] != "vb"
    ]


@pytest.mark.needs_kernel("5.18")
def test_everything_at_once(session: Session, pair: dict[str, Any]) -> None:
    link = session.set(
        "va",
        "blue",
        new_name="vx",
        up=False,
        mac="02:00:00:00:00:07",
        mtu=1300,
        alias="new",
        group=42,
        addresses=["10.2.0.1/24", "2001:db8:2::1/64"],
        address_proto=77,
    )
    told = seen("vx", "blue")
    assert (told["address"], told["mtu"], told["ifalias"], told["group"]) == ("02:00:00:00:00:07", 1300, "new", "42")
    assert "UP" not in told["flags"]
    assert addresses("vx", "blue") == ["10.2.0.1/24", "2001:db8:2::1/64"] == [str(one) for one in link.addresses]
    assert {one.proto for one in session.addresses("blue")} == {77}
    assert not link.up


def test_an_empty_alias_clears_it(session: Session, pair: dict[str, Any]) -> None:
    assert session.set("va", "blue", alias="").alias == ""
    assert "ifalias" not in seen("va", "blue")
    session.set("va", "blue", alias="")


def test_addresses_in_another_order_have_the_new_name_as_their_label(session: Session, pair: dict[str, Any]) -> None:
    texts = ["10.8.0.1/24", "10.8.1.1/24", "10.8.2.1/24", "10.8.3.1/24 label va:x"]
    session.set("va", "blue", addresses=texts)
    session.set("va", "blue", new_name="new", addresses=texts[::-1])
    labels = {one["local"]: one["label"] for one in seen("new", "blue")["addr_info"] if "label" in one}
    assert {labels[text.split("/")[0]] for text in texts[:3]} <= {"new", "new:2", "new:3", "new:4"}


def test_a_link_that_is_up_can_be_renamed(session: Session, pair: dict[str, Any]) -> None:
    session.set("va", "blue", new_name="vx")
    assert "UP" in seen("vx", "blue")["flags"]
    assert names("blue") == {"vx"}


def test_a_link_is_found_by_an_alternative_name(session: Session, pair: dict[str, Any]) -> None:
    ip("link", "property", "add", "dev", "va", "altname", "other", netns="blue")
    assert session.set("other", "blue", mtu=1400).name == "va"
    assert session.set("other", "blue", new_name="vx").altnames == ("other",)
    assert seen("vx", "blue")["mtu"] == 1400


def test_a_link_is_changed_only_if_its_index_is_still_the_one_given(session: Session, pair: dict[str, Any]) -> None:
    index = seen("va", "blue")["ifindex"]
    with pytest.raises(LinkNotFound) as raised:
        session.set("va", "blue", index=index + 100, mtu=1400)
    assert raised.value.index == index
    assert host_state() == pair
    assert session.set("va", "blue", index=index, mtu=1400).mtu == 1400


SETS = [
    (["10.0.0.1/24"], ["10.0.0.2/24"]),
    (["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"], ["10.0.0.2/24", "10.0.0.3/24"]),
    (["10.0.0.1/24", "10.0.0.2/24"], ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"]),
    (["10.0.0.1/24"], ["10.0.0.1/25"]),
    (["10.0.0.1/25", "10.0.0.2/25"], ["10.0.0.1/24", "10.0.0.2/25"]),
    (["2001:db8::1/64"], ["2001:db8::1/128"]),
    (["2001:db8::1/64", "2001:db8::2/64"], ["2001:db8::2/64", "2001:db8::1/96"]),
    (["10.0.0.1/24", "2001:db8::1/64"], []),
    ([], ["10.0.0.1/24", "2001:db8::1/64"]),
    (["169.254.1.1/16"], []),
    (["10.0.0.1/24"], ["10.0.0.1/24", "10.0.0.1/32"]),
]


@pytest.mark.parametrize("promote", ["0", "1"])
@pytest.mark.parametrize(("first", "then"), SETS)
def test_the_whole_set_of_addresses_is_what_was_given(
    session: Session, first: list[str], then: list[str], promote: str
) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    session.create(Veth(End("va", addresses=first), End("vb")))
    link = session.set("va", addresses=then)
    assert set(addresses("va")) == set(then)
    assert [str(one) for one in link.addresses if not one.is_link_local] == addresses("va")
    session.set("va", addresses=[ipaddress.ip_interface(one) for one in first])
    assert set(addresses("va")) == set(first)


@pytest.mark.parametrize("promote", ["0", "1"])
@pytest.mark.parametrize(("first", "then"), SETS)
def test_differences_come_to_the_same(session: Session, first: list[str], then: list[str], promote: str) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    session.create(Veth(End("va", addresses=first), End("vb")))
    session.set("va", add_addresses=then, remove_addresses=[one for one in first if one not in then])
    assert set(addresses("va")) == set(then)


def test_link_local_addresses_of_ipv6_are_let_be(session: Session, pair: dict[str, Any]) -> None:
    def link_local() -> list[str]:
        return [one["local"] for one in seen("va", "blue")["addr_info"] if one["local"].startswith("fe80:")]

    before = link_local()
    assert before
    session.set("va", "blue", addresses=[])
    assert link_local() == before
    session.set("va", "blue", remove_addresses=[f"{before[0]}/64"])
    assert link_local() == []


@pytest.mark.parametrize("promote", ["0", "1"])
def test_the_secondaries_of_a_removed_primary_stay_as_they_were(
    session: Session, pair: dict[str, Any], promote: str
) -> None:
    sysctl("blue", "ipv4/conf/all/promote_secondaries", promote)
    before = {one["local"]: one for one in seen("va", "blue")["addr_info"]}
    session.set("va", "blue", remove_addresses=["10.0.0.1/24"])
    after = {one["local"]: one for one in seen("va", "blue")["addr_info"]}
    assert set(before) - set(after) == {"10.0.0.1"}
    assert after["10.0.0.9"]["label"] == "va:x"
    assert after["10.0.0.9"]["broadcast"] == "10.0.0.255"
    assert [after["10.0.0.2"].get("secondary"), after["10.0.0.9"].get("secondary")] == [None, True]


def test_down_drops_ipv6_addresses_and_those_that_are_given_come_back(session: Session, pair: dict[str, Any]) -> None:
    session.set("va", "blue", up=False)
    assert "2001:db8::1/64" not in addresses("va", "blue")
    session.set("va", "blue", up=True, addresses=["10.0.0.1/24", "2001:db8::1/64"])
    session.set("va", "blue", up=False, addresses=["10.0.0.1/24", "2001:db8::1/64"])
    assert addresses("va", "blue") == ["10.0.0.1/24", "2001:db8::1/64"]
    session.set("va", "blue", up=False, remove_addresses=["2001:db8::1/64"])
    assert addresses("va", "blue") == ["10.0.0.1/24"]


BAD = "::1/128"  # the kernel has it on the loopback only

FAILURES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"new_name": "taken"}, LinkExists, "name 'taken': a link of that name already exists there"),
    ({"new_name": "taken", "mtu": 1400, "mac": "02:00:00:00:00:07", "alias": "x", "group": 3}, LinkExists, "'taken'"),
    ({"new_name": "taken", "addresses": []}, LinkExists, "'taken'"),
    ({"new_name": "taken", "addresses": ["10.0.0.2/24"]}, LinkExists, "'taken'"),
    ({"new_name": "taken", "addresses": ["10.0.0.77/24", "2001:db8::1/80"]}, LinkExists, "'taken'"),
    ({"new_name": "taken", "up": False}, LinkExists, "'taken'"),
    ({"new_name": "taken", "up": False, "mtu": 1000, "addresses": []}, LinkExists, "'taken'"),
    ({"add_addresses": ["10.0.0.77/24", BAD]}, NetlinkError, f"set 'va' in netns:blue address {BAD}"),
    ({"add_addresses": [BAD], "remove_addresses": ["10.0.0.1/24"], "mtu": 9000}, NetlinkError, BAD),
    ({"addresses": [BAD, "10.0.0.2/24"], "up": False, "new_name": "vx"}, NetlinkError, BAD),
    ({"add_addresses": ["2001:db8::1/128"]}, NetlinkError, "the link has this address with another prefix length"),
]


@pytest.mark.parametrize(("asked", "kind", "text"), FAILURES)
def test_a_change_that_fails_half_way_has_changed_nothing(
    session: Session, pair: dict[str, Any], asked: dict[str, Any], kind: type[Exception], text: str
) -> None:
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    before = host_state()
    with pytest.raises(kind) as caught:
        session.set("va", "blue", **asked)
    assert text in str(caught.value)
    assert type(caught.value) is kind
    assert host_state() == before


def test_an_interruption_after_everything_was_done_undoes_it(
    session: Session, pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 0)
    for asked in (
        {"addresses": ["10.0.0.2/24", "10.0.0.50/24", "2001:db8::1/80"], "mtu": 9000, "group": 3, "up": True},
        {"remove_addresses": ["10.0.0.1/24"]},
        {"addresses": [], "up": False, "mtu": 100},
        {"addresses": ["2001:db8::1/96"], "up": False},
    ):
        with pytest.raises(KeyboardInterrupt):
            session.set("va", "blue", **asked)
        assert host_state() == pair
    with pytest.raises(KeyboardInterrupt):
        session.set("va", "blue", new_name="vx")
    assert names("blue") == {"va"}


def test_undoing_up_leaves_the_ipv6_addresses_that_were_there_while_down(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", addresses=["2001:db8::1/64", "10.0.0.1/24"]), End("vb")))
    session.set("va", up=False, addresses=["2001:db8::1/64", "10.0.0.1/24"])
    before = host_state()
    run = Namespaces.run

    def interrupted(self: Namespaces, place: OpenNetns, exchange: Exchange) -> None:
        run(self, place, exchange)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Namespaces, "run", interrupted)
        session.set("va", up=True)
    assert host_state() == before
    session.set("va", up=True)
    assert addresses("va") == ["10.0.0.1/24", "2001:db8::1/64"]


def test_bringing_up_what_cannot_be_is_refused(session: Session) -> None:
    session.create(Veth(End("va"), End("vb")))
    ip("link", "add", "link", "va", "name", "mv", "type", "macvlan")
    ip("link", "set", "dev", "va", "address", seen("mv")["address"])  # refused to macvlan_open
    ip("address", "add", "10.0.0.1/24", "dev", "mv")
    ip("address", "add", "10.0.0.2/24", "dev", "mv")
    before = host_state()
    with raises(NetlinkError, errno=errno.EADDRINUSE):
        session.set("mv", up=True, addresses=["10.0.0.2/24", "10.0.0.3/24"], mtu=1400, alias="x")
    assert host_state() == before


@pytest.mark.needs_kernel("6.2")  # which is made to refuse it; others do so in all tests of renaming
@pytest.mark.parametrize("up", [True, False, None])
def test_a_kernel_that_renames_only_what_is_down_is_obliged(
    session: Session, pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch, up: bool | None
) -> None:
    """As before Linux 6.2: EBUSY for a link that is up."""
    run, refused = Namespaces.run, [False]

    def busy(self: Namespaces, place: OpenNetns, exchange: Exchange) -> None:
        run(self, place, exchange)
        for number, request in enumerate(exchange._requests):
            if b"vx\0" in request and not refused[0]:
                refused[0] = True
                ip("link", "set", "dev", "vx", "name", "va", netns="blue")
                exchange.outcomes[number] = Outcome(errno.EBUSY)

    monkeypatch.setattr(Namespaces, "run", busy)
    before = set(addresses("va", "blue"))
    link = session.set("va", "blue", new_name="vx", up=up)
    assert link.up == (up is not False) == ("UP" in seen("vx", "blue")["flags"])
    lost = {"2001:db8::1/64"} if up is False else set()
    assert set(addresses("vx", "blue")) == before - lost


def test_a_link_that_goes_in_the_middle_is_not_found(
    session: Session, pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPv6 is off on it, so that it is looked at a second time, and gone by then."""
    sysctl("blue", "ipv6/conf/va/disable_ipv6", "1")
    second_try = linksteps.LinkSteps._second_try

    def gone(*args: Any) -> Outcome:
        ip("link", "del", "dev", "va", netns="blue")
        return second_try(*args)

    monkeypatch.setattr(linksteps.LinkSteps, "_second_try", gone)
    with pytest.raises(LinkNotFound):
        session.set("va", "blue", add_addresses=["2001:db8::1/64"])


INVALID: Sequence[tuple[dict[str, Any], str, str]] = [
    ({"mac": "01:00:00:00:00:01"}, "mac", "unicast"),
    ({"mtu": 67}, "mtu", "68 to 65535"),
    ({"new_name": "a/b"}, "new_name", "no '/'"),
    ({"alias": "x" * 256}, "alias", "255 bytes"),
    ({"group": -1}, "group", "2147483647"),
    ({"addresses": ["10.0.0.1"]}, "addresses", "prefix"),
    ({"add_addresses": "10.0.0.1/24"}, "add_addresses", "list"),
    ({"remove_addresses": ["x/24"]}, "remove_addresses", "must be an address"),
    ({"addresses": [], "add_addresses": ["10.0.0.1/24"]}, "addresses", "cannot be combined"),
    ({"address_proto": 256}, "address_proto", "0 to 255"),
]


@pytest.mark.parametrize(("asked", "field", "hint"), INVALID)
def test_a_bad_value_is_named_and_nothing_is_sent(
    session: Session, pair: dict[str, Any], asked: dict[str, Any], field: str, hint: str
) -> None:
    with pytest.raises(InvalidValue, match=hint) as caught:
        session.set("va", "blue", **asked)
    assert caught.value.field == field
    assert host_state() == pair


def test_what_is_not_there_cannot_be_changed(session: Session, pair: dict[str, Any]) -> None:
    with raises(LinkNotFound, netns="blue"):
        session.set("nope", "blue", mtu=1400)
    with raises(NetnsNotFound, netns="netns:nowhere"):
        session.set("va", "nowhere", mtu=1400)
    assert host_state() == pair


def test_a_moved_link_keeps_its_index_where_that_is_free(session: Session, blue: str, red: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", up=False)))
    for number in range(5):
        ip("link", "add", "name", f"br{number}", "type", "bridge", netns="blue")
    session.create(Veth(End("high", "blue", alias="x", mtu=1400), End("low")))
    index = seen("high", "blue")["ifindex"]
    link = session.move("high", "blue", to="red")
    told = seen("high", "red")
    assert link.index == told["ifindex"] == index
    assert (told["mtu"], told["ifalias"], "UP" in told["flags"]) == (1400, "x", False)
    assert (link.netns, link.up, link.mtu, link.alias) == ("red", False, 1400, "x")
    assert "high" not in names("blue")


def test_a_moved_link_gets_another_index_where_its_own_is_taken(session: Session, blue: str, red: str) -> None:
    session.create(Veth(End("va", "blue", addresses=["10.0.0.1/24"]), End("vb", "red")))
    index = seen("va", "blue")["ifindex"]
    ip("link", "add", "name", "br0", "type", "bridge", netns="red")
    taken = {link["ifindex"] for link in ip("link", netns="red")}
    assert index in taken
    link = session.move("va", "netns:blue", to="red")
    assert link.index == seen("va", "red")["ifindex"]
    assert link.index not in taken
    assert (link.addresses, addresses("va", "red")) == ((), [])
    assert link.peer_netnsid is None


def test_a_link_can_be_moved_home_and_away(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    assert session.move("va", "blue", to="").netns == ""
    assert (names(), names("blue")) == ({"va"}, {"vb"})
    assert session.move("va", to="blue").peer_netnsid is None
    assert (names(), names("blue")) == (set(), {"va", "vb"})


def test_a_move_to_where_it_is_changes_nothing(session: Session, pair: dict[str, Any]) -> None:
    link = session.move("va", "blue", to="netns:blue")
    assert (link.netns, link.up) == ("netns:blue", True)
    assert session.move("vb", to="").up
    assert host_state() == pair


def test_a_move_that_fails_has_moved_nothing(session: Session, pair: dict[str, Any], red: str) -> None:
    ip("link", "add", "name", "va", "type", "bridge", netns="red")
    ip("link", "add", "name", "va", "type", "bridge")
    before = host_state()
    with raises(LinkExists, netns="red"):
        session.move("va", "blue", to="red")
    with raises(LinkExists, netns=""):
        session.move("va", "blue", to="")
    with raises(LinkNotFound, netns="blue"):
        session.move("nope", "blue", to="red")
    with raises(NetnsNotFound, netns="netns:nowhere"):
        session.move("va", "blue", to="nowhere")
    with raises(NetlinkError, errno=errno.EINVAL):
        session.move("lo", to="red")
    assert host_state() == before


def test_a_move_onto_a_taken_name_says_so_once(
    session: Session, pair: dict[str, Any], red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "va", "type", "bridge", netns="red")
    with raises(LinkExists, errno=errno.EEXIST) as here:
        session.move("va", "blue", to="red")
    with_einval_for_a_taken_name(monkeypatch)
    with raises(LinkExists, errno=errno.EEXIST) as before:
        session.move("va", "blue", to="red")
    assert str(here.value) == str(before.value)
    assert str(here.value).lower().count("exist") == 1
    with raises(LinkExists, errno=errno.EEXIST) as created:
        session.create(Veth(End("va", "red"), End("vz")))
    assert str(created.value).lower().count("exist") == 1


@pytest.mark.parametrize("taken", ["", "va"])
def test_a_link_is_renamed_by_its_move(session: Session, pair: dict[str, Any], red: str, taken: str) -> None:
    if taken:
        ip("link", "add", "name", taken, "type", "bridge", netns="red")
    link = session.move("va", "blue", to="red", name="wan0")
    assert (link.name, link.netns, link.index) == ("wan0", "red", seen("wan0", "red")["ifindex"])
    assert names("red") == {"wan0"} | ({taken} if taken else set())
    assert "va" not in names("blue")


def test_a_move_to_where_it_is_renames_a_link_that_stays_up(session: Session, pair: dict[str, Any]) -> None:
    before = addresses("va", "blue")
    link = session.move("va", "blue", to="netns:blue", name="wan0")
    assert (link.name, link.up, addresses("wan0", "blue")) == ("wan0", True, before)
    assert session.move(link, to="blue", name="wan0") == link


@pytest.mark.needs_kernel("5.12")  # which gives a link that is moved back its ifindex
def test_a_link_is_not_moved_if_its_new_name_is_taken(
    session: Session, pair: dict[str, Any], red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "wan0", "type", "bridge", netns="red")
    before = host_state()
    with raises(LinkExists, netns="red"):
        session.move("va", "blue", to="red", name="wan0")
    with raises(LinkExists):
        session.move("va", "blue", to="blue", name="lo")
    assert host_state() == before
    # Another program takes the name after it was looked up.
    with_names_free_at_first(monkeypatch)
    with raises(LinkExists, netns="red"):
        session.move("va", "blue", to="red", name="wan0")
    assert host_state() == before


@pytest.mark.needs_kernel("5.12")
def test_a_link_is_brought_back_if_nobody_knows_whether_it_was_moved(
    session: Session, pair: dict[str, Any], red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Namespaces.exchange

    def losing(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        outcomes = exchange(self, place, requests)
        if any(outcome.errno for outcome in outcomes) or len(requests) != 1 or b"wan0" not in requests[0]:
            return outcomes
        return [LOST]

    before = host_state()
    monkeypatch.setattr(Namespaces, "exchange", losing)
    with raises(NetlinkError, errno=LOST.errno):
        session.move("va", "blue", to="red", name="wan0")
    assert host_state() == before


@pytest.mark.needs_kernel("5.12")
def test_a_link_that_is_brought_back_has_no_ipv6_if_it_had_none(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", "blue", ipv6=False, addresses=["10.0.0.1/24"]), End("vb", "blue")))
    ip("link", "add", "name", "wan0", "type", "bridge", netns="red")
    before = host_state()
    with_names_free_at_first(monkeypatch)
    with raises(LinkExists, netns="red"):
        session.move("va", "blue", to="red", name="wan0")
    assert host_state() == before
    assert not session.lookup("va", "blue").ipv6


def test_a_move_without_a_valid_name_changes_nothing(session: Session, pair: dict[str, Any], red: str) -> None:
    before = host_state()
    with pytest.raises(InvalidValue) as caught:
        session.move("va", "blue", to="red", name="a/b")
    assert caught.value.field == "name"
    assert host_state() == before


def test_a_move_into_a_namespace_without_a_name(session: Session) -> None:
    with ns.Netns.anonymous() as there:
        session.create(Veth(End("va"), End("vb")))
        assert session.move("va", to=there).netns == there
        assert "va" in names(there)


@pytest.mark.parametrize("old", ["a", End("a")])
def test_the_former_keyword_of_the_first_argument_of_move_still_moves_that_link(
    session: Session, blue: str, old: str | End
) -> None:
    session.create(Veth(End("a"), End("b")))
    with pytest.warns(DeprecationWarning, match="link"):
        moved = session.move(name=old, to=blue)  # type: ignore[arg-type]
    assert (moved.name, names(blue)) == ("a", {"a"})


def test_a_move_needs_a_link(session: Session, blue: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        session.move(to=blue)
    assert caught.value.field == "link"


@pytest.mark.parametrize("method", ["create", "set", "move", "lookup", "links", "delete"])
def test_an_error_about_arguments_names_the_class_that_users_know(session: Session, method: str) -> None:
    with pytest.raises(TypeError, match=rf"^Session\.{method}\(\)"):
        getattr(session, method)(there_is_no_such=1)
