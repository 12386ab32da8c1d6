"""Run modules of this package that need only the standard library as scripts of another Python.

A script is given by its file, or, in a zip file or any other archive, by its source (``python -c``).
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from vethlib._primitives import pidfd_open
from vethlib.errors import NotSupported, errno_text
from vethlib.ns.descriptor import Descriptor, owned
from vethlib.ns.programs.starttime import NO_PIDFDS

__all__ = ["interpreter", "own_pidfd", "script"]


def interpreter() -> str:
    """Return the Python that runs this program. Raises NotSupported if there is none, as in a frozen program."""
    problem = ""
    if getattr(sys, "frozen", False):
        problem = "this program is frozen"  # sys.executable is the program itself, which would be started once more
    elif not sys.executable:
        problem = "sys.executable is empty"
    elif not os.path.isfile(sys.executable):
        problem = f"sys.executable is {sys.executable!r}, which does not exist"
    if problem:
        raise NotSupported(f"programs in nodes, relays and kept nodes need a Python interpreter: {problem}")
    return sys.executable


def script(module: ModuleType) -> list[str]:
    """Return the command that runs `module` as a script. Raises NotSupported if that is not possible."""
    command = [interpreter(), "-I", "-S"]
    file = module.__file__ or ""
    if os.path.isfile(file):
        return [*command, file]
    loader = module.__spec__.loader if module.__spec__ is not None else None
    source = getattr(loader, "get_source", lambda _: None)(module.__name__)
    if source is None:
        raise NotSupported(f"the source of {module.__name__} is missing: {file or 'it has no file'}")
    return [*command, "-c", source]


def own_pidfd() -> Descriptor:
    """Return a pidfd of this process. Raises NotSupported, which names the call, if there are none; and OSError."""
    try:
        return owned(pidfd_open, os.getpid())
    except OSError as error:
        if error.errno not in NO_PIDFDS:
            raise
        cause = errno_text(error.errno)
        message = f"pidfd_open: {cause}: it needs Linux 5.3, and a sandbox (seccomp) that permits it"
        raise NotSupported(message, errno=error.errno, request="pidfd_open") from None
