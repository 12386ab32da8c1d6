"""The addresses of a link are as requested: their identities, owners and order."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.address_texts import OTHERS, TEXTS, by_hand, is_kernels, lasting, often, there
from tests.live.interrupted_exchanges import interrupted_after
from tests.live.sysctls import sysctl
from tests.witness import host_state, ip, seen, settled
from vethlib import End, InvalidValue, NetlinkError, Session, Veth
from vethlib._nl.batch import Exchange, Outcome
from vethlib.session.core.namespaces import Namespaces, OpenNetns


def kernels_own(name: str = "va") -> list[str]:
    return [one["local"] for one in seen(name)["addr_info"] if is_kernels(one)]


@pytest.fixture
def pair(session: Session) -> None:
    session.create(Veth(End("va"), End("vb")))


PEERS = [
    "10.0.0.1 peer 10.0.0.2/32",
    "10.1.0.1 peer 10.2.0.1/24",
    "10.0.0.1 peer 0.0.0.0/32",
    "10.0.0.1 peer 0.0.0.0/8",
    "fd00::1 peer fd00::2/128",
]


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("text", PEERS)
def test_an_address_with_a_peer_is_removed_by_its_own_address_and_prefix(session: Session, text: str) -> None:
    by_hand(text, "10.0.9.1/24")
    own = f"{text.split()[0]}/{text.partition('/')[2]}"
    assert own in {str(one) for one in session.lookup("va").addresses}
    link = session.set("va", remove_addresses=[own])
    assert there() == ["10.0.9.1/24"]
    assert own not in {str(one) for one in link.addresses}


@pytest.mark.usefixtures("pair")
def test_of_an_address_with_and_without_a_peer_the_one_that_is_meant_is_removed(session: Session) -> None:
    by_hand("10.0.0.1 peer 10.0.0.2/32", "10.0.0.1 peer 10.0.0.3/32", "10.0.0.1/32")
    session.set("va", remove_addresses=["10.0.0.1/32"])
    assert there() == ["10.0.0.1 peer 10.0.0.2/32", "10.0.0.1 peer 10.0.0.3/32"]
    (one, _) = [one for one in session.lookup("va").ifaddrs if one.peer is not None]
    session.set("va", remove_addresses=[one])
    assert there() == ["10.0.0.1 peer 10.0.0.3/32"]
    session.set("va", remove_addresses=[one])
    assert there() == ["10.0.0.1 peer 10.0.0.3/32"]


@pytest.mark.usefixtures("pair")
@pytest.mark.needs_kernel("5.18")
def test_an_empty_set_takes_all_but_what_the_kernel_makes_of_the_mac(session: Session) -> None:
    before = kernels_own()
    assert len(before) == 1
    by_hand(*PEERS, "169.254.1.1/16", "fe80::77/64", "fe80::78/128", "10.0.0.9/24", "10.7.0.8/24 scope link")
    session.set("va", addresses=[])
    assert there() == []
    assert kernels_own() == before


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("text", PEERS)
def test_an_address_with_a_peer_does_not_pass_for_the_plain_one(session: Session, text: str) -> None:
    plain = f"{text.split()[0]}/{text.partition('/')[2]}"
    by_hand(text)
    session.set("va", addresses=[plain])
    assert there() == [plain]
    session.set("va", addresses=[])
    by_hand(text)
    session.set("va", add_addresses=[plain], remove_addresses=[plain])
    assert there() == [plain]


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("10.1.0.1 peer 10.1.0.9/24", "10.1.0.1/24"),
        ("fd00::1 peer fd00::2/64", "fd00::1/64"),
        ("fd00::1/64", "fd00::1/128"),
        ("fe80::1/64", "fe80::1/128"),
    ],
)
def test_an_address_in_whose_place_another_stays_is_refused_and_nothing_changes(
    session: Session, given: str, wanted: str
) -> None:
    by_hand(given)
    before = host_state()
    with pytest.raises(NetlinkError) as caught:
        session.set("va", mtu=1400, add_addresses=["10.9.0.1/24", wanted])
    assert caught.value.errno == errno.EEXIST
    assert (host_state(), there()) == (before, [given])


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("text", ["fe80::1", "fd00::1", "169.254.1.1"])
def test_another_prefix_length_takes_the_place_of_the_first(session: Session, text: str) -> None:
    long, short = ("128", "64") if ":" in text else ("32", "16")
    for length in (short, long, short):
        session.set("va", addresses=[f"{text}/{length}"])
        assert there() == [f"{text}/{length}"]
    session.set("va", add_addresses=[f"{text}/{long}"], remove_addresses=[f"{text}/{short}"])
    assert there() == [f"{text}/{long}"]


@pytest.mark.usefixtures("pair")
@pytest.mark.needs_kernel("5.18")
def test_the_kernels_own_address_gives_way_to_one_that_is_wanted_in_its_place(session: Session) -> None:
    (own,) = kernels_own()
    session.set("va", addresses=[f"{own}/64"], address_proto=9)
    assert [one.by_kernel for one in session.lookup("va").ifaddrs] == [True]
    session.set("va", addresses=[f"{own}/128"], address_proto=9)
    assert [(str(one), one.proto) for one in session.lookup("va").ifaddrs] == [(f"{own}/128", 9)]


@pytest.mark.usefixtures("pair")
@pytest.mark.needs_kernel("5.18")
def test_too_small_an_mtu_for_a_link_local_address_that_was_given_is_refused(session: Session) -> None:
    by_hand("fe80::77/64")
    with pytest.raises(InvalidValue) as caught:
        session.set("va", mtu=1000)
    assert caught.value.field == "mtu"
    assert there() == ["fe80::77/64"]
    session.set("va", mtu=1000, addresses=[])
    assert (there(), seen("va")["mtu"]) == ([], 1000)


@pytest.mark.usefixtures("pair")
def test_what_expires_or_is_deprecated_is_made_permanent_in_its_place(session: Session) -> None:
    by_hand(
        "10.0.0.1/24 valid_lft 500 preferred_lft 400",
        "10.0.0.2/24",
        "fd00::1/64 valid_lft 500 preferred_lft 0 nodad",
        "fd00::2/64 preferred_lft 0 nodad",
    )
    before = there()
    link = session.set("va", add_addresses=["10.0.0.1/24", "fd00::1/64", "fd00::2/64"], address_proto=9)
    assert there() == before
    assert {one.state for one in link.ifaddrs if not one.by_kernel} <= {"usable", "tentative"}
    assert all(one.get("valid_life_time") == 2**32 - 1 for one in seen("va")["addr_info"])


@pytest.mark.usefixtures("pair")
@pytest.mark.needs_kernel("5.18")
def test_an_address_that_is_added_and_removed_is_given_anew_in_its_place(session: Session) -> None:
    session.set("va", addresses=["fd00::1/64", "fd00::2/64", "10.0.0.1/24", "10.0.0.2/24"])
    before = there()
    link = session.set(
        "va",
        add_addresses=["fd00::2/64", "10.0.0.1/24"],
        remove_addresses=["fd00::2/64", "10.0.0.1/24"],
        address_order=["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", "fd00::2/64"],
        address_proto=9,
    )
    assert there() == before
    # What has to come before it was given anew as well, as it was.
    assert {str(one) for one in link.ifaddrs if one.proto == 9} == {"fd00::2/64", "10.0.0.1/24"}


def test_the_first_address_of_each_family_is_the_source_whatever_was_there_before(session: Session) -> None:
    wanted = ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", "fd00::2/64"]

    def sources() -> list[str]:
        return [ip("route", "get", target)[0]["prefsrc"] for target in ("10.0.0.99", "fd00::99")]

    sysctl("", "ipv6/conf/default/dad_transmits", "0")
    session.create(Veth(End("va", addresses=wanted), End("vb")), wait=60)
    assert sources() == ["10.0.0.1", "fd00::1"]
    assert there() == wanted
    session.set("va", addresses=list(reversed(wanted)), wait=60)
    assert sources() == ["10.0.0.2", "fd00::2"]
    assert there() == ["10.0.0.2/24", "10.0.0.1/24", "fd00::2/64", "fd00::1/64"]
    session.set("va", address_order=wanted, wait=60)
    assert (sources(), there()) == (["10.0.0.1", "fd00::1"], wanted)


@pytest.mark.usefixtures("pair")
def test_an_order_of_some_leaves_others_and_what_they_are_like_alone(session: Session) -> None:
    by_hand("10.0.0.9/24 label va:x", "fd00::9/64 nodad", "10.0.0.2/24", "10.0.0.1/24", "fd00::1/64", "fd00::2/64")
    session.set("va", address_order=["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "fd00::1/64", "fd00::2/64"])
    assert there() == ["10.0.0.9/24", "10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", "fd00::2/64", "fd00::9/64"]
    assert seen("va")["addr_info"][0]["label"] == "va:x"
    before = settled(seen("va"))
    session.set("va", address_order=["10.0.0.1/24", "10.0.0.2/24"])
    assert settled(seen("va")) == before


@st.composite
def wishes(draw: st.DrawFn) -> list[str]:
    chosen = draw(st.lists(st.sampled_from(TEXTS), max_size=6, unique=True))
    first: dict[str, str] = {}
    for one in chosen:
        first.setdefault(one.split("/")[0] if ":" in one else one, one)
    return list(first.values())


def _history(session: Session, texts: list[str], gone: list[str]) -> None:
    """Addresses given and taken by others, some of which the kernel refuses."""
    session.set("va", addresses=[])
    lines = [f"address add {text} dev va" for text in texts] + [f"address del {text} dev va" for text in gone]
    subprocess.run(["ip", "-force", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True, check=False)


@pytest.mark.needs_kernel("5.18")  # which tells fe80::1 from what it makes of the MAC
@pytest.mark.parametrize("promote", ["0", "1"])
def test_a_set_of_addresses_comes_to_the_same_as_on_a_new_link(session: Session, promote: str) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    session.create(Veth(End("va"), End("vb")))

    @often
    @given(st.lists(st.sampled_from([*TEXTS, *OTHERS]), max_size=8), st.lists(st.sampled_from(TEXTS)), wishes())
    def holds(texts: list[str], gone: list[str], wanted: list[str]) -> None:
        _history(session, texts, gone)
        session.set("va", addresses=wanted)
        session.create(Veth(End("new", addresses=wanted), End("vc")))
        expected = there("new")
        session.delete("new")
        assert there() == expected
        assert sorted(expected) == sorted(wanted)

    holds()


@pytest.mark.needs_kernel("5.18")  # which tells fe80::1 from what it makes of the MAC
@pytest.mark.parametrize("promote", ["0", "1"])
def test_whatever_was_undone_or_given_back_is_as_it_was(session: Session, promote: str) -> None:
    sysctl("", "ipv4/conf/all/promote_secondaries", promote)
    session.create(Veth(End("va"), End("vb")))

    @often
    @given(
        st.lists(st.sampled_from([*TEXTS, *OTHERS]), max_size=8),
        st.lists(st.sampled_from(TEXTS)),
        wishes(),
        st.integers(0, 3),
    )
    def holds(texts: list[str], gone: list[str], wanted: list[str], after: int) -> None:
        _history(session, texts, gone)
        before = lasting()
        saved = session.lookup("va").ifaddrs
        with interrupted_after(after) as interruption:
            session.set("va", addresses=wanted, up=not after)
        assert lasting() == before or not interruption.came
        session.set("va", addresses=wanted, up=True)
        session.restore_addresses("va", addresses=saved)
        assert lasting() == before

    holds()


def test_addresses_are_given_back_to_a_link_that_was_made_again(session: Session) -> None:
    for _ in range(2):
        session.create(Veth(End("va"), End("vb")))
        by_hand(*PEERS, "10.0.0.8/24 label va:x", "10.0.0.7/24")
        before, saved = there(), session.lookup("va").ifaddrs
        session.delete("va")
    session.create(Veth(End("other"), End("vc")))
    session.create(Veth(End("va"), End("vb")))
    session.restore_addresses("va", addresses=saved)
    assert there() == before
    assert there("other") == []


def test_addresses_that_another_program_keeps_removing_end_the_attempt(
    session: Session, pair: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand("10.0.0.1/24")
    run = Namespaces.run

    def meddled(self: Namespaces, place: OpenNetns, exchange: Exchange) -> None:
        run(self, place, exchange)
        if "10.0.0.9/24" in there():
            ip("address", "del", "10.0.0.9/24", "dev", "va")

    monkeypatch.setattr(Namespaces, "run", meddled)
    with pytest.raises(NetlinkError) as caught:
        session.set("va", add_addresses=["10.0.0.9/24"])
    assert (caught.value.errno, caught.value.request) == (errno.EBUSY, "set 'va' address 10.0.0.9/24")
    assert there() == ["10.0.0.1/24"]


def test_addresses_that_another_program_keeps_adding_end_restoring(
    session: Session, pair: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Namespaces.exchange

    def meddled(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        outcomes = exchange(self, place, requests)
        by_hand("10.0.0.9/24")
        return outcomes

    by_hand("10.0.0.9/24")
    with monkeypatch.context() as patch:
        patch.setattr(Namespaces, "exchange", meddled)
        with pytest.raises(NetlinkError) as caught:
            session.restore_addresses("va", addresses=[])
    assert caught.value.errno == errno.EBUSY
    assert "10.0.0.9/24" in caught.value.request
    session.restore_addresses("va", addresses=[])
    assert there() == []


def test_a_text_is_no_list_of_addresses_to_remove(session: Session, pair: None) -> None:
    with pytest.raises(InvalidValue) as caught:
        session.set("va", remove_addresses="10.0.0.1/24")
    assert caught.value.field == "remove_addresses"
