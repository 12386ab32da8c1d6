"""Settings of /proc/sys/net in a network namespace."""

from __future__ import annotations

from vethlib import ns


def sysctl(netns: str, name: str, value: str | None = None) -> str:
    with ns.entered(netns):
        if value is not None:
            with open(f"/proc/sys/net/{name}", "w") as file:
                file.write(value)
        with open(f"/proc/sys/net/{name}") as file:
            return file.read().strip()


def without_link_local(*netns: str) -> None:
    """Keep new links from getting a link-local address, which the kernel adds at an unpredictable time."""
    for one in netns:
        sysctl(one, "ipv6/conf/default/addr_gen_mode", "1")
