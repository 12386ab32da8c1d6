"""doctor: what this host lacks, and how to get it.

Looks, and tries: what it tries happens in a namespace that ends with it.
"""

from __future__ import annotations

import os
import platform
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vethlib import ns
from vethlib.errors import VethError
from vethlib.links import End, Veth
from vethlib.session import Session

from . import DONE, REFUSED
from .output import Output

__all__ = ["doctor"]

# include/uapi/linux/capability.h
_CAPABILITIES = {
    "CAP_NET_ADMIN": (12, True, "create and change links"),
    "CAP_SYS_ADMIN": (21, True, "enter and create network namespaces"),
    "CAP_SYS_PTRACE": (19, False, "open the namespaces of other users' processes (pid:…)"),
}
_KERNEL = (
    ((4, 20), True, "dumps are filtered, links can be read in another namespace"),
    ((5, 18), False, "addresses we give are marked (IFA_PROTO): without it, an address that leaves the files stays"),
    ((6, 2), False, "a create returns both indexes at once: without it, each pair costs two more requests"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `needed` says whether the main job fails without it."""

    what: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True


def doctor(_args: Namespace, output: Output) -> int:
    """Look at everything."""
    findings = list(_look())
    if output.as_json:
        output.json(
            [
                {"check": one.what, "ok": one.ok, "needed": one.needed, "detail": one.detail, "cure": one.cure}
                for one in findings
            ]
        )
    else:
        for one in findings:
            mark = output.paint("✓", "green") if one.ok else output.paint("✗", "red" if one.needed else "yellow")
            output.line(f"{mark} {one.what:<16} {one.detail}")
            if not one.ok and one.cure:
                output.line(f"  {'':<16} {output.paint('→ ' + one.cure, 'bold')}")
    return DONE if all(one.ok or not one.needed for one in findings) else REFUSED


def _look() -> Iterator[Finding]:
    yield _system()
    if sys.platform != "linux":
        return
    yield from _kernel()
    yield from _capabilities()
    yield _proc()
    yield _netns_directory()
    yield _user_namespaces()
    yield _trial()


def _system() -> Finding:
    detail = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return Finding("system", sys.platform == "linux", detail, "network namespaces need Linux")


def _kernel() -> Iterator[Finding]:
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in platform.release().split(".")[:2]]
    for version, needed, text in _KERNEL:
        wanted = ".".join(map(str, version))
        yield Finding(f"kernel ≥ {wanted}", tuple(numbers) >= version, text, "a newer kernel", needed)


def _capabilities() -> Iterator[Finding]:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    for name, (bit, needed, text) in _CAPABILITIES.items():
        cure = f"run as root, or grant it: systemd AmbientCapabilities={name}, docker run --cap-add {name[4:]}"
        yield Finding(name.removeprefix("CAP_"), bool(effective >> bit & 1), text, cure, needed)


def _proc() -> Finding:
    path = "/proc/sys/net"
    ok = os.path.isdir(path) and not os.statvfs(path).f_flag & os.ST_RDONLY
    cure = "mount /proc, and mount it read-write: docker run --privileged, or --security-opt systempaths=unconfined"
    return Finding(
        "/proc", ok, "IPv6 can be switched on where it is off (/proc/sys/net is writable)", cure, needed=False
    )


def _netns_directory() -> Finding:
    directory = Path("/run/netns")
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    shared = any(fields[4] == str(directory) and any(f.startswith("shared:") for f in fields) for fields in mounts)
    if not directory.exists():
        ok, detail = os.access("/run", os.W_OK), "is not there yet, and is made with the first named namespace"
    else:
        ok = os.access(directory, os.W_OK)
        detail = f"{len(ns.names())} named namespaces" + ("" if shared else ", not a shared mount yet")
    return Finding("/run/netns", ok, detail, "run as root: named namespaces are files there")


def _user_namespaces() -> Finding:
    limits = {
        "/proc/sys/user/max_user_namespaces": "0",
        "/proc/sys/kernel/unprivileged_userns_clone": "0",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
    }
    for path, closed in limits.items():
        if Path(path).exists() and Path(path).read_text().strip() == closed:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            other = {"0": "1", "1": "0"}[closed] if "max" not in name else "10000"
            cure = f"sysctl -w {name}={other}"
            return Finding("user namespaces", False, "ordinary users cannot run the demo or tests", cure, needed=False)
    return Finding("user namespaces", True, "ordinary users can run the demo and tests", needed=False)


def _trial() -> Finding:
    """A pair between two namespaces that nobody else sees."""
    try:
        pair = ns.call_in_new(_create_pair)
    except VethError as error:
        return Finding("trial", False, f"a pair could not be created: {error}", "see what is missing above")
    return Finding("trial", True, f"a pair was created in a namespace of its own (indexes {pair[0]} and {pair[1]})")


def _create_pair() -> tuple[int, int]:
    with Session() as session:
        a, b = session.create(Veth(End("a", up=False), End("b", up=False)))
        return a.index, b.index
