"""The fields of an end that no netlink message sets: `sysctls`, and `offload` (:mod:`.features`).

`sysctls` are settings below /proc/sys/net/ipv4/conf and /proc/sys/net/ipv6/conf; reading or writing one takes some 10
µs. /proc/sys/net belongs to the namespace of the thread that opens it, so they are read and written from inside. They
are found by the name of the link (:mod:`.present_name`): if another program gives that name to another link in the
microseconds after it was looked up, the settings of that link are written; reading is repeated in that case
(:func:`.present_name.read_by_name`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from vethlib.endfields.checks import ADDR_GEN_MODE, IPV6_MTU, OF_THE_NAMESPACE, STABLE_SECRET, Sysctl
from vethlib.endfields.table import OFFLOAD, SYSCTLS
from vethlib.errors import NetlinkError, VethError
from vethlib.links import describe

from .ipv6 import conf_name
from .namespaces import Namespaces, OpenNetns
from .present_name import present_name
from .refusal import sysctl_error, system_error, system_errors

__all__ = ["check_secret", "read_all", "read_given", "read_setting", "restore_all", "write_settings"]

_NEW: Final = b"default"  # the directory with the settings of new links


def read_setting(namespaces: Namespaces, place: OpenNetns, name: str, field: str, wanted: Any) -> Any:
    """Read such a field of a link in `place`; of the `sysctls`, those named in `wanted`. Raises NetlinkError."""
    if field == SYSCTLS:
        return _read_sysctls(place, name, [setting.name for setting in wanted])
    assert field == OFFLOAD
    from .features import read_offload  # for the few links that have it

    return read_offload(namespaces, place, name)


def read_all(place: OpenNetns, name: str, families: Iterable[str] = ("ipv4", "ipv6")) -> tuple[Sysctl, ...]:
    """Read the settings of a link, except disable_ipv6; none for a family that the link lacks. Raises NetlinkError."""
    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        return place.call(lambda: tuple(_all_below(conf_name(name), families)))


def _all_below(conf: bytes, families: Iterable[str] = ("ipv4", "ipv6")) -> Iterator[Sysctl]:
    for family in families:
        try:
            found = os.listdir(_below(conf, f"{family}."))
        except FileNotFoundError:
            continue
        for each in found:
            setting = f"{family}.{os.fsdecode(each)}"
            if each != b"disable_ipv6":
                yield Sysctl(setting, _read_if_any(_below(conf, setting)))


def read_given(place: OpenNetns, name: str) -> tuple[Sysctl, ...]:
    """Read the settings that differ from those of a new link in `place`, sorted; not those that cannot be given.

    Raises NetlinkError, also if one of them could not be written.
    """
    if name in OF_THE_NAMESPACE:  # the settings under this name belong to no link
        return ()

    def read() -> tuple[list[Sysctl], tuple[Sysctl, OSError] | None]:
        new = set(_all_below(_NEW))
        all_of_it = sorted(_all_below(conf_name(name)))
        if any(each.name == STABLE_SECRET and each.value and each not in new for each in all_of_it):
            new = {each for each in new if each.name != ADDR_GEN_MODE}  # which is set along with the secret
        given = [each for each in all_of_it if each.value and each not in new and _is_given(name, each)]
        return given, next(_refused(name, given), None)

    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        given, refused = place.call(read)
    if refused is not None:
        setting, error = refused
        raise sysctl_error(error, _writing(name, setting), place.ref)
    return tuple(given)


def restore_all(namespaces: Namespaces, place: OpenNetns, index: int, settings: Sequence[Sysctl]) -> None:
    """Write the settings of a link that differ from what was read. Raises NetlinkError after all have been tried."""
    name = present_name(namespaces, place, index)
    now = set(read_all(place, name, {setting.name.partition(".")[0] for setting in settings}))
    fields = {SYSCTLS: [setting for setting in settings if setting not in now]}
    for error in write_settings(namespaces, {place: {index: fields}}, go_on=True).values():
        raise error


def check_secret(place: OpenNetns, name: str, before: Iterable[Sysctl]) -> None:
    """Raise NetlinkError if a link has got a stable_secret that it did not have: the kernel cannot clear it."""
    if Sysctl(STABLE_SECRET, "") in before and _read_sysctls(place, name, [STABLE_SECRET])[0].value:
        says = f"{describe(name, place.ref)} keeps its net.{STABLE_SECRET}, which the kernel cannot clear"
        raise NetlinkError(says, errno=errno.EBUSY, netns=str(place.ref or ""))


def write_settings(
    namespaces: Namespaces, wanted: Mapping[OpenNetns, Mapping[int, Mapping[str, Any]]], *, go_on: bool = False
) -> dict[tuple[OpenNetns, int], VethError]:
    """Write such fields of links, by namespace and ifindex; return the first error of each link that has one.

    With `go_on`, the other sysctls of such a link are written nevertheless. A sysctl without a value is left out: this
    kernel lacks it, or it had no value before (and cannot lose its value).
    """
    failed: dict[tuple[OpenNetns, int], VethError] = {}
    for place, links in wanted.items():
        sysctls: dict[int, list[Sysctl]] = {}
        for index, fields in links.items():
            if existing := [setting for setting in fields.get(SYSCTLS, ()) if setting.value]:
                sysctls[index] = existing
            if fields.get(OFFLOAD) is not None:
                from .features import write_offload  # as above

                try:
                    write_offload(namespaces, place, present_name(namespaces, place, index), fields[OFFLOAD])
                except VethError as error:
                    failed[place, index] = error
        if sysctls:
            failed |= _write_sysctls(namespaces, place, sysctls, go_on=go_on)
    return failed


def _read_sysctls(place: OpenNetns, name: str, settings: Iterable[str]) -> tuple[Sysctl, ...]:
    """Read settings of a link in `place`; "" for any that this kernel lacks or without a value. Raises NetlinkError."""
    with system_errors(f"read the settings of {describe(name, place.ref)}", place.ref):
        return place.call(lambda: tuple(Sysctl(setting, _read_if_any(_path(name, setting))) for setting in settings))


def _write_sysctls(
    namespaces: Namespaces, place: OpenNetns, links: Mapping[int, Iterable[Sysctl]], *, go_on: bool
) -> dict[tuple[OpenNetns, int], NetlinkError]:
    """Write settings of links in `place`, by ifindex; return the first error of each link that has one.

    A setting that cannot be written, as in a read-only /proc/sys, is no error if it already has the value.
    """
    failed: dict[tuple[OpenNetns, int], NetlinkError] = {}
    namespaces.open_sockets([place])
    try:
        place.call(lambda: _write_all(namespaces, place, links, failed, go_on=go_on))
    except (OSError, VethError) as error:
        for index in links:
            request = f"set the sysctls of the link with ifindex {index} in {place}"
            failed[place, index] = system_error(error, request, place.ref)
    return failed


def _write_all(
    namespaces: Namespaces,
    place: OpenNetns,
    links: Mapping[int, Iterable[Sysctl]],
    failed: dict[tuple[OpenNetns, int], NetlinkError],
    *,
    go_on: bool,
) -> None:
    for index, settings in links.items():
        try:
            name = present_name(namespaces, place, index)
        except NetlinkError as error:
            failed[place, index] = error
            continue
        for setting in sorted(settings, key=_writing_order):
            try:
                _write(name, setting)
            except OSError as error:
                if not _is_so_already(name, setting):
                    failed.setdefault((place, index), sysctl_error(error, _writing(name, setting), place.ref))
                    if not go_on:
                        break


def _writing_order(setting: Sysctl) -> bool:
    """Sort stable_secret first: addr_gen_mode 2 needs it, and writing it sets that mode (net/ipv6/addrconf.c)."""
    return setting.name != STABLE_SECRET


def _path(name: str, setting: str) -> bytes:
    return _below(conf_name(name), setting)


def _below(conf: bytes, setting: str) -> bytes:
    family, _, rest = setting.partition(".")
    return b"/proc/sys/net/%b/conf/%b/%b" % (family.encode(), conf, rest.encode())


def _read(path: bytes) -> str:
    with open(path, "rb", 0) as file:
        return file.read(256).decode("ascii", "replace").strip()


def _read_if_any(path: bytes) -> str:
    try:
        return _read(path)
    except OSError as error:
        # EIO: ipv6.stable_secret has not been written yet (addrconf_sysctl_stable_secret).
        if error.errno in (errno.ENOENT, errno.EIO):
            return ""
        raise


def _is_given(name: str, setting: Sysctl) -> bool:
    """Return whether a setting may be given: mc_forwarding is a state, and the kernel sets the MTU of IPv6."""
    return setting.name != IPV6_MTU and bool(os.stat(_path(name, setting.name)).st_mode & 0o222)


def _refused(name: str, settings: Iterable[Sysctl]) -> Iterator[tuple[Sysctl, OSError]]:
    """Yield the settings that cannot be written, as in a read-only /proc/sys."""
    for setting in settings:
        try:
            os.close(os.open(_path(name, setting.name), os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            yield setting, error


def _write(name: str, setting: Sysctl) -> None:
    with open(_path(name, setting.name), "wb", 0) as file:
        file.write(setting.value.encode())


def _writing(name: str, setting: Sysctl) -> str:
    return f"set net.{setting.name.replace('.', '.conf.' + name + '.')} to {setting.shown}"


def _is_so_already(name: str, setting: Sysctl) -> bool:
    try:
        return _read(_path(name, setting.name)) == setting.value
    except OSError:
        return False
