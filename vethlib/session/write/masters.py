"""The masters of links: looked up by name, because the kernel accepts only their ifindex."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from vethlib._nl.batch import Outcome
from vethlib._nl.link import get_named, parse_link
from vethlib.endfields.checks import MasterName
from vethlib.links import NetnsRef, describe, means_home, spell
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read.target import read_body

__all__ = ["find_masters", "no_master"]

_NO_MASTER: Final = Outcome(errno.EOPNOTSUPP)

_NEVER: Final = ("veth", "")
"""The kinds of links that take no ports: their drivers have no ndo_add_slave. lo and network cards have no kind."""


def find_masters(namespaces: Namespaces, place: OpenNetns, names: Iterable[str]) -> dict[str, MasterName | Outcome]:
    """Return the links of these names in a namespace, or why they cannot be masters. "" means no master, at no cost.

    A link that takes no ports is refused here, before anything is sent, because the kernel would first detach the link
    that is to be attached from its present master.
    """
    found: dict[str, MasterName | Outcome] = {"": MasterName("")}
    wanted = [name for name in dict.fromkeys(names) if name]
    outcomes = namespaces.ask_all(place, [get_named(name) for name in wanted]) if wanted else []
    for name, outcome in zip(wanted, outcomes, strict=True):
        if outcome.errno:
            found[name] = outcome
        else:
            link = read_body(place, outcome, parse_link)
            found[name] = _NO_MASTER if link.kind in _NEVER else MasterName(name, link.ifindex)
    return found


def no_master(outcome: Outcome, name: str, netns: NetnsRef) -> str:
    """Describe why a link cannot have this master."""
    if outcome.errno == errno.EOPNOTSUPP:
        return f"its master {name} takes no ports: give a bridge or VRF in {spell(netns)}"
    kind, _, value = spell(netns).partition(":")
    there = f" -n {value}" if kind == "netns" else ""
    where = "" if there or means_home(netns) else ", there"
    cure = f"create it first (ip{there} link add {name} type bridge{where})"
    return f"its master {describe(name, netns)} does not exist: {cure}"
