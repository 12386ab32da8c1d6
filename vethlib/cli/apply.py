"""apply and diff: bring this host to northbound files, or say what that would take."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping

from vethlib.agent.execute import Execution, execute
from vethlib.agent.mark import check_label
from vethlib.agent.model import Interface
from vethlib.agent.observe import observe
from vethlib.agent.observed import Observed
from vethlib.agent.operations import Operation, Plan
from vethlib.agent.plan import plan
from vethlib.agent.requirements import mutual_pairs, with_netns
from vethlib.agent.state import State, Verdict
from vethlib.session import Session

from . import configuration
from .difference import show_difference
from .exits import DONE, INVALID, PENDING, REFUSED, report
from .operations import count_operations, count_states, show_operations, tell_unsettled
from .output import Output
from .parser import UsageError
from .progress import Progress
from .text import paint

__all__ = ["apply", "diff"]

_POLL = 0.2  # seconds between looks while waiting for a namespace

SAME, DIFFERENT = 0, 1


def diff(args: Namespace, output: Output) -> int:
    """Show what apply would do."""
    check_label(args.label, "--label")
    interfaces = configuration.read(args.paths, output)
    if interfaces is None:
        return INVALID
    with Session() as session:
        observed = _observe(session, interfaces, args)
    wanted = plan(interfaces, observed, label=args.label, prune=args.prune)
    if output.as_json:
        output.json(wanted.as_dicts())
    else:
        show_difference(output, wanted, observed, args.paths)
    tell_unsettled(output, wanted.verdicts)
    same = not wanted.operations and not _unsettled(wanted.verdicts)
    if not output.as_json:
        if wanted.operations:
            output.line(f"{paint('different', 'warning')}: would {count_operations(wanted.operations, done=False)}")
        elif same:
            output.line(f"{paint('no difference', 'good')}: {count_states(wanted.verdicts)}")
    return SAME if same else DIFFERENT


def apply(args: Namespace, output: Output) -> int:
    """Bring the host to the files."""
    check_label(args.label, "--label")
    interfaces = configuration.read(args.paths, output)
    if interfaces is None:
        return INVALID
    if args.trial is not None:
        _check_trial(args)
    with Session() as session:
        if args.dry_run:
            return _foretell(session, interfaces, args, output)
        if args.trial is not None:
            return _try(session, interfaces, args, output)
        with Progress() as progress:
            execution, verdicts = _until_settled(session, interfaces, args, progress)
    _show(output, execution, verdicts)
    return _tell_errors(output, execution, verdicts)


def _check_trial(args: Namespace) -> None:
    if not args.trial:
        raise UsageError("--try 0: write how long to try it", field="--try", hint="as in --try 30s")
    if args.timeout:
        raise UsageError("--try does not wait for namespaces", field="--try", hint="leave out --timeout")


def _foretell(session: Session, interfaces: Mapping[str, Interface], args: Namespace, output: Output) -> int:
    """A dry run: what would be done, and with --try what of it could not be undone."""
    observed = _observe(session, interfaces, args)
    wanted = plan(interfaces, observed, label=args.label, prune=args.prune)
    execution, verdicts = Execution(list(wanted.operations)), dict(wanted.verdicts)
    if output.as_json:
        output.json(wanted.as_dicts())
    elif execution.done:
        show_difference(output, wanted, observed, args.paths)
        would = count_operations(execution.done, done=False)
        output.line(f"{paint('dry run', 'warning')}: would {would}")
    else:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(verdicts)}")
    code = _tell_errors(output, execution, verdicts)
    if args.trial is None:
        return code
    from .trying import tell_irreversible, what_cannot_be_undone

    found = what_cannot_be_undone(session, wanted, observed)
    return tell_irreversible(output, found) if found else code


def _try(session: Session, interfaces: Mapping[str, Interface], args: Namespace, output: Output) -> int:
    from .trying import attempt, tell_undone  # termios, signals: 3 ms that others do not need

    def show(execution: Execution, wanted: Plan) -> None:
        if not output.as_json:
            show_operations(output, execution.done)
            tell_unsettled(output, wanted.verdicts)

    tried = attempt(session, interfaces, args, output, show)
    if isinstance(tried, int):
        return tried
    outcome, wanted = tried
    if not outcome.kept:
        return tell_undone(output, outcome)
    verdicts = outcome.execution.verdicts(wanted)
    if output.as_json:
        output.json(outcome.as_dict())
        return _tell_errors(output, outcome.execution, verdicts)
    if not outcome.execution.done:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(verdicts)}")
    else:
        done = count_operations(outcome.execution.done, done=True)
        output.line(f"{paint('kept', 'good')}: {done}; {count_states(verdicts)}")
    # What is unsettled was told before it was asked.
    return REFUSED if any(one.state is State.FAILED for one in verdicts.values()) else _code(verdicts)


def _code(verdicts: Mapping[str, Verdict]) -> int:
    return PENDING if _unsettled(verdicts) else DONE


def _observe(session: Session, interfaces: Mapping[str, Interface], args: Namespace) -> Observed:
    refs = [interface.namespace.ref for interface in interfaces.values()]
    return observe(session, refs, create_missing=args.missing_netns == "create")


def _until_settled(
    session: Session, interfaces: Mapping[str, Interface], args: Namespace, progress: Progress
) -> tuple[Execution, dict[str, Verdict]]:
    """Carry out plan after plan, until none has a namespace to wait for or the time is up."""
    deadline = time.monotonic() + args.timeout
    done: list[Operation] = []
    while True:
        observed = _observe(session, interfaces, args)
        wanted: Plan = plan(interfaces, observed, label=args.label, prune=args.prune)
        execution = execute(session, wanted, progress=progress)
        done += execution.done
        verdicts = execution.verdicts(wanted)
        waiting = _waiting(interfaces, observed, verdicts)
        left = deadline - time.monotonic()
        if not waiting or left <= 0:
            return Execution(done, execution.errors), verdicts
        progress.say(f"waiting up to {left:.0f} s: {waiting}")
        time.sleep(min(_POLL, left))


def _waiting(interfaces: Mapping[str, Interface], observed: Observed, verdicts: Mapping[str, Verdict]) -> str:
    """What time may bring, in words: a namespace for a pair. What the files lack it does not bring."""
    for a, b in mutual_pairs(with_netns(interfaces, observed)):
        for one in (a, b):
            if one.place is None and verdicts[one.name].state is State.PENDING:
                return f"{one.name}: {verdicts[one.name].reason}"
    return ""


def _show(output: Output, execution: Execution, verdicts: Mapping[str, Verdict]) -> None:
    if output.as_json:
        output.json([entry for operation in execution.done for entry in operation.as_dicts()])
        return
    show_operations(output, execution.done)
    done = count_operations(execution.done, done=True)
    if done:
        output.line(f"{paint('applied', 'good')}: {done}; {count_states(verdicts)}")
    elif not execution.errors:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(verdicts)}")


def _tell_errors(output: Output, execution: Execution, verdicts: Mapping[str, Verdict]) -> int:
    told: set[str] = set()
    for _, error in execution.errors:
        # One refusal may fail many operations, as that of a namespace fails all the pairs in it.
        if str(error) not in told:
            report(output, error)
            told.add(str(error))
    rest = {name: verdict for name, verdict in _unsettled(verdicts).items() if verdict.reason not in told}
    tell_unsettled(output, rest)
    if execution.errors or any(verdict.state is not State.PENDING for verdict in rest.values()):
        return REFUSED
    return PENDING if rest else DONE


def _unsettled(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    return {name: verdict for name, verdict in verdicts.items() if verdict.state is not State.CONFIGURED}
