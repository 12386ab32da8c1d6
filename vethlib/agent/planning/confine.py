"""Confine unforeseen exceptions: each becomes an error of the interface or value that caused it.

An unforeseen exception rightly ends a library's call. In an agent, it would end the work for all interfaces of a host,
repeatedly. So it is caught wherever the work is for one interface, and that interface is tried again later. The debug
log has the traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any

from vethlib.agent.config.model import Interface
from vethlib.errors import VethError

from .desired import Desired
from .observed import Observed
from .operations import Plan
from .planner import plan

__all__ = ["Unforeseen", "foreseen", "plan_apart"]

_log = logging.getLogger("vethlib.agent")


class Unforeseen(VethError):
    """An unforeseen exception, described by its class and by the work that raised it."""


def foreseen(error: Exception, what: str) -> VethError:
    """Return a VethError for any exception, unchanged if it is one; `what` is the work that failed."""
    if isinstance(error, VethError):
        return error
    _log.debug("cannot %s", what, exc_info=error)
    text = f"cannot {what}: unexpected {type(error).__name__}; the debug log has details"
    return Unforeseen(text)  # without the traceback, whose frames may hold descriptors


def plan_apart(
    desired: Desired,
    interfaces: Mapping[str, Interface],
    observed: Observed,
    error: Exception,
    *,
    leave: Set[str],
    **how: Any,
) -> tuple[Plan, dict[str, VethError]]:
    """Plan the `interfaces` that can be planned, after planning all of them raised `error`.

    The others, and those that have to be judged together with them, are left alone; returns why each cannot be planned.
    Raises the error again if none of them causes it.
    """
    bad: dict[str, VethError] = {}
    for group in _groups(desired, interfaces):
        try:
            plan({name: interfaces[name] for name in group}, observed, **how | {"prune": group, "leave": leave})
        except Exception as single:
            bad |= dict.fromkeys(group, foreseen(single, f"plan {', '.join(sorted(group)[:3])}"))
    if not bad:
        raise error
    good = {name: interface for name, interface in interfaces.items() if name not in bad}
    prune = how.pop("prune")
    if prune is not True:
        prune = prune - bad.keys()
    return plan(good, observed, prune=prune, leave=leave | bad.keys(), **how), bad


def _groups(desired: Desired, interfaces: Mapping[str, Interface]) -> Iterable[set[str]]:
    """Yield groups of interfaces that have to be judged together."""
    left = set(interfaces)
    while left:
        group = {left.pop()}
        while more := (desired.with_peers(group) | desired.rivals(group)) & left:
            group |= more
            left -= more
        yield group
