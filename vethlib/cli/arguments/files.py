"""apply, diff and validate: northbound files, and this host."""

from __future__ import annotations

from ..parser import Parser, seconds
from .command import Command
from .shared import add_label, add_missing_netns, add_paths

__all__ = ["COMMANDS"]

_DIFF_USAGE = "PATH… [--prune] [--missing-netns create|wait] [--label LABEL]"


def _add_diff(parser: Parser) -> None:
    add_paths(parser)
    add_label(parser)
    parser.option("--prune", action="store_true", help="also remove pairs of this label that the files do not name")
    add_missing_netns(parser)


def _add_apply(parser: Parser) -> None:
    _add_diff(parser)
    parser.option("--dry-run", action="store_true", help="only say what would be done")
    text = "wait up to so many seconds for namespaces that are not there (default: do not wait)"
    parser.option("--timeout", type=seconds, default=0.0, metavar="S", help=text)


COMMANDS = {
    "apply": Command(
        "apply",
        f"apply {_DIFF_USAGE} [--dry-run] [--timeout S]",
        "bring this host to northbound files, once: add and change",
        _add_apply,
        "example: vethctl apply /etc/vethlib --prune --timeout 30",
    ),
    "diff": Command(
        "apply",
        f"diff {_DIFF_USAGE}",
        "show what apply would do; exits 0 for nothing, 1 for something",
        _add_diff,
        "example: vethctl diff /etc/vethlib --prune",
    ),
    "validate": Command(
        "configuration",
        "validate PATH…",
        "check northbound files; needs no privilege",
        add_paths,
        "example: vethctl validate veth1.json veth2.json",
    ),
}
