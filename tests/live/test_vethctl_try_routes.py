"""apply --try keeps what other programs and other interfaces have on a link: it still exists after the undo."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import Write, value
from tests.witness import ip, seen, settled_routes
from vethlib import NetlinkError, Route, Session
from vethlib.agent.host.inturn import RoutesInTurn

pytestmark = pytest.mark.slow


@pytest.fixture
def write(write: Write) -> Write:
    def write_pairs(**ends: dict[str, Any]) -> str:
        """Write pairs whose first ends have these names and fields; the other end of `p` is `pp`."""
        pairs = [(value(name, 2 * name, **fields), value(2 * name, name)) for name, fields in ends.items()]
        return write(*(interface for pair in pairs for interface in pair))

    return write_pairs


def link_settings(name: str) -> dict[str, Any]:
    link = seen(name)
    return {field: link.get(field) for field in ("txqlen", "gso_max_size", "gso_ipv4_max_size", "mtu", "altnames")}


@pytest.mark.parametrize("how", ["deleted", "rebuilt"])
@pytest.mark.parametrize(
    "given",
    [["txqueuelen", "77"], ["gso_max_size", "20000"]],
    ids=" ".join,
)
def test_what_others_have_set_on_a_pair_is_set_again_when_its_deletion_is_undone(
    vethctl: Vethctl, write: Write, given: list[str], how: str
) -> None:
    assert vethctl("apply", write(p={})).code == 0
    for name in ("p", "pp"):
        ip("link", "set", "dev", name, *given)
    before = link_settings("p"), link_settings("pp")
    path = write(p={"num_queues": 3}) if how == "rebuilt" else write()
    undone = vethctl("apply", path, "--prune", "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert (link_settings("p"), link_settings("pp")) == before


@pytest.mark.parametrize("field", [{"offload": False}, {"routes": [Route("10.9.0.0/24")]}], ids=" ".join)
def test_what_a_session_has_set_on_a_pair_is_set_again_when_its_deletion_is_undone(
    vethctl: Vethctl, write: Write, field: dict[str, Any]
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": ["10.0.0.1/24"]})).code == 0
    with Session() as session:
        session.set("p", **field)
        before = session.fields("p")
        assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
        assert session.fields("p") == before
        assert before[next(iter(field))] in field.values() or before["routes"] == tuple(field["routes"])


IPV4: dict[str, Any] = {
    "a": "10.0.1.1/24",
    "b": "10.0.2.1/24",
    "to": "0.0.0.0/0",
    "via": "10.0.{}.9",
    "src": "10.9.9.9",
}
IPV6: dict[str, Any] = {
    "a": "2001:db8:1::1/64 nodad",
    "b": "2001:db8:2::1/64 nodad",
    "to": "2001:db8:99::/64",
    "via": "2001:db8:{}::9",
    "src": "2001:db8:9::9",
}
families = pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])


def with_route(family: dict[str, Any], *having: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Fields of the interfaces a and b, of which those `having` it have a route to the same destination."""
    ends: dict[str, dict[str, Any]] = {}
    for number, name in enumerate("ab", 1):
        ends[name] = {"ip_addresses": [family[name]]}
        if name in having:
            ends[name]["routes"] = [{"dst": family["to"], "via": family["via"].format(number), **more}]
    return ends


def ours() -> list[tuple[str, str, str | None, str | None]]:
    """Routes of vethlib: destination, link, gateway and source."""
    found = [
        route for version in ("-4", "-6") for route in ip(version, "route", "show", "proto", "118", "table", "all")
    ]
    return sorted((each["dst"], each["dev"], each.get("gateway"), each.get("prefsrc")) for each in found)


