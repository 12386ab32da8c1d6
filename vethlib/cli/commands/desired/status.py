"""status: the interfaces of an agent, and their states."""

from __future__ import annotations

import json
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from shutil import get_terminal_size

from vethlib.agent.config.mark import check_label
from vethlib.agent.process.answering import ask
from vethlib.agent.process.claim import NoUnixSockets
from vethlib.agent.process.instance import agent_of
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.reasons import not_read
from vethlib.agent.stores.agentreport import AgentReport, read_report
from vethlib.agent.stores.directories import absolute
from vethlib.agent.stores.keys import place_of
from vethlib.agent.stores.opening import is_etcd, open_statuses, place
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import Alive, Entry, Published, Statuses
from vethlib.cli.arguments.hints import none_such
from vethlib.cli.arguments.parser import STORES
from vethlib.cli.host.found_agents import how_to_start, status_dir_of
from vethlib.cli.render.linktext import ref_text
from vethlib.cli.render.states import (
    SEVERITY,
    age,
    age_of,
    code_of,
    is_placed,
    reason_of,
    state_text,
    summary,
    two_agents,
    unwritten,
)
from vethlib.cli.term.again import same_place
from vethlib.cli.term.exits import DONE, INVALID, PENDING, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.signals import until_stopped
from vethlib.cli.term.text import counted, fit, natural, paint, printable, width
from vethlib.errors import InvalidValue
from vethlib.ns.descriptor import HERE
from vethlib.ns.opening import shown_identity

from . import fleet

__all__ = ["status"]

_NARROWEST = 20  # columns for reasons; in fewer they are not cut
_TICK = 1.0  # seconds between updates on a terminal, so that ages and the end of the agent are shown


@dataclass(frozen=True)
class _Selection:
    """The requested interfaces: by name or pattern, by state, and by the codes of their reasons; empty for all."""

    names: set[str]
    states: set[str]
    codes: set[str]

    @cached_property
    def _patterns(self) -> dict[str, Callable[[str], object]]:
        return {name: re.compile(translate(name)).match for name in self.names if _is_pattern(name)}

    def fits(self, name: str) -> bool:
        """Return whether a name is among the names or matches a pattern; without any, all names match."""
        return not self.names or name in self.names or any(matches(name) for matches in self._patterns.values())

    def missing(self, known: set[str]) -> list[str]:
        """Return the names that are not among the `known` ones, and the patterns that match none of these."""
        others = self.names - known
        return sorted(
            name for name in others if name not in self._patterns or not any(map(self._patterns[name], known))
        )

    def has(self, entry: Entry) -> bool:
        """Return whether an entry has one of the states, and one of the codes."""
        if self.states and entry["state"] not in self.states:
            return False
        return not self.codes or not self.codes.isdisjoint(reason["code"] for reason in entry.get("reasons", ()))


def status(args: Namespace, output: Output) -> int:
    """Show the statuses once, or with --watch after each change; return the exit code."""
    if args.all_labels:
        return fleet.show(args, output)
    check_label(args.label, "--label")
    if args.store == "memory:":
        raise InvalidValue(
            "--store", args.store, f"must be {STORES}, because no other process can read a store in memory"
        )
    which = _Selection(
        {place_of(name, args.label, "NAME") for name in args.names},
        {state for given in args.state for state in given},
        {code for given in args.code for code in given},
    )
    args.status_dir = status_dir_of(args)
    if args.watch:
        statuses = open_statuses(args.store or "", label=args.label, status_dir=args.status_dir)
        return _watch(statuses, which, args, output)
    progress = Progress()
    statuses = open_statuses(args.store or "", label=args.label, status_dir=args.status_dir, progress=progress)
    try:
        with progress:
            published = statuses.read()
    except StoreError as error:
        if not is_etcd(args.store or "") or args.status_dir:
            raise
        return _show_local(output, error, which, args)
    entries = _print(output, published, which)
    return _code(output, entries, which, published, statuses, args)


def _print(output: Output, published: Published, which: _Selection) -> list[Entry]:
    """Print the requested statuses, and return them."""
    entries = _chosen(published, which)
    if output.as_json:
        output.json(entries)
    elif entries:
        _show(output, entries)
        _sum_up(output, entries, published)
    return entries


