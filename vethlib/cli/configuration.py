"""Northbound files as commands take them: read, checked, and what is wrong with them told. validate is just that."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence

from vethlib.agent.files import load
from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed
from vethlib.agent.observed import Observed, SeenNetns
from vethlib.agent.requirements import name_conflicts, unmet, with_netns

from .exits import DONE, INVALID
from .output import Output
from .text import counted, paint

__all__ = ["doubts", "read", "validate"]


def validate(args: Namespace, output: Output) -> int:
    """Check the files."""
    parsed, interfaces = _load(args.paths, output)
    found = doubts(interfaces or {})
    for name, doubt in found.items():
        output.warning(f"{name}: {doubt}")
    if output.as_json:
        output.json([_as_dict(one, found) for one in parsed])
    elif interfaces is not None:
        are = "is" if len(interfaces) == 1 else "are"
        output.line(f"{paint('valid', 'good')}: {counted(len(interfaces), 'interface')} {are} well-formed")
    return INVALID if interfaces is None else DONE


def read(paths: Sequence[str], output: Output) -> dict[str, Interface] | None:
    """The interfaces of the files by name; None if anything is wrong with them, which is told then.

    A configuration that is not valid throughout is not applied in part.
    """
    return _load(paths, output)[1]


def _load(paths: Sequence[str], output: Output) -> tuple[Sequence[Parsed], dict[str, Interface] | None]:
    configuration = load(paths, sys.stdin)
    for text in configuration.warnings:
        output.warning(text)
    for one in configuration.parsed:
        where = f"{one.source}: {one.name}: " if one.name else f"{one.source}: "
        for text in one.warnings:
            output.warning(where + text)
        for problem in one.problems:
            output.error(f"{where}{problem}", code="invalid-value", field=problem.field, hint=problem.hint)
    return configuration.parsed, None if configuration.invalid else configuration.interfaces


def _as_dict(one: Parsed, doubts: Mapping[str, str]) -> dict[str, object]:
    return {
        "name": one.name,
        "source": one.source,
        "valid": one.interface is not None,
        "problems": [{"field": p.field, "value": str(p.value), "hint": p.hint} for p in one.problems],
        "warnings": [*one.warnings, *([doubts[one.name]] if one.name in doubts else [])],
    }


def doubts(interfaces: Mapping[str, Interface]) -> dict[str, str]:
    """What these interfaces would still lack, applied by themselves where every namespace is there."""
    refs = {interface.namespace.ref for interface in interfaces.values()}
    wanted = with_netns(interfaces, Observed({ref: SeenNetns(ref, ref) for ref in refs}))
    conflicts = name_conflicts(wanted)
    found = {name: conflicts.get(name) or unmet(one, wanted) for name, one in wanted.items()}
    return {name: doubt for name, doubt in found.items() if doubt}
