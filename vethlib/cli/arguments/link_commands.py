"""create, move, delete and netns: links and namespaces of this host."""

from __future__ import annotations

from .command import Command
from .parser import Parser, number, one_of, seconds

__all__ = ["COMMANDS"]

_CREATE_EXAMPLE = "example: vethctl create veth1@ns1 veth2@pid:42 --mtu 1400 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24"


def _add_create(parser: Parser) -> None:
    for end in ("a", "b"):
        parser.add_argument(end, metavar=f"{end.upper()}[@NETNS]", help=f"name and namespace of end {end.upper()}")
    for end in ("a", "b"):
        letter = end.upper()
        parser.option(f"--{end}-mac", metavar="MAC", help=f"MAC address of {letter} (default: chosen by the kernel)")
        text = f"address for {letter} (repeatable)"
        parser.option(f"--{end}-addr", metavar="IP/PREFIX", action="append", default=[], help=text)
        text = f"whether {letter} has IPv6 (default: as new links of its namespace)"
        parser.option(f"--{end}-ipv6", type=one_of("on", "off"), metavar="on|off", help=text)
    parser.option("--mtu", type=number, metavar="BYTES", help="MTU of both ends (default: 1500)")
    parser.option("--queues", type=number, metavar="N", help="queues of both ends (default: one per CPU)")
    parser.option("--down", action="store_true", help="leave both ends down")
    parser.option("--wait", type=seconds, metavar="S", help="wait up to S seconds until both ends can be used")


def _add_move(parser: Parser) -> None:
    parser.add_argument("link", metavar="LINK[@NETNS]", help="the link")
    parser.add_argument("to", metavar="NETNS", help='the destination; "" is this namespace')


def _add_delete(parser: Parser) -> None:
    parser.add_argument("links", nargs="+", metavar="LINK[@NETNS]", help="one end of each pair")
    parser.option("--missing-ok", action="store_true", help="ignore links that do not exist")


def _add_netns(parser: Parser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        type=one_of("list", "add", "del", "exec"),
        metavar="list|add|del|exec",
        help="what to do (default: list)",
    )
    text = "the namespaces to add or delete; the one to run a program in, and the program"
    parser.add_argument("names", nargs="*", metavar="NAME", completes="netns-name", help=text)
    parser.option("--up", action="store_true", help="with add: set the loopback up")


COMMANDS = {
    "create": Command(
        "host.links",
        "create A[@NETNS] B[@NETNS] [--mtu BYTES] [--a-mac MAC] [--a-addr IP/PREFIX]… [--a-ipv6 on|off] [--b-…]… "
        "[--queues N] [--down] [--wait S]",
        "create a pair, with each end directly in its namespace",
        _add_create,
        _CREATE_EXAMPLE,
    ),
    "move": Command(
        "host.links",
        "move LINK[@NETNS] NETNS",
        "move a link to another namespace, which sets it down and removes its addresses",
        _add_move,
        "example: vethctl move veth1@ns1 ns2",
        alters=True,
    ),
    "delete": Command(
        "host.links",
        "delete LINK[@NETNS]… [--missing-ok]",
        "delete pairs, each through one of its ends",
        _add_delete,
        "example: vethctl delete veth1@ns1 veth7@ns7",
        alters=True,
    ),
    "netns": Command(
        "host.netns",
        "netns [list | add [--up] NAME… | del NAME… | exec NETNS PROGRAM [ARGUMENT…]]",
        "list, add and delete named namespaces, and run programs in them, like `ip netns`",
        _add_netns,
        """\
exec replaces vethctl by the program, which sees the links of the namespace in /sys, and the files in /etc/netns/NAME
in place of those in /etc. The exit code is that of the program, 127 if there is none of that name, 126 if it cannot be
run. All words after NETNS are for the program.
examples: vethctl netns add ns1 ns2
          vethctl netns exec ns1 ping -c1 10.0.0.2""",
    ),
}
