"""Processes that have not moved to a network namespace of their own yet.

A container runtime, ``unshare -n`` or a test first starts a process, which moves to its own network namespace a moment
later. Until then, it is in the agent's namespace, and a link meant for it would be created there. So a reference to
such a process leads nowhere yet. These references do lead to the home namespace: "", a file or a bind mount; process 1
and the agent itself, which stay there; and a microservice if the resolver knows that it shares the host's network.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from vethlib.agent.reasons import Reason, process_not_moved
from vethlib.follow.questions import shares_home
from vethlib.ns import Reference, parse
from vethlib.ns.opening import process_at
from vethlib.ns.reference import resolved

__all__ = ["not_unshared"]


def not_unshared(ref: str, resolver: Callable[[str], str] | None) -> Reason | None:
    """Return why a reference that leads to the home namespace does not mean it; None if it does.

    Raises VethError if the resolver does not answer (again).
    """
    reference = parse(ref)
    label = ""
    if reference.kind == "microservice":
        label = reference.value
        if resolver is None or shares_home(resolver, label):
            return None
        reference = resolved(label, resolver)
    pid = _process_of(reference)
    if pid in (0, 1, os.getpid()):
        return None
    return process_not_moved(pid, ref, label)


def _process_of(reference: Reference) -> int:
    """Return the process through which a reference leads to a namespace; 0 if there is none."""
    if reference.kind == "pid":
        return int(reference.value)
    return process_at(reference.path) if reference.names_file else 0
