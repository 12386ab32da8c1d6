"""List every network namespace of a host that has a name or a process, once each.

A namespace that is kept alive only by a descriptor, a socket or a mount elsewhere has neither; lsns(8) does not find
it, either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from vethlib.errors import InvalidValue, check_type

from .descriptor import HERE
from .named import names
from .opening import NETNS_DIR, identity_at, shown_identity
from .reference import parse

__all__ = ["everywhere", "find", "mounted_elsewhere"]

# The root of a mount of nsfs is the namespace itself, as in "net:[4026531840]" (ns_dname, fs/nsfs.c).
# Of its path, only blanks, tabs, line feeds and backslashes are escaped.
_NSFS_MOUNT = re.compile(rb"[^ ]+ [^ ]+ [^ ]+ net:\[(\d+)\] ([^ ]+) ")
# The id of a mount and of its parent, its device (major, minor), root and mount point (proc_pid_mountinfo(5))
_MOUNT = re.compile(rb"(\d+) (\d+) (\d+):(\d+) ([^ ]+) ([^ ]+) ")
_ESCAPED = re.compile(rb"\\([0-7]{3})")

_IDENTITIES = "must be pairs (st_dev, st_ino), as ns.identity() returns them"
_HINTS = 'must be a list of references, such as ["pid:42"]'


def everywhere() -> list[str]:
    """Return references to all namespaces: home (""), named ones by name, and others by a process, as "pid:42".

    Processes that an ordinary user is not allowed to inspect are skipped. This takes 10 µs per process.
    """
    here = os.stat(HERE)
    seen = {(here.st_dev, here.st_ino)}
    refs = [""]
    for name in names():
        if _is_new(identity_at(f"{NETNS_DIR}/{name}"), seen):
            refs.append(f"netns:{name}")
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if _is_new(shown_identity(f"/proc/{pid}/ns/net"), seen):
            refs.append(f"pid:{pid}")
    return refs


def find(identities: Iterable[tuple[int, int]], hints: Iterable[str] = ()) -> dict[tuple[int, int], str]:
    """Find a reference for each of these namespaces, given by identity (st_dev, st_ino), as far as possible.

    `hints` that are processes ("pid:42") are tried first, followed by names, mounts (such as those that container
    engines create) and all processes. No namespace is entered; this takes 10 µs per process, for stat.
    """
    try:
        missing = {(device, inode) for device, inode in identities}
    except (TypeError, ValueError):
        raise InvalidValue("identities", identities, _IDENTITIES) from None
    if isinstance(hints, str) or not isinstance(hints, Iterable):
        raise InvalidValue("hints", hints, _HINTS)
    hints = [check_type(hint, str, "hints", _HINTS) for hint in hints]
    refs: dict[tuple[int, int], str] = {}
    for identity, ref in _where(hints, missing):
        if identity in missing:
            refs[identity] = ref
            missing.discard(identity)
        if not missing:
            break
    return refs


def _where(hints: Iterable[str], missing: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int] | None, str]]:
    """Yield namespaces that may be missing ones, each with a reference, until none is missing."""
    if not missing:
        return
    yield shown_identity(HERE), ""
    for hint in hints:
        if hint.startswith("pid:"):
            yield shown_identity(parse(hint).path), hint
    for name in names():
        yield identity_at(f"{NETNS_DIR}/{name}"), f"netns:{name}"
    for path in _mounts({inode for _, inode in missing}):
        yield identity_at(path), f"path:{path}"
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            yield shown_identity(f"/proc/{entry}/ns/net"), f"pid:{entry}"


def _mounts(inodes: set[int]) -> Iterator[str]:
    """Yield the mount points of namespaces with these inode numbers, without touching any other mount."""
    try:
        with open("/proc/thread-self/mountinfo", "rb") as file:
            for line in file:
                mount = _NSFS_MOUNT.match(line)
                if mount is not None and int(mount[1]) in inodes:
                    yield os.fsdecode(_unescaped(mount[2]))
    except OSError:
        return


def mounted_elsewhere(path: str) -> int:
    """Return a process for which a network namespace is mounted on the file `path`, or 0 if there is none.

    The process has another mount namespace, so that the file looks unused here, and removing it unmounts the namespace
    there (detach_mounts, fs/namespace.c). Processes that this one is not allowed to inspect are skipped.
    """
    directory, _, name = path.rpartition("/")
    here = shown_identity("/proc/thread-self/ns/mnt")
    device = os.stat(directory).st_dev
    seen: set[tuple[tuple[int, int], str]] = set()
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        elsewhere = shown_identity(f"/proc/{entry}/ns/mnt")
        if elsewhere is None or elsewhere == here:
            continue
        try:
            view = elsewhere, os.readlink(f"/proc/{entry}/root")  # mountinfo has only the mounts below its root
            if view in seen:
                continue
            with open(f"/proc/{entry}/mountinfo", "rb") as file:
                mounts = [mount for line in file if (mount := _MOUNT.match(line))]
        except OSError:
            continue  # it has ended
        seen.add(view)
        devices = {mount[1]: os.makedev(int(mount[3]), int(mount[4])) for mount in mounts}
        of_netns = (mount for mount in mounts if mount[5].startswith(b"net:["))
        if any(
            devices.get(mount[2]) == device and _unescaped(mount[6]).endswith(b"/netns/" + os.fsencode(name))
            for mount in of_netns
        ):
            return int(entry)
    return 0


def _unescaped(path: bytes) -> bytes:
    return _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), path)


def _is_new(identity: tuple[int, int] | None, seen: set[tuple[int, int]]) -> bool:
    if identity is None or identity in seen:
        return False
    seen.add(identity)
    return True
