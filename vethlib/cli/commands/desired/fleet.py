"""status --all-labels: one line per agent in an etcd."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from vethlib.agent.stores.opening import is_etcd, read_all_statuses, shown
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import Alive, Entry, Published
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.render.states import SEVERITY, age_of, code_of, reason_of, state_text, two_agents
from vethlib.cli.term.exits import DONE, PENDING, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import natural, paint

__all__ = ["show"]


def show(args: Namespace, output: Output) -> int:
    """Show the agents; return the exit code of the worst."""
    other = args.names or args.state or args.code or args.watch or "status_dir" in args.given
    if other or not is_etcd(args.store or ""):
        hint = "usage: vethctl status --store etcd://HOST:PORT --all-labels"
        raise UsageError(
            "--all-labels can be combined only with --store, which must be an etcd", field="--all-labels", hint=hint
        )
    by_label = read_all_statuses(args.store)
    labels = sorted(by_label, key=natural)
    if output.as_json:
        output.json([_as_dict(label, by_label[label]) for label in labels])
    elif not labels:
        output.remark(f"nothing is configured in {shown(args.store)}")
    else:
        rows = [[paint(title, "heading") for title in ("LABEL", "AGENT", "SINCE", "INTERFACES", "WORST")]]
        output.table(rows + [_row(label, by_label[label]) for label in labels])
    for label in labels:
        published = by_label[label]
        if isinstance(published, Published) and published.others:
            output.warning(two_agents(label, published))
    codes = {_code(published) for published in by_label.values()}
    return next((code for code in (REFUSED, PENDING) if code in codes), DONE)


def _code(published: Published | StoreError) -> int:
    if isinstance(published, StoreError) or published.agent is None:
        return REFUSED
    code = code_of(published.entries.values())
    return PENDING if code == DONE and published.untold else code


def _row(label: str, published: Published | StoreError) -> list[str]:
    if isinstance(published, StoreError):
        return [paint(label, "link"), paint("unknown", "bad"), "", "", str(published)]
    agent, since = paint("no agent", "bad"), ""
    if published.agent is not None:
        agent, since = (
            f"{published.agent.host or '?'} {published.agent.pid or ''}".rstrip(),
            age_of(published.agent.since),
        )
    counts = [f"{count} {state_text(state)}" for state, count in _states(published).items()]
    counts += [f"{len(published.untold)} unknown"] if published.untold else []
    worst = _worst(published)
    return [
        paint(label, "link"),
        agent,
        since,
        ", ".join(counts),
        f"{worst['name']}: {reason_of(worst)}" if worst else "",
    ]


def _as_dict(label: str, published: Published | StoreError) -> dict[str, Any]:
    if isinstance(published, StoreError):
        error = {"code": str(published.code), "message": str(published)}
        return {"label": label, "agent": None, "states": {}, "untold": 0, "worst": None, "error": error}
    worst = _worst(published)
    return {
        "label": label,
        "agent": None if published.agent is None else _agent(published.agent),
        "states": _states(published),
        "untold": len(published.untold),
        "worst": worst and _worst_as_dict(worst),
    }


def _worst_as_dict(worst: Entry) -> dict[str, str]:
    entry = {"name": worst["name"], "state": worst["state"], "reason": reason_of(worst)}
    return entry | {"code": worst.get("code", "")}


def _agent(agent: Alive) -> dict[str, Any]:
    since = None if agent.since is None else datetime.fromtimestamp(agent.since, UTC).isoformat().replace("+00:00", "Z")
    return {"host": agent.host, "pid": agent.pid, "since": since}


def _states(published: Published) -> dict[str, int]:
    """Count the interfaces in each state, the worst last."""
    counts = Counter(entry["state"] for entry in published.entries.values())
    return {state: counts[state] for state in sorted(counts, key=_severity)}


def _worst(published: Published) -> Entry | None:
    """Return an interface in the worst state, if it has a reason."""
    with_reason = [entry for entry in published.entries.values() if reason_of(entry)]
    return max(with_reason, key=lambda entry: _severity(entry["state"]), default=None)


def _severity(state: str) -> int:
    return SEVERITY.index(state) if state in SEVERITY else len(SEVERITY)
