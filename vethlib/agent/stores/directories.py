"""The path and the identity of a directory, and the names of its files: for configuration and for statuses."""

from __future__ import annotations

import os
from functools import partial

from vethlib.agent.config.files import is_configuration
from vethlib.errors import InvalidValue
from vethlib.ns.files.glance import NoAnswer
from vethlib.ns.opening import asked

__all__ = ["Identity", "absolute", "check_answer", "file_names", "identity", "why"]

Identity = tuple[int, int]
"""The identity of a directory, whatever its path: st_dev and st_ino."""


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the path from the root directory on. ".." stays: after a link, only the kernel can resolve it.

    Raises InvalidValue for a relative path if the working directory has been deleted.
    """
    path = os.fspath(path)
    if path.startswith("/"):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        raise InvalidValue("path", path, "must be absolute: the working directory has been deleted") from None


def check_answer(path: str) -> None:
    """Raise NoAnswer, an OSError, if the file system at a path does not answer: using it would block this thread."""
    try:
        asked(path, partial(os.stat, path))
    except NoAnswer as error:
        error.filename = path
        raise
    except OSError:
        pass  # it is missing, for example


def identity(directory: int) -> Identity:
    """Return the identity of an open directory."""
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def file_names(directory: int) -> list[str]:
    """Return the sorted names of the configuration files in a directory."""
    return sorted(name for name in os.listdir(directory) if is_configuration(name))


def why(error: OSError) -> str:
    """Return the system's text for an error."""
    return error.strerror or str(error)
