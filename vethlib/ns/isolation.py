"""A private world for a process: its own network, its own /run/netns, its own view in /sys, gone when it ends.

With CAP_SYS_ADMIN that takes two namespaces, network and mount. Without, a user namespace comes first, in which the
caller is root over the other two and over nothing else (user_namespaces(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

from ..errors import NetlinkError, NotPermitted, NotSupported, errno_text
from .syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)

__all__ = ["is_privileged", "isolate", "isolate_names"]

_CAPABILITIES = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (include/uapi/linux/capability.h)


def isolate() -> None:
    """Move this process into network and mount namespaces of its own; root or not, nothing of it shows outside.

    Afterwards there is a loopback that is up and no other link, /run/netns is empty, and /sys/class/net shows our
    links (where the kernel permits mounting sysfs). Everything else in /run is what it was. A caller without
    CAP_SYS_ADMIN and CAP_NET_ADMIN is user 0 from then on, in a user namespace that maps nobody else.

    For a process of one thread: others would stay outside, and with them no user namespace can be entered at all.
    There is no way back. Raises :class:`NotPermitted`, which names the sysctl that forbids it, and
    :class:`NotSupported`.
    """
    try:
        if not is_privileged():
            raise PermissionError(errno.EPERM, "")
        unshare(CLONE_NEWNS | CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:  # which a container's seccomp profile may say, whatever the capabilities are
            raise _failed(error) from None
        _isolate_as_user()
    _mount_private()
    _set_loopback_up()


def is_privileged() -> bool:
    """Whether this process has CAP_SYS_ADMIN and CAP_NET_ADMIN: can make network namespaces and work in them."""
    try:
        with open("/proc/thread-self/status") as status:
            effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return effective & _CAPABILITIES == _CAPABILITIES


def isolate_names() -> None:
    """Move this process into a mount namespace of its own, whose /run/netns is empty; its network stays what it is.

    Needs CAP_SYS_ADMIN. Raises :class:`NotPermitted`, :class:`NetlinkError`.
    """
    try:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _mount_run()
    except OSError as error:
        raise _failed(error) from None


def _isolate_as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
        # Before a gid can be mapped without CAP_SETGID outside, setgroups(2) has to be given up (user_namespaces(7)).
        for file, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/thread-self/{file}", "w") as map_:
                map_.write(line)
    except OSError as error:
        raise _failed(error) from None


def _failed(error: OSError) -> NetlinkError:
    number = error.errno or 0
    if number == errno.EINVAL:
        message = "isolate() has to come first, in a process of one thread: only that can enter a user namespace"
        return NotSupported(message, errno=number)
    if number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        return NotPermitted(f"isolate() needs CAP_SYS_ADMIN, or a user namespace: {_forbidding()}", errno=number)
    return NetlinkError(f"isolate() failed: {errno_text(number)}", errno=number)


_SYSCTLS = (
    # (file, value that forbids, what to set)
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "10000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)


def _forbidding() -> str:
    """The sysctl that forbids user namespaces, or all that could."""
    settings = []
    for file, forbids, allows in _SYSCTLS:
        name = file.replace("/", ".")
        settings.append(f"{name}={allows}")
        try:
            with open(f"/proc/sys/{file}") as value:
                if value.read().strip() == forbids:
                    return f"this host forbids them, sysctl {name}={allows} allows them"
        except OSError:
            pass  # not every kernel has each of them
    return f"this host forbids them; sysctls that may allow them are {', '.join(settings)}"


def _mount_private() -> None:
    try:
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _mount_run()
    except OSError as error:
        raise _failed(error) from None
    _mount_sys()


def _mount_run() -> None:
    """A /run with all that was in it, except that /run/netns is new and empty."""
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount(b"tmpfs", b"/run", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755")
        for entry in os.listdir(f"/proc/thread-self/fd/{old}/."):
            if entry != "netns":
                _take_over(f"/proc/thread-self/fd/{old}/{entry}", f"/run/{entry}")
    finally:
        os.close(old)
    os.mkdir("/run/netns", 0o755)
    if os.path.isdir("/var/run") and not os.path.samefile("/run", "/var/run"):
        mount(b"/run", b"/var/run", None, MS_BIND | MS_REC, None)


def _take_over(old: str, new: str) -> None:
    # Sockets work through a bind mount, so the Docker Engine's and D-Bus's keep answering.
    try:
        mode = os.lstat(old).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(old), new)
            return
        if stat.S_ISDIR(mode):
            os.mkdir(new)
        else:
            os.mknod(new)
        mount(os.fsencode(old), os.fsencode(new), None, MS_BIND | MS_REC, None)
    except OSError:
        pass  # vanished meanwhile, or a mount that may not be copied: it is missed by few


def _mount_sys() -> None:
    """A sysfs of our network namespace: which one it shows is settled when it is mounted (fs/sysfs/mount.c)."""
    kept = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in _MOUNTED_IN_SYS if os.path.ismount(path)]
    try:
        mount(b"sysfs", b"/sys", b"sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
        for path, fd in kept:
            mount(f"/proc/thread-self/fd/{fd}".encode(), path.encode(), None, MS_BIND | MS_REC, None)
    except OSError:
        pass  # a container's /sys is partly masked, and the kernel will not let us see more (mount_too_revealing)
    finally:
        for _, fd in kept:
            os.close(fd)


_MOUNTED_IN_SYS = ("/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing")


def _set_loopback_up() -> None:
    from fcntl import ioctl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
