"""A file that a creator of a namespace left behind who was killed before the namespace was there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.configuring import NETNS_DIR, is_state, pair, put, settle, state_of, until
from tests.reasons import in_codes
from tests.witness import names
from vethlib import Session
from vethlib.agent import Configurator, State


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session, label="leftovers") as configurator:
        yield configurator


def leftover(name: str, *, age: float, text: str = "", mode: int = 0) -> Path:
    NETNS_DIR.mkdir(exist_ok=True)
    path = NETNS_DIR / name
    os.mknod(path, stat.S_IFREG | mode)
    if text:
        path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_it_is_replaced_by_the_namespace(configurator: Configurator) -> None:
    leftover("ns1", age=60)
    put(configurator, *pair("a", "b", "ns1"))
    settle(configurator)
    assert state_of(configurator, "a") == "CONFIGURED"
    assert names("ns1") == {"a"}


def test_one_that_may_be_becoming_a_namespace_is_given_its_time(configurator: Configurator) -> None:
    path = leftover("ns1", age=0)
    before = path.stat().st_ino
    put(configurator, *pair("a", "b", "ns1"))
    settle(configurator)
    assert state_of(configurator, "a") == "RETRYING: not-a-netns(netns:ns1)"
    assert path.stat().st_ino == before
    until(configurator, is_state(configurator, State.CONFIGURED, "a"))


# What is in it is known only to who would replace it; another mode shows at once that it is none of ours.
@pytest.mark.parametrize(("text", "mode", "state"), [("a text", 0, State.RETRYING), ("", 0o644, State.PENDING)])
def test_a_file_that_is_none_is_left_alone(configurator: Configurator, text: str, mode: int, state: State) -> None:
    path = leftover("ns1", age=60, text=text, mode=mode)
    put(configurator, *pair("a", "b", "ns1"))
    settle(configurator)
    (status,) = configurator.status("a")
    assert in_codes(status) == f"{state}: not-a-netns(netns:ns1)"
    assert path.read_text() == text
    path.unlink()
    until(configurator, is_state(configurator, State.CONFIGURED, "a"))
