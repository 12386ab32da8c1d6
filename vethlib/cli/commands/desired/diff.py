"""diff: what apply would do with northbound files, or an agent with a store."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from vethlib.agent.config.mark import check_label
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.planning import words
from vethlib.agent.state import State
from vethlib.cli.applying import configuration
from vethlib.cli.applying.config_warnings import report_new_netns, report_unknown_addresses
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.applying.planning import Desired, observe_and_plan
from vethlib.cli.applying.reporting import report_unsettled, unsettled
from vethlib.cli.arguments.file_commands import DIFF_USAGE
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.render.difference import difference_lines
from vethlib.cli.render.operations import count_states
from vethlib.cli.term.exits import INVALID
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import paint
from vethlib.session import Session

__all__ = ["diff"]

SAME: Final = 0
DIFFERENT: Final = 1


def diff(args: Namespace, output: Output) -> int:
    """Show the differences between this host and the files or the store."""
    check_label(args.label, "--label")
    if args.paths and "store" in args.given:
        raise UsageError("PATH and --store cannot be combined", field="--store", hint=f"usage: vethctl {DIFF_USAGE}")
    if args.paths:
        desired, sources = _from_files(args, output), args.paths
    elif args.store:
        desired, sources = _from_store(args, output)
    else:
        raise UsageError("PATH or --store is missing", field="PATH", hint=f"usage: vethctl {DIFF_USAGE}")
    if desired is None:
        return INVALID
    with Session() as session, RecordFile(session, args.label, read_only=True) as records:
        planned = observe_and_plan(session, desired, records)
    plan, states = planned.plan, planned.plan.states()
    report_new_netns(output, plan, desired.interfaces)
    report_unknown_addresses(output, plan, desired.interfaces)
    if output.as_json:
        output.json(plan.as_dicts())
    else:
        output.lines(difference_lines(plan, planned.observed, sources))
    report_unsettled(output, states)
    # An address that is being checked for duplicates is as configured: there is nothing else to do.
    detecting = {name for name, verdict in plan.unusable.items() if verdict.state is State.PENDING}
    is_same = not desired.unknown and not plan.operations and not unsettled(states).keys() - detecting
    if not output.as_json:
        if plan.operations:
            output.line(f"{paint('different', 'warning')}: would {words.count(plan.operations, done=False)}")
        elif is_same:
            output.line(f"{paint('no difference', 'good')}: {count_states(states)}")
    return SAME if is_same else DIFFERENT


def _from_files(args: Namespace, output: Output) -> Desired | None:
    interfaces = configuration.read(args.paths, output, limits_of(args))
    if interfaces is None:
        return None
    return Desired(interfaces, args.label, args.prune, creates_netns=args.missing_netns == "create")


def _from_store(args: Namespace, output: Output) -> tuple[Desired, Sequence[str]]:
    from vethlib.agent.stores.opening import shown  # not needed for files

    interfaces, invalid, is_complete = configuration.read_store(args.store, args.label, output, limits_of(args))
    if not is_complete:
        output.warning("pairs that are not in the store are kept, because part of the store cannot be read")
    prune = True if is_complete else set(interfaces)
    creates_netns = args.missing_netns == "create"
    return Desired(interfaces, args.label, prune, frozenset(invalid), creates_netns), [shown(args.store)]
