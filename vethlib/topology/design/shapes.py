"""Ready-made descriptions of common topologies."""

from __future__ import annotations

from itertools import combinations, pairwise, product

from vethlib.errors import InvalidValue

from .description import Description, Kind, Member, Port, Wire

__all__ = ["fat_tree", "line", "mesh", "ring", "star"]


def line(n: int, *, mtu: int | None = None) -> Description:
    """Return a chain n0 – n1 – … of `n` nodes (2 or more); `mtu` in bytes. Raises InvalidValue."""
    names = _names(n, 2, "line")
    return _described(names, list(pairwise(names)), mtu)


def ring(n: int, *, mtu: int | None = None) -> Description:
    """Return a ring of `n` nodes (3 or more), n0 to n1 … to n0; `mtu` in bytes. Raises InvalidValue."""
    names = _names(n, 3, "ring")
    return _described(names, list(zip(names, [*names[1:], names[0]], strict=True)), mtu)


def mesh(n: int, *, mtu: int | None = None) -> Description:
    """Return `n` nodes (2 or more), each connected to every other; `mtu` in bytes. Raises InvalidValue."""
    names = _names(n, 2, "mesh")
    return _described(names, list(combinations(names, 2)), mtu)


def star(n: int, *, hub: Kind = "switch", mtu: int | None = None) -> Description:
    """Return a star: `n` leaves (1 or more), leaf0, leaf1, …, around a `hub`, which is a switch, router or plain node.

    `mtu` is in bytes. Raises InvalidValue.
    """
    if hub not in ("switch", "router", "node"):
        raise InvalidValue("hub", hub, 'must be "switch", "router" or "node"')
    leaves = [f"leaf{number}" for number in range(_count(n, 1, "must be 1 or more leaves"))]
    return _described(["hub", *leaves], [(leaf, "hub") for leaf in leaves], mtu, {"hub": hub})


def fat_tree(k: int, *, mtu: int | None = None) -> Description:
    """Return a fat tree of routers with `k` ports each (k even, 2 or more).

    It has (k/2)² core routers and k pods, each with k/2 aggregation and k/2 edge routers, and k/2 hosts at each edge
    router. Names are core0 …, agg0_0 … and edge0_0 … (pod, number), and host0_0_0 … (pod, edge, number). `mtu` is in
    bytes. Raises InvalidValue.
    """
    if type(k) is not int or k < 2 or k % 2:
        raise InvalidValue("k", k, "must be an even number of ports, 2 or more")
    half = k // 2
    core = [f"core{number}" for number in range(half * half)]
    routers, hosts, pairs = list(core), [], []
    for pod in range(k):
        agg = [f"agg{pod}_{number}" for number in range(half)]
        edge = [f"edge{pod}_{number}" for number in range(half)]
        routers += agg + edge
        for number, name in enumerate(agg):
            pairs += [(router, name) for router in core[number * half : (number + 1) * half]]
        pairs += list(product(agg, edge))
        for at, name in enumerate(edge):
            here = [f"host{pod}_{at}_{number}" for number in range(half)]
            hosts += here
            pairs += [(name, host) for host in here]
    return _described(routers + hosts, pairs, mtu, dict.fromkeys(routers, "router"))


def _count(n: int, least: int, hint: str) -> int:
    if type(n) is not int or n < least:
        raise InvalidValue("n", n, hint)
    return n


def _names(n: int, least: int, shape: str) -> list[str]:
    return [f"n{number}" for number in range(_count(n, least, f"a {shape} must have {least} nodes or more"))]


def _described(
    names: list[str], pairs: list[tuple[str, str]], mtu: int | None, kinds: dict[str, Kind] | None = None
) -> Description:
    kinds = kinds or {}
    members = tuple(Member(name, kinds.get(name, "node")) for name in names)
    return Description(members, tuple(Wire(Port(a), Port(b), mtu) for a, b in pairs))
