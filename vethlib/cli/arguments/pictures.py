"""graph: a picture."""

from __future__ import annotations

from typing import Any

from ..parser import Parser
from .command import Command
from .shared import add_label, add_status_directory

__all__ = ["COMMANDS"]


def _add_graph(parser: Parser) -> None:
    text = "northbound files to draw (default: this host, as it is)"
    parser.add_argument("paths", nargs="*", metavar="PATH", help=text)
    form = parser.add_mutually_exclusive_group()
    shape: dict[str, Any] = {"action": "store_const", "dest": "form", "among": form}
    parser.option("--svg", const="svg", help="a picture that needs nothing else, for light and dark", **shape)
    parser.option("--dot", const="dot", help="for Graphviz", **shape)
    parser.option("--mermaid", const="mermaid", help="for Markdown", **shape)
    parser.option(
        "-o", "--output", metavar="FILE", default="", help="write it there, by its ending: .svg, .dot or .mmd"
    )
    parser.option("--watch", action="store_true", help="write it again whenever something changes")
    parser.option("--offline", action="store_true", help="draw the files alone, and do not look at this host")
    add_label(parser)
    add_status_directory(parser)


COMMANDS = {
    "graph": Command(
        "graph",
        "graph [PATH…] [--svg | --dot | --mermaid] [-o FILE] [--watch] [--offline] [--label LABEL] [--status-dir DIR]",
        "draw the namespaces and the pairs between them: as text, SVG, for Graphviz or Markdown",
        _add_graph,
        "Of this host, every named namespace is in it, and the interfaces for which an agent with the --label has no\n"
        "link yet. Of files, it shows what is to be created or changed here, and what is in the way.\n"
        "examples:\n  vethctl graph\n  vethctl graph -o net.svg --watch\n"
        "  vethctl graph /etc/vethlib --svg >wanted.svg",
    ),
}
