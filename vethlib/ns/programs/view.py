"""What the programs of a network namespace see of the file system: a mount namespace of their own.

All functions move the calling thread, or change the mount namespace in which it is, so it must be a thread that ends or
becomes a program: a thread can leave its mount namespace, as it can its network namespace, once it shares neither root
nor working directory with other threads (mntns_install, fs/namespace.c), but it cannot return.
"""

from __future__ import annotations

import os

from vethlib.errors import errno_text
from vethlib.ns.isolation import mount_sys
from vethlib.ns.syscalls import CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE, mount, unshare

__all__ = ["CONFIGURATION", "separate", "show_configuration", "show_links"]

CONFIGURATION = "/etc/netns"
"""Directories with files of named namespaces, as ip-netns(8) has them: NAME/resolv.conf is its /etc/resolv.conf."""


def separate() -> None:
    """Move the calling thread to a new mount namespace, in which all mounts are those of the old one. Raises OSError.

    The root and working directory of the thread stay the same. Later mounts outside appear there, not the other way
    round.
    """
    unshare(CLONE_NEWNS)
    mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)


def show_links() -> None:
    """Mount a /sys that shows the links of the calling thread's network namespace, if the kernel permits that.

    Raises OSError if there is no room for it.
    """
    mount_sys()


def show_configuration(name: str) -> list[str]:
    """Mount every file and directory of /etc/netns/`name` over that of the same name in /etc.

    Returns what could not be mounted, usually because /etc has no such file. Symbolic links in /etc are followed.
    """
    own = f"{CONFIGURATION}/{name}"
    try:
        entries = sorted(os.listdir(own))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        return [f"{own} cannot be read: {errno_text(error.errno or 0)}"]
    failed = []
    for entry in entries:
        try:
            mount(os.fsencode(f"{own}/{entry}"), os.fsencode(f"/etc/{entry}"), None, MS_BIND, None)
        except OSError as error:
            failed.append(f"{own}/{entry} cannot be mounted on /etc/{entry}: {errno_text(error.errno or 0)}")
    return failed
