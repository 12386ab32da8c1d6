"""Namespace references: the texts by which a network namespace is named, and opening what they name.

====================  ==========================================================================
``""`` or None        the calling thread's own
``netns:blue, blue``  /run/netns/blue, as ``ip netns add blue`` makes it
``pid:42``            that of process 42
``path:/a/file``      whatever namespace that file is (``path:/proc/42/task/43/ns/net``)
``fd:7``              what descriptor 7 of this process is open on
``microservice:vnf``  what the caller's resolver says it is at the moment
====================  ==========================================================================

A spelling is not an identity: ask :func:`identity`. An open descriptor keeps its namespace alive.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

from ..errors import InvalidValue, NetlinkError, NetnsNotFound, NotPermitted, VethError, errno_text
from .descriptor import HERE, Descriptor, duplicated, opened
from .syscalls import CLONE_NEWNET, ns_type

__all__ = [
    "NETNS_DIR",
    "HasFileno",
    "Reference",
    "Resolver",
    "check_netns_name",
    "identity",
    "not_opened",
    "open_fd",
    "open_owned",
    "parse",
]

NETNS_DIR = "/run/netns"

Resolver: TypeAlias = Callable[[str], str]
"""Says which reference a microservice label stands for now; raises NetnsNotFound if for none."""


class HasFileno(Protocol):
    """An open namespace: a Netns, or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


_PATH_OF = {"home": HERE, "netns": NETNS_DIR + "/{}", "pid": "/proc/{}/ns/net", "path": "{}"}
_SPELLINGS = '"" (home), "blue" or "netns:blue", "pid:42", "path:/proc/42/ns/net", "fd:7", "microservice:label"'


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference taken apart. `kind` is home, netns, pid, path, fd or microservice; ``str()`` the canonical text."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else ""

    @property
    def path(self) -> str:
        """The file that is the namespace; KeyError for the kinds that have none (fd, microservice)."""
        return _PATH_OF[self.kind].format(self.value)


def parse(ref: str | None) -> Reference:
    """Take a reference apart; InvalidValue (field "netns") says what is wrong with its spelling."""
    if ref is None or isinstance(ref, str):
        return _parse(ref or "")
    raise _no_reference(ref)


def _no_reference(given: object) -> InvalidValue:
    return InvalidValue("netns", given, f"not a namespace reference: write {_SPELLINGS}")


@lru_cache(maxsize=4096)  # a plan names the same few namespaces over and over; a hit costs 0.1 µs
def _parse(ref: str) -> Reference:
    if not ref:
        return Reference("home", "")
    kind, colon, value = ref.partition(":")
    if not colon:
        kind, value = "netns", ref
    check = _CHECKS.get(kind)
    if check is None:
        raise InvalidValue("netns", ref, f"there is no kind of namespace called {kind!r}: write {_SPELLINGS}")
    if not value:
        raise InvalidValue("netns", ref, f"something has to follow {kind + ':'!r}")
    return Reference(kind, check(value, ref))


def check_netns_name(name: str, ref: str | None = None) -> str:
    """Return `name` if it can be that of a file in /run/netns; InvalidValue otherwise."""
    given = name if ref is None else ref
    if not isinstance(name, str) or not name:
        raise InvalidValue("netns", given, "the name of a namespace is text of 1 to 255 bytes")
    if "/" in name:
        raise InvalidValue("netns", given, f'a name has no "/"; for a file write "path:{name}"')
    if name in (".", ".."):
        raise InvalidValue("netns", given, 'a namespace cannot be called "." or ".."')
    if len(_encoded(name, given)) > 255:  # NAME_MAX, include/uapi/linux/limits.h
        raise InvalidValue("netns", given, "the name of a namespace has at most 255 bytes")
    return name


def _encoded(text: str, ref: str) -> bytes:
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidValue("netns", ref, "this text cannot be encoded as a file name") from None
    if b"\0" in encoded:
        raise InvalidValue("netns", ref, "a file name has no NUL")
    return encoded


def _check_path(path: str, ref: str) -> str:
    if not path.startswith("/"):
        raise InvalidValue("netns", ref, "write an absolute path")
    _encoded(path, ref)
    return path


def _check_number(value: str, ref: str) -> str:
    if not (value.isascii() and value.isdigit() and int(value) <= 0x7FFF_FFFF):
        raise InvalidValue("netns", ref, "write a number in decimal digits")
    return str(int(value))


def _check_pid(value: str, ref: str) -> str:
    number = _check_number(value, ref)
    if number == "0":
        raise InvalidValue("netns", ref, "there is no process 0")
    return number


def _check_label(label: str, _ref: str) -> str:
    return label


_CHECKS: dict[str, Callable[[str, str], str]] = {
    "netns": check_netns_name,
    "pid": _check_pid,
    "path": _check_path,
    "fd": _check_number,
    "microservice": _check_label,
}


