"""Reporting warnings about a configuration that is valid, but probably not intended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from vethlib import ns
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.compare import unknown_addresses
from vethlib.agent.planning.operations import AddNetns, Plan
from vethlib.agent.planning.plausibility import ConfigWarning, lookalike, similar_netns, warnings_of
from vethlib.agent.reasons import address_owner_unknown
from vethlib.cli.term.output import Output
from vethlib.errors import VethError
from vethlib.links import describe

__all__ = ["by_interface", "report_new_netns", "report_unknown_addresses", "report_warnings", "warnings_of"]

_LISTED = 20  # warnings with the same code that are printed


def report_warnings(output: Output, warnings: Iterable[ConfigWarning]) -> None:
    """Print warnings, one per line; without JSON, only the first of each code if there are very many."""
    counts: Counter[str] = Counter()
    for warning in warnings:
        counts[warning.code] += 1
        if output.as_json or counts[warning.code] <= _LISTED:
            output.warning(warning.message, code=warning.code, field=", ".join(warning.fields))
    for code, count in counts.items():
        if count > _LISTED and not output.as_json:
            output.warning(f"and {count - _LISTED} more of this kind ({code}): --json lists them all")


def report_new_netns(
    output: Output, planned: Plan, interfaces: Mapping[str, Interface], reported: Container[str] = ()
) -> set[str]:
    """Warn of namespaces to be created if this host already has one with a very similar name.

    Returns the names of all namespaces to be created; those that were `reported` before are left out of the warnings.
    """
    planned_names = {operation.name for operation in planned.operations if isinstance(operation, AddNetns)}
    created = [name for name in planned_names if name not in reported]
    if not created:
        return planned_names
    desired = {interface.namespace.name for interface in interfaces.values()}
    try:
        existing = [name for name in ns.names() if name not in desired]
    except VethError:
        return planned_names  # creating them will fail with the same error
    similar = {name: other for name in created if (other := lookalike(name, existing))}
    report_warnings(
        output,
        [
            similar_netns([interface.name], interface.namespace.name, similar[interface.namespace.name])
            for interface in interfaces.values()
            if interface.namespace.name in similar
        ],
    )
    return planned_names


def report_unknown_addresses(output: Output, planned: Plan, interfaces: Mapping[str, Interface]) -> None:
    """Warn of addresses that are not configured, and stay because it is not known who added them."""
    warnings = []
    for name, seen in planned.found.items():
        if addresses := unknown_addresses(interfaces[name], seen):
            reason = address_owner_unknown(addresses)
            message = f"{describe(seen.link.name, seen.ref)}: {reason}"
            warnings.append(ConfigWarning(reason.code, (name,), ("ip_addresses",), message))
    report_warnings(output, warnings)


def by_interface(warnings: Iterable[ConfigWarning]) -> dict[str, list[ConfigWarning]]:
    """Return the warnings by the names of the interfaces that they concern."""
    by_name: dict[str, list[ConfigWarning]] = {}
    for warning in warnings:
        for name in warning.interfaces:
            by_name.setdefault(name, []).append(warning)
    return by_name
