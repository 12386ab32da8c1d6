"""Namespace references: the texts that lead to a network namespace, and opening them.

====================  ==========================================================================
``""`` or None        the calling thread's own network namespace
``netns:blue, blue``  /run/netns/blue, as created by ``ip netns add blue``
``pid:42``            the namespace of process 42
``path:/a/file``      the namespace of that file (``path:/proc/42/task/43/ns/net``)
``fd:7``              the namespace of descriptor 7 of this process
``microservice:vnf``  the namespace that the caller's resolver returns for this label at present
====================  ==========================================================================

Different texts can lead to the same namespace: compare by :func:`identity`. An open descriptor keeps its namespace
alive.
"""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol, TypeAlias

from vethlib._values import Value
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, VethError, errno_text, not_permitted
from vethlib.ns.files.glance import NoAnswer, glance_of, nsfs

from .descriptor import HERE, Descriptor, duplicated
from .descriptor import opened as opened_file
from .opening import NETNS_DIR, NoNamespace, has_procfs, hidden_process, is_directory, link_at, opened
from .own import is_own, number_in
from .syscalls import CLONE_NEWNET, ns_type

__all__ = [
    "LARGEST_FD",
    "NETNS_DIR",
    "HasFileno",
    "Reference",
    "Resolver",
    "check_netns_name",
    "dangling",
    "identity",
    "not_opened",
    "number_of",
    "open_fd",
    "open_owned",
    "parse",
    "raised_by_resolver",
    "resolved",
]

LARGEST_FD: Final = 0x7FFF_FFFF
"""The largest number that a descriptor can have: a C int."""

Resolver: TypeAlias = Callable[[str], str]
"""Return the present reference of a microservice label; raise NetnsNotFound if there is none."""


class HasFileno(Protocol):
    """An open namespace: a Netns, or anything else with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


_PATH_OF = {"home": HERE, "netns": NETNS_DIR + "/{}", "pid": "/proc/{}/ns/net", "path": "{}"}
_OWN = "is a descriptor that vethlib has opened for itself: that of the caller was closed"
_LONGEST = 4200  # characters: PATH_MAX and a prefix
_SPELLINGS = '"" (home), "blue" or "netns:blue", "pid:42", "path:/proc/42/ns/net", "fd:7", "microservice:label"'


class Reference(Value):
    """A parsed reference. `kind` is home, netns, pid, path, fd or microservice; ``str()`` is the canonical text."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else ""

    @property
    def path(self) -> str:
        """The file of the namespace. Raises KeyError for the kinds that have none (fd, microservice)."""
        return _PATH_OF[self.kind].format(self.value)

    @property
    def names_file(self) -> bool:
        """Whether it names a file, which may be a symbolic link, or be replaced (netns, path)."""
        return self.kind in _PATH_OF and self.kind not in ("home", "pid")


def parse(ref: str | None) -> Reference:
    """Parse a reference. Raises InvalidValue (field "netns") if its spelling is wrong."""
    if ref is None or isinstance(ref, str):
        return _parse(_plain(ref))
    raise _no_reference(ref)


def _plain(ref: str | None) -> str:
    """Return the text itself, because a subclass of str (an Enum) may be formatted as another text."""
    return ref if type(ref) is str else str.__str__(ref or "")


def _no_reference(given: object) -> InvalidValue:
    return InvalidValue("netns", given, f"not a namespace reference; use {_SPELLINGS}")


@lru_cache(maxsize=4096)  # a plan uses the same few references again and again; a hit takes 0.1 µs
def _parse(ref: str) -> Reference:
    if not ref:
        return Reference("home", "")
    if len(ref) > _LONGEST:  # the cache would keep thousands of these
        raise InvalidValue("netns", ref, f"must have at most {_LONGEST} characters")
    kind, colon, value = ref.partition(":")
    if not colon:
        kind, value = "netns", ref
    check = _CHECKS.get(kind)
    if check is None:
        raise InvalidValue("netns", ref, f"unknown kind of reference {kind!r}; use {_SPELLINGS}")
    if not value:
        raise InvalidValue("netns", ref, f"must have something after {kind + ':'!r}")
    return Reference(kind, check(value, ref))


def check_netns_name(name: str, ref: str | None = None) -> str:
    """Return `name` if it can be that of a file in /run/netns; InvalidValue otherwise."""
    given = name if ref is None else ref
    if not isinstance(name, str) or not name:
        raise InvalidValue("netns", given, "must be a string of 1 to 255 bytes")
    if "/" in name:
        raise InvalidValue("netns", given, f'a name must not contain "/"; for a file write "path:{name}"')
    if name in (".", ".."):
        raise InvalidValue("netns", given, 'must not be "." or ".."')
    if len(_encoded(name, given)) > 255:  # NAME_MAX, include/uapi/linux/limits.h
        raise InvalidValue("netns", given, "a name must have at most 255 bytes")
    return name