@families
@pytest.mark.parametrize("table", [{}, {"table": 77}], ids=["main", "another table"])
@pytest.mark.parametrize(("before", "after"), [("a", "b"), ("b", "a")])
def test_a_route_moves_to_another_interface_and_the_undo_of_a_trial_moves_it_back(
    vethctl: Vethctl, write: Write, family: dict[str, Any], before: str, after: str, table: dict[str, int]
) -> None:
    assert vethctl("apply", write(**with_route(family, before, **table))).code == 0
    had = ours()
    moved = write(**with_route(family, after, **table))
    undone = vethctl("apply", moved, "--try", "50ms", "--json")
    assert (undone.code, undone.json["code"], undone.json["left"]) == (4, "not-confirmed", [])
    assert ours() == had
    assert vethctl("apply", moved).code == 0
    assert [link for _, link, _, _ in ours()] == [after]
    assert vethctl("diff", moved).code == 0


@families
def test_two_interfaces_swap_their_routes_and_the_undo_of_a_trial_swaps_them_back(
    vethctl: Vethctl, write: Write, family: dict[str, Any]
) -> None:
    def swapped(a: int, b: int) -> str:
        ends = with_route(family, "a", "b")
        ends["a"]["routes"][0]["metric"], ends["b"]["routes"][0]["metric"] = a, b
        return write(**ends)

    assert vethctl("apply", swapped(5, 6)).code == 0
    had = ours()
    assert vethctl("apply", swapped(6, 5), "--try", "50ms").code == 4
    assert ours() == had
    assert vethctl("apply", swapped(6, 5)).code == 0
    assert vethctl("diff", swapped(6, 5)).code == 0


@families
@pytest.mark.parametrize(("before", "after"), [("a", "b"), ("b", "a")])
def test_a_route_moves_to_a_pair_that_is_created_and_back_when_that_is_undone(
    vethctl: Vethctl, write: Write, family: dict[str, Any], before: str, after: str
) -> None:
    first, second = with_route(family, before), with_route(family, after)
    assert vethctl("apply", write(**{before: first[before]})).code == 0
    had = ours()
    assert vethctl("apply", write(**second), "--try", "50ms").code == 4
    assert ours() == had
    only = write(**{after: second[after]})
    assert vethctl("apply", only, "--prune", "--try", "50ms").code == 4
    assert ours() == had
    assert vethctl("apply", write(**second)).code == 0
    assert [link for _, link, _, _ in ours()] == [after]


def with_source(family: dict[str, Any], route: str, source: str, *pairs: str) -> dict[str, dict[str, Any]]:
    """Fields of interfaces: one with a route whose source is an address of another."""
    ends = with_route(family, route, src=family["src"])
    if source:
        length = "64 nodad" if ":" in family["src"] else "24"
        ends[source]["ip_addresses"].append(f"{family['src']}/{length}")
    return {name: fields for name, fields in ends.items() if name in (pairs or "ab")}


crossings = pytest.mark.parametrize(("route", "source"), [("a", "b"), ("b", "a")])


@families
@crossings
def test_a_route_whose_source_another_interface_gets_is_added_in_one_go(
    vethctl: Vethctl, write: Write, family: dict[str, Any], route: str, source: str
) -> None:
    path = write(**with_source(family, route, source))
    assert vethctl("apply", path).code == 0  # both pairs are created
    (expected,) = ours()
    assert (expected[1], expected[3]) == (route, family["src"])
    assert vethctl("apply", write(**with_route(family))).code == 0
    assert ours() == []
    assert vethctl("apply", write(**with_source(family, route, source)), "--try", "50ms").code == 4
    assert ours() == []
    assert vethctl("apply", write(**with_source(family, route, source))).code == 0  # both are changed
    assert ours() == [expected]
    assert vethctl("apply", write(**{route: with_route(family)[route]}), "--prune").code == 0
    assert vethctl("apply", write(**with_source(family, route, source))).code == 0  # one is created, the other changed
    assert ours() == [expected]
    assert vethctl("diff", write(**with_source(family, route, source))).code == 0


