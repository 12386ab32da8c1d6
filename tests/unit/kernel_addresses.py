"""What the kernel does with the addresses of a link: which it refuses or removes with others, and their order.

Written after net/ipv4/devinet.c and net/ipv6/addrconf.c, on numbers and strings, without a line of the code under test.
tests/live compares both with the real kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface

__all__ = ["Held", "KernelAddresses"]

# What ipv6_addr_scope() makes of an address, the wider the greater.
_WIDTH = {0: 14, 200: 5, 253: 2}


@dataclass
class Held:
    """An address of a link; `text` is "10.0.0.1/24" or "10.0.0.1 peer 10.0.0.2/32"."""

    text: str
    proto: int = 0
    scope: int = 0
    permanent: bool = True
    deprecated: bool = False
    secondary: bool = False
    label: str = ""
    dadfailed: bool = False
    local: str = field(init=False)
    length: int = field(init=False)
    far: str = field(init=False)

    def __post_init__(self) -> None:
        own, _, length = self.text.partition("/")
        self.local, _, far = own.partition(" peer ")
        self.far = far or self.local
        self.length = int(length)
        if self.is_ipv6 and self.local.startswith("fe80"):
            self.scope = 253

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.local

    @property
    def plain(self) -> str:
        """Its own address and prefix length."""
        return str(ip_interface(f"{self.local}/{self.length}"))

    def subnet(self) -> tuple[int, str]:
        bits = f"{int(ip_address(self.far)):0{128 if self.is_ipv6 else 32}b}"
        return self.length, bits[: self.length]


@dataclass
class KernelAddresses:
    """The list of one link."""

    promote: bool = False
    four: list[Held] = field(default_factory=list)
    six: list[Held] = field(default_factory=list)

    def __iter__(self) -> Iterator[Held]:
        return iter([*self.four, *self.six])

    def texts(self) -> list[str]:
        return [one.text for one in self]

    def find(self, text: str) -> Held | None:
        return next((one for one in self if one.text == text), None)

    def give(self, new: Held) -> str:
        """RTM_NEWADDR with NLM_F_EXCL; returns the name of the errno, "" for none."""
        return self._give6(new) if new.is_ipv6 else self._give4(new)

    def _give4(self, new: Held) -> str:
        new.secondary = False
        behind = 0
        for number, one in enumerate(self.four):
            if not one.secondary and new.scope <= one.scope:
                behind = number + 1
            if one.subnet() == new.subnet():
                if one.local == new.local:
                    return "EEXIST"
                if one.scope != new.scope:
                    return "EINVAL"
                new.secondary = True
        self.four.insert(len(self.four) if new.secondary else behind, new)
        return ""

    def _give6(self, new: Held) -> str:
        if any(one.local == new.local for one in self.six):
            return "EEXIST"
        at = 0
        while at < len(self.six) and _WIDTH[self.six[at].scope] > _WIDTH[new.scope]:
            at += 1
        self.six.insert(at, new)
        return ""

    def take(self, text: str) -> str:
        """RTM_DELADDR."""
        gone = self.find(text)
        if gone is None:
            return "EADDRNOTAVAIL"
        if gone.is_ipv6:
            self.six.remove(gone)
            return ""
        self.four.remove(gone)
        orphans = [one for one in self.four if one.secondary and one.subnet() == gone.subnet()]
        if gone.secondary or not orphans:
            return ""
        if not self.promote:
            self.four = [one for one in self.four if one not in orphans]
            return ""
        heir = orphans[0]
        self.four.remove(heir)
        behind = [n for n, one in enumerate(self.four, 1) if not one.secondary and gone.scope <= one.scope]
        heir.secondary = False
        self.four.insert(max(behind, default=0), heir)
        return ""
