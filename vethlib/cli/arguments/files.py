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
    text = "wait so long for namespaces that are not there: 30s, 2m (default: do not wait)"
    parser.option("--timeout", type=seconds, default=0.0, metavar="TIME", help=text)
    text = "take it back after so long, unless somebody says to keep it"
    parser.option("--try", dest="trial", type=seconds, metavar="TIME", help=text)


def _add_confirm(parser: Parser) -> None:
    add_label(parser)
    parser.option("--undo", action="store_true", help="have the changes taken back now, instead of keeping them")
    text = "wait so long for a trial to begin: 2s (default: do not wait)"
    parser.option("--timeout", type=seconds, default=0.0, metavar="TIME", help=text)


_TRY = """\
With --try it is asked on the terminal whether to keep the changes; `vethctl confirm` from elsewhere says so too. They
are taken back when the answer is no or none comes in time, on Ctrl-C and SIGTERM, and when the terminal, the connection
or the reader of the output is gone. SIGKILL leaves them as they are: nothing then watches over them. What could not be
taken back is refused beforehand. Exit codes: 0 or 3 kept, 4 taken back, 2 refused, or not all could be taken back.
examples:
  vethctl apply /etc/vethlib --prune --timeout 30s
  vethctl apply /etc/vethlib --try 30s"""


COMMANDS = {
    "apply": Command(
        "apply",
        f"apply {_DIFF_USAGE} [--dry-run] [--timeout TIME | --try TIME]",
        "bring this host to northbound files, once: add and change",
        _add_apply,
        _TRY,
    ),
    "confirm": Command(
        "trying",
        "confirm [--undo] [--label LABEL] [--timeout TIME]",
        "keep what apply --try of this label is trying on this host",
        _add_confirm,
        "Returns when it is settled: 0 as told, 2 where no trial is under way or it had ended otherwise.\n"
        "example: vethctl apply /etc/vethlib --try 1m & ping -c3 -w5 10.0.0.1 && vethctl confirm --timeout 2s",
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
