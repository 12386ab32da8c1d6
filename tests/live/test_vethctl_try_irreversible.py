"""apply --try: a trial that would lose what others have added to a link, and so could not be undone, is refused."""

from __future__ import annotations

import pytest

from tests.commands import Vethctl
from tests.live.applying import Write, value
from tests.live.trials import ends
from tests.witness import host_state, ip, seen

pytestmark = pytest.mark.slow


def test_a_pair_whose_link_has_flags_of_another_program_is_not_rebuilt_on_trial(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("link", "set", "one", "promisc", "on", "multicast", "off", netns="ns1")
    said = vethctl("apply", write(*ends(num_queues=3)), "--try", "10s", "--json")
    assert (said.code, said.out, said.errors[-1]["code"]) == (2, "", "irreversible")
    assert "its setting 'promisc on' and its setting 'multicast off'" in said.errors[-1]["error"]
    flags = seen("one", "ns1")["flags"]
    assert "PROMISC" in flags
    assert "MULTICAST" not in flags
    assert vethctl("apply", write(*ends(mtu=1450)), "--try", "10ms").code == 4  # which costs it none of them
    assert seen("one", "ns1")["flags"] == flags


def test_an_mtu_that_would_cost_a_link_its_ipv6_token_is_refused(vethctl: Vethctl, write: Write) -> None:
    given = [value("one", "two", "ns1"), value("two", "one")]
    vethctl("apply", write(*given))
    ip("token", "set", "::1:2:3:4", "dev", "one", netns="ns1")
    said = vethctl("apply", write(given[0] | {"mtu": 1200}, given[1]), "--try", "10s", "--json")
    assert (said.code, said.out, said.errors[-1]["code"]) == (2, "", "irreversible")
    assert "an MTU below 1280 loses its IPv6 token ::1:2:3:4" in said.errors[-1]["error"]
    assert [each["token"] for each in ip("token", "show", "dev", "one", netns="ns1")] == ["::1:2:3:4"]


BURDENS = {
    "route": ["route", "add", "10.7.0.0/16", "via", "10.0.0.77"],
    "permanent neighbour": ["neighbour", "add", "10.0.0.7", "lladdr", "02:00:00:00:00:07", "dev", "one"],
    "10.0.5.1/24": ["address", "add", "10.0.5.1/24", "dev", "one"],
    "'mv' on top of it": ["link", "add", "link", "one", "name", "mv", "type", "macvlan"],
    "its setting 'arp off'": ["link", "set", "one", "arp", "off"],
    "its setting 'gso_max_segs 100'": ["link", "set", "one", "gso_max_segs", "100"],
    "its IPv6 token ::1:2:3:4": ["token", "set", "::1:2:3:4", "dev", "one"],
    "expires": ["address", "change", "2001:db8::1/64", "dev", "one", "valid_lft", "99", "preferred_lft", "99"],
}


@pytest.mark.parametrize("burden", BURDENS)
def test_a_deletion_that_would_lose_what_others_put_on_a_link_is_refused(
    vethctl: Vethctl, write: Write, burden: str
) -> None:
    vethctl("apply", write(*ends()))
    ip(*BURDENS[burden], netns="ns1")
    before = host_state()
    said = vethctl("apply", write(), "--prune", "--try", "10s", "--json")
    assert (said.code, said.out) == (2, "")
    refusal = said.errors[-1]
    assert refusal["code"] == "irreversible"
    assert ("2001:db8::1/64" if burden == "expires" else burden) in refusal["error"]
    assert host_state() == before
    assert vethctl("apply", write(), "--prune", "--try", "10s", "--dry-run").code == 2


@pytest.mark.parametrize("burden", ["route", "permanent neighbour", "'mv' on top of it", "expires"])
def test_a_change_that_would_lose_what_others_put_on_a_link_is_refused(
    vethctl: Vethctl, write: Write, burden: str
) -> None:
    vethctl("apply", write(*ends()))
    ip(*BURDENS[burden], netns="ns1")
    before = host_state()
    said = vethctl("apply", write(*ends(enabled=False)), "--try", "10s")
    assert (said.code, said.out) == (2, "")
    assert burden in said.err
    assert host_state() == before
    if burden != "'mv' on top of it":  # what a change does not take may stay
        assert vethctl("apply", write(*ends(mtu=1450)), "--try", "10ms").code == 4
        assert host_state() == before
