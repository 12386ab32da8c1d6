"""Describe the programs of a node in words: their states, and notes on why one has failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from vethlib.ns.idmap import missing_ids
from vethlib.text import printable

from .status import exit_code

__all__ = ["describe_program", "note_failure", "note_session"]

_LONGEST: Final = 100  # characters of a command that are shown
_PATH: Final = re.compile(r"[\w./+-]+")
_OF_IDS: Final = re.compile(r"\b([ug]id|user|group|privileges?|chown|chgrp|set\w*[ug]id|\w+groups)\b", re.IGNORECASE)


def describe_program(process: subprocess.Popen[Any], *, arguments: bool = False) -> str:
    """Return the name of a program and its state: "dnsmasq ended with exit code 2"; on request, with its arguments."""
    name, code = _name(process, arguments=arguments), exit_code(process)
    if code is None:
        return f"{name} is running (pid {process.pid})"
    if code >= 0:
        return f"{name} ended with exit code {code}"
    try:
        return f"{name} was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"{name} was killed by signal {-code}"


def _name(process: subprocess.Popen[Any], *, arguments: bool) -> str:
    command = process.args
    words = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
    first, *rest = (os.fsdecode(word) for word in words)
    name = os.path.basename(first) if _PATH.fullmatch(first) else first  # a command for a shell is shown as given
    text = printable(" ".join([name, *(rest if arguments else ())]).strip())
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text


def note_failure(error: subprocess.SubprocessError | OSError, command: Sequence[str]) -> None:
    """Add notes that may explain the failure of a program to its error: its output, missing ids, a wrong `command`."""
    for stream in (getattr(error, "stdout", None), getattr(error, "stderr", None)):
        if stream:
            error.add_note(stream.rstrip() if isinstance(stream, str) else repr(stream))
    if _is_of_ids(error) and (missing := missing_ids()):
        error.add_note(missing)
    if isinstance(error, FileNotFoundError) and isinstance(command, str):
        error.add_note("a command must be a list of words, as in node.run(['ip', 'addr'])")


def note_session(error: subprocess.SubprocessError) -> None:
    """Add a note that may explain the failure of the `preexec_fn` of a program that leads a process group."""
    error.add_note("if preexec_fn calls os.setsid(), use start_new_session=True: the program leads a group already")


def _is_of_ids(error: BaseException) -> bool:
    """Return whether a program may have failed because it cannot change to another user or group."""
    stderr = getattr(error, "stderr", None) or b""
    return _OF_IDS.search(stderr if isinstance(stderr, str) else stderr.decode(errors="replace")) is not None
