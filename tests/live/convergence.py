"""Check whether a host matches its configuration, judging only from the JSON of the files and ``ip -j``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.witness import ip, poll
from vethlib import ns

__all__ = ["assert_converges", "differences"]

Value = Mapping[str, Any]
End = tuple[str, str]
"""(namespace, name) of a link."""


def assert_converges(values: Iterable[Value], others: Iterable[End] = (), timeout: float = 60.0) -> None:
    """Check that, within `timeout` seconds, the veths of the host are exactly those of `values` and the `others`."""
    wanted = {value["name"]: value for value in values}
    assert poll(lambda: not differences(wanted, others), timeout), differences(wanted, others)[:8]


def differences(wanted: Mapping[str, Value], others: Iterable[End] = ()) -> list[str]:
    """Describe the differences from the configuration, in which all namespaces have to be named, or home."""
    there = _veths()
    ends = {_end(value): value for value in wanted.values() if _is_mutual(value, wanted)}
    found = [f"{end} is not wanted" for end in there.keys() - ends.keys() - set(others)]
    found += [f"{end} is not there" for end in set(others) - there.keys()]
    for end, value in ends.items():
        if end not in there:
            found.append(f"{end} is not there")
            continue
        found += _wrong(end, value, there[end])
        peer = there.get(_end(wanted[value["veth"]["peer_if_name"]]))
        if peer is None or (peer["ifindex"], peer.get("link_index")) != (
            there[end].get("link_index", peer["ifindex"]),
            there[end]["ifindex"] if "link_index" in peer else None,
        ):
            found.append(f"{end} has another peer")
    return found


def _veths() -> dict[End, dict[str, Any]]:
    found = {}
    for netns in ("", *ns.names()):
        for link in _links(netns):
            if link.get("linkinfo", {}).get("info_kind") == "veth":
                found[netns, link["ifname"]] = link
    return found


def _links(netns: str) -> list[dict[str, Any]]:
    """Return links with their addresses; a special one for a file that is not, or not yet, a namespace."""
    try:
        found: list[dict[str, Any]] = ip("address", netns=netns)
    except RuntimeError:
        return [{"ifname": "no namespace", "linkinfo": {"info_kind": "veth"}}]
    return found


def _end(value: Value) -> End:
    return value.get("namespace", {}).get("name", ""), value.get("host_if_name") or value["name"]


def _is_mutual(value: Value, wanted: Mapping[str, Value]) -> bool:
    peer = wanted.get(value["veth"]["peer_if_name"])
    return peer is not None and peer["veth"]["peer_if_name"] == value["name"]


def _wrong(end: End, value: Value, link: dict[str, Any]) -> list[str]:
    is_up = "UP" in link["flags"]
    found = []
    if link["mtu"] != value.get("mtu", 1500):
        found.append(f"{end} has MTU {link['mtu']}")
    if is_up != value.get("enabled", False):
        found.append(f"{end} is {'up' if is_up else 'down'}")
    if value.get("phys_address", link["address"]) != link["address"]:
        found.append(f"{end} has MAC {link['address']}")
    has = {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one.get("scope") == "global"}
    if has != set(value.get("ip_addresses", ())):
        found.append(f"{end} has addresses {sorted(has)}")
    return found
