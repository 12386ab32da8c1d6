"""Arguments that several commands share."""

from __future__ import annotations

import os
from typing import Any

from .parser import Parser, one_of

__all__ = [
    "COLORS",
    "LIMITS_USAGE",
    "SEE_PUT",
    "STORE_HELP",
    "STORE_USAGE",
    "add_common",
    "add_label",
    "add_limits",
    "add_loopback",
    "add_missing_netns",
    "add_paths",
    "add_status_directory",
    "add_store",
]

COLORS = ("auto", "always", "never")
STORE_USAGE = "--store URL [--label LABEL]"
LIMITS_USAGE = "[--limit NAME=VALUE]…"
STORE_HELP = """\

the URL of a store:
  dir:PATH             a directory of *.json files
  etcd://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT…][?OPTION[&OPTION…]]
                       an etcd, with one or more of its members; the key of an interface is
                       /vnf-agent/LABEL/linux/config/v1/interface/NAME
options of an etcd (cacert, cert, server-name and tls=1 turn TLS on):
  password-file=FILE   read the password of USER from FILE, so that it does not appear in the URL
  cacert=FILE          the CA of the server's certificate
  cert=FILE, key=FILE  the certificate of the client
  server-name=NAME     the name in the server's certificate, if it is not HOST
  tls=1                use TLS, with the CAs that this host trusts"""
SEE_PUT = "\nAll parts of the URL of a store: vethctl put --help"


def add_common(parser: Parser) -> None:
    """Add the flags of every command: --json and --color."""
    parser.option("--json", variable=True, action="store_true", help="print JSON, also for errors")
    parser.option(
        "--color",
        variable=True,
        type=one_of(*COLORS),
        default="auto",
        metavar="auto|always|never",
        help="colour the output (default: auto, on a terminal)",
    )


def add_paths(parser: Parser) -> None:
    """Add PATH…, northbound files."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a JSON file, a directory of *.json files, or - for stdin"
    )


def add_label(parser: Parser, among: Any = None) -> None:
    """Add --label, whose default may also come from MICROSERVICE_LABEL. `among` is a mutually exclusive group."""
    label = os.environ.get("MICROSERVICE_LABEL") or "vpp1"
    parser.fallbacks["MICROSERVICE_LABEL"] = "--label"
    text = "label of the owning agent (default: %(default)s)"
    parser.option("--label", variable=True, default=label, completes="label", help=text, among=among)


def add_limits(parser: Parser) -> None:
    """Add --limit."""
    text = "limit on input, such as queues=8 (repeatable; full list: docs/reference/limits.md)"
    parser.option("--limit", metavar="NAME=VALUE", action="append", default=[], help=text)
    parser.add_variable("--limit")  # read by applying/limits.py, which merges it with the flags


def add_missing_netns(parser: Parser) -> None:
    """Add --missing-netns."""
    parser.option(
        "--missing-netns",
        variable=True,
        type=one_of("create", "wait"),
        default="create",
        metavar="create|wait",
        help="create missing named namespaces, or wait for them (default: %(default)s)",
    )


def add_loopback(parser: Parser) -> None:
    """Add --loopback."""
    parser.option(
        "--loopback",
        variable=True,
        type=one_of("up", "down"),
        default="up",
        metavar="up|down",
        help="state of lo in named namespaces that are created (default: %(default)s)",
    )


def add_store(parser: Parser) -> None:
    """Add --store and --label."""
    text = "store of the configuration: dir:PATH or etcd://HOST:PORT (default: $VETHLIB_STORE)"
    parser.option("--store", variable=True, metavar="URL", completes="store", help=text)
    add_label(parser)


def add_status_directory(parser: Parser) -> None:
    """Add --status-dir."""
    text = "directory of the agent's status files (default: /run/vethlib/LABEL/status)"
    parser.option("--status-dir", variable=True, metavar="DIR", default="", help=text)
