"""stats: the counters of links, and what they grow by."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from vethlib import ns
from vethlib.errors import NotPermitted
from vethlib.links import describe
from vethlib.rates import Rates, total
from vethlib.session import Session

from .amounts import amount, exact
from .exits import DONE
from .output import Output
from .parser import UsageError
from .stopping import until_stopped
from .tally import Counted, Tally, as_dict
from .text import counted, natural, paint, width
from .view import View
from .where import netns, ref_text, split

__all__ = ["each_interval", "show_rates", "stats"]

_COLUMNS: Final = ("packets", "bytes", "errors", "dropped")
_RATE_COLUMNS: Final = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


def stats(args: Namespace, output: Output) -> int:
    """Show them once, with --interval as rates, with --watch again and again."""
    targets = [_target(text) for text in args.targets]
    if args.count is not None and not args.watch:
        raise UsageError("--count is for --watch", field="--count", hint="usage: vethctl stats … --watch --count N")
    with Session() as session:
        look = _looks(session, targets, args, output)
        if args.watch:
            with until_stopped():
                _watch(look, args, output)
            return DONE
        found = look(missing_ok=False)
        if args.interval is not None:
            time.sleep(args.interval)
            found = look(missing_ok=False)
    alone = len(args.targets) == 1 and bool(targets[0][0]) and not args.peer
    if output.as_json:
        entries = [as_dict(one) if args.interval is not None else _without_rates(one) for one in found]
        output.json(entries[0] if alone else entries)
    elif args.interval is not None:
        show_rates(output, found)
    elif alone:
        _show_one(output, found[0], amount if args.human else exact)
    elif found:
        _show_counters(output, found, amount if args.human else exact)
    return DONE


def _target(text: str) -> tuple[str, str]:
    if text.startswith("@"):
        return "", netns(text[1:], "@NETNS")
    return split(text)


def _looks(
    session: Session, targets: Sequence[tuple[str, str]], args: Namespace, output: Output
) -> Callable[..., list[Counted]]:
    """A function that looks at what was asked for, now; without targets at the veths of home and of every named one.

    So that others may come and go meanwhile, these are found anew each time, as those of an @NETNS.
    """
    named = [(name, ref) for name, ref in targets if name]
    whole = [ref for name, ref in targets if not name]
    tally = Tally(session)
    if not targets:
        return lambda **_: _all_veths(tally, output, args)
    if args.peer:
        named, whole = _with_peers(View(session, [ref for _, ref in targets]), named, whole)
    return lambda missing_ok: tally.look(named, whole, missing_ok=missing_ok)


def _all_veths(tally: Tally, output: Output, args: Namespace) -> list[Counted]:
    first = not tally.has_looked
    found = tally.look(whole=["", *(f"netns:{name}" for name in sorted(ns.names(), key=natural))])
    if first and (hidden := next((one for one in tally.failed.values() if isinstance(one, NotPermitted)), None)):
        output.warning(f"only links of this namespace are shown: {hidden}")
    veths = [one for one in found if one.link is not None and one.link.kind == "veth"]
    if first and not veths and not args.watch:
        output.remark("no veth links here or in a named namespace (vethctl stats @NETNS has all links of one)")
    return veths


def _with_peers(view: View, named: list[tuple[str, str]], whole: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Both ends of each pair, side by side."""
    chosen = [view.find(name, ref, "stats") for name, ref in named]
    chosen += [one for ref in whole for one in view.within(ref)]
    pairs: list[tuple[str, str]] = []
    for one in chosen:
        pairs.append((one.link.name, one.ref))
        if (peer := view.peer(one)) is not None:
            pairs.append((peer.link.name, peer.ref))
    return list(dict.fromkeys(pairs)), []


def _without_rates(one: Counted) -> dict[str, Any]:
    return {"netns": one.ref, "name": one.name} | asdict(one.sample.stats)


def each_interval(interval: float, count: int | None) -> Iterator[None]:
    """Yields at the end of each interval, `count` times; what is done meanwhile does not shift the next."""
    due = time.monotonic()
    made = 0
    while count is None or made < count:
        due += interval
        now = time.monotonic()
        if due > now:
            time.sleep(due - now)
        else:
            due = now  # a host that was asleep has nothing to catch up with
        made += 1
        yield


