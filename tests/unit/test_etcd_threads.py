"""A store in etcd has two threads; if one of them cannot be started, nothing of the store is left."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from tests.witness import open_fds, poll
from vethlib._threads import ThreadRefused
from vethlib.agent.stores.etcd.store import EtcdStore


@pytest.mark.parametrize("refused", [0, 1])
def test_a_store_whose_threads_are_refused_leaves_nothing(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    start, number = threading.Thread.start, count()

    def starting(thread: threading.Thread) -> None:
        if next(number) == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    fds, before = open_fds(), set(threading.enumerate())
    monkeypatch.setattr(threading.Thread, "start", starting)
    with pytest.raises(ThreadRefused):
        EtcdStore("etcd://127.0.0.1:1", "test")
    assert open_fds() == fds
    assert poll(lambda: set(threading.enumerate()) <= before)