def _show_local(output: Output, error: StoreError, which: _Selection, args: Namespace) -> int:
    """Show the statuses on this host, because the etcd does not answer."""
    local = open_statuses("", label=args.label)
    try:
        published = local.read()
        if published.agent is not None and published.agent.report is None and (told := _publication(args.label)):
            local = open_statuses("", label=args.label, status_dir=told[0])  # it was started with --status-dir
            published = local.read()
    except (OSError, NoUnixSockets):
        published = Published({}, None)
    if not published.entries and published.agent is None:
        raise error
    _print(output, published, which)
    shown_are = "no agent runs here, so the statuses of the last one are shown"
    if published.agent is not None:
        shown_are = f"the statuses of the agent on this host (process {published.agent.pid}) are shown instead"
    instead = "leave out --store"
    if local.place != status_directory(args.label):
        instead = f"give --status-dir {shlex.quote(local.place)} instead of --store"
    hint = f"repair the store; until then, changes in it take no effect; to read {local.place} at once, {instead}"
    output.error(f"the store cannot be reached: {error}; {shown_are}", code="store-down", field="--store", hint=hint)
    return REFUSED


def _is_pattern(name: str) -> bool:
    """Return whether a name has wildcards of a shell."""
    return any(character in name for character in "*?[")


def _chosen(published: Published, which: _Selection) -> list[Entry]:
    """Return the requested entries, sorted by name; also for interfaces without a status yet."""
    entries = [entry for name, entry in _all(published).items() if which.fits(name) and which.has(entry)]
    return sorted(entries, key=lambda entry: natural(entry["name"]))


def _all(published: Published) -> dict[str, Entry]:
    entries = dict(published.entries)
    if published.agent is not None:
        entries |= {name: _without_status(name) for name in published.untold}
    return entries


def _sum_up(output: Output, entries: list[Entry], published: Published) -> None:
    """Print the last line below a table."""
    if len(entries) > 1:
        output.line(summary(entries, len(_all(published))))


def _without_status(name: str) -> Entry:
    """Return the status of an interface for which the running agent has not published one."""
    reason = not_read()
    entry: Entry = {"name": name, "state": "PENDING", "reason": reason.text}
    entry |= {"netns": None, "host_name": "", "ifindex": None, "peer": "", "since": None}
    return entry | {"code": str(reason.code), "reasons": [reason.as_dict()]}


def _show(output: Output, entries: list[Entry]) -> None:
    rows: list[tuple[str, ...]] = [(paint("INTERFACE", "heading"), "NETNS", "LINK", "PEER", "STATE", "SINCE", "REASON")]
    for entry in entries:
        netns = ref_text(entry["netns"]) if is_placed(entry) else ""
        link = f"{entry['host_name']}#{entry['ifindex']}" if entry["ifindex"] else entry["host_name"]
        state = state_text(entry["state"])
        rows.append((entry["name"], netns, link, entry["peer"], state, age(entry["since"]), reason_of(entry)))
    if output.is_terminal:
        rows = _within(rows, get_terminal_size().columns)
    output.table(rows, roles=("link", "", "", "link"))


def _within(rows: list[tuple[str, ...]], columns: int) -> list[tuple[str, ...]]:
    """Cut reasons so that each row is one line of the terminal, unless it is too narrow."""
    used = sum(max(map(width, column)) + 2 for column in zip(*(row[:-1] for row in rows), strict=True))
    room = columns - used
    if room < _NARROWEST:
        return rows
    return [(*row[:-1], fit(printable(row[-1]), room)) for row in rows]


