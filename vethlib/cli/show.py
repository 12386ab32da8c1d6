"""show: links with their addresses and the other end of each pair, over all namespaces that have a name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from vethlib import ns
from vethlib.errors import LinkNotFound, VethError
from vethlib.links import describe
from vethlib.session import Session
from vethlib.session.survey import LinkAt, SurveyedLink

from . import DONE
from .links import link_json
from .output import Output
from .where import ref_text, split

__all__ = ["show"]


def show(args: Namespace, output: Output) -> int:
    """Show what there is, or what was asked for."""
    targets = [_target(text) for text in args.targets]
    named = [f"netns:{name}" for name in ns.names()]
    with Session() as session:
        survey = session.survey(["", *(ref for _, ref in targets), *named])
        for _, ref in targets:
            if isinstance(error := survey.places[ref], VethError):
                raise error
        everything: dict[LinkAt, SurveyedLink] = {(one.at, one.link.index): one for one in survey.links}
        if targets:
            chosen = [one for name, ref in targets for one in _chosen(survey.links, survey.places[ref], name, ref)]
        else:
            chosen = [one for one in survey.links if args.all or one.link.kind == "veth"]
        details = [session.details(one.link.name, one.ref) for one in chosen] if args.details else []
    if output.as_json:
        output.json([link_json(one.link, one.ref, _peer_json(one, everything)) for one in chosen])
    elif args.details:
        for one, attrs in zip(chosen, details, strict=True):
            _show_details(output, one, attrs)
    elif args.brief:
        _show_brief(output, chosen, everything)
    else:
        _show_full(output, chosen, everything)
    return DONE


def _target(text: str) -> tuple[str, str]:
    if text.startswith("@"):
        return "", str(ns.parse(text[1:]))
    return split(text)


def _chosen(links: Iterable[SurveyedLink], at: object, name: str, ref: str) -> list[SurveyedLink]:
    found = [one for one in links if one.at == at and (not name or name in (one.link.name, *one.link.altnames))]
    if name and not found:
        raise LinkNotFound(f"show: there is no link {describe(name, ref)}", netns=ref)
    return found


def _peer_json(one: SurveyedLink, everything: dict[LinkAt, SurveyedLink]) -> dict[str, object] | None:
    if one.link.peer_index is None:
        return None
    if one.peer is None:
        return {"netns": None, "name": None, "index": one.link.peer_index}
    peer = everything[one.peer]
    return {"netns": peer.ref, "name": peer.link.name, "index": peer.link.index}


def _peer_text(one: SurveyedLink, everything: dict[LinkAt, SurveyedLink]) -> str:
    if one.link.peer_index is None:
        return ""
    if one.peer is None:
        return f"⇄ index {one.link.peer_index} in an unnamed namespace"
    peer = everything[one.peer]
    return f"⇄ {peer.link.name}" + (f"@{ref_text(peer.ref)}" if peer.at != one.at else "")


def _state(output: Output, one: SurveyedLink) -> str:
    link = one.link
    text = "UP" if link.operstate == "up" else "DOWN" if not link.up else link.operstate.upper()
    return output.paint(text, "green" if text == "UP" else "red" if text == "DOWN" else "yellow")


def _show_brief(output: Output, links: list[SurveyedLink], everything: dict[LinkAt, SurveyedLink]) -> None:
    rows = [
        (
            ref_text(one.ref),
            f"{one.link.name}",
            "UP" if one.link.operstate == "up" else "DOWN" if not one.link.up else one.link.operstate.upper(),
            _peer_text(one, everything),
            " ".join(str(address) for address in one.link.addresses),
        )
        for one in links
    ]
    if rows:
        output.table(rows, styles=(("magenta",), ("cyan",), (), (), ("blue",)))


def _show_full(output: Output, links: list[SurveyedLink], everything: dict[LinkAt, SurveyedLink]) -> None:
    last: object = None
    for one in links:
        if one.at != last:
            output.line(output.paint(ref_text(one.ref), "magenta", "bold"))
            last = one.at
        link = one.link
        kind = f"  {link.kind}" if link.kind not in ("", "veth") else ""
        peer = f" {text}" if (text := _peer_text(one, everything)) else ""
        head = f"  {link.index}: {output.paint(link.name, 'cyan')}{peer}{kind}"
        output.line(f"{head}  {_state(output, one)}  mtu {link.mtu}  {output.paint(link.mac, 'yellow')}")
        for address in link.addresses:
            output.line(f"       {output.paint(address, 'blue')}")
        if link.alias:
            output.line(f"       {output.paint(link.alias, 'dim')}")


def _show_details(output: Output, one: SurveyedLink, attrs: dict[str, object]) -> None:
    output.line(output.paint(describe(one.link.name, one.ref), "bold"))
    for key, value in attrs.items():
        name = key.removeprefix("IFLA_").lower()
        _show_value(output, name, value, "    ")


def _show_value(output: Output, name: str, value: object, indent: str) -> None:
    if isinstance(value, dict):
        inner = dict(value["attrs"]) if isinstance(value.get("attrs"), list) else value
        output.line(f"{indent}{output.paint(name, 'cyan')}")
        for key, one in inner.items():
            _show_value(output, str(key).removeprefix("IFLA_").lower(), one, indent + "    ")
    else:
        output.line(f"{indent}{output.paint(name, 'cyan')} {value}")
