"""The masters of links: looked up by name, since the kernel takes only their ifindex."""

from __future__ import annotations

from collections.abc import Iterable

from vethlib._nl.batch import Outcome
from vethlib._nl.link import get_named, index_of
from vethlib.endfields.checks import MasterName
from vethlib.links import NetnsRef, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read.target import read_body

__all__ = ["find_masters", "missing_master"]


def find_masters(namespaces: Namespaces, place: OpenNetns, names: Iterable[str]) -> dict[str, MasterName | Outcome]:
    """Return the links of these names in a namespace, or why there is none. "" is none, and costs nothing."""
    found: dict[str, MasterName | Outcome] = {"": MasterName("")}
    wanted = [name for name in dict.fromkeys(names) if name]
    outcomes = namespaces.ask_all(place, [get_named(name) for name in wanted]) if wanted else []
    for name, outcome in zip(wanted, outcomes, strict=True):
        found[name] = outcome if outcome.errno else MasterName(name, read_body(place, outcome, index_of))
    return found


def missing_master(name: str, netns: NetnsRef) -> str:
    """Put into words that the master of a link cannot be found."""
    return f"its master {describe(name, netns)} does not exist: create it first (ip link add {name} type bridge)"
