"""Drop capabilities in the calling thread for a while, so that root can see what other users see."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LINUX_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


CAP_NET_BROADCAST, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 11, 19, 21
_NUMBERS = {"net_broadcast": 11, "net_admin": 12, "net_raw": 13, "sys_ptrace": 19, "sys_admin": 21}


@contextmanager
def dropped(*capabilities: int) -> Iterator[None]:
    """A block in which the calling thread, and no other, lacks these capabilities; by default, all."""
    header, sets = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Data * 2)()
    _check(_libc.capget(ctypes.byref(header), sets))
    effective = [one.effective for one in sets]
    kept = ~sum(1 << number for number in capabilities) if capabilities else 0
    _set(header, sets, [effective[0] & kept, effective[1] if capabilities else 0])
    try:
        yield
    finally:
        _set(header, sets, effective)


def keep_only(names: Iterable[str]) -> None:
    """Give up every capability but these ("net_admin"), for good: in a forked child."""
    kept = sum(1 << _NUMBERS[name] for name in names)
    sets = (_Data * 2)()
    sets[0].permitted = kept
    _set(_Header(_LINUX_CAPABILITY_VERSION_3, 0), sets, [kept, 0])


def _set(header: _Header, sets: ctypes.Array[_Data], effective: list[int]) -> None:
    for one, value in zip(sets, effective, strict=True):
        one.effective = value
    _check(_libc.capset(ctypes.byref(header), sets))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# Everything but CAP_SYS_ADMIN: for isolate() that is an ordinary user. Had it nothing at all, root's own number could
# not be mapped (CAP_SETFCAP, kernel/user_namespace.c: verify_root_map), as that of other users can.
ORDINARY = ["setpriv", "--bounding-set=-sys_admin"]
