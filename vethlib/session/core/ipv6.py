"""Disabled IPv6 on a link: container engines and hardened hosts set disable_ipv6 for new links."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vethlib._nl.batch import Outcome
from vethlib.errors import NetlinkError, VethError
from vethlib.links import IPInterface, describe

from .namespaces import OpenNetns
from .refusal import system_error, system_errors

__all__ = ["IPv6Settings", "disable_ipv6", "enable_ipv6", "is_disabled", "read_settings"]


def is_disabled(outcome: Outcome, interface: IPInterface) -> bool:
    """Return whether an address was refused because IPv6 is off on its link (EACCES of ipv6_add_addr, addrconf.c)."""
    return outcome.errno == errno.EACCES and interface.version == 6


def enable_ipv6(place: OpenNetns, names: Iterable[str]) -> dict[str, NetlinkError]:
    """Set net.ipv6.conf.NAME.disable_ipv6 to 0 for links in `place`; return the errors of those where that failed."""
    return _switch(place, list(names), "0")


def disable_ipv6(place: OpenNetns, names: Iterable[str]) -> dict[str, NetlinkError]:
    """Set it back to 1; return the errors of those where that failed."""
    return _switch(place, list(names), "1")


class IPv6Settings(NamedTuple):
    """IPv6 settings of a link: whether it is disabled, and the stricter of its accept_dad and that for all links.

    If accept_dad is 0, addresses are not checked for duplicates. If it is 2, the kernel disables IPv6 on a link whose
    MAC another host has, and removes all its IPv6 addresses (addrconf_dad_work, net/ipv6/addrconf.c).
    """

    disabled: bool
    accept_dad: int

    @property
    def may_be_switched_off_for_a_duplicate(self) -> bool:
        """Whether IPv6 is disabled, possibly by the kernel itself, which leaves no other trace of that."""
        return self.disabled and self.accept_dad > 1


def read_settings(place: OpenNetns, name: str) -> IPv6Settings:
    """Read the settings of a link in `place`. Raises NetlinkError; ENOENT if the link does not support IPv6."""

    def read() -> IPv6Settings:
        link = os.fsencode(name)
        accept_dad = max(_read(b"all", b"accept_dad"), _read(link, b"accept_dad"))
        return IPv6Settings(bool(_read(link, b"disable_ipv6")), accept_dad)

    with system_errors(f"read the IPv6 settings of {describe(name, place.ref)}", place.ref):
        return place.call(read)


def _read(name: bytes, setting: bytes) -> int:
    with open(b"/proc/sys/net/ipv6/conf/" + name + b"/" + setting, "rb") as file:
        return int(file.read(16))


def _switch(place: OpenNetns, names: Sequence[str], value: str) -> dict[str, NetlinkError]:
    failed: dict[str, NetlinkError] = {}

    # /proc/sys/net belongs to the namespace of the thread that opens it, so it is written from inside.
    def write() -> None:
        for name in names:
            try:
                _write(name, value)
            except OSError as error:
                failed[name] = system_error(error, _request(name, value), place.ref)

    if names:
        try:
            place.call(write)
        except (OSError, VethError) as error:
            failed = {name: system_error(error, _request(name, value), place.ref) for name in names}
    return failed


def _write(name: str, value: str) -> None:
    with open(b"/proc/sys/net/ipv6/conf/" + os.fsencode(name) + b"/disable_ipv6", "wb", 0) as switch:
        switch.write(value.encode())


def _request(name: str, value: str) -> str:
    return f"set net.ipv6.conf.{name}.disable_ipv6 to {value}"
