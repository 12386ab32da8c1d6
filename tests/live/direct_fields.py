"""The fields of an end that no message sets, as others see them."""

from __future__ import annotations

from typing import Any, Final

from tests.live.offloads import offloads
from tests.live.sysctls import sysctl

DIRECT: Final[dict[str, dict[str, Any]]] = {
    "ipv6": {"ipv6": False},
    "sysctls": {"sysctls": {"rp_filter": "2", "ipv6.hop_limit": "7"}},
    "offload": {"offload": False},
}
"""A value of each that a new link has not."""


def direct_fields(name: str, netns: str) -> dict[str, Any]:
    """Return what `DIRECT` would change of a link."""
    return {
        "ipv6": sysctl(netns, f"ipv6/conf/{name}/disable_ipv6"),
        "sysctls": [sysctl(netns, f"ipv4/conf/{name}/rp_filter"), sysctl(netns, f"ipv6/conf/{name}/hop_limit")],
        "offload": offloads(name, netns),
    }
