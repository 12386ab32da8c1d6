"""Hooks: those outside who are told when the state of an interface changes, by a command or a URL.

    hooks = Hooks(["exec:/usr/local/bin/notify", "https://ops.example/hook"], label="vpp1", states=["FAILED"])
    configurator.subscribe(hooks.tell)
    ...
    hooks.close()

What is told to whom is decided by pure parts (`event.py`, `waiting.py`, `policy.py`); `command.py` and `post.py` tell
it; `hooks.py` has the thread in which they do.
"""

from .event import Event, event_of
from .hooks import HookCounts, Hooks
from .target import CommandTarget, Target, UrlTarget, read_target

__all__ = ["CommandTarget", "Event", "HookCounts", "Hooks", "Target", "UrlTarget", "event_of", "read_target"]
