"""apply, diff and validate: northbound files against this host."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping

from vethlib.agent.execute import Execution, execute
from vethlib.agent.files import Configuration, load
from vethlib.agent.mark import check_label
from vethlib.agent.model import Interface
from vethlib.agent.observe import observe
from vethlib.agent.operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan
from vethlib.agent.plan import plan
from vethlib.agent.state import State, Verdict
from vethlib.links import describe
from vethlib.session import Session

from . import DONE, INVALID, PENDING, REFUSED, report
from .output import Output, Progress

__all__ = ["apply", "diff", "validate"]

_POLL = 0.2  # seconds between looks while waiting for what is pending


def validate(args: Namespace, output: Output) -> int:
    """Check the files."""
    configuration, code = _load(args, output)
    found = configuration.parsed
    if output.as_json:
        output.json(
            [
                {
                    "name": one.name,
                    "source": one.source,
                    "valid": one.interface is not None,
                    "problems": [{"field": p.field, "value": str(p.value), "hint": p.hint} for p in one.problems],
                    "warnings": list(one.warnings),
                }
                for one in found
            ]
        )
    elif code == DONE:
        names = "1 interface is" if len(found) == 1 else f"{len(found)} interfaces are"
        output.line(f"{output.paint('valid', 'green')}: {names} well-formed")
    return code


def _load(args: Namespace, output: Output) -> tuple[Configuration, int]:
    """Read the files, say what is wrong with them; nothing is done with a configuration that is not all valid."""
    configuration = load(args.paths, sys.stdin)
    warnings = list(configuration.warnings)
    warnings += [f"{one.source}: {text}" for one in configuration.parsed for text in one.warnings]
    if not output.as_json:
        for text in warnings:
            output.note(text)
    for one in configuration.invalid:
        for problem in one.problems:
            where = f"{one.source}: {one.name + ': ' if one.name else ''}"
            output.error(f"{where}{problem}", code="invalid-value", field=problem.field, hint=problem.hint)
    return configuration, INVALID if configuration.invalid else DONE


def diff(args: Namespace, output: Output) -> int:
    """Show what apply would do."""
    configuration, code = _load(args, output)
    check_label(args.label)
    if code != DONE:
        return code
    with Session() as session:
        wanted = _plan(session, configuration.interfaces, args)
    if output.as_json:
        output.json(wanted.as_dicts())
    else:
        _show_operations(output, wanted.operations)
        _show_unsettled(output, wanted.verdicts)
        if not wanted.operations:
            output.line(f"{output.paint('no difference', 'green')}: {_summary(wanted.verdicts)}")
    same = not wanted.operations and all(v.state is State.CONFIGURED for v in wanted.verdicts.values())
    return 0 if same else 1


def apply(args: Namespace, output: Output) -> int:
    """Bring the host to the files."""
    configuration, code = _load(args, output)
    check_label(args.label)
    if code != DONE:
        return code
    deadline = time.monotonic() + args.timeout
    done: list[Operation] = []
    progress = Progress()
    with Session() as session:
        while True:
            wanted = _plan(session, configuration.interfaces, args)
            if args.dry_run:
                execution, verdicts = Execution(list(wanted.operations)), dict(wanted.verdicts)
                break
            execution = execute(session, wanted, progress=progress)
            progress.clear()
            done += execution.done
            verdicts = execution.verdicts(wanted)
            left = deadline - time.monotonic()
            if left <= 0 or State.PENDING not in {verdict.state for verdict in verdicts.values()}:
                execution.done = done
                break
            time.sleep(min(_POLL, left))
    _show_applied(output, execution, verdicts, dry_run=args.dry_run)
    return _exit_code(output, execution, verdicts)


def _plan(session: Session, interfaces: dict[str, Interface], args: Namespace) -> Plan:
    refs = [interface.namespace.ref for interface in interfaces.values()]
    observed = observe(session, refs, create_missing=args.missing_netns == "create")
    return plan(interfaces, observed, label=args.label, prune=args.prune)


def _show_applied(output: Output, execution: Execution, verdicts: dict[str, Verdict], *, dry_run: bool) -> None:
    if output.as_json:
        output.json([entry for operation in execution.done for entry in operation.as_dicts()])
        return
    _show_operations(output, execution.done)
    if dry_run:
        _show_unsettled(output, verdicts)
        output.line(f"{output.paint('dry run', 'yellow')}: nothing was changed")
    elif not execution.done and not execution.errors:
        output.line(f"{output.paint('nothing to change', 'green')}: {_summary(verdicts)}")
    else:
        output.line(f"{output.paint('applied', 'green')}: {_summary(verdicts)}")


def _exit_code(output: Output, execution: Execution, verdicts: dict[str, Verdict]) -> int:
    code = DONE
    refused: set[str] = set()
    for operation, error in execution.errors:
        report(output, error)
        if isinstance(operation, CreatePair):
            refused |= {operation.a.name, operation.b.name}
        elif not isinstance(operation, AddNetns):
            refused.add(operation.interface if isinstance(operation, DeletePair) else operation.interface.name)
        code = REFUSED
    for name, verdict in verdicts.items():
        if verdict.state is State.CONFIGURED or name in refused:
            continue
        code = (code or PENDING) if verdict.state is State.PENDING else REFUSED
        output.error(f"{name} is {verdict}", code=verdict.state.lower(), field=name)
    return code


def _summary(verdicts: Mapping[str, Verdict]) -> str:
    counts: dict[State, int] = {}
    for verdict in verdicts.values():
        counts[verdict.state] = counts.get(verdict.state, 0) + 1
    if not counts:
        return "no interfaces"
    if set(counts) == {State.CONFIGURED}:
        number = counts[State.CONFIGURED]
        return "1 interface is as configured" if number == 1 else f"{number} interfaces are as configured"
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def _show_unsettled(output: Output, verdicts: Mapping[str, Verdict]) -> None:
    for name, verdict in verdicts.items():
        if verdict.state is not State.CONFIGURED:
            style = "yellow" if verdict.state is State.PENDING else "red"
            output.line(f"{output.paint('?', style)} {name}: {output.paint(verdict.state, style)} — {verdict.reason}")


def _show_operations(output: Output, operations: Iterable[Operation]) -> None:
    for operation in operations:
        _show_operation(output, operation)


def _show_operation(output: Output, operation: Operation) -> None:
    if isinstance(operation, AddNetns):
        output.line(f"{output.paint('+', 'green')} namespace {operation.name}")
    elif isinstance(operation, DeletePair):
        where = describe(operation.name, operation.ref)
        output.line(f"{output.paint('-', 'red')} {where} and its peer: {operation.why}")
    elif isinstance(operation, CreatePair):
        output.line(f"{output.paint('+', 'green')} {operation.veth}")
        rows = []
        for end in (operation.veth.a, operation.veth.b):
            words = [f"mac {end.mac}"] if end.mac else []
            words += [f"mtu {end.mtu}"] if end.mtu else []
            words += [str(one) for one in end.interfaces]
            rows.append((f"    {end.name}", "up" if end.up else "down", "  ".join(words)))
        output.table(rows, styles=((), ("dim",), ("dim",)))
    else:
        _show_change(output, operation)


def _show_change(output: Output, operation: ChangeLink) -> None:
    words = [
        f"{name} {_word(old)} → {output.paint(_word(new), 'bold')}" for name, (old, new) in operation.changes.items()
    ]
    words += [output.paint(f"+{address}", "green") for address in operation.added]
    words += [output.paint(f"-{address}", "red") for address in operation.removed]
    where = describe(operation.name, operation.ref)
    output.line(f"{output.paint('~', 'yellow')} {where}: {', '.join(words)}")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if value == "" or " " in str(value) else str(value)
