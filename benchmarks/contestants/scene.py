"""The pairs that every contestant creates, or finds if creating them is not measured."""

from __future__ import annotations

from vethlib import End, Route, Session, Veth

__all__ = ["MTU", "OTHER_MTU", "far_address", "far_mac", "far_routes", "near_address", "near_mac", "pairs", "stand"]

MTU = 1400
OTHER_MTU = 1300


def near_mac(i: int) -> str:
    """Of h{i}."""
    return f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}"


def far_mac(i: int) -> str:
    """Of eth0 in b{i}."""
    return f"02:01:00:00:{i >> 8:02x}:{i & 255:02x}"


def near_address(i: int) -> str:
    """Of h{i}."""
    return f"10.{i >> 8}.{i & 255}.1/30"


def far_address(i: int) -> str:
    """Of eth0 in b{i}."""
    return f"10.{i >> 8}.{i & 255}.2/30"


def far_routes(i: int) -> tuple[Route, Route]:
    """Over eth0 in b{i}."""
    near = f"10.{i >> 8}.{i & 255}.1"
    return Route("default", via=near), Route("172.16.0.0/12", via=near)


def pairs(
    n: int, queues: int, *, configured: bool, shared: bool = False, ipv6: bool | None = None, routes: bool = False
) -> list[Veth]:
    """Return the pair of h{i} and eth0 in b{i}, or p{i} in b0 if `shared`; up and with addresses if `configured`.

    `ipv6` is that of h{i}; with `routes`, eth0 has two.
    """
    count = queues or None
    return [
        Veth(
            End(
                f"h{i}",
                mac=near_mac(i),
                mtu=MTU,
                addresses=(near_address(i),) if configured else (),
                up=configured,
                num_queues=count,
                ipv6=ipv6,
            ),
            End(
                f"p{i}" if shared else "eth0",
                "b0" if shared else f"b{i}",
                mac=far_mac(i),
                mtu=MTU,
                addresses=(far_address(i),) if configured else (),
                up=configured,
                num_queues=count,
                routes=far_routes(i) if routes else (),
            ),
        )
        for i in range(n)
    ]


def stand(n: int, queues: int, *, shared: bool = False) -> None:
    """Create the pairs, down and without addresses."""
    with Session() as session:
        session.create_many(pairs(n, queues, configured=False, shared=shared))