def _code(
    output: Output, entries: list[Entry], which: _Selection, published: Published, statuses: Statuses, args: Namespace
) -> int:
    """Report missing interfaces, agents and stores; return the exit code for them and for the states shown."""
    agent, directory = published.agent, statuses.place
    report = None if agent is None else agent.report
    if agent is not None and report is None and (told := _told(args)) is not None:
        directory, report = told
    if report is not None and report.unwritten:
        _report_unwritten(output, report, directory)  # it is also unknown which interfaces exist
        if report.outage:
            _report_outage(output, report)
        return REFUSED
    known = {*published.entries, *published.untold}
    missing = which.missing(known)
    hint = f"to see all interfaces: {same_place(args, 'status')}"
    messages = dict(none_such("interface", (name for name in missing if not _is_pattern(name)), known))
    for name in missing:
        message = messages.get(name, f"no interface matches {name!r}")
        output.error(f"label {args.label}: {message}", code="no-such-interface", field="NAME", hint=hint)
    if agent is None:
        _report_not_running(output, published, statuses, args)
        return REFUSED
    for warning in _warnings(published, args):
        output.warning(warning)
    if agent.report is not None and agent.report.outage:
        _report_outage(output, agent.report)
        return REFUSED
    what = ""
    if published.entries and published.is_of_earlier_run:
        what = f"has not written all statuses to {statuses.place} yet: some of those shown may be from the last one"
    elif not published.entries and not _has_begun(agent, args):
        where = f"{statuses.place}, which does not exist," if _is_missing(args.status_dir) else statuses.place
        what = f"has not written a status to {where} yet"
    if what:
        who = f"the agent with the label {args.label} (process {agent.pid})"
        cure = "if it was started with --status-dir, give the same directory here"
        if directory != statuses.place and directory != absolute(statuses.place):
            cure = f"it writes them elsewhere: give --status-dir {shlex.quote(directory)}"
        output.remark(f"{who} {what}; {cure}")
        return PENDING
    if not entries and not missing:
        states = sorted({state for given in args.state for state in given}, key=SEVERITY.index)
        none = f"no interface is {' or '.join(states)}" if known and states else "no interface is configured"
        if known and args.code:
            none = "no interface has such a reason" + (f" and is {' or '.join(states)}" if states else "")
        output.remark(none)
    return INVALID if missing else code_of(entries)


def _told(args: Namespace) -> tuple[str, AgentReport] | None:
    """Ask an agent without a report where it publishes its statuses, and why it cannot; None without an answer."""
    if is_etcd(args.store or "") and not args.status_dir:
        return None
    return _publication(args.label)


def _publication(label: str) -> tuple[str, AgentReport] | None:
    answer = ask(label, {"publication": True}) or {}
    where, reason, since = (answer.get(key) for key in ("place", "unwritten", "unwritten_since"))
    if not isinstance(where, str) or not isinstance(reason, str) or not isinstance(since, float):
        return None
    return where, AgentReport("", unwritten=reason, unwritten_since=since)


def _has_begun(agent: Alive, args: Namespace) -> bool:
    """Return whether an agent without statuses has no interfaces; it may not have read its store yet."""
    if is_etcd(args.store or "") and not args.status_dir:
        return True
    return agent.report is not None and agent.report.ready


def _outage(report: AgentReport) -> str:
    since = age_of(report.outage_since)
    return f"the agent's store has been down for {since}, so changes in it take no effect yet: {report.outage}"


def _report_outage(output: Output, report: AgentReport) -> None:
    hint = "the statuses shown are for the configuration that was read last"
    output.error(_outage(report), code="store-down", field="--store", hint=hint)


def _report_unwritten(output: Output, report: AgentReport, directory: str) -> None:
    hint = f"make {directory} writable again; until then, vethctl describe NAME asks the agent"
    output.error(f"{unwritten(report)}; the statuses shown are older", code="statuses-unwritten", hint=hint)


def _warnings(published: Published, args: Namespace) -> Iterator[str]:
    """Yield warnings if the statuses may not be those that the user expects."""
    assert published.agent is not None
    report = published.agent.report
    if is_etcd(args.store or "") and not args.status_dir:
        if published.others:
            yield two_agents(args.label, published)
    elif report is not None and args.store and (asked := place(args.store)) != report.store:
        yield f"the agent of this host with the label {args.label} follows {report.store}, not {asked}"


def _report_not_running(output: Output, published: Published, statuses: Statuses, args: Namespace) -> None:
    text = hint = ""
    if published.entries:
        is_elsewhere = published.home is not None and published.home != shown_identity(HERE)
        last = "an agent in another network namespace" if is_elsewhere else "the last one"
        text = f"; the statuses of {last} are shown, from {statuses.place}"
    if published.untold:
        count = counted(len(published.untold), "interface")
        text += f"; existing pairs stay, and the state of {count} is unknown"
    if not is_etcd(args.store or ""):
        squatter = agent_of(args.label)
        if squatter is not None and not squatter.is_ours:
            text += f"; its name is held by {squatter}, which is not an agent"
        report = read_report(statuses.place)
        if report is not None and not report.is_of(args.label):
            hint = f"the statuses in {statuses.place} are those of --label {report.label}"
    if _is_missing(args.status_dir):
        text += f"; {args.status_dir} does not exist"
        hint = "give the --status-dir with which the agent was started, or leave it out"
    hint = hint or how_to_start(args)
    message = f"no agent with the label {args.label} {statuses.life}{text}"
    output.error(message, code="not-running", field="--label", hint=hint)


