"""Drift of owned links is repaired, and permitted changes by others are left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.live.applying import LABEL, interface
from tests.live.configuring import (
    SOON,
    best_of,
    configured,
    is_state,
    pair,
    put,
    quickly,
    settle,
    state_of,
    until,
    without_detection,
)
from tests.live.sysctls import sysctl
from tests.reasons import in_codes
from tests.slack import slack
from tests.witness import addresses, ip, names, nothing_changes, rename, seen, settled
from vethlib import InvalidValue, Session
from vethlib.agent import ADDRESS_PROTO, State, group_of
from vethlib.agent.config.model import IPv6Policy
from vethlib.agent.reconcile.configurator import Configurator

MAC = "d2:74:8c:12:67:d2"


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


@pytest.fixture
def kept(configurator: Configurator, blue: str) -> Configurator:
    """With the pair a (in blue) and b (at home), of which a has everything configured."""
    put(
        configurator,
        interface("a", "b", "blue", phys_address=MAC, mtu=1400, ip_addresses=["10.0.0.1/24", "2001:db8::1/64"]),
        interface("b", "a", ip_addresses=["10.0.0.2/24"]),
    )
    until(configurator, configured(configurator, "a", "b"), 20)
    settle(configurator)
    return configurator


def right() -> bool:
    """Whether the pair is as `kept` wants it, as the kernel says."""
    if "a" not in names("blue") or "b" not in names():
        return False
    a, b = seen("a", "blue"), seen("b")
    return (
        (a["address"], a["mtu"], b["mtu"]) == (MAC, 1400, 1500)
        and all("UP" in link["flags"] for link in (a, b))
        and set(addresses("a", "blue")) == {"10.0.0.1/24", "2001:db8::1/64"}
        and "10.0.0.2/24" in addresses("b")
        and (a["link_index"], b["link_index"]) == (b["ifindex"], a["ifindex"])
        and a["ifalias"] == f"vethlib label={LABEL} name=a mac"
    )


DRIFTS = {
    "deleted": ("link", "del", "dev", "a"),
    "renamed": (),  # see below
    "set down": ("link", "set", "dev", "a", "down"),
    "mtu": ("link", "set", "dev", "a", "mtu", "1300"),
    "mtu too small for IPv6": ("link", "set", "dev", "a", "mtu", "1000"),
    "mac": ("link", "set", "dev", "a", "address", "02:00:00:00:00:01"),
    "address removed": ("address", "del", "10.0.0.1/24", "dev", "a"),
    "IPv6 address removed": ("address", "del", "2001:db8::1/64", "dev", "a"),
    "all addresses removed": ("address", "flush", "dev", "a"),
    "moved": ("link", "set", "dev", "a", "netns", "red"),
    "moved home": ("link", "set", "dev", "a", "netns", "{home}"),
    "moved and renamed": ("link", "set", "dev", "a", "netns", "red", "name", "other"),
}
IN_PLACE = DRIFTS.keys() - {"deleted", "moved", "moved home", "moved and renamed"}


@pytest.mark.parametrize("drift", DRIFTS)
def test_it_is_put_right(kept: Configurator, red: str, spawn: Callable[[str], int], drift: str) -> None:
    index = seen("a", "blue")["ifindex"]
    if drift == "renamed":
        rename("a", "other", "blue")
    else:
        quickly(" ".join(str(spawn("")) if word == "{home}" else word for word in DRIFTS[drift]), netns="blue")
    until(kept, right)
    settle(kept)
    until(kept, configured(kept, "a", "b"), 15.0)
    assert right()
    assert names("blue") == {"a"}
    assert names() == {"b"}
    assert names("red") == set()
    assert (seen("a", "blue")["ifindex"] == index) == (drift in IN_PLACE)
    status = kept.status("a")[0]
    assert status.link is not None
    assert status.link.index == seen("a", "blue")["ifindex"]


@pytest.mark.timing
def test_it_is_put_right_within_50_ms(kept: Configurator) -> None:
    def once() -> float:
        ip("link", "set", "dev", "b", "down")
        index = seen("b")["ifindex"]
        began = time.monotonic()
        settle(kept)
        took = time.monotonic() - began
        assert "UP" in seen("b")["flags"]
        assert seen("b")["ifindex"] == index
        return took

    assert best_of(3, once) < SOON + slack()


def test_an_end_that_moves_into_a_watched_namespace_is_found_there(
    configurator: Configurator, blue: str, red: str
) -> None:
    put(configurator, *pair("a", "b", "blue"), *pair("x", "y", "red"))
    settle(configurator)
    ip("link", "set", "dev", "a", "netns", "red", netns="blue")
    until(configurator, lambda: names("blue") == {"a"} and names("red") == {"x"})
    settle(configurator)
    assert configured(configurator, "a", "b", "x", "y")()
    assert names() == {"b", "y"}


def test_both_ends_moved_to_where_nothing_is_wanted_are_found_by_the_next_resync(
    configurator: Configurator, blue: str, red: str
) -> None:
    configurator.resync(pair("a", "b", "blue"))
    settle(configurator)
    ip("link", "set", "dev", "b", "netns", "red", "name", "other")
    ip("link", "set", "dev", "a", "netns", "red", netns="blue")
    until(configurator, lambda: names("blue") == {"a"} and names() == {"b"})
    settle(configurator)
    assert configured(configurator, "a", "b")()
    index = seen("b")["ifindex"]
    configurator.resync()
    settle(configurator)
    assert names("red") == set()
    assert seen("b")["ifindex"] == index


def test_whoever_writes_another_alias_has_taken_the_pair_over(kept: Configurator) -> None:
    """Then the pair is foreign, and its names are held by it."""
    ip("link", "set", "dev", "b", "alias", "mine now")
    with nothing_changes():
        until(kept, is_state(kept, State.FAILED, "b"))
        settle(kept)
    assert state_of(kept, "b") == "FAILED: link-foreign(b)"
    with nothing_changes():
        kept.delete("a")
        kept.delete("b")
        settle(kept)
        kept.resync([])
        settle(kept)


def test_a_pair_taken_over_and_given_back_is_kept_again(kept: Configurator) -> None:
    index = seen("b")["ifindex"]
    ip("link", "set", "dev", "b", "alias", "mine now")
    until(kept, is_state(kept, State.FAILED, "b"))
    ip("link", "set", "dev", "b", "alias", f"vethlib label={LABEL} name=b")
    until(kept, configured(kept, "a", "b"))
    assert seen("b")["ifindex"] == index
    ip("link", "set", "dev", "b", "down")
    until(kept, lambda: "UP" in seen("b")["flags"])


def test_addresses_of_others_and_their_changes_are_left_alone(kept: Configurator) -> None:
    ip("address", "add", "10.9.9.9/24", "dev", "a", netns="blue")
    ip("address", "add", "2001:db8:9::9/64", "dev", "a", netns="blue")
    before = set(addresses("a", "blue"))
    settle(kept)
    ip("address", "del", "10.0.0.1/24", "dev", "a", netns="blue")
    until(kept, lambda: "10.0.0.1/24" in addresses("a", "blue"))
    settle(kept)
    assert set(addresses("a", "blue")) == before
    kept.put(interface("a", "b", "blue", phys_address=MAC, mtu=1400, ip_addresses=["10.0.0.3/24"]))
    settle(kept)
    assert set(addresses("a", "blue")) == {"10.0.0.3/24", "10.9.9.9/24", "2001:db8:9::9/64"}


def give_as_agent(name: str, netns: str, address: str) -> None:
    """An address with the mark of an agent, which not every ``ip`` can write."""
    with Session() as other:
        other.set(name, netns, add_addresses=[address], address_proto=ADDRESS_PROTO)


@pytest.mark.needs_kernel("5.18")
def test_an_address_that_bears_our_mark_and_is_not_wanted_goes(kept: Configurator) -> None:
    give_as_agent("a", "blue", "10.9.9.9/24")
    assert "10.9.9.9/24" in addresses("a", "blue")
    until(kept, lambda: "10.9.9.9/24" not in addresses("a", "blue"))
    assert right()


MANY = ["10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16", "10.2.0.1/16", "fd00::1/64", "fd00::2/64"]


@pytest.fixture
def many(configurator: Configurator, blue: str) -> Configurator:
    """With the pair a (in blue) and b (at home), of which a has several addresses."""
    with_addresses(configurator, *MANY)
    return configurator


def with_addresses(configurator: Configurator, *texts: str) -> None:
    put(configurator, interface("a", "b", "blue", ip_addresses=list(texts)), interface("b", "a"))
    settle(configurator)
    until(configurator, lambda: set(shown()) == set(texts))


def shown() -> list[str]:
    """The addresses of a as ``ip`` lists them, IPv4 in the order of primaries; but for the kernel's own."""
    return [
        f"{one['local']}{' peer ' + one['address'] if 'address' in one else ''}/{one['prefixlen']}"
        for one in seen("a", "blue")["addr_info"]
        if not one["local"].startswith("fe80:") or len(one["local"]) < 12
    ]


