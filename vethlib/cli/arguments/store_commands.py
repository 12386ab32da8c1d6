"""put, get, del, list and dump: the configuration in a store."""

from __future__ import annotations

from .command import Command
from .parser import Parser
from .shared import LIMITS_USAGE, SEE_PUT, STORE_HELP, STORE_USAGE, add_limits, add_store

__all__ = ["COMMANDS"]

_USAGE = f"{STORE_USAGE} {LIMITS_USAGE}"


def _add_limited_store(parser: Parser) -> None:
    add_store(parser)
    add_limits(parser)


def _add_put(parser: Parser) -> None:
    text = "name or full key of the interface, if FILE has only one"
    parser.add_argument("key", nargs="?", metavar="KEY", completes="interface", help=text)
    parser.add_argument(
        "file", metavar="FILE", help="a JSON file with an interface or a list, a directory of such files, or -"
    )
    _add_limited_store(parser)
    parser.option("--no-validate", action="store_true", help="store any JSON object that has a name")


def _add_names(parser: Parser) -> None:
    text = "interfaces, by name or full key"
    parser.add_argument("names", nargs="+", metavar="NAME", completes="interface", help=text)
    _add_limited_store(parser)


def _add_del(parser: Parser) -> None:
    _add_names(parser)
    parser.option("--prefix", action="store_true", help="delete all interfaces whose names begin with NAME")
    parser.option("--missing-ok", action="store_true", help="ignore interfaces that are not stored")


def _add_dump(parser: Parser) -> None:
    _add_limited_store(parser)
    parser.option("--table", action="store_true", help="print one line per value, for people")


COMMANDS = {
    "put": Command(
        "desired.store",
        f"put [KEY] FILE {_USAGE} [--no-validate]",
        "store the interfaces of a file for an agent",
        _add_put,
        "examples:\n  vethctl put veth1 veth1.json --store dir:/etc/vethlib\n"
        f"  vethctl put /etc/vethlib --store etcd://etcd1:2379 --label vpp1\n{STORE_HELP}",
        alters=True,
    ),
    "get": Command(
        "desired.store",
        f"get NAME… {_USAGE}",
        "print the stored configuration of interfaces",
        _add_names,
        f"example: vethctl get veth1 --store dir:/etc/vethlib\n{SEE_PUT}",
    ),
    "del": Command(
        "desired.store",
        f"del NAME… {_USAGE} [--prefix] [--missing-ok]",
        "delete interfaces from the store",
        _add_del,
        f"example: vethctl del veth1 veth2 --store dir:/etc/vethlib\n{SEE_PUT}",
        function="delete",
        alters=True,
    ),
    "list": Command(
        "desired.store",
        f"list {_USAGE}",
        "list the interfaces in the store, and their problems",
        _add_limited_store,
        "An agent keeps the last valid value of an interface whose value is invalid.\n"
        "exit codes: 0 all values are valid, 1 a value is invalid, 2 refused by the store\n"
        f"example: vethctl list --store dir:/etc/vethlib\n{SEE_PUT}",
        function="table",
    ),
    "dump": Command(
        "desired.store",
        f"dump {_USAGE} [--table]",
        "print the whole configuration in the store as input for put",
        _add_dump,
        "exit codes: 0 complete and valid; 1 a value is invalid, or was left out: it is stored twice, repeats a\n"
        "key, contains an infinite number or NaN, or is not an interface; 2 refused by the store\n"
        f"example: vethctl dump --store dir:/etc/vethlib >backup.json\n{SEE_PUT}",
    ),
}
