"""An agent that is killed at any moment leaves nothing behind that its successor does not repair."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.agents import run_agent, some_fields, started
from tests.live.convergence import assert_converges
from tests.witness import host_state, ip
from vethlib import End, Session, Veth, ns

pytestmark = pytest.mark.slow

KILLS = 220
PAIRS = 50
NAMESPACES = [f"n{number}" for number in range(8)]


def some_value(choose: random.Random, name: str, peer: str, netns: str) -> dict[str, Any]:
    value: dict[str, Any] = {"name": name, "enabled": choose.random() < 0.9, "veth": {"peer_if_name": peer}}
    if netns:
        value["namespace"] = {"type": 2, "name": netns}
    return value | some_fields(choose)


def churn(choose: random.Random, store: Path, values: dict[str, dict[str, Any]], netns: list[str]) -> None:
    """Put or delete a few interfaces, each at once as `vethctl put` does."""
    for _ in range(choose.randrange(1, 12)):
        number, side = choose.randrange(PAIRS), choose.randrange(2)
        names = f"v{number}a", f"v{number}b"
        name, peer = names[side], names[1 - side]
        path = store / f"{name}.json"
        if choose.random() < 0.15:
            values.pop(name, None)
            path.unlink(missing_ok=True)
            continue
        where = choose.choice(netns) if side or choose.random() < 0.5 else ""
        values[name] = some_value(choose, name, peer, where)
        (store / ".new").write_text(json.dumps(values[name]))
        (store / ".new").rename(path)


def test_what_an_agent_leaves_that_is_killed_at_any_moment_is_put_right(
    session: Session, make_netns: Callable[..., None], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    make_netns(*NAMESPACES)
    session.create(Veth(End("v0a-foreign"), End("v1a", "n0")))  # a name that one of ours may want, in the way
    ip("link", "add", "v2b", "type", "bridge", netns="n1")
    foreign = [("", "v0a-foreign"), ("n0", "v1a")]
    before = host_state()
    values: dict[str, dict[str, Any]] = {}
    for number in range(PAIRS):
        values[f"v{number}a"] = some_value(choose, f"v{number}a", f"v{number}b", "")
        values[f"v{number}b"] = some_value(choose, f"v{number}b", f"v{number}a", choose.choice(NAMESPACES))
    for name, value in values.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))

    for _ in range(KILLS):
        pid = started(tmp_path)
        ends = time.monotonic() + choose.choice([0.01, 0.03, 0.1]) * choose.random() ** 0.5 + 0.002
        while time.monotonic() < ends:
            if choose.random() < 0.2:
                churn(choose, tmp_path, values, NAMESPACES)
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the agent ended by itself"

    # What is left to be wanted is at home and in three namespaces; in the others there is still something, mostly.
    for name, value in values.items():
        if value.get("namespace", {}).get("name") not in (None, "n2", "n3", "n4"):
            value["namespace"]["name"] = choose.choice(["n2", "n3", "n4"])
            (tmp_path / f"{name}.json").write_text(json.dumps(value))
    run_agent(tmp_path, once=True)
    assert_converges(values.values(), foreign, timeout=0)

    # And nothing was done to what is not ours.
    for path in tmp_path.glob("*.json"):
        path.unlink()
    run_agent(tmp_path, once=True)
    assert host_state() == before
    assert ns.names() == sorted(NAMESPACES)
