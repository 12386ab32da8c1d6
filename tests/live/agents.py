"""Agents on a directory, in separate processes that tests can end in any way, and random fields for interfaces."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import traceback
from pathlib import Path
from typing import Any

from vethlib import Session
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.run.service import Service
from vethlib.agent.stores.files.directory import DirectoryStore

__all__ = ["LABEL", "run_agent", "some_fields", "started"]

LABEL = "agents"


def run_agent(store: Path, *, once: bool = False) -> None:
    """Run an agent in this process until it is told to stop."""
    directory = DirectoryStore(store, status_dir=store / "status")
    with Session() as session, Configurator(session, label=LABEL) as configurator:
        asyncio.run(Service(configurator, directory, once=once).run())
    directory.close()


def started(store: Path) -> int:
    """Start an agent in a separate process, which has already imported everything; return its pid."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the service listens to it
    pid = os.fork()
    if pid:
        signal.signal(signal.SIGHUP, before)
        return pid
    try:
        run_agent(store)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def some_fields(choose: random.Random) -> dict[str, Any]:
    """Fields of an interface that may be any, if they are given at all."""
    fields: dict[str, Any] = {}
    if choose.random() < 0.5:
        fields["mtu"] = choose.randrange(1300, 1500)
    if choose.random() < 0.3:
        fields["phys_address"] = f"02:00:00:{choose.randrange(256):02x}:{choose.randrange(256):02x}:01"
    if choose.random() < 0.5:
        fields["ip_addresses"] = [f"10.{choose.randrange(256)}.{choose.randrange(256)}.1/24"]
    return fields
