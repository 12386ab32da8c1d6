"""create, move, delete and stats: the imperative commands."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from vethlib.errors import InvalidValue
from vethlib.links import End, Veth, describe
from vethlib.session import Session

from .exits import DONE
from .output import Output
from .progress import Progress
from .text import paint
from .view import View
from .where import netns, split

__all__ = ["create", "delete", "move", "stats"]


def create(args: Namespace, output: Output) -> int:
    """Create one pair."""
    ends = [_end(args, letter) for letter in ("a", "b")]
    refs = [str(end.netns) for end in ends]
    with Session() as session:
        pair = session.create(Veth(*ends), wait=args.wait)
        if output.as_json:
            view = View(session, refs)
            output.json([view.as_dict(view.find(end.name, ref, "create")) for end, ref in zip(ends, refs, strict=True)])
            return DONE
    for link, ref in zip(pair, refs, strict=True):
        output.line(f"{paint('+', 'good')} {describe(link.name, ref)}  index {link.index}  {link.mac}")
    return DONE


def _end(args: Namespace, letter: str) -> End:
    """One end as its flags have it; a value that cannot be is told with the name of its flag."""
    name, ref = split(getattr(args, letter), letter.upper())
    flags = {"name": letter.upper(), "mac": f"--{letter}-mac", "addresses": f"--{letter}-addr", "mtu": "--mtu"}
    try:
        return End(
            name,
            ref,
            mac=getattr(args, f"{letter}_mac"),
            mtu=args.mtu,
            addresses=getattr(args, f"{letter}_addr"),
            up=not args.down,
            num_queues=args.queues,
        )
    except InvalidValue as error:
        raise InvalidValue(flags.get(error.field, "--queues"), error.value, error.hint) from None


def move(args: Namespace, output: Output) -> int:
    """Move one link."""
    name, ref = split(args.link)
    to = netns(args.to, "NETNS")
    with Session() as session:
        link = session.move(name, ref, to=to)
        if output.as_json:
            view = View(session, [to])
            output.json([view.as_dict(view.find(link.name, to, "move"))])
            return DONE
    now = "up" if link.up else "down"
    output.line(f"{paint('~', 'warning')} {describe(link.name, to)}  index {link.index}  {link.mac}  {now}")
    return DONE


def delete(args: Namespace, output: Output) -> int:
    """Delete pairs."""
    items = [split(text) for text in args.links]
    with Session() as session, Progress() as progress:
        session.delete_many(
            items, missing_ok=args.missing_ok, progress=lambda done, total: progress("delete", done, total)
        )
    if output.as_json:
        output.json([{"netns": ref, "name": name} for name, ref in items])
    return DONE


def stats(args: Namespace, output: Output) -> int:
    """Show the counters of a link."""
    name, ref = split(args.link)
    with Session() as session:
        counters = asdict(session.stats(name, ref))
    if output.as_json:
        output.json({"netns": ref, "name": name} | counters)
        return DONE
    output.line(paint(describe(name, ref), "heading"))
    columns = ("packets", "bytes", "errors", "dropped")
    rows = [["", *columns]]
    rows += [[way, *(str(counters[f"{way}_{column}"]) for column in columns)] for way in ("rx", "tx")]
    output.table(rows, right=True)
    shown = {f"{way}_{column}" for way in ("rx", "tx") for column in columns}
    rest = [f"{key} {value}" for key, value in counters.items() if value and key not in shown]
    if rest:
        output.line("  ".join(rest))
    return DONE