@families
@crossings
@pytest.mark.parametrize("how", ["without both", "without the pair of the source", "without the pair of the route"])
def test_the_undo_of_a_trial_restores_a_route_whose_source_is_an_address_of_another_interface(
    vethctl: Vethctl, write: Write, family: dict[str, Any], route: str, source: str, how: str
) -> None:
    assert vethctl("apply", write(**with_source(family, route, source))).code == 0
    before = ours()
    plain = with_route(family)
    tried = {
        "without both": plain,
        "without the pair of the source": {route: plain[route]},
        "without the pair of the route": {source: plain[source]},
    }[how]
    undone = vethctl("apply", write(**tried), "--prune", "--try", "50ms", "--json")
    assert (undone.code, undone.json["code"], undone.json["left"]) == (4, "not-confirmed", [])
    assert ours() == before
    assert vethctl("diff", write(**with_source(family, route, source))).code == 0


@families
@crossings
def test_a_route_whose_source_is_an_address_of_the_peer_is_created_with_the_pair(
    vethctl: Vethctl, tmp_path: Path, family: dict[str, Any], route: str, source: str
) -> None:
    ends = with_source(family, route, source)
    path = tmp_path / "interfaces.json"
    path.write_text(json.dumps([value("a", "b", **ends["a"]), value("b", "a", **ends["b"])]))
    assert vethctl("apply", str(path)).code == 0
    assert [(link, address) for _, link, _, address in ours()] == [(route, family["src"])]


@crossings
def test_a_route_waits_until_its_source_on_another_interface_has_been_checked_for_duplicates(
    vethctl: Vethctl, write: Write, route: str, source: str
) -> None:
    def checked() -> str:
        ends = with_source(IPV6, route, source)
        for fields in ends.values():
            fields["ip_addresses"] = [address.removesuffix(" nodad") for address in fields["ip_addresses"]]
        return write(**ends)

    assert vethctl("apply", checked()).code == 0
    before = ours()
    assert [(link, address) for _, link, _, address in before] == [(route, IPV6["src"])]
    assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
    assert ours() == before


@families
def test_a_route_to_a_network_whose_address_leaves_another_interface_replaces_that_of_the_kernel(
    vethctl: Vethctl, write: Write, family: dict[str, Any]
) -> None:
    network = {"10.9.9.9": "10.9.9.0/24", "2001:db8:9::9": "2001:db8:9::/64"}[family["src"]]
    metric = {"metric": 256} if ":" in network else {}
    had = with_source(family, "", "b")
    wanted = with_route(family)
    wanted["a"]["routes"] = [{"dst": network, **metric}]
    assert vethctl("apply", write(**had)).code == 0
    assert vethctl("apply", write(**wanted), "--try", "50ms").code == 4
    assert vethctl("diff", write(**had)).code == 0
    assert vethctl("apply", write(**wanted)).code == 0
    assert vethctl("diff", write(**wanted)).code == 0


ADDRESSES = ["10.9.9.9/24", "10.8.8.8/24", "2001:db8:9::9/64 nodad", "2001:db8:8::8/64 nodad"]
REORDERED = [ADDRESSES[1], ADDRESSES[0], ADDRESSES[3], ADDRESSES[2]]
OTHER_FORM = ["10.9.9.9/24 brd +", *ADDRESSES[1:]]
OTHER_LENGTH = ["10.9.9.9/25", ADDRESSES[1], "2001:db8:9::9/72 nodad", ADDRESSES[3]]


def foreign_routes() -> list[str]:
    """Add routes from addresses of the link "p" over a link of another program, and return those that it has."""
    ip("link", "add", "name", "d0", "up", "type", "bridge")
    for address in ("192.168.7.1/24", "2001:db8:7::1/64"):
        ip("address", "add", address, "dev", "d0", *(["nodad"] if ":" in address else []))
    ip("route", "add", "10.60.0.0/24", "via", "192.168.7.2", "src", "10.9.9.9")
    ip("route", "add", "10.61.0.0/24", "dev", "d0", "src", "10.9.9.9", "proto", "186")
    ip("-6", "route", "add", "2001:db8:60::/64", "via", "2001:db8:7::2", "src", "2001:db8:9::9")
    return routes_over("d0")


def routes_over(name: str) -> list[str]:
    found = [route for version in ("-4", "-6") for route in settled_routes(version, "route", "show", "dev", name)]
    return sorted(str({key: route.get(key) for key in ("dst", "gateway", "prefsrc", "protocol")}) for route in found)


