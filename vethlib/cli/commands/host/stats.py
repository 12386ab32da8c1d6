"""stats: the counters of links, and their rates."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, TypeAlias

from vethlib import ns
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.arguments.references import parse_target, suggest_netns
from vethlib.cli.host.link_rates import LinkRates
from vethlib.cli.host.view import View
from vethlib.cli.render.amounts import amount, exact
from vethlib.cli.render.linktext import ref_text
from vethlib.cli.render.values import MeasuredLink
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output
from vethlib.cli.term.signals import until_stopped
from vethlib.cli.term.text import counted, natural, paint, width
from vethlib.errors import LinkNotFound, NetnsNotFound, NotPermitted, VethError
from vethlib.links import describe
from vethlib.rates import Rates, total
from vethlib.session import Session
from vethlib.session.read.survey import SurveyedLink

__all__ = ["each_interval", "show_rates", "stats"]

LinkName: TypeAlias = tuple[str, str]
"""Name and namespace."""

_COLUMNS: Final = ("packets", "bytes", "errors", "dropped")
_RATE_COLUMNS: Final = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


def stats(args: Namespace, output: Output) -> int:
    """Show counters once, or rates with --interval, or rates repeatedly with --watch; return the exit code."""
    targets = [parse_target(text) for text in args.targets]
    if args.count is not None and not args.watch:
        raise UsageError("--count needs --watch", field="--count", hint="usage: vethctl stats … --watch --count N")
    with Session() as session:
        sample = _sampler(session, targets, args, output)
        if args.watch:
            with until_stopped():
                _watch(sample, args, output)
            return DONE
        links = sample(missing_ok=False)
        if args.interval is not None:
            time.sleep(args.interval)
            links = sample(missing_ok=False)
    alone = len(args.targets) == 1 and bool(targets[0][0]) and not args.peer
    if output.as_json:
        entries = [link.as_dict() if args.interval is not None else link.counters_as_dict() for link in links]
        output.json(entries[0] if alone else entries)
    elif args.interval is not None:
        show_rates(output, links)
    elif alone:
        _show_one(output, links[0], amount if args.human else exact)
    elif links:
        _show_counters(output, links, amount if args.human else exact)
    return DONE


def _sampler(
    session: Session, targets: Sequence[tuple[str, str]], args: Namespace, output: Output
) -> Callable[..., list[MeasuredLink]]:
    """Return a function that samples the targets; without targets, all veths of this and all named namespaces.

    It finds the links of whole namespaces again each time, because links may be created and deleted meanwhile.
    """
    rates = LinkRates(session)
    if not targets:
        return lambda **_: _all_veths(rates, output, args)
    named = [(name, ref) for name, ref in targets if name]
    whole = [ref for name, ref in targets if not name]
    if args.peer:
        return lambda missing_ok: _both_ends(session, rates, named, whole, output, missing_ok=missing_ok)
    return lambda missing_ok: _sample(rates, named, whole, missing_ok=missing_ok)


def _sample(
    rates: LinkRates, named: Sequence[LinkName], whole: Sequence[str], *, missing_ok: bool
) -> list[MeasuredLink]:
    try:
        return rates.sample(named, whole, missing_ok=missing_ok)
    except LinkNotFound as error:
        for name, ref in named:
            if error.item == (name, ref):
                suggest_netns(error, name, ref)
        raise


def _all_veths(rates: LinkRates, output: Output, args: Namespace) -> list[MeasuredLink]:
    first = not rates.has_sampled
    links = rates.sample(whole=["", *(f"netns:{name}" for name in sorted(ns.names(), key=natural))])
    if first:
        _warn(rates.failed, output)
    veths = [measured for measured in links if measured.link is not None and measured.link.kind == "veth"]
    if first and not veths and not args.watch:
        output.remark("no veth links here or in a named namespace (for links of any kind: vethctl stats @NETNS)")
    return veths


def _warn(failed: Mapping[str, VethError], output: Output) -> None:
    """Warn of namespaces that are not shown."""
    hidden = next((error for error in failed.values() if isinstance(error, NotPermitted)), None)
    if hidden is not None and not ns.can_enter():
        output.warning(f"only links of this namespace are shown: {hidden}")
        return
    for ref, error in failed.items():
        if not isinstance(error, NetnsNotFound):
            output.warning(f"{ref_text(ref)} is not shown: {error}")


def _both_ends(
    session: Session,
    rates: LinkRates,
    named: Sequence[LinkName],
    whole: Sequence[str],
    output: Output,
    *,
    missing_ok: bool,
) -> list[MeasuredLink]:
    """Sample links with both ends of each pair next to each other.

    Without `missing_ok`, it is an error if one of the `named` links or a namespace is missing, but not if a link that
    was only found vanishes before its counters are read.
    """
    view = View(session, [ref for _, ref in named] + [*whole], missing_ok=missing_ok)
    first = not rates.has_sampled
    wanted: dict[LinkName, None] = {}
    required: set[LinkName] = set()
    asked: list[SurveyedLink] = []
    for name, ref in named:
        try:
            surveyed = view.find(name, ref, "stats")
        except LinkNotFound as error:
            if not missing_ok:
                suggest_netns(error, name, ref)
                raise
            continue
        required.add((surveyed.link.name, surveyed.ref))
        asked.append(surveyed)
    for ref in whole:
        asked += view.within(ref)
    for surveyed in asked:
        wanted |= dict.fromkeys(_ends(view, surveyed))
        if first and surveyed.peer is None and surveyed.link.peer_index is not None:
            unseen = f"index {surveyed.link.peer_index} in a namespace that has no name or cannot be read"
            output.warning(f"the peer of {describe(surveyed.link.name, surveyed.ref)} is not shown: it is {unseen}")
    links = rates.sample(list(wanted))
    if not missing_ok and (lost := required - {(link.name, link.ref) for link in links}):
        name, ref = min(lost)
        raise LinkNotFound(f"stats: there is no link {describe(name, ref)}", netns=ref, request="stats")
    return links


def _ends(view: View, surveyed: SurveyedLink) -> list[LinkName]:
    ends = [surveyed, view.peer(surveyed)]
    return [(end.link.name, end.ref) for end in ends if end is not None]


def each_interval(interval: float, count: int | None) -> Iterator[None]:
    """Yield at the end of each interval, `count` times; the time between does not shift the next."""
    due = time.monotonic()
    made = 0
    while count is None or made < count:
        due += interval
        now = time.monotonic()
        if due > now:
            time.sleep(due - now)
        else:
            due = now  # do not catch up after the host was suspended
        made += 1
        yield


def _watch(sample: Callable[..., list[MeasuredLink]], args: Namespace, output: Output) -> None:
    before = {(link.ref, link.name) for link in sample(missing_ok=False)}
    for _ in each_interval(1.0 if args.interval is None else args.interval, args.count):
        links = sample(missing_ok=True)
        now = {(link.ref, link.name) for link in links}
        if output.is_terminal:
            output.clear()
            output.line(f"{time.strftime('%H:%M:%S')}  {counted(len(links), 'link')}")
            show_rates(output, links)
        else:
            at = time.time()
            for link in links:
                _print(output, link, at)
            for ref, name in sorted(before - now):
                _print_gone(output, ref, name, at)
        before = now
        output.flush_to_reader()


def _print(output: Output, link: MeasuredLink, at: float) -> None:
    if output.as_json:
        output.line(json.dumps({"time": round(at, 3)} | link.as_dict()))
        return
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    output.line(f"{clock} {paint(_where(link.ref, link.name), 'link')} {_rates_text(link.rates)}")


def _rates_text(rates: Rates | None) -> str:
    if rates is None:
        return "is new"
    ways = [
        f"{way} {amount(getattr(rates, f'{way}_bytes'))}B/s {amount(getattr(rates, f'{way}_packets'))}p/s"
        for way in ("rx", "tx")
    ]
    dropped, errors = rates.rx_dropped + rates.tx_dropped, rates.rx_errors + rates.tx_errors
    ways += [f"dropped {amount(dropped)}/s"] if dropped else []
    return "  ".join(ways + ([f"errors {amount(errors)}/s"] if errors else []))


def _print_gone(output: Output, ref: str, name: str, at: float) -> None:
    if output.as_json:
        gone = {"time": round(at, 3), "netns": ref, "name": name, "index": None, "interval": None, "rates": None}
        output.line(json.dumps(gone))
    else:
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        output.line(f"{clock} {paint(_where(ref, name), 'link')} {paint('is gone', 'bad')}")


def _where(ref: str, name: str) -> str:
    return f"{name}@{ref_text(ref)}" if ref else name


def _show_one(output: Output, link: MeasuredLink, number: Callable[[float], str]) -> None:
    counters = asdict(link.sample.stats)
    output.line(paint(describe(link.name, link.ref), "heading"))
    rows = [["", *_COLUMNS]]
    rows += [[way, *(number(counters[f"{way}_{column}"]) for column in _COLUMNS)] for way in ("rx", "tx")]
    output.table(rows, right=True)
    shown = {f"{way}_{column}" for way in ("rx", "tx") for column in _COLUMNS}
    rest = [f"{key} {number(value)}" for key, value in counters.items() if value and key not in shown]
    if rest:
        output.line("  ".join(rest))


def _show_counters(output: Output, links: Sequence[MeasuredLink], number: Callable[[float], str]) -> None:
    rows = [["", *(f"{way}-{column}" for way in ("rx", "tx") for column in _COLUMNS)]]
    values = [
        [getattr(link.sample.stats, f"{way}_{column}") for way in ("rx", "tx") for column in _COLUMNS] for link in links
    ]
    rows += [[_where(link.ref, link.name), *map(number, row)] for link, row in zip(links, values, strict=True)]
    if len(links) > 1:
        rows.append(["total", *(number(sum(column)) for column in zip(*values, strict=True))])
    _right(output, rows)


def show_rates(output: Output, links: Sequence[MeasuredLink], states: Sequence[str] = ()) -> None:
    """Print a table of rates, in this order, with the state of each link if `states` are given."""
    if not links:
        return
    rows = _rate_rows(links)
    if states:
        column = ["state", *states, *[""] * (len(rows) - 1 - len(links))]
        rows = [[*row, cell] for row, cell in zip(rows, column, strict=True)]
    _right(output, rows)


def _rate_rows(links: Sequence[MeasuredLink]) -> list[list[str]]:
    """Return the rows of a table of rates, with a heading and, for several links, a total."""
    rows = [["", "rx B/s", "tx B/s", "rx p/s", "tx p/s", "dropped/s", "errors/s"]]
    rows += [[_where(link.ref, link.name), *_cells(link.rates)] for link in links]
    if len(links) > 1:
        rows.append(["total", *_cells(total(link.rates for link in links))])
    return rows


def _cells(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["new", *[""] * 5]
    sums = (rates.rx_dropped + rates.tx_dropped, rates.rx_errors + rates.tx_errors)
    return [amount(value) for value in (*(getattr(rates, column) for column in _RATE_COLUMNS), *sums)]


def _right(output: Output, rows: list[list[str]]) -> None:
    """Print a table with words in the first column and numbers in all others."""
    wide = max(width(row[0]) for row in rows)
    output.table([[row[0] + " " * (wide - width(row[0])), *row[1:]] for row in rows], roles=("link",), right=True)