def _encoded(text: str, ref: str) -> bytes:
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidValue("netns", ref, "must be encodable as a file name") from None
    if b"\0" in encoded:
        raise InvalidValue("netns", ref, "must not contain NUL")
    return encoded


def _check_path(path: str, ref: str) -> str:
    if not path.startswith("/"):
        raise InvalidValue("netns", ref, "must be an absolute path")
    _encoded(path, ref)
    return path


def _check_number(value: str, ref: str) -> str:
    # int() refuses more than 4300 digits with another error.
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and int(value) <= 0x7FFF_FFFF):
        raise InvalidValue("netns", ref, "must be a number in decimal digits")
    return str(int(value))


def _check_pid(value: str, ref: str) -> str:
    number = _check_number(value, ref)
    if number == "0":
        raise InvalidValue("netns", ref, "must be at least 1: there is no process 0")
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
    """Open a network namespace; return a descriptor that closes with its last reference, or by ``close()``.

    A Netns, which is already open, is duplicated. `resolver` turns the label of a microservice into a reference.

    Raises :class:`InvalidValue` for a wrong spelling, :class:`NetnsNotFound` if the reference leads to no network
    namespace, :class:`NotPermitted`, and :class:`NetlinkError` with its ``errno`` for other errors (EMFILE).
    """
    if ref is None or isinstance(ref, str):
        reference = _resolved(_parse(_plain(ref)), resolver)
    elif hasattr(ref, "fileno"):
        reference = Reference("fd", str(number_of(ref)))
    else:
        raise _no_reference(ref)
    try:
        owned = _opened(reference, trusted=not isinstance(ref, str))
    except NoNamespace as reason:
        raise _not_a_namespace(reference, why=str(reason)) from None
    except OSError as error:
        raise not_opened(reference, error) from None
    try:
        kind = ns_type(owned.fileno())
    except OSError as error:
        if glance_of(owned.fileno()).dev == nsfs():  # a namespace whose kind the kernel does not report
            owned.close()
            message = f"the kind of the namespace {_place(reference)} is unknown: {errno_text(error.errno or 0)}"
            raise NetlinkError(message, errno=error.errno or 0, netns=str(reference)) from None
        kind = 0
    if kind != CLONE_NEWNET:
        owned.close()  # at once, for a traceback keeps this frame
        raise _not_a_namespace(reference, kind)
    return owned


def number_of(ref: HasFileno) -> int:
    """Return the descriptor of an object; NetnsNotFound if it is closed (a file raises ValueError, a socket has -1)."""
    try:
        number = operator.index(ref.fileno())
        if not -1 <= number <= LARGEST_FD:
            raise ValueError("it has no such number")
    except VethError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise NetnsNotFound(f"{ref!r} has no open descriptor: {error}", netns="fd:-1") from None
    return number


def _opened(reference: Reference, *, trusted: bool) -> Descriptor:
    """Open the file of a reference; `trusted` if it is the descriptor of an object, not a number."""
    if reference.kind == "fd":
        fd = int(reference.value)
        if not trusted and is_own(fd):
            raise NoNamespace(_OWN)
        if not trusted and glance_of(fd).dev != nsfs():
            raise NoNamespace  # the ioctl for the kind of a namespace may have another meaning for this file
        return duplicated(fd)
    if reference.kind in ("home", "pid"):
        return opened_file(reference.path)
    if reference.kind == "path" and (number := number_in(reference.path)) is not None and is_own(number):
        raise NoNamespace(_OWN)
    return opened(reference.path)


def open_fd(ref: str | HasFileno | None, resolver: Resolver | None = None) -> int:
    """Open like :func:`open_owned`, but return the number of a close-on-exec descriptor, which the caller closes."""
    with open_owned(ref, resolver) as owned:
        try:
            return os.dup(owned.fileno())
        except OSError as error:
            raise not_opened(Reference("fd", str(owned.fileno())), error) from None


def _resolved(reference: Reference, resolver: Resolver | None) -> Reference:
    if reference.kind != "microservice":
        return reference
    if resolver is None:
        cure = "use Session(resolver=…), or `vethctl agent`, which asks the Docker Engine"
        message = f"microservice {reference.value} cannot be resolved without a resolver: {cure}"
        raise NetnsNotFound(message, netns=str(reference))
    return resolved(reference.value, resolver)


