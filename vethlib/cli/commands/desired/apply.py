"""apply: bring this host to northbound files, show what that would take, or try it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from vethlib.agent.config.mark import check_label
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.planning import words
from vethlib.agent.planning.operations import Operation, Plan
from vethlib.agent.state import State
from vethlib.cli.applying import configuration
from vethlib.cli.applying.config_warnings import report_new_netns, report_unknown_addresses
from vethlib.cli.applying.detection import after_detection
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.applying.planning import Desired, observe_and_plan
from vethlib.cli.applying.reporting import report_outcome, report_unsettled, unsettled
from vethlib.cli.applying.running_agent import agent_in_the_way, refuse_beside_agent, warn_beside_agent
from vethlib.cli.applying.settling import apply_until_settled
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.render.difference import difference_lines
from vethlib.cli.render.operations import count_states, operation_lines
from vethlib.cli.term.exits import DONE, INVALID, PENDING, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.text import paint
from vethlib.session import Session

__all__ = ["apply"]


def apply(args: Namespace, output: Output) -> int:
    """Bring the host to the files."""
    check_label(args.label, "--label")
    interfaces = configuration.read(args.paths, output, limits_of(args))
    if interfaces is None:
        return INVALID
    if args.trial is not None:
        _check_trial(args)
    if agent := agent_in_the_way(output, args.label, force=args.force):
        if not args.dry_run:
            return refuse_beside_agent(output, args.label, agent)
        warn_beside_agent(output, args.label, agent)
    desired = Desired(interfaces, args.label, args.prune, creates_netns=args.missing_netns == "create")
    with Session() as session, RecordFile(session, args.label, read_only=args.dry_run) as records:
        if args.dry_run:
            return _dry_run(session, desired, records, args, output)
        if args.trial is not None:
            return _try(session, desired, records, args, output)
        return _apply(session, desired, records, args, output)


def _check_trial(args: Namespace) -> None:
    if not args.trial:
        raise UsageError("--try 0: must be longer than 0 s", field="--try", hint="give a time, such as --try 30s")
    if args.timeout and "timeout" in args.given:
        raise UsageError(
            "--try cannot be combined with --timeout: a trial does not wait for namespaces",
            field="--try",
            hint="leave out --timeout",
        )


def _apply(session: Session, desired: Desired, records: RecordFile, args: Namespace, output: Output) -> int:
    def show(operations: Sequence[Operation]) -> None:
        if not output.as_json:
            output.lines(operation_lines(operations))
            output.flush()  # it may wait for a namespace now

    settled = apply_until_settled(
        session,
        desired,
        records,
        output,
        show,
        timeout=args.timeout,
        force=args.force,
        loopback=args.loopback == "up",
    )
    execution = settled.execution
    if records.problem and execution.done:
        output.warning(records.problem)
    if output.as_json:
        output.json([entry for operation in execution.done for entry in operation.as_dicts()])
    elif execution.done:
        done = words.count(execution.done, done=True)
        output.line(f"{paint('applied', 'good')}: {done}; {count_states(settled.verdicts)}")
    elif not execution.errors:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(settled.verdicts)}")
    code = report_outcome(output, execution, settled.verdicts)
    return refuse_beside_agent(output, args.label, settled.agent) if settled.agent else code


def _dry_run(session: Session, desired: Desired, records: RecordFile, args: Namespace, output: Output) -> int:
    """Show what would be done; with --try also which parts of it could not be undone."""
    planned = observe_and_plan(session, desired, records)
    operations, states = planned.plan.operations, planned.plan.states()
    report_new_netns(output, planned.plan, desired.interfaces)
    report_unknown_addresses(output, planned.plan, desired.interfaces)
    if output.as_json:
        output.json(planned.plan.as_dicts())
    elif operations:
        output.lines(difference_lines(planned.plan, planned.observed, args.paths))
        output.line(f"{paint('dry run', 'warning')}: would {words.count(operations, done=False)}")
    else:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(states)}")
    code = report_outcome(output, Execution(list(operations)), states)
    if args.trial is None:
        return code
    from vethlib.cli.applying.trial import irreversible_parts, report_irreversible, to_be_undone

    irreversible = irreversible_parts(session, to_be_undone(session, planned))
    return report_irreversible(output, irreversible) if irreversible else code


def _try(session: Session, desired: Desired, records: RecordFile, args: Namespace, output: Output) -> int:
    from vethlib.cli.applying.trial import attempt, report_undone  # termios: 3 ms that other runs do not need

    def show(execution: Execution, plan: Plan) -> None:
        if not output.as_json:
            output.lines(operation_lines(execution.done))
            report_unsettled(output, plan.verdicts)

    loopback = args.loopback == "up"
    trial = attempt(session, desired, records, output, show, seconds=args.trial, loopback=loopback)
    if trial is None:
        return REFUSED
    if not trial.kept:
        return report_undone(output, trial)
    with Progress() as progress:
        verdicts = after_detection(session, desired.interfaces, trial.plan, trial.execution, 0.0, progress)
    if output.as_json:
        output.json(trial.as_dict())
        return report_outcome(output, trial.execution, verdicts)
    if not trial.execution.done:
        output.line(f"{paint('nothing to change', 'good')}: {count_states(verdicts)}")
    else:
        done = words.count(trial.execution.done, done=True)
        output.line(f"{paint('kept', 'good')}: {done}; {count_states(verdicts)}")
    # The interfaces that are not as configured were reported before the question.
    if any(verdict.state is State.FAILED for verdict in verdicts.values()):
        return REFUSED
    return PENDING if unsettled(verdicts) else DONE
