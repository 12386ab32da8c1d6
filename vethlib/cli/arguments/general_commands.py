"""help, doctor, demo and completion."""

from __future__ import annotations

from .command import Command
from .parser import Parser, one_of
from .shared import LIMITS_USAGE, add_limits

__all__ = ["COMMANDS"]


def _add_demo(parser: Parser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="northbound files (default: an example pair)")
    add_limits(parser)


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", type=one_of("bash", "zsh", "fish"), metavar="bash|zsh|fish", help="the shell")


def _add_help(parser: Parser) -> None:
    text = "the command (default: an overview of all commands)"
    parser.add_argument("topic", nargs="?", metavar="COMMAND", completes="command", help=text)


def _add_nothing(_parser: Parser) -> None:
    pass


COMMANDS = {
    "help": Command(
        "help",
        "help [COMMAND]",
        "show all commands, or the arguments of a command",
        _add_help,
        "Same as vethctl COMMAND --help.\nexample: vethctl help create",
        function="show_help",
    ),
    "doctor": Command(
        "doctor",
        "doctor",
        "check this host for everything that vethctl needs, and suggest what to do",
        _add_nothing,
        "It changes nothing; the pair that it creates as a test is in a private namespace.\n"
        "exit codes: 0 vethctl works on this host, 2 something essential is missing",
    ),
    "demo": Command(
        "demo",
        f"demo [PATH…] {LIMITS_USAGE}",
        "apply an example in private namespaces, send traffic through it, and draw it",
        _add_demo,
        "Interfaces in namespaces of processes or files are refused, because these would not be private.\n"
        "example: vethctl demo examples/star",
    ),
    "completion": Command(
        "completion",
        "completion bash|zsh|fish",
        "print a shell script that completes commands, flags and existing names",
        _add_completion,
        """\
Distribution packages of vethlib install it. To use it in the current shell only:
  bash   source <(vethctl completion bash)
  zsh    source <(vethctl completion zsh)       after compinit
  fish   vethctl completion fish | source""",
    ),
}
