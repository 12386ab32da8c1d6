"""Start a program from the calling thread, whose namespaces it inherits, and wait for it.

If the exit status of a program cannot be known, :mod:`subprocess` reports that it has succeeded; nothing here may do
that. The kernel discards the statuses of children if SIGCHLD is ignored, and another part of this process may wait for
every child. In either case, waitpid(2) returns ECHILD.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from vethlib._primitives import posix, real_subprocess
from vethlib.errors import NotSupported

if TYPE_CHECKING:
    from .errand import Stays

    _Popen = subprocess.Popen[Any]
    Begin: TypeAlias = Callable[[Mapping[str, Any], Stays, Callable[[subprocess.Popen[Any]], object]], object]
else:
    _Popen = object

__all__ = ["completed", "popen", "program_type", "words"]

UNKNOWN: Final = 255
"""The exit status of a program whose own cannot be known; asyncio reports the same."""

_INHERITED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
)

_MANY_THREADS = ".*multi-threaded, use of fork"


def words(command: Iterable[str]) -> Sequence[str]:
    """Return a command as its list of words, also from an iterator, which can be read only once."""
    return command if isinstance(command, (str, bytes, os.PathLike)) else list(command)


def popen(command: Sequence[str], options: Mapping[str, Any]) -> subprocess.Popen[Any]:
    """Start a program like ``subprocess.Popen``, with the default action of every signal."""
    popen = program_type()
    ignored = _ignored() if options.get("restore_signals", True) else []
    if ignored:
        options = {**options, "preexec_fn": _before_exec(ignored, options.get("preexec_fn"))}
    if options.get("preexec_fn") is None:
        return popen(command, **options)
    with warnings.catch_warnings():
        # Since 3.12, Python warns about every fork in a process with several threads, such as this one.
        warnings.filterwarnings("ignore", _MANY_THREADS, DeprecationWarning)
        return popen(command, **options)


def program_type() -> type[subprocess.Popen[Any]]:
    """Return the Popen of :func:`~vethlib._primitives.real_subprocess`, but with `UNKNOWN` for an unknown status."""
    return _with_unknown(real_subprocess().Popen)


@cache
def _with_unknown(popen: type[subprocess.Popen[Any]]) -> type[subprocess.Popen[Any]]:
    return type("Popen", (_WithUnknown, popen), {})


class _WithUnknown(_Popen):
    """A Popen that returns `UNKNOWN` when waitpid(2) fails with ECHILD, where subprocess.Popen returns 0."""

    def poll(self) -> int | None:
        status: int | None = self._internal_poll(UNKNOWN)  # type: ignore[attr-defined]  # as Popen.__del__ does
        return status

    def _try_wait(self, flags: int) -> tuple[int, int]:
        try:
            return posix.waitpid(self.pid, flags)
        except ChildProcessError:
            return self.pid, UNKNOWN << 8  # as wait(2) encodes it


def _check_statuses_are_kept() -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = (
            "this process ignores SIGCHLD, so the kernel discards the exit statuses of programs: call "
            "signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
        )
        raise NotSupported(message, errno=errno.ECHILD)


def _ignored() -> list[signal.Signals]:
    """Return the signals that a program would ignore only because this process ignores them.

    This process may have inherited that: SIGHUP under nohup, SIGINT in the background of a script. `subprocess` resets
    the signals that Python itself ignores.
    """
    return [number for number in _INHERITED if signal.getsignal(number) is signal.SIG_IGN]


def _before_exec(ignored: Iterable[signal.Signals], then: Callable[[], object] | None) -> Callable[[], object]:
    def restore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)
        if then is not None:
            then()

    return restore


def completed(
    begin: Begin,
    options: dict[str, Any],
    ended: Callable[[subprocess.Popen[Any]], object] | None = None,
) -> subprocess.CompletedProcess[Any]:
    """Do the same as ``subprocess.run``, whose own Popen would start the program in the caller's namespace.

    `begin` starts the program in a thread that stays until the program has ended, as the caller of ``subprocess.run``
    does, and calls its last argument with the program before an interruption is possible. `ended` is called with it
    when it has been waited for, unless that is interrupted. Raises NotSupported, before the program is started, if its
    exit status would be discarded.
    """
    _check_statuses_are_kept()
    check, timeout = options.pop("check", False), options.pop("timeout", None)
    given = options.pop("input", None)
    if given is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    begun: list[subprocess.Popen[Any]] = []
    stays: Stays = []
    try:
        begin(options, stays, begun.append)
        stdout, stderr = _communicated(begun[0], given, timeout, ended)
        _let_end(stays)
    except BaseException:
        _kill(begun)  # also if it was interrupted between two handlers
        _let_end(stays)
        raise
    process = begun[0]
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stdout, stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _communicated(
    process: subprocess.Popen[Any],
    given: Any,
    timeout: float | None,
    ended: Callable[[subprocess.Popen[Any]], object] | None,
) -> tuple[Any, Any]:
    try:
        with process:
            try:
                return process.communicate(given, timeout=timeout)
            except BaseException:
                process.kill()  # the end of the block waits for it
                raise
    finally:
        if process.returncode is not None and ended is not None:
            ended(process)


def _kill(begun: Iterable[subprocess.Popen[Any]]) -> None:
    for process in begun:
        process.kill()


def _let_end(stays: Stays) -> None:
    for let_end in stays:
        let_end()