def open_owned(ref: str | HasFileno | None, resolver: Resolver | None = None) -> Descriptor:
    """Open a network namespace: a descriptor that closes itself with its last reference, or by ``close()``.

    Something already open (a Netns) is duplicated. `resolver` says what a microservice label stands for.

    Raises :class:`InvalidValue` for a bad spelling, :class:`NetnsNotFound` for what is not there or is no network
    namespace, :class:`NotPermitted`, and :class:`NetlinkError` with its ``errno`` for anything else (EMFILE).
    """
    if ref is None or isinstance(ref, str):
        reference = _resolved(_parse(ref or ""), resolver)
    elif hasattr(ref, "fileno"):
        reference = Reference("fd", str(ref.fileno()))
    else:
        raise _no_reference(ref)
    try:
        owned = duplicated(int(reference.value)) if reference.kind == "fd" else opened(reference.path)
    except OSError as error:
        raise not_opened(reference, error) from None
    try:
        kind = ns_type(owned.fileno())
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        owned.close()  # at once, for a traceback keeps this frame
        raise _not_a_namespace(reference, kind)
    return owned


def open_fd(ref: str | HasFileno | None, resolver: Resolver | None = None) -> int:
    """As :func:`open_owned`, for those who want a number: a new descriptor, close-on-exec, theirs to close."""
    with open_owned(ref, resolver) as owned:
        try:
            return os.dup(owned.fileno())
        except OSError as error:
            raise not_opened(Reference("fd", str(owned.fileno())), error) from None


def _resolved(reference: Reference, resolver: Resolver | None) -> Reference:
    if reference.kind != "microservice":
        return reference
    if resolver is None:
        cure = "Session(resolver=…) takes one, `vethctl agent` asks the Docker Engine"
        message = f"microservice {reference.value} cannot be found: no resolver is attached ({cure})"
        raise NetnsNotFound(message, netns=str(reference))
    resolved = parse(resolver(reference.value))
    if resolved.kind == "microservice":
        raise InvalidValue("netns", str(resolved), f"the resolver gave this for {reference}: a label for a label")
    return resolved


def _place(reference: Reference) -> str:
    return f"fd {reference.value}" if reference.kind == "fd" else reference.path


def not_opened(reference: Reference, error: OSError) -> VethError:
    """What to raise for the OSError that opening `reference` gave."""
    number, text, place = error.errno or 0, str(reference), _place(reference)
    if number == errno.EMFILE:
        message = f"out of file descriptors at {place}: close some, or raise the limit (ulimit -n)"
        return NetlinkError(message, errno=number, netns=text)
    if number == errno.ENFILE:
        message = f"the host is out of file descriptors at {place}: raise the sysctl fs.file-max"
        return NetlinkError(message, errno=number, netns=text)
    if number == errno.EBADF:
        return NetnsNotFound(f"{place} is not open", netns=text)
    if number in (errno.EPERM, errno.EACCES):
        return _forbidden(reference, number)
    if number == errno.ENXIO:  # a socket, or a device without a driver
        return _not_a_namespace(reference)
    if number in (errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR):
        # A zombie's directory is still in /proc, but its namespaces are gone (ENOENT from ns_get_path, fs/nsfs.c).
        gone = f"process {reference.value} is gone" if reference.kind == "pid" else f"{place} does not exist"
        return NetnsNotFound(gone, netns=text)
    return NetlinkError(f"cannot open {place}: {errno_text(number)}", errno=number, netns=text)


def _forbidden(reference: Reference, number: int) -> VethError:
    path, text = reference.path, str(reference)
    if reference.kind == "pid":
        # proc_ns_get_link (fs/proc/namespaces.c) asks ptrace_may_access
        message = f"the namespaces of process {reference.value} need its own user, or CAP_SYS_PTRACE"
    elif path.startswith("/proc/"):
        message = f"{path} needs the process's own user, or CAP_SYS_PTRACE"
    elif _is_leftover(path):
        return _not_a_namespace(reference)
    else:
        message = f"{path} may not be read: it needs other file permissions, or CAP_DAC_READ_SEARCH"
    return NotPermitted(message, errno=number, netns=text)


def _is_leftover(path: str) -> bool:
    # What ip netns mounts a namespace over is a file of mode 0, which no one but root can open to see that it is
    # only that; the namespace itself (nsfs) has mode 0444.
    try:
        return os.stat(path).st_mode == stat.S_IFREG
    except OSError:
        return False


def _not_a_namespace(reference: Reference, kind: int = 0) -> NetnsNotFound:
    message = f"{_place(reference)} is not a namespace"
    if kind:
        message = f"{_place(reference)} is a namespace, but not a network namespace"
    elif reference.kind == "netns":
        message += f" (a leftover file; ip netns del {reference.value} removes it)"
    return NetnsNotFound(message, netns=str(reference))


def identity(fd: int) -> tuple[int, int]:
    """``(st_dev, st_ino)`` of an open namespace: the same for two descriptors exactly if it is one namespace.

    It holds while the namespace is alive; the kernel gives the number of a dead one to another.
    """
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
