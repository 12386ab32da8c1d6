"""From a URL to the store that it names."""

from __future__ import annotations

import os

from vethlib.errors import InvalidValue

from .directory import DirectoryStore
from .editing import DirectoryEditor
from .memory import MemoryStore
from .protocol import Editor, Store

__all__ = ["open_editor", "open_store"]

_KINDS = "dir:PATH, a directory of *.json files"


def open_store(url: str, *, status_dir: str | os.PathLike[str] | None = None) -> Store:
    """The store of ``dir:PATH`` or ``memory:``, for an agent; a directory's statuses go to `status_dir`.

    Raises InvalidValue for any other URL, and StoreError.
    """
    kind, rest = _split(url)
    if kind == "memory":
        return MemoryStore()
    return DirectoryStore(rest, status_dir=status_dir)


def open_editor(url: str) -> Editor:
    """The store of ``dir:PATH``, for an operator. Raises InvalidValue for any other URL."""
    kind, rest = _split(url)
    if kind == "memory":
        raise InvalidValue("--store", url, f"that is within one process: give {_KINDS}")
    return DirectoryEditor(rest)


def _split(url: str) -> tuple[str, str]:
    kind, colon, rest = url.partition(":")
    if kind == "etcd" and colon:
        raise InvalidValue("--store", url, "etcd is not supported yet: give dir:PATH")
    if (kind == "dir" and rest) or url == "memory:":
        return kind, rest
    if os.path.isdir(url):
        raise InvalidValue("--store", url, f"for this directory write dir:{url}")
    raise InvalidValue("--store", url, f"give {_KINDS}, or memory:")
