"""Move the test process into its own namespaces, before anything is collected.

It happens before, because only a process with a single thread can create a user namespace (unshare(2), EINVAL), and
test modules may do anything while they are imported. It does not always happen, because the new namespace has no
network but the loopback, and an ordinary user becomes user 0; a project that merely has vethlib installed should notice
nothing. So with "auto", the files to be collected are first searched for fixtures of the plugin (search.py); in doubt,
a name is assumed to be another fixture. After the collection, pytest knows which fixtures are used. If the search has
missed a use, the process is isolated at that point, if that is still possible: for root it always is, for other users
only as long as there is a single thread.

Workers of pytest-xdist have several threads from the start. So the process that starts them is isolated first, and they
inherit its namespaces. They stay in its network namespace, because other plugins communicate with that process over the
loopback, and tests share servers that a worker has started there. Each worker has its own named namespaces. A worker
that needs its own network namespace, too, gets it when all plugins have been configured.
"""

from __future__ import annotations

import getpass
import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pytest

from vethlib import ns
from vethlib.errors import VethError
from vethlib.ns.idmap import missing_ids
from vethlib.pytest_netns.names import is_used

from .search import find_use

__all__ = ["ISOLATION", "Isolation", "arrange", "arrange_late", "arrange_worker", "tell_worker"]

_ALWAYS: Final = "--netns-isolate=always"
_NEEDS_USER_NAMESPACE: Final = f"an ordinary user needs a user namespace: {_ALWAYS}"
_UNUSED: Final = "no test uses it"
_SESSION: Final = "netns_session"  # the fixture for links in the namespace of the tests themselves
_IN_WORKER: Final = "netns_isolation"  # the key of a worker's input


@dataclass(frozen=True, slots=True)
class Isolation:
    """The isolation of the tests.

    `namespaces` describes the new namespaces, and is "" on the host; `missing` is the reason if none can be created.
    With `shares_links`, other processes use the same network namespace. `missing_ids` describes the users to which
    programs cannot change.
    """

    namespaces: str
    because: str
    missing: str
    shares_links: bool = False
    missing_ids: str = ""

    def __str__(self) -> str:
        where = f"isolated in {self.namespaces}" if self.namespaces else "not isolated"
        because = f" ({self.because})" if self.because else ""
        return where + because + (f", and no namespaces can be created: {self.missing}" if self.missing else "")


_SHARED: Final = pytest.StashKey[bool]()

ISOLATION: Final = pytest.StashKey[Isolation]()

_done: Isolation | None = None
"""The isolation of this process, which is permanent, so a second run in the same process keeps it."""


def arrange(config: pytest.Config, mode: str) -> Isolation:
    """Isolate the process according to `mode`: auto, always or never. Raises UsageError if "always" is impossible.

    A worker of pytest-xdist stays where it is until :func:`arrange_worker`.
    """
    if _done is not None:
        return _done
    given = _given(config)
    if given and (given.because or given.missing):
        return Isolation("", given.because, given.missing)
    because = "" if given else _reason(config, mode)
    if not because:
        missing = "" if ns.is_privileged() else _NEEDS_USER_NAMESPACE
        return Isolation("", _UNUSED if mode == "auto" else "", missing)
    isolation = _isolate(because)
    if mode == "always" and isolation.missing:
        raise pytest.UsageError(f"{_ALWAYS}: {isolation.missing}")
    return isolation


def arrange_worker(config: pytest.Config, before: Isolation) -> Isolation:
    """Isolate a worker of pytest-xdist further than the process that started it, once all plugins are configured.

    In any other process, return `before`.
    """
    given = _given(config)
    if given is None or _done is not None or given.missing or not given.because:
        return before
    return _isolate(given.because, in_shared_network=given.shares_network and given.home == _here())


def arrange_late(before: Isolation, items: Sequence[pytest.Item]) -> Isolation:
    """Isolate the process after the collection, if the search has missed a test that uses the plugin.

    Imported modules may have started threads. For root, these stay outside; for other users, they make isolation
    impossible.
    """
    user = next((item for item in items if is_used(item)), None)
    if before.because != _UNUSED or user is None or (before.missing and _count_threads() > 1):
        return before
    return _isolate(f"{user.nodeid} uses it")


def _isolate(because: str, *, in_shared_network: bool = False) -> Isolation:
    global _done

    as_user = not ns.is_privileged()
    name = _user_name()
    threads = _count_threads()
    try:
        if in_shared_network:
            ns.isolate_names()
        else:
            ns.isolate()
    except VethError as error:
        return Isolation("", because, _threads() if as_user and threads > 1 else str(error))
    if as_user:
        os.environ.setdefault("LOGNAME", name)
    kinds = "user, network and mount" if as_user else "network and mount"
    missing = missing_ids() if as_user else ""
    _done = Isolation(f"{kinds} namespaces", because, "", shares_links=in_shared_network, missing_ids=missing)
    return _done


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _user_name() -> str:
    """Return the user's name: after the isolation, it would be root, and pytest's temporary directory another one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.geteuid()}"


def _threads() -> str:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return (
        f"threads are running already ({', '.join(names) or 'none of Python’s'}), but only with one can a process "
        "enter a user namespace; start in one: unshare --user --map-root-user --net --mount python -m pytest"
    )


def _reason(config: pytest.Config, mode: str) -> str:
    """Return the reason for isolating this process, or ""."""
    return {"never": "", "always": _ALWAYS}[mode] if mode != "auto" else find_use(config)


class _Given(NamedTuple):
    """The input of a worker: why to isolate, or why that is impossible; whether to stay in the namespace `home`."""

    because: str
    missing: str
    shares_network: bool
    home: str


def tell_worker(node: Any, isolation: Isolation, workers: str) -> None:
    """Pass the result of this process to a worker of pytest-xdist, so that it does the same without another search.

    `workers` is the setting: auto, shared or own.
    """
    because = isolation.because if isolation.namespaces or isolation.missing else ""
    node.workerinput[_IN_WORKER] = tuple(_Given(because, isolation.missing, _share(node.config, workers), _here()))


def _share(config: pytest.Config, workers: str) -> bool:
    """Return whether the workers share a network namespace; the search for that is the same for all of them."""
    if workers != "auto":
        return workers == "shared"
    if _SHARED not in config.stash:
        config.stash[_SHARED] = not find_use(config, (_SESSION,))
    return config.stash[_SHARED]


def _given(config: pytest.Config) -> _Given | None:
    """Return the input of this process; None if it is not a worker."""
    given = getattr(config, "workerinput", {}).get(_IN_WORKER)
    if given is None:
        return None
    because, missing, *where = given
    return _Given(*(("", "") if because in ("", _UNUSED) else (because, missing)), *where)


def _here() -> str:
    """Return an id of this process's network namespace that is unique among all hosts."""
    seen = os.stat("/proc/thread-self/ns/net")
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
    except OSError:
        boot = platform.node()
    return f"{boot} {seen.st_dev}:{seen.st_ino}"
