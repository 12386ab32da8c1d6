"""The command line: what may be said, and what each command is called with.

A flag that is not given may come from the environment, as VETHLIB_LABEL for --label.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

__all__ = ["UsageError", "parse"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Usage errors are code 1, as invalid configuration is."""
        raise UsageError(message, self.format_usage().removeprefix("usage: ").strip())


class UsageError(Exception):
    """What is wrong, and how it should have been."""


def _env(name: str, default: Any = None) -> Any:
    return os.environ.get(f"VETHLIB_{name}", default)


def _flag(name: str) -> bool:
    return _env(name, "").lower() in ("1", "true", "yes", "on")


def parse(argv: list[str]) -> argparse.Namespace:
    """Read a command line; `command` says which command. Raises UsageError; exits for --help."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None and not args.version:
        parser.error("which command?")
    return args


def _parser() -> argparse.ArgumentParser:
    common = _common()
    parser = _Parser(
        prog="vethctl",
        description="Wire Linux network namespaces together with veth pairs.",
        epilog="A namespace is a name (blue, netns:blue), pid:42, path:/proc/42/ns/net or fd:7; without one, this one. "
        "Exit codes: 0 done, 1 usage or invalid configuration, 2 refused by the kernel, 3 applied but something waits.",
        parents=[common],
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    _add_configuration(command)
    _add_links(command)
    _add_netns(commands, common)
    command("doctor", "say what this host lacks, and how to get it")
    demo = command("demo", "wire an example up in private namespaces, send traffic, show the picture")
    demo.add_argument("paths", nargs="*", metavar="PATH", help="northbound files (default: the example pair)")
    return parser


def _common() -> _Parser:
    """Flags every command takes, before or after its name."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print JSON, errors too")
    common.add_argument("--color", choices=("auto", "always", "never"), nargs="?", const="always", help="colour output")
    return common


def _add_configuration(command: Any) -> None:
    for name, text in (
        ("apply", "bring this host to northbound files, once: add and change"),
        ("diff", "show what apply would do; exits 0 when there is nothing, 1 when there is something"),
        ("validate", "check northbound files; needs no privilege"),
    ):
        parser = command(name, text)
        parser.add_argument(
            "paths", nargs="+", metavar="PATH", help="a JSON file, a directory of *.json, or - for stdin"
        )
        if name == "validate":
            continue
        label = _env("LABEL", os.environ.get("MICROSERVICE_LABEL", "vpp1"))
        parser.add_argument("--label", default=label, help="whose pairs they are (default: %(default)s)")
        prune = "also remove pairs of this label that the files no longer name"
        parser.add_argument("--prune", action="store_true", default=_flag("PRUNE"), help=prune)
        missing = ("create", "wait")
        parser.add_argument(
            "--missing-netns",
            choices=missing,
            default=_env("MISSING_NETNS", "create"),
            help="what to do for a named namespace that is not there (default: %(default)s)",
        )
        if name == "apply":
            parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
            parser.add_argument(
                "--timeout",
                type=float,
                default=float(_env("TIMEOUT", 0)),
                metavar="S",
                help="wait up to so many seconds for what is pending (default: do not wait)",
            )


def _add_links(command: Any) -> None:
    create = command("create", "create a pair: vethctl create veth1@ns1 veth2@pid:42 --a-addr 10.0.0.1/24")
    for end in ("a", "b"):
        create.add_argument(end, metavar=f"{end.upper()}[@NETNS]", help="name and namespace of an end")
    for end in ("a", "b"):
        create.add_argument(f"--{end}-mac", metavar="MAC", help=f"MAC address of {end.upper()}")
        create.add_argument(
            f"--{end}-addr", metavar="IP/PREFIX", action="append", default=[], help=f"an address for {end.upper()}"
        )
    create.add_argument("--mtu", type=int, metavar="BYTES", help="MTU of both ends")
    create.add_argument("--queues", type=int, metavar="N", help="queues of both ends (default: one per CPU)")
    create.add_argument("--down", action="store_true", help="leave both ends down")
    create.add_argument("--wait", type=float, metavar="S", help="return when both ends can be used")

    move = command("move", "move a link to another namespace")
    move.add_argument("link", metavar="LINK[@NETNS]")
    move.add_argument("to", metavar="NETNS", help='"" for this one')

    delete = command("delete", "delete pairs, each through one of its ends")
    delete.add_argument("links", nargs="+", metavar="LINK[@NETNS]")
    delete.add_argument("--missing-ok", action="store_true", help="what is not there is no error")

    show = command("show", "show links: of this namespace and every named one, or of those given")
    show.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS")
    form = show.add_mutually_exclusive_group()
    form.add_argument("-d", "--details", action="store_true", help="all that the kernel says")
    form.add_argument("-br", "--brief", action="store_true", help="a line each")
    show.add_argument("-a", "--all", action="store_true", help="links of every kind, not only veth")

    stats = command("stats", "show the counters of a link")
    stats.add_argument("link", metavar="LINK[@NETNS]")


def _add_netns(commands: Any, common: _Parser) -> None:
    text = "named namespaces, as `ip netns` has them"
    netns = commands.add_parser("netns", help=text, description=text, parents=[common])
    actions = netns.add_subparsers(dest="action", metavar="list|add|del", required=True, parser_class=_Parser)
    actions.add_parser("list", help="the names", parents=[common])
    for action, text in (("add", "create"), ("del", "remove")):
        parser = actions.add_parser(action, help=f"{text} them", parents=[common])
        parser.add_argument("names", nargs="+", metavar="NAME")
