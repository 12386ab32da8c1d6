"""The user and group ids of a user namespace that an ordinary user creates.

A process may only map its own ids (user_namespaces(7)). Programs that drop privileges need more: those of their user
(dnsmasq, tcpdump, nobody), and setgroups(2), which has to be given up with a single group. newuidmap(1) and
newgidmap(1), which are set-user-ID, map the ranges that /etc/subuid and /etc/subgid grant. They have to run outside
the new namespace, so a shell is started before it is created, and waits there.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
from collections.abc import Collection, Iterable

from .programs.start import program_type

__all__ = ["Mapper", "granted", "missing_ids"]

_NEEDED = 65534  # the id of nobody, the highest that programs usually change to
_FILES = {"newuidmap": "/etc/subuid", "newgidmap": "/etc/subgid"}
_SCRIPT = 'read -r _ && newuidmap "$1" $2 && newgidmap "$1" $3'
_PATIENCE = 10.0  # seconds

Range = tuple[int, int]
"""The first id, and the number of ids."""


def granted(lines: Iterable[str], owners: Collection[str]) -> list[Range]:
    """Return the ranges that the lines of /etc/subuid or /etc/subgid grant to a user, who is known by several names."""
    ranges = []
    for line in lines:
        owner, _, text = line.strip().partition(":")
        first, _, count = text.partition(":")
        if owner in owners and first.isdecimal() and count.isdecimal() and int(count):
            ranges.append((int(first), int(count)))
    return ranges


def _arguments(own: int, ranges: Iterable[Range]) -> str:
    """Return the mapping for newuidmap: the user's own id as 0, and the ranges from 1 on."""
    numbers, inside = [0, own, 1], 1
    for first, count in ranges:
        numbers += [inside, first, count]
        inside += count
    return " ".join(map(str, numbers))


class Mapper:
    """The helper that maps ranges of ids for this process, once it is in a user namespace."""

    def __init__(self, uid: int, gid: int) -> None:
        """Start the helper, if there are ranges and programs to map them."""
        self._helper: subprocess.Popen[bytes] | None = None
        ranges = {program: _granted_in(file, _names(uid)) for program, file in _FILES.items()}
        if not all(ranges.values()) or not all(map(shutil.which, _FILES)):
            return
        maps = [_arguments(own, those) for own, those in zip((uid, gid), ranges.values(), strict=True)]
        try:
            self._helper = program_type()(
                ["/bin/sh", "-c", _SCRIPT, "sh", str(os.getpid()), *maps],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            pass

    def map(self) -> bool:
        """Map the ranges; return whether that worked."""
        if self._helper is None:
            return False
        try:
            self._helper.communicate(b"\n", timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.cancel()
        return self._helper.returncode == 0

    def cancel(self) -> None:
        """End the helper if it is not needed."""
        if self._helper is not None:
            with self._helper:
                self._helper.kill()


def missing_ids() -> str:
    """Describe the ids that programs cannot change to in this user namespace, with a cure; "" if there are none."""
    highest = min(_highest("uid_map"), _highest("gid_map"))
    if highest >= _NEEDED:
        return ""
    which = f"no ids above {highest} are" if highest else "no id but 0 is"
    return f"{which} mapped, so that programs cannot change to other users: {_cure(highest)}"


def _cure(highest: int) -> str:
    if missing := [program for program in _FILES if not shutil.which(program)]:
        return f"{' and '.join(missing)} would map more (package uidmap)"
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "this user"
    if highest:
        return f"{' and '.join(_FILES.values())} would have to grant {_NEEDED} or more to {name}"
    return f"{' and '.join(_FILES.values())} grant none to {name}, or newuidmap may not give them"


def _highest(file: str) -> int:
    """Return the highest id that is mapped."""
    try:
        with open(f"/proc/thread-self/{file}", encoding="utf-8") as lines:
            return max((int(first) + int(count) - 1 for first, _, count in map(str.split, lines)), default=0)
    except (OSError, ValueError):
        return _NEEDED  # unknown


def _names(uid: int) -> list[str]:
    try:
        return [str(uid), pwd.getpwuid(uid).pw_name]
    except KeyError:
        return [str(uid)]


def _granted_in(file: str, owners: Collection[str]) -> list[Range]:
    try:
        with open(file, encoding="utf-8") as lines:
            return granted(lines, owners)
    except (OSError, UnicodeDecodeError):
        return []
