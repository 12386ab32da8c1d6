"""The contestants, each with the command that runs it and a check of its requirements."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from . import built
from .unavailable import Unavailable

__all__ = ["CONTESTANTS", "Contestant", "Unavailable"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that does the work. `command()` raises Unavailable if it cannot run here."""

    name: str
    what: str
    command: Callable[[], list[str]]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"{__name__}.{name}"]


def _with(lever: str, command: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """Return the command with a lever that makes the kernel do less; only those that pull the same one are compared."""
    return lambda: [*command(), f"+{lever}"]


def _pyroute2() -> list[str]:
    if find_spec("pyroute2") is None:
        raise Unavailable("the package pyroute2 is not installed: pip install pyroute2")
    return _module("pyroute2")


def _vethlib() -> list[str]:
    return _module("vethlib")


def _munet() -> list[str]:
    built.munet()
    return _module("munet")


def _ip() -> list[str]:
    if shutil.which("ip") is None:
        raise Unavailable("`ip` is not installed: apt-get install iproute2")
    return _module("ip")


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("limit", "C, with messages encoded in advance: the cost of the kernel itself", built.limit),
        Contestant("vethlib", "this project, through its public API", _vethlib),
        Contestant("limit-no-ipv6", "limit, with home's ends without IPv6", _with("no-ipv6", built.limit)),
        Contestant(
            "vethlib-no-ipv6", "vethlib, with End(ipv6=False) in the home namespace", _with("no-ipv6", _vethlib)
        ),
        Contestant(
            "limit-together", "limit, with pairs made in the group that is deleted", _with("together", built.limit)
        ),
        Contestant("vethlib-together", "vethlib, with create_many(together=True)", _with("together", _vethlib)),
        Contestant("vishvananda", "Go, github.com/vishvananda/netlink", built.vishvananda),
        Contestant("vishvananda-given", "the same, with the library in VETHLIB_BENCH_GOPATH", built.vishvananda_given),
        Contestant("pyroute2", "Python, pyroute2.IPRoute", _pyroute2),
        Contestant("munet", "Python, munet.base.BaseMunet", _munet),
        Contestant("ip", "the ip program with -batch", _ip),
    )
}
