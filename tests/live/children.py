"""Functions that run in a forked child."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def in_a_child(function: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
        child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def staying(function: Callable[[], object]) -> Iterator[int]:
    """Fork a child that runs the function and keeps its result until it is killed at the end; yields its pid."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kept = function()
            os.write(tell, b"1")
            signal.pause()
            del kept
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(tell)  # so that nobody waits for a child that has failed
    try:
        with open(told, "rb") as end:
            assert end.read(1) == b"1", "the child has failed"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
