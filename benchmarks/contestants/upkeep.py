"""What an agent does about one pair beside others: puts, repairs and rebuilds, in time and in CPU time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from vethlib import Session, ns
from vethlib._nl.const import RTM_DELLINK

from .agent import Agent, listening, put, until_up, wait_for
from .protocol import Report
from .scene import OTHER_MTU

__all__ = ["upkeep"]

TIMES = 8
"""How often each is done: with four pairs, none is repaired so often in a row that the agent backs off."""

REST = 0.3
"""Seconds of CPU time after the effect that belong to it: statuses, and a look that finds nothing left to do."""


def upkeep(report: Report, n: int, queues: int) -> None:
    """Have an agent with n pairs put one more pair, repair one, and rebuild one whose namespace was lost; repeat."""
    with Agent(n, queues) as running, Session() as session:
        running.start()
        report.figures["rss_mib"] = running.manager.memory
        work: dict[str, Callable[[int], float]] = {
            "put": lambda i: put(running, n + i, i % n),
            "drift": lambda i: _drift(session, i % n),
            "lost": lambda i: _lose(session, i % n),
        }
        for name, act in work.items():
            running.resync()
            running.settle()
            user = running.user()
            seconds, spent = zip(*(_measured(running, act, i) for i in range(TIMES)), strict=True)
            report.figures[f"{name}_user_ms"] = (running.user() - user) / TIMES * 1e3
            report.figures[f"{name}_ms"] = statistics.median(seconds) * 1e3
            report.figures[f"{name}_cpu_ms"] = statistics.median(spent) * 1e3


def _measured(running: Agent, act: Callable[[int], float], number: int) -> tuple[float, float]:
    """Return the seconds until the effect, and the CPU time of the agent."""
    before = running.cpu()
    seconds = act(number)
    time.sleep(REST)
    return seconds, running.cpu() - before


def _drift(session: Session, number: int) -> float:
    """Return the seconds from a change of a link until the agent has undone it."""
    with listening() as events:
        begin = time.monotonic()  # the agent may be quicker than the call that has caused its work
        session.set(f"h{number}", mtu=OTHER_MTU)
        return until_up(events, f"h{number}") - begin


def _lose(session: Session, number: int) -> float:
    """Return the seconds from the end of a pair, with its namespace, until it is there again.

    What the kernel needs to end a namespace is not counted: the name of the link is taken until then.
    """
    name = f"h{number}"
    index = session.index(name)
    with listening() as events:
        ns.remove(f"b{number}")
        gone = wait_for(events, lambda kind, link: kind == RTM_DELLINK and link.ifindex == index)
        return until_up(events, name) - gone
