"""However an embedded agent ends, its program gets its signals back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.witness import open_fds
from vethlib import Session, SessionClosed
from vethlib.agent.process.answering import Answering
from vethlib.agent.process.instance import Instance
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.run.service import Service
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.memory import MemoryStore

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def refuse(*_: object) -> None:
    raise OSError("refused")


def close_configurator(service: Any, _patches: pytest.MonkeyPatch) -> None:
    service._configurator.close()
    service.stop()


def close_store(service: Any, _patches: pytest.MonkeyPatch) -> None:
    service._store.close()
    service.stop()


def close_claim(service: Any, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(Answering, "close", refuse)
    service.stop()


def refuse_file(service: Any, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(AgentFile, "ended", refuse)
    service.stop()


def cancel(_service: Any, _patches: pytest.MonkeyPatch) -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def fail(service: Any, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(service, "_step", refuse)
    service._news.set()


@pytest.mark.parametrize("end", [close_configurator, close_store, close_claim, refuse_file, cancel, fail])
def test_the_signals_are_those_of_the_program_again(
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Service, pytest.MonkeyPatch], object],
) -> None:
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in NUMBERS}
    fds = open_fds()
    instance = Instance("vethlib-test")
    store = MemoryStore()
    try:
        with Configurator(session, label="vethlib-test") as configurator:
            file = AgentFile(str(tmp_path / "status"), "memory", label="vethlib-test")
            service = Service(configurator, store, instance=instance, agent_file=file)

            async def run() -> None:
                asyncio.get_running_loop().call_later(0.05, end, service, monkeypatch)
                await service.run()

            with suppress(OSError, asyncio.CancelledError, SessionClosed):
                asyncio.run(run())
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        assert received == list(NUMBERS)
        assert signal.set_wakeup_fd(-1) == -1
        report = read_report(str(tmp_path / "status"))
        assert report is not None
        assert report.ready is False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        monkeypatch.undo()
        instance.close()
        store.close()
    assert open_fds() == fds
