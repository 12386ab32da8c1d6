"""The mount namespace of a node: its programs see the files of its creator, except /sys, /run and replaced files.

A thread can change its mount namespace, as it can its network namespace, once it shares neither root nor working
directory with other threads (mntns_install, fs/namespace.c). There is no way back, so only threads that are about to
end may enter another mount namespace. The namespace is created with the first program, in 0.6 ms; entering it takes 0.1
ms.

- /sys shows the links of the network namespace in which it was mounted (fs/sysfs/mount.c).
- /run is a new directory with the same entries: daemons keep pid files and sockets there, and two nodes must not share
  these. Entries with content are the creator's own, so that D-Bus and Docker can be reached; empty directories and
  netns belong to the node, so that `ip netns add` in two nodes does not collide.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from vethlib import ns
from vethlib.errors import NetlinkError, NotPermitted, errno_text
from vethlib.ns.descriptor import make_file, opened
from vethlib.ns.programs.newer import Moment, this_moment
from vethlib.ns.programs.view import separate, show_links
from vethlib.ns.syscalls import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REC,
    UMOUNT_NOFOLLOW,
    bind,
    is_shortage,
    mount,
    umount2,
    unshare,
)

__all__ = ["MARK", "View", "check", "is_missing", "make"]

MARK: Final = re.compile(rb"vethlib-[0-9a-f]{16}")
"""The sources of the mounts that belong to nodes, in /proc/PID/mountinfo."""

_CLONE_FS = 0x200  # include/uapi/linux/sched.h: gives the thread its own root and working directory
_HERE = "/proc/thread-self/ns/mnt"
_OWN = ("netns", "vethlib")
_PUT = "/run/.put"

_setns = bind("setns", ctypes.c_int, ctypes.c_int)


class View:
    """The mount namespace of one node.

    Only the programs of the node, and the processes that these have started, are in it or in copies of it, unless
    somebody has joined such a program in all its namespaces.
    """

    def __init__(self, mounts: ns.Descriptor, own: int, mark: bytes, since: Moment | None) -> None:
        self.since = since
        """A moment before it existed."""
        self.identity = ns.identity(mounts.fileno())
        """The device and inode numbers of the namespace, as :func:`os.stat` returns them for /proc/PID/ns/mnt."""
        self.mark = mark
        """The source of the mounts that belong to the node; copies of the namespace have these, too."""
        self._mounts = mounts
        self._own = {own}  # devices of the directories in /run that belong to the node

    def close(self) -> None:
        """Release the namespace, which ends with the last program in it."""
        self._mounts.close()

    def enter(self, directory: str) -> None:
        """Move the calling thread there. Raises OSError. If `directory` is missing, the working directory is /."""
        unshare(_CLONE_FS)
        _setns(self._mounts.fileno(), CLONE_NEWNS)
        try:
            os.chdir(directory)
        except OSError:
            pass

    def put(self, files: Mapping[str, str]) -> None:
        """Replace files with texts, for the programs of the node only. Moves the calling thread there.

        Only existing files can be replaced, except in /run; symbolic links are followed. Mode and owner stay the same.
        Raises NotPermitted, NetlinkError.
        """
        self.enter("/")
        for path, text in files.items():
            real = os.path.realpath(path)
            try:
                self._cover(real, text)
            except OSError as error:
                raise _refused(path, error) from None

    def _cover(self, path: str, text: str) -> None:
        if path.startswith("/run/") and not os.path.exists(path):
            self._create(path)
        seen = os.stat(path)
        if seen.st_nlink == 0:
            if seen.st_dev in self._own:  # replaced before; the replacement was unlinked, as below
                _write(path, text)
                return
            # A mounted file that has been unlinked since: nothing can be mounted on it, only in its place (cant_mount).
            # On file systems without link counts (FUSE), there is no mount, and none is needed.
            with suppress(OSError):
                umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
        _write(_PUT, text)
        try:
            _make_like(_PUT, seen)
            mount(_PUT.encode(), os.fsencode(path), None, MS_BIND, None)
        finally:
            os.unlink(_PUT)

    def _create(self, path: str) -> None:
        """Create a file in /run, in a directory that belongs to the node; both are readable for everybody."""
        parent, missing = os.path.dirname(path), list[str]()
        while not os.path.lexists(parent):
            missing.append(parent)
            parent = os.path.dirname(parent)
        if os.stat(parent).st_dev not in self._own:
            self._own.add(_renew(parent, self.mark))
        for directory in reversed(missing):
            _make_directory(directory)
        _write(path, "")
        os.chmod(path, 0o644)


def make() -> View:
    """Create a mount namespace for the calling thread's network namespace, and move the thread there.

    Raises OSError if mounts are forbidden (in a container), or if the process has its own root directory (chroot),
    which it would lose by entering; and NetlinkError if there is currently no room for more mounts or descriptors.
    """
    since = this_moment()
    root = _identity("/")
    # Not the device number: as soon as a program has unmounted /run, the kernel may reuse it for somebody else's mount.
    mark = b"vethlib-" + os.urandom(8).hex().encode()
    try:
        separate()
        own = _mount_run(mark)
        show_links()
        view = View(opened(_HERE), own, mark, since)
    except OSError as error:
        if is_shortage(error):
            number = error.errno or 0
            message = f"cannot create the mount namespace in which the programs of a node run: {errno_text(number)}"
            raise NetlinkError(message, errno=number) from None
        raise
    view.enter("/")
    if _identity("/") != root:
        view.close()
        raise OSError("this process has its own root directory")
    return view


def _identity(path: str) -> tuple[int, int]:
    seen = os.stat(path)
    return seen.st_dev, seen.st_ino


def _mount_run(mark: bytes) -> int:
    own = _renew("/run", mark, without=_OWN)
    _make_directory("/run/netns")
    if os.path.isdir("/var/run") and not os.path.samefile("/run", "/var/run"):
        mount(b"/run", b"/var/run", None, MS_BIND | MS_REC, None)
    return own


def _renew(directory: str, mark: bytes, *, without: Collection[str] = ()) -> int:
    """Cover a directory with a new one, mounted from `mark`, that has the same entries; return its device number."""
    old = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen = os.fstat(old)
        mount(mark, os.fsencode(directory), b"tmpfs", MS_NOSUID | MS_NODEV, None)
        _make_like(directory, seen)
        for entry in os.listdir(f"/proc/thread-self/fd/{old}/."):
            if entry not in without:
                _take_over(f"/proc/thread-self/fd/{old}/{entry}", f"{directory}/{entry}")
    finally:
        os.close(old)
    return os.stat(directory).st_dev


def _make_directory(path: str) -> None:
    os.mkdir(path)
    os.chmod(path, 0o755)  # whatever the umask is


def _make_like(path: str, like: os.stat_result) -> None:
    with suppress(OSError):  # the owner may be unknown in this user namespace
        os.chown(path, like.st_uid, like.st_gid)
    os.chmod(path, stat.S_IMODE(like.st_mode))  # last, because a new owner takes set-user-ID away


def _take_over(old: str, new: str) -> None:
    try:
        seen = os.lstat(old)
        if stat.S_ISLNK(seen.st_mode):
            os.symlink(os.readlink(old), new)
            return
        if not stat.S_ISDIR(seen.st_mode):
            make_file(new, [])
        else:
            os.mkdir(new)
            if not os.listdir(old):
                _make_like(new, seen)
                return
        mount(os.fsencode(old), os.fsencode(new), None, MS_BIND | MS_REC, None)
    except OSError as error:
        if is_shortage(error):
            raise
        # Otherwise, the entry has vanished, or may not be read or copied; few programs need it.


def is_missing(path: str) -> bool:
    """Return whether there is no such file to replace, and it cannot be created either."""
    real = os.path.realpath(path)
    return not os.path.lexists(real) and not real.startswith("/run/")


def check(path: str) -> None:
    """Check that a file can be replaced. Raises NotPermitted, NetlinkError."""
    real = os.path.realpath(path)
    try:
        if stat.S_ISDIR(os.stat(real).st_mode):
            raise IsADirectoryError(errno.EISDIR, "")
    except FileNotFoundError as error:
        if not real.startswith("/run/"):
            raise _refused(path, error) from None
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: str, error: OSError) -> NetlinkError:
    number = error.errno or 0
    cls = NotPermitted if isinstance(error, (PermissionError, FileNotFoundError)) else NetlinkError
    return cls(f"cannot replace {path}: {errno_text(number)}", errno=number)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
