"""Run a command as an ordinary user of a host that restricts user namespaces, as distributions do.

    python -m tests.restricted_host KIND COMMAND…

KIND is the sysctl that restricts them:

* ``user.max_user_namespaces``: the real one, in a user namespace of its own; unshare(2) returns ENOSPC.
* ``kernel.unprivileged_userns_clone``: a patch of Debian's, and what hardened hosts set; unshare(2) returns EPERM.
* ``kernel.apparmor_restrict_unprivileged_userns``: Ubuntu's since 23.10. unshare(2) succeeds, but the process is then
  confined by a profile that denies every capability, so the first mount fails.

Kernels without these patches have no such files, so /proc/sys/kernel is covered by a copy that has; what the kernel
would refuse, a seccomp filter refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final

from tests.capabilities import ORDINARY

__all__ = ["KINDS", "can_refuse", "on_restricted_host", "refuse"]

KINDS: Final = {
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
}

_CLONE_NEWUSER: Final = 0x10000000
_CALLS: Final = (
    *("unshare", "mount", "inotify_init1", "setns", "socket", "prlimit64"),
    *("statfs", "fstatfs", "timerfd_create", "eventfd2", "mknodat", "ioctl", "bind"),
)
_OF_MOST: Final = (97, 40, 26, 268, 198, 261, 43, 44, 85, 19, 33, 29, 200)  # include/uapi/asm-generic/unistd.h
_NUMBERS: Final = {
    "x86_64": (272, 165, 294, 308, 41, 302, 137, 138, 283, 290, 259, 16, 49),
    "aarch64": _OF_MOST,
    "riscv64": _OF_MOST,
    "loongarch64": _OF_MOST,
    "ppc64le": (282, 21, 318, 350, 326, 325, 99, 100, 306, 314, 288, 54, 327),
    "s390x": (303, 21, 324, 339, 359, 334, 99, 100, 319, 323, 290, 54, 361),
}
_KEPT: Final = ("cap_last_cap", "random/boot_id", "osrelease", "ostype", "overflowuid", "overflowgid", "pid_max")


def on_restricted_host(kind: str) -> list[str]:
    """Return the words to put before a command that is to run there."""
    return [sys.executable, "-m", "tests.restricted_host", kind]


def main(kind: str, *command: str) -> None:
    """Become an ordinary user of such a host, and execute the command."""
    if kind == "user.max_user_namespaces":
        forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
        os.execvp("unshare", ["unshare", "-Ur", "sh", "-c", forbid, "sh", *ORDINARY, *command])
    _cover(kind)
    if kind == "kernel.unprivileged_userns_clone":
        refuse("unshare", _CLONE_NEWUSER, errno.EPERM)
    else:
        refuse("mount", None, errno.EACCES)
    os.execvp(ORDINARY[0], [*ORDINARY, *command])


def _cover(kind: str) -> None:
    """Mount a copy of /proc/sys/kernel that has this file, in a mount namespace of this process."""
    from vethlib.ns.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

    kernel = Path("/proc/sys/kernel")
    kept = {name: (kernel / name).read_text() for name in _KEPT}
    unshare(CLONE_NEWNS)
    mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    mount(b"tmpfs", bytes(kernel), b"tmpfs", 0, b"mode=0755")
    for name, text in {**kept, kind.removeprefix("kernel."): KINDS[kind] + "\n"}.items():
        (kernel / name).parent.mkdir(exist_ok=True)
        (kernel / name).write_text(text)


def can_refuse() -> bool:
    """Return whether the numbers of the system calls are known for this machine."""
    return platform.machine() in _NUMBERS


def refuse(call: str, flag: int | None, error: int) -> None:
    """Have the kernel refuse this system call from now on if its first argument has the flag (seccomp(2))."""
    number = _NUMBERS[platform.machine()][_CALLS.index(call)]
    load, jump_if_equal, jump_if_set, leave = 0x20, 0x15, 0x45, 0x06
    allow, refuse = (leave, 0, 0, 0x7FFF_0000), (leave, 0, 0, 0x0005_0000 | error)
    program = [(load, 0, 0, 0), (jump_if_equal, 1, 0, number), allow]  # the number is at offset 0
    if flag is not None:
        program += [(load, 0, 0, 16), (jump_if_set, 1, 0, flag), allow]  # the first argument
    program.append(refuse)
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    for arguments in ((no_new_privileges, 1, 0, 0, 0), (set_seccomp, mode_filter, filter_, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main(*sys.argv[1:])
