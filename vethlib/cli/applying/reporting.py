"""Reporting errors and interfaces that are not as configured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vethlib.agent.host.executed import Execution
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.exits import DONE, PENDING, REFUSED, report
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import paint
from vethlib.errors import VethError

__all__ = ["report_each", "report_outcome", "report_unsettled", "unsettled"]


def unsettled(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Return the verdicts of the interfaces that are not as configured."""
    return {name: verdict for name, verdict in verdicts.items() if verdict.state is not State.CONFIGURED}


def report_unsettled(output: Output, verdicts: Mapping[str, Verdict]) -> None:
    """Report on stderr which interfaces are not as configured, and why; as errors if that is JSON."""
    for name, verdict in unsettled(verdicts).items():
        if output.as_json:
            output.error(f"{name} is {verdict}", code=verdict.state.lower(), field=name, reasons=verdict.reasons)
        else:
            role = "warning" if verdict.state is State.PENDING else "bad"
            output.remark(f"{paint('?', role)} {name} is {paint(verdict.state, role)}: {verdict.reason}")


def report_each(output: Output, errors: Iterable[VethError]) -> set[str]:
    """Report errors, each message once, and return the messages.

    One refusal may fail many operations: if a namespace cannot be entered, all pairs in it fail.
    """
    reported: set[str] = set()
    for error in errors:
        if str(error) not in reported:
            report(output, error)
            reported.add(str(error))
    return reported


def report_outcome(output: Output, execution: Execution, verdicts: Mapping[str, Verdict]) -> int:
    """Report the errors of an execution and the interfaces that are not as configured; return the exit code."""
    reported = report_each(output, (error for _, error in execution.errors))
    rest = {name: verdict for name, verdict in unsettled(verdicts).items() if verdict.reason not in reported}
    report_unsettled(output, rest)
    if execution.errors or any(verdict.state is not State.PENDING for verdict in rest.values()):
        return REFUSED
    return PENDING if rest else DONE
