"""apply --try: bring this host to northbound files, and back unless somebody says that it is good. And confirm."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vethlib.agent.execute import Execution, NetnsInUse, execute
from vethlib.agent.inverse import Irreversible, inverse, irreversible, links_at_stake
from vethlib.agent.model import Interface
from vethlib.agent.observe import observe
from vethlib.agent.observed import Observed
from vethlib.agent.operations import Plan
from vethlib.agent.plan import plan
from vethlib.agent.trial import Trial, settle
from vethlib.errors import VethError
from vethlib.session import Session

from .exits import DONE, REFUSED, UNDONE, report
from .operations import count_operations, show_operations
from .output import Output, abandon_stdout
from .progress import Progress
from .question import KEEP, Farewells, ask, duration
from .text import paint

__all__ = ["Outcome", "attempt", "confirm", "tell_irreversible", "tell_undone", "what_cannot_be_undone"]


@dataclass(slots=True)
class Outcome:
    """What came of a trial: `reason` says why it was undone, "" if it was kept; `left` what others have made theirs."""

    execution: Execution
    reason: str = KEEP
    undone: Execution = field(default_factory=Execution)
    left: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the changes are there."""
        return self.reason == KEEP

    @property
    def word(self) -> str:
        """For JSON, and for whoever has given the word."""
        return "kept" if self.kept else "undone"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what was done, what became of it and why, what was done to undo it, and what was left."""
        return {
            "outcome": self.word,
            "reason": self.reason,
            "done": [entry for operation in self.execution.done for entry in operation.as_dicts()],
            "undone": [entry for operation in self.undone.done for entry in operation.as_dicts()],
            "left": list(self.left),
        }


def what_cannot_be_undone(session: Session, wanted: Plan, observed: Observed) -> tuple[Irreversible, ...]:
    """What of the plan nothing brings back."""
    at_stake = links_at_stake(wanted, observed)
    borne = session.borne([(one.ref, one.link.index) for one in at_stake])
    return irreversible(wanted, observed, {one.id: it for one, it in zip(at_stake, borne, strict=True)})


def tell_irreversible(output: Output, found: tuple[Irreversible, ...]) -> int:
    """Say why nothing is tried."""
    for one in found:
        hint = "apply it without --try, or take that away first"
        output.error(f"cannot be undone: {one.why}", code="irreversible", hint="" if one is not found[-1] else hint)
    return REFUSED


def attempt(
    session: Session,
    interfaces: Mapping[str, Interface],
    args: Namespace,
    output: Output,
    show: Callable[[Execution, Plan], None],
) -> tuple[Outcome, Plan] | int:
    """Carry the plan out, ask, and undo it unless the answer is yes; or the exit code where nothing was tried.

    `show` tells what was done, before it is asked.
    """
    refs = [interface.namespace.ref for interface in interfaces.values()]
    with Farewells() as farewells, Trial(args.label) as trial, Progress() as progress:
        before = observe(session, refs, create_missing=args.missing_netns == "create")
        wanted = plan(interfaces, before, label=args.label, prune=args.prune)
        if found := what_cannot_be_undone(session, wanted, before):
            return tell_irreversible(output, found)
        refs += [one.ref for one in links_at_stake(wanted, before)]
        outcome = Outcome(Execution())
        after: Observed | None = None
        try:
            if farewells.said:
                outcome.reason = farewells.said
                return outcome, wanted
            execute(session, wanted, progress=progress, account=outcome.execution)
            after = observe(session, refs)
            progress.clear()
            show(outcome.execution, wanted)
            outcome.reason = _answer(outcome.execution, trial, farewells, args, output)
        except BaseException as error:
            if isinstance(error, VethError) or not isinstance(error, OSError):
                _undo(session, outcome, before, after, refs, progress)
                raise
            unread = isinstance(error, BrokenPipeError)
            outcome.reason = "nobody reads what it says" if unread else "it could not go on"
            outcome.reason += f" ({error.strerror})"
        if not outcome.kept:
            _undo(session, outcome, before, after, refs, progress)
        trial.answer(outcome.word)
        return outcome, wanted


def _answer(execution: Execution, trial: Trial, farewells: Farewells, args: Namespace, output: Output) -> str:
    if execution.errors:
        return "not all of it could be done"
    if not execution.done:
        return KEEP
    label = "" if args.label == "vpp1" else f" --label {args.label}"
    output.remark(f"tried for {duration(args.trial)}: y keeps it here, `vethctl confirm{label}` from elsewhere")
    output.flush()
    return ask(trial, farewells, args.trial)


def _undo(
    session: Session, outcome: Outcome, before: Observed, after: Observed | None, refs: list[str], progress: Progress
) -> None:
    try:
        now = observe(session, refs)
        undo = inverse(outcome.execution.done, before, now if after is None else after, now)
        execute(session, undo.plan, progress=progress, account=outcome.undone)
    except VethError as error:
        error.add_note("what was tried is not, or not all, taken back")
        raise
    # That others use a namespace by now is no failure, it is why it stays.
    in_use = [str(error) for _, error in outcome.undone.errors if isinstance(error, NetnsInUse)]
    outcome.undone.errors = [one for one in outcome.undone.errors if not isinstance(one[1], NetnsInUse)]
    outcome.left = (*undo.left, *in_use)


def tell_undone(output: Output, outcome: Outcome) -> int:
    """Say what has become of a trial that was undone, if anybody still reads it; returns the exit code."""
    try:
        _tell_undone(output, outcome)
        output.flush()
    except OSError:
        abandon_stdout()
    return REFUSED if outcome.execution.errors or outcome.undone.errors else UNDONE


def _tell_undone(output: Output, outcome: Outcome) -> None:
    for text in outcome.left:
        output.warning(text)
    told: set[str] = set()
    for _, error in [*outcome.execution.errors, *outcome.undone.errors]:
        if str(error) not in told:
            report(output, error)
            told.add(str(error))
    if output.as_json:
        output.json(outcome.as_dict())
    else:
        if outcome.undone.done:
            show_operations(output, outcome.undone.done)
        done = count_operations(outcome.undone.done, done=True) or "nothing was left to undo"
        output.line(f"{paint('undone', 'warning')}: {outcome.reason}; {done}")


def confirm(args: Namespace, output: Output) -> int:
    """Tell the trial that is under way to keep its changes, or to undo them."""
    word, wanted = ("undo", "undone") if args.undo else ("keep", "kept")
    outcome = settle(args.label, word, timeout=args.timeout)
    if output.as_json:
        output.json({"outcome": outcome})
    else:
        output.line(f"{paint(outcome, 'good' if outcome == wanted else 'bad')}: the trial with the label {args.label}")
    return DONE if outcome == wanted else REFUSED
