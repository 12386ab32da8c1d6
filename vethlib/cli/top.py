"""top: the busiest links of all namespaces, as a screen that is alive, or as one table after the other."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from vethlib import ns
from vethlib.errors import NotPermitted
from vethlib.session import Session

from .exits import DONE
from .output import Output
from .stats import each_interval, show_rates
from .stopping import until_stopped
from .tally import Counted, Tally, as_dict
from .terminal import Terminal
from .text import counted
from .topview import View, chosen, fitting, picture, press

__all__ = ["top"]


def top(args: Namespace, output: Output) -> int:
    """Show them until q is pressed; where there is no terminal, or with -n or --once, print tables."""
    count = args.count or (1 if args.once else None)
    with Session() as session:
        host = _Host(session, args)
        if output.is_terminal and sys.stdin.isatty() and count is None:
            _screen(host, args, output)
        else:
            with until_stopped():
                _print(host, args, output, count)
    return DONE


class _Host:
    """All links of all namespaces, at one look after the other."""

    def __init__(self, session: Session, args: Namespace) -> None:
        self._tally = Tally(session)
        self._statuses = None
        if args.label:
            from vethlib.agent.mark import check_label  # with protobuf, for those who ask for it
            from vethlib.agent.stores.opening import open_statuses

            check_label(args.label, "--label")
            self._statuses = open_statuses("", label=args.label, status_dir=args.status_dir)

    def look(self) -> list[Counted]:
        return self._tally.look(whole=ns.everywhere())

    def states(self, links: Sequence[Counted]) -> dict[tuple[tuple[int, int], int], str] | None:
        """What the agent says, by link; None where there is no label to ask for."""
        if self._statuses is None:
            return None
        said = {
            (entry["netns"], entry["host_name"]): entry["state"]
            for entry in self._statuses.read().entries.values()
            if entry["netns"] is not None
        }
        return {one.sample.link: state for one in links if (state := said.get((one.ref, one.name)))}

    @property
    def remark(self) -> str:
        """What is not shown, and why."""
        refused = [error for error in self._tally.failed.values() if isinstance(error, NotPermitted)]
        if not refused:
            return ""
        return f"{counted(len(refused), 'namespace')} cannot be looked into: run it as root"


def _print(host: _Host, args: Namespace, output: Output, count: int | None) -> None:
    host.look()
    told = ""
    for _ in each_interval(args.interval, count):
        found = chosen(host.look(), args.sort, args.filter)
        if host.remark != told:
            told = host.remark
            if told:
                output.warning(told)
        states = host.states(found)
        if output.as_json:
            _print_json(output, found, states, at_once=count == 1)
        else:
            output.line(f"{time.strftime('%H:%M:%S')}  {counted(len(found), 'link')}")
            show_rates(output, found)
        output.flush()


def _print_json(
    output: Output, found: Sequence[Counted], states: dict[tuple[tuple[int, int], int], str] | None, *, at_once: bool
) -> None:
    at = {"time": round(time.time(), 3)}
    entries = [at | as_dict(one) for one in found]
    if states is not None:
        entries = [entry | {"state": states.get(one.sample.link)} for entry, one in zip(entries, found, strict=True)]
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
        # The first rates come soon, so that nobody looks at an empty table.
        due = time.monotonic() + min(args.interval, 0.5)
        while not (view.ended or terminal.ended):
            size = terminal.size()
            room = max(1, size[1] - 4)
            # Scrolling stops at the end, so that a key back is felt at once.
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
