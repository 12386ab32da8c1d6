"""A description of an interface as text: one screen, however much its namespaces contain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vethlib.cli.term.text import paint, table_lines
from vethlib.text import cut

from .amounts import amount
from .linktext import address_text, painted_state, ref_text
from .states import age, reason_of, state_text
from .values import COUNTERS, Description, EndState

__all__ = ["description_lines"]

_MOST_ADDRESSES = 8  # per link; --json has all
_MOST_CHANGES = 10
_LONGEST = 240  # characters of a text from elsewhere
_OPTIONAL = "ipv6", "offload"  # fields whose default is not false


def description_lines(description: Description) -> Iterator[str]:
    """Yield the lines of a description."""
    yield _title(description)
    status = description.status
    if status is not None and (reason := cut(reason_of(status), 2 * _LONGEST)):
        yield f"  {reason}"
    for problem in description.problems[:3]:
        yield f"  {paint('the stored value cannot be used:', 'bad')} {cut(problem.public, _LONGEST)}"
    if description.configuration is not None:
        yield paint("configuration", "heading") + f"  {description.source}"
        yield "  " + "  ".join(_configured(description.configuration))
    if description.ends:
        yield paint("links", "heading")
        for end in description.ends:
            yield from (f"  {line}" for line in _end(end))
    with_stats = [end for end in description.ends if end.stats is not None]
    if with_stats:
        yield paint("counters", "heading")
        rows = [("", *(name.replace("_", " ") for name in COUNTERS))]
        rows += [(f"  {end.interface}", *(amount(getattr(end.stats, name)) for name in COUNTERS)) for end in with_stats]
        yield from table_lines(rows)
    if description.changes:
        yield paint("last changes", "heading")
        yield from table_lines([_change(change) for change in reversed(description.changes[-_MOST_CHANGES:])])


def _title(description: Description) -> str:
    words = [paint(description.name, "link")]
    if description.status is None:
        words.append("no status from the agent")
    else:
        words.append(state_text(description.status["state"]))
        since = description.status.get("since")
        words += [f"for {age(since)} (since {since})"] if since else []
    agent = "no agent is running" if description.agent is None else f"agent {description.agent or ''}".rstrip()
    return "  ".join([*words, f"label {description.label}, {agent}"])


def _configured(value: dict[str, Any]) -> Iterator[str]:
    """Yield the configuration in words; unknown fields are shown as they are."""
    rest = dict(value)
    rest.pop("name", None)
    rest.pop("type", None)
    yield "enabled" if rest.pop("enabled", False) else paint("not enabled", "warning")
    veth = rest.pop("veth", {})
    yield f"peer {veth.get('peer_if_name', '')}" if isinstance(veth, dict) else f"peer {veth}"
    namespace = rest.pop("namespace", None) or {}
    parts = [f"{key} {text}" for key, text in namespace.items() if key != "type" and text]
    yield "namespace " + (", ".join(parts) or "home")
    addresses = rest.pop("ip_addresses", [])
    for name, text in rest.items():
        if isinstance(text, bool) and (text or name in _OPTIONAL):
            yield f"{name} {json.dumps(text)}"
        elif text not in ("", 0, None, [], {}):
            yield f"{name} {cut(str(text), _LONGEST)}"
    if addresses:
        more = len(addresses) - _MOST_ADDRESSES
        yield " ".join(map(str, addresses[:_MOST_ADDRESSES])) + (f" and {more} more" if more > 0 else "")


def _end(end: EndState) -> Iterator[str]:
    where = f"{paint(end.interface, 'link')}  {end.name}"
    if end.link is None:
        yield f"{where} in {ref_text(end.ref)}: {paint(cut(end.problem, _LONGEST), 'warning')}"
        return
    link = end.link
    yield f"{where}#{link.index} in {ref_text(end.ref)}  {painted_state(link)}  mtu {link.mtu}  {link.mac}"
    if end.fields and (master := end.fields["master"]):
        yield f"    master {master}"
    for address in end.addresses[:_MOST_ADDRESSES]:
        yield f"    {address_text(address, link.name)}"
    if (more := len(end.addresses) - _MOST_ADDRESSES) > 0:
        yield f"    and {more} more"
    listed = [*end.fields.get("routes", ()), *end.fields.get("neighbours", ())]
    for value in listed[:_MOST_ADDRESSES]:
        yield f"    {value}"
    if (more := len(listed) - _MOST_ADDRESSES) > 0:
        yield f"    and {more} more routes and neighbours"


def _change(change: dict[str, Any]) -> tuple[str, ...]:
    times = f"{change['count']} times, the last time {age(change['last'])} ago" if change["count"] > 1 else ""
    what = "; ".join(cut(text, _LONGEST) for text in (change["done"], change["reason"], times) if text)
    state = state_text(change["state"])
    return f"  {age(change['at'])} ago", state, f"cause: {cut(change['cause'], _LONGEST)}", what
