"""show, stats, top, watch and graph: views of this host."""

from __future__ import annotations

from typing import Any

from .command import Command
from .parser import Parser, count, interval, one_of, seconds, some_of
from .shared import LIMITS_USAGE, add_label, add_limits, add_status_directory

__all__ = ["COMMANDS"]

_KINDS = ("netns", "link", "address", "state")
_ORDERS = ("both", "rx", "tx", "drops", "name")
_SHOW_EXAMPLE = "examples:\n  vethctl show @ns1\n  vethctl show -d veth1@ns1"


def _add_show(parser: Parser) -> None:
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help="a link, or all links of a namespace")
    form = parser.add_mutually_exclusive_group()
    shape: dict[str, Any] = {"action": "store_const", "dest": "form", "among": form, "variable": True}
    parser.option("-br", "--brief", const="brief", help="print one line per link", **shape)
    parser.option("-d", "--details", const="details", help="print all attributes that the kernel reports", **shape)
    text = "show links of every kind, not only veth"
    parser.option("-a", "--all", variable=True, action="store_true", help=text)


def _add_stats(parser: Parser) -> None:
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help="a link, or all links of a namespace")
    parser.option("--peer", action="store_true", help="also show the other end of each pair")
    parser.option("--watch", action="store_true", help="show rates repeatedly until interrupted")
    text = "show rates per second, measured over S seconds (default with --watch: 1)"
    parser.option("--interval", variable=True, type=interval, metavar="S", help=text)
    parser.option("--count", type=count, metavar="N", help="end --watch after N intervals")
    text = "print counters as 1.23M (rates always are)"
    parser.option("-H", "--human", variable=True, action="store_true", help=text)


def _add_top(parser: Parser) -> None:
    text = "seconds between updates (default: %(default)g)"
    parser.option("--interval", variable=True, type=interval, default=1.0, metavar="S", help=text)
    text = "sort by received plus sent bytes, received bytes, sent bytes, drops or name (default: %(default)s)"
    parser.option("--sort", variable=True, type=one_of(*_ORDERS), default="both", metavar="|".join(_ORDERS), help=text)
    parser.option("--filter", default="", metavar="TEXT", help="show only links with TEXT in their name or namespace")
    parser.option("-n", "--count", type=count, metavar="N", help="print N tables instead of a screen")
    parser.option("--once", action="store_true", help="same as --count 1")
    text = "show the states of interfaces as published by the agent of LABEL"
    parser.option("--label", variable=True, default="", metavar="LABEL", help=text)
    text = "directory of that agent's status files (default: /run/vethlib/LABEL/status)"
    parser.option("--status-dir", variable=True, metavar="DIR", default="", help=text)


def _add_watch(parser: Parser) -> None:
    text = "print only events of these, as patterns with * and ? (default: all)"
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help=text)
    parser.option("--initial", action="store_true", help="print the current state first")
    text = "print only these kinds of events: netns, link, address, state (default: all)"
    parser.option("--only", type=some_of(*_KINDS), default=(), metavar="KIND[,KIND…]", help=text)
    parser.option(
        "--type", metavar="TYPE", help="print only links of this type, such as veth or bridge, and their addresses"
    )
    parser.option("--count", type=count, metavar="N", help="exit after N events")
    parser.option(
        "--timeout",
        variable=True,
        type=seconds,
        metavar="S",
        help="exit after S seconds, or after a time such as 30s or 5m",
    )
    add_label(parser)
    add_status_directory(parser)


def _add_graph(parser: Parser) -> None:
    text = "northbound files to draw (default: this host)"
    parser.add_argument("paths", nargs="*", metavar="PATH", help=text)
    form = parser.add_mutually_exclusive_group()
    shape: dict[str, Any] = {"action": "store_const", "dest": "form", "among": form}
    parser.option("--svg", const="svg", help="draw a self-contained picture for light and dark backgrounds", **shape)
    parser.option("--dot", const="dot", help="write the language of Graphviz", **shape)
    parser.option("--mermaid", const="mermaid", help="write a Mermaid diagram, for Markdown", **shape)
    parser.option(
        "-o",
        "--output",
        metavar="FILE",
        default="",
        help="write to FILE, in the format of its ending: .svg, .dot or .mmd; - is stdout",
    )
    parser.option("--watch", action="store_true", help="draw again after each change")
    parser.option("--offline", action="store_true", help="draw only the files, without comparing them with this host")
    add_limits(parser)
    add_label(parser)
    add_status_directory(parser)


COMMANDS = {
    "show": Command(
        "host.show",
        "show [LINK[@NETNS] | @NETNS]… [-br | -d] [--all]",
        "show links with their addresses and peers",
        _add_show,
        f"Without arguments, it shows the veths of this namespace and of all named ones.\n{_SHOW_EXAMPLE}",
    ),
    "stats": Command(
        "host.stats",
        "stats [LINK[@NETNS] | @NETNS]… [--peer] [--interval S] [--watch [--count N]] [--human]",
        "show the counters of links, or their rates",
        _add_stats,
        "Without arguments, it shows the veths of this namespace and of all named ones.\n"
        "examples:\n  vethctl stats veth1@ns1\n  vethctl stats veth1@ns1 --peer --interval 5\n"
        "  vethctl stats @ns1 --watch",
    ),
    "top": Command(
        "host.top",
        "top [--interval S] [--sort ORDER] [--filter TEXT] [-n N | --once] [--label LABEL] [--status-dir DIR]",
        "show the busiest links of all namespaces",
        _add_top,
        "On a terminal it shows a screen with keys: q quits, b r t d n sort, / filters, p pauses, arrows scroll.\n"
        "Otherwise, and with -n, --once or --json, it prints a table for each interval. JSON has one line per\n"
        "link, or is one list with --once or -n 1.\n"
        "It finds namespaces that have a name or a process.\n"
        "examples:\n  vethctl top\n  vethctl top --once --sort drops\n  vethctl top --filter @ns1 --json -n 60",
    ),
    "watch": Command(
        "host.watch",
        "watch [LINK[@NETNS] | @NETNS]… [--initial] [--only KIND,…] [--type TYPE] [--count N] [--timeout S] "
        "[--label LABEL] [--status-dir DIR]",
        "print changes of namespaces, links, addresses and states as they happen",
        _add_watch,
        "It watches this namespace (@ or, unless one has that name, @home), all named ones, those given as @pid:42\n"
        "and the like, and the states that the agent of the label publishes on this host. Lines begin with + for new,\n"
        "~ for changed, - for deleted, and = for existing objects. With --json, each line is an object.\n"
        "Exit code 3: --timeout was reached before --count.\n"
        "examples:\n  vethctl watch --initial --type veth\n  vethctl watch 'veth*@ns1' @pid:42 --only link,address\n"
        "  vethctl watch veth1 --only state --json --count 1",
    ),
    "graph": Command(
        "host.graph",
        "graph [PATH…] [--svg | --dot | --mermaid] [-o FILE] [--watch] [--offline] [--label LABEL] [--status-dir DIR] "
        f"{LIMITS_USAGE}",
        "draw the namespaces and the pairs between them as text, SVG, Graphviz or Mermaid",
        _add_graph,
        "The picture of this host has all named namespaces, and the interfaces of the agent of the label that have no\n"
        "link yet. The picture of files shows what would be created or changed on this host, and what prevents it.\n"
        "examples:\n  vethctl graph\n  vethctl graph -o net.svg --watch\n"
        "  vethctl graph /etc/vethlib --svg >desired.svg",
    ),
}
