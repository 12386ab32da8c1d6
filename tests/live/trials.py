"""What the tests of apply --try share."""

from __future__ import annotations

from typing import Any

from tests.live.applying import value

__all__ = ["PATIENCE", "ends", "other_ends"]

PATIENCE = 60  # seconds; on a busy machine, a command needs some of them to start


def ends(**fields: Any) -> list[dict[str, Any]]:
    one = value("one", "two", "ns1", mtu=1400, ip_addresses=["10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/64"])
    return [one | fields, value("two", "one", "ns2")]


def other_ends() -> list[dict[str, Any]]:
    return ends(mtu=1300, ip_addresses=["10.0.0.2/24", "10.0.1.1/24"], host_if_name="eth0", enabled=False)
