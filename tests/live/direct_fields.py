"""The fields of an end that no message sets, read independently of vethlib."""

from __future__ import annotations

from typing import Any, Final

from tests.live.offloads import offloads
from tests.live.sysctls import sysctl

DIRECT: Final[dict[str, dict[str, Any]]] = {
    "ipv6": {"ipv6": False},
    "sysctls": {"sysctls": {"rp_filter": "2", "ipv6.hop_limit": "7"}},
    "offload": {"offload": False},
}
"""For each field, a value that a new link does not have."""


def direct_fields(name: str, netns: str) -> dict[str, Any]:
    """Return the values of a link that `DIRECT` would change."""
    return {
        "ipv6": sysctl(netns, f"ipv6/conf/{name}/disable_ipv6"),
        "sysctls": [sysctl(netns, f"ipv4/conf/{name}/rp_filter"), sysctl(netns, f"ipv6/conf/{name}/hop_limit")],
        "offload": offloads(name, netns),
    }
