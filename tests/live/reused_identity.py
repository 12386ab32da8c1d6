"""A namespace that is removed and created again under the same identity, with a foreign link in the place of ours."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.witness import ip
from vethlib import Netns, Session, ns
from vethlib._nl import direct, dump, sock
from vethlib._primitives import time
from vethlib.agent import ChangeLink, DeletePair, Plan
from vethlib.agent.planning.operations import Operation, RemoveNetns


def without_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as Linux before 5.14."""
    for module in (direct, dump, sock):
        monkeypatch.setattr(module, "cookie_of", lambda _: 0)


def foreign_link(name: str, index: int, netns: str) -> None:
    """Create a link that another program could have there: with that name and ifindex, without marks."""
    ip(
        "link",
        "add",
        "name",
        name,
        "index",
        str(index),
        "type",
        "veth",
        "peer",
        "name",
        "theirs",
        "index",
        "999",
        netns=netns,
    )


def replaced(name: str) -> None:
    """Remove a namespace and create another with its name."""
    ns.remove(name)
    Netns.create(name).close()


def with_inode_again(name: str, seconds: float = 1.0, *, successor: str = "") -> bool:
    """Remove a namespace and create it again, or `successor`, with its old inode number.

    False if another program has got that.
    """
    names = Path("/run/netns")
    inode = (names / name).stat().st_ino
    ns.remove(name)
    successor = successor or name
    deadline = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            Netns.create(successor).close()
            if (names / successor).stat().st_ino == inode:
                return True
            if time.monotonic() > deadline:
                return False
            held.enter_context(Netns.open(successor))  # so that the next one gets another number
            ns.remove(successor)
            time.sleep(0.005)


def with_identity_again(monkeypatch: pytest.MonkeyPatch, name: str, former: tuple[int, int]) -> None:
    """Behave as if the kernel had given a namespace the identity of a former one, as it does at some time."""
    identity = ns.identity
    with Netns.open(name) as netns:
        own = netns.identity

    def again(fd: int) -> tuple[int, int]:
        return former if (true := identity(fd)) == own else true

    monkeypatch.setattr(ns, "identity", again)


def as_if_reused(session: Session, plan: Plan) -> Plan:
    """Return the plan as if each of its namespaces had had the identity to which its reference leads now."""
    return replace(plan, operations=tuple(_moved(session, each) for each in plan.operations))


def _moved(session: Session, operation: Operation) -> Operation:
    if isinstance(operation, DeletePair | ChangeLink):
        place = session.identity(operation.ref)
        seen = operation.seen
        if seen is not None and seen.ref == operation.ref:
            moved = replace(seen, place=place)
            operation = replace(operation, seen=moved)
            if isinstance(operation, DeletePair):
                operation = replace(operation, marks=tuple((moved.id, mark) for _, mark in operation.marks))
        return replace(operation, place=place)
    if isinstance(operation, RemoveNetns):
        return replace(operation, place=session.identity(operation.ref))
    return operation
