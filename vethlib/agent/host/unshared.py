"""Processes that have not moved to a network namespace of their own yet.

A container runtime, ``unshare -n`` or a test first starts a process, which moves to its own network namespace a moment
later. Until then, it is in the agent's namespace, and a link meant for it would be created there. So a reference to
such a process leads nowhere yet. These references do lead to the home namespace: "", a file or a bind mount; process 1
and the agent itself, which stay there; and a microservice if the resolver knows that it shares the host's network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from vethlib.agent.reasons import Reason, process_not_moved
from vethlib.errors import VethError
from vethlib.follow import SharesHome
from vethlib.ns import Reference, parse
from vethlib.ns.opening import is_namespace_of_process, link_at

__all__ = ["not_unshared"]

_MOST_LINKS = 8
_PROCESS = re.compile(r"/proc/(\d+)/")


def not_unshared(ref: str, resolver: Callable[[str], str] | None) -> Reason | None:
    """Return why a reference that leads to the home namespace does not mean it; None if it does."""
    reference = parse(ref)
    label = ""
    if reference.kind == "microservice":
        label = reference.value
        if resolver is None or _shares_home(resolver, label):
            return None
        try:
            reference = parse(resolver(label))
        except VethError:
            return None
    pid = _process_of(reference)
    if pid in (0, 1, os.getpid()):
        return None
    return process_not_moved(pid, ref, label)


def _process_of(reference: Reference) -> int:
    """Return the process through which a reference leads to a namespace; 0 if there is none."""
    if reference.kind == "pid":
        return int(reference.value)
    if not reference.names_file:
        return 0
    path = reference.path
    for _ in range(_MOST_LINKS):
        if is_namespace_of_process(path):
            match = _PROCESS.match(path)
            return 0 if match is None else int(match[1])
        path = link_at(path)
        if not path:
            break
    return 0


def _shares_home(resolver: object, label: str) -> bool:
    return isinstance(resolver, SharesHome) and resolver.shares_home(label)
