"""Isolate a process: its own network, its own names in /run, its own view in /sys, all of which end with it.

With CAP_SYS_ADMIN, this takes two namespaces, network and mount. Without it, a user namespace is created first, in
which the caller is root over the other two and over nothing else (user_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
from collections.abc import Callable

from vethlib._primitives import posix
from vethlib.errors import NetlinkError, NotSupported, errno_text, not_permitted

from .descriptor import HERE, make_file, opened
from .loopback import set_loopback_up
from .syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    bind,
    is_shortage,
    mount,
    unshare,
)

__all__ = ["is_privileged", "isolate", "isolate_names", "mount_sys"]

_MOUNTS_HERE = "/proc/thread-self/ns/mnt"
_SYSCTLS_DIR = b"/proc/sys"
_NAMES, _AGENTS = "netns", "vethlib"  # in /run: named namespaces; the state of the host's agents
_CAPABILITIES = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (include/uapi/linux/capability.h)

_setns = bind("setns", ctypes.c_int, ctypes.c_int)


def isolate() -> None:
    """Move this process into network and mount namespaces of its own, which are not visible outside.

    Afterwards, the only link is a loopback, which is up. /run/netns is empty, and so is /run/vethlib (in which the
    host's agents keep their state). /sys/class/net shows the links of the process (if the kernel permits mounting
    sysfs). A /proc/sys that is read-only, as in a container, can be written. Everything else in /run is unchanged. A
    caller without CAP_SYS_ADMIN and CAP_NET_ADMIN is user 0 from then on, in a user namespace that maps as many other
    ids as newuidmap(1) and /etc/subuid allow, or none; in there, /proc/sys stays read-only.

    The process must have a single thread: others would stay outside, and a process with several threads cannot enter a
    user namespace at all. The move cannot be undone. Raises :class:`NotPermitted`, which names the sysctl that forbids
    it, and :class:`NotSupported`; then the process stays where it was.
    """
    if not (is_privileged() and _isolate_privileged()):
        _isolate_as_user()


def _isolate_privileged() -> bool:
    """Isolate without a user namespace; return False if that is forbidden."""
    try:
        _move(CLONE_NEWNS | CLONE_NEWNET, _settle)
    except NetlinkError:
        raise
    except OSError as error:
        if error.errno != errno.EPERM:  # a seccomp profile of a container may return it, whatever the capabilities are
            raise _failed(error) from None
        return False
    return True


def _settle() -> None:
    _mount_private()
    set_loopback_up()


def _move(kinds: int, settle: Callable[[], None]) -> None:
    """Move the calling thread to new namespaces, and call `settle` there; move it back if that fails."""
    with _WayBack() as way_back:
        unshare(kinds)
        try:
            settle()
        except BaseException:
            way_back.go()
            raise


class _WayBack:
    """The namespaces, the root and the working directory of a thread before it leaves them."""

    def __init__(self) -> None:
        self._netns = opened(HERE)
        self._mounts = opened(_MOUNTS_HERE)
        self._root = opened("/", os.O_PATH | os.O_CLOEXEC)
        self._directory = opened(".", os.O_PATH | os.O_CLOEXEC)

    def __enter__(self) -> _WayBack:
        return self

    def __exit__(self, *_: object) -> None:
        for owner in (self._netns, self._mounts, self._root, self._directory):
            owner.close()

    def go(self) -> None:
        """Move the calling thread back."""
        _setns(self._netns.fileno(), CLONE_NEWNET)
        try:
            _setns(self._mounts.fileno(), CLONE_NEWNS)
            os.fchdir(self._root.fileno())
            os.chroot(".")
            os.fchdir(self._directory.fileno())
        except OSError:
            pass  # without CAP_SYS_CHROOT, it stays in a copy of the previous mounts


def is_privileged() -> bool:
    """Return whether this process has CAP_SYS_ADMIN and CAP_NET_ADMIN, to create namespaces and work in them."""
    try:
        # The name of the program may be cut within a character.
        with open("/proc/thread-self/status", encoding="utf-8", errors="replace") as status:
            effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return effective & _CAPABILITIES == _CAPABILITIES


def isolate_names() -> None:
    """Move this process into a mount namespace of its own, with no names in /run; its network stays the same.

    Needs CAP_SYS_ADMIN. Raises :class:`NotPermitted`, :class:`NetlinkError`.
    """

    def settle() -> None:
        mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
        _mount_run()

    try:
        _move(CLONE_NEWNS, settle)
    except OSError as error:
        raise _failed(error) from None


def _isolate_as_user() -> None:
    from .idmap import Mapper

    uid, gid = os.geteuid(), os.getegid()
    try:
        _try_in_a_child(uid, gid)
        mapper = Mapper(uid, gid)
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
            if not mapper.map():
                _map_own_ids(uid, gid)
        finally:
            mapper.cancel()
    except OSError as error:
        raise _failed(error) from None
    _settle()


def _try_in_a_child(uid: int, gid: int) -> None:
    """Raise OSError if nothing is permitted in a user namespace (AppArmor), because there is no way back from one."""
    if len(os.listdir("/proc/self/task")) > 1:
        return  # then unshare(2) is refused as well
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise the kernel discards the child's exit status
    try:
        _try_in_this_child(uid, gid)
    finally:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _try_in_this_child(uid: int, gid: int) -> None:
    child = posix.fork()
    if child == 0:
        number = errno.EIO
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
            _map_own_ids(uid, gid)
            mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
            number = 0
        except OSError as error:
            number = error.errno or number
        finally:
            os._exit(number)
    try:
        _, status = posix.waitpid(child, 0)
    except ChildProcessError:
        return  # another part of this process has waited for it
    if status:
        number = max(os.waitstatus_to_exitcode(status), 0) or errno.EIO
        raise OSError(number, os.strerror(number))


def _map_own_ids(uid: int, gid: int) -> None:
    # Before a gid can be mapped without CAP_SETGID outside, setgroups(2) has to be given up (user_namespaces(7)).
    for file, line in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/thread-self/{file}", "r+", encoding="utf-8") as map_:
            if file.endswith("_map") and map_.read():
                continue  # newuidmap has worked, but newgidmap has not
            map_.write(line)


def _failed(error: OSError) -> NetlinkError:
    number = error.errno or 0
    if number == errno.EINVAL:
        message = "call isolate() first, while the process has one thread: with more, it cannot enter a user namespace"
        return NotSupported(message, errno=number)
    if number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        message = f"isolate() needs CAP_SYS_ADMIN, or a user namespace: {_forbidding()}"
        return not_permitted(message, "CAP_SYS_ADMIN", errno=number)
    return NetlinkError(f"isolate() failed: {errno_text(number)}", errno=number)


_SYSCTLS = (
    # (file, value that forbids, what to set)
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "10000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)


def _forbidding() -> str:
    """Return the sysctl that forbids user namespaces, or all sysctls that could."""
    settings = []
    for file, forbids, allows in _SYSCTLS:
        name = file.replace("/", ".")
        settings.append(f"{name}={allows}")
        try:
            with open(f"/proc/sys/{file}", encoding="utf-8") as value:
                if value.read().strip() == forbids:
                    return f"this host forbids them; the sysctl {name}={allows} allows them"
        except OSError:
            pass  # not every kernel has all of them
    return f"this host forbids them; sysctls that may allow them are {', '.join(settings)}"


def _mount_private() -> None:
    try:
        mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
        _mount_run()
        _mount_sysctls_writable()
        mount_sys()
    except OSError as error:
        raise _failed(error) from None


def _mount_run() -> None:
    """Mount a copy of /run in which the directories that belong to the host's network are new and empty."""
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount(b"tmpfs", b"/run", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755")
        for entry in os.listdir(f"/proc/thread-self/fd/{old}/."):
            if entry == _AGENTS:
                os.mkdir(f"/run/{entry}", 0o755)
            elif entry != _NAMES:
                _take_over(f"/proc/thread-self/fd/{old}/{entry}", f"/run/{entry}")
    finally:
        os.close(old)
    os.mkdir(f"/run/{_NAMES}", 0o755)
    if os.path.isdir("/var/run") and not os.path.samefile("/run", "/var/run"):
        mount(b"/run", b"/var/run", None, MS_BIND | MS_REC, None)


def _take_over(old: str, new: str) -> None:
    # Sockets work through a bind mount, so those of the Docker Engine and D-Bus keep answering.
    try:
        mode = os.lstat(old).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(old), new)
            return
        if stat.S_ISDIR(mode):
            os.mkdir(new)
        else:
            make_file(new, [])
        mount(os.fsencode(old), os.fsencode(new), None, MS_BIND | MS_REC, None)
    except OSError as error:
        if is_shortage(error):
            raise
        # Otherwise, it has been removed meanwhile, or is a mount that may not be copied; few programs need it.


