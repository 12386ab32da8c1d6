"""put, get, del, list and dump: what is stored for agents to read."""

from __future__ import annotations

from ..parser import Parser
from .command import Command
from .shared import SEE_PUT, STORE_HELP, STORE_USAGE, add_store

__all__ = ["COMMANDS"]


def _add_put(parser: Parser) -> None:
    text = "a name or a full key that the one value has to have"
    parser.add_argument("key", nargs="?", metavar="KEY", completes="interface", help=text)
    parser.add_argument("file", metavar="FILE", help="a JSON file (one interface or a list), a directory of them, or -")
    add_store(parser)
    parser.option("--no-validate", action="store_true", help="store any JSON object that has a name")


def _add_names(parser: Parser) -> None:
    text = "interfaces, by name or by full key"
    parser.add_argument("names", nargs="+", metavar="NAME", completes="interface", help=text)
    add_store(parser)


def _add_del(parser: Parser) -> None:
    _add_names(parser)
    # Not an option(): what is deleted is not to depend on a VETHLIB_PREFIX.
    parser.add_argument("--prefix", action="store_true", help="delete all whose names begin with a NAME")
    parser.option("--missing-ok", action="store_true", help="what is not there is no error")


def _add_dump(parser: Parser) -> None:
    add_store(parser)
    # Nor this one: a backup is not to depend on a VETHLIB_TABLE.
    parser.add_argument("--table", action="store_true", help="print a line for each value, for people")


COMMANDS = {
    "put": Command(
        "store",
        f"put [KEY] FILE {STORE_USAGE} [--no-validate]",
        "store interfaces, for an agent to read: those of a file",
        _add_put,
        "examples:\n  vethctl put veth1 veth1.json --store dir:/etc/vethlib\n"
        f"  vethctl put /etc/vethlib --store etcd://etcd1:2379 --label vpp1\n{STORE_HELP}",
    ),
    "get": Command(
        "store",
        f"get NAME… {STORE_USAGE}",
        "print what is stored of interfaces",
        _add_names,
        f"example: vethctl get veth1 --store dir:/etc/vethlib\n{SEE_PUT}",
    ),
    "del": Command(
        "store",
        f"del NAME… {STORE_USAGE} [--prefix] [--missing-ok]",
        "delete interfaces from the store",
        _add_del,
        f"example: vethctl del veth1 veth2 --store dir:/etc/vethlib\n{SEE_PUT}",
        function="delete",
    ),
    "list": Command(
        "store",
        f"list {STORE_USAGE}",
        "list the interfaces of the store, and what is wrong with them",
        add_store,
        "exit codes: 0 all can be used, 1 some value is wrong (its last good one stays in force), 2 the store refused\n"
        f"example: vethctl list --store dir:/etc/vethlib\n{SEE_PUT}",
        function="table",
    ),
    "dump": Command(
        "store",
        f"dump {STORE_USAGE} [--table]",
        "print all that is stored, as put takes it",
        _add_dump,
        "exit codes: 0 all is in it, 1 some value is none that put would take, and is left out; 2 the store refused\n"
        f"example: vethctl dump --store dir:/etc/vethlib >backup.json\n{SEE_PUT}",
    ),
}
