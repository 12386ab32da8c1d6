"""Commands that change the pairs of a label while an agent of that label runs, which would undo the changes."""

from __future__ import annotations

from shlex import quote

from vethlib.agent.process.claim import NoUnixSockets
from vethlib.agent.process.instance import agent_of
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.stores.agentreport import read_report
from vethlib.cli.term.exits import REFUSED
from vethlib.cli.term.output import Output

__all__ = ["agent_by_now", "agent_in_the_way", "refuse_beside_agent", "warn_beside_agent"]


def agent_in_the_way(output: Output, label: str, *, force: bool) -> str:
    """Describe the process of the agent of a label on this host; "" if there is none, or with `force`.

    A process that only holds the abstract name of the agent, as any user may, does not count. If it cannot be
    determined, this prints a warning.
    """
    try:
        return "" if force else _agent_of(label)
    except NoUnixSockets as error:
        message = f"it is unknown whether an agent with the label {label} runs on this host: {error}"
        output.warning(message, code="agent-unknown", field="--label")
        return ""


def agent_by_now(label: str, *, force: bool) -> str:
    """Return the same as :func:`agent_in_the_way`, which has already warned if it cannot be determined."""
    try:
        return "" if force else _agent_of(label)
    except NoUnixSockets:
        return ""


def _agent_of(label: str) -> str:
    holder = agent_of(label)
    if holder is None or not holder.is_ours:
        return ""
    return f"process {holder.pid}" if holder.pid else "an unknown process"


def refuse_beside_agent(output: Output, label: str, agent: str) -> int:
    """Report that nothing is done, and what to do instead; return the exit code."""
    output.error(_message(label, agent), code="agent-running", field="--label", hint=_cure(label))
    return REFUSED


def warn_beside_agent(output: Output, label: str, agent: str) -> None:
    """Warn that the changes shown would be refused."""
    output.warning(f"{_message(label, agent)}; {_cure(label)}", code="agent-running", field="--label")


def _message(label: str, agent: str) -> str:
    return (
        f"an agent with the label {label} runs on this host ({agent}): "
        "it keeps the pairs of this label as configured in its store, and would undo the changes"
    )


def _cure(label: str) -> str:
    report = read_report(status_directory(label))
    flag = "" if label == "vpp1" else f" --label {label}"
    put = "vethctl put" if report is None else f"vethctl put FILE --store {quote(report.store)}{flag}"
    return f"put the files into its store ({put}), give another --label, or apply them anyway with --force"
