"""Shared by the tests of the configurator: waiting for it by its descriptor, and short forms for desired states."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.needs import kernel_is
from tests.patience import Patience
from tests.reasons import in_codes
from tests.witness import ip
from vethlib import ns
from vethlib._nl.const import NLMSG_MIN_TYPE, RTM_GETLINK, RTM_NEWNSID
from vethlib._nl.sock import RtnlSocket
from vethlib.agent import Interface, Namespace, NamespaceType, State
from vethlib.agent.reasons import ReasonCode
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.status import Status
from vethlib.ns.syscalls import MNT_DETACH, MS_BIND, mount, umount2

from .applying import interface

Statuses = dict[str, "Status | None"]

NETNS_DIR = Path("/run/netns")
SOON = 0.05  # seconds within which an event must have had its effect


def by_pid(pid: int) -> Namespace:
    return Namespace(pid=pid)


def by_file(path: str | Path) -> Namespace:
    return Namespace(NamespaceType.FILE_REF_NS, filepath=str(path))


def by_label(label: str) -> Namespace:
    return Namespace(NamespaceType.MICROSERVICE_REF_NS, microservice=label)


def placed(name: str, peer: str, namespace: Namespace, **fields: Any) -> Interface:
    """Return an enabled interface in a namespace that is not a named namespace."""
    return Interface(name, peer, enabled=True, namespace=namespace, **fields)


def pair(a: str, b: str, at: str = "", bt: str = "", **fields: Any) -> tuple[Interface, Interface]:
    """Return two interfaces that point at each other, both with these fields."""
    return interface(a, b, at, **fields), interface(b, a, bt, **fields)


def put(configurator: Configurator, *interfaces: Interface) -> None:
    for one in interfaces:
        configurator.put(one)


# --- waiting


def calm(configurator: Configurator) -> None:
    """Settle, and wait until links that were set up have reported their carrier (linkwatch).

    This is for tests that count reports from then on. Their links have no IPv6, which causes reports of its own.
    """

    def have_carrier() -> bool:
        up = {one.name: one for one in configurator.status() if one.link is not None and one.link.up}
        return all(one.link.operstate == "up" for one in up.values() if one.link and one.peer in up)

    settle(configurator)
    until(configurator, have_carrier)
    settle(configurator)


def readable(configurator: Configurator, within: float = 0) -> bool:
    return bool(select.select([configurator], [], [], within)[0])


def settle(configurator: Configurator, *, tentative: bool = False) -> Statuses:
    """Poll until there is nothing to do now; return all that was reported.

    Unless `tentative`, this also waits until addresses are usable: even without detection, an address is tentative
    until a work queue of the kernel has processed it.
    """
    told: Statuses = {}
    patience = Patience(60.0)
    while True:
        told |= configurator.poll(0)
        if not readable(configurator) and configurator.due() != 0:
            reasons = {reason.code for status in configurator.status() for reason in status.reasons}
            if tentative or ReasonCode.ADDRESS_TENTATIVE not in reasons:
                return told
            readable(configurator, 0.1)
        assert not patience.is_over(), f"it does not come to rest: {states(configurator)}"


def until(configurator: Configurator, condition: Callable[[], object], within: float = 60.0) -> float:
    """Wait as an event loop does until `condition` holds; return how many seconds that took.

    Tests of how soon it does give their own `within`.
    """
    began = time.monotonic()
    patience = Patience(within)
    while not condition():
        assert not patience.is_over(), f"not within {within} s: {states(configurator)}"
        wait, due = min(patience.left, 0.5), configurator.due()
        readable(configurator, wait if due is None else min(wait, due))
        configurator.poll(0)
    return time.monotonic() - began


def state_of(configurator: Configurator, name: str) -> str:
    """Return ``PENDING: peer-not-configured(veth2)``; "" for an unknown interface."""
    return "".join(map(in_codes, configurator.status(name)))


def states(configurator: Configurator) -> dict[str, str]:
    return {status.name: state_of(configurator, status.name) for status in configurator.status()}


def is_state(configurator: Configurator, state: State, *names: str) -> Callable[[], bool]:
    return lambda: all([one.state for one in configurator.status(name)] == [state] for name in names)


def configured(configurator: Configurator, *names: str) -> Callable[[], bool]:
    """Return a condition that holds when all of these interfaces are CONFIGURED."""
    return is_state(configurator, State.CONFIGURED, *names)


def best_of(times: int, one: Callable[[], float]) -> float:
    """Return the quickest of several tries: on a busy machine, any of them may have to wait for a CPU."""
    best = one()
    for _ in range(times - 1):
        if best < SOON / 2:
            break
        best = min(best, one())
    return best


def without_ipv6(*netns: str) -> None:
    """Disable IPv6 on future links, because the kernel adds and reports its addresses at unpredictable times."""
    for one in netns:
        with ns.entered(one):
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def without_detection(*netns: str) -> None:
    """Make IPv6 addresses of future links usable at once, so that CONFIGURED does not have to wait for them."""
    for one in netns:
        with ns.entered(one):
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")


# --- what others do


def bind(source: str | Path, target: str | Path) -> None:
    mount(os.fsencode(source), os.fsencode(target), b"none", MS_BIND, None)


def unbind(target: str | Path) -> None:
    umount2(os.fsencode(target), MNT_DETACH)


def foreign(name: str, netns: str = "", peer: str = "theirs") -> None:
    """Create a veth pair in one namespace that nobody manages."""
    ip("link", "add", "name", name, "type", "veth", "peer", "name", peer, netns=netns)


def reach_in(netns: str) -> None:
    """A pair of others, up: inside at home, which goes when the namespace ends, and o1 there."""
    ip("link", "add", "name", "inside", "type", "veth", "peer", "name", "o1", "netns", netns)
    ip("link", "set", "dev", "inside", "up")
    ip("link", "set", "dev", "o1", "up", netns=netns)


def quickly(*lines: str, netns: str = "") -> None:
    """Run several commands of ``ip`` in one process: ``ip -batch``."""
    with ns.entered(netns):
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True, capture_output=True)


def renaming(name: str, to: str) -> list[str]:
    """Return lines for `ip -batch` that rename a link, which must not be up before Linux 6.2."""
    line = f"link set dev {name} name {to}"
    return [line] if kernel_is("6.2") else [f"link set dev {name} down", line, f"link set dev {to} up"]


# --- what is sent


@contextmanager
def requests(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Record the types of the rtnetlink requests that sessions send meanwhile and that change something.

    Reading is RTM_GET…, whose number's two low bits are 2 (rtnl_msgtype_kind, include/net/rtnetlink.h). Assigning a
    netnsid in one of a cache's own namespaces changes nothing on the host.
    """
    sent: list[int] = []
    send = RtnlSocket._send

    def counted(self: RtnlSocket, data: bytes | bytearray) -> None:
        offset = 0
        while offset < len(data):
            kind = int.from_bytes(data[offset + 4 : offset + 6], "little")
            if kind >= NLMSG_MIN_TYPE and kind & 3 != RTM_GETLINK & 3 and kind != RTM_NEWNSID:
                sent.append(kind)
            offset += (int.from_bytes(data[offset : offset + 4], "little") + 3) & ~3
        send(self, data)

    with patch.context() as inner:
        inner.setattr(RtnlSocket, "_send", counted)
        yield sent


def pending(configurator: Configurator, *interfaces: str) -> Callable[[], bool]:
    return is_state(configurator, State.PENDING, *interfaces)
