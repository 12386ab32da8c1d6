"""One setting is changed by one message, which also asks for the link; new links that are not read."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.live.older_kernel import without_alternative_names_in_changes
from tests.needs import kernel_is
from tests.refusing import raises
from tests.witness import addresses, host_state, ip, seen, settled
from vethlib import (
    BatchError,
    End,
    IfIndexCache,
    InvalidValue,
    LinkNotFound,
    NetlinkError,
    NetnsNotFound,
    Session,
    Veth,
)
from vethlib._nl.counts import counts
from vethlib._nl.sock import RtnlSocket


@pytest.fixture
def pair(session: Session, blue: str) -> None:
    session.create(
        Veth(End("va", "blue", addresses=["10.0.0.1/24", "2001:db8::1/64"], alias="old"), End("vb", up=False))
    )


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"mac": "02:00:00:00:00:07"}, {"address": "02:00:00:00:00:07"}),
    ({"mtu": 1400}, {"mtu": 1400}),
    ({"alias": "new"}, {"ifalias": "new"}),
    ({"group": 42}, {"group": "42"}),
]


# With another MAC, the kernel removes neighbours, so that these are read first.
@pytest.mark.parametrize(("asked", "changed"), SETTINGS[1:])
@pytest.mark.parametrize("ref", ["va", "an-alternative-name"])
def test_a_setting_takes_two_datagrams_and_the_link_is_returned_as_it_is_then(
    session: Session,
    pair: None,
    asked: dict[str, Any],
    changed: dict[str, Any],
    ref: str,
) -> None:
    ip("link", "property", "add", "dev", "va", "altname", "an-alternative-name", netns="blue")
    before, requests = settled(seen("va", "blue")), counts.requests
    link = session.set(ref, "blue", **asked)
    if ref == "va" or kernel_is("5.19"):
        assert counts.requests == requests + 3  # the change and the question in one, then the addresses
    after = settled(seen("va", "blue"))
    assert {key: after[key] for key in changed} == changed
    for key in (*changed, "addr_info"):
        before.pop(key, None), after.pop(key)
    assert after == before
    assert link == session.lookup("va", "blue")
    assert [str(one) for one in link.addresses if not one.is_link_local] == addresses("va", "blue")


def test_before_linux_5_19_a_link_is_found_by_a_long_alternative_name(
    session: Session, pair: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_alternative_names_in_changes(monkeypatch)
    ip("link", "property", "add", "dev", "va", "altname", "an-alternative-name", netns="blue")
    assert session.set("an-alternative-name", "blue", mtu=1400).name == "va"
    assert seen("va", "blue")["mtu"] == 1400
    session.set_many([("an-alternative-name", "blue"), ("vb", "")], mtu=1300)
    assert (seen("va", "blue")["mtu"], seen("vb")["mtu"]) == (1300, 1300)
    with raises(LinkNotFound, netns="blue"):
        session.set("another-alternative-name", "blue", mtu=1400)
    with pytest.raises(BatchError) as caught:
        session.set_many([("another-alternative-name", "blue"), ("vb", "")], mtu=1300)
    assert [type(error) for error in caught.value.exceptions] == [LinkNotFound]


def test_a_setting_that_is_refused_names_it_and_changes_nothing(session: Session, pair: None) -> None:
    ip("link", "add", "link", "vb", "name", "mv", "type", "macvlan")
    before = host_state()
    with raises(NetlinkError, errno=errno.EINVAL) as caught:
        session.set("mv", mtu=9000)
    assert "set 'mv' mtu 9000" in caught.value.request
    assert host_state() == before
    assert session.set("mv", mtu=1400).mtu == 1400


def test_a_link_that_is_missing_is_not_found(session: Session, pair: None) -> None:
    for name in ("nope", "an-alternative-name"):
        with raises(LinkNotFound, netns="blue"):
            session.set(name, "blue", mtu=1400)


def test_another_link_of_the_name_is_not_changed(session: Session, pair: None) -> None:
    link = session.lookup("vb")
    ip("link", "set", "vb", "name", "old")
    session.create(Veth(End("vb", mtu=1500), End("vc")))
    before = host_state()
    with pytest.raises(LinkNotFound):
        session.set(link, mtu=1400)
    assert host_state() == before
    assert session.set(session.lookup("old"), mtu=1400).name == "old"


def test_a_condition_is_asked_before_a_setting_is_changed(session: Session, pair: None) -> None:
    before = host_state()
    with pytest.raises(LinkNotFound):
        session.set("vb", mtu=1400, only_if=lambda link, _birth: link.mtu == 1400)
    assert host_state() == before
    assert session.set("vb", mtu=1400, only_if=lambda link, _birth: link.mtu == 1500).mtu == 1400


def test_an_attached_cache_knows_a_setting_at_once(session: Session, pair: None) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        for asked, _ in SETTINGS:
            link = session.set("va", "blue", **asked)
            (known,) = [one for one in cache.links("blue") if one.name == "va"]
            assert all(getattr(known, name) == value == getattr(link, name) for name, value in asked.items())


# --- many links


@pytest.mark.parametrize(("asked", "changed"), [*SETTINGS[1:], ({"mtu": 900}, {"mtu": 900})])
def test_many_links_are_changed_alike_and_nothing_else_of_them(
    session: Session, pair: None, asked: dict[str, Any], changed: dict[str, Any]
) -> None:
    session.create(Veth(End("va"), End("vc", "blue")))
    session.set("va", "blue", addresses=[])  # IPv6 needs a larger MTU
    session.set_many([("va", "blue"), ("vb", ""), End("vc", "blue"), session.lookup("va")], **asked)
    for name, netns in (("va", "blue"), ("vb", ""), ("vc", "blue"), ("va", "")):
        after = seen(name, netns)
        assert {key: after[key] for key in changed} == changed


def test_many_links_are_set_up_and_down_together(session: Session, pair: None) -> None:
    for up in (True, False):
        session.set_many([("va", "blue"), ("vb", "")], up=up)
        assert [("UP" in seen(name, netns)["flags"]) for name, netns in (("va", "blue"), ("vb", ""))] == [up, up]


def test_a_setting_of_many_links_is_one_exchange_for_each_namespace(session: Session, pair: None, red: str) -> None:
    session.create_many([Veth(End(f"a{n}", "red"), End(f"b{n}", "red")) for n in range(9)])
    requests = counts.requests
    session.set_many([*((f"a{n}", "red") for n in range(9)), ("va", "blue")], mtu=1400)
    assert counts.requests == requests + 10
    assert [seen(f"a{n}", "red")["mtu"] for n in range(9)] == [1400] * 9


def test_of_many_links_those_that_cannot_be_changed_have_an_error_each(session: Session, pair: None) -> None:
    ip("link", "add", "link", "vb", "name", "mv", "type", "macvlan")
    other = session.lookup("vb")
    ip("link", "set", "vb", "name", "old")
    session.create(Veth(End("vb"), End("vc")))
    items: list[Any] = [("nope", ""), ("va", "blue"), ("mv", ""), other, ("x", "nowhere"), ("vc", "")]
    with pytest.raises(BatchError) as caught:
        session.set_many(items, mtu=9000)
    assert [(type(error), error.item) for error in caught.value.exceptions] == [
        (LinkNotFound, items[0]),
        (NetlinkError, items[2]),
        (LinkNotFound, other),
        (NetnsNotFound, items[4]),
    ]
    assert [seen(*item)["mtu"] for item in (items[1], items[5], ("vb", ""))] == [9000, 9000, 1500]


def test_several_settings_of_many_links_are_changed_as_of_one(session: Session, pair: None) -> None:
    with pytest.raises(BatchError) as caught:
        session.set_many([("va", "blue"), ("nope", "blue")], mtu=1400, alias="new")
    assert [error.item for error in caught.value.exceptions] == [("nope", "blue")]
    assert (seen("va", "blue")["mtu"], seen("va", "blue")["ifalias"]) == (1400, "new")


def test_an_attached_cache_knows_what_was_set_on_many_links_at_once(session: Session, pair: None) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("")
        session.set_many([("vb", "")], alias="new")  # it is down: the kernel sends no event
        (known,) = [link for link in cache.links("") if link.name == "vb"]
        assert known.alias == "new"


# --- new links that are not read

ENDS: list[tuple[End, End]] = [
    (End("a", mac="02:00:00:00:00:01", mtu=1400, up=False), End("b", "blue", mac="02:00:00:00:00:02", up=False)),
    (End("a", "blue", group=7), End("b", group=8, addresses=["10.0.0.1/24", "2001:db8::1/64"], alias="x")),
    (End("a", num_queues=2, up=False), End("b", "blue", up=False)),
    (End("a", up=False), End("b", "blue", num_queues=3, mtu=1000)),
    (End("a"), End("b")),
    (End("a", "blue", ipv6=False), End("b", "red", up=False)),
]


@pytest.mark.parametrize(("a", "b"), ENDS)
def test_a_pair_that_is_not_read_is_described_as_it_is(session: Session, blue: str, red: str, a: End, b: End) -> None:
    pair = session.create(Veth(a, b), read=False)
    for link in pair:
        now = session.lookup(link)
        for field in ("index", "name", "netns", "kind", "mac", "mtu", "up", "peer_index", "alias", "group"):
            assert getattr(link, field) == getattr(now, field), field
        assert link.num_queues == now.num_queues
        assert link.operstate in ("unknown", now.operstate)
        assert link.peer_netnsid in (None, now.peer_netnsid)
        assert link.ipv6 == now.ipv6
        assert set(link.addresses) == {one for one in now.addresses if not one.is_link_local}


@pytest.mark.needs_kernel("6.2")  # before, the new links have to be looked up
def test_no_socket_is_opened_where_nothing_is_to_be_done(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[None] = []
    configure = RtnlSocket._configure

    def noted(self: RtnlSocket, groups: Any) -> None:
        opened.append(None)
        configure(self, groups)

    monkeypatch.setattr(RtnlSocket, "_configure", noted)
    session.create(Veth(End("a", up=False), End("b", "blue", up=False)), read=False)
    assert opened == []
    session.create(Veth(End("c", up=False), End("d", "blue", up=False)))
    assert len(opened) == 1


def test_pairs_that_are_not_read_are_taken_back_together(session: Session, blue: str) -> None:
    before = host_state()
    veths = [Veth(End(f"a{n}", up=False), End(f"b{n}", "blue", up=False)) for n in range(3)]
    with pytest.raises(NetlinkError):
        session.create_many([*veths, Veth(End("x"), End("lo", "blue"))], read=False)
    assert host_state() == before


def test_whether_to_read_is_a_bool(session: Session) -> None:
    with pytest.raises(InvalidValue) as caught:
        session.create(Veth(End("a"), End("b")), read="no")  # type: ignore[arg-type]
    assert caught.value.field == "read"
