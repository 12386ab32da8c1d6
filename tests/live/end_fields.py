"""Rarely used fields of ends: values to be given, and how the kernel reports them."""

from __future__ import annotations

from typing import Any

from tests.live.offloads import offloads
from tests.live.sysctls import sysctl
from tests.witness import seen

GIVEN: dict[str, Any] = {
    "txqlen": 500,
    "gso_max_size": 8192,
    "altnames": ("uplink", "wan-of-the-second-router"),
    "sysctls": {"rp_filter": "2", "ipv6.accept_ra": 0},
    "offload": False,
}


def fields(name: str, netns: str = "") -> dict[str, Any]:
    """Return the fields of a link as the kernel has them, in the form of `GIVEN`."""
    link = seen(name, netns)
    settings = {"rp_filter": "ipv4/conf/{}/rp_filter", "ipv6.accept_ra": "ipv6/conf/{}/accept_ra"}
    return {
        "txqlen": link.get("txqlen", 0),
        "gso_max_size": link["gso_max_size"],
        "altnames": tuple(sorted(link.get("altnames", ()))),
        "sysctls": {setting: sysctl(netns, path.format(name)) for setting, path in settings.items()},
        "offload": any(offloads(name, netns).values()),
    }


WANTED = GIVEN | {"sysctls": {"rp_filter": "2", "ipv6.accept_ra": "0"}}
