"""Reading northbound files and stores, and reporting what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping, Sequence

from vethlib.agent.config.files import load
from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.planning.observed import Observed, SeenNetns
from vethlib.agent.planning.requirements import name_conflicts, unmet, with_netns
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.errors import InvalidValue

from .config_warnings import report_warnings, warnings_of

__all__ = ["doubts", "load_files", "read", "read_store"]


def read(
    paths: Sequence[str], output: Output, limits: Limits = DEFAULT, *, alone: bool = True
) -> dict[str, Interface] | None:
    """Return the interfaces of the files by name; None if anything is invalid, which is reported.

    A configuration with an invalid part is not applied at all. Values that are valid, but probably not intended, are
    reported as warnings, if the interfaces can be judged `alone`.
    """
    interfaces = load_files(paths, output, limits)[1]
    if interfaces is not None and alone:
        report_warnings(output, warnings_of(interfaces))
    return interfaces


def read_store(
    url: str, label: str, output: Output, limits: Limits = DEFAULT
) -> tuple[dict[str, Interface], dict[str, InvalidValue], bool]:
    """Return the valid interfaces in a store and the problems of the others, both by name, and whether that is all.

    Problems are also reported. If a part of the store cannot be read, an agent does not delete pairs that are not
    stored. Raises StoreError, and InvalidValue for an invalid URL.
    """
    from vethlib.agent.stores.opening import open_editor  # not needed for files

    good: dict[str, Interface] = {}
    bad: dict[str, InvalidValue] = {}
    with Progress() as progress:
        snapshot = open_editor(url, label=label, limits=limits, progress=progress).snapshot()
    for name, one in snapshot.values.items():
        for text in one.warnings:
            output.warning(f"{one.source}: {name}: {text}")
        if one.interface is not None:
            good[name] = one.interface
            continue
        for problem in one.problems:
            where = "" if one.source in str(problem) else f"{one.source}: "
            output.error(f"{where}{name}: {problem}", code="invalid-value", field=problem.field, hint=problem.hint)
        bad[name] = next(iter(one.problems))
    report_warnings(output, warnings_of(good, bad))
    return good, bad, snapshot.complete


def load_files(
    paths: Sequence[str], output: Output, limits: Limits
) -> tuple[Sequence[Parsed], dict[str, Interface] | None, bool]:
    """Read the files and report problems. The interfaces are None if one is invalid; True if there was a warning."""
    with Progress() as progress:
        configuration = load(paths, sys.stdin, limits=limits, progress=progress)
    for text in configuration.warnings:
        output.warning(text)
    for parsed in configuration.parsed:
        where = f"{parsed.source}: {parsed.name}: " if parsed.name else f"{parsed.source}: "
        for text in parsed.warnings:
            output.warning(where + text)
        for problem in parsed.problems:
            output.error(f"{where}{problem}", code="invalid-value", field=problem.field, hint=problem.hint)
    has_warnings = bool(configuration.warnings) or any(parsed.warnings for parsed in configuration.parsed)
    return configuration.parsed, None if configuration.invalid else configuration.interfaces, has_warnings


def doubts(interfaces: Mapping[str, Interface], invalid: Container[str] = ()) -> dict[str, Verdict]:
    """Return what is missing to create these interfaces on a host that has all namespaces, by name.

    `invalid` are the names of interfaces that have no valid value.
    """
    refs = {interface.namespace.ref for interface in interfaces.values()}
    desired = with_netns(interfaces, Observed({ref: SeenNetns(ref, ref) for ref in refs}))
    conflicts = name_conflicts(desired)
    reasons = {
        name: [conflicts[name]] if name in conflicts else unmet(one, desired, interfaces, invalid=invalid)
        for name, one in desired.items()
    }
    return {name: Verdict.because(State.PENDING, *missing) for name, missing in reasons.items() if missing}
