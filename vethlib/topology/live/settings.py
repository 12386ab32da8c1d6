"""Sysctls of the namespaces of a topology, so that tests neither wait nor depend on the host.

They are set before a namespace has a link:

- Duplicate address detection takes one or two seconds per IPv6 address, and there are no other hosts on these wires, so
  it is switched off (net.ipv6.conf.default.accept_dad, addrconf_dad_begin in net/ipv6/addrconf.c).
- A link that is set down loses its IPv6 addresses, but not its IPv4 ones; here it keeps both (keep_addr_on_down).
- A new namespace inherits the IPv4 settings of the host's initial namespace (devinet_init_net, net/ipv4/devinet.c),
  which on a host with containers include ip_forward=1: forwarding and reverse path filtering are set as in the layout.
- Everybody may ping, as in most distributions; by default, nobody may in a new namespace (net.ipv4.ping_group_range).

Writing or reading a file of /proc/sys takes 40 µs in a new namespace (its directory entries are new as well), so values
that are already right are not written. The initial values are read in one namespace, and used for a second.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from vethlib import ns
from vethlib._primitives import posix, time
from vethlib.errors import NotPermitted, errno_text
from vethlib.ns.descriptor import opened
from vethlib.ns.loopback import set_loopback_up
from vethlib.session.core.refusal import READ_ONLY

from .pinging import allow_ping

__all__ = ["Settings"]

_SYS: Final = "/proc/sys/net/"
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_ALWAYS: Final = {
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/all/keep_addr_on_down": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}
_FRESH_FOR: Final = 1.0  # seconds


class Settings:
    """Sysctls of new namespaces, written from inside each; `refused` has those that the kernel has refused."""

    def __init__(self, *, forward: bool) -> None:
        self.refused: dict[str, int] = {}
        self._forward = forward
        self._values = _ALWAYS | dict.fromkeys(_FORWARDING, "1" if forward else "0")
        self._to_write: dict[str, bytes] | None = None

    def settle(self) -> ns.Descriptor:
        """Write the settings of the calling thread's namespace, and return a descriptor of it. Raises OSError."""
        if self._to_write is None:
            self._to_write = self._different()
        for file, value in self._to_write.items():
            try:
                _write(file, value)
            except OSError as error:
                self.refused[file] = error.errno or 0
        allow_ping()
        set_loopback_up()
        return ns.current()

    def _different(self) -> dict[str, bytes]:
        global _fresh
        until, values = _fresh
        if time.monotonic() > until or values.keys() != self._values.keys():
            values = {name: _read(_SYS + name) for name in self._values}
            _fresh = time.monotonic() + _FRESH_FOR, values
        desired = self._values.items()
        return {_SYS + name: value.encode() for name, value in desired if values[name] not in ("", value)}

    def check_forwarding(self) -> None:
        """Raise NotPermitted if the namespaces should forward but cannot, or should not but do."""
        for name in _FORWARDING:
            if number := self.refused.get(_SYS + name):
                what = "make a node forward" if self._forward else "keep a node from forwarding"
                message = f"cannot {what}: {_SYS + name}: {errno_text(number)}"
                if number == errno.EROFS:
                    message += f" ({READ_ONLY})"
                raise NotPermitted(message, errno=number)


_fresh: tuple[float, Mapping[str, str]] = (0.0, {})
"""How long the values of these settings in a new namespace are used, and the values, which depend on the host."""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""  # a kernel without IPv6 lacks its settings


def _write(path: str, value: bytes) -> None:
    with opened(path, os.O_WRONLY | os.O_CLOEXEC) as owned:
        posix.write(owned.fileno(), value)
