"""What may be said on the command line.

Each command has its own parser, and only that of the command called is made. The flags that all commands share may
stand before the command's name too. A flag that is not given may come from the environment: VETHLIB_LABEL for --label.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from .parser import Parser, UsageError, no_such, number, one_of, seconds, switch

__all__ = ["json_is_wanted", "parse"]

_COLORS = ("auto", "always", "never")
_HELP = "vethctl --help"

_EPILOG = """\
A NETNS is a name (ns1, netns:ns1), pid:42, path:/proc/42/ns/net or fd:7; without one, this namespace.
A PATH is a JSON file, a directory of *.json, or - for stdin.
Every command takes --json, and --color[=auto|always|never]. A flag may come from the environment: VETHLIB_LABEL
for --label. `vethctl COMMAND --help` says more.

examples:
  vethctl demo
  vethctl apply /etc/vethlib --dry-run
  vethctl create veth1@ns1 veth2@pid:42 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24
  vethctl show -br

exit codes: 0 done; 1 usage or invalid configuration; 2 refused by kernel or store; 3 applied, but something is pending;
diff: 0 same, 1 different."""


@dataclass(frozen=True, slots=True)
class _Command:
    module: str
    usage: str
    summary: str
    add_arguments: Callable[[Parser], object]
    more: str = ""
    function: str = ""  # what to call in the module; "": as the command


def json_is_wanted(argv: list[str]) -> bool:
    """Whether errors are to be JSON, even that of a command line that cannot be read."""
    try:
        return "--json" in argv or switch(os.environ.get("VETHLIB_JSON", ""))
    except ArgumentTypeError:
        return False


def parse(argv: list[str]) -> Namespace:
    """Read a command line; `command` and `module` say what to call. Raises UsageError, and SystemExit after help."""
    argv = _with_color_joined(argv)
    _check_stores(argv)
    at = next((number for number, word in enumerate(argv) if not word.startswith("-")), len(argv))
    if at == len(argv):
        return _without_command(argv)
    name, rest = argv[at], argv[:at] + argv[at + 1 :]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(no_such("command", name, COMMANDS), field="COMMAND", hint=f"try: {_HELP}")
    parser = Parser(command.usage, f"{command.summary[0].upper()}{command.summary[1:]}.", command.more)
    _add_common(parser)
    command.add_arguments(parser)
    args = parser.read(rest)
    args.command, args.module = command.function or name, command.module
    return args


def _without_command(argv: list[str]) -> Namespace:
    parser = Parser("COMMAND [ARGUMENT…]", _overview(), _EPILOG)
    _add_common(parser)
    parser.option("--version", action="version", version=_version(argv), help="print the version")
    parser.read(argv)
    raise UsageError("which command?", field="COMMAND", hint=f"one of: {', '.join(COMMANDS)}; try: {_HELP}")


def _version(argv: list[str]) -> str:
    if "--version" not in argv:
        return ""
    import vethlib

    return f"vethctl {vethlib.__version__}"


def _overview() -> str:
    lines = ["Wire Linux network namespaces together with veth pairs.", "", "commands:"]
    lines += [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def _check_stores(argv: list[str]) -> None:
    """That no etcd is where something else belongs: what splits it would show parts of its password."""
    for before, word in pairwise(["", *argv]):
        if word.startswith("etcd:") and before != "--store":
            raise UsageError(f"{word!r} is a store", field="--store", hint="write --store before it")


def _with_color_joined(argv: list[str]) -> list[str]:
    """--color may stand alone, so only a word that can be its value is taken for it."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--color=always" and word in _COLORS:
            joined[-1] = f"--color={word}"
        else:
            joined.append("--color=always" if word == "--color" else word)
    return joined


def _add_common(parser: Parser) -> None:
    parser.option("--json", action="store_true", help="print JSON, errors too")
    parser.option(
        "--color",
        type=one_of(*_COLORS),
        default="auto",
        metavar="auto|always|never",
        help="colour the output (default: auto, on a terminal)",
    )


