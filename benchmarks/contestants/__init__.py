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


def _pyroute2() -> list[str]:
    if find_spec("pyroute2") is None:
        raise Unavailable("the package pyroute2 is not installed: pip install pyroute2")
    return _module("pyroute2")


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
        Contestant("vethlib", "this project, through its public API", lambda: _module("vethlib")),
        Contestant("vishvananda", "Go, github.com/vishvananda/netlink", built.vishvananda),
        Contestant("pyroute2", "Python, pyroute2.IPRoute", _pyroute2),
        Contestant("munet", "Python, munet.base.BaseMunet", _munet),
        Contestant("ip", "the ip program with -batch", _ip),
    )
}
