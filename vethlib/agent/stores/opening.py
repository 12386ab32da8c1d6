"""From a URL to the store that it names. What etcd needs is imported only for an etcd."""

from __future__ import annotations

import os
from collections.abc import Callable

from vethlib.agent.instance import status_directory
from vethlib.errors import InvalidValue

from .directory import DirectoryStore
from .editing import DirectoryEditor
from .etcd.address import masked
from .memory import MemoryStore
from .protocol import Editor, Store
from .published import DirectoryStatuses, Published, Statuses

__all__ = ["is_etcd", "open_editor", "open_statuses", "open_store", "place", "read_all_statuses", "shown"]

_DIRECTORY, _ETCD = "dir:PATH (a directory of *.json files)", "etcd://HOST:PORT"


def open_store(url: str, *, label: str, status_dir: str | os.PathLike[str] | None = None) -> Store:
    """The store of ``dir:PATH``, ``etcd://…`` or ``memory:``, for the agent of a label.

    A directory's statuses go to `status_dir`; those of an etcd are written there, too.
    Raises InvalidValue for any other URL, StoreError, and VethError where a package is missing.
    """
    kind, rest = _split(url)
    if kind == "memory":
        return MemoryStore()
    if kind == "etcd":
        from .etcd.store import EtcdStore

        return EtcdStore(url, label, status_dir=status_dir)
    return DirectoryStore(rest, status_dir=status_dir)


def open_editor(url: str, *, label: str, progress: Callable[[str, int, int], object] | None = None) -> Editor:
    """The store of ``dir:PATH`` or ``etcd://…``, for an operator.

    `progress(what, done, total)` is called now and then where an edit takes long.
    Raises InvalidValue for any other URL, and VethError where a package is missing.
    """
    kind, rest = _split(url)
    if kind == "memory":
        raise InvalidValue("--store", url, f"that is within one process: give {_DIRECTORY} or {_ETCD}")
    if kind == "etcd":
        from .etcd.editor import EtcdEditor

        return EtcdEditor(url, label, progress=progress)
    return DirectoryEditor(rest)


def open_statuses(url: str, *, label: str, status_dir: str = "") -> Statuses:
    """What the agent of a label says, in the etcd of ``etcd://…``; else, and in `status_dir`, the one of this host.

    Raises InvalidValue for a URL of no known kind, and VethError where a package is missing.
    """
    if not status_dir and url and _split(url)[0] == "etcd":
        from .etcd.published import EtcdStatuses

        return EtcdStatuses(url, label)
    return DirectoryStatuses(status_dir or status_directory(label), label)


def read_all_statuses(url: str) -> dict[str, Published]:
    """What is said in the etcd of ``etcd://…``, by label. Raises as :func:`open_statuses`, and StoreError."""
    from .etcd.published import read_labels

    return read_labels(url)


def is_etcd(url: str) -> bool:
    """Whether a URL is that of an etcd, good or bad."""
    return url.startswith("etcd:")


def shown(url: str) -> str:
    """A URL as it can be shown: without the password."""
    return url if url.startswith(("dir:", "memory:")) else masked(url)


def place(url: str) -> str:
    """A URL as it means the same to whoever reads it: without the password, and a directory by its whole path."""
    kind, rest = _split(url)
    return f"dir:{os.path.abspath(rest)}" if kind == "dir" else shown(url)


def _split(url: str) -> tuple[str, str]:
    kind, _, rest = url.partition(":")
    if is_etcd(url) or (kind == "dir" and rest) or url == "memory:":
        return kind, rest
    if os.path.isdir(url):
        raise InvalidValue("--store", url, f"for this directory write dir:{url}")
    if kind in ("http", "https") and rest.startswith("//"):
        tls = "?tls=1" if kind == "https" else ""
        raise InvalidValue("--store", shown(url), f"for this etcd write {shown('etcd:' + rest.rstrip('/'))}{tls}")
    raise InvalidValue("--store", shown(url), f"give {_DIRECTORY} or {_ETCD}")
