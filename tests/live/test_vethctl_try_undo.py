"""apply --try: the undo of a trial restores pairs, their settings, addresses and routes as they were."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import Write, value
from tests.live.sysctls import sysctl
from tests.live.trials import ends, other_ends
from tests.witness import host_state, ip, seen, settled_routes
from vethlib import NetlinkError
from vethlib.agent.host.observation import observe
from vethlib.agent.planning.observed import Observed, SeenNetns

pytestmark = pytest.mark.slow


def without_indexes(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    volatile = ("ifindex", "link_index", "link_netnsid")
    return {
        netns: [{key: one for key, one in link.items() if key not in volatile} for link in links]
        for netns, links in state.items()
    }


# --- pairs


def test_a_pair_that_was_deleted_comes_back_as_it_was_but_for_its_indexes(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends(num_queues=2, enabled=False)))
    before = host_state()
    said = vethctl("apply", write(), "--prune", "--try", "50ms")
    assert (said.code, said.out.splitlines()[-1].partition(":")[0]) == (4, "undone")
    after = host_state()
    assert without_indexes(after) == without_indexes(before)
    assert after != before


def test_a_pair_that_has_to_be_rebuilt_can_be_tried(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends(num_queues=2)))
    before = host_state()
    assert vethctl("apply", write(*ends(num_queues=3, mtu=1500)), "--try", "50ms").code == 4
    assert without_indexes(host_state()) == without_indexes(before)
    assert vethctl("diff", write(*ends(num_queues=2))).code == 0


PLACES = {"home": ("", ""), "a tenant": ("ns1", "ns2"), "both": ("", "ns2")}


@pytest.mark.parametrize("tried", PLACES)
@pytest.mark.parametrize("former", PLACES)
def test_a_pair_that_is_tried_elsewhere_goes_back_to_where_it_was(
    vethctl: Vethctl, write: Write, former: str, tried: str
) -> None:
    def pair(netns: tuple[str, str]) -> str:
        return write(value("one", "two", netns[0]), value("two", "one", netns[1]))

    vethctl("apply", pair(PLACES[former]))
    before = host_state()
    assert vethctl("apply", pair(PLACES[tried]), "--try", "50ms").code == (0 if tried == former else 4)
    assert without_indexes(host_state()) == without_indexes(before)


def test_alternative_names_of_a_deleted_pair_come_back_with_it(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("link", "property", "add", "dev", "one", "altname", "long", netns="ns1")
    assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
    assert seen("one", "ns1")["altnames"] == ["long"]


@pytest.mark.parametrize("netns", ["", "ns1"])
def test_routes_of_a_deleted_pair_come_back_with_it(vethctl: Vethctl, write: Write, netns: str) -> None:
    fields = {"ip_addresses": ["10.0.0.1/24"], "routes": [{"dst": "10.9.0.0/24"}]}
    vethctl("apply", write(value("one", "two", netns, **fields), value("two", "one", netns)))
    ours = ("route", "show", "proto", "118")
    before = settled_routes(*ours, netns=netns)
    assert [route["dst"] for route in before] == ["10.9.0.0/24"]
    assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
    assert settled_routes(*ours, netns=netns) == before


@pytest.mark.parametrize("failures", [1, 2])
def test_a_look_that_fails_for_a_moment_does_not_keep_a_trial_from_being_undone(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    before = host_state()
    looks = 0

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        if 1 < looks <= 1 + failures:  # the first is the look after the execution
            raise NetlinkError("cannot list the links", errno=errno.ENOBUFS)
        return observe(*args, **more)

    monkeypatch.setattr("vethlib.cli.applying.trial.observe", failing)
    assert vethctl("apply", write(*ends()), "--try", "50ms").code == 4
    assert looks == 2 + failures
    assert host_state() == before


@pytest.mark.parametrize("failures", [1, 99])
@pytest.mark.parametrize("what", ["a namespace", "a pair", "a link"])
def test_what_is_tried_where_nothing_can_be_observed_any_more_is_an_error(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, what: str, failures: int
) -> None:
    if what != "a namespace":
        vethctl("netns", "add", "ns1", "ns2")
    if what == "a link":
        vethctl("apply", write(*ends()))
    looks = 0

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        seen = observe(*args, **more)
        if not 1 < looks <= 1 + failures:
            return seen
        netns = {ref: SeenNetns(ref, None, "no descriptor is left", unknown=True) for ref in seen.netns if ref}
        return Observed({**seen.netns, **netns}, [each for each in seen.links if each.place == seen.home])

    before = host_state()
    monkeypatch.setattr("vethlib.cli.applying.trial.observe", failing)
    said = vethctl("apply", write(*ends(mtu=1300)), "--try", "50ms")
    assert said.code == (4 if failures == 1 else 2)
    assert ("no descriptor is left" in said.err) == (failures == 99)
    assert (host_state() == before) == (failures == 1)


# --- IPv6 and addresses


@pytest.mark.parametrize("before", [True, False])
def test_ipv6_that_was_tried_on_or_off_comes_back(vethctl: Vethctl, write: Write, before: bool) -> None:
    given = {"ip_addresses": ["10.0.0.1/24"]}
    vethctl("apply", write(value("one", "two", "ns1", ipv6=before, **given), value("two", "one")))
    if before:
        ip("address", "add", "fd00::9/64", "dev", "one", "nodad", netns="ns1")
    state = host_state()
    tried = write(value("one", "two", "ns1", ipv6=not before, **given), value("two", "one"))
    done = vethctl("apply", tried, "--try", "50ms")
    assert done.code == 4
    assert f"ipv6 {'on' if before else 'off'} → {'off' if before else 'on'}" in done.out
    assert host_state() == state
    assert vethctl("show", "one@ns1", "--json").json[0]["ipv6"] == before


def test_an_ipv4_address_with_a_label_switches_no_ipv6_on(vethctl: Vethctl, write: Write) -> None:
    pair = write(value("one", "two", "ns1"), value("two", "one"))
    vethctl("apply", pair)
    sysctl("ns1", "ipv6/conf/one/disable_ipv6", "1")
    labelled = write(value("one", "two", "ns1", ip_addresses=["10.0.0.1/24 label one:x"]), value("two", "one"))
    assert vethctl("apply", labelled, "--try", "50ms").code == 4


def test_label_lifetimes_and_order_of_addresses_come_back(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("address", "add", "10.9.0.1/24", "dev", "one", "label", "one:x", "broadcast", "+", netns="ns1")
    ip("address", "add", "10.0.0.9/24", "dev", "one", "metric", "77", netns="ns1")
    before = host_state()
    assert vethctl("apply", write(*other_ends()), "--try", "50ms").code == 4
    assert host_state() == before


ATTRIBUTES = ["10.0.0.1/24 brd + label one:x", "10.1.0.1 peer 10.1.0.2/32", "2001:db8::1/64 nodad noprefixroute"]


@pytest.mark.parametrize("tried", [["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.1/24 label one:y"], None])
def test_addresses_come_back_with_their_attributes(vethctl: Vethctl, write: Write, tried: list[str] | None) -> None:
    def with_addresses(*given: str) -> tuple[dict[str, Any], ...]:
        return value("one", "two", "ns1", ip_addresses=list(given)), value("two", "one", ipv6=False)

    vethctl("apply", write(*with_addresses(*ATTRIBUTES)))
    before = seen("one", "ns1")["addr_info"]
    desired = () if tried is None else with_addresses(*tried)
    assert vethctl("apply", write(*desired), "--prune", "--try", "50ms").code == 4
    now = seen("one", "ns1")["addr_info"]
    assert [one for one in now if one["scope"] != "link"] == [one for one in before if one["scope"] != "link"]
    assert {one["label"] for one in now if one["family"] == "inet"} == {"one:x", "one"}
