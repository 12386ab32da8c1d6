"""help: an overview of all commands, or the arguments of a command."""

from __future__ import annotations

from argparse import Namespace

from vethlib.cli.arguments import COMMANDS, parser_of, without_command
from vethlib.cli.arguments.hints import no_such_command
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output

__all__ = ["show_help"]


def show_help(args: Namespace, output: Output) -> int:
    """Print the help of a command, or of vethctl. Raises UsageError for a command that does not exist."""
    if args.topic and args.topic not in COMMANDS:
        raise UsageError(no_such_command(args.topic, COMMANDS), field="COMMAND", hint="try: vethctl --help")
    parser = parser_of(args.topic) if args.topic else without_command()
    if output.as_json:
        output.json({"help": parser.format_help()})
    else:
        output.raw(parser.format_help())
    return DONE
