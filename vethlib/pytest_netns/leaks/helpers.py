"""The helper processes of multiprocessing, which a test starts in a node without knowing of them.

The first use of a start method other than "fork" starts them where the caller is, and later ones use them, too:

- The resource tracker runs until Python ends. It uses no network, and if it is killed, multiprocessing warns in another
  test that resources may leak. So it is left alone.
- The fork server forks the processes, which are then in its own namespace. If it is killed, the next use starts another
  one. So it ends with the node: otherwise, processes for other nodes would be in a namespace that has no links.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["fork_server", "resource_tracker"]

# The module, its instance of the helper, and the attribute with its process id: the same from Python 3.11 to 3.14.
_TRACKER: Final = ("multiprocessing.resource_tracker", "_resource_tracker", "_pid")
_SERVER: Final = ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid")


def resource_tracker() -> int | None:
    """Return the process id of the resource tracker; None if there is none."""
    return _pid(*_TRACKER)


def fork_server() -> int | None:
    """Return the process id of the fork server; None if there is none."""
    return _pid(*_SERVER)


def _pid(module: str, instance: str, attribute: str) -> int | None:
    pid = getattr(getattr(sys.modules.get(module), instance, None), attribute, None)
    return pid if isinstance(pid, int) else None
