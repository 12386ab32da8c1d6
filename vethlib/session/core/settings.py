"""The fields of an end that no netlink message sets: `sysctls`, and `offload` (:mod:`.features`).

`sysctls` are settings below /proc/sys/net/ipv4/conf and /proc/sys/net/ipv6/conf, of which each costs some 10 µs to read
or to write. /proc/sys/net belongs to the namespace of the thread that opens it, so they are read and written from
inside. They are found by the name of the link: if another program gives that name to another link in the microseconds
after it was looked up, these are the settings of that link.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vethlib.endfields.checks import STABLE_SECRET, Sysctl
from vethlib.endfields.table import OFFLOAD, SYSCTLS
from vethlib.errors import NetlinkError, VethError
from vethlib.links import describe

from .ipv6 import conf_name
from .namespaces import Namespaces, OpenNetns
from .refusal import system_error, system_errors

__all__ = ["check_secret", "read_all", "read_setting", "restore_all", "write_settings"]


def read_setting(namespaces: Namespaces, place: OpenNetns, name: str, field: str, wanted: Any) -> Any:
    """Read such a field of a link in `place`; of `sysctls`, those of `wanted`. Raises NetlinkError."""
    if field == SYSCTLS:
        return _read_sysctls(place, name, [setting.name for setting in wanted])
    assert field == OFFLOAD
    from .features import read_offload  # for links that have it

    return read_offload(namespaces, place, name)


def read_all(place: OpenNetns, name: str, families: Iterable[str] = ("ipv4", "ipv6")) -> tuple[Sysctl, ...]:
    """Read the settings of a link, except disable_ipv6; none of a family that it has not. Raises NetlinkError."""

    def read() -> Iterator[Sysctl]:
        for family in families:
            try:
                found = os.listdir(_path(name, f"{family}."))
            except FileNotFoundError:
                continue
            for each in found:
                setting = f"{family}.{os.fsdecode(each)}"
                if each != b"disable_ipv6":
                    yield Sysctl(setting, _read_if_any(name, setting))

    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        return place.call(lambda: tuple(read()))


def restore_all(namespaces: Namespaces, place: OpenNetns, name: str, settings: Sequence[Sysctl]) -> None:
    """Write the settings of a link that are not as they were read. Raises NetlinkError, when all have been tried."""
    now = set(read_all(place, name, {setting.name.partition(".")[0] for setting in settings}))
    fields = {SYSCTLS: [setting for setting in settings if setting not in now]}
    for error in write_settings(namespaces, {place: {name: fields}}, go_on=True).values():
        raise error


def check_secret(place: OpenNetns, name: str, before: Iterable[Sysctl]) -> None:
    """Raise NetlinkError if a link that had no secret of addresses has one now: the kernel does not clear it."""
    if Sysctl(STABLE_SECRET, "") in before and _read_sysctls(place, name, [STABLE_SECRET])[0].value:
        says = f"{describe(name, place.ref)} keeps its net.{STABLE_SECRET}, which the kernel cannot clear"
        raise NetlinkError(says, errno=errno.EBUSY, netns=str(place.ref or ""))


def write_settings(
    namespaces: Namespaces, wanted: Mapping[OpenNetns, Mapping[str, Mapping[str, Any]]], *, go_on: bool = False
) -> dict[tuple[OpenNetns, str], VethError]:
    """Write such fields of links, by namespace and name; return the first error of each link that has one.

    With `go_on`, the other sysctls of such a link are written nevertheless. A sysctl without a value is left out: this
    kernel lacks it, or it had none before (and cannot lose it).
    """
    failed: dict[tuple[OpenNetns, str], VethError] = {}
    for place, links in wanted.items():
        sysctls: dict[str, list[Sysctl]] = {}
        for name, fields in links.items():
            if existing := [setting for setting in fields.get(SYSCTLS, ()) if setting.value]:
                sysctls[name] = existing
            if fields.get(OFFLOAD) is not None:
                from .features import write_offload  # as above

                try:
                    write_offload(namespaces, place, name, fields[OFFLOAD])
                except VethError as error:
                    failed[place, name] = error
        if sysctls:
            failed |= _write_sysctls({place: sysctls}, go_on=go_on)
    return failed


def _read_sysctls(place: OpenNetns, name: str, settings: Iterable[str]) -> tuple[Sysctl, ...]:
    """Read settings of a link in `place`; "" for one that this kernel lacks or without a value. Raises NetlinkError."""
    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        return place.call(lambda: tuple(Sysctl(setting, _read_if_any(name, setting)) for setting in settings))


def _write_sysctls(
    wanted: Mapping[OpenNetns, Mapping[str, Iterable[Sysctl]]], *, go_on: bool
) -> dict[tuple[OpenNetns, str], NetlinkError]:
    """Write settings of links, by namespace and name; return the first error of each link that has one.

    A setting that cannot be written, as in a read-only /proc/sys, is no error if it has the value already.
    """
    failed: dict[tuple[OpenNetns, str], NetlinkError] = {}
    for place, links in wanted.items():
        try:
            place.call(lambda place=place, links=links: _write_all(place, links, failed, go_on=go_on))  # type: ignore[misc]
        except (OSError, VethError) as error:
            for name in links:
                failed[place, name] = system_error(error, f"set {describe(name, place.ref)} sysctls", place.ref)
    return failed


def _write_all(
    place: OpenNetns,
    links: Mapping[str, Iterable[Sysctl]],
    failed: dict[tuple[OpenNetns, str], NetlinkError],
    *,
    go_on: bool,
) -> None:
    for name, settings in links.items():
        for setting in sorted(settings, key=_writing_order):
            try:
                _write(name, setting)
            except OSError as error:
                if not _is_so_already(name, setting):
                    request = f"set net.{setting.name.replace('.', '.conf.' + name + '.')} to {setting.value}"
                    failed.setdefault((place, name), system_error(error, request, place.ref))
                    if not go_on:
                        break


def _writing_order(setting: Sysctl) -> bool:
    """Sort the secret of addresses first: addr_gen_mode 2 needs it, and writing it sets that (net/ipv6/addrconf.c)."""
    return setting.name != STABLE_SECRET


def _path(name: str, setting: str) -> bytes:
    family, _, rest = setting.partition(".")
    return b"/proc/sys/net/%b/conf/%b/%b" % (family.encode(), conf_name(name), rest.encode())


def _read(name: str, setting: str) -> str:
    with open(_path(name, setting), "rb", 0) as file:
        return file.read(256).decode("ascii", "replace").strip()


def _read_if_any(name: str, setting: str) -> str:
    try:
        return _read(name, setting)
    except OSError as error:
        # EIO: ipv6.stable_secret has not been written yet (addrconf_sysctl_stable_secret).
        if error.errno in (errno.ENOENT, errno.EIO):
            return ""
        raise


def _write(name: str, setting: Sysctl) -> None:
    with open(_path(name, setting.name), "wb", 0) as file:
        file.write(setting.value.encode())


def _is_so_already(name: str, setting: Sysctl) -> bool:
    try:
        return _read(name, setting.name) == setting.value
    except OSError:
        return False
