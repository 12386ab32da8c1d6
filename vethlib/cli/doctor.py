"""doctor: what this host lacks, and how to get it.

Looks, and tries: what it tries happens in a namespace that ends with it.
"""

from __future__ import annotations

import os
import platform
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from vethlib import ns
from vethlib.errors import VethError
from vethlib.links import End, Veth
from vethlib.session import Session

from .exits import DONE, REFUSED
from .output import Output
from .surroundings import Finding, agents, packages, store, variables
from .text import counted, paint

__all__ = ["doctor"]

# include/uapi/linux/capability.h
_CAPABILITIES = {
    "CAP_NET_ADMIN": (12, True, "create and change links"),
    "CAP_NET_BROADCAST": (11, False, "hear of links in other namespaces: agent, IfIndexCache"),
    "CAP_SYS_ADMIN": (21, True, "enter and create network namespaces"),
    "CAP_SYS_PTRACE": (19, False, "open the namespaces of other users' processes (pid:…)"),
}
_PROC = Path("/proc")
_USERNS_SYSCTLS = (
    # (name, the value that forbids, one that allows)
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
_KERNEL = (
    ((4, 20), True, "dumps are filtered, links can be read in another namespace"),
    ((5, 18), False, "addresses we give are marked (IFA_PROTO): without it, an address that leaves the files stays"),
    ((6, 2), False, "a create returns both indexes at once: without it, each pair costs two more requests"),
)


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
        _show(output, findings)
    return DONE if all(one.ok or not one.needed for one in findings) else REFUSED


def _show(output: Output, findings: Sequence[Finding]) -> None:
    wide = max(len(one.what) for one in findings)
    for one in findings:
        mark = paint("✓", "good") if one.ok else paint("✗", "bad" if one.needed else "warning")
        output.line(f"{mark} {one.what:<{wide}}  {one.detail}")
        if not one.ok and one.cure:
            output.line(f"  {'':<{wide}}  → {paint(one.cure, 'heading')}")
    failed = [one for one in findings if not one.ok and one.needed]
    if failed:
        output.line(f"{paint('not ready', 'bad')}: {counted(len(failed), 'check')} failed that vethctl depends on")
    else:
        output.line(f"{paint('ready', 'good')}: vethctl can do its work here")


def _look() -> Iterator[Finding]:
    yield _system()
    if sys.platform != "linux":
        return
    yield from _kernel()
    if not (_PROC / "self/status").exists():
        yield Finding("/proc", False, "is not mounted", "mount -t proc proc /proc")
        return
    yield from _capabilities()
    yield _proc()
    yield _netns_directory()
    yield _user_namespaces()
    yield from packages()
    yield from _engine()
    yield from variables()
    yield from store()
    yield from agents()
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
    status = (_PROC / "self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    for name, (bit, needed, text) in _CAPABILITIES.items():
        cure = f"run as root, or grant it: systemd AmbientCapabilities={name}, docker run --cap-add {name[4:]}"
        yield Finding(name.removeprefix("CAP_"), bool(effective >> bit & 1), text, cure, needed)


def _proc() -> Finding:
    path = _PROC / "sys/net"
    ok = path.is_dir() and not os.statvfs(path).f_flag & os.ST_RDONLY
    cure = "mount /proc, and mount it read-write: docker run --privileged, or --security-opt systempaths=unconfined"
    return Finding(
        "/proc", ok, "IPv6 can be switched on where it is off (/proc/sys/net is writable)", cure, needed=False
    )


def _netns_directory() -> Finding:
    directory = Path("/run/netns")
    mounts = [line.split() for line in (_PROC / "self/mountinfo").read_text().splitlines()]
    shared = any(fields[4] == str(directory) and any(f.startswith("shared:") for f in fields) for fields in mounts)
    if not directory.exists():
        ok, detail = os.access("/run", os.W_OK), "is not there yet, and is made with the first named namespace"
    else:
        ok = os.access(directory, os.W_OK)
        detail = counted(len(ns.names()), "named namespace") + ("" if shared else ", not a shared mount yet")
    return Finding("/run/netns", ok, detail, "run as root: named namespaces are files there")


def _user_namespaces() -> Finding:
    for name, closed, opened in _USERNS_SYSCTLS:
        path = _PROC / "sys" / name.replace(".", "/")
        if path.exists() and path.read_text().strip() == closed:
            detail, cure = "ordinary users cannot run the demo or the tests", f"sysctl -w {name}={opened}"
            return Finding("user namespaces", False, detail, cure, needed=False)
    return Finding("user namespaces", True, "ordinary users can run the demo and tests", needed=False)


def _engine() -> Iterator[Finding]:
    """Whether containers can be microservices."""
    try:
        from vethlib.agent.follow.engine import DEFAULT_URL, engine_version, socket_path
    except ImportError:
        return  # a package that the agent needs, and that was told
    url = os.environ.get("VETHLIB_DOCKER", DEFAULT_URL)
    if url == "off":
        return
    try:
        detail = f"{engine_version(socket_path(url, 'VETHLIB_DOCKER'))}: its containers can be microservices"
    except VethError as error:
        cure = "only microservices need it: start it, name its socket in VETHLIB_DOCKER, or set that to off"
        yield Finding("Docker Engine", False, str(error), cure, needed=False)
    else:
        yield Finding("Docker Engine", True, detail, needed=False)


def _trial() -> Finding:
    """A pair in a namespace that nobody else sees."""
    try:
        pair = ns.call_in_new(_create_pair)
    except VethError as error:
        return Finding("trial", False, f"a pair could not be created: {error}", "see what is missing above")
    return Finding("trial", True, f"a pair was created in a namespace of its own (indexes {pair[0]} and {pair[1]})")


def _create_pair() -> tuple[int, int]:
    with Session() as session:
        a, b = session.create(Veth(End("a", up=False), End("b", up=False)))
        return a.index, b.index
