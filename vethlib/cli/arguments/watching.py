"""watch: what goes on on this host."""

from __future__ import annotations

from ..parser import Parser, count, seconds, some_of
from .command import Command
from .shared import add_label, add_status_directory

__all__ = ["COMMANDS"]

_KINDS = ("netns", "link", "address", "state")


def _add_watch(parser: Parser) -> None:
    text = "only what is about these, with * and ? as in a shell"
    parser.add_argument("targets", nargs="*", metavar="LINK[@NETNS]|@NETNS", help=text)
    parser.option("--initial", action="store_true", help="first tell what there is")
    text = "only these kinds of events: netns, link, address, state (default: all)"
    parser.option("--only", type=some_of(*_KINDS), default=(), metavar="KIND[,KIND…]", help=text)
    parser.option("--type", metavar="TYPE", help="only links of this type, as veth or bridge, and their addresses")
    parser.option("--count", type=count, metavar="N", help="end after so many events")
    parser.option("--timeout", type=seconds, metavar="S", help="end after so long: seconds, or 30s, 5m, …")
    add_label(parser)
    add_status_directory(parser)


COMMANDS = {
    "watch": Command(
        "watch",
        "watch [LINK[@NETNS] | @NETNS]… [--initial] [--only KIND,…] [--type TYPE] [--count N] [--timeout S]",
        "tell every change of namespaces, links, addresses and states as it happens",
        _add_watch,
        "Watched are this namespace, every named one as it comes and goes, and those given, as in @pid:42; and what\n"
        "an agent with the --label on this host says of its interfaces. In front of a line: + new, ~ changed, - gone,\n"
        "= there already. With --json, an object a line. It ends with 3 if --timeout comes before --count is reached.\n"
        "examples:\n  vethctl watch --initial --type veth\n  vethctl watch 'veth*@ns1' @pid:42 --only link,address\n"
        "  vethctl watch veth1 --only state --json --count 1",
    ),
}