def resolved(label: str, resolver: Resolver) -> Reference:
    """Return the reference of a microservice label.

    Raises errors that the resolver raises on purpose (VethError), InvalidValue for an answer that is not a reference,
    and VethError for any other exception: a resolver is foreign code, whose errors concern only this label.
    """
    try:
        answer = resolver(label)
    except VethError:
        raise
    except Exception as error:
        raise raised_by_resolver(error, f"microservice {label} cannot be resolved") from error
    if not isinstance(answer, str) or not answer:
        raise InvalidValue("netns", answer, f"the answer of the resolver for microservice {label} is not a reference")
    reference = parse(answer)
    if reference.kind == "microservice":
        raise InvalidValue("netns", answer, f"the answer of the resolver for microservice {label} is another label")
    return reference


def raised_by_resolver(error: Exception, what: str) -> VethError:
    """Return a VethError for an exception that a resolver did not raise on purpose; `what` describes the failure."""
    text = " ".join(str(error).split())
    return VethError(f"{what}: its resolver raised {type(error).__name__}: {text}")


def _place(reference: Reference) -> str:
    return f"fd {reference.value}" if reference.kind == "fd" else reference.path


def not_opened(reference: Reference, error: OSError) -> VethError:
    """Return the exception for an OSError from opening `reference`.

    NetnsNotFound means that there is no namespace; any other error, that it is unknown whether there is one.
    """
    number, text, place = error.errno or 0, str(reference), _place(reference)
    if isinstance(error, NoAnswer):
        return NetlinkError(f"{place} cannot be opened: its file system does not answer", errno=number, netns=text)
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
    if number in (errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR):
        return _missing(reference)
    return NetlinkError(f"cannot open {place}: {errno_text(number)}", errno=number, netns=text)


def _missing(reference: Reference) -> VethError:
    place, text = _place(reference), str(reference)
    if not has_procfs():
        message = f"{place} cannot be opened: /proc is not mounted (mount -t proc proc /proc)"
        return NetlinkError(message, errno=errno.ENOENT, netns=text)
    link = link_at(place) if reference.names_file else ""
    if pid := hidden_process(link or place):
        capability = "CAP_SYS_PTRACE"
        message = (
            f"process {pid} exists, but /proc hides it (mount option hidepid): only its own user, or a process with "
            f"{capability}, can open its namespaces"
        )
        return not_permitted(message, capability, errno=errno.EPERM, netns=text)
    # A zombie is still in /proc, but without namespaces (ENOENT from ns_get_path, fs/nsfs.c).
    if reference.kind == "pid":
        return NetnsNotFound(f"process {reference.value} is gone", netns=text)
    if link:
        return NetnsNotFound(f"{place} is {dangling(reference, link)}", netns=text, taken=True)
    return NetnsNotFound(f"{place} does not exist", netns=text)


def dangling(reference: Reference, link: str) -> str:
    """Describe a dangling symbolic link, with a cure."""
    cure = f" (ip netns del {reference.value} removes it)" if reference.kind == "netns" else ""
    return f"a symbolic link to {link}, which does not exist{cure}"


def _forbidden(reference: Reference, number: int) -> VethError:
    path, text = _place(reference), str(reference)
    if reference.kind == "pid":
        # proc_ns_get_link (fs/proc/namespaces.c) asks ptrace_may_access
        capability = "CAP_SYS_PTRACE"
        message = f"the namespaces of process {reference.value} need its own user, or {capability}"
    elif path.startswith("/proc/"):
        capability = "CAP_SYS_PTRACE"
        message = f"{path} needs the process's own user, or {capability}"
    else:
        capability = "CAP_DAC_READ_SEARCH"
        message = f"{path} may not be read: it needs other file permissions, or {capability}"
    return not_permitted(message, capability, errno=number, netns=text)


def _not_a_namespace(reference: Reference, kind: int = 0, why: str = "") -> NetnsNotFound:
    message = f"{_place(reference)} {why or 'is not a namespace'}"
    if kind:
        message = f"{_place(reference)} is a namespace, but not a network namespace"
    elif reference.kind == "netns" and not why:
        cure = f"a leftover file; ip netns del {reference.value}"
        if is_directory(reference.path):
            cure = f"a directory; rmdir {reference.path}"
        message += f" ({cure} removes it)"
    return NetnsNotFound(message, netns=str(reference), taken=True)


def identity(fd: int) -> tuple[int, int]:
    """Return ``(st_dev, st_ino)`` of an open namespace, which is equal exactly if it is the same namespace.

    It is valid while the namespace exists; afterwards, the kernel reuses the number.
    """
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
