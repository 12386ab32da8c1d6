"""Putting the test process into namespaces of its own, before anything is collected.

Why before: a user namespace takes a process of one thread only (unshare(2), EINVAL), and what test modules do while
they are imported is not known. Why not always: in there is no network but loopback, and an ordinary user is user 0; a
project that merely has vethlib installed is to notice nothing. So with "auto" the files that are about to be
collected are searched for a fixture of the plugin first.

Workers of pytest-xdist have threads from the start. So the process that starts them goes first, and they find
themselves in its user namespace, in which each may make a network and a mount namespace of its own.
"""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from .names import mention

__all__ = ["ISOLATION", "Isolation", "arrange", "tell_worker"]

_ALWAYS: Final = "--netns-isolate=always"
_LARGEST: Final = 4 << 20  # bytes of a source file that is searched
_CAP_SYS_ADMIN: Final = 21  # include/uapi/linux/capability.h


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
    global _done
    if _done is not None:
        return _done
    because = _reason(config, mode)
    if not because:
        missing = "" if _may_make_namespaces() else f"an ordinary user needs a user namespace: {_ALWAYS}"
        return Isolation("", "no test uses it" if mode == "auto" else "", missing)
    isolation = _isolate(because)
    if mode == "always" and isolation.missing:
        raise pytest.UsageError(f"{_ALWAYS}: {isolation.missing}")
    if isolation.namespaces:
        _done = isolation
    return isolation


def _isolate(because: str) -> Isolation:
    from .. import ns
    from ..errors import VethError

    as_user = not _may_make_namespaces()
    name = _user_name()
    threads = len(os.listdir("/proc/self/task"))
    try:
        ns.isolate()
    except VethError as error:
        return Isolation("", because, _threads() if as_user and threads > 1 else str(error))
    if not as_user:
        return Isolation("network and mount namespaces", because, "")
    os.environ.setdefault("LOGNAME", name)
    return Isolation("user, network and mount namespaces", because, "")


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


def _may_make_namespaces() -> bool:
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)


def _reason(config: pytest.Config, mode: str) -> str:
    """Why this process is to be isolated, or ""."""
    if mode == "never":
        return ""
    if mode == "always":
        return _ALWAYS
    if (told := getattr(config, "workerinput", {}).get("netns_because")) is not None:
        return str(told)
    for path in _to_collect(config):
        try:
            source = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
        except OSError:
            continue
        if name := mention(source):
            return f"{_relative(path, config)} uses {name}"
    return ""


def tell_worker(node: Any, isolation: Isolation) -> None:
    """Let a worker of pytest-xdist do what this process has done, without another search."""
    node.workerinput["netns_because"] = isolation.because if isolation.namespaces else ""


def _relative(path: Path, config: pytest.Config) -> str:
    return str(path.relative_to(config.rootpath)) if path.is_relative_to(config.rootpath) else str(path)


def _to_collect(config: pytest.Config) -> Iterator[Path]:
    """The Python files that will be collected, and the conftest.py that they have."""
    patterns = [*config.getini("python_files"), "conftest.py"]
    skipped = config.getini("norecursedirs")
    seen: set[Path] = set()
    for argument in config.args:
        path = config.invocation_params.dir / str(argument).partition("::")[0]
        for above in path.resolve().parents:
            if above.is_relative_to(config.rootpath) and (conftest := above / "conftest.py") not in seen:
                seen.add(conftest)
                yield conftest
        if path.is_file():
            yield path
        else:
            yield from _below(path, patterns, skipped)


def _below(root: Path, patterns: list[str], skipped: list[str]) -> Iterator[Path]:
    for directory, directories, files in os.walk(root):
        directories[:] = sorted(
            name
            for name in directories
            if not any(fnmatch(name, pattern) for pattern in skipped)
            and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
        )
        for name in sorted(files):
            if any(fnmatch(name, pattern) for pattern in patterns):
                yield Path(directory, name)
