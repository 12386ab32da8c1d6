"""Open the store that a URL names. grpc and protobuf are imported only for an etcd."""

from __future__ import annotations

import os

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.progress import ProgressCallback
from vethlib.errors import InvalidValue

from .directories import absolute
from .etcd.address import masked
from .files.directory import DirectoryStore
from .files.editing import DirectoryEditor
from .memory import MemoryStore
from .protocol import Editor, Store, StoreError
from .published import DirectoryStatuses, Published, Statuses

__all__ = ["is_etcd", "open_editor", "open_statuses", "open_store", "place", "read_all_statuses", "shown"]

_DIRECTORY, _ETCD = "dir:PATH (a directory of *.json files)", "etcd://HOST:PORT"


def open_store(
    url: str, *, label: str, status_dir: str | os.PathLike[str] | None = None, limits: Limits = DEFAULT
) -> Store:
    """Open the store of ``dir:PATH``, ``etcd://…`` or ``memory:``, for the agent of a label.

    Statuses are written to `status_dir`, and for an etcd also to the etcd. Values that exceed the `limits` are refused
    one by one. Raises InvalidValue for any other URL, StoreError, and VethError if a package is missing.
    """
    kind, rest = _split(url)
    if kind == "memory":
        return MemoryStore()
    if kind == "etcd":
        from .etcd.store import EtcdStore

        return EtcdStore(url, label, status_dir=status_dir, limits=limits)
    return DirectoryStore(rest, status_dir=status_dir, limits=limits)


def open_editor(
    url: str,
    *,
    label: str,
    progress: ProgressCallback | None = None,
    limits: Limits = DEFAULT,
) -> Editor:
    """Open the store of ``dir:PATH`` or ``etcd://…``, for an operator.

    `progress(what, done, total)` is called from time to time during a long edit, and while many files are read. Values
    that exceed the `limits`, which should be those of the agent, are invalid.
    Raises InvalidValue for any other URL, and VethError if a package is missing.
    """
    kind, rest = _split(url)
    if kind == "memory":
        raise InvalidValue("--store", url, f"must be {_DIRECTORY} or {_ETCD}: a store in memory belongs to one process")
    if kind == "etcd":
        from .etcd.editor import EtcdEditor

        return EtcdEditor(url, label, progress=progress, limits=limits)
    return DirectoryEditor(rest, limits=limits, progress=progress)


def open_statuses(url: str, *, label: str, status_dir: str = "", progress: ProgressCallback | None = None) -> Statuses:
    """Open the statuses of the agent of a label: in the etcd of ``etcd://…``, or else on this host.

    On this host they are in `status_dir`, by default in the label's directory below /run/vethlib, and
    `progress("read", done, total)` is called from time to time while many of them are read.
    Raises InvalidValue for any other URL, and VethError if a package is missing.
    """
    if not status_dir and url and _split(url)[0] == "etcd":
        from .etcd.published import EtcdStatuses

        return EtcdStatuses(url, label)
    return DirectoryStatuses(status_dir or status_directory(label), label, progress)


def read_all_statuses(url: str) -> dict[str, Published | StoreError]:
    """Return all statuses in the etcd of ``etcd://…``, by label, or the error if those of a label cannot be read.

    Raises like :func:`open_statuses`, and StoreError.
    """
    from .etcd.published import read_labels

    return read_labels(url)


def is_etcd(url: str) -> bool:
    """Return whether a URL is that of an etcd, valid or not."""
    return url.startswith("etcd:")


def shown(url: str) -> str:
    """Return a URL without its password."""
    return url if url.startswith(("dir:", "memory:")) else masked(url)


def place(url: str) -> str:
    """Return a URL without its password, and with the absolute path of a directory, for readers elsewhere."""
    kind, rest = _split(url)
    return f"dir:{os.path.normpath(absolute(rest))}" if kind == "dir" else shown(url)


def _split(url: str) -> tuple[str, str]:
    kind, _, rest = url.partition(":")
    if is_etcd(url) or (kind == "dir" and rest) or url == "memory:":
        return kind, rest
    if os.path.isdir(url):
        raise InvalidValue("--store", url, f"write dir:{url} for this directory")
    if kind in ("http", "https") and rest.startswith("//"):
        tls = "?tls=1" if kind == "https" else ""
        raise InvalidValue("--store", shown(url), f"write {shown('etcd:' + rest.rstrip('/'))}{tls} for this etcd")
    raise InvalidValue("--store", shown(url), f"must be {_DIRECTORY} or {_ETCD}")
