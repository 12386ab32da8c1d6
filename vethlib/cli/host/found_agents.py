"""The agents on this host, found by the sockets that they hold and the directories that they publish in."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from vethlib.errors import VethError

if TYPE_CHECKING:
    from vethlib.agent.process.claim import Holder
    from vethlib.agent.stores.agentreport import AgentReport

__all__ = ["agents_here", "holders", "how_to_start", "own_label", "status_dir_of"]

_STATUS = Path("/run/vethlib")


def agents_here() -> Iterator[tuple[str, int, AgentReport | None]]:
    """Yield label, process ID and published file of each agent on this host."""
    from vethlib.agent.process.rundir import status_directory
    from vethlib.agent.stores.agentreport import read_report

    for label, holder in holders():
        if holder.is_ours:
            yield label, holder.pid, read_report(status_directory(label))


def holders() -> Iterator[tuple[str, Holder]]:
    """Yield the labels for which an agent runs, has run or would be started on this host, with the process of each."""
    from vethlib.agent.process.claim import labels_held
    from vethlib.agent.process.instance import agent_of

    labels = {own_label(), *labels_held("agent"), *(os.listdir(_STATUS) if _STATUS.is_dir() else ())}
    for label in sorted(labels):
        try:
            holder = agent_of(label)
        except VethError:
            continue  # the directory may belong to something else
        if holder is not None:
            yield label, holder


def own_label() -> str:
    """Return the label that an agent started here would have."""
    return os.environ.get("VETHLIB_LABEL") or os.environ.get("MICROSERVICE_LABEL") or "vpp1"


def how_to_start(args: Namespace) -> str:
    """Return what to do if no agent with the label runs: other labels that agents here have, or how to start one."""
    from vethlib.agent.stores.opening import shown

    if others := [label for label, _, _ in agents_here()]:
        return f"agents running here: --label {' and '.join(others)}"
    store = quote(shown(args.store)) if args.store else "dir:PATH"
    return f"start one: vethctl agent --store {store} --label {args.label}"


def status_dir_of(args: Namespace) -> str:
    """Return the directory of --status-dir.

    "" if it comes from the environment only, and the command line names an etcd, which has the statuses, too.
    """
    names_etcd = "store" in args.given and str(args.store).startswith("etcd:")
    return "" if names_etcd and "status_dir" not in args.given else str(args.status_dir)
