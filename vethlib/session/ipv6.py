"""IPv6 on a link where it is switched off: container engines and hardened hosts set disable_ipv6 for new links."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from .. import ns
from .._nl.batch import Outcome
from ..links import Interface
from .places import Place
from .refusal import system_errors

__all__ = ["disable_ipv6", "enable_ipv6", "is_disabled"]


def is_disabled(outcome: Outcome, interface: Interface) -> bool:
    """Whether an address was refused because IPv6 is off on its link (EACCES from ipv6_add_addr, addrconf.c)."""
    return outcome.errno == errno.EACCES and interface.version == 6


def enable_ipv6(place: Place, names: Iterable[str]) -> None:
    """Set net.ipv6.conf.NAME.disable_ipv6 to 0 for links in `place`. Raises NetlinkError."""
    _switch(place, list(names), "0")


def disable_ipv6(place: Place, names: Iterable[str]) -> None:
    """Set it to 1, as it was. Raises NetlinkError."""
    _switch(place, list(names), "1")


def _switch(place: Place, names: Sequence[str], value: str) -> None:
    # /proc/sys/net shows the namespace of whoever looks, so it is written from inside.
    def write() -> None:
        for name in names:
            with open(b"/proc/sys/net/ipv6/conf/" + os.fsencode(name) + b"/disable_ipv6", "wb", 0) as switch:
                switch.write(value.encode())

    if names:
        with system_errors(f"set net.ipv6.conf.*.disable_ipv6 to {value}", place.ref):
            ns.call_in(place.fd, write)
