"""Applying a configuration until every interface is settled, or the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vethlib.agent.host.executed import Execution
from vethlib.agent.host.execution import execute
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import Operation
from vethlib.agent.planning.requirements import mutual_pairs, with_netns
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.session import Session

from .config_warnings import report_new_netns, report_unknown_addresses
from .detection import after_detection
from .planning import Desired, observe_and_record
from .running_agent import agent_by_now

__all__ = ["Settled", "apply_until_settled"]

_POLL: Final = 0.2  # seconds between observations while a namespace is missing


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything that was executed, and the resulting states; `agent` is an agent that has started meanwhile, or ""."""

    execution: Execution
    verdicts: Mapping[str, Verdict]
    agent: str = ""


def apply_until_settled(
    session: Session,
    desired: Desired,
    records: RecordFile,
    output: Output,
    show: Callable[[Sequence[Operation]], None],
    *,
    timeout: float,
    force: bool,
    loopback: bool,
) -> Settled:
    """Plan and execute repeatedly, for up to `timeout` seconds, until no interface waits for a namespace.

    Stops when an agent of the label starts, unless with `force`. `show` prints operations that were executed.
    """
    deadline = time.monotonic() + timeout
    done: list[Operation] = []
    created: set[str] = set()
    is_waiting = False
    with Progress() as progress:
        while True:
            planned = observe_and_record(session, desired, records)
            created |= report_new_netns(output, planned.plan, desired.interfaces, created)
            execution = execute(session, planned.plan, progress=progress, records=records, loopback=loopback)
            done += execution.done
            progress.clear()
            show(execution.done)
            verdicts = execution.verdicts(planned.plan)
            execution = Execution(done, execution.errors)
            waiting = _waiting(desired, planned.observed, verdicts)
            left = deadline - time.monotonic()
            if not waiting or left <= 0:
                report_unknown_addresses(output, planned.plan, desired.interfaces)
                return Settled(
                    execution,
                    after_detection(session, desired.interfaces, planned.plan, execution, deadline, progress),
                )
            text = f"waiting up to {max(1, math.ceil(left))} s: {waiting}"
            if not is_waiting and not progress.is_shown:
                output.remark(text)
            is_waiting = True
            progress.show(text)
            time.sleep(min(_POLL, left))
            if agent := agent_by_now(desired.label, force=force):
                return Settled(execution, verdicts, agent)


def _waiting(desired: Desired, observed: Observed, verdicts: Mapping[str, Verdict]) -> str:
    """Return an interface that waits for a namespace, with the reason; "" if there is none.

    Anything else that is missing has to be configured, so there is no point in waiting for it.
    """
    for pair in mutual_pairs(with_netns(desired.interfaces, observed)):
        for end in pair:
            if end.place is None and verdicts[end.name].state is State.PENDING:
                return f"{end.name}: {verdicts[end.name].reason}"
    return ""
