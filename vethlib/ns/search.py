"""List every network namespace of a host that has a name or a process, once each.

A namespace that is kept alive only by a descriptor, a socket or a mount elsewhere has neither; lsns(8) does not find
it, either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from .descriptor import HERE
from .named import names
from .opening import NETNS_DIR, identity_at, shown_identity
from .reference import parse

__all__ = ["everywhere", "find"]

# The root of a mount of nsfs is the namespace itself, as in "net:[4026531840]" (ns_dname, fs/nsfs.c).
# Of its path, only blanks, tabs, line feeds and backslashes are escaped.
_NSFS_MOUNT = re.compile(rb"[^ ]+ [^ ]+ [^ ]+ net:\[(\d+)\] ([^ ]+) ")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


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
    missing = set(identities)
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
                    path = _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), mount[2])
                    yield os.fsdecode(path)
    except OSError:
        return


def _is_new(identity: tuple[int, int] | None, seen: set[tuple[int, int]]) -> bool:
    if identity is None or identity in seen:
        return False
    seen.add(identity)
    return True
