"""status --all-labels: a line for each agent that an etcd knows of."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from vethlib.agent.stores.opening import is_etcd, read_all_statuses, shown
from vethlib.agent.stores.published import Alive, Entry, Published

from .exits import DONE, PENDING, REFUSED
from .output import Output
from .parser import UsageError
from .states import SEVERITY, age_of, code_of, reason_of, state_text, two_agents
from .text import natural, paint

__all__ = ["show"]


def show(args: Namespace, output: Output) -> int:
    """Show them; the exit code is that of the worst of them."""
    if not is_etcd(args.store or "") or args.names or args.watch or args.status_dir:
        hint = "usage: vethctl status --store etcd://HOST:PORT --all-labels"
        raise UsageError("--all-labels is for all that is in an etcd", field="--all-labels", hint=hint)
    found = read_all_statuses(args.store)
    labels = sorted(found, key=natural)
    if output.as_json:
        output.json([_as_dict(label, found[label]) for label in labels])
    elif not labels:
        output.remark(f"nothing is configured in {shown(args.store)}")
    else:
        rows = [[paint(title, "heading") for title in ("LABEL", "AGENT", "SINCE", "INTERFACES", "WORST")]]
        output.table(rows + [_row(label, found[label]) for label in labels])
    for label in labels:
        if found[label].others:
            output.warning(two_agents(label, found[label]))
    codes = {_code(one) for one in found.values()}
    return next((code for code in (REFUSED, PENDING) if code in codes), DONE)


def _code(one: Published) -> int:
    if one.agent is None:
        return REFUSED
    code = code_of(one.entries.values())
    return PENDING if code == DONE and one.untold else code


def _row(label: str, one: Published) -> list[str]:
    agent, since = paint("no agent", "bad"), ""
    if one.agent is not None:
        agent, since = f"{one.agent.host or '?'} {one.agent.pid or ''}".rstrip(), age_of(one.agent.since)
    counts = [f"{count} {state_text(state)}" for state, count in _states(one).items()]
    counts += [f"{len(one.untold)} unknown"] if one.untold else []
    worst = _worst(one)
    return [
        paint(label, "link"),
        agent,
        since,
        ", ".join(counts),
        f"{worst['name']}: {reason_of(worst)}" if worst else "",
    ]


def _as_dict(label: str, one: Published) -> dict[str, Any]:
    worst = _worst(one)
    return {
        "label": label,
        "agent": None if one.agent is None else _agent(one.agent),
        "states": _states(one),
        "untold": len(one.untold),
        "worst": worst and {"name": worst["name"], "state": worst["state"], "reason": reason_of(worst)},
    }


def _agent(agent: Alive) -> dict[str, Any]:
    since = None if agent.since is None else datetime.fromtimestamp(agent.since, UTC).isoformat().replace("+00:00", "Z")
    return {"host": agent.host, "pid": agent.pid, "since": since}


def _states(one: Published) -> dict[str, int]:
    """How many interfaces there are in each state, the worst last."""
    counts = Counter(entry["state"] for entry in one.entries.values())
    return {state: counts[state] for state in sorted(counts, key=_severity)}


def _worst(one: Published) -> Entry | None:
    """An interface in the worst state, with something to say of it."""
    found = [entry for entry in one.entries.values() if reason_of(entry)]
    return max(found, key=lambda entry: _severity(entry["state"]), default=None)


def _severity(state: str) -> int:
    return SEVERITY.index(state) if state in SEVERITY else len(SEVERITY)
