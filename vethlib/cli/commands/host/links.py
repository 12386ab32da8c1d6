"""create, move and delete."""

from __future__ import annotations

from argparse import Namespace

from vethlib.cli.arguments.references import parse_link, parse_netns
from vethlib.cli.host.view import View
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.text import paint
from vethlib.errors import InvalidValue
from vethlib.links import End, Veth, describe
from vethlib.session import Session

__all__ = ["create", "delete", "move"]


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
    """Return an end from its flags. Raises InvalidValue with the name of the flag."""
    name, ref = parse_link(getattr(args, letter), letter.upper())
    flags = {"name": letter.upper(), "mac": f"--{letter}-mac", "addresses": f"--{letter}-addr", "mtu": "--mtu"}
    flags["ipv6"] = f"--{letter}-ipv6"
    ipv6 = getattr(args, f"{letter}_ipv6")
    try:
        return End(
            name,
            ref,
            mac=getattr(args, f"{letter}_mac"),
            mtu=args.mtu,
            addresses=getattr(args, f"{letter}_addr"),
            up=not args.down,
            num_queues=args.queues,
            ipv6=None if ipv6 is None else ipv6 == "on",
        )
    except InvalidValue as error:
        raise InvalidValue(flags.get(error.field, "--queues"), error.value, error.hint) from None


def move(args: Namespace, output: Output) -> int:
    """Move one link."""
    name, ref = parse_link(args.link)
    to = parse_netns(args.to, "NETNS")
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
    items = [parse_link(text) for text in args.links]
    with Session() as session, Progress() as progress:
        session.delete_many(
            items, missing_ok=args.missing_ok, progress=lambda done, total: progress("delete", done, total)
        )
    if output.as_json:
        output.json([{"netns": ref, "name": name} for name, ref in items])
    return DONE