LISTED = ["10.0.0.1/24", "10.1.0.1/16", "10.2.0.1/16", "10.0.0.2/24", "fd00::1/64", "fd00::2/64"]


def test_addresses_are_in_the_order_of_the_configuration_whatever_happens_to_them(many: Configurator) -> None:
    assert shown() == LISTED
    for text in ("10.0.0.1/24", "10.1.0.1/16", "fd00::2/64"):
        quickly(f"address del {text} dev a", f"address add {text} dev a", netns="blue")
        assert shown() != LISTED
        until(many, lambda: shown() == LISTED)
        settle(many)
        until(many, configured(many, "a", "b"), 15.0)
    with_addresses(many, *reversed(MANY))
    assert shown() == ["10.2.0.1/16", "10.1.0.1/16", "10.0.0.2/24", "10.0.0.1/24", "fd00::2/64", "fd00::1/64"]
    # Those that were given by hand stay, since it is not known whose they are.
    between = ["10.0.0.1/24", "10.3.0.1/16", "10.1.0.1/16", "fd00::3/64", "fd00::2/64"]
    with_addresses(many, *between)
    assert shown() == between


@pytest.mark.parametrize("text", ["169.254.1.1/16", "fe80::1/64"])
def test_link_local_addresses_that_were_configured_are_no_others_than_any(many: Configurator, text: str) -> None:
    own, longer = text.partition("/")[0], "/128" if ":" in text else "/32"
    index = seen("a", "blue")["ifindex"]
    for texts in ([text], [own + longer], [text, "10.0.0.1/24"], []):
        with_addresses(many, *texts)
        until(many, configured(many, "a", "b"), 15.0)
    assert seen("a", "blue")["ifindex"] == index
    ip("address", "add", text, "dev", "a", netns="blue")
    settle(many)
    assert shown() == [text]


