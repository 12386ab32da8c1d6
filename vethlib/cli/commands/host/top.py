"""top: the busiest links of all namespaces, on a live screen or as tables."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from vethlib import ns
from vethlib.cli.host.link_rates import LinkRates
from vethlib.cli.host.status_places import StatusPlaces
from vethlib.cli.render.topview import States, View, chosen, fitting, picture, press, state_of
from vethlib.cli.render.values import MeasuredLink
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output
from vethlib.cli.term.signals import until_stopped
from vethlib.cli.term.terminal import Terminal
from vethlib.cli.term.text import counted
from vethlib.errors import NotPermitted
from vethlib.session import Session

from .stats import each_interval, show_rates

__all__ = ["top"]


def top(args: Namespace, output: Output) -> int:
    """Show a screen until q is pressed; without a terminal, or with -n or --once, print tables."""
    if not args.label and "status_dir" in args.given:
        output.warning("--status-dir has no effect without --label", field="--status-dir")
    count = args.count or (1 if args.once else None)
    with Session() as session:
        host = _Host(session, args)
        if output.can_redraw and sys.stdin.isatty() and count is None:
            _screen(host, args, output)
        else:
            with until_stopped():
                _print(host, args, output, count)
    return DONE


class _Host:
    """Samples all links of all namespaces."""

    def __init__(self, session: Session, args: Namespace) -> None:
        self._session = session
        self._rates = LinkRates(session)
        self._statuses = None
        self._label = args.label
        self._why_no_states = ""
        if args.label:
            from vethlib.agent.config.mark import check_label  # imports protobuf, only if needed
            from vethlib.agent.stores.opening import open_statuses

            check_label(args.label, "--label")
            self._statuses = open_statuses("", label=args.label, status_dir=args.status_dir)

    def look(self) -> list[MeasuredLink]:
        return self._rates.sample(whole=ns.everywhere())

    def states(self, links: Sequence[MeasuredLink]) -> States | None:
        """Return the published states by link; None without a label."""
        if self._statuses is None:
            return None
        published = self._statuses.read()
        statuses = published.current
        self._why_no_states = ""
        if published.is_of_earlier_run:
            self._why_no_states = f"the agent with the label {self._label} has not published all states yet"
        elif published.agent is None and not published.is_elsewhere:
            self._why_no_states = f"no agent with the label {self._label} runs"
        places = StatusPlaces(self._session, published, {link.ref: link.sample.place for link in links})
        places.resolve(statuses.values())
        return {at: entry["state"] for entry in statuses.values() if (at := places.link(entry)) is not None}

    @property
    def remark(self) -> str:
        """Return what is not shown, and why."""
        refused = [error for error in self._rates.failed.values() if isinstance(error, NotPermitted)]
        closed = f"{counted(len(refused), 'namespace')} cannot be entered: run it as root" if refused else ""
        return "; ".join(filter(None, (self._why_no_states, closed)))


def _print(host: _Host, args: Namespace, output: Output, count: int | None) -> None:
    host.look()
    reported = ""
    for _ in each_interval(args.interval, count):
        links = chosen(host.look(), args.sort, args.filter)
        states = host.states(links)
        if host.remark != reported:
            reported = host.remark
            if reported:
                output.warning(reported)
        if output.as_json:
            _print_json(output, links, states, at_once=count == 1)
        else:
            output.line(f"{time.strftime('%H:%M:%S')}  {counted(len(links), 'link')}")
            show_rates(output, links, [] if states is None else [state_of(link, states) for link in links])
        output.flush_to_reader()


def _print_json(
    output: Output,
    links: Sequence[MeasuredLink],
    states: States | None,
    *,
    at_once: bool,
) -> None:
    at = {"time": round(time.time(), 3)}
    entries = [at | link.as_dict() for link in links]
    if states is not None:
        entries = [entry | {"state": states.get(link.sample.link)} for entry, link in zip(entries, links, strict=True)]
    if at_once:
        output.json(entries)
    else:
        for entry in entries:
            output.line(json.dumps(entry))


def _screen(host: _Host, args: Namespace, output: Output) -> None:
    view = View(order=args.sort, filter=args.filter)
    with Terminal() as terminal:
        links = host.look()
        states = host.states(links)
        clock = time.strftime("%H:%M:%S")
        # The first rates are shown soon, so that the table is not empty for long.
        due = time.monotonic() + min(args.interval, 0.5)
        while not (view.ended or terminal.ended):
            size = terminal.size()
            room = max(1, size[1] - 4)
            # Scrolling stops at the end, so that scrolling back takes effect at once.
            last = max(0, len(fitting(links, view.filter)) - room)
            view = replace(view, offset=min(view.offset, last))
            lines = picture(links, view, size, clock=clock, interval=args.interval, states=states, remark=host.remark)
            terminal.draw([output.rendered(line) for line in lines])
            for key in terminal.wait(due):
                view = press(view, key, room)
            if time.monotonic() >= due:
                due = time.monotonic() + args.interval
                if not view.paused:
                    links = host.look()
                    states = host.states(links)
                    clock = time.strftime("%H:%M:%S")