def _is_missing(directory: str) -> bool:
    """Return whether a directory of statuses is given, but does not exist."""
    return directory != "" and not os.path.lexists(directory)


def _watch(statuses: Statuses, which: _Selection, args: Namespace, output: Output) -> int:
    """Show the statuses, and again after each change, until interrupted.

    On a terminal, the whole table is drawn again; otherwise, only changes are printed, one per line.
    """
    terminal = output.is_terminal
    before: dict[str, Entry] = {}
    published = Published({}, None)
    lost = outage = refused = ""
    runs = True
    with until_stopped(), closing(statuses.watch(_TICK if terminal else None)) as updates:
        for update in updates:
            if isinstance(update, StoreError):
                if not terminal and str(update) != lost:
                    output.warning(f"{update}; trying again")
                lost = str(update)
            else:
                if lost and not terminal:
                    output.remark("connected again")
                published, lost = update, ""
            entries = _chosen(published, which)
            if terminal:
                output.clear()
                output.line(_heading(args.label, published, entries, lost))
                if entries:
                    _show(output, entries)
            else:
                runs = _show_agent(output, published, args.label, statuses, did_run=runs)
                _show_changes(output, before, published, {entry["name"]: entry for entry in entries})
                outage = _show_outage(output, outage, published)
                refused = _show_unwritten(output, refused, published)
            output.flush_to_reader()
    return DONE


def _heading(label: str, published: Published, entries: list[Entry], lost: str) -> str:
    agent = published.agent
    alive = paint("no agent is running", "bad")
    if agent is not None:
        alive = paint(f"agent {agent.pid or ''}".rstrip() + (f" on {agent.host}" if agent.host else ""), "good")
    if agent is not None and agent.report is not None:
        lost = lost or (unwritten(agent.report) if agent.report.unwritten else "")
        lost = lost or (_outage(agent.report) if agent.report.outage else "")
    if published.others:
        lost = lost or two_agents(label, published)
    return f"label {label}, {alive}, {summary(entries, len(_all(published)))}" + (
        f"; {paint(lost, 'bad')}" if lost else ""
    )


def _show_agent(output: Output, published: Published, label: str, statuses: Statuses, *, did_run: bool) -> bool:
    """Report the end or the return of the agent; return whether one runs."""
    runs = published.agent is not None
    if did_run and not runs:
        output.warning(f"no agent with the label {label} {statuses.life}", code="not-running", field="--label")
    elif runs and not did_run:
        output.remark(f"an agent with the label {label} {statuses.life} again")
    return runs


def _show_outage(output: Output, before: str, published: Published) -> str:
    """Report the begin or end of an outage of the agent's store; return the reason of a current one."""
    report = None if published.agent is None else published.agent.report
    now = "" if report is None else report.outage
    if now and now != before and report is not None:
        output.warning(_outage(report))
    elif before and not now and published.agent is not None:
        output.remark("the agent's store is available again")
    return now


def _show_unwritten(output: Output, before: str, published: Published) -> str:
    """Report that the agent cannot write its statuses, or can again; return the reason why it cannot now."""
    report = None if published.agent is None else published.agent.report
    now = "" if report is None else report.unwritten
    if now and now != before and report is not None:
        output.warning(unwritten(report), code="statuses-unwritten")
    elif before and not now and published.agent is not None:
        output.remark("the agent's statuses are written again")
    return now


def _show_changes(output: Output, before: dict[str, Entry], published: Published, entries: Mapping[str, Entry]) -> None:
    """Print the requested `entries` that differ from those `before`, and report those that are missing now.

    A missing entry has another state than requested, or is no longer configured. Without an agent, this is unknown.
    """
    # For people, nothing is printed if an agent has only read a new revision.
    hidden = () if output.as_json else ("config_revision", "attempt", "next_try", "since")
    known = _all(published)
    now = {name: {key: entry[key] for key in entry if key not in hidden} for name, entry in entries.items()}
    for name in sorted(before.keys() - now.keys(), key=natural):
        if name in known:
            _show_change(output, known[name])
        elif published.agent is not None:
            _show_change(output, {"name": name, "state": "removed", "reason": "", "code": "", "reasons": []})
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
