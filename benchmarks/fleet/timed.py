"""``python -m benchmarks.fleet.timed FILE agent …``: vethctl, which writes the durations of its phases at its end."""

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
    """Add the seconds of a function's outermost calls to a phase."""
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
    import vethlib.agent.host.execution as execution
    from vethlib.agent.reconcile.configurator import Configurator
    from vethlib.agent.reconcile.observer import HostObserver
    from vethlib.agent.reconcile.passes import reconcilepass
    from vethlib.agent.stores.etcd import store as _store  # so that its import counts as an import
    from vethlib.agent.stores.etcd.connection import Connection
    from vethlib.agent.stores.etcd.mirror import Mirror
    from vethlib.agent.stores.etcd.publishing import Publisher
    from vethlib.cli import main as vethctl

    del _store
    for owner, name, phase in (
        (Connection, "read", "fetch keys"),
        (Mirror, "replace", "read values"),
        (Configurator, "resync", "take them over"),
        (HostObserver, "look_everywhere", "first look"),
        (reconcilepass, "plan", "plan"),
        (execution, "add_netns", "make namespaces"),
        (execution, "_create", "create pairs"),
        (reconcilepass.ReconcilePass, "_watch", "watch"),
        (HostObserver, "look", "second look"),
        (Publisher, "_work", "write status (a thread beside)"),
    ):
        _time(owner, name, phase)
    _seconds["interpreter and imports"] = time.monotonic() - begun
    code = vethctl(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(_seconds))
    return code


if __name__ == "__main__":
    sys.exit(main())
