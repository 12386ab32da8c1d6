"""show: links with their addresses and the other end of each pair, over all namespaces that have a name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from vethlib import ns
from vethlib.errors import LinkNotFound
from vethlib.links import describe
from vethlib.session import Session
from vethlib.session.survey import SurveyedLink

from .details import detail_lines
from .exits import DONE
from .linktext import painted_state
from .output import Output
from .text import counted, paint
from .view import View
from .where import netns, ref_text, split

__all__ = ["show"]


def show(args: Namespace, output: Output) -> int:
    """Show what there is, or what was asked for."""
    targets = [_target(text) for text in args.targets]
    with Session() as session:
        view = View(session, [ref for _, ref in targets])
        if view.hidden:
            output.warning(f"only links of this namespace are shown: {view.hidden}")
        chosen = _chosen(view, targets, every_kind=args.all)
        if args.form == "details" and not output.as_json:
            for one in chosen:
                output.line(paint(describe(one.link.name, one.ref), "heading"))
                for line in detail_lines(session.details(one.link.name, one.ref)):
                    output.line(line)
            return DONE
    if output.as_json:
        output.json([view.as_dict(one) for one in chosen])
    elif args.form == "brief":
        _show_brief(output, view, chosen)
    else:
        _show_full(output, view, chosen)
    if not chosen:
        output.remark(_nothing(targets, every_kind=args.all))
    return DONE


def _target(text: str) -> tuple[str, str]:
    if text.startswith("@"):
        return "", netns(text[1:], "@NETNS")
    return split(text)


def _chosen(view: View, targets: Sequence[tuple[str, str]], *, every_kind: bool) -> list[SurveyedLink]:
    """What was asked for, in that order, nothing twice; a link that was named is shown whatever its kind."""
    wanted: list[SurveyedLink] = []
    for name, ref in targets:
        if name:
            wanted.append(_find(view, name, ref))
        else:
            wanted += [one for one in view.within(ref) if every_kind or one.link.kind == "veth"]
    if not targets:
        wanted = [one for one in view.links if every_kind or one.link.kind == "veth"]
    return list({(one.at, one.link.index): one for one in wanted}.values())


def _find(view: View, name: str, ref: str) -> SurveyedLink:
    try:
        return view.find(name, ref, "show")
    except LinkNotFound as error:
        if not ref and name in ns.names():
            error.add_note(f"for the namespace write @{name}")
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
            ref_text(one.ref),
            one.link.name,
            painted_state(one.link),
            view.peer_text(one) or one.link.kind,
            " ".join(str(address) for address in one.link.addresses),
        )
        for one in links
    ]
    output.table(rows, roles=("heading", "link", "", "", "address"))


def _show_full(output: Output, view: View, links: Sequence[SurveyedLink]) -> None:
    last: object = None
    for one in links:
        if one.at != last:
            output.line(paint(ref_text(one.ref), "heading"))
            last = one.at
        link = one.link
        kind = "" if link.kind in ("", "veth") else f"  {link.kind}"
        peer = f" {text}" if (text := view.peer_text(one)) else ""
        output.line(
            f"  {link.index}: {paint(link.name, 'link')}{peer}{kind}  {painted_state(link)}  mtu {link.mtu}  {link.mac}"
        )
        for address in link.addresses:
            output.line(f"       {paint(address, 'address')}")
        if link.alias:
            output.line(f"       {paint(link.alias, 'faint')}")
