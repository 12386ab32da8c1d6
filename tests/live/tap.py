"""Dependants that record their calls, together with the state in the kernel at that moment."""

from __future__ import annotations

from tests.witness import ip
from vethlib import Link, NetnsNotFound

__all__ = ["Refusing", "Tap"]


class Tap:
    """A dependant that asks ``ip`` for its link whenever it is called."""

    def __init__(self, host_if_name: str, netns: str = "") -> None:
        self.host_if_name = host_if_name
        self.netns = netns
        self.calls: list[tuple[str, int, str]] = []

    def attached(self, link: Link) -> None:
        self.calls.append(("attached", link.index, self._now(link)))

    def detached(self, link: Link) -> None:
        self.calls.append(("detached", link.index, self._now(link)))

    def _now(self, link: Link) -> str:
        """Return the state of the link with that ifindex: "name up", "name down", or "gone"."""
        ref = self.netns if not self.netns or ":" in self.netns else f"netns:{self.netns}"
        try:
            links = ip("link", netns=ref)
        except NetnsNotFound:
            return "gone"
        for one in links:
            if one["ifindex"] == link.index:
                return f"{one['ifname']} {'up' if 'UP' in one['flags'] else 'down'}"
        return "gone"

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.calls]


class Refusing(Tap):
    """Cannot be attached until it is willing."""

    willing = False
    asked = 0

    def attached(self, link: Link) -> None:
        self.asked += 1
        if not self.willing:
            raise OSError("not now")
        super().attached(link)
