"""What may be said on the command line.

Each command has its own parser, and only that of the command called is made. The flags that all commands share may
stand before the command's name too. A flag that is not given may come from the environment: VETHLIB_LABEL for --label.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError, Namespace
from itertools import pairwise

from ..parser import Parser, UsageError, no_such, switch
from . import agents, files, links, pictures, shell, stores, watching
from .shared import COLORS, add_common

__all__ = ["COMMANDS", "json_is_wanted", "parse", "parser_of", "with_color_joined", "without_command"]

COMMANDS = (
    files.COMMANDS
    | agents.COMMANDS
    | stores.COMMANDS
    | links.COMMANDS
    | watching.COMMANDS
    | pictures.COMMANDS
    | shell.COMMANDS
)
"""By name, in the order in which the help has them."""

_HELP = "vethctl --help"

_EPILOG = """\
A NETNS is a name (ns1, netns:ns1), pid:42, path:/proc/42/ns/net or fd:7; without one, this namespace.
A PATH is a JSON file, a directory of *.json, or - for stdin.
Every command takes --json, and --color[=auto|always|never]. A flag may come from the environment: VETHLIB_LABEL
for --label. `vethctl COMMAND --help` says more.

examples:
  vethctl demo
  vethctl apply /etc/vethlib --dry-run
  vethctl create veth1@ns1 veth2@pid:42 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24
  vethctl show -br

exit codes: 0 done; 1 usage or invalid configuration; 2 refused by kernel or store; 3 applied, but something is pending;
4 tried, and taken back (apply --try); diff: 0 same, 1 different."""


def json_is_wanted(argv: list[str]) -> bool:
    """Whether errors are to be JSON, even that of a command line that cannot be read."""
    try:
        return "--json" in argv or switch(os.environ.get("VETHLIB_JSON", ""))
    except ArgumentTypeError:
        return False


def parse(argv: list[str]) -> Namespace:
    """Read a command line; `command` and `module` say what to call. Raises UsageError, and SystemExit after help."""
    argv = with_color_joined(argv)
    _check_stores(argv)
    at = next((number for number, word in enumerate(argv) if not word.startswith("-")), len(argv))
    if at == len(argv):
        return _without_command(argv)
    name, rest = argv[at], argv[:at] + argv[at + 1 :]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(no_such("command", name, COMMANDS), field="COMMAND", hint=f"try: {_HELP}")
    args = parser_of(name).read(rest)
    args.command, args.module = command.function or name, command.module
    return args


def parser_of(name: str) -> Parser:
    """The parser of a command."""
    command = COMMANDS[name]
    parser = Parser(command.usage, f"{command.summary[0].upper()}{command.summary[1:]}.", command.more)
    add_common(parser)
    command.add_arguments(parser)
    return parser


def without_command(version: str = "") -> Parser:
    """The parser of a command line that names no command."""
    parser = Parser("COMMAND [ARGUMENT…]", _overview(), _EPILOG)
    add_common(parser)
    parser.option("--version", action="version", version=version, help="print the version")
    return parser


def _without_command(argv: list[str]) -> Namespace:
    without_command(_version(argv)).read(argv)
    raise UsageError("which command?", field="COMMAND", hint=f"one of: {', '.join(COMMANDS)}; try: {_HELP}")


def _version(argv: list[str]) -> str:
    if "--version" not in argv:
        return ""
    import vethlib

    return f"vethctl {vethlib.__version__}"


def _overview() -> str:
    lines = ["Wire Linux network namespaces together with veth pairs.", "", "commands:"]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def _check_stores(argv: list[str]) -> None:
    """That no etcd is where something else belongs: what splits it would show parts of its password."""
    for before, word in pairwise(["", *argv]):
        if word.startswith("etcd:") and before != "--store":
            raise UsageError(f"{word!r} is a store", field="--store", hint="write --store before it")


def with_color_joined(argv: list[str]) -> list[str]:
    """--color may stand alone, so only a word that can be its value is taken for it."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--color=always" and word in COLORS:
            joined[-1] = f"--color={word}"
        else:
            joined.append("--color=always" if word == "--color" else word)
    return joined
