"""create, set, move, delete and netns: links and namespaces of this host."""

from __future__ import annotations

from typing import Any

from .command import Command
from .parser import Parser, assignment, neighbour, number, one_of, route, seconds

__all__ = ["COMMANDS"]

_CREATE_EXAMPLE = "example: vethctl create veth1@ns1 veth2@pid:42 --mtu 1400 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24"


def _add_create(parser: Parser) -> None:
    for end in ("a", "b"):
        parser.add_argument(end, metavar=f"{end.upper()}[@NETNS]", help=f"name and namespace of end {end.upper()}")
    for end in ("a", "b"):
        letter = end.upper()
        parser.option(f"--{end}-mac", metavar="MAC", help=f"MAC address of {letter} (default: chosen by the kernel)")
        text = f"address for {letter}, such as '10.0.0.1/24 brd + label veth1:1' (repeatable)"
        parser.option(f"--{end}-addr", metavar="IP/PREFIX", action="append", default=[], help=text)
        text = f"whether {letter} has IPv6 (default: that of new links in its namespace)"
        parser.option(f"--{end}-ipv6", type=one_of("on", "off"), metavar="on|off", help=text)
        text = f"alternative name of {letter} (repeatable)"
        parser.option(f"--{end}-altname", metavar="NAME", action="append", default=[], help=text)
        text = f"existing bridge or VRF that {letter} is attached to"
        parser.option(f"--{end}-master", metavar="NAME", default="", help=text)
        text = f"sysctl of {letter}, such as rp_filter=0 or ipv6.forwarding=1 (repeatable)"
        how: dict[str, Any] = {"type": assignment, "metavar": "NAME=VALUE", "action": "append", "default": []}
        parser.option(f"--{end}-sysctl", help=text, **how)
        text = f"route over {letter}, such as 'default via 10.0.0.1' (repeatable)"
        parser.option(f"--{end}-route", type=route, metavar="ROUTE", action="append", default=[], help=text)
        text = f"permanent neighbour over {letter}, such as '10.0.0.9 lladdr 02:00:00:00:00:09' (repeatable)"
        how |= {"type": neighbour, "metavar": "NEIGHBOUR"}
        parser.option(f"--{end}-neighbour", help=text, **how)
        text = f"whether {letter} leaves checksums and segmentation to a network card (default: on)"
        parser.option(f"--{end}-offload", type=one_of("on", "off"), metavar="on|off", help=text)
    parser.option("--mtu", type=number, metavar="BYTES", help="MTU of both ends (default: 1500)")
    parser.option("--txqlen", type=number, metavar="N", help="length of the transmit queue of both ends, in packets")
    text = "largest packet that both ends accept for segmentation"
    parser.option("--gso-max-size", type=number, metavar="BYTES", help=text)
    parser.option("--queues", type=number, metavar="N", help="number of queues of each end (default: one per CPU)")
    either = parser.add_mutually_exclusive_group()
    parser.option("--down", action="store_true", among=either, help="leave both ends down")
    text = "wait up to S seconds until both ends can be used"
    parser.option("--wait", type=seconds, metavar="S", among=either, help=text)


