"""doctor: check this host for everything that vethctl needs.

It also creates a pair, in a namespace that ends afterwards.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vethlib import ns
from vethlib.cli.host.doctor_checks import Finding, agents, packages, record, store, variables
from vethlib.cli.host.event_cost import event_cost
from vethlib.cli.host.kernel_features import kernel_features
from vethlib.cli.term.exits import DONE, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import counted, paint
from vethlib.errors import NetlinkError, NotPermitted, VethError, errno_text
from vethlib.follow import Follower
from vethlib.ifindex import IfIndexCache
from vethlib.links import End, Veth
from vethlib.ns.programs.errand import Errand
from vethlib.ns.syscalls import CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE, mount, ns_owner, unshare
from vethlib.session import Session

__all__ = ["doctor"]

# include/uapi/linux/capability.h
_CAPABILITIES = {
    "CAP_NET_ADMIN": (12, True, "create and change links"),
    "CAP_NET_BROADCAST": (11, False, "receive events from other namespaces: agent, IfIndexCache"),
    "CAP_SYS_ADMIN": (21, True, "enter and create network namespaces"),
    "CAP_SYS_PTRACE": (19, False, "open the namespaces of other users' processes (pid:…)"),
}
_PROC = Path("/proc")
_SLOW_EVENT = 200.0
"""Microseconds for an event that are worth a warning: ten to twenty thousand watched namespaces."""
_USERNS_SYSCTLS = (
    # (name, value that forbids, value that allows)
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def doctor(_args: Namespace, output: Output) -> int:
    """Run all checks; return the exit code."""
    findings = list(_look())
    if output.as_json:
        output.json(
            [
                {
                    "check": finding.what,
                    "ok": finding.ok,
                    "needed": finding.needed,
                    "detail": finding.detail,
                    "cure": "" if finding.ok else finding.cure,
                    "code": finding.problem,
                }
                for finding in findings
            ]
        )
    else:
        _show(output, findings)
    return DONE if all(finding.ok or not finding.needed for finding in findings) else REFUSED


def _show(output: Output, findings: Sequence[Finding]) -> None:
    wide = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = paint("✓", "good") if finding.ok else paint("✗", "bad" if finding.needed else "warning")
        output.line(f"{mark} {finding.what:<{wide}}  {finding.detail}")
        if not finding.ok and finding.cure:
            output.line(f"  {'':<{wide}}  → {paint(finding.cure, 'heading')}")
    failed = [finding for finding in findings if not finding.ok and finding.needed]
    if failed:
        output.line(f"{paint('not ready', 'bad')}: {counted(len(failed), 'required check')} failed")
    else:
        output.line(f"{paint('ready', 'good')}: vethctl works on this host")


def _look() -> Iterator[Finding]:
    yield _system()
    if sys.platform != "linux":
        return
    yield from kernel_features()
    if not (_PROC / "self/status").exists():
        yield Finding("/proc", False, "is not mounted", "mount -t proc proc /proc", code="not-mounted")
        return
    yield from _capabilities()
    yield from _own_namespace()
    yield _proc()
    yield _netns_directory()
    yield _user_namespaces()
    yield from packages()
    yield from _inotify()
    yield _unix_sockets()
    yield from _engine()
    yield from variables()
    yield from store()
    yield from agents()
    yield from record()
    yield _trial()
    yield from _events()
    yield from _listeners()
    yield _netem()


def _system() -> Finding:
    detail = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return Finding("system", sys.platform == "linux", detail, "network namespaces need Linux", code="not-linux")


def _capabilities() -> Iterator[Finding]:
    effective = _effective()
    for name, (bit, needed, text) in _CAPABILITIES.items():
        cure = f"run as root, or grant it: systemd AmbientCapabilities={name}, docker run --cap-add {name[4:]}"
        yield Finding(name.removeprefix("CAP_"), bool(effective >> bit & 1), text, cure, needed, "not-permitted")


def _effective() -> int:
    """Return the effective capabilities of this process, as a bit mask."""
    status = (_PROC / "self/status").read_text(encoding="utf-8", errors="replace")
    return int(status.split("CapEff:")[1].split()[0], 16)


def _own_namespace() -> Iterator[Finding]:
    """Check whether a thread that has left its network namespace could return. (What it lacks is reported already.)"""
    if not ns.is_privileged():
        return
    with ns.current() as own:
        is_foreign = ns_owner(own.fileno()) is None
    if ns.can_enter():
        yield Finding("own namespace", True, "threads can enter other network namespaces and return")
    elif is_foreign:
        detail = (
            "belongs to another user namespace, to which no thread could return, so no other namespace can be entered"
        )
        cure = "start in a network namespace of this user namespace: unshare --net, podman run --network=private"
        yield Finding("own namespace", False, detail, cure, code="not-permitted")
    else:
        cure = "a sandbox (seccomp, AppArmor, SELinux) refuses setns(2): permit it"
        yield Finding("own namespace", False, "no thread can return to it", cure, code="not-permitted")


def _proc() -> Finding:
    path = _PROC / "sys/net"
    try:
        ok = path.is_dir() and not os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:  # a sandbox (seccomp) refuses statfs(2)
        ok = os.access(path / "ipv4/ip_forward", os.W_OK)
    cure = "mount /proc, and mount it read-write: docker run --privileged, or --security-opt systempaths=unconfined"
    return Finding("/proc", ok, "IPv6 can be switched on and off (/proc/sys/net is writable)", cure, False, "read-only")


def _netns_directory() -> Finding:
    directory = Path("/run/netns")
    if not directory.exists():
        ok, detail = os.access("/run", os.W_OK), "does not exist yet; it is created with the first named namespace"
    else:
        ok = os.access(directory, os.W_OK)
        detail = counted(len(ns.names()), "named namespace")
        if not _is_shared_mount(directory):
            detail += ", not a shared mount yet"
    if ok and ns.is_privileged() and (refusal := _refused(_mount)):
        cure = "a sandbox (seccomp, AppArmor, SELinux) refuses mount(2): permit it"
        return Finding("/run/netns", False, f"nothing can be mounted there: {refusal}", cure, code="not-permitted")
    return Finding("/run/netns", ok, detail, "run as root: named namespaces are files there", code="not-permitted")


def _mount() -> None:
    """Mount something, as a named namespace needs it, in a mount namespace of a thread that ends."""

    def mount_privately() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
        # Recursively, because in a user namespace the mounts below that were inherited cannot be left out (EINVAL).
        mount(b"/run", b"/run", None, MS_BIND | MS_REC, None)

    Errand(mount_privately).run()


def _refused(attempt: Callable[[], object]) -> str:
    """Return why a system call is refused; "" if it is not."""
    try:
        attempt()
    except OSError as error:
        return errno_text(error.errno or 0)
    return ""


def _inotify() -> Iterator[Finding]:
    """Check whether files can be followed, if the package for that is installed."""
    if any(finding.what == "inotify_simple" and not finding.ok for finding in packages()):
        return
    from vethlib.follow.inotify import INotify

    try:
        INotify().close()
    except NetlinkError as error:  # a limit is reached, which it names, perhaps for a moment
        yield Finding("inotify", False, str(error), needed=False, code="refused")
    except OSError as error:
        cure = "a sandbox (seccomp) refuses inotify_init1(2): permit it"
        yield Finding("inotify", False, errno_text(error.errno or 0), cure, code="refused")
    else:
        yield Finding("inotify", True, "files and named namespaces can be followed")


def _unix_sockets() -> Finding:
    """Check whether agents can hold the names by which others find them."""
    if refusal := _refused(lambda: socket.socket(socket.AF_UNIX).close()):
        cure = "a sandbox (RestrictAddressFamilies= of systemd, seccomp) refuses them: permit them"
        return Finding(
            "UNIX sockets", False, f"an agent cannot start or be found: {refusal}", cure, code="not-permitted"
        )
    return Finding("UNIX sockets", True, "agents can start and be found")


def _is_shared_mount(directory: Path) -> bool:
    """Whether what is mounted there is shared: that which can be seen, and not one that another mount hides."""
    descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="utf-8").splitlines()
    finally:
        os.close(descriptor)
    mount = next((line.split()[1] for line in about if line.startswith("mnt_id:")), "")
    # Mount points have names that others gave them: any bytes, of which only blanks and line feeds are escaped.
    for line in (_PROC / "self/mountinfo").read_bytes().split(b"\n"):
        fields = line.split(b" ")
        if fields[0] == mount.encode() and fields[4] == os.fsencode(directory):
            return any(field.startswith(b"shared:") for field in fields)
    return False


def _user_namespaces() -> Finding:
    for name, closed, opened in _USERNS_SYSCTLS:
        path = _PROC / "sys" / name.replace(".", "/")
        if path.exists() and path.read_text(encoding="utf-8").strip() == closed:
            detail, cure = "ordinary users cannot run the demo or the tests", f"sysctl -w {name}={opened}"
            return Finding("user namespaces", False, detail, cure, False, "forbidden")
    return Finding("user namespaces", True, "ordinary users can run the demo and tests", needed=False)


def _engine() -> Iterator[Finding]:
    """Check the engine whose containers can be microservices."""
    try:
        from vethlib.follow.docker.engine import DEFAULT_URL, engine_version, socket_path
    except ImportError:
        return  # a missing package, which is reported already
    url = os.environ.get("VETHLIB_DOCKER", DEFAULT_URL)
    if url == "off":
        return
    try:
        detail = f"{engine_version(socket_path(url, 'VETHLIB_DOCKER'))}: its containers can be microservices"
    except VethError as error:
        cure = "only microservices need it: start it, name its socket in VETHLIB_DOCKER, or set that to off"
        yield Finding("Docker Engine", False, str(error), cure, False, getattr(error, "code", "invalid-value"))
    else:
        yield Finding("Docker Engine", True, detail, needed=False)


def _trial() -> Finding:
    """Create a pair in a private namespace."""
    try:
        pair = ns.call_in_new(_create_pair)
    except VethError as error:
        detail = f"a pair could not be created: {error}"
        return Finding("trial", False, detail, "see what is missing above", code="refused")
    return Finding("trial", True, f"a pair was created in a namespace of its own (indexes {pair[0]} and {pair[1]})")


def _events() -> Iterator[Finding]:
    """Watch a private namespace, and follow references, as an agent does."""
    if not ns.can_enter():
        return  # reported already: only the home namespace can be watched
    try:
        with ns.Netns.anonymous() as netns, Session() as session, IfIndexCache(session) as cache, Follower():
            cache.watch(netns)
    except NotPermitted as error:
        bit, _, _ = _CAPABILITIES.get(error.capability, (0, False, ""))
        if not error.capability or _effective() >> bit & 1:  # one that is missing is reported already
            yield _unwatched(error)
    except (VethError, OSError) as error:
        yield _unwatched(error)
    else:
        yield Finding("events", True, "links of other namespaces can be watched, and references followed")


def _unwatched(error: Exception) -> Finding:
    cure = "a sandbox (seccomp) refuses a system call that agents need: permit it"
    return Finding("events", False, f"an agent cannot start: {error}", cure, code="refused")


def _listeners() -> Iterator[Finding]:
    """Measure what programs that listen to other namespaces add to every event of a link on this host."""
    try:
        microseconds = ns.call_in_new(event_cost) * 1e6
    except (VethError, OSError):
        return  # the trial has reported why no pair can be created
    detail = (
        f"each takes the kernel {microseconds:.1f} µs, including 10 to 20 ns for every namespace that a program watches"
    )
    cure = "watch fewer namespaces: agents watch those of their interfaces, caches those that were given"
    yield Finding("link events", microseconds < _SLOW_EVENT, detail, cure, False, "slow")


def _netem() -> Finding:
    """Impair a link in a private namespace."""
    from vethlib.topology import ImpairmentNotSupported, Topology

    try:
        Topology.build("a -- b delay=1ms").close()
    except ImpairmentNotSupported:
        detail = "the kernel has no netem, which delays and loses the packets of topologies in tests"
        cure = "modprobe sch_netem, or pytest --netns-impair=userspace"
        return Finding("netem", False, detail, cure, False, "not-supported")
    except VethError as error:
        return Finding("netem", False, f"could not be tried: {error}", "see what is missing above", False, "refused")
    return Finding("netem", True, "delays and loses the packets of topologies in tests", needed=False)


def _create_pair() -> tuple[int, int]:
    with Session() as session:
        a, b = session.create(Veth(End("a", up=False), End("b", up=False)))
        return a.index, b.index
