"""The system calls of namespaces, bound with ctypes: Python has setns and unshare only since 3.12, mount never.

A C library without them (another operating system) is no reason to fail at import: the call says so instead.
Numbers are from include/uapi/linux: sched.h, mount.h, nsfs.h; umount's from include/linux/fs.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

from ..errors import NotSupported

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "MNT_DETACH",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_REC",
    "MS_SHARED",
    "NS_GET_NSTYPE",
    "UMOUNT_NOFOLLOW",
    "bind",
    "mount",
    "ns_type",
    "raise_errno",
    "umount2",
    "unshare",
]

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

NS_GET_NSTYPE = 0xB703  # _IO(NSIO, 0x3): the CLONE_NEW* flag of the namespace behind a descriptor


def raise_errno(result: int, _function: Any, _arguments: tuple[Any, ...]) -> int:
    """Turn a -1 into the OSError of the call's errno: the errcheck of a function bound by :func:`bind`."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def bind(
    name: str,
    *argtypes: Any,
    keep_gil: bool = False,
    errcheck: Callable[[int, Any, tuple[Any, ...]], int | None] = raise_errno,
) -> Callable[..., Any]:
    """The C library's function `name`, as a callable whose failure `errcheck` raises.

    `keep_gil` is for calls that never sleep: giving the interpreter lock up and getting it back costs more than
    the call does, and up to 5 ms where another thread computes.
    """
    try:
        library = (ctypes.PyDLL if keep_gil else ctypes.CDLL)(None, use_errno=True)
        function = library[name]
    except (AttributeError, OSError, TypeError):  # no such symbol, or (Windows) no C library under that name
        return _absent(name)
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    function.errcheck = errcheck  # type: ignore[assignment]
    return function


def _absent(name: str) -> Callable[..., Any]:
    def absent(*_: object) -> Any:
        raise NotSupported(f"{name}: network namespaces need Linux", errno=errno.ENOSYS)

    return absent


# setns is bound in entering.py, where what has to happen after it differs from use to use.
unshare = bind("unshare", ctypes.c_int)
mount = bind("mount", *[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)
umount2 = bind("umount2", ctypes.c_char_p, ctypes.c_int)

_ioctl = bind("ioctl", ctypes.c_int, ctypes.c_ulong, keep_gil=True)


def ns_type(fd: int) -> int:
    """The CLONE_NEW* flag of the kind of namespace `fd` is open on; OSError (ENOTTY) if it is no namespace."""
    kind: int = _ioctl(fd, NS_GET_NSTYPE)
    return kind
