"""status: what the agent of a label says of its interfaces."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from datetime import datetime
from typing import Any

from vethlib.agent.inotify import INotify, flags
from vethlib.agent.instance import running, status_directory
from vethlib.agent.mark import check_label

from .exits import DONE, INVALID, PENDING, REFUSED
from .output import Output
from .text import counted, natural, paint
from .where import ref_text

__all__ = ["status"]

_KEYS = {"name", "state", "reason", "netns", "host_name", "ifindex", "peer", "since"}

_CHANGES = flags.MOVED_TO | flags.DELETE | flags.CLOSE_WRITE | flags.DELETE_SELF

_ROLES = {"CONFIGURED": "good", "PENDING": "warning", "RETRYING": "bad", "FAILED": "bad", "INVALID": "bad"}


def status(args: Namespace, output: Output) -> int:
    """Show them once, or with --watch each time something changes."""
    check_label(args.label, "--label")
    directory = args.status_dir or status_directory(args.label)
    if args.watch:
        return _watch(directory, args, output)
    entries = _read(directory, args.names)
    pid = running(args.label)
    if output.as_json:
        output.json(entries)
    else:
        _show(output, entries)
    return _code(output, entries, args, pid, directory)


def _read(directory: str, names: list[str]) -> list[dict[str, Any]]:
    """The status of these interfaces, or of all, by name as people count."""
    try:
        files = [name for name in os.listdir(directory) if name.endswith(".json") and not name.startswith(".")]
    except FileNotFoundError:
        files = []
    entries = []
    for name in files:
        try:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                entry = json.load(file)
        except (FileNotFoundError, ValueError, RecursionError):
            continue  # it went away just now, or is none of an agent's
        if isinstance(entry, dict) and entry.keys() >= _KEYS and (not names or entry["name"] in names):
            entries.append(entry)
    return sorted(entries, key=lambda entry: natural(entry["name"]))


def _show(output: Output, entries: list[dict[str, Any]]) -> None:
    if not entries:
        output.remark("no interface is configured")
        return
    rows = [(paint("INTERFACE", "heading"), "NETNS", "LINK", "PEER", "STATE", "SINCE", "REASON")]
    for entry in entries:
        state = paint(entry["state"], _ROLES.get(entry["state"], ""))
        link = f"{entry['host_name']}#{entry['ifindex']}" if entry["ifindex"] else entry["host_name"]
        rows.append(
            (entry["name"], ref_text(entry["netns"]), link, entry["peer"], state, _age(entry["since"]), entry["reason"])
        )
    output.table(rows, roles=("link", "", "", "link"))


def _age(since: str) -> str:
    """How long ago, in the largest unit that says something: ``42 s``, ``7 min``, ``3 h``, ``12 d``."""
    seconds = time.time() - datetime.fromisoformat(since).timestamp()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _code(output: Output, entries: list[dict[str, Any]], args: Namespace, pid: int | None, directory: str) -> int:
    """The exit code: of the states that are shown, of an interface that is not there, of an agent that is not."""
    missing = set(args.names) - {entry["name"] for entry in entries}
    for name in sorted(missing):
        output.error(f"{name}: the agent with the label {args.label} has no such interface", code="no-such-interface")
    if pid is None:
        _tell_not_running(output, entries, args.label, directory)
        return REFUSED
    if missing:
        return INVALID
    states = {entry["state"] for entry in entries}
    if states <= {"CONFIGURED"}:
        return DONE
    return PENDING if states <= {"CONFIGURED", "PENDING"} else REFUSED


def _tell_not_running(output: Output, entries: list[dict[str, Any]], label: str, directory: str) -> None:
    said = f"; this is what the last one said, in {directory}" if entries else ""
    output.error(
        f"no agent with the label {label} runs on this host{said}",
        code="not-running",
        field="--label",
        hint=f"start one: vethctl agent --store dir:PATH --label {label}",
    )


def _watch(directory: str, args: Namespace, output: Output) -> int:
    """Show the statuses, and again each time something changes, until interrupted.

    On a terminal the table is drawn anew; anywhere else only what changed is written, a line each.
    """
    terminal = output.is_terminal
    shown: dict[str, dict[str, Any]] = {}
    with INotify() as inotify:
        watched = -1
        while True:
            if watched < 0:
                os.makedirs(directory, exist_ok=True)
                watched = inotify.add_watch(directory, _CHANGES)
            entries = _read(directory, args.names)
            if terminal:
                output.clear()
                pid = running(args.label)
                alive = paint(f"agent {pid}", "good") if pid is not None else paint("no agent is running", "bad")
                output.line(f"label {args.label}, {alive}, {counted(len(entries), 'interface')}")
                _show(output, entries)
            else:
                _show_changes(output, shown, {entry["name"]: entry for entry in entries})
            output.flush()
            # A second: so that ages and the agent's end are shown. 100 ms: many changes are one picture.
            for event in inotify.read(timeout=1000 if terminal else None, read_delay=100):
                if event.mask & flags.IGNORED:
                    watched = -1  # somebody has removed the directory


def _show_changes(output: Output, shown: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    for name in sorted(shown.keys() - now.keys(), key=natural):
        gone = {"name": name, "state": "removed", "reason": ""}
        _show_change(output, gone)
        del shown[name]
    for name, entry in now.items():
        if shown.get(name) != entry:
            _show_change(output, entry)
            shown[name] = entry


def _show_change(output: Output, entry: dict[str, Any]) -> None:
    if output.as_json:
        output.line(json.dumps(entry))
        return
    state = paint(entry["state"], _ROLES.get(entry["state"], ""))
    output.line(f"{paint(entry['name'], 'link')} {state}{' ' + entry['reason'] if entry['reason'] else ''}")
