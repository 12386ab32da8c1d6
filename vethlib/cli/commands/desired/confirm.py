"""confirm: end a trial of apply --try, by keeping its changes or undoing them."""

from __future__ import annotations

from argparse import Namespace

from vethlib.agent.config.mark import check_label
from vethlib.agent.run.trial import settle
from vethlib.cli.term.exits import DONE, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import paint

__all__ = ["confirm"]


def confirm(args: Namespace, output: Output) -> int:
    """Make the trial in progress keep or undo its changes, and wait until it has."""
    check_label(args.label, "--label")
    word, expected = ("undo", "undone") if args.undo else ("keep", "kept")
    outcome = settle(args.label, word, timeout=args.timeout)
    if output.as_json:
        output.json({"outcome": outcome})
    else:
        role = "good" if outcome == expected else "bad"
        output.line(f"{paint(outcome, role)}: the trial with the label {args.label}")
    return DONE if outcome == expected else REFUSED
