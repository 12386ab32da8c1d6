"""What several commands take."""

from __future__ import annotations

import os
from typing import Any

from ..parser import Parser, one_of

__all__ = [
    "COLORS",
    "SEE_PUT",
    "STORE_HELP",
    "STORE_USAGE",
    "add_common",
    "add_label",
    "add_missing_netns",
    "add_paths",
    "add_status_directory",
    "add_store",
]

COLORS = ("auto", "always", "never")
STORE_USAGE = "--store URL [--label LABEL]"
STORE_HELP = """\

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
SEE_PUT = "\nWhat else the URL of a store may say: vethctl put --help"


def add_common(parser: Parser) -> None:
    """What every command takes: --json and --color."""
    parser.option("--json", action="store_true", help="print JSON, errors too")
    parser.option(
        "--color",
        type=one_of(*COLORS),
        default="auto",
        metavar="auto|always|never",
        help="colour the output (default: auto, on a terminal)",
    )


def add_paths(parser: Parser) -> None:
    """Northbound files."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a JSON file, a directory of *.json, or - for stdin")


def add_label(parser: Parser, among: Any = None) -> None:
    """--label, whose default the original's variable may be, too. `among` are flags that it excludes."""
    label = os.environ.get("MICROSERVICE_LABEL", "vpp1")
    text = "whose pairs they are (default: %(default)s)"
    parser.option("--label", default=label, completes="label", help=text, among=among)


def add_missing_netns(parser: Parser) -> None:
    """--missing-netns."""
    parser.option(
        "--missing-netns",
        type=one_of("create", "wait"),
        default="create",
        metavar="create|wait",
        help="what to do for a named namespace that is not there (default: %(default)s)",
    )


def add_store(parser: Parser) -> None:
    """--store, and --label."""
    text = "where the configuration is: dir:PATH or etcd://HOST:PORT; may come from VETHLIB_STORE"
    parser.option("--store", metavar="URL", completes="store", help=text)
    add_label(parser)


def add_status_directory(parser: Parser) -> None:
    """--status-dir."""
    text = "where the agent writes its status (default: /run/vethlib/LABEL/status)"
    parser.option("--status-dir", metavar="DIR", default="", help=text)
