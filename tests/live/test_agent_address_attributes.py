"""Addresses with attributes, as an agent keeps them: planned, put right on drift, taken back, others' left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.address_texts import often, once
from tests.live.applying import applied, interface, planned
from tests.live.configuring import configured, put, settle, until, without_detection
from tests.live.sysctls import sysctl
from tests.witness import ip, seen
from vethlib import Session
from vethlib.agent import ADDRESS_PROTO, ChangeLink, Interface, inverse, read_value
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe
from vethlib.agent.planning.plausibility import pair_warnings
from vethlib.agent.planning.words import drift
from vethlib.agent.reconcile.configurator import Configurator

pytestmark = pytest.mark.needs_kernel("5.18")  # which marks whose an address is

CONFIGURED = [
    "10.0.0.1/24 brd + label a:x",
    "10.1.0.1 peer 10.1.0.2/32",
    "10.2.0.1/16 scope link noprefixroute",
    "2001:db8::1/64 nodad noprefixroute",
    "2001:db8:1::1 peer 2001:db8:1::2/128 nodad",
]
PLAIN = ["10.0.0.1/24", "10.2.0.1/16", "2001:db8::1/64"]
KEYS = ("local", "address", "prefixlen", "broadcast", "label", "scope", "nodad", "noprefixroute")


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


def ends(*addresses: str) -> list[Interface]:
    return [interface("a", "b", "blue", ip_addresses=list(addresses)), interface("b", "a", "blue")]


def there() -> list[dict[str, Any]]:
    """The addresses of the link as `ip` has them, but the one that the kernel makes of the MAC."""
    found = [one for one in seen("a", "blue")["addr_info"] if not one["local"].startswith("fe80")]
    return [{key: one[key] for key in KEYS if key in one} for one in found]


def locals_of(found: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {one["local"]: one[key] for one in found if key in one}


def test_a_pair_is_created_with_them_and_needs_nothing_more(session: Session, blue: str) -> None:
    applied(session, *ends(*CONFIGURED))
    found = there()
    assert locals_of(found, "broadcast") == {"10.0.0.1": "10.0.0.255"}
    assert locals_of(found, "address") == {"10.1.0.1": "10.1.0.2", "2001:db8:1::1": "2001:db8:1::2"}
    assert locals_of(found, "label")["10.0.0.1"] == "a:x"
    assert locals_of(found, "scope")["10.2.0.1"] == "link"
    assert set(locals_of(found, "noprefixroute")) == {"10.2.0.1", "2001:db8::1"}
    given = [one for one in session.lookup("a", "blue").ifaddrs if not one.by_kernel]
    assert {one.proto for one in given} == {ADDRESS_PROTO}


def test_they_come_change_and_go_in_place(session: Session, blue: str) -> None:
    applied(session, *ends(*PLAIN))
    plain, index = there(), seen("a", "blue")["ifindex"]
    applied(session, *ends(*CONFIGURED))
    assert locals_of(there(), "label")["10.0.0.1"] == "a:x"
    applied(session, *ends("10.0.0.1/24 brd 10.0.0.9 label a:y", *PLAIN[1:]))
    found = there()
    assert locals_of(found, "broadcast") == {"10.0.0.1": "10.0.0.9"}
    assert locals_of(found, "label")["10.0.0.1"] == "a:y"
    applied(session, *ends(*PLAIN))
    assert there() == plain
    assert seen("a", "blue")["ifindex"] == index


def test_a_plain_address_with_attributes_of_others_is_left_alone(session: Session, blue: str) -> None:
    applied(session, *ends())
    ip("address", "add", "10.0.0.1/24", "brd", "+", "label", "a:x", "dev", "a", netns="blue")
    before = there()
    applied(session, *ends("10.0.0.1/24"))
    assert there() == before


def test_one_of_others_that_differs_makes_way_and_all_others_stay(session: Session, blue: str) -> None:
    applied(session, *ends())
    ip("address", "add", "10.0.0.1/24", "dev", "a", netns="blue")
    ip("address", "add", "10.9.0.1", "peer", "10.9.0.2/32", "label", "a:z", "dev", "a", netns="blue")
    applied(session, *ends(*CONFIGURED))
    assert locals_of(there(), "label")["10.0.0.1"] == "a:x"
    applied(session, *ends())
    assert [(one["local"], one["address"], one["label"]) for one in there()] == [("10.9.0.1", "10.9.0.2", "a:z")]


def test_what_differs_is_in_the_plan_with_its_attributes(session: Session, blue: str) -> None:
    applied(session, *ends("10.0.0.1/24"))
    (change,) = planned(session, *ends("10.0.0.1/24 brd +")).operations
    assert isinstance(change, ChangeLink)
    assert len(change.replaced) == 1
    assert drift(change).startswith("address 10.0.0.1/24 brd 10.0.0.255 ")
    (entry,) = change.as_dicts()
    assert entry["changes"] == {"addresses": {"added": ["10.0.0.1/24 brd 10.0.0.255"], "removed": ["10.0.0.1/24"]}}


@pytest.mark.parametrize(
    "meddle",
    [
        lambda: ip("address", "del", "10.1.0.1", "peer", "10.1.0.2/32", "dev", "a", netns="blue"),
        lambda: _again("10.0.0.1/24", "10.0.0.1/24 label a:x"),
        lambda: _again("10.2.0.1/16", "10.2.0.1/16 scope link"),
        lambda: _again("2001:db8::1/64", "2001:db8::1/64 nodad"),
    ],
)
def test_drift_is_put_right(session: Session, blue: str, meddle: Callable[[], object]) -> None:
    with Configurator(session) as configurator:
        put(configurator, *ends(*CONFIGURED))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        before = there()
        meddle()
        assert there() != before
        until(configurator, lambda: _sorted(there()) == _sorted(before))
        settle(configurator)
        assert there() == before


def _again(old: str, new: str) -> None:
    ip("address", "del", old, "dev", "a", netns="blue")
    ip("address", "add", *new.split(), "dev", "a", netns="blue")


def _sorted(found: list[dict[str, Any]]) -> list[str]:
    return sorted(map(str, found))


@pytest.mark.parametrize("name", ["c", "fifteen_bytes_x"])
def test_a_link_is_renamed_and_its_addresses_are_as_configured(session: Session, blue: str, name: str) -> None:
    def named(name: str, *addresses: str) -> list[Interface]:
        given = {"ip_addresses": list(addresses)}
        return [interface("a", "b", "blue", host_if_name=name, **given), interface("b", "a", "blue")]

    plain = ["10.0.0.1/24", "10.0.0.2/24", "10.0.1.1/24", "10.0.1.2/24", "2001:db8::1/64", "2001:db8::2/64"]
    applied(session, *named("a", *plain))
    applied(session, *named(name, *plain))
    applied(session, *named("d", *plain[::-1]))
    applied(session, *named("e", "10.0.0.1/24 label a:x", *plain[2:]))
    applied(session, *named("a", "10.0.0.1/24 label a:x brd +", "10.0.0.2/24 brd -", *plain[2:4]))
    assert locals_of(there(), "label")["10.0.0.1"] == "a:x"


LABELLED = [
    ["10.0.0.1/8 label x", "10.1.0.2/31"],
    ["10.0.0.1/24 label x", "10.0.0.2/24 label y", "10.0.0.3/24"],
    ["10.0.0.1/24", "10.0.0.2/24 label x:1", "10.0.0.3/24 label a:1"],
    ["10.0.0.1/24", "10.0.1.1/24 label e", "2001:db8::1/64 nodad", "2001:db8::2/64 nodad"],
]


@pytest.mark.parametrize("before", [[], ["10.0.0.3/24", "10.0.0.1/24"], "wanted"])
@pytest.mark.parametrize("wanted", LABELLED)
def test_labels_and_order_are_as_configured_on_a_link_that_is_renamed(
    session: Session, blue: str, before: Any, wanted: list[str]
) -> None:
    def named(name: str, addresses: list[str]) -> list[Interface]:
        a = interface("a", "b", "blue", host_if_name=name, ip_addresses=addresses)
        return [a, interface("b", "a", "blue")]

    applied(session, *named("e", wanted if before == "wanted" else before))
    applied(session, *named("a", wanted))
    labels = locals_of(there(), "label")
    assert {text.split("/")[0]: text.split()[-1] for text in wanted if "label" in text}.items() <= labels.items()
    assert [one["local"] for one in there()] == [text.split("/")[0] for text in wanted]


def test_an_agent_is_calm_with_them_and_takes_them_when_they_are_not_configured(session: Session, blue: str) -> None:
    with Configurator(session) as configurator:
        put(configurator, *ends(*CONFIGURED))
        until(configurator, configured(configurator, "a", "b"))
        settle(configurator)
        put(configurator, *ends("10.0.0.1/24"))
        until(configurator, lambda: [one.get("broadcast") for one in there()] == [None])
        settle(configurator)
        assert locals_of(there(), "label")["10.0.0.1"] == "a"


@pytest.mark.parametrize("label", ["eth0", "a:x", "other:2", "b"])
def test_a_label_that_is_not_configured_any_more_is_taken_back(session: Session, blue: str, label: str) -> None:
    texts = [f"10.0.0.1/24 label {label}", f"10.0.0.2/24 label {label}"]
    applied(session, *ends(*texts))
    assert locals_of(there(), "label") == dict.fromkeys(("10.0.0.1", "10.0.0.2"), label)
    applied(session, *ends("10.0.0.1/24"))
    assert locals_of(there(), "label") == {"10.0.0.1": "a"}


def test_addresses_that_take_the_place_of_another_in_their_subnet_are_in_order(session: Session, blue: str) -> None:
    applied(session, *ends("10.0.0.2/24 label a:y"))
    applied(session, *ends("10.0.0.1/24 brd + label a:x", "10.1.0.1 peer 10.1.0.2/32"))
    assert [one["local"] for one in there()] == ["10.0.0.1", "10.1.0.1"]


def test_a_configured_address_that_was_secondary_to_one_with_other_attributes_stays(
    session: Session, blue: str
) -> None:
    applied(session, *ends())
    session.set("a", "blue", addresses=["10.0.0.2/24 brd +", "10.0.0.1/24 brd + label a:x"])
    applied(session, *ends("10.0.0.1/24 brd + label a:x", "10.0.0.2/24 label a:y"))
    assert [one["local"] for one in there()] == ["10.0.0.1", "10.0.0.2"]


def test_a_deleted_pair_is_brought_back_with_them(session: Session, blue: str) -> None:
    applied(session, *ends(*CONFIGURED))
    before, first = there(), _look(session)
    done = execute(session, planned(session, prune=True)).done
    after = _look(session)
    assert execute(session, inverse(done, first, after, after).plan).errors == []
    assert there() == before


def test_a_trial_that_is_undone_leaves_temporary_ones_to_the_kernel(session: Session, blue: str) -> None:
    applied(session, *ends("fd00::1/64"))
    sysctl(blue, "ipv6/conf/a/use_tempaddr", "2")
    ip("address", "add", "2001:db8:7::7/64", "dev", "a", "mngtmpaddr", netns=blue)
    first = _look(session)
    done = execute(session, planned(session, *ends("fd00::2/64"))).done
    after = _look(session)
    assert execute(session, inverse(done, first, after, after).plan).errors == []
    assert [one["local"] for one in there() if one["local"] in ("2001:db8:7::7", "fd00::1")] == [
        "2001:db8:7::7",
        "fd00::1",
    ]
    made = [one for one in seen("a", blue)["addr_info"] if one.get("dynamic")]
    assert [one.get("temporary") for one in made] == [True]


def _look(session: Session) -> Any:
    return observe(session, ["blue"])


TEXTS = [*CONFIGURED, *PLAIN, "10.0.0.2/24 label a:y", "10.0.0.2/24 brd +", "10.0.0.2/24", "10.3.0.1 peer 10.3.0.2/24"]


def test_what_is_undone_is_as_it_was(session: Session, blue: str) -> None:
    some = st.lists(st.sampled_from(TEXTS), max_size=5).map(once)

    @often
    @given(some, some, st.lists(st.sampled_from(TEXTS), max_size=2).map(once))
    def holds(had: list[str], wanted: list[str], others: list[str]) -> None:
        applied(session, *ends())
        session.set("a", "blue", addresses=others)
        applied(session, *ends(*had))
        before, first = there(), _look(session)
        done = execute(session, planned(session, *ends(*wanted))).done
        assert planned(session, *ends(*wanted)).operations == ()
        after = _look(session)
        undo = inverse(done, first, after, after)
        assert undo.left == ()
        execution = execute(session, undo.plan)
        assert execution.errors == []
        assert there() == before

    holds()


def test_the_peer_addresses_of_both_ends_are_no_mistake(session: Session, blue: str) -> None:
    a = interface("a", "b", "blue", ip_addresses=["10.0.0.1 peer 10.0.0.2/32"])
    b = interface("b", "a", "blue", ip_addresses=["10.0.0.2 peer 10.0.0.1/32"])
    assert list(pair_warnings(a, b)) == []
    applied(session, a, b)


def _problems(text: str) -> list[tuple[str, object]]:
    value = {"name": "a", "veth": {"peer_if_name": "b"}, "ip_addresses": ["10.9.0.1/24", text]}
    return [(problem.field, problem.value) for problem in read_value(value).problems]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/24 valid_lft 600",
        "2001:db8::1/64 preferred_lft 0",
        "10.0.0.1/24 dev a",
        "10.9.0.1/24 brd +",
        "10.0.0.1 brd +",
    ],
)
def test_lifetimes_and_unknown_words_are_invalid_with_their_field(text: str) -> None:
    assert _problems(text) == [("ip_addresses[1]", text)]
