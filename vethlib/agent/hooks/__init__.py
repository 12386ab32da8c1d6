"""Hooks: notify a command or a URL when the state of an interface changes.

    hooks = Hooks(["exec:/usr/local/bin/notify", "https://ops.example/hook"], label="vpp1", states=["FAILED"])
    configurator.subscribe(hooks.tell)
    ...
    hooks.close()

The pure parts `event.py`, `waiting.py` and `policy.py` decide on the events to deliver; `command.py` and `post.py`
deliver them, in the thread of `hooks.py`.
"""

from .event import Event, event_of
from .hooks import HookCounts, Hooks
from .target import CommandTarget, Target, UrlTarget, read_target

__all__ = ["CommandTarget", "Event", "HookCounts", "Hooks", "Target", "UrlTarget", "event_of", "read_target"]
