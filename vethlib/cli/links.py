"""create, move, delete and stats: the imperative commands."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from vethlib.links import End, Link, Veth, describe
from vethlib.ns import parse
from vethlib.session import Session

from . import DONE
from .output import Output, Progress
from .where import split

__all__ = ["create", "delete", "link_json", "move", "stats"]


def link_json(link: Link, netns: str, peer: dict[str, object] | None) -> dict[str, object]:
    """A link in the one form that all commands print."""
    return {
        "netns": netns,
        "name": link.name,
        "index": link.index,
        "kind": link.kind,
        "mac": link.mac,
        "mtu": link.mtu,
        "up": link.up,
        "operstate": link.operstate,
        "addresses": [str(address) for address in link.addresses],
        "alias": link.alias,
        "peer": peer,
    }


def _peer(link: Link, netns: str) -> dict[str, object]:
    return {"netns": netns, "name": link.name, "index": link.index}


def create(args: Namespace, output: Output) -> int:
    """Create one pair."""
    ends = []
    for letter in ("a", "b"):
        name, ref = split(getattr(args, letter), letter)
        ends.append(
            End(
                name,
                ref,
                mac=getattr(args, f"{letter}_mac"),
                mtu=args.mtu,
                addresses=getattr(args, f"{letter}_addr"),
                up=not args.down,
                num_queues=args.queues,
            )
        )
    with Session() as session:
        pair = session.create(Veth(*ends), wait=args.wait)
    refs = [str(end.netns) for end in ends]
    if output.as_json:
        output.json(
            [
                link_json(pair.a, refs[0], _peer(pair.b, refs[1])),
                link_json(pair.b, refs[1], _peer(pair.a, refs[0])),
            ]
        )
    else:
        for link, ref in zip(pair, refs, strict=True):
            output.line(f"{output.paint('+', 'green')} {link.index}: {describe(link.name, ref)}  {link.mac}")
    return DONE


def move(args: Namespace, output: Output) -> int:
    """Move one link."""
    name, ref = split(args.link)
    to = str(parse(args.to))
    with Session() as session:
        link = session.move(name, ref, to=to)
    if output.as_json:
        output.json([link_json(link, to, None)])
    else:
        output.line(f"{link.index}: {describe(link.name, to)}")
    return DONE


def delete(args: Namespace, output: Output) -> int:
    """Delete pairs."""
    items = [split(text) for text in args.links]
    progress = Progress()
    with Session() as session:
        session.delete_many(
            items, missing_ok=args.missing_ok, progress=lambda done, total: progress("delete", done, total)
        )
    progress.clear()
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
    output.line(describe(name, ref))
    columns = ("packets", "bytes", "errors", "dropped")
    rows = [["", *columns]]
    rows += [[way, *(str(counters[f"{way}_{column}"]) for column in columns)] for way in ("rx", "tx")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.line("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    shown = {f"{way}_{column}" for way in ("rx", "tx") for column in columns}
    rest = [f"{key} {value}" for key, value in counters.items() if value and key not in shown]
    if rest:
        output.line("  " + "  ".join(rest))
    return DONE
