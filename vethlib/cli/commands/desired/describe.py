"""describe: one interface in detail, on one screen.

There are four sources, and each may have nothing: the statuses published by the agent, the agent itself for
configuration and last changes, the store, and the kernel for both links.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

from vethlib.agent.config.mark import check_label
from vethlib.agent.config.writing import to_dict
from vethlib.agent.process.answering import ask
from vethlib.agent.stores.keys import place_of
from vethlib.agent.stores.opening import is_etcd, open_editor, open_statuses, shown
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import Entry, Published, Statuses
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.arguments.hints import near
from vethlib.cli.arguments.parser import STORES
from vethlib.cli.host.ends import observe_ends
from vethlib.cli.host.found_agents import how_to_start, status_dir_of
from vethlib.cli.render.description import description_lines
from vethlib.cli.render.states import code_of, is_placed, unwritten
from vethlib.cli.render.values import Description
from vethlib.cli.term.again import same_place
from vethlib.cli.term.exits import INVALID, PENDING, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import natural
from vethlib.errors import InvalidValue

__all__ = ["describe"]

_NEAR = 3  # suggested names


def describe(args: Namespace, output: Output) -> int:
    """Show an interface; return the exit code."""
    check_label(args.label, "--label")
    if args.store == "memory:":
        raise InvalidValue(
            "--store", args.store, f"must be {STORES}, because no other process can read a store in memory"
        )
    description = Description(place_of(args.name, args.label, "NAME"), args.label)
    args.status_dir = status_dir_of(args)
    if "limit" in args.given and not args.store:
        output.warning("--limit has no effect without --store", field="--limit")
    statuses, published = _statuses(description, args)
    known = {*published.entries, *published.untold}
    if published.agent is not None:
        description.agent = published.agent.pid
    description.status = published.entries.get(description.name)
    report = None if published.agent is None else published.agent.report
    is_stale = report is not None and bool(report.unwritten)
    if report is not None and is_stale:
        description.notes.append(f"{unwritten(report)}; that of the peer may be older")
    _add_from_agent(description, is_stale=is_stale)
    known |= _add_from_store(description, args)
    if (
        description.status is None
        and description.configuration is None
        and not description.problems
        and not description.changes
    ):
        return _no_such(description, known, published.entries.values(), args, output)
    description.peer_status = published.entries.get(_peer(description))
    description.ends = observe_ends(
        [entry for entry in (description.status, description.peer_status) if entry is not None and is_placed(entry)],
        published,
    )
    if published.is_of_earlier_run:
        description.notes.append("the agent has not written all statuses yet: this one may be from the last agent")
    if output.as_json:
        output.json(description.as_dict())
    else:
        output.lines(description_lines(description))
    for note in description.notes:
        output.warning(note)
    if description.agent is None:
        message = (
            f"no agent with the label {args.label} {statuses.life}; "
            "only the stored configuration, if any, and the status left by the last one are shown"
        )
        output.error(message, code="not-running", field="--label", hint=how_to_start(args))
        return REFUSED
    return PENDING if published.is_of_earlier_run else code_of([description.status or {"state": "PENDING"}])


def _statuses(description: Description, args: Namespace) -> tuple[Statuses, Published]:
    """Read the published statuses; those on this host if an etcd does not answer."""
    statuses = open_statuses(args.store or "", label=args.label, status_dir=args.status_dir)
    try:
        return statuses, statuses.read()
    except StoreError as error:
        if not is_etcd(args.store or "") or args.status_dir:
            raise
        description.notes.append(f"the store cannot be reached: {error}; the statuses on this host are shown instead")
        statuses = open_statuses("", label=args.label)
        return statuses, statuses.read()


def _add_from_agent(description: Description, *, is_stale: bool) -> None:
    """Add what only the running agent of this host knows: the configuration in force and the last changes."""
    answer = ask(description.label, {"describe": description.name})
    if not answer:
        if description.agent is not None:
            description.notes.append(
                "the agent of this host did not return its last changes: it is busy, or of another version"
            )
        return
    changes, configuration, status = (answer.get(key) for key in ("changes", "configuration", "status"))
    if isinstance(changes, list):
        description.changes = [change for change in changes if _is_change(change)]
    if isinstance(configuration, dict):
        description.configuration, description.source = configuration, "as last read by the agent"
    if (
        (description.status is None or is_stale)
        and isinstance(status, dict)
        and {"state", "reason", "netns", "peer"} <= status.keys()
    ):
        description.status = status


def _is_change(change: object) -> bool:
    texts = ("at", "last", "state", "reason", "done", "cause")
    return (
        isinstance(change, dict)
        and all(isinstance(change.get(key), str) for key in texts)
        and isinstance(change.get("count"), int)
    )


def _add_from_store(description: Description, args: Namespace) -> set[str]:
    """Add the stored configuration, if a store is given; return all names in the store."""
    if not args.store:
        return set()
    try:
        values = open_editor(args.store, label=args.label, limits=limits_of(args)).values()
    except StoreError as error:
        if not any(note.startswith("the store cannot") for note in description.notes):
            description.notes.append(f"the store cannot be read: {error}")
        return set()
    stored = values.get(description.name)
    if stored is not None:
        description.problems = tuple(stored.problems) if stored.interface is None else ()
        if stored.interface is not None:
            description.configuration, description.source = to_dict(stored.interface), shown(args.store)
    elif description.configuration is not None:
        description.notes.append(f"the interface is not in {shown(args.store)}")
    return set(values)


def _peer(description: Description) -> str:
    if description.status is not None and description.status["peer"]:
        return str(description.status["peer"])
    veth: Mapping[str, Any] = (description.configuration or {}).get("veth", {})
    return str(veth.get("peer_if_name", ""))


def _no_such(
    description: Description, known: set[str], entries: Iterable[Entry], args: Namespace, output: Output
) -> int:
    """Report that there is no such interface, with similar names, also of links."""
    of_links = [entry["name"] for entry in entries if entry["host_name"] == description.name]
    meant = list(dict.fromkeys([*of_links, *near(description.name, sorted(known, key=natural), most=_NEAR)]))[:_NEAR]
    message = f"label {description.label}: there is no interface {description.name!r}"
    if meant:
        message += f"; did you mean {' or '.join(meant)}?"
    for note in description.notes:
        output.warning(note)
    hint = f"to see all interfaces: {same_place(args, 'status')}"
    if not known:
        hint += ", or give another --label" if args.store else ", or give --store or another --label"
    output.error(message, code="no-such-interface", field="NAME", hint=hint)
    return INVALID
