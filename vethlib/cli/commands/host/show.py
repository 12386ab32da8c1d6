"""show: links with their addresses and peers, in all named namespaces."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from vethlib import ns
from vethlib.cli.arguments.references import parse_target, suggest_netns
from vethlib.cli.host.view import View
from vethlib.cli.render.details import detail_lines, field_lines
from vethlib.cli.render.linktext import address_text, painted_state, ref_text
from vethlib.cli.render.values import fields_as_dict
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import counted, paint
from vethlib.errors import LinkNotFound, VethError
from vethlib.links import Address, describe
from vethlib.session import Session
from vethlib.session.read.survey import LinkAt, SurveyedLink

__all__ = ["show"]

T = TypeVar("T")


def show(args: Namespace, output: Output) -> int:
    """Show all veths, or the given links; return the exit code."""
    targets = [parse_target(text) for text in args.targets]
    with Session() as session:
        view = View(session, [ref for _, ref in targets])
        view.warn(output)
        chosen = _chosen(view, targets, every_kind=args.all)
        if args.form == "details" and not output.as_json:
            for link, lines in _each(chosen, partial(_details, session), _named(view, targets), output):
                output.line(paint(describe(link.link.name, link.ref), "heading"))
                output.lines(lines)
            return DONE
        view.read_masters(chosen)
        if output.as_json:
            read = partial(_as_dict, session, view, args.form)
            entries = [entry for _, entry in _each(chosen, read, _named(view, targets), output)]
    if output.as_json:
        output.json(entries)
    elif args.form == "brief":
        _show_brief(output, view, chosen)
    else:
        _show_full(output, view, chosen)
    if not chosen:
        output.remark(_nothing(targets, every_kind=args.all))
    return DONE


def _each(
    links: Sequence[SurveyedLink], read: Callable[[SurveyedLink], T], named: set[LinkAt], output: Output
) -> Iterator[tuple[SurveyedLink, T]]:
    """Yield each link with what `read` returns for it, and warn of those that cannot be read, such as a vanished one.

    That is an error for the `named` ones.
    """
    for link in links:
        try:
            result = read(link)
        except VethError as error:
            if (link.at, link.link.index) in named:
                raise
            output.warning(f"{describe(link.link.name, link.ref)} is not shown: {error}")
        else:
            yield link, result


def _details(session: Session, link: SurveyedLink) -> list[str]:
    """Return the lines about a link."""
    name, ref = link.link.name, link.ref
    return [*detail_lines(session.details(name, ref)), *field_lines(session.fields(name, ref))]


def _as_dict(session: Session, view: View, form: str, link: SurveyedLink) -> dict[str, object]:
    entry = view.as_dict(link)
    if form == "details":
        entry["fields"] = fields_as_dict(session.fields(link.link.name, link.ref))
    return entry


def _chosen(view: View, targets: Sequence[tuple[str, str]], *, every_kind: bool) -> list[SurveyedLink]:
    """Return the given links in their order, each once. Links given by name may be of any kind."""
    links: list[SurveyedLink] = []
    for name, ref in targets:
        if name:
            links.append(_find(view, name, ref))
        else:
            links += [one for one in view.within(ref) if every_kind or one.link.kind == "veth"]
    if not targets:
        links = [one for one in view.links if every_kind or one.link.kind == "veth"]
    return list({(one.at, one.link.index): one for one in links}.values())


def _named(view: View, targets: Sequence[tuple[str, str]]) -> set[LinkAt]:
    """Return the links that are given by name."""
    found = [_find(view, name, ref) for name, ref in targets if name]
    return {(one.at, one.link.index) for one in found}


def _find(view: View, name: str, ref: str) -> SurveyedLink:
    try:
        return view.find(name, ref, "show")
    except LinkNotFound as error:
        suggest_netns(error, name, ref)
        raise


def _nothing(targets: Sequence[tuple[str, str]], *, every_kind: bool) -> str:
    named = len(ns.names())
    where = "there" if targets else "in this namespace"
    if not targets:
        where += f" or in the {counted(named, 'named one')}" if named else ", and there is no named one"
    return f"no {'' if every_kind else 'veth '}links {where}" + ("" if every_kind else " (--all shows every kind)")


def _show_brief(output: Output, view: View, links: Sequence[SurveyedLink]) -> None:
    rows = [
        (
            ref_text(surveyed.ref),
            surveyed.link.name,
            painted_state(surveyed.link),
            view.peer_text(surveyed) or surveyed.link.kind,
            " ".join(map(_brief, surveyed.addresses)),
        )
        for surveyed in links
    ]
    output.table(rows, roles=("heading", "link", "", "", "address"))


def _brief(address: Address) -> str:
    return str(address) if address.state == "usable" else f"{address} ({address.state})"


def _show_full(output: Output, view: View, links: Sequence[SurveyedLink]) -> None:
    last: object = None
    for surveyed in links:
        if surveyed.at != last:
            output.line(paint(ref_text(surveyed.ref), "heading"))
            last = surveyed.at
        link = surveyed.link
        kind = "" if link.kind in ("", "veth") else f"  {link.kind}"
        peer = f" {text}" if (text := view.peer_text(surveyed)) else ""
        master = f"  master {text}" if (text := view.master(surveyed)) else ""
        output.line(
            f"  {link.index}: {paint(link.name, 'link')}{peer}{kind}  {painted_state(link)}  "
            f"mtu {link.mtu}  {link.mac}{master}"
        )
        if link.altnames:
            output.line(f"       altname {' '.join(paint(name, 'link') for name in link.altnames)}")
        for address in surveyed.addresses:
            output.line(f"       {address_text(address, link.name)}")
        if link.alias:
            output.line(f"       {paint(link.alias, 'faint')}")