def _mount_sysctls_writable() -> None:
    """Mount /proc/sys read-write: a container has it read-only, even for the settings of namespaces created there."""
    try:
        flags = os.statvfs(_SYSCTLS_DIR).f_flag
        if flags & os.ST_RDONLY:
            kept = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # statvfs(3) has the same numbers
            mount(b"none", _SYSCTLS_DIR, None, MS_REMOUNT | MS_BIND | kept, None)
    except OSError:
        pass  # in a user namespace, mounts from outside stay read-only (mount_namespaces(7))


def mount_sys() -> None:
    """Mount a sysfs of this network namespace, if the kernel permits that. Raises OSError if there is no room for it.

    It shows the namespace in which it was mounted (fs/sysfs/mount.c).
    """
    kept = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in _MOUNTED_IN_SYS if os.path.ismount(path)]
    try:
        mount(b"sysfs", b"/sys", b"sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
        for path, fd in kept:
            mount(f"/proc/thread-self/fd/{fd}".encode(), path.encode(), None, MS_BIND | MS_REC, None)
    except OSError as error:
        if is_shortage(error):
            raise
        # Otherwise the kernel refuses to reveal what is masked in a container's /sys (mount_too_revealing).
    finally:
        for _, fd in kept:
            os.close(fd)


_MOUNTED_IN_SYS = ("/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing")
