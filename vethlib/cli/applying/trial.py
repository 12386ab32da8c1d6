"""apply --try: bring this host to a configuration, ask whether to keep it, and otherwise undo it."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from vethlib.agent.host.executed import Execution
from vethlib.agent.host.execution import execute
from vethlib.agent.host.given import attributed
from vethlib.agent.host.namespaces import NetnsInUse
from vethlib.agent.host.observation import observe, with_settings
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.planning import words
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import CreatePair, Operation, Plan
from vethlib.agent.planning.undo.inversion import inverse
from vethlib.agent.planning.undo.losses import Irreversible, irreversible, links_at_stake
from vethlib.agent.run.trial import Trial
from vethlib.cli.render.operations import operation_lines
from vethlib.cli.term.exits import REFUSED, UNDONE
from vethlib.cli.term.output import Output, abandon_stdout
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.signals import NotedSignals, time_limit
from vethlib.cli.term.streams import Unread
from vethlib.cli.term.text import paint
from vethlib.errors import VethError
from vethlib.session import Session

from .config_warnings import report_new_netns, report_unknown_addresses
from .planning import Desired, Planned, observe_and_record
from .question import FAILED, IGNORED, INCOMPLETE, KEEP, LEAVING, NO_READER, Answer, ask, duration, stopped_by
from .reporting import report_each

__all__ = ["Tried", "attempt", "irreversible_parts", "report_irreversible", "report_undone", "to_be_undone"]


_PAUSES: Final = (0.1, 0.5)  # seconds before the observation for an undo is repeated


@dataclass(slots=True)
class Tried:
    """Result of a trial: what was executed, and the `answer`, for which it was undone or kept.

    `left` has the changes that could not be undone because others depend on them by now.
    """

    plan: Plan
    execution: Execution = field(default_factory=Execution)
    answer: Answer = KEEP
    undone: Execution = field(default_factory=Execution)
    left: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the changes were kept."""
        return self.answer == KEEP

    @property
    def outcome(self) -> str:
        """Return "kept" or "undone": for JSON, and for the process that has confirmed."""
        return "kept" if self.kept else "undone"

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "outcome": self.outcome,
            "reason": self.answer.text,
            "code": self.answer.code,
            "done": [entry for operation in self.execution.done for entry in operation.as_dicts()],
            "undone": [entry for operation in self.undone.done for entry in operation.as_dicts()],
            "left": list(self.left),
        }


def to_be_undone(session: Session, planned: Planned) -> Planned:
    """Return a plan with the settings that an undo has to restore. Raises VethError if it could not."""
    return replace(planned, observed=with_settings(session, planned.observed, planned.plan))


def irreversible_parts(session: Session, planned: Planned) -> tuple[Irreversible, ...]:
    """Return the parts of a plan that cannot be undone."""
    at_stake = links_at_stake(planned.plan, planned.observed)
    dependents = session.dependents([(seen.ref, seen.link.index) for seen in at_stake])
    by_link = {seen.id: each for seen, each in zip(at_stake, dependents, strict=True)}
    return irreversible(planned.plan, planned.observed, by_link)


def report_irreversible(output: Output, parts: tuple[Irreversible, ...]) -> int:
    """Report why nothing is tried; return the exit code."""
    for part in parts:
        hint = "apply it without --try, or remove the cause first" if part is parts[-1] else ""
        output.error(f"cannot be undone: {part.why}", code="irreversible", hint=hint)
    return REFUSED


def attempt(
    session: Session,
    desired: Desired,
    records: RecordFile,
    output: Output,
    show: Callable[[Execution, Plan], None],
    *,
    seconds: float,
    loopback: bool,
) -> Tried | None:
    """Execute the plan, ask, and undo it unless the answer is yes. None: it cannot be undone, so nothing was tried.

    `show` prints what was done, before the question.
    """
    with NotedSignals(LEAVING, IGNORED) as signals, Trial(desired.label) as trial, Progress() as progress:
        if trial.warning:
            output.warning(trial.warning)
        planned = observe_and_record(session, desired, records)
        planned = to_be_undone(session, planned)
        report_new_netns(output, planned.plan, desired.interfaces)
        report_unknown_addresses(output, planned.plan, desired.interfaces)
        if parts := irreversible_parts(session, planned):
            report_irreversible(output, parts)
            return None
        tried = Tried(planned.plan)
        if signals.received:
            tried.answer = stopped_by(signals)
            return tried
        undoing = _Undoing(session, desired, records, planned, progress)
        try:
            execute(
                session,
                planned.plan,
                progress=progress,
                account=tried.execution,
                records=records,
                loopback=loopback,
            )
            undoing.after = undoing.observe()
            progress.clear()
            # A full pipe must not prolong the trial.
            with time_limit(seconds, lambda: Unread(errno.EPIPE, "the output was not read in time")):
                show(tried.execution, planned.plan)
                answer = _explain_question(tried.execution, desired.label, seconds, output)
            tried.answer = ask(trial, signals, seconds) if answer is None else answer
        except BaseException as error:
            if isinstance(error, VethError) or not isinstance(error, OSError):
                undoing.undo(tried)
                raise
            if isinstance(error, Unread):
                abandon_stdout()
            cause = NO_READER if isinstance(error, BrokenPipeError) else FAILED
            tried.answer = cause._replace(text=f"{cause.text} ({error.strerror})")
        if not tried.kept:
            undoing.undo(tried)
        trial.answer(tried.outcome)
        return tried


