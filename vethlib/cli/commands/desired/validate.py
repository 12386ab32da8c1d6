"""validate: check northbound files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence

from vethlib.agent.config.northbound import Parsed
from vethlib.agent.planning.plausibility import ConfigWarning, warnings_of
from vethlib.agent.reasons import invalid_value
from vethlib.agent.state import Verdict
from vethlib.cli.applying.config_warnings import by_interface, report_warnings
from vethlib.cli.applying.configuration import doubts, load_files
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.render.values import problem_as_dict
from vethlib.cli.term.exits import DONE, INVALID
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import counted, paint

__all__ = ["validate"]


def validate(args: Namespace, output: Output) -> int:
    """Check the files; return the exit code."""
    parsed, interfaces, has_warnings = load_files(args.paths, output, limits_of(args))
    missing = doubts(interfaces or {})
    for name, doubt in missing.items():
        output.warning(f"{name}: {doubt.reason}", reasons=doubt.reasons)
    warnings = warnings_of(interfaces or {})
    report_warnings(output, warnings)
    if output.as_json:
        of_each = by_interface(warnings)
        output.json([_as_dict(one, missing, of_each.get(one.name, ())) for one in parsed])
    elif interfaces is not None:
        are = "is" if len(interfaces) == 1 else "are"
        output.line(f"{paint('valid', 'good')}: {counted(len(interfaces), 'interface')} {are} well-formed")
    if interfaces is None:
        return INVALID
    return INVALID if args.strict and (has_warnings or missing or warnings) else DONE


def _as_dict(parsed: Parsed, doubts: Mapping[str, Verdict], warnings: Sequence[ConfigWarning]) -> dict[str, object]:
    texts = [
        *parsed.warnings,
        *([doubts[parsed.name].reason] if parsed.name in doubts else []),
        *(warning.message for warning in warnings),
    ]
    entry: dict[str, object] = {
        "name": parsed.name,
        "source": parsed.source,
        "valid": parsed.interface is not None,
        "problems": [problem_as_dict(problem) for problem in parsed.problems],
        "warnings": texts,
    }
    reasons = doubts[parsed.name].reasons if parsed.name in doubts else ()
    entry["reasons"] = [reason.as_dict() for reason in (*map(invalid_value, parsed.problems), *reasons)]
    return entry | ({"plausibility": [warning.as_dict() for warning in warnings]} if warnings else {})