def _watch(look: Callable[..., list[Counted]], args: Namespace, output: Output) -> None:
    before = {(one.ref, one.name) for one in look(missing_ok=False)}
    for _ in each_interval(1.0 if args.interval is None else args.interval, args.count):
        found = look(missing_ok=True)
        now = {(one.ref, one.name) for one in found}
        if output.is_terminal:
            output.clear()
            output.line(f"{time.strftime('%H:%M:%S')}  {counted(len(found), 'link')}")
            show_rates(output, found)
        else:
            at = time.time()
            for one in found:
                _tell(output, one, at)
            for ref, name in sorted(before - now):
                _tell_gone(output, ref, name, at)
        before = now
        output.flush()


def _tell(output: Output, one: Counted, at: float) -> None:
    if output.as_json:
        output.line(json.dumps({"time": round(at, 3)} | as_dict(one)))
        return
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    output.line(f"{clock} {paint(_where(one.ref, one.name), 'link')} {_rates_text(one.rates)}")


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


def _tell_gone(output: Output, ref: str, name: str, at: float) -> None:
    if output.as_json:
        gone = {"time": round(at, 3), "netns": ref, "name": name, "index": None, "interval": None, "rates": None}
        output.line(json.dumps(gone))
    else:
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        output.line(f"{clock} {paint(_where(ref, name), 'link')} {paint('is gone', 'bad')}")


def _where(ref: str, name: str) -> str:
    return f"{name}@{ref_text(ref)}" if ref else name


def _show_one(output: Output, one: Counted, number: Callable[[float], str]) -> None:
    counters = asdict(one.sample.stats)
    output.line(paint(describe(one.name, one.ref), "heading"))
    rows = [["", *_COLUMNS]]
    rows += [[way, *(number(counters[f"{way}_{column}"]) for column in _COLUMNS)] for way in ("rx", "tx")]
    output.table(rows, right=True)
    shown = {f"{way}_{column}" for way in ("rx", "tx") for column in _COLUMNS}
    rest = [f"{key} {number(value)}" for key, value in counters.items() if value and key not in shown]
    if rest:
        output.line("  ".join(rest))


def _show_counters(output: Output, found: Sequence[Counted], number: Callable[[float], str]) -> None:
    rows = [["", *(f"{way}-{column}" for way in ("rx", "tx") for column in _COLUMNS)]]
    values = [
        [getattr(one.sample.stats, f"{way}_{column}") for way in ("rx", "tx") for column in _COLUMNS] for one in found
    ]
    rows += [[_where(one.ref, one.name), *map(number, row)] for one, row in zip(found, values, strict=True)]
    if len(found) > 1:
        rows.append(["total", *(number(sum(column)) for column in zip(*values, strict=True))])
    _right(output, rows)


def show_rates(output: Output, found: Sequence[Counted]) -> None:
    """A table of what each link's counters grow by, in this order."""
    if found:
        _right(output, _rate_rows(found))


def _rate_rows(found: Sequence[Counted]) -> list[list[str]]:
    """A table of rates, with a heading and, of several links, a total."""
    rows = [["", "rx B/s", "tx B/s", "rx p/s", "tx p/s", "dropped/s", "errors/s"]]
    rows += [[_where(one.ref, one.name), *_cells(one.rates)] for one in found]
    if len(found) > 1:
        rows.append(["total", *_cells(total(one.rates for one in found))])
    return rows


def _cells(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["new", *[""] * 5]
    sums = (rates.rx_dropped + rates.tx_dropped, rates.rx_errors + rates.tx_errors)
    return [amount(value) for value in (*(getattr(rates, column) for column in _RATE_COLUMNS), *sums)]


def _right(output: Output, rows: list[list[str]]) -> None:
    """A table whose first column is words, and all others are numbers."""
    wide = max(width(row[0]) for row in rows)
    output.table([[row[0] + " " * (wide - width(row[0])), *row[1:]] for row in rows], roles=("link",), right=True)
