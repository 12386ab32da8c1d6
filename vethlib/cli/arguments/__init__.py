"""The arguments of all commands.

Each command has a parser of its own, and only that of the given command is created. The flags that all commands share
may also precede the name of the command. The default of some flags may come from the environment: VETHLIB_LABEL is
that of --label.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError, Namespace
from itertools import pairwise

from . import agent_commands, file_commands, general_commands, link_commands, store_commands, view_commands
from .hints import no_such_command
from .parser import Parser, UsageError, at_separator, switch
from .shared import COLORS, add_common

__all__ = ["COMMANDS", "json_is_requested", "parse", "parser_of", "split", "with_color_joined", "without_command"]

COMMANDS = (
    file_commands.COMMANDS
    | agent_commands.COMMANDS
    | store_commands.COMMANDS
    | link_commands.COMMANDS
    | view_commands.COMMANDS
    | general_commands.COMMANDS
)
"""All commands by name, in the order of the help."""

_HELP = "vethctl --help"

_EPILOG = """\
NETNS is a name (ns1, netns:ns1), pid:42, path:/proc/42/ns/net or fd:7; the default is this namespace.
PATH is a JSON file, a directory of *.json files, or - for stdin.
Every command takes --json and --color[=auto|always|never]. After --, no word is a flag: vethctl show -- -x
The flags of the agent, and --label, --store and the like of other commands, have a variable for their default, such as
VETHLIB_LABEL for --label; a flag wins. For the flags of a command: vethctl COMMAND --help

examples:
  vethctl demo
  vethctl apply /etc/vethlib --dry-run
  vethctl create veth1@ns1 veth2@pid:42 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24
  vethctl show -br

exit codes: 0 done; 1 usage or invalid configuration; 2 refused by kernel or store; 3 applied, but something is pending;
4 tried and undone (apply --try); diff: 0 no difference, 1 different"""


def json_is_requested(argv: list[str]) -> bool:
    """Return whether errors are printed as JSON, also for a command line that cannot be parsed."""
    try:
        return "--json" in at_separator(split(argv)[0])[0] or switch(os.environ.get("VETHLIB_JSON", ""))
    except ArgumentTypeError:
        return False


def parse(argv: list[str]) -> Namespace:
    """Parse a command line; `command` and `module` name the function to call.

    Raises UsageError, and SystemExit after printing the help.
    """
    argv, program = split(argv)
    words, names = at_separator(argv)
    words = with_color_joined(words)
    at = next((number for number, word in enumerate(words) if not word.startswith("-")), len(words))
    if at == len(words):
        return _without_command([*words, *argv[len(words) :]])
    name, rest = words[at], [*words[:at], *words[at + 1 :], *(["--", *names] if names else [])]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(no_such_command(name, COMMANDS), field="COMMAND", hint=f"try: {_HELP}")
    args = parser_of(name).read(rest)
    args.command, args.module, args.program = command.function or name, command.module, program
    return args


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the words that are for vethctl and those of the program that it runs.

    Everything after the name in `netns exec NAME` is the program's, without a "--" that precedes it.
    """
    positions = [
        number
        for number, (before, word) in enumerate(pairwise(["", *argv]))
        if not word.startswith("-") and not (before == "--color" and word in COLORS)
    ]
    if [argv[number] for number in positions[:2]] != ["netns", "exec"] or len(positions) < 3:
        return argv, []
    end = positions[2] + 1
    program = argv[end:]
    return argv[:end], program[1:] if program[:1] == ["--"] else program


def parser_of(name: str) -> Parser:
    """Return the parser of a command."""
    command = COMMANDS[name]
    parser = Parser(command.usage, f"{command.summary[0].upper()}{command.summary[1:]}.", command.more)
    add_common(parser)
    command.add_arguments(parser)
    return parser


def without_command(version: str = "") -> Parser:
    """Return the parser of a command line without a command."""
    parser = Parser("COMMAND [ARGUMENT…]", _overview(), _EPILOG)
    add_common(parser)
    parser.option("--version", action="version", version=version, help="print the version")
    return parser


def _without_command(argv: list[str]) -> Namespace:
    without_command(_version(argv)).read(argv)
    raise UsageError("COMMAND is missing", field="COMMAND", hint=f"one of: {', '.join(COMMANDS)}; try: {_HELP}")


def _version(argv: list[str]) -> str:
    if "--version" not in argv:
        return ""
    import vethlib

    return f"vethctl {vethlib.__version__}"


def _overview() -> str:
    lines = ["Wire Linux network namespaces together with veth pairs.", "", "commands:"]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def with_color_joined(argv: list[str]) -> list[str]:
    """Join --color with its value: it needs none, so only a valid value is taken as one."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--color=always" and word in COLORS:
            joined[-1] = f"--color={word}"
        else:
            joined.append("--color=always" if word == "--color" else word)
    return joined
