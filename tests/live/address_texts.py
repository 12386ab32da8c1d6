"""Addresses as other programs give them to a link, and as ``ip`` shows them; and texts of many kinds of addresses."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

from tests.witness import ip, seen

__all__ = ["OTHERS", "TEXTS", "by_hand", "is_kernels", "lasting", "often", "there"]

TEXTS = [
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.0.3/24",
    "10.1.0.1/16",
    "10.1.0.2/16",
    "10.0.0.1/32",
    "169.254.1.1/16",
    "fd00::1/64",
    "fd00::2/64",
    "fd00::1/128",
    "fe80::1/64",
    "fe80::2/64",
    "fe80::2/128",
]
OTHERS = [
    "10.0.0.1 peer 10.0.0.2/32",
    "10.0.0.1 peer 10.0.0.9/24",
    "10.0.0.4/24 valid_lft 900 preferred_lft 0",
    "10.0.0.5/24 scope link",
    "10.1.0.3/16 label va:x metric 7",
    "fd00::2 peer fd00::3/64 nodad",
    "fd00::5/64 noprefixroute nodad valid_lft 900 preferred_lft 800",
    "fe80::3/64 nodad",
]

often = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def there(name: str = "va", netns: str = "") -> list[str]:
    """Return every address as ``ip`` writes it, in the kernel's order, except the one generated from the MAC."""
    return [_text(one) for one in seen(name, netns)["addr_info"] if not is_kernels(one)]


def _text(one: dict[str, Any]) -> str:
    far = f" peer {one['address']}" if "address" in one else ""
    return f"{one['local']}{far}/{one['prefixlen']}"


def is_kernels(one: dict[str, Any]) -> bool:
    """Return whether an address was generated from a MAC: those of these tests are short."""
    return bool(one["local"].startswith("fe80:") and len(one["local"]) > len("fe80::77") and one["prefixlen"] == 64)


def by_hand(*texts: str, name: str = "va") -> None:
    for text in texts:
        ip("address", "add", *text.split(), "dev", name)


def lasting() -> list[dict[str, Any]]:
    """Return the addresses without their age and the progress of IPv6."""
    found = [one for one in seen("va")["addr_info"] if not is_kernels(one)]
    for one in found:
        one.pop("tentative", None)
        for key in ("valid_life_time", "preferred_life_time"):
            one[key] = one[key] == 2**32 - 1
    return found


def once(chosen: list[str]) -> list[str]:
    """These texts without those of an address that an earlier one has."""
    first: dict[str, str] = {}
    for one in chosen:
        first.setdefault(one.replace("/", " ").split()[0], one)
    return list(first.values())
