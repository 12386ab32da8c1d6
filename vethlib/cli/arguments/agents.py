"""agent and status."""

from __future__ import annotations

from ..parser import Parser, interval, one_of
from .command import Command
from .shared import SEE_PUT, STORE_HELP, STORE_USAGE, add_label, add_missing_netns, add_status_directory, add_store

__all__ = ["COMMANDS"]

_AGENT_HELP = f"""{STORE_HELP}
  lease=S              what the agent says of itself and its interfaces is gone S seconds after it is (15)
  heartbeat=S          it says every S seconds that it is there (2)"""


def _add_agent(parser: Parser) -> None:
    add_store(parser)
    add_status_directory(parser)
    add_missing_netns(parser)
    text = "the Docker Engine whose containers are microservices (default: %(default)s)"
    default = "unix:///var/run/docker.sock"
    parser.option("--docker", metavar="SOCKET|off", default=default, completes="engine", help=text)
    text = "serve /metrics for Prometheus, and /healthz, there: HOST:PORT, [IPV6]:PORT or :PORT"
    parser.option("--metrics", metavar="ADDRESS", default="", help=text)
    text = "with --metrics: the counters of every link that is kept, too"
    parser.option("--metrics-links", action="store_true", help=text)
    parser.option("--once", action="store_true", help="do what can be done now, say what came of it, and end")
    parser.option(
        "--log",
        type=one_of("text", "json"),
        default="text",
        metavar="text|json",
        help="how to write the log, to stderr (default: %(default)s)",
    )
    text = "tell of each change of a state: exec:/PATH [ARGUMENT…], https://… or url-file:PATH; as often as wanted"
    parser.option("--hook", metavar="HOOK", action="append", default=[], help=text)
    text = "only of changes to these, as in FAILED,RETRYING,removed (default: of all)"
    parser.option("--hook-states", metavar="STATE,…", help=text)
    parser.option(
        "--hook-timeout",
        type=interval,
        default=10.0,
        metavar="S",
        help="seconds a hook may take (default: %(default)g)",
    )


def _add_status(parser: Parser) -> None:
    text = "interfaces, by name or by full key (default: all)"
    parser.add_argument("names", nargs="*", metavar="NAME", completes="interface", help=text)
    text = "an etcd to ask instead of this host: etcd://HOST:PORT; may come from VETHLIB_STORE"
    parser.option("--store", metavar="URL", completes="store", help=text)
    which = parser.add_mutually_exclusive_group()
    add_label(parser, among=which)
    parser.option("--all-labels", action="store_true", help="a line for each label in that etcd", among=which)
    add_status_directory(parser)
    parser.option("--watch", action="store_true", help="show it again each time something changes")


COMMANDS = {
    "agent": Command(
        "agent",
        f"agent {STORE_USAGE} [--once] [--status-dir DIR] [--missing-netns create|wait] "
        "[--docker SOCKET|off] [--metrics ADDRESS] [--metrics-links] [--log text|json] [--hook HOOK]… "
        "[--hook-states STATE,…] [--hook-timeout S]",
        "keep this host as a store says, until stopped",
        _add_agent,
        "SIGTERM ends it and leaves the host as it is; SIGHUP has everything looked at again.\n"
        "examples:\n  vethctl agent --store dir:/etc/vethlib --label vpp1\n"
        f"  vethctl agent --store 'etcd://vethlib@etcd1:2379,etcd2:2379?password-file=/etc/vethlib.pw'\n{_AGENT_HELP}",
    ),
    "status": Command(
        "status",
        "status [NAME…] [--store URL] [--label LABEL | --all-labels] [--status-dir DIR] [--watch]",
        "show what the agent says of its interfaces: state, reason, since when",
        _add_status,
        "Without an etcd it is the agent of this host that is asked. With one, an interface is pending, too, as long\n"
        "as its agent has yet to see what is stored.\n"
        "exit codes:\n"
        "  0  every interface that is shown is CONFIGURED\n"
        "  1  usage, or a NAME that the agent does not have\n"
        "  2  one is RETRYING, FAILED or INVALID; no agent runs; its store, or the one that is asked, is down\n"
        "  3  one is PENDING, and none is worse\n"
        "examples:\n  vethctl status --watch\n  vethctl status --store etcd://etcd1:2379 --all-labels\n"
        "  while vethctl status; [ $? = 3 ]; do sleep 1; done   # wait as long as something is pending\n"
        f"{SEE_PUT}",
    ),
}
