"""Look at files without asking their file system: only at what the kernel has in memory.

A file system that does not answer (FUSE whose server hangs, NFS whose server is away) blocks every thread that accesses
it. Two calls never ask it:

* openat2 with RESOLVE_CACHED (since Linux 5.12, fs/open.c) gives EAGAIN if a path cannot be walked in memory. With
  O_PATH, the file is not opened either: no FIFO gets a reader, no device a user.
* statx with AT_STATX_DONT_SYNC on such a descriptor returns the device number, which identifies the file system.

All namespaces of a host are on one file system, nsfs, so that the device number distinguishes namespaces from files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from struct import Struct
from typing import Final, NamedTuple

from vethlib.ns.descriptor import HERE
from vethlib.ns.syscalls import bind

__all__ = ["O_PATH", "Glance", "NoAnswer", "glance_at", "glance_of", "is_nsfs", "nsfs", "open_cached"]

O_PATH: Final[int] = getattr(os, "O_PATH", 0) | getattr(os, "O_CLOEXEC", 0)

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_NO_FOLLOW: Final = 0x100 | 0x800 | 0x4000  # AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC
_OF_FD: Final = _AT_EMPTY_PATH | 0x4000
_STATX_BASIC_STATS: Final = 0x7FF
_STATX_MNT_ID_UNIQUE: Final = 0x4000
_WANTED: Final = _STATX_BASIC_STATS | _STATX_MNT_ID_UNIQUE
_ENCODING: Final = sys.getfilesystemencoding()


class _Answer(ctypes.Array[ctypes.c_char]):
    """struct statx (include/uapi/linux/stat.h)."""

    _type_ = ctypes.c_char
    _length_ = 256


# What was answered, mode, ino, ctime in seconds and ns, dev as major and minor number, mount
_FIELDS: Final = Struct("=I24xH2xQ56xqI28xIIQ")
_DEV: Final = slice(136, 144)

# Without an errcheck, which would be half of what a call costs.
_statx = bind(
    "statx", *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, _Answer), keep_gil=True, errcheck=None
)
_has_statx = hasattr(_statx, "argtypes")  # musl has it since 1.2.5


def _is_refused(number: int) -> bool:
    """Return whether an error is that of every statx, which is not called again then: it belongs to no file.

    Sandboxes refuse calls that their filters do not know with EPERM or ENOSYS. After ENOSYS, glibc emulates the call,
    but without these flags: EINVAL.
    """
    global _has_statx
    if number not in (errno.EPERM, errno.ENOSYS, errno.EINVAL):
        return False
    _has_statx = _statx(_AT_FDCWD, b"/", _NO_FOLLOW, 0, _Answer()) == 0
    return not _has_statx


class Glance(NamedTuple):
    """The file at a path, without following a symbolic link, with the fields of stat.

    `link` is the target of a symbolic link, if it was read. `mount` is the unique id of the mount on which the file is
    (Linux 6.8), which no other mount has had since the boot; 0 if it is unknown.
    """

    mode: int
    ino: int
    ctime_ns: int
    dev: int
    link: str = ""
    mount: int = 0


class NoAnswer(TimeoutError):
    """A file system does not answer, and is not asked again until it has answered."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, "its file system does not answer")


def glance_at(path: str, directory: int | None = None) -> Glance:
    """Look at `path`, relative to an open directory. This asks the file system of its directory, but not its own.

    Raises OSError like lstat. Takes 3 µs.
    """
    if _has_statx:
        try:
            return _glance(_AT_FDCWD if directory is None else directory, os.fsencode(path), _NO_FOLLOW)
        except OSError as error:
            if not _is_refused(error.errno or 0):
                raise
    return _from_stat(os.stat(path, dir_fd=directory, follow_symlinks=False))


def glance_of(fd: int) -> Glance:
    """Look at the file of a descriptor, which may have been opened with O_PATH. Raises OSError like fstat."""
    if _has_statx:
        try:
            return _glance(fd, b"", _OF_FD)
        except OSError as error:
            if not _is_refused(error.errno or 0):
                raise
    return _from_stat(os.fstat(fd))


