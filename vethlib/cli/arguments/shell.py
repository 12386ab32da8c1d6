"""doctor, demo and completion: vethctl itself."""

from __future__ import annotations

from ..parser import Parser, one_of
from .command import Command

__all__ = ["COMMANDS"]


def _add_demo(parser: Parser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="northbound files (default: an example pair)")


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", type=one_of("bash", "zsh", "fish"), metavar="bash|zsh|fish", help="which shell")


def _add_nothing(_parser: Parser) -> None:
    pass


COMMANDS = {
    "doctor": Command("doctor", "doctor", "say what this host lacks, and how to get it", _add_nothing),
    "demo": Command(
        "demo",
        "demo [PATH…]",
        "wire an example up in private namespaces, send traffic, show the picture",
        _add_demo,
        "example: vethctl demo examples/star",
    ),
    "completion": Command(
        "completion",
        "completion bash|zsh|fish",
        "print what makes a shell complete commands, flags and names that are there",
        _add_completion,
        """\
Packages of vethlib install it. To have it in this shell only:
  bash   source <(vethctl completion bash)
  zsh    source <(vethctl completion zsh)       after compinit
  fish   vethctl completion fish | source""",
    ),
}
