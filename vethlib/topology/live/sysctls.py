"""Sysctls of a node: those of its network namespace, and no others."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from vethlib._primitives import posix
from vethlib.errors import InvalidValue, NetlinkError, NotPermitted, errno_text
from vethlib.ns.descriptor import opened
from vethlib.session.core.refusal import READ_ONLY

__all__ = ["check_sysctl", "read_sysctl", "write_sysctl"]

_NET: Final = "net/"
_PART: Final = re.compile(r"[A-Za-z0-9_.@:+-]+", re.ASCII)
_MISSING: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# ENOENT: a congestion control that this kernel does not have; EIO: a stable_secret that is no address.
_NO_VALUE: Final = (errno.EINVAL, errno.ERANGE, errno.ENOTSUP, errno.ENOENT, errno.EIO)


def check_sysctl(name: str) -> str:
    """Return the path of a sysctl below /proc/sys. Raises InvalidValue unless it belongs to the network.

    As in sysctl(8), the name is "net.ipv4.ip_forward" or "net/ipv4/ip_forward"; a link whose name has a dot takes the
    second form, or a "/" in place of the dot.
    """
    hint = 'must be a sysctl of the network, such as "net.ipv4.ip_forward"; others belong to the whole host'
    if not isinstance(name, str):
        raise InvalidValue("name", name, hint)
    first = re.search(r"[./]", name)
    path = name.translate(str.maketrans("./", "/.")) if first is not None and first[0] == "." else name
    parts = path.split("/")
    if not path.startswith(_NET) or not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise InvalidValue("name", name, hint)
    return path


def read_sysctl(path: str) -> str:
    """Return the value in the calling thread's namespace. Raises InvalidValue if there is none, NotPermitted."""
    try:
        with open(f"/proc/sys/{path}", encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise _refused(path, error) from None


def write_sysctl(path: str, value: str) -> str:
    """Set a value in the calling thread's namespace; return what is read afterwards, or `value` if it cannot be read.

    Raises InvalidValue, NotPermitted, NetlinkError.
    """
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise InvalidValue("value", value, "must be text that UTF-8 can encode") from None
    try:
        with opened(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC) as owned:
            # The kernel would ignore a write of no bytes (vfs_write, fs/read_write.c), so "" is an empty line.
            _write(owned.fileno(), path, value, encoded or b"\n")
            is_readable = os.fstat(owned.fileno()).st_mode & 0o444
    except OSError as error:
        raise _refused(path, error) from None
    return read_sysctl(path) if is_readable else value


def _write(fd: int, path: str, value: str, encoded: bytes) -> None:
    try:
        posix.write(fd, encoded)
    except OSError as error:
        if error.errno in _NO_VALUE:
            raise InvalidValue("value", value, f"{_dotted(path)} does not accept this") from None
        raise


def _dotted(path: str) -> str:
    return path.replace("/", ".")


def _refused(path: str, error: OSError) -> InvalidValue | NetlinkError:
    number = error.errno or 0
    name = _dotted(path)
    if number in _MISSING:
        return InvalidValue("name", name, "this kernel has no such sysctl in a network namespace")
    cls = NotPermitted if number in (errno.EPERM, errno.EACCES, errno.EROFS) else NetlinkError
    hint = f" ({READ_ONLY})" if number == errno.EROFS else ""
    return cls(f"sysctl {name}: {errno_text(number)}{hint}", errno=number)
