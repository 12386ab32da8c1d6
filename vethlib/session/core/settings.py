"""Settings of a link below /proc/sys/net/ipv4/conf and /proc/sys/net/ipv6/conf (the field `sysctls` of an end).

No netlink message sets them, and each costs some 10 µs to read or to write. /proc/sys/net belongs to the namespace of
the thread that opens it, so they are read and written from inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from vethlib.endfields.checks import Sysctl
from vethlib.errors import NetlinkError, VethError
from vethlib.links import describe

from .namespaces import OpenNetns
from .refusal import system_error, system_errors

__all__ = ["read_sysctls", "write_sysctls"]


def read_sysctls(place: OpenNetns, name: str, settings: Iterable[str]) -> tuple[Sysctl, ...]:
    """Read settings of a link in `place`; "" for a setting that this kernel lacks. Raises NetlinkError."""
    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        return place.call(lambda: tuple(Sysctl(setting, _read_if_any(name, setting)) for setting in settings))


def write_sysctls(
    wanted: Mapping[OpenNetns, Mapping[str, Iterable[Sysctl]]],
) -> dict[tuple[OpenNetns, str], NetlinkError]:
    """Write settings of links, by namespace and name; return the first error of each link that has one.

    A setting that cannot be written, as in a read-only /proc/sys, is no error if it has the value already.
    """
    failed: dict[tuple[OpenNetns, str], NetlinkError] = {}
    for place, links in wanted.items():
        try:
            place.call(lambda place=place, links=links: _write_all(place, links, failed))  # type: ignore[misc]
        except (OSError, VethError) as error:
            for name in links:
                failed[place, name] = system_error(error, f"set {describe(name, place.ref)} sysctls", place.ref)
    return failed


def _write_all(
    place: OpenNetns, links: Mapping[str, Iterable[Sysctl]], failed: dict[tuple[OpenNetns, str], NetlinkError]
) -> None:
    for name, settings in links.items():
        for setting in settings:
            try:
                _write(name, setting)
            except OSError as error:
                if not _is_so_already(name, setting):
                    request = f"set net.{setting.name.replace('.', '.conf.' + name + '.')} to {setting.value}"
                    failed[place, name] = system_error(error, request, place.ref)
                    break


def _path(name: str, setting: str) -> bytes:
    family, _, rest = setting.partition(".")
    return b"/proc/sys/net/%b/conf/%b/%b" % (family.encode(), os.fsencode(name), rest.encode())


def _read(name: str, setting: str) -> str:
    with open(_path(name, setting), "rb", 0) as file:
        return file.read(256).decode("ascii", "replace").strip()


def _read_if_any(name: str, setting: str) -> str:
    try:
        return _read(name, setting)
    except FileNotFoundError:
        return ""


def _write(name: str, setting: Sysctl) -> None:
    with open(_path(name, setting.name), "wb", 0) as file:
        file.write(setting.value.encode())


def _is_so_already(name: str, setting: Sysctl) -> bool:
    try:
        return _read(name, setting.name) == setting.value
    except OSError:
        return False
