"""Short forms for writing northbound interfaces and applying them to a host."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.witness import seen
from vethlib import Session, ns
from vethlib.agent import Interface, Inverse, Observed, Operation, Plan, inverse, load, plan, read_value
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe

LABEL = "vpp1"
EXAMPLES = Path(__file__).parents[2] / "examples"

Write = Callable[..., str]
"""What the fixture `write` is."""


def value(name: str, peer: str, netns: str = "", **fields: Any) -> dict[str, Any]:
    """Return an interface as in its JSON file."""
    there = {"namespace": {"type": 2, "name": netns}} if netns else {}
    return {"name": name, "enabled": True, "veth": {"peer_if_name": peer}} | there | fields


def interface(name: str, peer: str, netns: str = "", **fields: Any) -> Interface:
    parsed = read_value(value(name, peer, netns, **fields))
    assert parsed.interface is not None, parsed.problems
    return parsed.interface


def example(name: str) -> list[Interface]:
    return list(load([EXAMPLES / name]).interfaces.values())


def planned(
    session: Session, *interfaces: Interface, prune: bool = False, create: bool = True, label: str = LABEL
) -> Plan:
    refs = [one.namespace.ref for one in interfaces]
    observed = observe(session, refs, create_missing=create, interfaces=interfaces)
    return plan({one.name: one for one in interfaces}, observed, label=label, prune=prune)


def applied(session: Session, *interfaces: Interface, **how: Any) -> Execution:
    """Apply, and check that everything was done as planned and that applying again would do nothing."""
    made = planned(session, *interfaces, **how)
    execution = execute(session, made)
    assert execution.errors == []
    assert execution.done == list(made.operations)
    assert planned(session, *interfaces, **how).operations == ()
    return execution


def on_trial(
    session: Session, netns: str, *interfaces: Interface, prune: bool = False
) -> tuple[list[Operation], Inverse]:
    """Apply; returns what was done, and what undoes it in that namespace."""

    def look() -> Observed:
        return observe(session, [f"netns:{netns}"], interfaces=interfaces)

    before = look()
    done = execute(session, planned(session, *interfaces, prune=prune)).done
    return done, inverse(done, before, look(), look())


def indexes(*links: tuple[str, str]) -> list[int]:
    return [seen(name, netns)["ifindex"] for name, netns in links]


def reaches(netns: str, address: str, other: str) -> bool:
    """Return whether a UDP datagram from one namespace arrives at `address` in another, which may get it meanwhile."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.entered(other):
        there = socket.socket(family, socket.SOCK_DGRAM)
    with ns.entered(netns):
        here = socket.socket(family, socket.SOCK_DGRAM)
    with here, there:
        try:
            there.bind((address, 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
        there.settimeout(20)
        here.sendto(b"hello", there.getsockname())
        try:
            return there.recv(16) == b"hello"
        except TimeoutError:
            return False
