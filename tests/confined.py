"""Make calls in a forked child that has only some capabilities, as setpriv would start it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from typing import Any

from tests.capabilities import keep_only
from vethlib import BatchError, End, IfIndexCache, NotPermitted, Session, Veth, ns
from vethlib.agent import Configurator, PacketPort, read_value
from vethlib.cli import main as vethctl
from vethlib.monitor import Monitor
from vethlib.topology import Topology

__all__ = ["confined"]

ENOUGH = 20.0  # seconds for interfaces to be configured

_NAMES: dict[str, Any] = {
    **{one.__name__: one for one in (Configurator, End, IfIndexCache, Monitor, PacketPort, Veth)},
    "ns": ns,
    "Topology": Topology,
}


def confined(capabilities: Iterable[str], code: str, interfaces: list[dict[str, Any]]) -> str:
    """Run a call with these capabilities ("net_admin") in the calling thread's namespace.

    Returns "" if the call succeeded, the names of the missing capabilities if it was refused (from the field of the
    exception, or from the text of vethctl and an agent), and otherwise the exception that was raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            keep_only(capabilities)
            said = _outcome(code, interfaces)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4096])
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def _outcome(code: str, interfaces: list[dict[str, Any]]) -> str:
    try:
        if code == "vethctl agent":
            return _agent(interfaces)
        if code.startswith("vethctl "):
            return _vethctl(code, interfaces)
        with Session() as session:
            exec(code, _NAMES | {"session": session})
    except NotPermitted as error:
        return _spelt([error.capability])
    except BatchError as error:
        if all(isinstance(one, NotPermitted) for one in error.exceptions):
            return _spelt(one.capability for one in error.exceptions if isinstance(one, NotPermitted))
        raise
    return ""


def _spelt(capabilities: Iterable[str]) -> str:
    return " ".join(name.removeprefix("CAP_").lower() for name in capabilities)


def _vethctl(code: str, interfaces: list[dict[str, Any]]) -> str:
    words = code.split()[1:]
    if words[0] == "apply":
        words.append("-")
        sys.stdin = io.TextIOWrapper(io.BytesIO(json.dumps(interfaces).encode()))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        result = vethctl(words)
    if result == 0:
        return ""
    return _spelt(_named(err.getvalue() + out.getvalue())) or f"exit {result}: {err.getvalue()}"


def _named(text: str) -> list[str]:
    return re.findall(r"CAP_[A-Z_]+", text)


def _agent(interfaces: list[dict[str, Any]]) -> str:
    """Keep interfaces until they are as configured and changes to them are noticed, or until a missing right shows."""
    wanted = [read.interface for read in map(read_value, interfaces) if read.interface is not None]
    with Session() as session, Configurator(session, label="confined", records="") as configurator:
        configurator.resync(wanted)
        deadline = time.monotonic() + ENOUGH
        while True:
            configurator.poll(0.05)
            statuses = configurator.status()
            if statuses and all(one.state == "CONFIGURED" and not one.warning for one in statuses):
                return ""
            if missing := _named(" ".join(one.reason + one.warning for one in statuses)):
                return _spelt(missing)
            if time.monotonic() > deadline:
                return "; ".join(f"{one.name} {one.state} {one.reason}" for one in statuses)
