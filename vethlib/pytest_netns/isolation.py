"""Putting the test process into namespaces of its own, before anything is collected.

Why before: a user namespace takes a process of one thread only (unshare(2), EINVAL), and what test modules do while
they are imported is not known. Why not always: in there is no network but loopback, and an ordinary user is user 0; a
project that merely has vethlib installed is to notice nothing. So with "auto" the files that are about to be
collected are searched for a fixture of the plugin first (search.py), and where in doubt it is not ours. After the
collection pytest itself knows who uses what: that is the time for what the search has missed, where there is still
a way, which there is for root always and for others while there is one thread.

Workers of pytest-xdist have threads from the start. So the process that starts them goes first, and they find
themselves in its user namespace, in which each may make a network and a mount namespace of its own.
"""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

from .. import ns
from ..errors import VethError
from .names import is_used
from .search import find_use

__all__ = ["ISOLATION", "Isolation", "arrange", "arrange_late", "tell_worker"]

_ALWAYS: Final = "--netns-isolate=always"
_NEEDS_USER_NAMESPACE: Final = f"an ordinary user needs a user namespace: {_ALWAYS}"
_UNUSED: Final = "no test uses it"
_IN_WORKER: Final = "netns_isolation"  # the key of what a worker of pytest-xdist is told


@dataclass(frozen=True, slots=True)
class Isolation:
    """Where the tests run. `namespaces` is "" on the host; `missing` says why no namespace can be made, if so."""

    namespaces: str
    because: str
    missing: str

    def __str__(self) -> str:
        where = f"isolated in {self.namespaces}" if self.namespaces else "not isolated"
        because = f" ({self.because})" if self.because else ""
        return where + because + (f", and no namespaces to be had: {self.missing}" if self.missing else "")


ISOLATION: Final = pytest.StashKey[Isolation]()

_done: Isolation | None = None
"""There is no way back, so a second run in the same process stays where the first one went."""


def arrange(config: pytest.Config, mode: str) -> Isolation:
    """Isolate the process as `mode` says: auto, always or never. UsageError if it is to be, and cannot."""
    if _done is not None:
        return _done
    because, missing = _told(config) or (_reason(config, mode), "")
    if missing:
        return Isolation("", because, missing)
    if not because:
        missing = "" if ns.is_privileged() else _NEEDS_USER_NAMESPACE
        return Isolation("", _UNUSED if mode == "auto" else "", missing)
    isolation = _isolate(because)
    if mode == "always" and isolation.missing:
        raise pytest.UsageError(f"{_ALWAYS}: {isolation.missing}")
    return isolation


def arrange_late(before: Isolation, items: Sequence[pytest.Item]) -> Isolation:
    """After the collection: isolate the process where a test uses the plugin though the search has not seen it.

    What was imported meanwhile may have started threads. Those stay outside, as root's may; nobody else can go then.
    """
    user = next((item for item in items if is_used(item)), None)
    if before.because != _UNUSED or user is None or (before.missing and _count_threads() > 1):
        return before
    return _isolate(f"{user.nodeid} uses it")


def _isolate(because: str) -> Isolation:
    global _done

    as_user = not ns.is_privileged()
    name = _user_name()
    threads = _count_threads()
    try:
        ns.isolate()
    except VethError as error:
        return Isolation("", because, _threads() if as_user and threads > 1 else str(error))
    if as_user:
        os.environ.setdefault("LOGNAME", name)
    kinds = "user, network and mount" if as_user else "network and mount"
    _done = Isolation(f"{kinds} namespaces", because, "")
    return _done


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _user_name() -> str:
    """Who runs this: getpass.getuser() would say root afterwards, whose temporary directory of pytest is another's."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.geteuid()}"


def _threads() -> str:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return (
        f"threads are running already ({', '.join(names) or 'none of Python’s'}), and a user namespace takes a process "
        "of one thread; begin in one: unshare --user --map-root-user --net --mount python -m pytest"
    )


def _reason(config: pytest.Config, mode: str) -> str:
    """Why this process is to be isolated, or ""."""
    return {"never": "", "always": _ALWAYS}[mode] if mode != "auto" else find_use(config)


def tell_worker(node: Any, isolation: Isolation) -> None:
    """Let a worker of pytest-xdist do what this process has done, without another search, and know why it cannot."""
    node.workerinput[_IN_WORKER] = (isolation.because, isolation.missing)


def _told(config: pytest.Config) -> tuple[str, str] | None:
    """What this process was told, if it is a worker: why to isolate, or why there is no way."""
    told: tuple[str, str] | None = getattr(config, "workerinput", {}).get(_IN_WORKER)
    if told is None:
        return None
    because, missing = told
    return ("", "") if because in ("", _UNUSED) else (because, missing)
