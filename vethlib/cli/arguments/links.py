"""create, move, delete, show, stats and netns: what is on this host."""

from __future__ import annotations

from typing import Any

from ..parser import Parser, count, interval, number, one_of, seconds
from .command import Command

__all__ = ["COMMANDS"]

_CREATE_EXAMPLE = "example: vethctl create veth1@ns1 veth2@pid:42 --mtu 1400 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24"
_ORDERS = ("both", "rx", "tx", "drops", "name")
_SHOW_EXAMPLE = "examples:\n  vethctl show @ns1\n  vethctl show -d veth1@ns1"


def _add_create(parser: Parser) -> None:
    for end in ("a", "b"):
        parser.add_argument(end, metavar=f"{end.upper()}[@NETNS]", help="name and namespace of an end")
    for end in ("a", "b"):
        letter = end.upper()
        parser.option(f"--{end}-mac", metavar="MAC", help=f"MAC address of {letter} (default: the kernel picks one)")
        text = f"an address for {letter}, as often as wanted"
        parser.option(f"--{end}-addr", metavar="IP/PREFIX", action="append", default=[], help=text)
    parser.option("--mtu", type=number, metavar="BYTES", help="MTU of both ends (default: 1500)")
    parser.option("--queues", type=number, metavar="N", help="queues of both ends (default: one per CPU)")
    parser.option("--down", action="store_true", help="leave both ends down")
    parser.option("--wait", type=seconds, metavar="S", help="return when both ends can be used, at most so much later")


def _add_move(parser: Parser) -> None:
    parser.add_argument("link", metavar="LINK[@NETNS]", help="the link")
    parser.add_argument("to", metavar="NETNS", help='where to; "" is this namespace')


def _add_delete(parser: Parser) -> None:
    parser.add_argument("links", nargs="+", metavar="LINK[@NETNS]", help="one end of each pair")
    parser.option("--missing-ok", action="store_true", help="what is not there is no error")


def _add_show(parser: Parser) -> None:
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help="a link, or all of a namespace")
    form = parser.add_mutually_exclusive_group()
    shape: dict[str, Any] = {"action": "store_const", "dest": "form", "among": form}
    parser.option("-br", "--brief", const="brief", help="a line each", **shape)
    parser.option("-d", "--details", const="details", help="all that the kernel says", **shape)
    parser.option("-a", "--all", action="store_true", help="links of every kind, not only veth")


def _add_stats(parser: Parser) -> None:
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help="a link, or all of a namespace")
    parser.option("--peer", action="store_true", help="with the other end of each pair")
    parser.option("--watch", action="store_true", help="show rates, again and again, until interrupted")
    text = "show what the counters grow by per second, over S seconds (with --watch: 1)"
    parser.option("--interval", type=interval, metavar="S", help=text)
    parser.option("--count", type=count, metavar="N", help="end --watch after N intervals")
    parser.option("-H", "--human", action="store_true", help="counters as 1.23M (rates are so anyway)")


def _add_top(parser: Parser) -> None:
    text = "between two looks (default: %(default)g)"
    parser.option("--interval", type=interval, default=1.0, metavar="S", help=f"seconds {text}")
    text = "sort by received bytes, sent ones, both together, drops or the name (default: %(default)s)"
    parser.option("--sort", type=one_of(*_ORDERS), default="both", metavar="|".join(_ORDERS), help=text)
    parser.option("--filter", default="", metavar="TEXT", help="only links with TEXT in their name or namespace")
    parser.option("-n", "--count", type=count, metavar="N", help="print N tables instead of showing a screen")
    parser.option("--once", action="store_true", help="as --count 1")
    text = "show what the agent of LABEL says of its interfaces, as their state"
    parser.option("--label", default="", metavar="LABEL", help=text)
    text = "where that agent writes its status (default: /run/vethlib/LABEL/status)"
    parser.option("--status-dir", metavar="DIR", default="", help=text)


def _add_netns(parser: Parser) -> None:
    parser.add_argument("action", type=one_of("list", "add", "del"), metavar="list|add|del", help="what to do")
    text = "the namespaces to add or to delete"
    parser.add_argument("names", nargs="*", metavar="NAME", completes="netns-name", help=text)


COMMANDS = {
    "create": Command(
        "links",
        "create A[@NETNS] B[@NETNS] [--mtu BYTES] [--a-mac MAC] [--a-addr IP/PREFIX]… [--b-…]… [--queues N] [--down] "
        "[--wait S]",
        "create a pair, where it is to live",
        _add_create,
        _CREATE_EXAMPLE,
    ),
    "move": Command(
        "links",
        "move LINK[@NETNS] NETNS",
        "move a link to another namespace; it goes down and loses its addresses",
        _add_move,
        "example: vethctl move veth1@ns1 ns2",
    ),
    "delete": Command(
        "links",
        "delete LINK[@NETNS]… [--missing-ok]",
        "delete pairs, each through one of its ends",
        _add_delete,
        "example: vethctl delete veth1@ns1 veth7@ns7",
    ),
    "show": Command(
        "show",
        "show [LINK[@NETNS] | @NETNS]… [-br | -d] [--all]",
        "show links: of this namespace and every named one, or those given",
        _add_show,
        _SHOW_EXAMPLE,
    ),
    "stats": Command(
        "stats",
        "stats [LINK[@NETNS] | @NETNS]… [--peer] [--interval S] [--watch [--count N]] [--human]",
        "show the counters of links, or what they grow by",
        _add_stats,
        "Without a LINK: every veth of this namespace and of every named one.\n"
        "examples:\n  vethctl stats veth1@ns1\n  vethctl stats veth1@ns1 --peer --interval 5\n"
        "  vethctl stats @ns1 --watch",
    ),
    "top": Command(
        "top",
        "top [--interval S] [--sort ORDER] [--filter TEXT] [-n N | --once] [--label LABEL]",
        "watch the busiest links of all namespaces",
        _add_top,
        "On a terminal it is a screen with keys: q quits, b r t d n sort, / filters, p pauses, arrows scroll.\n"
        "Elsewhere, and with -n, --once or --json, it prints a table (JSON: a line a link) for each interval.\n"
        "A namespace is there if it has a name or a process.\n"
        "examples:\n  vethctl top\n  vethctl top --once --sort drops\n  vethctl top --filter @ns1 --json -n 60",
    ),
    "netns": Command(
        "netns",
        "netns list | add NAME… | del NAME…",
        "list, add and delete named namespaces, as `ip netns` has them",
        _add_netns,
        "example: vethctl netns add ns1 ns2",
    ),
}