def _glance(fd: int, path: bytes, flags: int) -> Glance:
    answer = _Answer()
    if _statx(fd, path, flags, _WANTED, answer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    answered, mode, ino, seconds, nanoseconds, major, minor, mount = _FIELDS.unpack_from(answer)
    mount = mount if answered & _STATX_MNT_ID_UNIQUE else 0
    return Glance(mode, ino, seconds * 1_000_000_000 + nanoseconds, os.makedev(major, minor), "", mount)


def _from_stat(status: os.stat_result) -> Glance:
    return Glance(status.st_mode, status.st_ino, status.st_ctime_ns, status.st_dev)


_nsfs: tuple[int, bytes] | None = None


def nsfs() -> int:
    """Return the device number of all namespaces. Raises OSError if /proc is not mounted."""
    return _known_nsfs()[0]


def _known_nsfs() -> tuple[int, bytes]:
    global _nsfs
    if _nsfs is None:
        dev = os.stat(HERE).st_dev
        _nsfs = dev, Struct("=II").pack(os.major(dev), os.minor(dev))
    return _nsfs


def is_nsfs(path: str) -> bool:
    """Return whether a namespace of any kind is mounted on `path` itself; False if nothing is there. Takes 2 µs."""
    if _has_statx:
        answer = _Answer()
        missing = _statx(_AT_FDCWD, path.encode(_ENCODING, "surrogateescape"), _NO_FOLLOW, 0, answer)
        dev: object = answer[_DEV]
        if not missing or not _is_refused(ctypes.get_errno()):
            return not missing and dev == (_nsfs or _known_nsfs())[1]
    try:
        return os.lstat(path).st_dev == nsfs()
    except OSError:
        return False


_SYS_OPENAT2: Final = 437  # on all architectures but alpha
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_CACHED: Final = 0x20
_OPEN_HOW: Final = Struct("=QQQ")  # flags, mode, resolve
_FOLLOWING: Final = _OPEN_HOW.pack(O_PATH, 0, _RESOLVE_CACHED)
_NOT_FOLLOWING: Final = _OPEN_HOW.pack(O_PATH | getattr(os, "O_NOFOLLOW", 0), 0, _RESOLVE_CACHED)
_WITHOUT_LINKS: Final = _OPEN_HOW.pack(O_PATH, 0, _RESOLVE_CACHED | _RESOLVE_NO_SYMLINKS)

# Without an errcheck, which would be Python code, in which an interrupt could lose the descriptor.
_syscall = bind(
    "syscall",
    *(ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    keep_gil=True,
    errcheck=None,
)
_can_open_cached: bool | None = None


def open_cached(
    path: str, into: list[int], *, follow: bool = True, links: bool = True, directory: int | None = None
) -> None:
    """Append to `into` an O_PATH descriptor of `path`, relative to an open directory, which is the caller's to close.

    OSError: BlockingIOError (EAGAIN) if a file system would have to be asked, and on kernels without support; without
    `links`, ELOOP if there is a symbolic link anywhere on the path.
    """
    global _can_open_cached
    if _can_open_cached is None:
        # ENOSYS, EINVAL before 5.12, EPERM from an old seccomp filter: all mean that it is not supported.
        (fd,) = map(_syscall, (_SYS_OPENAT2,), (_AT_FDCWD,), (b"/",), (_FOLLOWING,), (_OPEN_HOW.size,))
        _can_open_cached = fd >= 0
        if fd >= 0:
            os.close(fd)
    if not _can_open_cached:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    how = (_FOLLOWING if follow else _NOT_FOLLOWING) if links else _WITHOUT_LINKS
    start = _AT_FDCWD if directory is None else directory
    # All in C, so that the number is in the list as soon as there is a descriptor.
    into.extend(map(_syscall, (_SYS_OPENAT2,), (start,), (os.fsencode(path),), (how,), (_OPEN_HOW.size,)))
    if into[-1] < 0:
        into.pop()
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