def _add_set(parser: Parser) -> None:
    parser.add_argument("link", metavar="LINK[@NETNS]", help="the link")
    parser.option("--name", metavar="NAME", help="its new name")
    either = parser.add_mutually_exclusive_group()
    parser.option("--up", action="store_true", among=either, help="set it up")
    parser.option("--down", action="store_true", among=either, help="set it down, which removes its IPv6 addresses")
    parser.option("--mac", metavar="MAC", help="its MAC address")
    parser.option("--mtu", type=number, metavar="BYTES", help="its MTU")
    parser.option("--alias", metavar="TEXT", help='its alias; "" removes it')
    address = "address, replacing all others, such as '10.0.0.1 peer 10.0.0.2/32' (repeatable)"
    parser.option("--addr", metavar="IP/PREFIX", action="append", help=address)
    parser.option("--ipv6", type=one_of("on", "off"), metavar="on|off", help="whether it has IPv6")
    parser.option("--txqlen", type=number, metavar="N", help="length of its transmit queue, in packets")
    text = "largest packet that it accepts for segmentation"
    parser.option("--gso-max-size", type=number, metavar="BYTES", help=text)
    text = "alternative name, replacing all others (repeatable)"
    parser.option("--altname", metavar="NAME", action="append", help=text)
    text = "existing bridge or VRF that it is attached to; '' detaches it"
    parser.option("--master", metavar="NAME", help=text)
    text = "one of its sysctls, such as rp_filter=0 or ipv6.forwarding=1 (repeatable)"
    parser.option("--sysctl", type=assignment, metavar="NAME=VALUE", action="append", help=text)
    text = "route over it, such as 'default via 10.0.0.1', replacing all that vethlib has added (repeatable)"
    parser.option("--route", type=route, metavar="ROUTE", action="append", help=text)
    text = "permanent neighbour over it, replacing all that vethlib has added (repeatable)"
    parser.option("--neighbour", type=neighbour, metavar="NEIGHBOUR", action="append", help=text)
    text = "whether it leaves checksums and segmentation to a network card"
    parser.option("--offload", type=one_of("on", "off"), metavar="on|off", help=text)
    text = "wait up to S seconds until it can be used; not with --down"
    parser.option("--wait", type=seconds, metavar="S", help=text)


def _add_move(parser: Parser) -> None:
    parser.add_argument("link", metavar="LINK[@NETNS]", help="the link")
    parser.add_argument("to", metavar="NETNS", help='the destination; "" is this namespace')
    parser.option("--name", metavar="NAME", help="its name there (default: its present name)")


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
    text = "the namespaces to add or delete; with exec, a namespace, then a program and its arguments"
    parser.add_argument("names", nargs="*", metavar="NAME", completes="netns-name", help=text)
    parser.option("--up", action="store_true", help="with add: set the loopback up")


COMMANDS = {
    "create": Command(
        "host.links",
        "create A[@NETNS] B[@NETNS] [--mtu BYTES] [--a-mac MAC] [--a-addr IP/PREFIX]… [--a-ipv6 on|off] "
        "[--a-altname NAME]… [--a-master NAME] [--a-sysctl NAME=VALUE]… [--a-route ROUTE]… [--a-neighbour NEIGHBOUR]… "
        "[--a-offload on|off] [--b-…]… [--txqlen N] [--gso-max-size BYTES] [--queues N] [--down] [--wait S]",
        "create a pair, with each end directly in its namespace; 'veth*' takes the first free name",
        _add_create,
        _CREATE_EXAMPLE,
    ),
    "set": Command(
        "host.links",
        "set LINK[@NETNS] [--name NAME] [--up | --down] [--mac MAC] [--mtu BYTES] [--alias TEXT] [--addr IP/PREFIX]… "
        "[--ipv6 on|off] [--txqlen N] [--gso-max-size BYTES] [--altname NAME]… [--master NAME] "
        "[--sysctl NAME=VALUE]… [--route ROUTE]… [--neighbour NEIGHBOUR]… [--offload on|off] [--wait S]",
        "change a link; if any part is refused, nothing changes",
        _add_set,
        "example: vethctl set veth1@ns1 --mtu 1400 --sysctl rp_filter=0",
        function="set_link",
        alters=True,
    ),
    "move": Command(
        "host.links",
        "move LINK[@NETNS] NETNS [--name NAME]",
        "move a link to another namespace, which sets it down and removes its addresses",
        _add_move,
        "example: vethctl move veth1@ns1 ns2",
        alters=True,
    ),
    "delete": Command(
        "host.links",
        "delete LINK[@NETNS]… [--missing-ok]",
        "delete pairs, each given by one of its ends",
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
exec replaces vethctl with the program, which finds the links of the namespace in /sys, and the files of /etc/netns/NAME
in place of those in /etc. The exit code is that of the program, 127 if it does not exist, or 126 if it cannot be run.
All words after NETNS are passed to the program.
examples: vethctl netns add ns1 ns2
          vethctl netns exec ns1 ping -c1 10.0.0.2""",
    ),
}
