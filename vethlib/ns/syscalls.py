"""The system calls of namespaces, bound with ctypes: Python has setns and unshare only since 3.12, mount never.

Without them (another operating system), importing works nevertheless, and the call raises NotSupported.
Numbers are from include/uapi/linux: sched.h, mount.h, nsfs.h; umount's from include/linux/fs.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

from vethlib.errors import NotSupported

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

_MACHINE = os.uname().machine if hasattr(os, "uname") else ""

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

# arch/*/include/uapi/asm/ioctl.h: on these machines, _IOC_NONE is 1 and has three bits.
_IOC_NONE = 1 << 29 if _MACHINE.startswith(("alpha", "mips", "ppc", "sparc")) else 0
NS_GET_NSTYPE = _IOC_NONE | 0xB703  # _IO(NSIO, 0x3): the CLONE_NEW* flag of the namespace behind a descriptor


def raise_errno(result: int, _function: Any, _arguments: tuple[Any, ...]) -> int:
    """Raise the OSError of errno if a call has returned -1: the errcheck of a function bound by :func:`bind`."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def bind(
    name: str,
    *argtypes: Any,
    keep_gil: bool = False,
    errcheck: Callable[[int, Any, tuple[Any, ...]], int | None] | None = raise_errno,
) -> Callable[..., Any]:
    """Return the C library's function `name`; `errcheck` raises its errors, or, if None, it returns -1.

    `keep_gil` is for calls that never sleep: releasing and acquiring the interpreter lock takes longer than such a
    call, and up to 5 ms if another thread computes.
    """
    try:
        library = (ctypes.PyDLL if keep_gil else ctypes.CDLL)(None, use_errno=True)
        function = library[name]
    except (AttributeError, OSError, TypeError):  # no such symbol, or (Windows) no C library under that name
        return _absent(name)
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    if errcheck is not None:
        function.errcheck = errcheck  # type: ignore[assignment]
    return function


def _absent(name: str) -> Callable[..., Any]:
    def absent(*_: object) -> Any:
        raise NotSupported(f"{name}: network namespaces need Linux", errno=errno.ENOSYS, request=name)

    return absent


# setns is bound in entering.py, with a different errcheck for each use.
unshare = bind("unshare", ctypes.c_int)
mount = bind("mount", *[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)
umount2 = bind("umount2", ctypes.c_char_p, ctypes.c_int)

# Without an errcheck, which would be a third of what a call costs.
_ioctl = bind("ioctl", ctypes.c_int, ctypes.c_ulong, keep_gil=True, errcheck=None)


def ns_type(fd: int) -> int:
    """Return the CLONE_NEW* flag of an open namespace. Raises OSError (ENOTTY) if `fd` is not a namespace."""
    kind: int = _ioctl(fd, NS_GET_NSTYPE)
    return raise_errno(kind, None, ()) if kind < 0 else kind
