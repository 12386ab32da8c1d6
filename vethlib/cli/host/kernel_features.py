"""Features of the kernel that vethlib uses, each tried out in a network namespace that ends afterwards.

A version number is not enough: distributions backport features to older kernels, and sandboxes lack some new ones.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from vethlib import ns
from vethlib._nl.addr import dump_addrs, new_addr, parse_addr
from vethlib._nl.const import NETLINK_GET_STRICT_CHK, NETLINK_ROUTE, SOL_NETLINK
from vethlib._nl.link import NewEnd, create_veth, get_link, parse_link, set_link, set_up
from vethlib._nl.sock import RtnlSocket
from vethlib._primitives import pidfd_open
from vethlib.cli.host.doctor_checks import Finding
from vethlib.errors import VethError
from vethlib.follow.processes import PIDFD_THREAD

__all__ = ["FEATURES", "Feature", "kernel_features"]


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: the Linux version that introduced it, what it does, and what vethlib loses without it.

    `in_namespace`: the probe creates links, in a namespace of its own, which needs privilege.
    """

    since: str
    use: str
    cost: str
    probe: Callable[[], bool]
    in_namespace: bool = False
    needed: bool = False


def kernel_features() -> Iterator[Finding]:
    """Try each feature; without the privilege to do so, rely on the version of the kernel, and report that."""
    for feature in FEATURES:
        detail = ""
        try:
            ok = ns.call_in_new(feature.probe) if feature.in_namespace else feature.probe()
        except (VethError, OSError):
            ok = _numbers(platform.release()) >= _numbers(feature.since)
            detail = " (by the version of the kernel: trying it needs CAP_SYS_ADMIN)"
        detail = (feature.use if ok else feature.cost) + detail
        cure = f"Linux {feature.since} or later"
        yield Finding(f"kernel ≥ {feature.since}", ok, detail, cure, feature.needed, "kernel-too-old")


def _numbers(release: str) -> list[int]:
    return [int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2]]


def _checks_dumps_strictly() -> bool:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        return _works(lambda: sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1))


def _opens_pidfds() -> bool:
    return _works(lambda: os.close(pidfd_open(os.getpid())))


def _opens_pidfds_of_threads() -> bool:
    return _works(lambda: os.close(pidfd_open(os.getpid(), PIDFD_THREAD)))


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _has_cookies() -> bool:
    sock = RtnlSocket()
    try:
        return sock.netns_cookie() != 0
    finally:
        sock.close()


def _marks_addresses() -> bool:
    with _Pair() as pair:
        pair.request(new_addr(pair.index, ip_address("192.0.2.1").packed, 32, proto=99))
        return any(address.proto == 99 for address in pair.socket.dump(dump_addrs(pair.index), parse_addr).bodies)


def _echoes_creations() -> bool:
    with _Pair() as pair:
        return pair.is_echoed


def _renames_links_that_are_up() -> bool:
    with _Pair() as pair:
        pair.request(set_up(pair.index))
        return _works(lambda: pair.request(set_link(pair.index, name=b"renamed")))


class _Pair:
    """A pair in the namespace of the calling thread, which ends afterwards, and a socket there."""

    def __init__(self) -> None:
        self.socket = RtnlSocket()
        a, b = (NewEnd(name, None, None, 1, None) for name in (b"a", b"b"))
        self.is_echoed = bool(self.request(create_veth(a, b, None)))
        self.index = parse_link(self.request(get_link(name=b"a"))[0]).ifindex

    def request(self, message: bytes) -> Sequence[bytes]:
        """Return the bodies of the answers. Raises OSError."""
        (outcome,) = self.socket.exchange([message])
        if outcome.errno:
            raise OSError(outcome.errno, os.strerror(outcome.errno))
        return outcome.bodies

    def __enter__(self) -> _Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


FEATURES = (
    Feature(
        "4.20",
        "filtered dumps, and reading links in another namespace",
        "dumps cannot be filtered, and links in another namespace cannot be read",
        _checks_dumps_strictly,
        needed=True,
    ),
    Feature(
        "5.3",
        "the end of a process is noticed at once (pidfd_open)",
        "the end of a process (pid:42) is noticed up to a second late; nodes run no programs or relays (no pidfd_open)",
        _opens_pidfds,
    ),
    Feature(
        "5.14",
        "a namespace is never taken for an earlier one (SO_NETNS_COOKIE)",
        "a namespace that is removed and created again may be taken for the earlier one (no SO_NETNS_COOKIE)",
        _has_cookies,
    ),
    Feature(
        "5.18",
        "addresses are marked (IFA_PROTO)",
        "addresses are not marked (no IFA_PROTO): if the record is lost, those that leave the configuration stay",
        _marks_addresses,
        in_namespace=True,
    ),
    Feature(
        "6.2",
        "creating a pair returns both indexes",
        "creating a pair does not return its indexes: each pair takes another request",
        _echoes_creations,
        in_namespace=True,
    ),
    Feature(
        "6.2",
        "a link is renamed while it is up",
        "a link that is up goes down for a moment when it is renamed",
        _renames_links_that_are_up,
        in_namespace=True,
    ),
    Feature(
        "6.9",
        "the end of a thread is noticed at once (PIDFD_THREAD)",
        "the end of a thread (path:/proc/42/task/43/ns/net) is noticed up to a second late (no PIDFD_THREAD)",
        _opens_pidfds_of_threads,
    ),
)
