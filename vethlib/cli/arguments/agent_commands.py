"""agent, status and describe."""

from __future__ import annotations

from .command import Command
from .parser import Parser, interval, one_of, reason_codes, state_names
from .shared import (
    LIMITS_USAGE,
    SEE_PUT,
    STORE_HELP,
    STORE_USAGE,
    add_label,
    add_limits,
    add_loopback,
    add_missing_netns,
    add_status_directory,
    add_store,
)

__all__ = ["COMMANDS"]

_AGENT_HELP = f"""{STORE_HELP}
  lease=S              published statuses expire S seconds after the agent has ended (default: 15)
  heartbeat=S          seconds between signs of life of the agent (default: 2)"""


def _add_agent(parser: Parser) -> None:
    add_store(parser)
    add_status_directory(parser)
    add_missing_netns(parser)
    add_loopback(parser)
    parser.option(
        "--ipv6",
        variable=True,
        type=one_of("on", "auto", "off"),
        default="on",
        metavar="on|auto|off",
        help="where interfaces have IPv6 if their configuration has neither `ipv6` nor IPv6 addresses, routes or "
        "neighbours: everywhere, everywhere except in this namespace, or nowhere (default: %(default)s)",
    )
    text = "socket of the Docker Engine or of podman, for the containers of microservices (default: %(default)s)"
    default = "unix:///var/run/docker.sock"
    parser.option("--docker", variable=True, metavar="SOCKET|off", default=default, completes="engine", help=text)
    text = "serve /metrics for Prometheus, and /healthz, at HOST:PORT, [IPV6]:PORT or :PORT"
    parser.option("--metrics", variable=True, metavar="ADDRESS", default="", help=text)
    text = "with --metrics: also serve the counters of every owned link"
    parser.option("--metrics-links", variable=True, action="store_true", help=text)
    parser.option(
        "--once",
        variable=True,
        action="store_true",
        help="do everything that is possible now, print the result, and exit",
    )
    parser.option(
        "--log",
        variable=True,
        type=one_of("text", "json"),
        default="text",
        metavar="text|json",
        help="format of the log on stderr (default: %(default)s)",
    )
    text = "notify of each change of a state: exec:/PATH [ARGUMENT…], https://… or url-file:PATH (repeatable)"
    parser.option("--hook", variable=True, metavar="HOOK", action="append", default=[], help=text)
    text = "notify only of changes to these states, such as FAILED,RETRYING,removed (default: all)"
    parser.option("--hook-states", variable=True, metavar="STATE,…", help=text)
    parser.option(
        "--hook-timeout",
        variable=True,
        type=interval,
        default=10.0,
        metavar="S",
        help="time limit of a hook, in seconds (default: %(default)g)",
    )
    add_limits(parser)


def _add_status(parser: Parser) -> None:
    text = "interfaces, by name, full key or pattern with * and ? (default: all)"
    parser.add_argument("names", nargs="*", metavar="NAME", completes="interface", help=text)
    text = "show only interfaces in these states, such as retrying,failed (repeatable)"
    parser.option("--state", type=state_names, action="append", default=[], metavar="STATE[,STATE…]", help=text)
    text = "show only interfaces with one of these reason codes, such as link-foreign,peer-failed (repeatable)"
    parser.option("--code", type=reason_codes, action="append", default=[], metavar="CODE[,CODE…]", help=text)
    text = "read the statuses from an etcd, etcd://HOST:PORT, not from this host (default: $VETHLIB_STORE)"
    parser.option("--store", variable=True, metavar="URL", completes="store", help=text)
    which = parser.add_mutually_exclusive_group()
    add_label(parser, among=which)
    parser.option("--all-labels", action="store_true", help="show one line for each label in the etcd", among=which)
    add_status_directory(parser)
    parser.option("--watch", action="store_true", help="show the statuses again after each change")


def _add_describe(parser: Parser) -> None:
    text = "the interface, by name or full key"
    parser.add_argument("name", metavar="NAME", completes="interface", help=text)
    text = "store of its configuration: dir:PATH or etcd://HOST:PORT (default: the agent of this host)"
    parser.option("--store", variable=True, metavar="URL", completes="store", help=text)
    add_label(parser)
    add_status_directory(parser)
    add_limits(parser)


COMMANDS = {
    "agent": Command(
        "desired.agent",
        f"agent {STORE_USAGE} [--once] [--status-dir DIR] [--missing-netns create|wait] [--loopback up|down] "
        "[--ipv6 on|auto|off] [--docker SOCKET|off] [--metrics ADDRESS] [--metrics-links] [--log text|json] "
        f"[--hook HOOK]… [--hook-states STATE,…] [--hook-timeout S] {LIMITS_USAGE}",
        "keep this host in the state described by a store",
        _add_agent,
        "Runs until SIGTERM or SIGINT, and then leaves the host as it is. On SIGHUP it checks everything again.\n"
        "examples:\n  vethctl agent --store dir:/etc/vethlib --label vpp1\n"
        f"  vethctl agent --store 'etcd://vethlib@etcd1:2379,etcd2:2379?password-file=/etc/vethlib.pw'\n{_AGENT_HELP}",
        alters=True,
    ),
    "status": Command(
        "desired.status",
        "status [NAME…] [--state STATE,…] [--code CODE,…] [--store URL] [--label LABEL | --all-labels] "
        "[--status-dir DIR] [--watch]",
        "show the interfaces of the agent: state, since when, and the reason",
        _add_status,
        "Without an etcd, the statuses are those of the agent of this host. With one, an interface is PENDING until\n"
        "its agent has read the stored configuration; if the etcd is down, those on this host are shown instead.\n"
        "The last line counts the states. For everything about one interface: vethctl describe\n"
        "exit codes:\n"
        "  0  all shown interfaces are CONFIGURED\n"
        "  1  usage, or the agent has no interface NAME, or none that matches the pattern\n"
        "  2  an interface is RETRYING, FAILED or INVALID, or no agent runs, or a store is down\n"
        "  3  an interface is PENDING, and none is worse\n"
        "examples:\n  vethctl status --watch\n  vethctl status 'uplink*' --state retrying,failed,invalid\n"
        "  vethctl status --store etcd://etcd1:2379 --all-labels\n"
        "  while vethctl status; [ $? = 3 ]; do sleep 1; done   # wait while something is pending\n"
        f"{SEE_PUT}",
    ),
    "describe": Command(
        "desired.describe",
        f"describe NAME [--store URL] [--label LABEL] [--status-dir DIR] {LIMITS_USAGE}",
        "show one interface in detail: configuration, links, counters, last changes",
        _add_describe,
        "The configuration and the last changes, each with its time and cause, come from the agent of this host, and\n"
        "the links from the kernel. If no agent runs, the statuses are those of the last agent.\n"
        "exit codes: those of status for this interface; 1 also if there is no such interface\n"
        "example: vethctl describe veth1\n"
        f"{SEE_PUT}",
    ),
}
