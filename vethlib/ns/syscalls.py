"""The system calls of namespaces, bound with ctypes: Python has setns and unshare only since 3.12, and no mount.

Where they do not exist (on another operating system), importing works nevertheless, and a call raises NotSupported.
Numbers are from include/uapi/linux: sched.h, mount.h, nsfs.h; umount's from include/linux/fs.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from collections.abc import Callable
from typing import Any

from vethlib.errors import NotSupported, is_exhaustion

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
    "MS_REMOUNT",
    "MS_SHARED",
    "MS_SLAVE",
    "NS_GET_NSTYPE",
    "UMOUNT_NOFOLLOW",
    "bind",
    "is_shortage",
    "mount",
    "ns_owner",
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
MS_REMOUNT = 1 << 5
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19  # for copies of mounts: they are unmounted with the originals, and so keep no disk busy
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# arch/*/include/uapi/asm/ioctl.h: on these machines, _IOC_NONE is 1 and has three bits.
_IOC_NONE = 1 << 29 if _MACHINE.startswith(("alpha", "mips", "ppc", "sparc")) else 0
_NS_GET_USERNS = _IOC_NONE | 0xB701  # _IO(NSIO, 0x1): a descriptor of the user namespace that owns it
NS_GET_NSTYPE = _IOC_NONE | 0xB703  # _IO(NSIO, 0x3): the CLONE_NEW* flag of the namespace behind a descriptor
_NS_GET_OWNER_UID = _IOC_NONE | 0xB704  # _IO(NSIO, 0x4): the user that created a user namespace


def is_shortage(error: OSError) -> bool:
    """Return whether there is temporarily no room for a namespace or a mount; otherwise, the refusal is permanent."""
    return is_exhaustion(error) or error.errno == errno.ENOSPC  # fs.mount-max, user.max_mnt_namespaces


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
    """Return the C library's function `name`; `errcheck` raises its errors; without one, the function returns -1.

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


def ns_owner(fd: int) -> int | None:
    """Return the user that created the user namespace to which an open namespace belongs.

    None if the kernel does not report it: the user namespace is not in that of this process (ns_get_owner,
    kernel/user_namespace.c).
    """
    from fcntl import ioctl  # Linux only

    from .descriptor import Descriptor

    uid = array("I", [0])
    try:
        with next(map(Descriptor.fromfd, map(ioctl, (fd,), (_NS_GET_USERNS,)))) as owner:
            ioctl(owner.fileno(), _NS_GET_OWNER_UID, uid)
    except OSError:
        return None
    return uid[0]