def _explain_question(execution: Execution, label: str, seconds: float, output: Output) -> Answer | None:
    """Print how to answer; or return the answer if none has to be awaited."""
    if execution.errors:
        return INCOMPLETE
    if not execution.done:
        return KEEP
    flag = "" if label == "vpp1" else f" --label {label}"
    how = f"to keep the changes, press y here, or run `vethctl confirm{flag}` elsewhere"
    output.remark(f"applied on trial for {duration(seconds)}: {how}")
    if output.is_unread:
        return NO_READER
    output.flush_to_reader()
    return None


class _Undoing:
    """Everything needed to undo a plan; `after` is the state observed after its execution, if that was reached."""

    def __init__(
        self, session: Session, desired: Desired, records: RecordFile, planned: Planned, progress: Progress
    ) -> None:
        self.after: Observed | None = None
        self.refs = [*desired.refs, *(seen.ref for seen in links_at_stake(planned.plan, planned.observed))]
        self._session, self._records, self._progress = session, records, progress
        self._before = planned.observed
        self._interfaces = desired.interfaces

    def observe(self) -> Observed:
        interfaces = self._interfaces.values()
        observed = observe(self._session, self.refs, interfaces=interfaces, records=self._records)
        return attributed(observed, self._records.record)

    def _observe_now(self, tried: Execution) -> Observed:
        """Observe the host; try again if that fails for a moment, as it may while the host is short of memory."""
        for pause in _PAUSES:
            try:
                now = self.observe()
                if not any(_unseen(each, now) for each in tried.done):
                    return now
            except VethError:
                pass
            time.sleep(pause)
        return self.observe()

    def undo(self, tried: Tried) -> None:
        session, records = self._session, self._records
        try:
            now = self._observe_now(tried.execution)
            after = now if self.after is None else self.after
            done, begun = tried.execution.done, tried.execution.begun
            undo = inverse(done, self._before, after, now, records.record, begun=begun)
            execute(session, undo.plan, progress=self._progress, account=tried.undone, records=records)
            unseen = [(each, _unseen(each, after) or _unseen(each, now)) for each in done]
            tried.undone.errors += [
                (each, VethError(f"what was tried may remain in {where}")) for each, where in unseen if where
            ]
        except VethError as error:
            error.add_note("the trial was not undone, or only in part")
            raise
        # A namespace that others use by now stays; that is not an error.
        in_use = [str(error) for _, error in tried.undone.errors if isinstance(error, NetnsInUse)]
        tried.undone.errors = [entry for entry in tried.undone.errors if not isinstance(entry[1], NetnsInUse)]
        tried.left = (*undo.left, *in_use)


def _unseen(operation: Operation, observed: Observed) -> str:
    """Return where an operation has changed what was not observed, and why it was not; "" if it was.

    One end of a pair is enough.
    """
    match operation:
        case CreatePair(a, b):
            refs = {a.namespace.ref, b.namespace.ref}
        case _:
            refs = {operation.ref}
    seen = [observed.netns[ref] for ref in sorted(refs) if ref in observed.netns]
    unknown = [f"{each.ref}: {each.reason}" for each in seen if each.unknown]
    return unknown[0] if len(unknown) == len(seen) > 0 else ""


def report_undone(output: Output, tried: Tried) -> int:
    """Report a trial that was undone, if there is still a reader; return the exit code."""
    try:
        _report_undone(output, tried)
        output.flush()
    except OSError:
        abandon_stdout()
    return REFUSED if tried.execution.errors or tried.undone.errors else UNDONE


def _report_undone(output: Output, tried: Tried) -> None:
    for text in tried.left:
        output.warning(text)
    report_each(output, (error for _, error in [*tried.execution.errors, *tried.undone.errors]))
    if output.as_json:
        output.json(tried.as_dict())
        return
    output.lines(operation_lines(tried.undone.done))
    nothing = "nothing was undone" if tried.undone.errors else "nothing was left to undo"
    done = words.count(tried.undone.done, done=True) or nothing
    output.line(f"{paint('undone', 'warning')}: {tried.answer.text}; {done}")