def test_an_address_with_a_peer_is_not_the_configured_one(many: Configurator) -> None:
    quickly("address del fd00::1/64 dev a", "address add fd00::1 peer fd00::9/64 dev a nodad", netns="blue")
    until(many, lambda: shown() == LISTED)
    quickly("address flush dev a", "address add 10.0.0.1 peer 10.0.0.9/24 dev a", netns="blue")
    until(many, lambda: shown() == LISTED)
    ip("address", "add", "10.0.0.1", "peer", "10.7.0.1/32", "dev", "a", netns="blue")
    settle(many)
    assert "10.0.0.1 peer 10.7.0.1/32" in shown()
    until(many, configured(many, "a", "b"), 15.0)


def test_link_only_leaves_addresses_alone(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue", link_only=True, mtu=1400))
    settle(configurator)
    ip("address", "add", "10.0.0.1/24", "dev", "a", netns="blue")
    give_as_agent("a", "blue", "10.0.0.2/24")
    settle(configurator)
    assert addresses("a", "blue") == ["10.0.0.1/24", "10.0.0.2/24"]
    ip("link", "set", "dev", "a", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("a", "blue")["mtu"] == 1400)
    ip("address", "del", "10.0.0.2/24", "dev", "a", netns="blue")
    settle(configurator)
    assert addresses("a", "blue") == ["10.0.0.1/24"]


# --- a fight


def strike(configurator: Configurator) -> None:
    ip("link", "set", "dev", "b", "mtu", "1300")
    settle(configurator)


HELD = 4.0 if (os.cpu_count() or 1) > 1 else 20.0  # seconds; the only CPU may be that of a slow guest


@pytest.fixture
def holding(kept: Configurator, monkeypatch: pytest.MonkeyPatch) -> Configurator:
    """It holds a fight for so long that a busy machine gets to look at it in the meantime."""
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", HELD / 8)  # three times doubled
    return kept


def test_after_four_repairs_in_a_row_a_fight_is_held_and_said(holding: Configurator) -> None:
    for _ in range(4):
        strike(holding)
        assert seen("b")["mtu"] == 1500
        assert state_of(holding, "b") == "CONFIGURED"
    before = time.time()
    strike(holding)
    assert seen("b")["mtu"] == 1300
    status = holding.status("b")[0]
    assert in_codes(status) == "RETRYING: changed-repeatedly(mtu)"
    assert status.attempt == 4
    assert 0 < status.due - before < 1.3 * HELD  # since the last repair, give or take a quarter
    due = holding.due()
    assert due is not None
    assert abs(time.time() + due - status.due) < 1
    assert state_of(holding, "a") == "CONFIGURED"
    strike(holding)  # which is no occasion for another repair
    assert seen("b")["mtu"] == 1300
    left = status.due - time.time()
    assert until(holding, configured(holding, "b")) > left - 0.1
    assert seen("b")["mtu"] == 1500


def test_each_round_of_a_fight_waits_longer(kept: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", 0.2)
    monkeypatch.setattr("vethlib.agent.attempts.JITTER", 0.0)
    for _ in range(4):
        strike(kept)
    waits = []
    for _ in range(2):
        strike(kept)
        waits.append(kept.due() or 0.0)
        assert seen("b")["mtu"] == 1300
        until(kept, configured(kept, "b"), 30.0)
    assert waits[1] > waits[0] * 1.1


def test_a_put_ends_the_hold_at_once(holding: Configurator) -> None:
    for _ in range(5):
        strike(holding)
    assert holding.status("b")[0].state is State.RETRYING
    holding.put(interface("b", "a", ip_addresses=["10.0.0.2/24"]))
    settle(holding)
    assert configured(holding, "b")()
    assert right()
    assert holding.due() is None


def test_a_fight_over_one_pair_holds_no_other(holding: Configurator, red: str) -> None:
    put(holding, *pair("x", "y", "red"))
    settle(holding)
    for _ in range(5):
        strike(holding)
    assert holding.status("b")[0].state is State.RETRYING
    ip("link", "set", "dev", "y", "down")
    ip("link", "set", "dev", "a", "down", netns="blue")
    settle(holding)
    assert "UP" in seen("y")["flags"]
    assert "UP" in seen("a", "blue")["flags"]


def test_a_fight_over_the_very_existence_of_a_pair_is_held_for_both_ends(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.attempts.FIRST_DELAY", 0.3)
    put(configurator, *pair("a", "b"))
    settle(configurator)
    for _ in range(12):  # five, unless the machine is so busy that a pause has ended in the meantime
        ip("link", "del", "dev", "a")
        settle(configurator)
        if state_of(configurator, "a") != "CONFIGURED":
            break
    for name in "ab":
        assert state_of(configurator, name) == "RETRYING: changed-repeatedly"
        assert configurator.status(name)[0].link is None
    assert names() == set()
    until(configurator, configured(configurator, "a", "b"))
    assert names() == {"a", "b"}


def test_an_interface_whose_fight_is_held_can_be_deleted_at_once(holding: Configurator) -> None:
    for _ in range(5):
        strike(holding)
    holding.delete("b")
    settle(holding)
    assert names() == names("blue") == set()
    assert holding.status("b") == []
    assert holding.due() is None


def test_a_held_end_does_not_cost_its_pair_the_link_while_it_is_held(holding: Configurator, red: str) -> None:
    """Deleting what is to be replaced, and not creating what replaces it, would leave nothing."""
    for _ in range(5):
        strike(holding)
    ip("link", "set", "dev", "a", "netns", "red", netns="blue")
    settle(holding)
    assert "b" in names() or configured(holding, "a", "b")()
    until(holding, configured(holding, "a", "b"))
    assert right()


# --- many at once


def test_two_hundred_pairs_deleted_at_once_are_back_together(configurator: Configurator, blue: str) -> None:
    began = time.process_time()
    for number in range(200):
        put(configurator, *pair(f"a{number}", f"b{number}", "blue"))
    settle(configurator)
    together = time.process_time() - began
    before = {link["ifname"]: settled(link) for link in ip("address")}
    assert len(names("blue")) == 200
    ip("link", "del", "group", str(group_of(LABEL)))
    assert names("blue") == set()
    began = time.process_time()
    until(configurator, lambda: len(names()) == 200, 30)
    settle(configurator)
    # One at a time, with a look at all for each, would take many times as much.
    assert time.process_time() - began < 4 * together
    assert names("blue") == {f"a{number}" for number in range(200)}
    assert names() == before.keys() - {"lo"}
    assert all(status.state is State.CONFIGURED for status in configurator.status())


def test_changes_of_many_links_are_put_right_together(configurator: Configurator, blue: str) -> None:
    for number in range(50):
        put(configurator, *pair(f"a{number}", f"b{number}", "blue"))
    settle(configurator)
    quickly(*[f"link set dev a{number} mtu 1300" for number in range(50)], netns="blue")
    until(configurator, lambda: all(link["mtu"] != 1300 for link in ip("link", netns="blue")))
    settle(configurator)
    assert all(status.state is State.CONFIGURED for status in configurator.status())


def ipv6_is_off(name: str) -> bool:
    return sysctl("", f"ipv6/conf/{name}/disable_ipv6") == "1"


def test_ipv6_is_off_where_it_is_configured_off_and_stays_off(configurator: Configurator, blue: str) -> None:
    put(configurator, interface("a", "b", "blue"), interface("b", "a", ipv6=False, ip_addresses=["10.0.0.2/24"]))
    until(configurator, configured(configurator, "a", "b"))
    assert ipv6_is_off("b")
    assert sysctl("blue", "ipv6/conf/a/disable_ipv6") == "0"
    settle(configurator)
    index = seen("b")["ifindex"]
    # The kernel sends no event, except for the link-local address.
    sysctl("", "ipv6/conf/b/disable_ipv6", "0")
    until(configurator, lambda: ipv6_is_off("b"))
    assert seen("b")["ifindex"] == index
    put(configurator, interface("b", "a", ipv6=True, ip_addresses=["10.0.0.2/24", "fd00::2/64"]))
    until(configurator, lambda: not ipv6_is_off("b") and "fd00::2/64" in addresses("b"))
    put(configurator, interface("b", "a", ipv6=False, mtu=1000))
    until(configurator, configured(configurator, "a", "b"))
    put(configurator, interface("b", "a", ipv6=False, mtu=1500))
    until(configurator, configured(configurator, "a", "b"))
    until(configurator, lambda: seen("b")["mtu"] == 1500 and ipv6_is_off("b"))


@pytest.mark.parametrize(("policy", "off"), [("on", ""), ("auto", "b"), ("off", "ab")])
def test_the_policy_decides_where_ipv6_is_off(session: Session, blue: str, policy: IPv6Policy, off: str) -> None:
    with Configurator(session, ipv6=policy) as configurator:
        put(configurator, interface("a", "b", "blue"), interface("b", "a"))
        put(configurator, interface("c", "d", "blue", ip_addresses=["fd00::1/64"]), interface("d", "c", link_only=True))
        put(configurator, interface("e", "f", "blue", ipv6=True), interface("f", "e", ip_addresses=["fd00::2/64"]))
        until(configurator, configured(configurator, *"abcdef"))
        found = [name for name in "ace" if sysctl("blue", f"ipv6/conf/{name}/disable_ipv6") == "1"]
        found += [name for name in "bdf" if ipv6_is_off(name)]
        assert "".join(found) == off


def test_links_that_exist_get_the_policy_in_place(session: Session, blue: str) -> None:
    ends = interface("a", "b", "blue"), interface("b", "a")
    for policy, off in (("on", False), ("auto", True), ("on", True)):
        with Configurator(session, ipv6=policy) as configurator:  # type: ignore[arg-type]
            put(configurator, *ends)
            until(configurator, configured(configurator, "a", "b"))
            assert ipv6_is_off("b") == off


def test_a_policy_is_ignored_where_the_settings_cannot_be_written(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.configurator.can_switch_ipv6", lambda: False)
    with Configurator(session, ipv6="auto") as configurator:
        assert configurator.ipv6 == "on"
    with pytest.raises(InvalidValue) as refused:
        Configurator(session, ipv6="none")  # type: ignore[arg-type]
    assert refused.value.field == "ipv6"