def _add_paths(parser: Parser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a JSON file, a directory of *.json, or - for stdin")


def _add_diff(parser: Parser) -> None:
    _add_paths(parser)
    _add_label(parser)
    parser.option("--prune", action="store_true", help="also remove pairs of this label that the files do not name")
    parser.option(
        "--missing-netns",
        type=one_of("create", "wait"),
        default="create",
        metavar="create|wait",
        help="what to do for a named namespace that is not there (default: %(default)s)",
    )


def _add_apply(parser: Parser) -> None:
    _add_diff(parser)
    parser.option("--dry-run", action="store_true", help="only say what would be done")
    text = "wait up to so many seconds for namespaces that are not there (default: do not wait)"
    parser.option("--timeout", type=seconds, default=0.0, metavar="S", help=text)


def _add_label(parser: Parser) -> None:
    label = os.environ.get("MICROSERVICE_LABEL", "vpp1")
    parser.option("--label", default=label, help="whose pairs they are (default: %(default)s)")


def _add_status_directory(parser: Parser) -> None:
    text = "where the agent writes its status (default: /run/vethlib/LABEL/status)"
    parser.option("--status-dir", metavar="DIR", default="", help=text)


def _add_agent(parser: Parser) -> None:
    _add_store(parser)
    _add_status_directory(parser)
    parser.option(
        "--missing-netns",
        type=one_of("create", "wait"),
        default="create",
        metavar="create|wait",
        help="what to do for a named namespace that is not there (default: %(default)s)",
    )
    text = "the Docker Engine whose containers are microservices (default: %(default)s)"
    parser.option("--docker", metavar="SOCKET|off", default="unix:///var/run/docker.sock", help=text)
    parser.option("--once", action="store_true", help="do what can be done now, say what came of it, and end")
    parser.option(
        "--log",
        type=one_of("text", "json"),
        default="text",
        metavar="text|json",
        help="how to write the log, to stderr (default: %(default)s)",
    )


def _add_status(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="interfaces, by name or by full key (default: all)")
    text = "an etcd to ask instead of this host: etcd://HOST:PORT; may come from VETHLIB_STORE"
    parser.option("--store", metavar="URL", help=text)
    _add_label(parser)
    parser.option("--all-labels", action="store_true", help="a line for each label in that etcd")
    _add_status_directory(parser)
    parser.option("--watch", action="store_true", help="show it again each time something changes")


def _add_store(parser: Parser) -> None:
    text = "where the configuration is: dir:PATH or etcd://HOST:PORT; may come from VETHLIB_STORE"
    parser.option("--store", metavar="URL", help=text)
    _add_label(parser)


def _add_put(parser: Parser) -> None:
    parser.add_argument("key", nargs="?", metavar="KEY", help="a name or a full key that the one value has to have")
    parser.add_argument("file", metavar="FILE", help="a JSON file (one interface or a list), a directory of them, or -")
    _add_store(parser)
    parser.option("--no-validate", action="store_true", help="store any JSON object that has a name")


def _add_names(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="interfaces, by name or by full key")
    _add_store(parser)


def _add_del(parser: Parser) -> None:
    _add_names(parser)
    # Not an option(): what is deleted is not to depend on a VETHLIB_PREFIX.
    parser.add_argument("--prefix", action="store_true", help="delete all whose names begin with a NAME")
    parser.option("--missing-ok", action="store_true", help="what is not there is no error")


def _add_dump(parser: Parser) -> None:
    _add_store(parser)
    # Nor this one: a backup is not to depend on a VETHLIB_TABLE.
    parser.add_argument("--table", action="store_true", help="print a line for each value, for people")


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
    shape = {"action": "store_const", "dest": "form", "among": form}
    parser.option("-br", "--brief", const="brief", help="a line each", **shape)
    parser.option("-d", "--details", const="details", help="all that the kernel says", **shape)
    parser.option("-a", "--all", action="store_true", help="links of every kind, not only veth")


def _add_stats(parser: Parser) -> None:
    parser.add_argument("link", metavar="LINK[@NETNS]", help="the link")


def _add_netns(parser: Parser) -> None:
    parser.add_argument("action", type=one_of("list", "add", "del"), metavar="list|add|del", help="what to do")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the namespaces to add or to delete")


def _add_demo(parser: Parser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="northbound files (default: an example pair)")


def _add_nothing(_parser: Parser) -> None:
    pass


_DIFF_USAGE = "PATH… [--prune] [--missing-netns create|wait] [--label LABEL]"
_STORE_USAGE = "--store URL [--label LABEL]"
_STORE_HELP = """\

the URL of a store:
  dir:PATH             a directory of *.json files
  etcd://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT…][?OPTION[&OPTION…]]
                       an etcd, by one or several of its members; a plain NAME stands there for
                       /vnf-agent/LABEL/linux/config/v1/interface/NAME
options of an etcd:
  password-file=FILE   holds the password of USER, instead of the URL, which others may see
  cacert=FILE          the CA of the server's certificate; with it, cert, key, server-name or tls=1, TLS is spoken
  cert=FILE, key=FILE  the client's own certificate
  server-name=NAME     the name that is in the server's certificate, if it is not HOST
  tls=1                TLS with the CAs that this host trusts"""
_SEE_PUT = "\nWhat else the URL of a store may say: vethctl put --help"
_AGENT_HELP = f"""{_STORE_HELP}
  lease=S              what the agent says of itself and its interfaces is gone S seconds after it is (15)
  heartbeat=S          it says every S seconds that it is there (2)"""
_CREATE_EXAMPLE = "example: vethctl create veth1@ns1 veth2@pid:42 --mtu 1400 --a-addr 10.0.0.1/24 --b-addr 10.0.0.2/24"
_SHOW_EXAMPLE = "examples:\n  vethctl show @ns1\n  vethctl show -d veth1@ns1"

COMMANDS = {
    "apply": _Command(
        "apply",
        f"apply {_DIFF_USAGE} [--dry-run] [--timeout S]",
        "bring this host to northbound files, once: add and change",
        _add_apply,
        "example: vethctl apply /etc/vethlib --prune --timeout 30",
    ),
    "diff": _Command(
        "apply",
        f"diff {_DIFF_USAGE}",
        "show what apply would do; exits 0 for nothing, 1 for something",
        _add_diff,
        "example: vethctl diff /etc/vethlib --prune",
    ),
    "validate": _Command(
        "configuration",
        "validate PATH…",
        "check northbound files; needs no privilege",
        _add_paths,
        "example: vethctl validate veth1.json veth2.json",
    ),
    "agent": _Command(
        "agent",
        f"agent {_STORE_USAGE} [--once] [--status-dir DIR] [--missing-netns create|wait] "
        "[--docker SOCKET|off] [--log text|json]",
        "keep this host as a store says, until stopped",
        _add_agent,
        "SIGTERM ends it and leaves the host as it is; SIGHUP has everything looked at again.\n"
        "examples:\n  vethctl agent --store dir:/etc/vethlib --label vpp1\n"
        f"  vethctl agent --store 'etcd://vethlib@etcd1:2379,etcd2:2379?password-file=/etc/vethlib.pw'\n{_AGENT_HELP}",
    ),
    "status": _Command(
        "status",
        "status [NAME…] [--store URL] [--label LABEL | --all-labels] [--status-dir DIR] [--watch]",
        "show what the agent says of its interfaces: state, reason, since when",
        _add_status,
        "Without an etcd it is the agent of this host that is asked. With one, an interface is pending, too, as long\n"
        "as its agent has yet to see what is stored.\n"
        "examples:\n  vethctl status --watch\n  vethctl status --store etcd://etcd1:2379 --all-labels\n"
        f"{_SEE_PUT}",
    ),
    "put": _Command(
        "store",
        f"put [KEY] FILE {_STORE_USAGE} [--no-validate]",
        "store interfaces, for an agent to read: those of a file",
        _add_put,
        "examples:\n  vethctl put veth1 veth1.json --store dir:/etc/vethlib\n"
        f"  vethctl put /etc/vethlib --store etcd://etcd1:2379 --label vpp1\n{_STORE_HELP}",
    ),
    "get": _Command(
        "store",
        f"get NAME… {_STORE_USAGE}",
        "print what is stored of interfaces",
        _add_names,
        f"example: vethctl get veth1 --store dir:/etc/vethlib\n{_SEE_PUT}",
    ),
    "del": _Command(
        "store",
        f"del NAME… {_STORE_USAGE} [--prefix] [--missing-ok]",
        "delete interfaces from the store",
        _add_del,
        f"example: vethctl del veth1 veth2 --store dir:/etc/vethlib\n{_SEE_PUT}",
        function="delete",
    ),
    "list": _Command(
        "store",
        f"list {_STORE_USAGE}",
        "list the interfaces of the store, and what is wrong with them",
        _add_store,
        f"example: vethctl list --store dir:/etc/vethlib\n{_SEE_PUT}",
        function="table",
    ),
    "dump": _Command(
        "store",
        f"dump {_STORE_USAGE} [--table]",
        "print all that is stored, as put takes it",
        _add_dump,
        f"example: vethctl dump --store dir:/etc/vethlib >backup.json\n{_SEE_PUT}",
    ),
    "create": _Command(
        "links",
        "create A[@NETNS] B[@NETNS] [--mtu BYTES] [--a-mac MAC] [--a-addr IP/PREFIX]… [--b-…]… [--queues N] [--down] "
        "[--wait S]",
        "create a pair, where it is to live",
        _add_create,
        _CREATE_EXAMPLE,
    ),
    "move": _Command(
        "links",
        "move LINK[@NETNS] NETNS",
        "move a link to another namespace; it goes down and loses its addresses",
        _add_move,
        "example: vethctl move veth1@ns1 ns2",
    ),
    "delete": _Command(
        "links",
        "delete LINK[@NETNS]… [--missing-ok]",
        "delete pairs, each through one of its ends",
        _add_delete,
        "example: vethctl delete veth1@ns1 veth7@ns7",
    ),
    "show": _Command(
        "show",
        "show [LINK[@NETNS] | @NETNS]… [-br | -d] [--all]",
        "show links: of this namespace and every named one, or those given",
        _add_show,
        _SHOW_EXAMPLE,
    ),
    "stats": _Command(
        "links", "stats LINK[@NETNS]", "show the counters of a link", _add_stats, "example: vethctl stats veth1@ns1"
    ),
    "netns": _Command(
        "netns",
        "netns list | add NAME… | del NAME…",
        "list, add and delete named namespaces, as `ip netns` has them",
        _add_netns,
        "example: vethctl netns add ns1 ns2",
    ),
    "doctor": _Command("doctor", "doctor", "say what this host lacks, and how to get it", _add_nothing),
    "demo": _Command(
        "demo",
        "demo [PATH…]",
        "wire an example up in private namespaces, send traffic, show the picture",
        _add_demo,
        "example: vethctl demo examples/star",
    ),
}
