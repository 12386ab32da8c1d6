"""doctor and demo: vethctl itself."""

from __future__ import annotations

from ..parser import Parser
from .command import Command

__all__ = ["COMMANDS"]


def _add_demo(parser: Parser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="northbound files (default: an example pair)")


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
}
