"""status: what the agent of a label says of its interfaces."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing
from shlex import quote

from vethlib.agent.mark import check_label
from vethlib.agent.stores.agentfile import Said
from vethlib.agent.stores.keys import place_of
from vethlib.agent.stores.opening import is_etcd, open_statuses, place, shown
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import Alive, Entry, Published, Statuses
from vethlib.errors import InvalidValue

from . import fleet
from .exits import DONE, INVALID, PENDING, REFUSED
from .output import Output
from .parser import STORES, no_such
from .states import age, age_of, code_of, reason_of, state_text, two_agents
from .surroundings import agents_here
from .text import counted, natural, paint
from .where import ref_text

__all__ = ["status"]

_TICK = 1.0  # seconds between pictures on a terminal, so that ages and the agent's end are shown


def status(args: Namespace, output: Output) -> int:
    """Show them once, or with --watch each time something changes."""
    if args.all_labels:
        return fleet.show(args, output)
    check_label(args.label, "--label")
    if args.store == "memory:":
        raise InvalidValue("--store", args.store, f"what is in another process cannot be asked: give {STORES}")
    names = {place_of(name, args.label, "NAME") for name in args.names}
    statuses = open_statuses(args.store or "", label=args.label, status_dir=args.status_dir)
    if args.watch:
        return _watch(statuses, names, args, output)
    published = statuses.read()
    entries = _chosen(published, names)
    if output.as_json:
        output.json(entries)
    elif entries:
        _show(output, entries)
    return _code(output, entries, names, published, statuses, args)


def _chosen(published: Published, names: set[str]) -> list[Entry]:
    """The entries of these names, or of all, by name as people count; with those that are yet to be written."""
    entries = dict(published.entries)
    if published.agent is not None:
        entries |= {name: _untold(name) for name in published.untold}
    found = [entry for name, entry in entries.items() if not names or name in names]
    return sorted(found, key=lambda entry: natural(entry["name"]))


def _untold(name: str) -> Entry:
    """The status of an interface of which its agent, which is there, has said nothing."""
    entry: Entry = {"name": name, "state": "PENDING", "reason": "the agent has yet to see it"}
    return entry | {"netns": None, "host_name": "", "ifindex": None, "peer": "", "since": None}


def _show(output: Output, entries: list[Entry]) -> None:
    rows = [(paint("INTERFACE", "heading"), "NETNS", "LINK", "PEER", "STATE", "SINCE", "REASON")]
    for entry in entries:
        netns = "" if entry["netns"] is None else ref_text(entry["netns"])
        link = f"{entry['host_name']}#{entry['ifindex']}" if entry["ifindex"] else entry["host_name"]
        state = state_text(entry["state"])
        rows.append((entry["name"], netns, link, entry["peer"], state, age(entry["since"]), reason_of(entry)))
    output.table(rows, roles=("link", "", "", "link"))


def _code(
    output: Output, entries: list[Entry], names: set[str], published: Published, statuses: Statuses, args: Namespace
) -> int:
    """The exit code: of the states that are shown, of an interface that is not there, of an agent that is not, or whose
    store is not.
    """
    known = {*published.entries, *published.untold}
    missing = names - known
    for name in sorted(missing):
        message = f"label {args.label}: {no_such('interface', name, known)}"
        output.error(message, code="no-such-interface", field="NAME", hint="see what there is: vethctl status")
    agent = published.agent
    if agent is None:
        _tell_not_running(output, published, statuses, args)
        return REFUSED
    for warning in _doubts(published, args):
        output.warning(warning)
    if agent.said is not None and agent.said.outage:
        hint = "what is shown is about the configuration that was read last"
        output.error(_outage(agent.said), code="store-down", field="--store", hint=hint)
        return REFUSED
    if not published.entries and not _has_begun(agent, args):
        remark = f"the agent with the label {args.label} (process {agent.pid}) has said nothing yet in {statuses.place}"
        output.remark(f"{remark}; if it was started with another --status-dir, give that")
        return PENDING
    if not entries and not missing:
        output.remark("no interface is configured")
    return INVALID if missing else code_of(entries)


def _has_begun(agent: Alive, args: Namespace) -> bool:
    """Whether an agent that says nothing of interfaces has none: it may have yet to read its store."""
    if is_etcd(args.store or "") and not args.status_dir:
        return True
    return agent.said is not None and agent.said.ready


def _outage(said: Said) -> str:
    return (
        f"the agent's store has been down for {age_of(said.outage_since)}, and the host stays as it is: {said.outage}"
    )


def _doubts(published: Published, args: Namespace) -> Iterator[str]:
    """Where what is asked and what answers may not be the same thing."""
    assert published.agent is not None
    said = published.agent.said
    if is_etcd(args.store or "") and not args.status_dir:
        if published.others:
            yield two_agents(args.label, published)
    elif said is not None and args.store and (asked := place(args.store)) != said.store:
        yield f"the agent of this host with the label {args.label} follows {said.store}, not {asked}"


def _tell_not_running(output: Output, published: Published, statuses: Statuses, args: Namespace) -> None:
    said = f"; this is what the last one said, in {statuses.place}" if published.entries else ""
    if published.untold:
        count = counted(len(published.untold), "interface")
        said += f"; what was built stays, and what has become of {count} is not known"
    others = [label for label, _, _ in agents_here()]
    store = quote(shown(args.store)) if args.store else "dir:PATH"
    start = f"start one: vethctl agent --store {store} --label {args.label}"
    output.error(
        f"no agent with the label {args.label} {statuses.life}{said}",
        code="not-running",
        field="--label",
        hint=f"those that run here have --label {' and '.join(others)}" if others else start,
    )


def _watch(statuses: Statuses, names: set[str], args: Namespace, output: Output) -> int:
    """Show the statuses, and again each time something changes, until interrupted.

    On a terminal the table is drawn anew; anywhere else only what changed is written, a line each.
    """
    terminal = output.is_terminal
    before: dict[str, Entry] = {}
    published = Published({}, None)
    lost = outage = ""
    with closing(statuses.watch(_TICK if terminal else None)) as news:
        for one in news:
            if isinstance(one, StoreError):
                if not terminal and str(one) != lost:
                    output.warning(f"{one}; trying again")
                lost = str(one)
            else:
                if lost and not terminal:
                    output.remark("connected again")
                published, lost = one, ""
            entries = _chosen(published, names)
            if terminal:
                output.clear()
                output.line(_heading(args.label, published, len(entries), lost))
                if entries:
                    _show(output, entries)
            else:
                _show_changes(output, before, {entry["name"]: entry for entry in entries})
                outage = _show_outage(output, outage, published)
            output.flush()
    return DONE


def _heading(label: str, published: Published, count: int, lost: str) -> str:
    agent = published.agent
    alive = paint("no agent is running", "bad")
    if agent is not None:
        alive = paint(f"agent {agent.pid or ''}".rstrip() + (f" on {agent.host}" if agent.host else ""), "good")
    if agent is not None and agent.said is not None and agent.said.outage:
        lost = lost or _outage(agent.said)
    if published.others:
        lost = lost or two_agents(label, published)
    return f"label {label}, {alive}, {counted(count, 'interface')}" + (f"; {paint(lost, 'bad')}" if lost else "")


def _show_outage(output: Output, before: str, published: Published) -> str:
    """Tell of an outage of the agent's store that begins or ends; returns why it is out now."""
    said = None if published.agent is None else published.agent.said
    now = "" if said is None else said.outage
    if now and now != before and said is not None:
        output.warning(_outage(said))
    elif before and not now and published.agent is not None:
        output.remark("the agent's store is back")
    return now


def _show_changes(output: Output, before: dict[str, Entry], entries: Mapping[str, Entry]) -> None:
    # That an agent has seen what changes nothing is no line for people.
    hidden = () if output.as_json else ("config_revision", "attempt", "next_try", "since")
    now = {name: {key: entry[key] for key in entry if key not in hidden} for name, entry in entries.items()}
    for name in sorted(before.keys() - now.keys(), key=natural):
        _show_change(output, {"name": name, "state": "removed", "reason": ""})
        del before[name]
    for name, entry in now.items():
        if before.get(name) != entry:
            _show_change(output, entry)
            before[name] = entry


def _show_change(output: Output, entry: Entry) -> None:
    if output.as_json:
        output.line(json.dumps(entry))
        return
    reason = reason_of(entry)
    output.line(f"{paint(entry['name'], 'link')} {state_text(entry['state'])}{' ' + reason if reason else ''}")
