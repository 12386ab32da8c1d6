"""apply, confirm, diff and validate: northbound files or a store, and this host."""

from __future__ import annotations

from .command import Command
from .parser import Parser, seconds
from .shared import LIMITS_USAGE, SEE_PUT, add_label, add_limits, add_loopback, add_missing_netns, add_paths

__all__ = ["COMMANDS"]

_APPLY_USAGE = f"PATH… [--prune] [--missing-netns create|wait] [--label LABEL] {LIMITS_USAGE}"
DIFF_USAGE = f"diff PATH… | --store URL [--prune] [--missing-netns create|wait] [--label LABEL] {LIMITS_USAGE}"


def _add_diff(parser: Parser) -> None:
    text = "a JSON file, a directory of *.json files, or - for stdin"
    parser.add_argument("paths", nargs="*", metavar="PATH", help=text)
    text = "compare with the configuration of LABEL in a store: dir:PATH or etcd://HOST:PORT"
    parser.option("--store", variable=True, metavar="URL", completes="store", help=text)
    _add_plan(parser)


def _add_plan(parser: Parser) -> None:
    add_label(parser)
    text = "also delete pairs of this label that are not in the files"
    parser.option("--prune", variable=True, action="store_true", help=text)
    add_missing_netns(parser)
    add_limits(parser)


def _add_validate(parser: Parser) -> None:
    add_paths(parser)
    parser.option("--strict", variable=True, action="store_true", help="exit with 1 if there are warnings")
    add_limits(parser)


def _add_apply(parser: Parser) -> None:
    add_paths(parser)
    _add_plan(parser)
    add_loopback(parser)
    parser.option(
        "--force",
        variable=True,
        action="store_true",
        help="apply even if an agent with this label is running, which may undo the changes",
    )
    parser.option("--dry-run", variable=True, action="store_true", help="only show what would be done")
    text = "wait up to TIME for missing namespaces: 30s, 2m (default: do not wait)"
    parser.option("--timeout", variable=True, type=seconds, default=0.0, metavar="TIME", help=text)
    text = "undo the changes after TIME, unless they are confirmed"
    parser.option("--try", dest="trial", type=seconds, metavar="TIME", help=text)


def _add_confirm(parser: Parser) -> None:
    add_label(parser)
    parser.option("--undo", action="store_true", help="undo the changes now instead of keeping them")
    text = "wait up to TIME for a trial to begin: 2s (default: do not wait)"
    parser.option("--timeout", variable=True, type=seconds, default=0.0, metavar="TIME", help=text)


_TRY = """\
With --try, vethctl asks on the terminal whether to keep the changes; they can also be kept by running `vethctl confirm`
elsewhere. They are undone if the answer is no or is not given in time, on Ctrl-C and SIGTERM, and if the terminal or
the connection is lost, or the output is no longer read. SIGKILL leaves them in place. Changes that could not be undone
are refused at the start.
exit codes of --try: 0 or 3 kept; 4 undone; 2 refused, undone only in part, or kept with an interface that is FAILED
examples:
  vethctl apply /etc/vethlib --prune --timeout 30s
  vethctl apply /etc/vethlib --try 30s"""


COMMANDS = {
    "apply": Command(
        "desired.apply",
        f"apply {_APPLY_USAGE} [--loopback up|down] [--dry-run] [--timeout TIME | --try TIME] [--force]",
        "create and change links once, as configured in northbound files",
        _add_apply,
        _TRY,
        alters=True,
    ),
    "confirm": Command(
        "desired.confirm",
        "confirm [--undo] [--label LABEL] [--timeout TIME]",
        "keep the changes of apply --try, or undo them",
        _add_confirm,
        "Waits until the trial has ended.\n"
        "exit codes: 0 kept, or undone with --undo; 2 no trial is in progress, or it ended the other way\n"
        "example: vethctl apply /etc/vethlib --try 1m & ping -c3 -w5 10.0.0.1 && vethctl confirm --timeout 2s",
        alters=True,
    ),
    "diff": Command(
        "desired.diff",
        DIFF_USAGE,
        "show what apply would do",
        _add_diff,
        "With --store, or VETHLIB_STORE and no PATH, it shows what an agent would do: pairs that are not stored are\n"
        "deleted, as with --prune, and interfaces whose stored value is invalid are left as they are.\n"
        "exit codes: 0 no difference, 1 different\n"
        "examples:\n  vethctl diff /etc/vethlib --prune\n  vethctl diff --store etcd://etcd1:2379 --label vpp1\n"
        f"{SEE_PUT}",
    ),
    "validate": Command(
        "desired.validate",
        f"validate PATH… [--strict] {LIMITS_USAGE}",
        "check northbound files; needs no privilege",
        _add_validate,
        "example: vethctl validate veth1.json veth2.json",
    ),
}
