"""``python -m benchmarks.fleet.timed FILE agent …``: vethctl, which tells at its end how long it was at what."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_seconds: dict[str, float] = {}


def _time(owner: Any, name: str, phase: str) -> None:
    """Count the seconds within a function to a phase; only its outermost call."""
    function = getattr(owner, name)
    depth = 0

    @functools.wraps(function)
    def timed(*args: Any, **how: Any) -> Any:
        nonlocal depth
        depth += 1
        begin = time.monotonic()
        try:
            return function(*args, **how)
        finally:
            depth -= 1
            if depth == 0:
                _seconds[phase] = _seconds.get(phase, 0.0) + time.monotonic() - begin

    setattr(owner, name, timed)


def main() -> int:
    """Run it."""
    begun = float(os.environ["VETHLIB_BEGIN"])
    import vethlib.agent.execute as execution
    from vethlib.agent import work
    from vethlib.agent.configurator import Configurator
    from vethlib.agent.sight import Sight
    from vethlib.agent.stores.etcd import store as _store  # so that its import counts to the interpreter's
    from vethlib.agent.stores.etcd.connection import Connection
    from vethlib.agent.stores.etcd.mirror import Mirror
    from vethlib.agent.stores.etcd.publishing import Publisher
    from vethlib.cli import main as vethctl

    del _store
    for owner, name, phase in (
        (Connection, "read", "fetch keys"),
        (Mirror, "replace", "read values"),
        (Configurator, "resync", "take them over"),
        (Sight, "look_everywhere", "first look"),
        (work, "plan", "plan"),
        (execution, "_add_netns", "make namespaces"),
        (execution, "_create", "create pairs"),
        (work.Work, "_watch", "watch"),
        (Sight, "look", "second look"),
        (Publisher, "_work", "write status (a thread beside)"),
    ):
        _time(owner, name, phase)
    _seconds["interpreter and imports"] = time.monotonic() - begun
    code = vethctl(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(_seconds))
    return code


if __name__ == "__main__":
    sys.exit(main())
