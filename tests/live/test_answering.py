"""An agent answers its callers, even after the kernel could not listen for them."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from contextlib import closing
from typing import Any

import pytest

from tests.witness import poll
from vethlib.agent.process import answering
from vethlib.agent.process.answering import Answering
from vethlib.agent.process.claim import call
from vethlib.agent.process.instance import Instance

LABEL = "answers"

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC])
def test_an_agent_whose_callers_cannot_be_watched_tries_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(answering, "_PAUSE", 0.01)
    with closing(asyncio.new_event_loop()) as loop, closing(Instance(LABEL)) as instance:
        refusals = [OSError(number, ""), OSError(number, "")]
        add_reader = loop.add_reader

        def add(*arguments: Any) -> None:
            if refusals:
                raise refusals.pop()
            add_reader(*arguments)

        monkeypatch.setattr(loop, "add_reader", add)
        with closing(Answering(loop, instance, lambda line, trusted: line)):
            calling, _ = call("agent", LABEL, socket.SOCK_STREAM)
            assert calling is not None
            with calling:
                calling.sendall(b"here\n")

                def is_answered() -> bool:
                    loop.run_until_complete(asyncio.sleep(0.01))
                    return bool(select.select([calling], [], [], 0)[0])

                assert poll(is_answered)
                assert calling.recv(100) == b"here\n"