@pytest.mark.parametrize(
    "addresses", [REORDERED, OTHER_FORM, OTHER_LENGTH, ["10.9.9.9/24 brd +", *REORDERED[:1], *REORDERED[2:]]]
)
def test_routes_of_other_programs_from_an_address_that_stays_survive_a_change_and_its_undo(
    vethctl: Vethctl, write: Write, addresses: list[str]
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": ADDRESSES})).code == 0
    before = foreign_routes()
    changed = write(p={"ip_addresses": addresses})
    undone = vethctl("apply", changed, "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert routes_over("d0") == before
    assert vethctl("apply", changed).code == 0
    assert routes_over("d0") == before


TAKING: dict[str, dict[str, dict[str, Any]]] = {
    "an address": {"p": {"ip_addresses": ADDRESSES[1:]}},
    "an IPv6 address": {"p": {"ip_addresses": [*ADDRESSES[:2], ADDRESSES[3]]}},
    "all addresses": {"p": {}},
    "IPv6": {"p": {"ip_addresses": ADDRESSES[:2], "ipv6": False}},
    "the pair": {},
    "the pair for a moment": {"p": {"ip_addresses": ADDRESSES, "num_queues": 3}},
    "an address that is checked for duplicates again": {
        "p": {"ip_addresses": [*ADDRESSES[:2], "2001:db8:9::9/64", ADDRESSES[3]]}
    },
}


@pytest.mark.parametrize("taking", TAKING)
def test_a_trial_that_takes_the_source_of_routes_of_other_programs_is_refused(
    vethctl: Vethctl, write: Write, taking: str
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": ADDRESSES})).code == 0
    before = foreign_routes()
    refused = vethctl("apply", write(**TAKING[taking]), "--prune", "--try", "10s", "--json")
    assert (refused.code, refused.errors[-1]["code"]) == (2, "irreversible")
    assert routes_over("d0") == before
    assert vethctl("apply", write(p={"ip_addresses": ADDRESSES}), "--try", "50ms").code == 0
    other = write(p={"ip_addresses": [*ADDRESSES, "10.9.9.10/24"], "mtu": 1400})
    assert vethctl("apply", other, "--try", "50ms").code == 4
    assert routes_over("d0") == before


@families
@crossings
@pytest.mark.parametrize("how", ["rebuilt", "reordered", "in another form"])
def test_a_route_is_there_when_the_pair_of_its_source_was_changed_or_rebuilt(
    vethctl: Vethctl, write: Write, family: dict[str, Any], route: str, source: str, how: str
) -> None:
    first = with_source(family, route, source)
    assert vethctl("apply", write(**first)).code == 0
    before = ours()
    changed = with_source(family, route, source)
    addresses = changed[source]["ip_addresses"]
    if how == "rebuilt":
        changed[source]["num_queues"] = 3
    elif how == "reordered":
        addresses.reverse()
    else:
        addresses[1] = f"{addresses[1]} noprefixroute"
    undone = vethctl("apply", write(**changed), "--try", "50ms", "--json")
    assert (undone.code, undone.json["code"], undone.json["left"]) == (4, "not-confirmed", [])
    assert ours() == before
    assert vethctl("apply", write(**changed)).code == 0
    assert ours() == before
    assert vethctl("diff", write(**changed)).code == 0


@families
def test_a_route_whose_source_is_taken_for_good_is_not_reported_as_configured(
    vethctl: Vethctl, write: Write, family: dict[str, Any]
) -> None:
    assert vethctl("apply", write(**with_source(family, "a", "b"))).code == 0
    before = ours()
    without = write(**with_source(family, "a", ""))
    refused = vethctl("apply", without, "--try", "10s", "--json")
    assert (refused.code, refused.errors[-1]["code"]) == (2, "irreversible")
    assert ours() == before
    assert vethctl("apply", without).code == 2


def stray() -> tuple[list[str], list[str]]:
    """The routes and permanent neighbours of another program on the link "p"."""
    found = ip("neighbour", "show", "dev", "p", "nud", "permanent")
    neighbours = [each["dst"] for each in found if not each["lladdr"].startswith(("33:33", "01:00:5e"))]
    return [route for route in routes_over("p") if "10.50." in route], sorted(neighbours)


def add_strays(*kinds: str) -> tuple[list[str], list[str]]:
    if "route" in kinds:
        ip("route", "add", "10.50.0.0/24", "dev", "p")
        ip("route", "add", "10.50.1.0/24", "dev", "p", "proto", "186", "metric", "5")
    if "neighbour" in kinds:
        ip("neighbour", "add", "10.77.0.1", "lladdr", "02:00:00:00:77:01", "nud", "permanent", "dev", "p")
    ip("neighbour", "add", "2001:db8::7", "lladdr", "02:00:00:00:77:02", "nud", "permanent", "dev", "p")
    return stray()


@pytest.mark.parametrize(
    ("before", "tried", "kinds"),
    [
        ([], ["10.0.0.1/24"], ["route", "neighbour"]),
        ([], ["10.0.0.1/24 brd +", "10.0.1.1/24"], ["route", "neighbour"]),
        (["10.0.0.1/24"], ["10.0.0.2/24"], ["neighbour"]),
        (["10.0.0.1/24"], ["10.0.0.1/25"], ["neighbour"]),
        (["10.0.0.1/24"], ["10.0.0.1/24 brd +"], ["neighbour"]),
        (["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.1/24"], []),
    ],
)
def test_what_others_have_on_a_link_survives_the_trial_of_its_first_or_another_address(
    vethctl: Vethctl, write: Write, before: list[str], tried: list[str], kinds: list[str]
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": before})).code == 0
    had = add_strays(*kinds)
    undone = vethctl("apply", write(p={"ip_addresses": tried}), "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert stray() == had


def test_a_trial_that_takes_the_last_ipv4_address_is_refused_for_an_ipv4_neighbour_only(
    vethctl: Vethctl, write: Write
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": ["10.0.0.1/24"]})).code == 0
    had = add_strays()
    assert vethctl("apply", write(p={}), "--try", "50ms").code == 4
    assert stray() == had
    had = add_strays("neighbour") if not ip("neighbour", "del", "2001:db8::7", "dev", "p") else had
    refused = vethctl("apply", write(p={}), "--try", "10s", "--json")
    assert (refused.code, refused.errors[-1]["code"]) == (2, "irreversible")
    assert stray() == had


def test_another_form_of_the_only_address_costs_no_route_and_no_neighbour_of_other_programs(
    vethctl: Vethctl, write: Write
) -> None:
    assert vethctl("apply", write(p={"ip_addresses": ["10.0.0.1/24"], "routes": [{"dst": "10.51.0.0/24"}]})).code == 0
    had = add_strays("route", "neighbour")
    changed = write(p={"ip_addresses": ["10.0.0.1/24 brd +"], "routes": [{"dst": "10.51.0.0/24"}]})
    assert vethctl("apply", changed).code == 0
    assert stray() == had
    assert vethctl("diff", changed).code == 0


@families
@pytest.mark.parametrize("step", ["change_last", "take_first"])
def test_a_trial_that_ends_between_the_steps_of_its_routes_is_undone(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, family: dict[str, Any], step: str
) -> None:
    assert vethctl("apply", write(**with_source(family, "a", "b"))).code == 0
    before = ours()
    do = getattr(RoutesInTurn, step)
    ends = iter([True])

    def ending(self: RoutesInTurn, **how: Any) -> None:
        if next(ends, False):
            if step == "take_first":
                do(self, **how)
            raise NetlinkError("it ends here", errno=errno.ENOMEM)
        do(self, **how)

    monkeypatch.setattr(RoutesInTurn, step, ending)
    assert vethctl("apply", write(**with_source(family, "b", "a")), "--try", "10s").code == 2
    assert ours() == before
    assert vethctl("diff", write(**with_source(family, "a", "b"))).code == 0
