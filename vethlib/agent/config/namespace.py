"""References to network namespaces in a configuration, checked and normalized."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum

from vethlib._trusted import MOST_NAMES
from vethlib.errors import InvalidValue
from vethlib.follow.resolver import LABEL_MAX

from .textchecks import check_text

__all__ = ["FIELD_READ", "HOME", "Namespace", "NamespaceType"]

PID_MAX = 4_194_304  # PID_MAX_LIMIT, include/linux/threads.h
PATH_MAX = 4096  # include/uapi/linux/limits.h, with the NUL

_set = object.__setattr__


class NamespaceType(IntEnum):
    """The field of a :class:`Namespace` that is read."""

    PID_REF_NS = 0
    MICROSERVICE_REF_NS = 1
    NAMED_NS = 2
    FILE_REF_NS = 3


FIELD_READ = {
    NamespaceType.PID_REF_NS: "pid",
    NamespaceType.MICROSERVICE_REF_NS: "microservice",
    NamespaceType.NAMED_NS: "name",
    NamespaceType.FILE_REF_NS: "filepath",
}
_REF_PREFIXES = {
    NamespaceType.PID_REF_NS: "pid:",
    NamespaceType.MICROSERVICE_REF_NS: "microservice:",
    NamespaceType.NAMED_NS: "netns:",
    NamespaceType.FILE_REF_NS: "path:",
}


@dataclass(frozen=True, slots=True)
class Namespace:
    """A reference to a network namespace; by default, to the home namespace.

    It is a union by convention: `type` selects the field that is read, and the others are dropped. pid 0 and an empty
    name or filepath mean the home namespace, unless a field that is not read is set, which is an error. `ref` is the
    reference as text: ``\"\"``, ``netns:blue``, ``pid:42``, ``path:/…`` or ``microservice:x``.

    Raises :class:`InvalidValue` for a reference that is invalid.
    """

    type: int = NamespaceType.PID_REF_NS
    _: KW_ONLY
    pid: int = 0
    microservice: str = ""
    name: str = ""
    filepath: str = ""
    ref: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.type, int) or self.type not in FIELD_READ:
            known = ", ".join(f"{kind.name} ({kind.value})" for kind in NamespaceType)
            raise InvalidValue("namespace.type", self.type, f"must be one of {known}")
        kind = NamespaceType(self.type)
        read = FIELD_READ[kind]
        value = getattr(self, read)
        if not value:
            self._check_unread(kind)
        _CHECK_NAMESPACE[kind](value)
        _set(self, "type", kind if value else NamespaceType.PID_REF_NS)
        for other in FIELD_READ.values():
            if other != read:
                _set(self, other, 0 if other == "pid" else "")
        _set(self, "ref", _REF_PREFIXES[kind] + str(value) if value else "")

    @classmethod
    def at(cls, ref: str) -> Namespace:
        """Return the namespace with this `ref`; home if no configuration can have that reference."""
        for kind, prefix in _REF_PREFIXES.items():
            if ref.startswith(prefix):
                value, read = ref.removeprefix(prefix), FIELD_READ[kind]
                return cls(kind, **{read: int(value) if read == "pid" else value})  # type: ignore[arg-type]
        return cls()

    def _check_unread(self, kind: NamespaceType) -> None:
        """Refuse an empty field that `type` reads while another field is set: it would mean the home namespace."""
        for other, unread in FIELD_READ.items():
            if other != kind and (value := getattr(self, unread)):
                reads = f"namespace.type is {kind.name} ({kind.value}), which reads namespace.{FIELD_READ[kind]}"
                cure = f'is not read: {reads}, which is empty; set "type": {other.value} ({other.name})'
                raise InvalidValue(f"namespace.{unread}", value, cure)


def _check_pid(pid: int) -> None:
    if type(pid) is not int or not 0 <= pid <= PID_MAX:
        cure = f"must be a process id from 1 to {PID_MAX}, or 0 for the agent's own namespace"
        raise InvalidValue("namespace.pid", pid, cure)


def _check_microservice(label: str) -> None:
    check_text(label, "namespace.microservice")
    if not 1 <= len(label.encode()) <= LABEL_MAX:
        cure = f"must be the microservice label of a container, of 1 to {LABEL_MAX} bytes"
        raise InvalidValue("namespace.microservice", label, cure)


def _check_netns_name(name: str) -> None:
    check_text(name, "namespace.name")
    if "/" in name or name in (".", "..") or len(name.encode()) > 255:
        cure = "must be the name of a file in /run/netns: up to 255 bytes, without '/', and not '.' or '..'"
        raise InvalidValue("namespace.name", name, cure)
    _check_encodable(name, "namespace.name")


def _check_filepath(path: str) -> None:
    check_text(path, "namespace.filepath")
    if path and not path.startswith("/"):
        raise InvalidValue("namespace.filepath", path, "must be an absolute path, such as /proc/42/ns/net")
    if len(path.encode()) >= PATH_MAX:
        raise InvalidValue("namespace.filepath", path, f"must have at most {PATH_MAX - 1} bytes")
    if path.count("/") > MOST_NAMES:
        raise InvalidValue("namespace.filepath", path, f"must have at most {MOST_NAMES} names, separated by '/'")
    _check_encodable(path, "namespace.filepath")


def _check_encodable(path: str, where: str) -> None:
    """Check that the locale has a path, so that no file of that name has to be opened to find out that it has not."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        cure = f"the locale ({encoding}) lacks a character of this path: use one with UTF-8, such as LC_ALL=C.UTF-8"
        raise InvalidValue(where, path, cure) from None


_CHECK_NAMESPACE: dict[NamespaceType, Callable[..., None]] = {
    NamespaceType.PID_REF_NS: _check_pid,
    NamespaceType.MICROSERVICE_REF_NS: _check_microservice,
    NamespaceType.NAMED_NS: _check_netns_name,
    NamespaceType.FILE_REF_NS: _check_filepath,
}
HOME = Namespace()
