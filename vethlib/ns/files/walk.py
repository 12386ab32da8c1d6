"""Walk a path like the kernel does, and note whose symbolic links lead to its end.

Another user's link can lead anywhere, and elsewhere at any moment. To trust the end of a path, one must know whose
links were followed on the way to this very file: it is walked name by name, each from the descriptor of the previous
one (path_walk, fs/namei.c), and the last descriptor is the result.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from vethlib._primitives import posix
from vethlib.ns.descriptor import Descriptor, duplicated
from vethlib.ns.descriptor import opened as opened_file
from vethlib.ns.syscalls import bind

from .glance import O_PATH, glance_at, glance_of, open_cached

__all__ = ["Step", "Walked", "at_hand", "step", "walk"]

_MAX_LINKS: Final = 40  # MAXSYMLINKS, include/linux/namei.h
_NO_FOLLOW: Final[int] = O_PATH | getattr(os, "O_NOFOLLOW", 0)
_NAMESPACES: Final = re.compile(r"/proc/(\d+)(?:/task/\d+)?/ns")

Step: TypeAlias = Callable[[Descriptor, str, bool], Descriptor]
"""Open a name in a directory with O_PATH: a link itself, or, with True, its target. Raises OSError."""


class Walked(NamedTuple):
    """The end of a path, opened with O_PATH.

    `strangers` are the users, other than root and this user, whose links lead to it; links in /proc are the kernel's.
    `process` is the process of which it is a namespace, if the path ends in /proc; 0 otherwise.
    """

    end: Descriptor
    strangers: set[int]
    process: int


def step(here: Descriptor, name: str, follow: bool) -> Descriptor:
    """Open a name in a directory, even if its file system has to be asked."""
    return _opened(here, name, O_PATH if follow else _NO_FOLLOW)


def _opened(here: Descriptor, name: str, flags: int) -> Descriptor:
    # Opened and owned in one step (descriptor.py).
    opener = partial(posix.open, dir_fd=here.fileno())
    return next(map(Descriptor.fromfd, map(opener, (name,), (flags,))))


def at_hand(devices: Iterable[int]) -> Step:
    """Return a :data:`Step` that asks only these file systems and /proc, or raises BlockingIOError."""
    devices = {*devices, glance_at("/proc").dev}

    def stepped(here: Descriptor, name: str, follow: bool) -> Descriptor:
        if follow:  # a link in procfs, which may lead to a file system that does not answer, unless it is one of these
            if name not in ("net", "self", "thread-self"):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return step(here, name, follow)
        try:
            inner = _cached(here, name)
        except BlockingIOError:
            if glance_of(here.fileno()).dev not in devices:
                raise
            inner = step(here, name, follow)
        glance = glance_of(inner.fileno())
        if stat.S_ISLNK(glance.mode) and glance.dev not in devices:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # reading it asks its file system
        return inner

    return stepped


def _cached(here: Descriptor, name: str) -> Descriptor:
    fds: list[int] = []
    try:
        open_cached(name, fds, follow=False, directory=here.fileno())
        return duplicated(fds[0])
    finally:
        for fd in fds:
            os.close(fd)


def walk(path: str, step: Step = step, most_names: int | None = None) -> Walked:
    """Walk an absolute path. Raises OSError: ELOOP if links lead through more than `most_names` names."""
    here, names = opened_file("/", O_PATH), path.split("/")[::-1]
    strangers: set[int] = set()
    links = beyond = process = 0
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        inner = step(here, name, False)
        if not stat.S_ISLNK(glance_of(inner.fileno()).mode):
            here, process = inner, 0
            continue
        links += 1
        if _is_procfs(inner):
            process = _process_of_namespaces(here)
            here = step(here, name, True)  # the file itself, whatever the text of the link
            continue
        user = os.fstat(inner.fileno()).st_uid
        if user not in (0, os.geteuid()):
            strangers.add(user)
        target = os.readlink("", dir_fd=inner.fileno())
        names += target.split("/")[::-1]
        beyond += sum(name not in ("", ".") for name in target.split("/"))
        if links > _MAX_LINKS or (most_names is not None and beyond > most_names):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            here = opened_file("/", O_PATH)
        process = 0
    return Walked(here, strangers, process)


def _process_of_namespaces(directory: Descriptor) -> int:
    """Return the process whose namespaces are in a directory of /proc; 0 if it is another directory."""
    match = _NAMESPACES.fullmatch(os.readlink(f"/proc/thread-self/fd/{directory.fileno()}"))
    is_ours = match is not None and glance_of(directory.fileno()).dev == os.stat("/proc").st_dev
    return int(match[1]) if match is not None and is_ours else 0


_PROCFS: Final = 0x9FA0  # PROC_SUPER_MAGIC, include/uapi/linux/magic.h
_fstatfs = bind("fstatfs", ctypes.c_int, ctypes.c_char_p)  # it may ask a file system that does not answer


def _is_procfs(file: Descriptor) -> bool:
    """Return whether a file is on a procfs, perhaps that of another pid namespace."""
    answer = ctypes.create_string_buffer(256)
    _fstatfs(file.fileno(), answer)
    return _PROCFS in (int.from_bytes(answer.raw[:size], sys.byteorder) for size in (4, 8))  # f_type, a word
