"""Whether a link has IPv6: net.ipv6.conf.NAME.disable_ipv6.

No netlink attribute sets it (inet6_set_link_af, net/ipv6/addrconf.c). It costs 7 µs per link, before it is up.
Container engines and hardened hosts set it for new links.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vethlib import ns
from vethlib._nl.batch import Outcome
from vethlib._nl.wire import encoded
from vethlib.endfields.checks import OF_THE_NAMESPACE
from vethlib.errors import NetlinkError, VethError
from vethlib.links import IPInterface, describe

from .namespaces import Namespaces, OpenNetns
from .present_name import present_name
from .refusal import sysctl_error, system_error, system_errors

__all__ = [
    "IPv6Settings",
    "can_switch_ipv6",
    "conf_name",
    "enable_ipv6",
    "is_disabled",
    "lacks_ipv6",
    "read_settings",
    "switch_ipv6",
]


def is_disabled(outcome: Outcome, interface: IPInterface) -> bool:
    """Return whether an address was refused because IPv6 is off on its link (EACCES of ipv6_add_addr, addrconf.c)."""
    return outcome.errno == errno.EACCES and interface.version == 6


def enable_ipv6(namespaces: Namespaces, place: OpenNetns, indexes: Iterable[int]) -> dict[int, NetlinkError]:
    """Set net.ipv6.conf.NAME.disable_ipv6 to 0 for links in `place`; return the errors, by link."""
    failed = switch_ipv6(namespaces, {place: dict.fromkeys(indexes, True)})
    return {index: error for (_, index), error in failed.items()}


def can_switch_ipv6() -> bool:
    """Return whether the settings can be written: /proc/sys is often read-only in a container."""
    return os.access("/proc/sys/net/ipv6/conf/default/disable_ipv6", os.W_OK)


def lacks_ipv6() -> bool:
    """Return whether this kernel is known to have no IPv6 (CONFIG_IPV6=n, ipv6.disable=1)."""
    return _shows_settings() and not os.path.exists("/proc/sys/net/ipv6")


def _shows_settings() -> bool:
    """Return whether /proc has network settings at all: with the mount option subset=pid, it has none."""
    return os.path.exists("/proc/sys/net")


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


def conf_name(name: str) -> bytes:
    """Return the name of the directory with the settings of a link. Raises NetlinkError if it is not the link's own."""
    if name in OF_THE_NAMESPACE:
        says = f"the settings under the name {name!r} are those of the whole namespace: rename the link first"
        raise NetlinkError(says, errno=errno.EINVAL)
    return encoded(name)


def read_settings(place: OpenNetns, name: str) -> IPv6Settings:
    """Read the settings of a link in `place`. Raises NetlinkError; ENOENT if the link does not support IPv6."""

    def read() -> IPv6Settings:
        link = conf_name(name)
        accept_dad = max(_read(b"all", b"accept_dad"), _read(link, b"accept_dad"))
        return IPv6Settings(bool(_read(link, b"disable_ipv6")), accept_dad)

    with system_errors(f"read the IPv6 settings of {describe(name, place.ref)}", place.ref):
        return place.call(read)


def _read(name: bytes, setting: bytes) -> int:
    with open(b"/proc/sys/net/ipv6/conf/" + name + b"/" + setting, "rb") as file:
        return int(file.read(16))


def switch_ipv6(
    namespaces: Namespaces, wanted: Mapping[OpenNetns, Mapping[int, bool]]
) -> dict[tuple[OpenNetns, int], NetlinkError]:
    """Enable IPv6 on the links (by ifindex) that have True, and disable it on the others; return the errors, by link.

    Disabling it on a link that has no IPv6 settings is no error; whether it has IPv6 is in its next message.
    """
    failed: dict[tuple[OpenNetns, int], NetlinkError] = {}
    namespaces.open_sockets(wanted)
    # /proc/sys/net belongs to the namespace of the thread that opens it, so it is written from inside, in one round.
    elsewhere = [place for place in wanted if not place.is_home]
    if len(elsewhere) > 1:
        places = iter(elsewhere)

        def write_next() -> None:
            place = next(places)
            _write_all(namespaces, place, wanted[place], failed)

        try:
            ns.map_in([place.fd for place in elsewhere], write_next)
            elsewhere = []
        except (OSError, VethError):
            failed.clear()  # now one by one, which shows whose error it is
    for place in [*(place for place in wanted if place.is_home), *elsewhere]:
        links = wanted[place]
        try:
            place.call(lambda place=place, links=links: _write_all(namespaces, place, links, failed))  # type: ignore[misc]
        except (OSError, VethError) as error:
            for index, on in links.items():
                failed[place, index] = system_error(error, _request(f"(ifindex {index})", on), place.ref)
    return failed


def _write_all(
    namespaces: Namespaces,
    place: OpenNetns,
    links: Mapping[int, bool],
    failed: dict[tuple[OpenNetns, int], NetlinkError],
) -> None:
    for index, on in links.items():
        try:
            name = present_name(namespaces, place, index)
        except NetlinkError as error:
            failed[place, index] = error
            continue
        try:
            _write(name, on)
        except OSError as error:
            if not _is_so_already(name, on, error):
                failed[place, index] = _not_switched(error, _request(name, on), place.ref)


def _not_switched(error: OSError, request: str, ref: object) -> NetlinkError:
    if error.errno == errno.ENOENT and not _shows_settings():
        message = f"{request}: /proc/sys is not visible here; mount /proc without the option subset=pid"
        return NetlinkError(message, errno=errno.ENOENT, request=request, netns=str(ref or ""))
    return sysctl_error(error, request, ref)


def _is_so_already(name: str, on: bool, error: OSError) -> bool:
    """Return whether a setting that could not be written (in a read-only /proc/sys) has the desired value anyway."""
    if error.errno == errno.ENOENT:
        return not on and _shows_settings()
    try:
        return (_read(conf_name(name), b"disable_ipv6") == 0) == on
    except (OSError, ValueError):
        return False


def _write(name: str, on: bool) -> None:
    with open(b"/proc/sys/net/ipv6/conf/" + conf_name(name) + b"/disable_ipv6", "wb", 0) as switch:
        switch.write(b"0" if on else b"1")


def _request(name: str, on: bool) -> str:
    return f"set net.ipv6.conf.{name}.disable_ipv6 to {0 if on else 1}"
