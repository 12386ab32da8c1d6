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
